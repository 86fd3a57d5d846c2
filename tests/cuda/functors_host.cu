// The formulas of csrc/functors as nvcc's host pass compiles them, with the macros that the CUDA kernels
// have: what runs on a GPU but for its arithmetic units. test_cuda.py loads this as a library and compares it
// with the CPU kernels bit for bit.
#include <cstdint>
#include <cstring>
#include <utility>
#include <variant>

#include "functors/activations.h"
#include "functors/losses.h"
#include "functors/summed.h"
#include "functors/updates.h"

namespace {

using namespace torchbcd::functors;

// Calls f(functor) for the alternative of that name, set to its parameters.
template <typename Variant, typename F, std::size_t... I>
bool visit_named(const char* name, F f, std::index_sequence<I...>) {
  const auto consider = [&](auto functor) {
    const bool chosen = std::strcmp(decltype(functor)::name, name) == 0;
    if (chosen) {
      f(functor);
    }
    return chosen;
  };
  return (consider(std::variant_alternative_t<I, Variant>{}) || ...);
}

template <typename F>
bool visit_activation(const char* name, const double* parameters, int count, F f) {
  const auto set = [&](auto functor) {
    if constexpr (decltype(functor)::parameters.must != nullptr) {
      functor.set(parameters, count);
    }
    f(functor);
  };
  return visit_named<AnyActivation>(name, set,
                                    std::make_index_sequence<std::variant_size_v<AnyActivation>>{});
}

template <typename F>
bool visit_loss(const char* name, F f) {
  return visit_named<AnyLoss>(name, f, std::make_index_sequence<std::variant_size_v<AnyLoss>>{});
}

// Entry i of every output from entry i of every input.
template <typename T>
struct Arrays {
  const T* const* in;
  T* const* out;
  int64_t n;

  template <typename Functor>
  void map(const Functor& functor) const {
    for (int64_t i = 0; i < n; ++i) {
      const auto result = [&] {
        if constexpr (Functor::Pass::inputs == 1) {
          return functor(in[0][i]);
        } else if constexpr (Functor::Pass::inputs == 2) {
          return functor(in[0][i], in[1][i]);
        } else {
          return functor(in[0][i], in[1][i], in[2][i]);
        }
      }();
      if constexpr (Functor::Pass::outputs == 2) {
        out[0][i] = result.first;
        out[1][i] = result.second;
      } else {
        out[0][i] = result;
      }
    }
  }
};

template <typename T>
bool evaluate(const char* op, const char* name, const double* parameters, int count, const double* numbers,
              const Arrays<T>& a) {
  const auto is = [op](const char* other) { return std::strcmp(op, other) == 0; };
  const auto number = [numbers](int i) { return static_cast<T>(numbers[i]); };
  const auto activation = [&](auto f) { return visit_activation(name, parameters, count, f); };
  if (is("activation_out")) {
    return activation([&](auto f) { a.map(ActivationValue<T, decltype(f)>{f}); });
  }
  if (is("prox_activation")) {
    return activation([&](auto f) { a.map(ActivationProx<T, decltype(f)>{f, number(0)}); });
  }
  if (is("activation_slopes")) {
    return activation([&](auto f) { a.map(ActivationSlopes<T, decltype(f)>{f}); });
  }
  if (is("preimage_projection")) {
    return activation([&](auto f) {
      if constexpr (decltype(f)::has_preimages) {
        const PreimageProjection<T, decltype(f)> project{f, numbers[0]};
        for (int64_t i = 0; i < a.n; ++i) {
          a.out[0][i] = project(a.in[0][i], a.in[1][i], a.in[2][i]).out[0];
        }
      }
    });
  }
  if (is("joint_state_update")) {
    return activation([&](auto f) {
      if constexpr (decltype(f)::has_preimages) {
        const JointStep<T, decltype(f)> step{f, T(0), T(0), number(1), number(0)};
        for (int64_t i = 0; i < a.n; ++i) {
          const auto moved = step(a.in[1][i], a.in[1][i], T(0), a.in[0][i], a.in[0][i]);
          a.out[0][i] = moved.out[0];
          a.out[1][i] = moved.out[1];
        }
      }
    });
  }
  if (is("prox_loss")) {
    return visit_loss(name, [&](auto f) {
      if constexpr (!decltype(f)::couples_row) {
        a.map(LossProx<T, decltype(f)>{f, number(0)});
      }
    });
  }
  if (is("loss_subdifferential")) {
    return visit_loss(name, [&](auto f) {
      if constexpr (!decltype(f)::couples_row) {
        a.map(LossSubdifferential<T, decltype(f)>{f});
      }
    });
  }
  if (is("prox_of_rows")) {  // numbers: gamma, classes
    const int64_t classes = static_cast<int64_t>(numbers[1]);
    return visit_loss(name, [&](auto f) {
      if constexpr (decltype(f)::couples_row) {
        for (int64_t i = 0; i < a.n; i += classes) {
          using Row = typename decltype(f)::template Row<T>;
          Row{a.in[0] + i, a.in[1] + i, a.out[0] + i, 1, 1, 1, classes, 1, numbers[0], {}}.solve();
        }
      }
    });
  }
  if (is("row_subgradient")) {  // numbers: unit, end, classes
    const int64_t classes = static_cast<int64_t>(numbers[2]);
    return visit_loss(name, [&](auto f) {
      if constexpr (decltype(f)::couples_row) {
        for (int64_t i = 0; i < a.n; i += classes) {
          T* const row[] = {a.out[0] + i, const_cast<T*>(a.in[0]) + i, const_cast<T*>(a.in[1]) + i};
          RowLossSubgradient<T, decltype(f)>{f, numbers[0], numbers[1]}(row, {classes, 1, 1, 1});
        }
      }
    });
  }
  if (is("prox_elastic_net")) {
    a.map(RegularizerProx<T>{{numbers[0], numbers[1]}, T(1)});
    return true;
  }
  if (is("regularizer_subdifferential")) {
    a.map(RegularizerSubdifferential<T>{{numbers[0], numbers[1], -1, 1}});
    return true;
  }
  return false;
}

}  // namespace

/// Whether `op` is known; then `outputs` hold what it gives.
extern "C" bool torchbcd_evaluate(const char* op, const char* name, const double* parameters, int count,
                                  const double* numbers, const void* const* inputs, void* const* outputs,
                                  int64_t n, bool is_double) {
  if (is_double) {
    return evaluate<double>(
        op, name, parameters, count, numbers,
        {reinterpret_cast<const double* const*>(inputs), reinterpret_cast<double* const*>(outputs), n});
  }
  return evaluate<float>(
      op, name, parameters, count, numbers,
      {reinterpret_cast<const float* const*>(inputs), reinterpret_cast<float* const*>(outputs), n});
}
