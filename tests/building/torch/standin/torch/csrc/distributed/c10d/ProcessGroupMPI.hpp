#pragma once

#ifdef USE_C10D_MPI

#include <ATen/ATen.h>
#include <torch/csrc/distributed/c10d/Types.hpp>

#include <mpi.h>

namespace c10d {

// The group of all ranks.
class ProcessGroupMPI {
 public:
  // Starts MPI.
  ProcessGroupMPI();

  int getRank() const;
  int getSize() const;

  void allreduce(at::Tensor& data, const AllreduceOptions& opts = AllreduceOptions());
  void broadcast(at::Tensor& data, const BroadcastOptions& opts = BroadcastOptions());
  // `output` has room for `input` once per rank.
  void allgather(at::Tensor& output, at::Tensor& input);
  void barrier();

  // Ends MPI. Nothing else may follow.
  static void finalize();

 private:
  MPI_Comm pgComm_ = MPI_COMM_WORLD;
};

} // namespace c10d

#endif // USE_C10D_MPI
