#include "process_group.hpp"

#include "arrival.hpp"
#include "collectives.hpp"
#include "messages.hpp"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sparse_coo_tensor.h>
#include <c10/util/hash.h>
#include <torch/csrc/distributed/c10d/Utils.hpp>

#include <algorithm>
#include <cstring>
#include <utility>

namespace glmpatch {

namespace {

constexpr std::int64_t kBulky = 64 * 1024; // bytes of a message

// torch 2.7 and later tell whether the caller waits right away.
template <typename Options>
auto is_async(const Options& opts, int) -> decltype(opts.asyncOp) {
  return opts.asyncOp;
}
template <typename Options>
bool is_async(const Options&, long) {
  return true;
}

class WorkMPI : public c10d::Work {
 public:
  WorkMPI(int rank, c10d::OpType type, const char* title, const std::vector<at::Tensor>& inputs,
          std::vector<at::Tensor> outputs)
      : Work(rank, type, title, inputs),
        outputs_(std::move(outputs)),
        future_(c10::make_intrusive<c10::ivalue::Future>(c10::ListType::create(c10::TensorType::get()))) {}

  bool wait(milliseconds timeout) override {
    const auto deadline = timeout <= kNoTimeout ? Clock::time_point::max() : from_now(timeout);
    const bool done = Engine::get().wait(*operation, deadline);
    TORCH_CHECK_WITH(DistBackendError, done, operation->title, " is not done after ", timeout.count(), " ms");
    if (!isCompleted()) { // the interpreter is ending, and this is the thread that ends it
      complete(operation->error, /*may_block=*/true);
    }
    return Work::wait();
  }

  std::vector<at::Tensor> result() override { return outputs_; }

  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override {
    std::lock_guard<std::mutex> lock(handing_out_);
    handed_out_ = true;
    return future_;
  }

  int sourceRank() const override { return source; }

  // A future that nobody has seen has no callbacks, which could block.
  bool complete(const std::exception_ptr& error, bool may_block) {
    std::unique_lock<std::mutex> lock(handing_out_);
    if (handed_out_ && !may_block) {
      return false;
    }
    if (handed_out_) {
      lock.unlock();
    }
    if (error) {
      future_->setError(error);
    } else {
      future_->markCompleted(c10::IValue(outputs_));
    }
    finish(error);
    return true;
  }

  std::shared_ptr<Operation> operation;
  int source = -1;

 private:
  std::vector<at::Tensor> outputs_;
  c10::intrusive_ptr<c10::ivalue::Future> future_;
  std::mutex handing_out_;
  bool handed_out_ = false;
};

c10::intrusive_ptr<WorkMPI> launch(const std::shared_ptr<Operation>& operation, c10::intrusive_ptr<WorkMPI> work,
                                   bool async) {
  operation->complete = [work](const std::exception_ptr& error, bool may_block) {
    return work->complete(error, may_block);
  };
  work->operation = operation; // a circle until it is complete
  Engine::get().submit(operation, /*wake=*/async);
  if (!async) {
    work->wait(kNoTimeout);
  }
  return work;
}

Block block_of(const at::Tensor& tensor) {
  return {static_cast<char*>(tensor.data_ptr()), static_cast<std::int64_t>(tensor.nbytes())};
}

// A block cut into one for each rank.
std::vector<Block> shares_of(Block block, int ranks) {
  std::vector<Block> shares;
  for (int rank = 0; rank < ranks; ++rank) {
    shares.push_back({block.data + block.bytes / ranks * rank, block.bytes / ranks});
  }
  return shares;
}

// What goes to, or comes from, each rank. `splits` are numbers of rows of `tensor`, equal if there are none.
std::vector<Block> parts_of(const at::Tensor& tensor, Block block, const std::vector<int64_t>& splits, int ranks) {
  const auto rows = tensor.size(0);
  std::vector<Block> parts;
  for (int rank = 0; rank < ranks; ++rank) {
    const auto share = splits.empty() ? rows / ranks : splits[rank];
    const auto bytes = rows == 0 ? 0 : block.bytes / rows * share;
    parts.push_back({block.data, bytes});
    block.data += bytes;
  }
  return parts;
}

// One block for a single rank, none for the others.
std::vector<Block> only_for(int rank, Block block, int ranks) {
  std::vector<Block> blocks(ranks);
  blocks[rank] = block;
  return blocks;
}

} // namespace

// A collective in the making: checks what the user gave, and makes of it what MPI needs.
class ProcessGroupMPI::Call {
 public:
  template <typename Options>
  Call(ProcessGroupMPI& group, const char* title, c10d::OpType type, const Options& opts)
      : group_(group),
        title_(title),
        type_(type),
        async_(is_async(opts, 0)),
        timeout_(opts.timeout == c10d::kUnsetTimeout ? group.timeout_ : opts.timeout) {
    std::strncpy(signature_.collective, title_ + 4, sizeof(signature_.collective) - 1);
    TORCH_CHECK(group.communicator_, title, ": this process group was shut down");
  }

  template <typename... Args>
  void expect(bool met, const Args&... message) const {
    TORCH_CHECK(met, "ProcessGroupMPI::", title_ + 4, ": ", message...);
  }

  void expect_dense(const at::Tensor& tensor) const {
    const bool met = tensor.device().is_cpu() && tensor.layout() == at::kStrided;
    expect(met, "tensors must be dense and on the CPU, not ", tensor.layout(), " on ", tensor.device());
  }

  template <typename T>
  const T& only(const std::vector<T>& list, const char* what) const {
    expect(list.size() == 1, "expected a single ", what, ", got ", list.size());
    return list[0];
  }

  // A list of one tensor a rank, each like `model`.
  void expect_one_a_rank(const Tensors& list, const at::Tensor& model) const {
    expect(int(list.size()) == group_.size_, "expected a list of ", group_.size_, " tensors, one a rank, got ",
           list.size());
    for (const auto& tensor : list) {
      const bool met = tensor.scalar_type() == model.scalar_type() && tensor.sizes() == model.sizes();
      expect(met, "expected tensors of ", model.scalar_type(), " ", model.sizes(), ", got ", tensor.scalar_type(), " ",
             tensor.sizes());
    }
  }

  void expect_multiple(const at::Tensor& large, const at::Tensor& small) const {
    const auto needed = small.numel() * group_.size_;
    const bool met = large.scalar_type() == small.scalar_type() && large.numel() == needed;
    expect(met, "expected ", needed, " elements of ", small.scalar_type(), " for ", group_.size_, " ranks, got ",
           large.numel(), " of ", large.scalar_type());
  }

  int root(std::int64_t rank) {
    expect(rank >= 0 && rank < group_.size_, "no rank ", rank, " in a group of ", group_.size_);
    signature_.root = static_cast<std::int32_t>(rank);
    return signature_.root;
  }

  // The ranks must have the same number of elements in these.
  void agree_on(const Tensors& tensors) {
    for (const auto& tensor : tensors) {
      agree_on(tensor.scalar_type());
      signature_.elements += tensor.numel();
      signature_.sizes = c10::hash_combine(signature_.sizes, tensor.numel() * 64 + int(tensor.scalar_type()));
    }
    signature_.tensors += static_cast<std::int64_t>(tensors.size());
  }

  void agree_on(at::IntArrayRef numbers) {
    for (const auto number : numbers) {
      signature_.sizes = c10::hash_combine(signature_.sizes, number);
    }
  }

  void agree_on(c10::ScalarType dtype) { signature_.dtype = dtype; }

  Reducer reducer(const c10d::ReduceOp& op, c10::ScalarType dtype) {
    static_assert(int(Reduction::PremulSum) == c10d::ReduceOp::PREMUL_SUM);
    signature_.reduction = static_cast<std::int8_t>(op.op_);
    double factor = 1;
    if (op.op_ == c10d::ReduceOp::PREMUL_SUM) {
      const auto* supplement = dynamic_cast<const c10d::NCCLPreMulSumSupplement*>(op.supplement_.get());
      expect(supplement != nullptr, "PREMUL_SUM without a factor");
      factor =
          supplement->tensor_factor.defined() ? supplement->tensor_factor.item<double>() : supplement->double_factor;
    }
    return {static_cast<Reduction>(op.op_), dtype, group_.size_, factor};
  }

  // The memory of tensors, which the call keeps alive. The elements of all ranks must be in the same order, without
  // gaps: where a tensor has them otherwise, a copy takes its place, and what arrives in the copy is written back.
  Block input(const at::Tensor& tensor) {
    expect_dense(tensor);
    return keep(tensor.contiguous());
  }

  Block output(const at::Tensor& tensor) {
    expect_dense(tensor);
    if (tensor.is_contiguous()) {
      return keep(tensor);
    }
    copies_.emplace_back(tensor, tensor.contiguous());
    return keep(copies_.back().second);
  }

  std::vector<Block> inputs(const Tensors& tensors) {
    return fmap(tensors, [this](const at::Tensor& tensor) { return input(tensor); });
  }

  std::vector<Block> outputs(const Tensors& tensors) {
    return fmap(tensors, [this](const at::Tensor& tensor) { return output(tensor); });
  }

  // `inputs` are shown by the profiler, `outputs` are the result of the Work.
  template <typename Run>
  Work start(const Tensors& inputs, const Tensors& outputs, Run run) {
    ++group_.sequence_;
    auto arrival = std::make_shared<Arrival>(group_.communicator_, signature_);
    auto operation = std::make_shared<Operation>();
    operation->title = title_;
    operation->group = group_.communicator_;
    operation->timeout = timeout_;
    operation->poll = [arrival] { return arrival->poll(); };
    operation->run = [arrival, run = std::move(run), comm = group_.communicator_, kept = std::move(kept_),
                      copies = std::move(copies_)] {
      arrival->expect_agreement();
      const at::AutoDispatchBelowADInplaceOrView no_autograd; // this thread is not in the mode of the user's
      run(comm->handle);
      for (const auto& [tensor, copy] : copies) {
        tensor.copy_(copy);
      }
    };
    return launch(operation, c10::make_intrusive<WorkMPI>(group_.rank_, type_, title_, inputs, outputs), async_);
  }

 private:
  template <typename F>
  static std::vector<Block> fmap(const Tensors& tensors, F&& f) {
    std::vector<Block> blocks;
    for (const auto& tensor : tensors) {
      blocks.push_back(f(tensor));
    }
    return blocks;
  }

  Block keep(const at::Tensor& tensor) {
    kept_.push_back(tensor);
    return block_of(tensor);
  }

  ProcessGroupMPI& group_;
  const char* title_; // "mpi:" and the name
  c10d::OpType type_;
  bool async_;
  milliseconds timeout_;
  Signature signature_;
  Tensors kept_;
  std::vector<std::pair<at::Tensor, at::Tensor>> copies_;
};

ProcessGroupMPI::ProcessGroupMPI(std::shared_ptr<Communicator> communicator, milliseconds timeout)
    : Backend(communicator->rank, communicator->size), communicator_(std::move(communicator)), timeout_(timeout) {}

ProcessGroupMPI::~ProcessGroupMPI() {
  shutdown();
}

void ProcessGroupMPI::shutdown() {
  if (communicator_) {
    Engine::get().free(communicator_);
    communicator_ = nullptr;
  }
}

c10::intrusive_ptr<ProcessGroupMPI> ProcessGroupMPI::create(std::vector<int> ranks, milliseconds timeout) {
  return c10::make_intrusive<ProcessGroupMPI>(Engine::get().create(std::move(ranks), timeout), timeout);
}

ProcessGroupMPI::Work ProcessGroupMPI::broadcast(Tensors& tensors, const c10d::BroadcastOptions& opts) {
  Call call(*this, "mpi:broadcast", c10d::OpType::BROADCAST, opts);
  const auto block = call.output(call.only(tensors, "tensor"));
  const int root = call.root(opts.rootRank);
  call.agree_on(tensors);
  return call.start(tensors, tensors, [=](MPI_Comm comm) { glmpatch::broadcast(comm, block, root); });
}

ProcessGroupMPI::Work ProcessGroupMPI::allreduce(Tensors& tensors, const c10d::AllreduceOptions& opts) {
  if (!tensors.empty() && tensors[0].is_sparse()) {
    return allreduce_sparse(tensors, opts);
  }
  Call call(*this, "mpi:all_reduce", c10d::OpType::ALLREDUCE, opts);
  const auto block = call.output(call.only(tensors, "tensor"));
  const auto reducer = call.reducer(opts.reduceOp, tensors[0].scalar_type());
  call.agree_on(tensors);
  return call.start(tensors, tensors, [=](MPI_Comm comm) { all_reduce(comm, block, reducer); });
}

ProcessGroupMPI::Work ProcessGroupMPI::allreduce_coalesced(Tensors& tensors,
                                                           const c10d::AllreduceCoalescedOptions& opts) {
  Call call(*this, "mpi:all_reduce_coalesced", c10d::OpType::ALLREDUCE_COALESCED, opts);
  std::vector<std::pair<Block, Reducer>> all;
  for (const auto& tensor : tensors) {
    call.expect(tensor.scalar_type() == tensors[0].scalar_type(), "tensors must all have the same dtype");
    all.emplace_back(call.output(tensor), call.reducer(opts.reduceOp, tensor.scalar_type()));
  }
  call.agree_on(tensors);
  return call.start(tensors, tensors, [all](MPI_Comm comm) {
    for (const auto& [block, reducer] : all) {
      all_reduce(comm, block, reducer);
    }
  });
}

// Every rank gets what all have, and sums for itself: as many elements are not zero as the ranks have different ones.
ProcessGroupMPI::Work ProcessGroupMPI::allreduce_sparse(Tensors& tensors, const c10d::AllreduceOptions& opts) {
  Call call(*this, "mpi:sparse_all_reduce", c10d::OpType::_ALLREDUCE_SPARSE, opts);
  const auto tensor = call.only(tensors, "tensor");
  call.expect(tensor.device().is_cpu(), "tensors must be on the CPU, not on ", tensor.device());
  call.expect(opts.reduceOp.op_ == c10d::ReduceOp::SUM, "sparse tensors can be summed, and nothing else");
  call.agree_on(tensors);
  auto shape = tensor.sizes().vec();
  shape.push_back(tensor.sparse_dim());
  call.agree_on(at::IntArrayRef(shape));
  const at::AutoDispatchBelowADInplaceOrView no_autograd;
  const auto mine = tensor.coalesce();
  return call.start(tensors, tensors, [tensor, mine, rank = rank_, size = size_](MPI_Comm comm) {
    std::vector<std::int64_t> lengths(size);
    const std::int64_t length = mine._nnz();
    check(MPI_Allgather(&length, 1, MPI_INT64_T, lengths.data(), 1, MPI_INT64_T, comm), "MPI_Allgather");
    const auto gather = [&](const at::Tensor& part, std::int64_t dimension) {
      std::vector<at::Tensor> parts;
      std::vector<Block> receives;
      const auto own = part.contiguous();
      for (int peer = 0; peer < size; ++peer) {
        auto sizes = part.sizes().vec();
        sizes[dimension] = lengths[peer];
        parts.push_back(at::empty(sizes, part.options()));
        receives.push_back(block_of(parts.back()));
      }
      exchange(comm, rank, std::vector<Block>(size, block_of(own)), receives);
      return at::cat(parts, dimension);
    };
    const auto indices = gather(mine.indices(), 1);
    const auto values = gather(mine.values(), 0);
    tensor.copy_(at::sparse_coo_tensor(indices, values, mine.sizes(), mine.options()).coalesce());
  });
}

ProcessGroupMPI::Work ProcessGroupMPI::reduce(Tensors& tensors, const c10d::ReduceOptions& opts) {
  Call call(*this, "mpi:reduce", c10d::OpType::REDUCE, opts);
  const auto block = call.output(call.only(tensors, "tensor"));
  const auto reducer = call.reducer(opts.reduceOp, tensors[0].scalar_type());
  const int root = call.root(opts.rootRank);
  call.agree_on(tensors);
  return call.start(tensors, tensors, [=, is_root = rank_ == root](MPI_Comm comm) {
    glmpatch::reduce(comm, block, reducer, root, is_root);
  });
}

ProcessGroupMPI::Work ProcessGroupMPI::allgather(Lists& outputs, Tensors& inputs, const c10d::AllgatherOptions& opts) {
  Call call(*this, "mpi:all_gather", c10d::OpType::ALLGATHER, opts);
  const auto& list = call.only(outputs, "list of outputs");
  call.expect_one_a_rank(list, call.only(inputs, "input"));
  return gather_all(call, {{call.input(inputs[0]), call.outputs(list)}}, inputs, list);
}

// torch orders these by rank first: outputs[r][i] is for what rank r has as inputs[i].
ProcessGroupMPI::Work ProcessGroupMPI::allgather_coalesced(Lists& outputs, Tensors& inputs,
                                                           const c10d::AllgatherOptions& opts) {
  Call call(*this, "mpi:all_gather", c10d::OpType::ALLGATHER_COALESCED, opts);
  call.expect(int(outputs.size()) == size_, "expected the outputs of ", size_, " ranks, got ", outputs.size());
  std::vector<Gathered> all;
  Tensors flat;
  for (size_t i = 0; i < inputs.size(); ++i) {
    Tensors list;
    for (const auto& of_rank : outputs) {
      call.expect(of_rank.size() == inputs.size(), "expected ", inputs.size(), " outputs a rank, got ", of_rank.size());
      list.push_back(of_rank[i]);
    }
    call.expect_one_a_rank(list, inputs[i]);
    all.emplace_back(call.input(inputs[i]), call.outputs(list));
    flat.insert(flat.end(), list.begin(), list.end());
  }
  return gather_all(call, all, inputs, flat);
}

ProcessGroupMPI::Work ProcessGroupMPI::_allgather_base(at::Tensor& output, at::Tensor& input,
                                                       const c10d::AllgatherOptions& opts) {
  Tensors outputs{output};
  Tensors inputs{input};
  return allgather_into_tensor_coalesced(outputs, inputs, opts);
}

ProcessGroupMPI::Work ProcessGroupMPI::allgather_into_tensor_coalesced(Tensors& outputs, Tensors& inputs,
                                                                       const c10d::AllgatherOptions& opts) {
  Call call(*this, "mpi:_all_gather_base", c10d::OpType::_ALLGATHER_BASE, opts);
  call.expect(outputs.size() == inputs.size(), "expected ", inputs.size(), " outputs, got ", outputs.size());
  std::vector<Gathered> all;
  for (size_t i = 0; i < inputs.size(); ++i) {
    call.expect_multiple(outputs[i], inputs[i]);
    all.emplace_back(call.input(inputs[i]), shares_of(call.output(outputs[i]), size_));
  }
  return gather_all(call, all, inputs, outputs);
}

ProcessGroupMPI::Work ProcessGroupMPI::gather_all(Call& call, const std::vector<Gathered>& all, const Tensors& inputs,
                                                  const Tensors& outputs) {
  call.agree_on(inputs);
  return call.start(inputs, outputs, [all](MPI_Comm comm) {
    for (const auto& [input, blocks] : all) {
      all_gather(comm, input, blocks);
    }
  });
}

ProcessGroupMPI::Work ProcessGroupMPI::gather(Lists& outputs, Tensors& inputs, const c10d::GatherOptions& opts) {
  Call call(*this, "mpi:gather", c10d::OpType::GATHER, opts);
  const int root = call.root(opts.rootRank);
  const auto block = call.input(call.only(inputs, "input"));
  Tensors list;
  if (rank_ == root) {
    list = call.only(outputs, "list of outputs on the root");
    call.expect_one_a_rank(list, inputs[0]);
  } else {
    call.expect(outputs.empty(), "only the root may have outputs");
  }
  call.agree_on(inputs);
  const auto blocks = call.outputs(list);
  return call.start(inputs, list, [=, rank = rank_, to_root = only_for(root, block, size_)](MPI_Comm comm) {
    exchange(comm, rank, to_root, blocks);
  });
}

ProcessGroupMPI::Work ProcessGroupMPI::scatter(Tensors& outputs, Lists& inputs, const c10d::ScatterOptions& opts) {
  Call call(*this, "mpi:scatter", c10d::OpType::SCATTER, opts);
  const int root = call.root(opts.rootRank);
  const auto block = call.output(call.only(outputs, "output"));
  Tensors list;
  if (rank_ == root) {
    list = call.only(inputs, "list of inputs on the root");
    call.expect_one_a_rank(list, outputs[0]);
  } else {
    call.expect(inputs.empty(), "only the root may have inputs");
  }
  call.agree_on(outputs);
  const auto blocks = call.inputs(list);
  return call.start(list, outputs, [=, rank = rank_, from_root = only_for(root, block, size_)](MPI_Comm comm) {
    exchange(comm, rank, blocks, from_root);
  });
}

ProcessGroupMPI::Work ProcessGroupMPI::reduce_scatter(Tensors& outputs, Lists& inputs,
                                                      const c10d::ReduceScatterOptions& opts) {
  Call call(*this, "mpi:reduce_scatter", c10d::OpType::REDUCE_SCATTER, opts);
  const auto& list = call.only(inputs, "list of inputs");
  call.expect_one_a_rank(list, call.only(outputs, "output"));
  return scatter_all(call, {{call.inputs(list), call.output(outputs[0])}}, opts.reduceOp, list, outputs);
}

ProcessGroupMPI::Work ProcessGroupMPI::_reduce_scatter_base(at::Tensor& output, at::Tensor& input,
                                                            const c10d::ReduceScatterOptions& opts) {
  Tensors outputs{output};
  Tensors inputs{input};
  return reduce_scatter_tensor_coalesced(outputs, inputs, opts);
}

ProcessGroupMPI::Work ProcessGroupMPI::reduce_scatter_tensor_coalesced(Tensors& outputs, Tensors& inputs,
                                                                       const c10d::ReduceScatterOptions& opts) {
  Call call(*this, "mpi:_reduce_scatter_base", c10d::OpType::_REDUCE_SCATTER_BASE, opts);
  call.expect(outputs.size() == inputs.size(), "expected ", inputs.size(), " outputs, got ", outputs.size());
  std::vector<Scattered> all;
  for (size_t i = 0; i < inputs.size(); ++i) {
    call.expect_multiple(inputs[i], outputs[i]);
    all.emplace_back(shares_of(call.input(inputs[i]), size_), call.output(outputs[i]));
  }
  return scatter_all(call, all, opts.reduceOp, inputs, outputs);
}

ProcessGroupMPI::Work ProcessGroupMPI::scatter_all(Call& call, const std::vector<Scattered>& all,
                                                   const c10d::ReduceOp& op, const Tensors& inputs,
                                                   const Tensors& outputs) {
  std::vector<Reducer> reducers;
  for (const auto& output : outputs) {
    reducers.push_back(call.reducer(op, output.scalar_type()));
  }
  call.agree_on(outputs);
  return call.start(inputs, outputs, [all, reducers](MPI_Comm comm) {
    for (size_t i = 0; i < all.size(); ++i) {
      glmpatch::reduce_scatter(comm, all[i].first, all[i].second, reducers[i]);
    }
  });
}

// The sizes may differ from rank to rank here, so the ranks agree on the dtype alone.
ProcessGroupMPI::Work ProcessGroupMPI::alltoall(Tensors& outputs, Tensors& inputs, const c10d::AllToAllOptions& opts) {
  Call call(*this, "mpi:all_to_all", c10d::OpType::ALLTOALL, opts);
  for (const auto* list : {&inputs, &outputs}) {
    call.expect(int(list->size()) == size_, "expected lists of ", size_, " tensors, one a rank, got ", list->size());
    for (const auto& tensor : *list) {
      call.expect(tensor.scalar_type() == inputs[0].scalar_type(), "tensors must all have the same dtype");
    }
  }
  call.agree_on(inputs[0].scalar_type());
  return call.start(inputs, outputs,
                    [rank = rank_, from = call.inputs(inputs), to = call.outputs(outputs)](MPI_Comm comm) {
                      expect_fitting(comm, from, to);
                      exchange(comm, rank, from, to);
                    });
}

ProcessGroupMPI::Work ProcessGroupMPI::alltoall_base(at::Tensor& output, at::Tensor& input,
                                                     std::vector<int64_t>& output_splits,
                                                     std::vector<int64_t>& input_splits,
                                                     const c10d::AllToAllOptions& opts) {
  Call call(*this, "mpi:all_to_all", c10d::OpType::ALLTOALL_BASE, opts);
  call.expect(input.scalar_type() == output.scalar_type(), "tensors must have the same dtype");
  c10d::checkSplitSizes(input_splits, input, size_);
  c10d::checkSplitSizes(output_splits, output, size_);
  for (const auto* splits : {&input_splits, &output_splits}) {
    call.expect(std::all_of(splits->begin(), splits->end(), [](auto rows) { return rows >= 0; }),
                "a split must not be negative, got ", *splits);
  }
  call.agree_on(input.scalar_type());
  const auto from = parts_of(input, call.input(input), input_splits, size_);
  const auto to = parts_of(output, call.output(output), output_splits, size_);
  return call.start({input}, {output}, [=, rank = rank_](MPI_Comm comm) {
    expect_fitting(comm, from, to);
    exchange(comm, rank, from, to);
  });
}

ProcessGroupMPI::Work ProcessGroupMPI::barrier(const c10d::BarrierOptions& opts) {
  Call call(*this, "mpi:barrier", c10d::OpType::BARRIER, opts);
  return call.start({}, {}, [](MPI_Comm) {}); // to arrive is all there is to do
}

ProcessGroupMPI::Work ProcessGroupMPI::send(Tensors& tensors, int destination, int tag) {
  return message("mpi:send", c10d::OpType::SEND, tensors, destination, tag);
}

ProcessGroupMPI::Work ProcessGroupMPI::recv(Tensors& tensors, int source, int tag) {
  return message("mpi:recv", c10d::OpType::RECV, tensors, source, tag);
}

ProcessGroupMPI::Work ProcessGroupMPI::recvAnysource(Tensors& tensors, int tag) {
  return message("mpi:recvAnySource", c10d::OpType::RECVANYSOURCE, tensors, MPI_ANY_SOURCE, tag);
}

ProcessGroupMPI::Work ProcessGroupMPI::message(const char* title, c10d::OpType type, Tensors& tensors, int peer,
                                               int tag) {
  const Call call(*this, title, type, c10d::BarrierOptions());
  const auto& tensor = call.only(tensors, "tensor");
  call.expect_dense(tensor);
  call.expect(tensor.is_contiguous(), "the tensor must be contiguous");
  call.expect(peer == MPI_ANY_SOURCE || (peer >= 0 && peer < size_), "no rank ", peer, " in a group of ", size_);
  call.expect(tag >= 0 && tag < kCollectiveTag, "tag ", tag, " is not within 0 and ", kCollectiveTag - 1);

  const bool sends = type == c10d::OpType::SEND;
  auto work = c10::make_intrusive<WorkMPI>(rank_, type, title, tensors, sends ? Tensors{} : tensors);
  auto operation = std::make_shared<Operation>();
  operation->title = title;
  operation->group = communicator_;
  operation->timeout = timeout_;
  operation->collective = false;
  const auto block = block_of(tensor);
  const bool bulky = block.bytes > kBulky;
  if (sends) {
    operation->bulky = bulky;
    operation->poll = [kept = tensor, sending = Sending(communicator_, block, peer, tag)]() mutable {
      return sending.poll();
    };
  } else {
    operation->poll = [=, kept = tensor, own = operation.get(), source = &work->source,
                       receiving = Receiving(communicator_, block, peer, tag)]() mutable {
      const bool complete = receiving.poll();
      own->bulky = bulky && receiving.found();
      own->expendable = !receiving.found();
      *source = receiving.source();
      return complete;
    };
  }
  return launch(operation, work, /*async=*/true);
}

} // namespace glmpatch
