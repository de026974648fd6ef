"""The estimate of a rank's memory, held against real ranks of the demo's script."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from glmpatch.machine.need import LIBRARIES, ModelShape, Workload, rank_need
from glmpatch.patching.model import Options
from glmpatch.process import stream
from glmpatch.training.corpus import make_corpus, write_data
from glmpatch.training.demo import SEED, clone_and_patch, make_upstream
from glmpatch.training.launcher import Mpirun
from glmpatch.training.run import TrainingRun, train, training_environment

# Python runs it when it starts: at its end a rank writes down the most memory that it has had, but for the pages of
# files. How many of those are mapped is a matter of the page cache.
HOOK = """\
import atexit, os, sys
from pathlib import Path

def write_peak():
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak, files = (int(status[name].split()[0]) for name in ("VmHWM", "RssFile"))
    Path(f"{os.environ['PEAKS']}/{os.getpid()}").write_text(str(peak - files))

if "main.py" in sys.orig_argv:
    atexit.register(write_peak)
"""
# Gives a model of the demo's kind other sizes, and random weights.
GROW = """\
import json, sys
from pathlib import Path
from transformers import AutoConfig, AutoModel

folder = Path(sys.argv[1])
config = folder / "config.json"
config.write_text(json.dumps({**json.loads(config.read_bytes()), **json.loads(sys.argv[2])}))
shape = AutoConfig.from_pretrained(folder, trust_remote_code=True)
AutoModel.from_config(shape, trust_remote_code=True).save_pretrained(folder)
"""


@dataclass(frozen=True)
class Case:
    """A model and what is trained on it: other sizes than the demo's, and arguments for its script."""

    sizes: dict[str, int]
    work: Workload
    edits: dict[str, str]


DEMO = Case({}, Workload("fp32", 32, 64, batch=8, pre_seq_len=32), {})
LARGER = Case(
    {
        "num_layers": 4,
        "hidden_size": 768,
        "num_attention_heads": 8,
        "inner_hidden_size": 3072,
        "vocab_size": 16384,
    },
    Workload("fp32", 96, 160, batch=2, pre_seq_len=64),
    {
        "PRE_SEQ_LEN=32": "PRE_SEQ_LEN=64",
        "--max_source_length 32": "--max_source_length 96",
        "--max_target_length 64": "--max_target_length 160",
        "--per_device_train_batch_size 8": "--per_device_train_batch_size 2",
    },
)


@pytest.mark.train
@pytest.mark.parametrize("case", [DEMO, LARGER], ids=["demo", "larger"])
def test_each_rank_needs_what_was_estimated(
    case: Case, tmp_path: Path, model_folder: Path, mpi_launcher: Mpirun, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, model, peaks = tmp_path / "cache", tmp_path / "model", tmp_path / "peaks"
    for folder in (cache, peaks, tmp_path / "hook"):
        folder.mkdir()
    shutil.copytree(model_folder, model)
    if case.sizes:
        grow = [sys.executable, "-c", GROW, str(model), json.dumps(case.sizes)]
        for _ in stream(grow, env=training_environment(cache, ranks=1)):
            pass
    script = patched_script(tmp_path, case.edits)
    (tmp_path / "hook" / "sitecustomize.py").write_text(HOOK, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "hook"), os.environ["PYTHONPATH"]]))
    settings = {"MODEL": str(model), "DATA": str(tmp_path / "data"), "OUTPUT": str(tmp_path), "STEPS": "2"}
    run = TrainingRun(script, 2, mpi_launcher, {**settings, "PEAKS": str(peaks)}, cache, tmp_path / "log")
    train(run, lambda _: None)

    shape = ModelShape.from_config((model / "config.json").read_bytes())
    # The modules of the demo's model fill their parameters themselves, in fp32.
    estimate = rank_need(replace(shape, fills_fp32=True), case.work).peak_bytes - LIBRARIES
    measured = [int(file.read_text()) * 1024 for file in peaks.iterdir()]
    assert len(measured) == 2
    assert estimate == pytest.approx(max(measured), rel=0.15)


def patched_script(folder: Path, edits: dict[str, str]) -> Path:
    """The demo's training script in a patched tree beside its data, with some arguments changed."""
    write_data(make_corpus(SEED), folder / "data")
    make_upstream(folder / "upstream")
    clone_and_patch(folder / "upstream", folder / "tree", Options("mpi", "fp32"))
    script = folder / "tree" / "ptuning" / "train.sh"
    text = script.read_text("utf-8")
    for old, new in {"--logging_steps 5": "--logging_steps 1", **edits}.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    script.write_text(text, "utf-8")
    return script
