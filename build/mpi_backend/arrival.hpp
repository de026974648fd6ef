// The first phase of a collective: all ranks learn that all are there, and that they call the same.
#pragma once

#include "engine.hpp"
#include "reduce.hpp"

#include <cstdint>
#include <memory>

namespace glmpatch {

// What the ranks must agree on; nothing in it may differ from rank to rank.
struct Signature {
  char collective[32] = {}; // its name, within the struct: ranks send it to each other
  c10::ScalarType dtype = c10::ScalarType::Undefined;
  std::int8_t reduction = -1; // a value of Reduction, if it reduces
  std::int32_t root = -1;
  std::int64_t tensors = 0;
  std::int64_t elements = 0; // of all tensors
  std::uint64_t sizes = 0;   // a hash of the number of elements and the dtype of each
};

// A nonblocking MAX over (k, -k), where k is a hash of the signature: that is (k, -k) again only if it is the same on
// all ranks. It costs no more than a barrier. Where it is not, they tell each other what they called.
class Arrival {
 public:
  Arrival(std::shared_ptr<Communicator> communicator, const Signature& signature);

  // Starts at the first call; true once all ranks are there.
  bool poll();

  // To be called then. Throws Misuse, the same on every rank, where they disagree.
  void expect_agreement() const;

 private:
  std::shared_ptr<Communicator> communicator_;
  Signature signature_;
  bool started_ = false;
  std::int64_t mine_[2];
  std::int64_t greatest_[2] = {0, 0};
  MPI_Request request_ = MPI_REQUEST_NULL;
};

} // namespace glmpatch
