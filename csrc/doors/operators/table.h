// The table of operators: X(name, arguments, schema, function, kind).
//
// arguments  How many the C++ function of torchbcd/functional.h takes; 0 for an operator without one, which
//            Python alone calls.
// function   The implementation, for CPU and CUDA; none has a derivative. In parentheses if it has a comma.
// kind       What its results look like, for fake tensors:
//              broadcast              as a + b of the first two tensors
//              like_first             the first tensor, strides included
//              new_like_first         its shape, contiguous
//              new_like_first_twice   two of these
//              new_like_first_thrice  three of these
//              new_like_second        the second tensor's shape, contiguous
//              new_rows               (n, 1) for the first tensor's n rows
//              new_map                the weight and the bias of a weight update
//              new_parameters_twice   the parameters' shapes, twice
//              new_variables          these once, and of each layer U, and V
//              writes                 nothing; it writes to its outputs
#pragma once

// clang-format off
#define TORCHBCD_OPERATORS(X)                                                                               \
  X(prox_relu, 3, "(Tensor a, Tensor b, float gamma) -> Tensor",                                            \
    prox_activation<functors::ReLU>, broadcast)                                                             \
  X(prox_identity, 3, "(Tensor a, Tensor b, float gamma) -> Tensor",                                        \
    prox_activation<functors::Identity>, broadcast)                                                         \
  X(prox_sigmoid, 3, "(Tensor a, Tensor b, float gamma) -> Tensor",                                         \
    prox_activation<functors::Sigmoid>, broadcast)                                                          \
  X(prox_tanh, 3, "(Tensor a, Tensor b, float gamma) -> Tensor",                                            \
    prox_activation<functors::Tanh>, broadcast)                                                             \
  X(prox_hardsigmoid, 3, "(Tensor a, Tensor b, float gamma) -> Tensor",                                     \
    prox_activation<functors::HardSigmoid>, broadcast)                                                      \
  X(prox_sign, 3, "(Tensor a, Tensor b, float gamma) -> Tensor",                                            \
    prox_activation<functors::Sign>, broadcast)                                                             \
  X(prox_silu, 3, "(Tensor a, Tensor b, float gamma) -> Tensor",                                            \
    prox_activation<functors::SiLU>, broadcast)                                                             \
  X(prox_gelu, 3, "(Tensor a, Tensor b, float gamma) -> Tensor",                                            \
    prox_activation<functors::GELU>, broadcast)                                                             \
  X(prox_gelu_tanh, 3, "(Tensor a, Tensor b, float gamma) -> Tensor",                                       \
    prox_activation<functors::TanhGELU>, broadcast)                                                         \
  X(prox_mish, 3, "(Tensor a, Tensor b, float gamma) -> Tensor",                                            \
    prox_activation<functors::Mish>, broadcast)                                                             \
  X(prox_hardswish, 3, "(Tensor a, Tensor b, float gamma) -> Tensor",                                       \
    prox_activation<functors::HardSwish>, broadcast)                                                        \
  X(prox_logsigmoid, 3, "(Tensor a, Tensor b, float gamma) -> Tensor",                                      \
    prox_activation<functors::LogSigmoid>, broadcast)                                                       \
  X(prox_softsign, 3, "(Tensor a, Tensor b, float gamma) -> Tensor",                                        \
    prox_activation<functors::Softsign>, broadcast)                                                         \
  X(prox_tanhshrink, 3, "(Tensor a, Tensor b, float gamma) -> Tensor",                                      \
    prox_activation<functors::Tanhshrink>, broadcast)                                                       \
  X(prox_sine, 3, "(Tensor a, Tensor b, float gamma) -> Tensor",                                            \
    prox_activation<functors::Sine>, broadcast)                                                             \
  X(prox_elu, 6,                                                                                            \
    "(Tensor a, Tensor b, float gamma, float alpha=1.0, float scale=1.0, float rate=1.0) -> Tensor",        \
    (prox_activation<functors::ELU, double, double, double>), broadcast)                                    \
  X(prox_softplus, 5, "(Tensor a, Tensor b, float gamma, float beta=1.0, float threshold=20.0) -> Tensor",  \
    (prox_activation<functors::Softplus, double, double>), broadcast)                                       \
  X(prox_softshrink, 4, "(Tensor a, Tensor b, float gamma, float lambd=0.5) -> Tensor",                     \
    (prox_activation<functors::Softshrink, double>), broadcast)                                             \
  X(prox_hardshrink, 4, "(Tensor a, Tensor b, float gamma, float lambd=0.5) -> Tensor",                     \
    (prox_activation<functors::Hardshrink, double>), broadcast)                                             \
  X(prox_threshold, 5, "(Tensor a, Tensor b, float gamma, float threshold, float value) -> Tensor",         \
    (prox_activation<functors::Threshold, double, double>), broadcast)                                      \
  X(prox_leaky_relu, 4, "(Tensor a, Tensor b, float gamma, float negative_slope=0.01) -> Tensor",           \
    (prox_activation<functors::LeakyReLU, double>), broadcast)                                              \
  X(prox_hardtanh, 5, "(Tensor a, Tensor b, float gamma, float min_val=-1.0, float max_val=1.0) -> Tensor", \
    (prox_activation<functors::HardTanh, double, double>), broadcast)                                       \
  X(prox_polynomial, 4, "(Tensor a, Tensor b, float gamma, float[] coefficients) -> Tensor",                \
    prox_polynomial_of, broadcast)                                                                          \
  X(prox_squared_loss, 3, "(Tensor y, Tensor b, float gamma) -> Tensor",                                    \
    prox_loss<functors::SquaredLoss>, broadcast)                                                            \
  X(prox_hinge_loss, 3, "(Tensor y, Tensor b, float gamma) -> Tensor",                                      \
    prox_loss<functors::HingeLoss>, broadcast)                                                              \
  X(prox_logistic_loss, 3, "(Tensor y, Tensor b, float gamma) -> Tensor",                                   \
    prox_loss<functors::LogisticLoss>, broadcast)                                                           \
  X(prox_exponential_loss, 3, "(Tensor y, Tensor b, float gamma) -> Tensor",                                \
    prox_loss<functors::ExponentialLoss>, broadcast)                                                        \
  X(prox_huber_loss, 3, "(Tensor y, Tensor b, float gamma) -> Tensor",                                      \
    prox_loss<functors::HuberLoss>, broadcast)                                                              \
  X(prox_binary_cross_entropy_loss, 3, "(Tensor y, Tensor b, float gamma) -> Tensor",                       \
    prox_loss<functors::BinaryCrossEntropyLoss>, broadcast)                                                 \
  X(prox_poisson_loss, 3, "(Tensor y, Tensor b, float gamma) -> Tensor",                                    \
    prox_loss<functors::PoissonLoss>, broadcast)                                                            \
  X(prox_quantile_loss, 4, "(Tensor y, Tensor b, float gamma, float tau=0.5) -> Tensor", prox_quantile,     \
    broadcast)                                                                                              \
  X(prox_cross_entropy_loss, 3, "(Tensor target, Tensor b, float gamma) -> Tensor",                         \
    prox_cross_entropy, new_like_second)                                                                    \
  X(prox_row_hinge_loss, 3, "(Tensor y, Tensor b, float gamma) -> Tensor", prox_row_hinge, new_like_second) \
  X(prox_l1, 2, "(Tensor x, float t) -> Tensor", prox_l1_of, like_first)                                    \
  X(prox_l2, 2, "(Tensor x, float t) -> Tensor", prox_l2_of, like_first)                                    \
  X(prox_elastic_net, 3, "(Tensor x, float t1, float t2) -> Tensor", prox_elastic_net_of, like_first)       \
  X(project_nonnegative, 1, "(Tensor x) -> Tensor", project_nonnegative_of, like_first)                     \
  X(project_box, 3, "(Tensor x, float lo, float hi) -> Tensor", project_box_of, like_first)                 \
  X(weight_update, 6,                                                                                       \
    "(Tensor u, Tensor v, Tensor weight, Tensor? bias, float rho, float alpha) -> (Tensor, Tensor)",        \
    update_weight, new_map)                                                                                 \
  X(state_update, 6,                                                                                        \
    "(Tensor s, Tensor u, Tensor weight, Tensor? bias, float gamma, float rho) -> Tensor",                  \
    update_state, new_like_first)                                                                           \
  X(preimage_projection, 6,                                                                                 \
    "(Tensor q, Tensor a, Tensor z, str activation, float[] parameters, float eps) -> Tensor",              \
    project_to_preimages, new_like_first)                                                                   \
  X(joint_state_update, 6,                                                                                  \
    "(Tensor q, Tensor v, str activation, float[] parameters, float ratio, float eps) -> (Tensor, Tensor)", \
    update_joint_state, new_like_first_twice)                                                               \
  X(relaxed_step, 0,                                                                                        \
    "(Tensor x, Tensor y, Tensor[] parameters, Tensor[] velocity, str[] activations, str skips, "           \
    "str loss, str options) -> Tensor[]",                                                                   \
    step_relaxed, new_parameters_twice)                                                                     \
  X(bcd_sweep, 0,                                                                                           \
    "(Tensor x, Tensor y, Tensor[] parameters, Tensor[] u, Tensor[] v, str[] activations, str skips, "      \
    "str loss, str options) -> Tensor[]",                                                                   \
    sweep_of_bcd, new_variables)                                                                            \
  X(activation_out, 0, "(Tensor u, str activation, float[] parameters, *, Tensor(a!) out) -> ()",           \
    activation_into, writes)                                                                                \
  X(activation_slopes, 0, "(Tensor u, str activation, float[] parameters) -> (Tensor, Tensor)",             \
    slopes_of_activation, new_like_first_twice)                                                             \
  X(row_losses, 0, "(Tensor y, Tensor v, str loss) -> Tensor", losses_of_rows, new_rows)                    \
  X(loss_subdifferential, 0,                                                                                \
    "(Tensor y, Tensor v, str loss, float unit) -> (Tensor, Tensor, Tensor)",                               \
    subdifferential_of_loss, new_like_first_thrice)                                                         \
  X(regularizer_penalty, 0, "(Tensor x, float l1, float l2, float low, float high) -> Tensor",              \
    penalty_of_regularizer, like_first)                                                                     \
  X(regularizer_subdifferential, 0,                                                                         \
    "(Tensor x, float l1, float l2, float low, float high) -> (Tensor, Tensor)",                            \
    subdifferential_of_regularizer, new_like_first_twice)                                                   \
  X(encode_targets, 0, "(Tensor y, Tensor outputs, str loss) -> Tensor", targets_of_classes, new_like_second)
// clang-format on
