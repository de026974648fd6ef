// The blocking phase of each collective: MPI calls on plain memory, cut into chunks. Called by the driver of the engine
// alone, once every rank of the communicator is there. Each throws c10::DistBackendError with MPI's own text.
#pragma once

#include "reduce.hpp"

#include <mpi.h>

#include <cstdint>
#include <vector>

namespace glmpatch {

struct Block {
  char* data = nullptr;
  std::int64_t bytes = 0;
};

// A block of another rank's, or for another rank.
struct Part {
  int peer = 0;
  Block block;
};

// A ReduceOp of c10d: what MPI does of it, and what comes before and after. Throws c10::Error for what makes no sense.
class Reducer {
 public:
  // `factor` is that of PREMUL_SUM, `size` the number of ranks.
  Reducer(Reduction op, c10::ScalarType dtype, int size, double factor = 1);

  MPI_Datatype type() const;
  MPI_Op operation() const;
  int count(int bytes) const;
  bool scales() const;
  void before(char* data, int bytes) const;
  void after(char* data, int bytes) const;

 private:
  Reduction op_;
  c10::ScalarType dtype_;
  int size_;
  double factor_;
};

void broadcast(MPI_Comm comm, Block block, int root);
void all_reduce(MPI_Comm comm, Block block, const Reducer& reducer);
void reduce(MPI_Comm comm, Block block, const Reducer& reducer, int root, bool is_root);
// One block a rank in `inputs` and `outputs`, in their order. The rank's own output may be its input.
void reduce_scatter(MPI_Comm comm, const std::vector<Block>& inputs, Block output, const Reducer& reducer);
void all_gather(MPI_Comm comm, Block input, const std::vector<Block>& outputs);
// Throws c10::Error, the same on every rank, where one sends another what that does not expect. One part a rank, in
// order.
void expect_fitting(MPI_Comm comm, const std::vector<Part>& sends, const std::vector<Part>& receives);
// Sends and receives any parts, which must fit; gather, scatter and all_to_all are made of it.
void exchange(MPI_Comm comm, int rank, const std::vector<Part>& sends, const std::vector<Part>& receives);

// The messages of users have tags below it. It is the largest that every MPI has.
constexpr int kCollectiveTag = 32767;

} // namespace glmpatch
