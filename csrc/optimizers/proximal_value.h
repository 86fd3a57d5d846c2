// A regulariser of one's own among the values of options, which are numbers otherwise.
#pragma once

#include <ATen/core/ivalue.h>

#include <memory>
#include <utility>

#include "optimizers/dicts.h"
#include "torchbcd/proximal_term.h"

namespace torchbcd {

/// What a capsule holds.
struct ProximalHolder : torch::CustomClassHolder {
  explicit ProximalHolder(std::shared_ptr<const ProximalTerm> of) : term(std::move(of)) {}

  std::shared_ptr<const ProximalTerm> term;
};

inline c10::IValue capsule_of(std::shared_ptr<const ProximalTerm> term) {
  return c10::IValue::make_capsule(c10::make_intrusive<ProximalHolder>(std::move(term)));
}

/// None where a value is no such capsule.
inline std::shared_ptr<const ProximalTerm> term_in(const c10::IValue& value) {
  if (!value.isCapsule()) {
    return nullptr;
  }
  const c10::intrusive_ptr<torch::CustomClassHolder> held = value.toCapsule();
  const auto* const holder = dynamic_cast<const ProximalHolder*>(held.get());
  return holder != nullptr ? holder->term : nullptr;
}

/// A value of an option as files hold it: with a term's name in its place.
inline c10::IValue named_terms(const c10::IValue& value) {
  if (!value.isList()) {
    const std::shared_ptr<const ProximalTerm> term = term_in(value);
    return term ? c10::IValue(term->name) : value;
  }
  c10::impl::GenericList list = python_list();
  for (const c10::IValue& item : value.toListRef()) {
    list.push_back(named_terms(item));
  }
  return list;
}

}  // namespace torchbcd
