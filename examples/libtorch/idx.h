// Files in IDX format, in which MNIST and Fashion-MNIST come.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

/// Inputs in [0, 1], (n, pixels), and classes (n,), of a training and a test part.
struct Data {
  at::Tensor x, y, x_test, y_test;
};

/// The array of a file of unsigned bytes, compressed by gzip or not. Throws a std::runtime_error where it
/// cannot be read.
at::Tensor read_idx(const std::string& path);

/// The four files of a data set in a folder.
Data load_data(const std::string& folder);
