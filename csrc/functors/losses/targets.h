// What a loss does with class indices.
#pragma once

namespace torchbcd::functors {

enum class TargetEncoding {
  kOneHot,        // the row of the identity matrix
  kPlusMinusOne,  // one class against the rest: +1 at the class, -1 elsewhere; with one output, two classes
};

}  // namespace torchbcd::functors
