// Where bound data that are larger than memory are kept.
#pragma once

#include <string>

namespace torchbcd {

/// A folder for bound data and their split variables; none: they are in memory. It must exist, and be of one
/// optimizer alone.
struct ScratchDir {
  std::string path;
  /// Whether to go on from the last complete sweep of the run in the folder, where there is one. Otherwise a
  /// folder with a run is refused.
  bool resume = false;
};

}  // namespace torchbcd
