"""What the jobs share: a model that every rank trains its part of, and the same trained by a single process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

OptimizerMaker = Callable[[Iterable[nn.Parameter]], Optimizer]


def run(cases: Sequence[Callable[[], None]]) -> None:
    """Run them all in one group. An assertion that fails ends the job."""
    dist.init_process_group("mpi", timeout=timedelta(seconds=30))
    for case in cases:
        case()
        dist.barrier()
        if dist.get_rank() == 0:
            sys.stdout.write(f"{case.__name__}: as it should be\n")
    dist.destroy_process_group()


def model() -> nn.Sequential:
    """The same on every rank."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def batch(rank: int, step: int = 0) -> Tensor:
    """What a rank trains on in a step."""
    return torch.randn(6, 8, generator=torch.Generator().manual_seed(100 * step + rank))


def loss_of(trained: nn.Module, data: Tensor) -> Tensor:
    outputs: Tensor = trained(data)
    return outputs.square().mean()


def sgd(parameters: Iterable[nn.Parameter]) -> Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


def train(trained: nn.Module, optimizer: Optimizer, steps: int = 1) -> None:
    """This rank's part of so many steps."""
    for step in range(steps):
        optimizer.zero_grad()
        loss_of(trained, batch(dist.get_rank(), step)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def trained_alone(steps: int = 1, make_optimizer: OptimizerMaker = sgd, counts: Sequence[int] = ()) -> nn.Sequential:
    """A model that one process trained on the batches of all ranks; its gradients are those of the last step.

    Args:
        steps: How many.
        make_optimizer: From the parameters.
        counts: How many batches each rank has, where these differ.
    """
    alone = model()
    optimizer = make_optimizer(alone.parameters())
    ranks = dist.get_world_size()
    for step in range(steps):
        optimizer.zero_grad()
        for rank in range(ranks):
            if not counts or step < counts[rank]:
                (loss_of(alone, batch(rank, step)) / ranks).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return alone


def check_parameters(found: Iterable[Tensor], alone: nn.Module) -> None:
    torch.testing.assert_close(list(found), list(alone.parameters()))


def check_gradients(found: nn.Module, alone: nn.Module, tolerance: float = 1e-6) -> None:
    """On this rank as on a single process, and on all ranks the same to the last bit."""
    gradients = [parameter.grad for parameter in found.parameters()]
    expected = [parameter.grad for parameter in alone.parameters()]
    torch.testing.assert_close(gradients, expected, rtol=tolerance, atol=tolerance)
    for gradient in gradients:
        assert gradient is not None
        of_first = gradient.clone()
        dist.broadcast(of_first, 0)
        assert torch.equal(gradient, of_first)
