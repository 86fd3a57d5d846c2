// The umbrella header: everything that a C++ program uses.
//
//   torch::nn::Sequential model(torch::nn::Linear(784, 300), torch::nn::ReLU(), torch::nn::Linear(300, 10));
//   torchbcd::BCD optimizer(model, torchbcd::BCDOptions().gamma(1.0).alpha(0.05));
//   optimizer.bind(x, y);
//   for (int k = 0; k < 30; ++k) {
//     optimizer.step();
//   }
#pragma once

#include "torchbcd/bcd.h"
#include "torchbcd/checkpoint.h"
#include "torchbcd/dladmm.h"
#include "torchbcd/dlam.h"
#include "torchbcd/functional.h"
#include "torchbcd/mlp.h"
#include "torchbcd/normalization.h"
#include "torchbcd/options.h"
#include "torchbcd/per_layer.h"
#include "torchbcd/proximal_term.h"
#include "torchbcd/regularizers.h"
#include "torchbcd/relaxed_bcd.h"
#include "torchbcd/reports.h"
#include "torchbcd/ridge_head.h"
#include "torchbcd/scratch_dir.h"
#include "torchbcd/skip.h"
#include "torchbcd/split_optimizer.h"
#include "torchbcd/version.h"
#include "torchbcd/weight_regularizers.h"
