from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from glmpatch.patching.model import Changed
from glmpatch.patching.transforms.frozen_broadcast import FrozenBroadcast
from tests.support import check_changed, check_refused, check_untouched, text

TRANSFORM = FrozenBroadcast()

TOLD = """\
# Every rank has loaded the same frozen weights: DDP need not broadcast those gigabytes when it starts.
model._ddp_params_and_buffers_to_ignore = [
    *(name for name, parameter in model.named_parameters() if not parameter.requires_grad),
    *(name for name, _ in model.named_buffers()),
]
"""


def told(indent: str = "", model: str = "model") -> str:
    return "".join(indent + line.replace("model.", f"{model}.") for line in TOLD.splitlines(keepends=True))


@pytest.mark.parametrize(
    "construction",
    [
        "trainer = Seq2SeqTrainer(model=model, args=args)",
        "trainer = Trainer(model, args)",
        "trainer: Trainer = trainers.PrefixTrainer(args=args, model=model)  # 训练",
        "trainer = Seq2SeqTrainer(\n    model=model,\n    args=args,\n)",
        "self.trainer = Trainer(model=model)",
    ],
)
def test_tells_ddp_before_the_trainer_is_made(construction: str) -> None:
    check_changed(
        TRANSFORM, f"x = 1\n# ours\n{construction}\ntrain()\n", f"x = 1\n{TOLD}# ours\n{construction}\ntrain()\n"
    )


@pytest.mark.parametrize("indent", ["    ", "\t", "  "])
def test_keeps_the_indentation(indent: str) -> None:
    before = f"def main():\n{indent}net = load()\n"
    made = f"{indent}trainer = Trainer(model=net)\n"
    check_changed(TRANSFORM, before + made, before + told(indent, "net") + made)


def test_each_branch_of_an_if_makes_its_own_trainer() -> None:
    code = "if a:\n{0}    trainer = Trainer(model=model)\nelif b:\n{0}    trainer = MyTrainer(model=model)\n"
    check_changed(TRANSFORM, code.format(""), code.format(told("    ")))


def test_a_branch_that_is_told_already() -> None:
    code = "if a:\n{0}    t = Trainer(model=model)\nelse:\n{1}    t = MyTrainer(model=model)\n"
    check_changed(TRANSFORM, code.format(told("    "), ""), code.format(told("    "), told("    ")))


@pytest.mark.parametrize(
    "code",
    [
        "model._ddp_params_and_buffers_to_ignore = names\ntrainer = Trainer(model=model)\n",
        "m._ddp_params_and_buffers_to_ignore = names\nif a:\n    t = Trainer(m)\nelse:\n    t = MyTrainer(m)\n",
        "m._ddp_params_and_buffers_to_ignore = []\ndef main():\n    with x:\n        trainer = Trainer(model=m)\n",
    ],
)
def test_stays_where_ddp_is_told(code: str) -> None:
    check_untouched(TRANSFORM, code)


def test_code_that_looks_alike() -> None:
    alike = """
    # trainer = Trainer(model=model)
    HELP = "trainer = Trainer(model=model)"
    class Seq2SeqTrainer(Trainer):
        pass
    kind = isinstance(trainer, Trainer)
    make = Trainer
    arguments = TrainerArguments(model=model)
    """
    check_refused(TRANSFORM, alike, line=None, found="none")
    made = "trainer = Trainer(model=model)\n"
    before = text(alike).decode()
    check_changed(TRANSFORM, before + made, before + TOLD + made)


@pytest.mark.parametrize(
    ("code", "line", "found"),
    [
        ("x = 1\n", None, "none"),
        ("x = 1\nTrainer(model=model).train()\n", 2, "assigned where it is made"),
        ("def f():\n    return Trainer(model=model)\n", 2, "assigned where it is made"),
        ("a, b = Trainer(model=model), 1\n", 1, "assigned where it is made"),
        ("trainer = Trainer(model=model).prepare()\n", 1, "assigned where it is made"),
        ("trainer = Trainer()\n", 1, "plain name"),
        ("trainer = Trainer(args=args)\n", 1, "plain name"),
        ("trainer = Trainer(model=self.model)\n", 1, "plain name"),
        ("trainer = Trainer(model=model if train else None)\n", 1, "plain name"),
        ("trainer = Trainer(*parts)\n", 1, "plain name"),
        ("for seed in seeds:\n    trainer = Trainer(model=model)\n", 2, "not in a loop"),
        ("while True:\n    if x:\n        trainer = Trainer(model=model)\n", 3, "not in a loop"),
        ("trainer = Trainer(model=model)\ntrainer = MyTrainer(model=model)\n", 2, "one trainer"),
        ("if a:\n    t = Trainer(model=model)\n    t = MyTrainer(model=model)\n", 3, "one trainer"),
        ("if a:\n    t = Trainer(model=model)\nt = MyTrainer(model=model)\n", 3, "one trainer"),
        ("try:\n    t = Trainer(model=model)\nexcept E:\n    t = MyTrainer(model=model)\n", 4, "one trainer"),
        ("if a: trainer = Trainer(model=model)\n", 1, "line of its own"),
        ("x = 1; trainer = Trainer(model=model)\n", 1, "line of its own"),
        ("if a:\n    m._ddp_params_and_buffers_to_ignore = []\nt = Trainer(model=m)\n", 2, "on every way"),
        ("m._ddp_params_and_buffers_to_ignore = []\nt = Trainer(model=model)\n", 1, "on every way"),
        ("t = Trainer(model=m)\nm._ddp_params_and_buffers_to_ignore = []\n", 2, "on every way"),
        ("trainer = Trainer(model=\n", 1, "parse"),
    ],
)
def test_refuses(code: str, line: int | None, found: str) -> None:
    check_refused(TRANSFORM, code, line=line, found=found)


# A model as upstream's: most of it frozen and in bf16, with a buffer. Each rank fills the frozen parts and the buffer
# with its own number, which they must keep, and starts the trained part from its own number, which DDP must replace.
TRAINING = """
import json
import os

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel


class Body(nn.Module):
    def __init__(self, rank):
        super().__init__()
        self.frozen = nn.Parameter(torch.full((4, 4), float(rank), dtype=torch.bfloat16), requires_grad=False)
        self.register_buffer("scale", torch.full((4,), float(rank)))

    def forward(self, x):
        return (x @ self.frozen.float()) * self.scale


class Model(nn.Module):
    def __init__(self, rank):
        super().__init__()
        self.body = Body(rank)
        self.prefix = nn.Linear(4, 4)
        nn.init.constant_(self.prefix.weight, rank + 1.0)

    def forward(self, x):
        return self.body(x) + self.prefix(x)


class Trainer:
    def __init__(self, model):
        self.ddp = DistributedDataParallel(model)
        self.optimizer = torch.optim.SGD(model.prefix.parameters(), lr=0.01)

    def step(self, x):
        self.optimizer.zero_grad()
        loss = self.ddp(x).square().mean()
        loss.backward()
        self.optimizer.step()
        return loss.item()


def main():
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    model = Model(rank)
    trainer = Trainer(model=model)
    start = model.prefix.weight.tolist()
    losses = [trainer.step(torch.ones(2, 4) * (rank + 1)) for _ in range(3)]
    result = {
        "start": start,
        "prefix": model.prefix.weight.tolist(),
        "frozen": model.body.frozen.float().unique().tolist(),
        "buffer": model.body.scale.unique().tolist(),
        "losses": losses,
    }
    with open(f"rank{rank}.json", "w") as file:
        json.dump(result, file)
    torch.distributed.barrier()
    os._exit(0)  # gloo's threads abort the process now and then when the interpreter is taken down


main()
"""


@pytest.mark.train
@pytest.mark.parametrize("patched", [False, True])
def test_ddp_broadcasts_the_trained_weights_alone(tmp_path: Path, *, patched: bool) -> None:
    pytest.importorskip("torch")
    outcome = TRANSFORM(TRAINING.encode())
    assert isinstance(outcome, Changed)
    script = tmp_path / "train.py"
    script.write_bytes(outcome.data if patched else TRAINING.encode())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=100, check=False)
    assert run.returncode == 0, run.stderr.decode()
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first["start"] == second["start"]
    assert first["prefix"] == second["prefix"] != first["start"]
    assert first["frozen"] == first["buffer"] == [0.0]
    assert second["frozen"] == second["buffer"] == ([1.0] if patched else [0.0])
    assert first["losses"][0] > first["losses"][-1]
