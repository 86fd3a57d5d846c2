// Two results of one formula: what a pass writes into its first and its second output.
#pragma once

namespace torchbcd::functors {

template <typename T>
struct Pair {
  T first;
  T second;
};

}  // namespace torchbcd::functors
