#include "arrival.hpp"

#include <c10/util/hash.h>

#include <string>
#include <string_view>
#include <vector>

namespace glmpatch {

namespace {

std::int64_t hash(const Signature& signature) {
  std::uint64_t hash = signature.sizes;
  for (const std::int64_t part :
       {static_cast<std::int64_t>(std::hash<std::string_view>()(signature.collective)), std::int64_t(signature.dtype),
        std::int64_t(signature.reduction), std::int64_t(signature.root), signature.tensors, signature.elements}) {
    hash = c10::hash_combine(hash, static_cast<std::uint64_t>(part));
  }
  return static_cast<std::int64_t>(hash >> 1); // not negative, so that it can be negated
}

std::string describe(const Signature& signature) {
  std::string text = signature.collective;
  if (signature.reduction >= 0) {
    text += c10::str(" ", name_of(static_cast<Reduction>(signature.reduction)));
  }
  if (signature.tensors > 0) {
    text += c10::str(" of ", signature.tensors, " x ", signature.dtype, ", ", signature.elements, " elements in all");
  } else if (signature.dtype != c10::ScalarType::Undefined) {
    text += c10::str(" of ", signature.dtype);
  }
  if (signature.root >= 0) {
    text += c10::str(", root ", signature.root);
  }
  return text;
}

} // namespace

Arrival::Arrival(std::shared_ptr<Communicator> communicator, const Signature& signature)
    : communicator_(std::move(communicator)), signature_(signature), mine_{hash(signature), -hash(signature)} {}

bool Arrival::poll() {
  if (!started_) {
    started_ = true;
    check(MPI_Iallreduce(mine_, greatest_, 2, MPI_INT64_T, MPI_MAX, communicator_->handle, &request_),
          "MPI_Iallreduce");
  }
  int complete = 0;
  check(MPI_Test(&request_, &complete, MPI_STATUS_IGNORE), "MPI_Test");
  return complete != 0;
}

void Arrival::expect_agreement() const {
  if (greatest_[0] == -greatest_[1]) {
    return;
  }
  constexpr auto kBytes = static_cast<int>(sizeof(Signature));
  std::vector<Signature> all(communicator_->size);
  check(MPI_Allgather(&signature_, kBytes, MPI_BYTE, all.data(), kBytes, MPI_BYTE, communicator_->handle),
        "MPI_Allgather");
  std::string text;
  for (int rank = 0; rank < communicator_->size; ++rank) {
    text += c10::str(rank ? "; " : "", "rank ", rank, ": ", describe(all[rank]));
  }
  throw Misuse("the ranks call different collectives, or the same with other tensors: " + text);
}

} // namespace glmpatch
