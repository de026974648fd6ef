// ProcessGroupMPI for the stock PyTorch: c10d's collectives on the progress engine.
#pragma once

#include "collectives.hpp"
#include "engine.hpp"

#include <torch/csrc/distributed/c10d/Backend.hpp>

namespace glmpatch {

class ProcessGroupMPI : public c10d::Backend {
 public:
  // A group of these ranks of MPI_COMM_WORLD; empty: all. Called by its members alone.
  static c10::intrusive_ptr<ProcessGroupMPI> create(std::vector<int> ranks, milliseconds timeout);

  ProcessGroupMPI(std::shared_ptr<Communicator> communicator, milliseconds timeout);
  ~ProcessGroupMPI() override;

  const std::string getBackendName() const override { return "mpi"; }

  using Work = c10::intrusive_ptr<c10d::Work>;
  using Tensors = std::vector<at::Tensor>;
  using Lists = std::vector<Tensors>;

  Work broadcast(Tensors& tensors, const c10d::BroadcastOptions& opts) override;
  Work allreduce(Tensors& tensors, const c10d::AllreduceOptions& opts) override;
  Work allreduce_sparse(Tensors& tensors, const c10d::AllreduceOptions& opts) override;
  Work allreduce_coalesced(Tensors& tensors, const c10d::AllreduceCoalescedOptions& opts) override;
  Work reduce(Tensors& tensors, const c10d::ReduceOptions& opts) override;
  Work allgather(Lists& outputs, Tensors& inputs, const c10d::AllgatherOptions& opts) override;
  Work _allgather_base(at::Tensor& output, at::Tensor& input, const c10d::AllgatherOptions& opts) override;
  Work allgather_coalesced(Lists& outputs, Tensors& inputs, const c10d::AllgatherOptions& opts) override;
  Work allgather_into_tensor_coalesced(Tensors& outputs, Tensors& inputs, const c10d::AllgatherOptions& opts) override;
  Work gather(Lists& outputs, Tensors& inputs, const c10d::GatherOptions& opts) override;
  Work scatter(Tensors& outputs, Lists& inputs, const c10d::ScatterOptions& opts) override;
  Work reduce_scatter(Tensors& outputs, Lists& inputs, const c10d::ReduceScatterOptions& opts) override;
  Work _reduce_scatter_base(at::Tensor& output, at::Tensor& input, const c10d::ReduceScatterOptions& opts) override;
  Work reduce_scatter_tensor_coalesced(Tensors& outputs, Tensors& inputs,
                                       const c10d::ReduceScatterOptions& opts) override;
  Work alltoall(Tensors& outputs, Tensors& inputs, const c10d::AllToAllOptions& opts) override;
  Work alltoall_base(at::Tensor& output, at::Tensor& input, std::vector<int64_t>& output_splits,
                     std::vector<int64_t>& input_splits, const c10d::AllToAllOptions& opts) override;
  Work send(Tensors& tensors, int destination, int tag) override;
  Work recv(Tensors& tensors, int source, int tag) override;
  Work recvAnysource(Tensors& tensors, int tag) override;
  Work barrier(const c10d::BarrierOptions& opts) override;

  void setSequenceNumberForGroup() override {}
  uint64_t getSequenceNumberForGroup() override { return sequence_; }

  // Not marked `override`: c10d::Backend has these only in newer versions of torch.
  void setTimeout(milliseconds timeout) { timeout_ = timeout; }
  void shutdown();

 private:
  class Call;
  using Gathered = std::pair<Block, std::vector<Block>>;  // an input, and where what each rank has of it goes
  using Scattered = std::pair<std::vector<Block>, Block>; // what each rank gets a share of, and the share of this one

  Work gather_all(Call& call, const std::vector<Gathered>& all, const Tensors& inputs, const Tensors& outputs);
  Work scatter_all(Call& call, const std::vector<Scattered>& all, const c10d::ReduceOp& op, const Tensors& inputs,
                   const Tensors& outputs);
  Work message(const char* title, c10d::OpType type, Tensors& tensors, int peer, int tag);

  std::shared_ptr<Communicator> communicator_; // null once it is shut down
  milliseconds timeout_;
  std::uint64_t sequence_ = 0;
};

} // namespace glmpatch
