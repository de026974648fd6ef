"""The real upstream: patched, and trained with the tiny model on two ranks.

`GLMPATCH_UPSTREAM` names a git clone of the official repository.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from glmpatch.launching.plan import LaunchPlan, Mpi
from glmpatch.launching.script import render_script, write_script
from glmpatch.machine.placement import place
from glmpatch.machine.read import read_topology
from glmpatch.patching.model import Backend, Dtype, Options
from glmpatch.training.corpus import make_corpus, write_data
from glmpatch.training.demo import SEED, clone_and_patch
from glmpatch.training.launcher import Launcher, Mpirun, Torchrun
from glmpatch.training.run import TrainingRun, train, training_environment

UPSTREAM = os.environ.get("GLMPATCH_UPSTREAM")

pytestmark = [
    pytest.mark.train,
    pytest.mark.skipif(UPSTREAM is None, reason="GLMPATCH_UPSTREAM names no clone of the official repository"),
]

RUNS: tuple[tuple[Backend, Dtype], ...] = (("gloo", "bf16"), ("gloo", "fp32"), ("mpi", "bf16"))
OUTPUT = "output/adgen-chatglm-6b-pt-128-2e-2"
# The scripts are run as they are patched, but for these: thousands of steps take days.
SHORTER = {
    "--max_steps 3000": "--max_steps 4",
    "--save_steps 1000": "--save_steps 2",
    "--logging_steps 10": "--logging_steps 1",
}
RECORDED = {"python3 main.py": "python3 record.py main.py"}


@dataclass(frozen=True)
class Tree:
    """The patched tree, with model and data where its scripts look for them."""

    root: Path
    cache: Path
    launcher: Launcher

    @property
    def ptuning(self) -> Path:
        return self.root / "ptuning"

    def run(self, script: str, edits: Mapping[str, str], name: str, settings: Mapping[str, str] | None = None) -> Path:
        """Run a patched script with some edits on two ranks; the log."""
        text = (self.ptuning / script).read_text("utf-8")
        for old, new in edits.items():
            assert old in text, f"{script} has no {old}"
            text = text.replace(old, new)
        edited = self.ptuning / f"{name}.sh"
        edited.write_text(text, "utf-8")
        log = self.cache / f"{name}.log"
        record = {"RECORD": str(self.cache / name)}
        train(TrainingRun(edited, 2, self.launcher, {**record, **(settings or {})}, self.cache, log), lambda _: None)
        return log

    def records(self, name: str) -> list[list[dict[str, object]]]:
        """What each rank has recorded."""
        files = [self.cache / f"{name}.{rank}" for rank in (0, 1)]
        return [[json.loads(line) for line in file.read_text("utf-8").splitlines()] for file in files]


@pytest.fixture(scope="module", params=RUNS, ids="-".join)
def tree(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Tree:
    """The patched tree behind a training of four steps, recorded as `first`."""
    backend, dtype = request.param
    launcher = request.getfixturevalue("mpi_launcher") if backend == "mpi" else Torchrun()
    folder = tmp_path_factory.mktemp("upstream")
    clone_and_patch(Path(str(UPSTREAM)), folder / "tree", Options(backend, dtype))
    tree = Tree(folder / "tree", folder / "cache", launcher)
    tree.cache.mkdir()
    shutil.copytree(model_folder, tree.ptuning / "THUDM" / "chatglm-6b")
    write_data(make_corpus(SEED), tree.ptuning / "AdvertiseGen")
    shutil.copyfile(Path(__file__).with_name("record.py"), tree.ptuning / "record.py")
    tree.run("train.sh", {**SHORTER, **RECORDED}, "first")
    return tree


def test_both_ranks_log_the_same_loss_and_hold_the_same_prefix_after_each_step(tree: Tree) -> None:
    first, second = tree.records("first")
    assert first == second
    losses = [line["loss"] for line in first if "loss" in line]
    assert len(losses) == 4
    hashes = {line["prefix"] for line in first if "prefix" in line}
    assert len(hashes) == 4
    assert {line["dtype"] for line in first if "dtype" in line} == {"torch.float32"}


def test_a_training_goes_on_from_its_checkpoint_as_if_it_had_not_stopped(tree: Tree) -> None:
    resume = {"--do_train \\": f"--do_train --resume_from_checkpoint {OUTPUT}/checkpoint-2 \\"}
    apart = {"--output_dir output/": "--output_dir output/resumed-"}
    tree.run("train.sh", {**SHORTER, **RECORDED, **resume, **apart}, "resumed")
    for whole, resumed in zip(tree.records("first"), tree.records("resumed"), strict=True):
        assert resumed == [line for line in whole if int(str(line["step"])) > 2]


def test_the_tuned_prefix_can_be_tried(tree: Tree) -> None:
    tree.run("evaluate.sh", {"STEP=3000": "STEP=4"}, "evaluate")
    predictions = (tree.ptuning / OUTPUT / "generated_predictions.txt").read_text("utf-8").splitlines()
    assert len(predictions) == len(make_corpus(SEED).dev)
    assert set(json.loads(predictions[0])) == {"labels", "predict"}


def test_a_model_that_was_tuned_as_a_whole_can_be_tried(tree: Tree, model_folder: Path) -> None:
    output = tree.ptuning / "output" / "adgen-chatglm-6b-ft-1e-4"
    shutil.copytree(model_folder, output / "checkpoint-3000")
    tree.run("evaluate_finetune.sh", {}, "finetuned")
    assert (output / "generated_predictions.txt").is_file()


def test_a_chat_can_be_trained(tree: Tree) -> None:
    data = str(tree.ptuning / "AdvertiseGen" / "chat.json")
    settings = {"CHAT_TRAIN_DATA": data, "CHAT_VAL_DATA": data, "CHECKPOINT_NAME": "output/chat"}
    tree.run("train_chat.sh", {**SHORTER, **RECORDED}, "chat", settings)
    first, second = tree.records("chat")
    assert first == second
    assert len([line for line in first if "loss" in line]) == 4


def test_the_launch_script_trains_it(tree: Tree) -> None:
    """As a user starts it; the ranks have the machine's cores, and end up with the same losses."""
    if not isinstance(tree.launcher, Mpirun):
        pytest.skip("the launch script starts ranks with an MPI")
    topology = read_topology(None)
    if len(topology.usable_cores) < 2:
        pytest.skip("two ranks need two cores")
    mpi = Mpi(tree.launcher.mpi.flavour, tree.launcher.mpi)
    write_script(tree.ptuning / "launch_cpu.sh", render_script(LaunchPlan(mpi, topology, place(topology, ranks=2))))
    text = (tree.ptuning / "first.sh").read_text("utf-8")
    apart = text.replace("--output_dir output/", "--output_dir output/launched-")
    (tree.ptuning / "launched.sh").write_text(apart, "utf-8")
    environment = {
        **training_environment(tree.cache, 2),
        "RECORD": str(tree.cache / "launched"),
        "GLMPATCH_RANK_MB": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [str(tree.ptuning / "launch_cpu.sh"), "launched.sh"]
    subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=True, capture_output=True, timeout=300)
    assert tree.records("launched") == tree.records("first")
