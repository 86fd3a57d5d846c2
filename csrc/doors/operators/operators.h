// The operators torch.ops.torchbcd.<name>, from one table (table.h): their registration, the C++ functions of
// torchbcd/functional.h, the shape rules of torchbcd/_fakes.py and the arguments that the tests give them.
#pragma once

#include <string>
#include <vector>

namespace torchbcd {

struct OperatorRow {
  std::string name;    // "prox_relu"
  std::string schema;  // "(Tensor a, Tensor b, float gamma) -> Tensor"
  std::string kind;    // what its results look like: see table.h
};

/// All of them; torch.ops.torchbcd._operator_table() gives "name kind" of each.
std::vector<OperatorRow> operator_table();

}  // namespace torchbcd
