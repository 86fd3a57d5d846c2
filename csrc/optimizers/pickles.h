// Values as files of torch.save, which Python and C++ exchange.
#pragma once

#include <ATen/core/ivalue.h>

#include <string>
#include <vector>

namespace torchbcd {

/// The bytes of such a file.
std::vector<char> pickled(const c10::IValue& value);
/// What such a file holds. Throws a ValueError where it is none, or cannot be read.
c10::IValue unpickled(const std::string& path);

}  // namespace torchbcd
