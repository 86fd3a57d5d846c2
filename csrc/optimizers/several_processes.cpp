// Rows in several processes: what the calls of an optimizer make sure of together.
#include <c10/util/Exception.h>

#include <exception>
#include <utility>

#include "optimizers/process_group.h"
#include "optimizers/trained_mlp.h"
#include "torchbcd/split_optimizer.h"

namespace torchbcd {
namespace {

// What has gone wrong in this process alone.
struct Failure {
  std::exception_ptr error;
  std::string said;

  explicit operator bool() const { return static_cast<bool>(error); }
};

Failure failure_of(const std::function<void()>& own) {
  try {
    own();
  } catch (const c10::Error& error) {
    return {std::current_exception(), error.what_without_backtrace()};
  } catch (const std::exception& error) {
    return {std::current_exception(), error.what()};
  }
  return {};
}

// Throws the failure; nothing where none of the processes has any. Otherwise returns which others have failed
// and, where it was one, what it said.
std::string failed_elsewhere(const TrainedMlp& mlp, const at::Device& device, const Agreement& agreement,
                             const Failure& failure) {
  if (agreement.failures == 0) {
    return {};
  }
  const std::string which = mlp.rank < 0 ? "another process" : c10::str("the process of rank ", mlp.rank);
  const std::string theirs =
      what_failed(mlp.sum_over_ranks, device, agreement, failure ? which + ": " + failure.said : "");
  if (failure) {
    std::rethrow_exception(failure.error);
  }
  return theirs.empty() ? c10::str(agreement.failures, " other processes") : theirs;
}

}  // namespace

bool SplitOptimizer::has_other_ranks() const { return static_cast<bool>(mlp_->sum_over_ranks); }

void SplitOptimizer::set_sum_over_ranks(std::function<void(const at::Tensor&)> sum,
                                        std::function<void(const at::Tensor&)> wait) {
  const Call call = mlp_->call(Call::Kind::kChange);
  check_takes_ranks();
  mlp_->sum_over_ranks = SumOverRanks();
  if (sum) {
    const auto start = [sum = std::move(sum), mlp = mlp_.get()](const at::Tensor& t) {
      mlp->bytes_sent += static_cast<int64_t>(t.nbytes());
      sum(t);
    };
    mlp_->sum_over_ranks = SumOverRanks(start, std::move(wait));
  }
  mlp_->weights_changed = true;
  unbind();
  moved();
}

void SplitOptimizer::set_process_group(const std::string& name, int64_t rank) {
  const Call call = mlp_->call(Call::Kind::kChange);
  check_takes_ranks();
  broadcast_from_first_rank(tensors_of(mlp_->parameters), name);
  const SumOverRanks sum = sum_over_process_group(name);
  set_sum_over_ranks([sum](const at::Tensor& t) { sum.start(t); },
                     [sum](const at::Tensor& t) { sum.wait(t); });
  mlp_->rank = rank;
}

void SplitOptimizer::refuse(const std::string& reason) {
  const Call call = mlp_->call(Call::Kind::kLook);
  begin("refused", [&] { TORCH_CHECK_VALUE(false, reason); });
}

int64_t SplitOptimizer::bytes_sent() const { return mlp_->bytes_sent; }

void SplitOptimizer::begin(const std::string& way, const std::function<void()>& own,
                           const std::vector<double>& state, const std::vector<double*>& sums) {
  mlp_->bytes_sent = 0;
  if (!has_other_ranks()) {
    own();
    return;
  }
  const Failure failure = failure_of(own);
  // So many in every message, however few a call has: that processes take different calls is noticed by what
  // it says, which a message of another length would not come to.
  constexpr size_t kNumbers = 3;
  double nothing = 0;
  TORCH_INTERNAL_ASSERT(sums.size() <= kNumbers);
  std::vector<double*> numbers = sums;
  numbers.resize(kNumbers, &nothing);
  Fingerprint fingerprint;
  if (!failure) {
    fingerprint.add(way);
    fingerprint.add(state);
    for (const std::string& option : option_names()) {
      fingerprint.add(this->option(option));
    }
    for (const std::string& option : choice_names()) {
      fingerprint.add(choice(option));
    }
    for (size_t l = 0; l < mlp_->depth() && mlp_->weights_changed; ++l) {  // otherwise they are the same
      for (const at::Tensor& t : tensors_of(mlp_->committed[l])) {
        fingerprint.add(t);
      }
      std::vector<double> trained;
      for (const MapPart& part : kMapParts) {
        trained.push_back(mlp_->trained[l].*part.trained ? 1 : 0);
      }
      fingerprint.add(trained);
    }
  }
  const at::Device device = mlp_->committed[0].weight.device();
  const Agreement agreement =
      agree(mlp_->sum_over_ranks, device, fingerprint, static_cast<bool>(failure), numbers);
  mlp_->weights_changed = true;  // in every process, until all are known to be the same
  const std::string elsewhere = failed_elsewhere(*mlp_, device, agreement, failure);
  TORCH_CHECK_VALUE(elsewhere.empty(), mlp_->name, ": refused in ", elsewhere);
  TORCH_CHECK_VALUE(
      agreement.same, mlp_->name,
      ": the processes differ, in an option, in weights or requires_grad changed since the last "
      "sweep, or in how they step; all of them must be the same in every process");
  mlp_->weights_changed = false;
}

void SplitOptimizer::check_any_rows(double rows_of_all) const {
  TORCH_CHECK_VALUE(rows_of_all > 0, mlp_->name,
                    ": one of the processes must have a row at least (got none in all of them)");
}

void SplitOptimizer::end(const std::function<void()>& own) {
  if (!has_other_ranks()) {
    own();
    return;
  }
  const Failure failure = failure_of(own);
  const at::Device device = mlp_->committed[0].weight.device();
  const Agreement agreement = agree(mlp_->sum_over_ranks, device, {}, static_cast<bool>(failure));
  const std::string elsewhere = failed_elsewhere(*mlp_, device, agreement, failure);
  TORCH_CHECK_LINALG(elsewhere.empty(), mlp_->name, ": failed in ", elsewhere);
}

}  // namespace torchbcd
