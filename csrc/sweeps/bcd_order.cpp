#include "sweeps/bcd_order.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <charconv>
#include <sstream>
#include <string>
#include <string_view>

namespace torchbcd {
namespace {

// "U2" as the U of the second layer.
BcdBlock parse(const std::string& name, const std::string& variables, size_t depth) {
  size_t number = 0;
  const std::string_view digits = std::string_view(name).substr(1);
  const auto [end, error] = std::from_chars(digits.begin(), digits.end(), number);
  TORCH_CHECK_VALUE(
      variables.find(name[0]) != std::string::npos && error == std::errc() && end == digits.end() &&
          number >= 1 && number <= depth,
      "torchbcd.BCD: order must be 'paper', 'states_first', 'layer_parallel', 'joint', or a list of blocks, "
      "each one of ",
      variables, " with a layer from 1 to ", depth, " (got '", name, "')");
  return {name[0], number - 1};
}

std::vector<BcdBlock> listed(const std::string& order, const std::string& variables, size_t depth) {
  std::vector<BcdBlock> blocks;
  std::istringstream names(order);
  for (std::string name; names >> name;) {
    blocks.push_back(parse(name, variables, depth));
  }
  for (size_t l = depth; l-- > 0;) {
    for (const char variable : variables) {
      TORCH_CHECK_VALUE(std::find(blocks.begin(), blocks.end(), BcdBlock{variable, l}) != blocks.end(),
                        "torchbcd.BCD: order must have every block at least once (", variable, l + 1,
                        " is missing from '", order, "')");
    }
  }
  return blocks;
}

}  // namespace

std::vector<BcdBlock> blocks_in_order(const BCDOptions& options, size_t depth) {
  const bool three = options.splitting() == 3;
  const std::string& order = options.order();
  const int64_t passes = options.inner_sweeps();
  std::vector<BcdBlock> blocks;
  const auto all = [&](std::string_view variables) {  // of a layer, from the last layer to the first
    for (size_t l = depth; l-- > 0;) {
      for (const char variable : variables) {
        blocks.push_back({variable, l});
      }
    }
  };
  const std::string_view states = three ? "VU" : "V";
  if (order == "paper") {
    for (size_t l = depth; l-- > 0;) {
      for (int64_t pass = 0; pass < passes; ++pass) {
        for (const char variable : states) {
          blocks.push_back({variable, l});
        }
      }
      blocks.push_back({'W', l});
    }
  } else if (order == "states_first") {
    for (int64_t pass = 0; pass < passes; ++pass) {
      all(states);
    }
    all("W");
  } else if (order == "layer_parallel") {
    TORCH_CHECK_VALUE(three,
                      "torchbcd.BCD: order 'layer_parallel' needs splitting 3; with splitting 2 the V of "
                      "neighbouring layers are in one term");
    for (int64_t pass = 0; pass < passes; ++pass) {
      all("V");
      all("U");
    }
    all("W");
  } else {
    TORCH_CHECK_VALUE(passes == 1,
                      "torchbcd.BCD: inner_sweeps must be 1 where order is a list of blocks or 'joint' (got ",
                      passes, ")");
    if (order == "joint") {
      TORCH_CHECK_VALUE(
          !three,
          "torchbcd.BCD: order 'joint' needs splitting 2; with splitting 3 the V of two layers are "
          "in no term, and all of them are one block in the order 'layer_parallel'");
      all("V");
      all("W");
      return blocks;
    }
    blocks = listed(order, three ? "VUW" : "VW", depth);
  }
  return blocks;
}

}  // namespace torchbcd
