// What sweeps share whose blocks are of entries, and which train the slopes of PReLUs: the activations as the
// slopes are by now, and the slopes' block.
#pragma once

#include <vector>

#include "blocks/slope.h"
#include "sweeps/layers.h"

namespace torchbcd {

template <typename Sweep>
class SlopedBlocks : protected Blocks<Sweep> {
 protected:
  explicit SlopedBlocks(const Sweep& sweep)
      : Blocks<Sweep>(sweep), activations_(activations_at(this->problem_.activations, sweep.maps)) {
    for (size_t l = 0; l < this->depth(); ++l) {
      if (sweep.maps[l].slope.defined()) {
        sweep.next_maps[l].slope.copy_(sweep.maps[l].slope);
      }
    }
  }

  const functors::AnyActivation& activation(size_t l) const { return activations_[l]; }
  bool trains_slope(size_t l) const { return this->problem_.trained[l].slope; }

  // The slope that penalty/2 |v - sigma(u)|^2 has, exactly, with a proximal term.
  void slope_block(size_t l, const at::Tensor& v, const at::Tensor& u, double penalty, double proximal) {
    SlopeSums sums;
    for_each_chunk(v.size(0), [&](int64_t begin, int64_t size) {
      sums.add(v.narrow(0, begin, size), u.narrow(0, begin, size), activation(l));
    });
    sums.over_ranks(Totals(this->problem_.sum_over_ranks, v.device()));
    const at::Tensor& slope = this->sweep_.next_maps[l].slope;
    slope.copy_(sums.minimiser(slope, penalty, proximal));
    activations_[l] = with_slope(activations_[l], slope);
    this->done("map", l);
  }

 private:
  std::vector<functors::AnyActivation> activations_;
};

}  // namespace torchbcd
