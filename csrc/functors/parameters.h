// What a functor says of the numbers that users give it by position. Its `set` takes them over; it returns
// what must hold where it does not.
#pragma once

namespace torchbcd::functors {

struct ParameterCount {
  int fewest = 0;  // where any are given
  int most = 0;
  bool optional = true;        // whether none may be given: the defaults hold
  const char* must = nullptr;  // how errors put it; none for a functor without parameters

  constexpr bool allows(int count) const {
    return (count >= fewest && count <= most) || (optional && count == 0);
  }
};

}  // namespace torchbcd::functors
