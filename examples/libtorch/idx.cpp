#include "idx.h"

#include <torch/types.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <vector>

namespace {

using Bytes = std::vector<unsigned char>;

Bytes read_plain(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// By the program gzip: one dependency less.
Bytes read_compressed(const std::string& path) {
  if (path.find('\'') != std::string::npos) {
    throw std::runtime_error(path + ": quotes in the names of compressed files are not supported");
  }
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(("gzip -cd '" + path + "'").c_str(), "r"), pclose);
  Bytes bytes;
  Bytes buffer(1 << 16);
  for (size_t read = 1; pipe && read > 0;) {
    read = std::fread(buffer.data(), 1, buffer.size(), pipe.get());
    bytes.insert(bytes.end(), buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(read));
  }
  return bytes;
}

std::string existing(const std::string& path) {
  for (const std::string& candidate : {path, path + ".gz"}) {
    if (std::filesystem::is_regular_file(candidate)) {
      return candidate;
    }
  }
  throw std::runtime_error("there is no file " + path + " and no " + path + ".gz");
}

}  // namespace

at::Tensor read_idx(const std::string& path) {
  const Bytes bytes = path.ends_with(".gz") ? read_compressed(path) : read_plain(path);
  if (bytes.size() < 4 || bytes[0] != 0 || bytes[1] != 0 || bytes[2] != 8) {
    throw std::runtime_error(path + " is not an IDX file of unsigned bytes");
  }
  const size_t dimensions = bytes[3];
  const size_t header = 4 + 4 * dimensions;
  std::vector<int64_t> shape;
  size_t entries = 1;
  for (size_t i = 4; i + 3 < header && i + 3 < bytes.size(); i += 4) {
    shape.push_back(bytes[i] << 24 | bytes[i + 1] << 16 | bytes[i + 2] << 8 | bytes[i + 3]);
    entries *= static_cast<size_t>(shape.back());
  }
  if (shape.size() != dimensions || bytes.size() != header + entries) {
    throw std::runtime_error(path + " is cut short");
  }
  return torch::from_blob(const_cast<unsigned char*>(bytes.data()) + header, shape, torch::kUInt8).clone();
}

Data load_data(const std::string& folder) {
  const auto images = [&](const char* name) {
    return read_idx(existing(folder + "/" + name)).flatten(1).to(torch::kFloat) / 255;
  };
  const auto labels = [&](const char* name) {
    return read_idx(existing(folder + "/" + name)).to(torch::kLong);
  };
  return {images("train-images-idx3-ubyte"), labels("train-labels-idx1-ubyte"),
          images("t10k-images-idx3-ubyte"), labels("t10k-labels-idx1-ubyte")};
}
