// The blocking phase of each collective: MPI calls on plain memory, cut into chunks. Called by the driver of the engine
// alone, once every rank of the communicator is there. They throw c10::DistBackendError with MPI's own text.
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

// A ReduceOp of c10d: what MPI does of it, and what comes before and after. Throws c10::Error for what makes no sense.
class Reducer {
 public:
  // `factor` is that of PREMUL_SUM, `size` the number of ranks.
  Reducer(Reduction op, c10::ScalarType dtype, int size, double factor = 1);

  MPI_Datatype type() const;
  MPI_Op operation() const;
  int count(int bytes) const;
  bool changes_inputs() const;
  void before(char* data, int bytes) const;
  void after(char* data, int bytes) const;

 private:
  bool averages_first() const;

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
// One block a rank in `sends` and `receives`, in their order. Throws Misuse, the same on every rank, where one sends
// another what that does not expect.
void expect_fitting(MPI_Comm comm, const std::vector<Block>& sends, const std::vector<Block>& receives);
// Sends and receives these blocks, which must fit; gather, scatter and all_to_all are made of it. Either may be empty.
void exchange(MPI_Comm comm, int rank, const std::vector<Block>& sends, const std::vector<Block>& receives);

// The messages of users have tags below it. It is the largest that every MPI has.
constexpr int kCollectiveTag = 32767;

} // namespace glmpatch
