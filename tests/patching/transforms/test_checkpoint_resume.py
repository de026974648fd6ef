from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from glmpatch.patching.model import Changed
from glmpatch.patching.transforms.checkpoint_resume import CheckpointResume
from tests.support import check_changed, check_refused, check_untouched

TRANSFORM = CheckpointResume()

ALLOW = """\
from contextlib import nullcontext
# torch >= 2.6 loads NumPy's random state only where these names are allowed; torch < 2.5 has no such list.
numpy_names = [np.core.multiarray._reconstruct, np.ndarray, np.dtype, type(np.dtype("uint32"))]
with getattr(torch.serialization, "safe_globals", nullcontext)(numpy_names):
"""


def allow(indent: str, *, numpy: str = "np") -> str:
    return "".join(indent + line.replace("np.", f"{numpy}.") for line in ALLOW.splitlines(keepends=True))


BEFORE = """\
class Trainer:
    def _load_optimizer(self, checkpoint):
        return torch.load(checkpoint)

    def _load_rng_state(self, checkpoint):
        # 随机数
        if checkpoint is not None:
            {load}
            np.random.set_state(state["numpy"])

    def _save(self):
        return 1
"""


@pytest.mark.parametrize(
    "load",
    [
        "state = torch.load(rng_file)",
        "state = torch.load(rng_file, map_location='cpu')  # 状态",
        "state = dict(torch.load(rng_file))",
        "state: dict = torch.load(\n    rng_file,\n)",
        "state = torch.load(rng_file); print(state)",
        'state = torch.load("""a\nb""")',
        "np.random.set_state(torch.load(rng_file)['numpy'])",
        "return torch.load(rng_file)",
    ],
)
def test_allows_numpy_around_the_one_call(load: str) -> None:
    after = BEFORE.replace("            {load}", allow(" " * 12) + "                {load}")
    check_changed(TRANSFORM, BEFORE.format(load=load), after.format(load=load))


def test_keeps_tabs_and_the_name_of_numpy() -> None:
    before = "def _load_rng_state(self):\n\tstate = torch.load(f)\n\tnumpy.random.set_state(state)\n"
    after = f"def _load_rng_state(self):\n{allow(chr(9), numpy='numpy')}\t\tstate = torch.load(f)\n"
    check_changed(TRANSFORM, before, after + "\tnumpy.random.set_state(state)\n")


INHERITED = """\
import torch
from transformers import Trainer

class PrefixTrainer(Trainer):
    def _save(self):
        return {
            1: 2,
        }  # 末尾
"""
OVERRIDE = (
    ALLOW.replace("nullcontext\n", "nullcontext\nimport numpy as np\n", 1) + "    super()._load_rng_state(checkpoint)\n"
)


def override(indent: str) -> str:
    lines = [
        "def _load_rng_state(self, checkpoint):\n",
        *(indent + line for line in OVERRIDE.splitlines(keepends=True)),
    ]
    return "\n" + "".join(indent + line for line in lines).replace(indent * 2 + " " * 4, indent * 3)


@pytest.mark.parametrize("indent", ["    ", "\t", "  "])
def test_overrides_an_inherited_method(indent: str) -> None:
    before = INHERITED.replace("    ", indent)
    check_changed(TRANSFORM, before, before + override(indent))


def test_the_override_ends_the_class() -> None:
    before = INHERITED.replace("import Trainer", "import Seq2SeqTrainer, logging")
    before = before.replace("(Trainer)", "(Mixin, Seq2SeqTrainer)")
    rest = "\n\nclass Other:\n    pass\n"
    check_changed(TRANSFORM, before + rest, before + override("    ") + rest)


def test_an_override_that_only_calls_its_parent_is_wrapped_too() -> None:
    code = "import numpy as np\nclass T(Trainer):\n    def _load_rng_state(self, c):\n{}super()._load_rng_state(c)\n"
    check_refused(TRANSFORM, code.format(" " * 8), line=4, found="set_state")
    restore = "        np.random.set_state(1)\n"
    after = code.format(allow(" " * 8) + " " * 12) + restore
    check_changed(TRANSFORM, code.format(" " * 8) + restore, after)


@pytest.mark.parametrize(
    "load",
    [
        "state = torch.load(rng_file, weights_only=False)",
        "with torch.serialization.safe_globals([np.ndarray]):\n        state = torch.load(rng_file)",
        "with lock, safe_globals():\n        state = torch.load(rng_file)",
    ],
)
def test_stays_where_the_state_loads(load: str) -> None:
    check_untouched(TRANSFORM, f"def _load_rng_state(self):\n    {load}\n    np.random.set_state(state)\n")


@pytest.mark.parametrize(
    ("code", "line", "found"),
    [
        ("", None, "neither"),
        ("# def _load_rng_state(self): torch.load(f)\n", None, "neither"),
        ("from other import Trainer\nclass T(Trainer):\n    pass\n", None, "neither"),
        ("from transformers import Trainer\ntrainer = Trainer()\n", None, "neither"),
        ("from transformers import Trainer\nclass T(Trainer):\n    pass\n", 2, "import torch"),
        ("import torch as t\nfrom transformers import Trainer\nclass T(Trainer):\n    pass\n", 3, "import torch"),
        ("import torch\nfrom transformers import Trainer\nclass T(Trainer): pass\n", 3, "lines of their own"),
        (
            "import torch\nfrom transformers import Trainer\nclass A(Trainer):\n    a = 1\nclass B(Trainer):\n    b",
            5,
            "one class",
        ),
        ("def _load_rng_state(self):\n    return None\n", 1, "one call of torch.load()"),
        ("def _load_rng_state(self):\n    a = torch.load(f)\n    b = torch.load(g)\n", 3, "one call of torch.load()"),
        ("def _load_rng_state(self):\n    a = torch.load(f, weights_only=True)\n", 2, "without weights_only"),
        ("def _load_rng_state(self):\n    a = torch.load(f, weights_only=strict)\n", 2, "without weights_only"),
        ("def _load_rng_state(self):\n    a = torch.load(f)\n", 2, "set_state"),
        ("def _load_rng_state(self):\n    if a: s = torch.load(f)\n    np.random.set_state(s)\n", 2, "line of its own"),
        ("def _load_rng_state(self): s = np.random.set_state(torch.load(f))\n", 1, "line of its own"),
        ("def f(:\n", 1, "parse"),
    ],
)
def test_refuses(code: str, line: int | None, found: str) -> None:
    check_refused(TRANSFORM, code, line=line, found=found)


# Trains four steps at once, then two steps and, from their checkpoint, two more: once with each trainer. With dropout,
# the weights come out equal only if the random state is restored. All files of the checkpoint are loaded for real.
RESUME = """
import importlib.util
import json
import shutil

import torch
from transformers import Trainer, TrainingArguments


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(7)
        self.linear = torch.nn.Linear(8, 1)
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, x, labels):
        return {"loss": (self.linear(self.dropout(x)).squeeze(-1) - labels).square().mean()}


def load(name, file):
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def train(kind, steps, folder, resume=None):
    arguments = TrainingArguments(
        folder, max_steps=steps, save_steps=2, learning_rate=0.1, lr_scheduler_type="constant", optim="adamw_torch",
        per_device_train_batch_size=2, no_cuda=True, report_to=[], disable_tqdm=True,
    )
    trainer = kind(model=Net(), args=arguments, train_dataset=data)
    trainer.train(resume_from_checkpoint=resume)
    return trainer.model.linear.weight.tolist()


data = [{"x": torch.arange(8.0) / (i + 8), "labels": torch.tensor(i / 16)} for i in range(16)]
kinds = {
    "unpatched": Trainer,
    "heir": load("heir", "heir.py").PrefixTrainer,
    "copy": load("transformers.copied_trainer", "copied.py").Trainer,
}
result = {"straight": train(Trainer, 4, "straight")}
train(Trainer, 2, "first")
for name, kind in kinds.items():
    try:
        result[name] = train(kind, 4, name, resume="first/checkpoint-2")
    except Exception as error:
        result[name] = type(error).__name__
with open("result.json", "w") as file:
    json.dump(result, file)
"""


@pytest.mark.train
def test_a_patched_trainer_resumes(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = importlib.util.find_spec("transformers")
    if transformers is None or transformers.origin is None:
        pytest.skip("needs transformers")
    trainer = Path(transformers.origin).with_name("trainer.py")
    heir = b"import torch\nfrom transformers import Trainer\n\nclass PrefixTrainer(Trainer):\n    title = 'heir'\n"
    for name, source in (("heir.py", heir), ("copied.py", trainer.read_bytes())):
        outcome = TRANSFORM(source)
        assert isinstance(outcome, Changed)
        (tmp_path / name).write_bytes(outcome.data)
    (tmp_path / "resume.py").write_text(RESUME)
    command = [sys.executable, "resume.py"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=100, check=False)
    assert run.returncode == 0, run.stderr.decode()
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["heir"] == result["copy"] == result["straight"]
    if torch.torch_version.TorchVersion(torch.__version__) >= (2, 6):
        assert result["unpatched"] == "UnpicklingError"
