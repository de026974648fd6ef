"""Run by every rank: each way of torch's to train on several ranks comes to what a single process comes to."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook
from torch.distributed.algorithms.join import Join
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from tests.conformance.jobs.support import (
    batch,
    check_gradients,
    check_parameters,
    loss_of,
    model,
    run,
    sgd,
    train,
    trained_alone,
)

FOLDER = Path(sys.argv[1])
STEPS = 3


def ddp() -> None:
    replica = DistributedDataParallel(model())
    train(replica, sgd(replica.parameters()), STEPS)
    check_gradients(replica, trained_alone(STEPS))
    check_parameters(replica.parameters(), trained_alone(STEPS))


def ddp_of_a_static_graph() -> None:
    replica = DistributedDataParallel(model(), static_graph=True, gradient_as_bucket_view=True)
    train(replica, sgd(replica.parameters()), STEPS)
    check_parameters(replica.parameters(), trained_alone(STEPS))


def ddp_with_many_small_buckets() -> None:
    replica = DistributedDataParallel(model(), bucket_cap_mb=1e-4)
    train(replica, sgd(replica.parameters()), STEPS)
    check_parameters(replica.parameters(), trained_alone(STEPS))


def gradients_accumulated_without_communication() -> None:
    replica, alone = DistributedDataParallel(model()), model()
    with replica.no_sync():
        loss_of(replica, batch(dist.get_rank(), 0)).backward()  # type: ignore[no-untyped-call]
    loss_of(replica, batch(dist.get_rank(), 1)).backward()  # type: ignore[no-untyped-call]
    ranks = dist.get_world_size()
    for step in range(2):
        for rank in range(ranks):
            (loss_of(alone, batch(rank, step)) / ranks).backward()  # type: ignore[no-untyped-call]
    check_gradients(replica, alone)


def hook_of_fp16() -> None:
    replica = DistributedDataParallel(model())
    replica.register_comm_hook(dist.group.WORLD, default_hooks.fp16_compress_hook)
    train(replica, sgd(replica.parameters()))
    check_gradients(replica, trained_alone(), tolerance=2e-3)


def hook_of_bf16() -> None:
    replica = DistributedDataParallel(model())
    # DDP knows torch's hook by its name, and wants NCCL for it.
    by_another_name = lambda group, bucket: default_hooks.bf16_compress_hook(group, bucket)  # noqa: E731, PLW0108
    replica.register_comm_hook(dist.group.WORLD, by_another_name)
    train(replica, sgd(replica.parameters()))
    check_gradients(replica, trained_alone(), tolerance=2e-2)
    first = next(replica.parameters()).grad
    assert first is not None
    assert torch.equal(first, first.bfloat16().float())


def hook_of_powersgd() -> None:
    """Of full rank, so that nothing is lost."""
    state = PowerSGDState(None, matrix_approximation_rank=8, start_powerSGD_iter=2, min_compression_rate=0.1)
    replica = DistributedDataParallel(model())
    replica.register_comm_hook(state, powerSGD_hook)
    train(replica, sgd(replica.parameters()), 5)
    assert state.iter == 5
    check_gradients(replica, trained_alone(5), tolerance=1e-4)


def uneven_inputs() -> None:
    """Rank 0 is done two steps before rank 1; where it is missing, it counts as one that has no gradient."""
    counts = [STEPS + 2 * rank for rank in range(dist.get_world_size())]
    replica = DistributedDataParallel(model())
    with Join([replica]):
        train(replica, sgd(replica.parameters()), counts[dist.get_rank()])
    check_parameters(replica.parameters(), trained_alone(max(counts), counts=counts))


def zero_redundancy_optimizer() -> None:
    replica = DistributedDataParallel(model())
    optimizer = ZeroRedundancyOptimizer(replica.parameters(), torch.optim.AdamW, lr=0.1)
    train(replica, optimizer, STEPS)
    alone = trained_alone(STEPS, lambda parameters: torch.optim.AdamW(parameters, lr=0.1))
    check_parameters(replica.parameters(), alone)
    optimizer.consolidate_state_dict(0)
    if dist.get_rank() == 0:
        assert len(optimizer.state_dict()["state"]) == len(list(replica.parameters()))


def fully_sharded_data_parallel() -> None:
    sharded = FullyShardedDataParallel(model(), device_id=torch.device("cpu"), use_orig_params=True)
    train(sharded, sgd(sharded.parameters()), STEPS)
    with FullyShardedDataParallel.summon_full_params(sharded):
        check_parameters(sharded.parameters(), trained_alone(STEPS))


def fully_sharded() -> nn.Sequential:
    sharded = model()
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in (sharded[0], sharded[2], sharded):
        fully_shard(layer, mesh=mesh)
    return sharded


def whole(sharded: nn.Module) -> list[Tensor]:
    parts = list(sharded.parameters())
    assert all(isinstance(part, DTensor) and part.to_local().numel() < part.numel() for part in parts)
    return [part.full_tensor() for part in parts if isinstance(part, DTensor)]


def fully_shard_and_clip() -> None:
    sharded = fully_sharded()
    train(sharded, sgd(sharded.parameters()), STEPS)
    check_parameters(whole(sharded), trained_alone(STEPS))
    norm = nn.utils.clip_grad_norm_(sharded.parameters(), 1.0)
    assert isinstance(norm, DTensor)
    expected = nn.utils.clip_grad_norm_(trained_alone(STEPS).parameters(), 1.0)
    torch.testing.assert_close(norm.full_tensor(), expected)


def checkpoints() -> None:
    """Each rank writes its shards; what is read into other shards is the same model."""
    sharded = fully_sharded()
    train(sharded, sgd(sharded.parameters()))
    save({"model": sharded.state_dict()}, checkpoint_id=FOLDER / "shards")
    other = fully_sharded()
    state = {"model": other.state_dict()}
    load(state, checkpoint_id=FOLDER / "shards")
    other.load_state_dict(state["model"])
    check_parameters(whole(other), trained_alone())


if __name__ == "__main__":
    run(
        (
            ddp,
            ddp_of_a_static_graph,
            ddp_with_many_small_buckets,
            gradients_accumulated_without_communication,
            hook_of_fp16,
            hook_of_bf16,
            hook_of_powersgd,
            uneven_inputs,
            zero_redundancy_optimizer,
            fully_sharded_data_parallel,
            fully_shard_and_clip,
            checkpoints,
        )
    )
