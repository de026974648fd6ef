"""Every right result passes the second reader, and a result with one thing wrong does not."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from glmpatch.checking.postconditions import POSTCONDITIONS, Broken, broken_in
from glmpatch.patching.model import Transform
from glmpatch.patching.transforms import TRANSFORMS
from glmpatch.patching.transforms.frozen_broadcast import FrozenBroadcast
from glmpatch.patching.transforms.precision import Precision
from glmpatch.patching.transforms.process_group import ProcessGroup
from glmpatch.patching.transforms.train_flags import TrainFlags
from tests.support import all_patches

ROOT = Path(__file__).parents[1] / "patches"
SERIES = {patch.id: patch.edits[0].transform for patch in all_patches()}
CASES = sorted(f"{path.parent.name}/{path.name}" for path in ROOT.glob("*/*") if path.is_dir())


class Unknown(Transform, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name = "of-a-fork"


def golden(case: str) -> tuple[str, bytes, bytes]:
    """The name of the file of a case, and its bytes before and after."""
    (before,), (after,) = (ROOT / case).glob("before.*"), (ROOT / case).glob("after.*")
    return f"file{after.suffix}", before.read_bytes(), after.read_bytes()


def crlf(data: bytes) -> bytes:
    return data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def names(found: tuple[tuple[str, Broken], ...]) -> set[str]:
    return {name for name, _ in found}


def test_every_transform_is_judged() -> None:
    assert POSTCONDITIONS.keys() == TRANSFORMS.keys()


@pytest.mark.parametrize("case", CASES)
def test_right_result_passes(case: str) -> None:
    path, before, after = golden(case)
    transform = SERIES[case.partition("/")[0]]
    bom = codecs.BOM_UTF8
    assert broken_in(path, before, after, [transform]) == ()
    assert broken_in(path, after, after, [transform]) == ()
    assert broken_in(path, bom + before, bom + after, [transform]) == ()
    if before:
        assert broken_in(path, crlf(before), crlf(after), [transform]) == ()


OVERRIDE = "checkpoint-resume/inherited"
RESUME = "checkpoint-resume/own-method"
TOLD = "frozen-broadcast/keyword"
BRANCHES = "frozen-broadcast/one-in-each-branch"
CAST = "precision/guarded"
GUARDED = "precision/cuda-under-a-guard"
JOIN = "process-group/insert-into-main"
FUTURE = "process-group/insert-import-last"
TIMEOUT = "process-group/replace-full-name-keeping-timeout"
ALIAS = "process-group/replace-imported-function"
PINS = "requirements/spelling-comments-markers"
OLDER = "requirements/older-pins"
COLLECTIVES = "mpi-dtypes/collectives"
ENTRIES = "mpi-dtypes/entries-with-a-condition"
FLAGS = "train-flags/one-option-a-line"
COMMANDS = "train-flags/two-commands"
JOINING = '    dist.init_process_group(backend="mpi")\n'

MUTATIONS = [
    (RESUME, "np.ndarray, ", "", "checkpoint-resume"),
    (RESUME, "            states = torch.load", "            pass\n        states = torch.load", "checkpoint-resume"),
    (RESUME, "        from contextlib import nullcontext\n", "", "checkpoint-resume"),
    (RESUME, "torch.load(path)", "torch.load(other)", "checkpoint-resume"),
    (RESUME, "def _save_rng_state", "def _save_state", "checkpoint-resume"),
    (RESUME, "  # python, numpy, cpu", "", "checkpoint-resume"),
    (RESUME, '"safe_globals"', '"add_safe_globals"', "checkpoint-resume"),
    (OVERRIDE, "def _load_rng_state", "def load_rng_state", "checkpoint-resume"),
    (OVERRIDE, "super()._load_rng_state(checkpoint)", "pass", "checkpoint-resume"),
    (OVERRIDE, "        import numpy as np\n", "", "checkpoint-resume"),
    ("cpu-autocast/own-method", "torch.cpu.amp.autocast", "torch.cuda.amp.autocast", "cpu-autocast"),
    ("cpu-autocast/own-method", "torch.cpu.amp.autocast", "self.torch.cpu.amp.autocast", "cpu-autocast"),
    ("cpu-autocast/own-method", "def autocast_smart_context_manager", "def autocast_manager", "cpu-autocast"),
    ("cpu-autocast/inherited", "from transformers", "from trainers", "cpu-autocast"),
    ("cpu-autocast/inherited", "import Trainer", "import Trainer as Base", "cpu-autocast"),
    (TOLD, "_ddp_params_and_buffers_to_ignore", "_ddp_params_to_ignore", "frozen-broadcast"),
    (TOLD, "if not parameter.requires_grad", "if parameter.requires_grad", "frozen-broadcast"),
    (TOLD, "        *(name for name, _ in model.named_buffers()),\n", "", "frozen-broadcast"),
    (TOLD, "    model._ddp", "    other._ddp", "frozen-broadcast"),
    (TOLD, "args=training_args", "args=None", "frozen-broadcast"),
    (TOLD, "        trainer.train()", "        pass", "frozen-broadcast"),
    (TOLD, "    # Make the trainer\n", "", "frozen-broadcast"),
    (BRANCHES, "    else:\n        # Every", "        # Every", "frozen-broadcast"),
    (COLLECTIVES, "glmpatch::datatypeOf(in.scalar_type())", "mpiDatatype.at(in.scalar_type())", "mpi-dtypes"),
    (COLLECTIVES, "glmpatch::opFor(opts.reduceOp, in.scalar_type())", "mpiOp.at(opts.reduceOp)", "mpi-dtypes"),
    (COLLECTIVES, "opFor(opts.reduceOp, in.scalar_type())", "opFor(opts.reduceOp, at::kHalf)", "mpi-dtypes"),
    (COLLECTIVES, "opFor(opts.reduceOp, in", "opFor(opts.other, in", "mpi-dtypes"),
    (COLLECTIVES, "datatypeOf(out.", "datatypeOf(in.", "mpi-dtypes"),
    (COLLECTIVES, "          comm));\n    };", "          nullptr));\n    };", "mpi-dtypes"),
    (COLLECTIVES, "// 归约\n", "", "mpi-dtypes"),
    (COLLECTIVES, " /* the type */", "", "mpi-dtypes"),
    (COLLECTIVES, "#ifdef USE", "#ifndef USE", "mpi-dtypes"),
    (COLLECTIVES, "#endif // USE_C10D_MPI\n", "", "mpi-dtypes"),
    (COLLECTIVES, "namespace glmpatch {", "namespace other {", "mpi-dtypes"),
    (ENTRIES, "(opts.reduceOp, entry->", "(opts.reduceOp, other->", "mpi-dtypes"),
    (ENTRIES, "{at::kBool, MPI_C_BOOL},", "", "mpi-dtypes"),
    ("mpi-dtypes/carried-already", "{at::ScalarType::Bool, MPI_C_BOOL},", "", "mpi-dtypes"),
    (CAST, ".bfloat16()", ".half()", "precision"),
    (CAST, ".bfloat16()", "", "precision"),
    (CAST, ".bfloat16()", ".float()", "precision"),
    (CAST, "prefix_encoder.float()", "prefix_encoder", "precision"),
    (CAST, "model = model.bfloat16()", "other = model.bfloat16()", "precision"),
    (CAST, "import logging\n", "", "precision"),
    (CAST, "model = model.float()", "model = model.float().cuda()", "precision"),
    (GUARDED, "model.half().cuda()", "model.bfloat16()", "precision"),
    (GUARDED, "np.half(1.5)", "np.bfloat16(1.5)", "precision"),
    (JOIN, JOINING, "", "process-group"),
    (JOIN, JOINING, JOINING * 2, "process-group"),
    (JOIN, 'backend="mpi"', 'backend="nccl"', "process-group"),
    (JOIN, 'backend="mpi"', 'backend="mpi", rank=0', "process-group"),
    (JOIN, JOINING, "    dist.init_process_group\n", "process-group"),
    (JOIN, JOINING, "    if os.name:\n    " + JOINING, "process-group"),
    (JOIN, JOINING, "    for _ in ():\n    " + JOINING, "process-group"),
    (JOIN, "import torch.distributed as dist\n", "", "process-group"),
    (JOIN, "import torch.distributed as dist\n", "import horovod as dist\n", "process-group"),
    (JOIN, "    dist.destroy_process_group()\n", "", "process-group"),
    (JOIN, "dist.destroy_process_group()", "other.destroy_process_group()", "process-group"),
    (JOIN, "    from time import sleep\n", "", "process-group"),
    (JOIN, "    main()\n    from", "    from", "process-group"),
    (JOIN, "def _mp_fn(index):\n    main()\n", "", "process-group"),
    (JOIN, "import sys\n", "", "process-group"),
    (JOIN, "json_file=sys.argv[1]", "json_file=sys.argv[0]", "process-group"),
    (JOIN, "# coding=utf-8\n", "", "process-group"),
    (TIMEOUT, "hours=2", "hours=3", "process-group"),
    (ALIAS, "from torch.distributed import init_process_group as ipg\n", "", "process-group"),
    (PINS, "==4.28.0", "==4.28.1", "requirements"),
    (PINS, "Transformers [sentencepiece]", "Transformers", "requirements"),
    (PINS, ' ; python_version >= "3.8"', "", "requirements"),
    (PINS, "# 依赖\r\n", "", "requirements"),
    (PINS, "  # 模型", "", "requirements"),
    (PINS, "-r requirements-dev.txt\r\n", "", "requirements"),
    (PINS, "git+https://example.org/tools/helper.git\r\n", "", "requirements"),
    (PINS, "protobuf", "accelerate==0.18.0", "requirements"),
    (OLDER, "datasets<3\n", "", "requirements"),
    (OLDER, "datasets<3\n", "datasets\n", "requirements"),
    (OLDER, "protobuf>=3.19.5,<3.20.1", "protobuf", "requirements"),
    (OLDER, "gradio\n", "gradio\ngradio\n", "requirements"),
    (OLDER, "torch>=1.10\n", "", "requirements"),
    (FLAGS, " \\\n    --no_cuda", "", "train-flags"),
    (FLAGS, "--no_cuda", "--no_cuda False", "train-flags"),
    (FLAGS, " \\\n    --bf16", "", "train-flags"),
    (FLAGS, "--bf16", "--bf16 --fp16", "train-flags"),
    (FLAGS, "--bf16", "--bf16 \\\n    --quantization_bit 4", "train-flags"),
    (FLAGS, "--max_steps $STEPS", "--max_steps", "train-flags"),
    (FLAGS, "    --train_file data/train.json \\\n", "", "train-flags"),
    (FLAGS, "RATE=5e-3\n", "", "train-flags"),
    (FLAGS, "python3 main.py", "CUDA_VISIBLE_DEVICES=0 python3 main.py", "train-flags"),
    (FLAGS, "python3 main.py", "torchrun main.py", "train-flags"),
    (FLAGS, "python3 main.py", "python3 other.py", "train-flags"),
    (COMMANDS, "--bf16 --no_cuda", "--no_cuda", "train-flags"),
    (COMMANDS, "| tee predict.log", "", "train-flags"),
    (COMMANDS, "  train --seed 3", "  train", "train-flags"),
    ("train-flags/crlf", "LR=2e-2\r\n", "", "train-flags"),
    ("train-flags/comment-inside", "    # --max_steps 3000 \\\n", "", "train-flags"),
    ("train-flags/fp16-full-eval", "--bf16_full_eval", "--fp16_full_eval", "train-flags"),
    ("train-flags/fp16-full-eval", "    --bf16_full_eval \\\n", "", "train-flags"),
    ("train-flags/torchrun", "python3 main.py", "python3 -m torch.distributed.run main.py", "train-flags"),
    # The file as a whole.
    (JOIN, "def main():", "def main()", ""),
    (FUTURE, "from __future__ import annotations\n", "import torch\nfrom __future__ import annotations\n", ""),
    (COMMANDS, "fi\n", "", ""),
    (COMMANDS, "train() {", "train() ", ""),
    (PINS, "\r\n", "\n", ""),
    ("precision/crlf", "# model = model.half()\r\n", "# model = model.half()\n", ""),
    ("precision/crlf", "prefix_encoder.float()", "prefix_encoder.float()\r\n", ""),
]


@pytest.mark.parametrize(("case", "right", "wrong", "name"), MUTATIONS)
def test_wrong_result_is_caught(case: str, right: str, wrong: str, name: str) -> None:
    path, before, after = golden(case)
    assert right.encode() in after
    mutant = after.replace(right.encode(), wrong.encode(), 1)
    transform = SERIES[case.partition("/")[0]]
    # A guard changes nothing, so what is wrong behind it was so before.
    before = mutant if transform.is_guard else before
    assert names(broken_in(path, before, mutant, [transform])) == {name}


@pytest.mark.parametrize("case", [JOIN, PINS, FLAGS, CAST, TOLD])
def test_bytes_of_the_whole_file_are_judged(case: str) -> None:
    path, before, after = golden(case)
    transforms = [SERIES[case.partition("/")[0]]]
    assert names(broken_in(path, codecs.BOM_UTF8 + before, after, transforms)) == {""}
    assert "" in names(broken_in(path, before, after.rstrip(b"\r\n"), transforms))
    assert names(broken_in(path, before, after + b"# \xff\n", transforms)) == {""}
    other = after.replace(b"\r\n", b"\n") if b"\r\n" in after else crlf(after)
    assert names(broken_in(path, before, other, transforms)) == {""}


def test_call_below_the_parsing_is_caught() -> None:
    path, before, after = golden(JOIN)
    below = after.replace(JOINING.encode(), b"").replace(b"    logger.info", JOINING.encode() + b"    logger.info")
    ((name, broken),) = broken_in(path, before, below, [ProcessGroup()])
    assert name == "process-group"
    assert broken == Broken("init_process_group() before the arguments are parsed on line 26", "it comes later", 29)


def test_call_in_a_helper_is_caught() -> None:
    path, before, after = golden(JOIN)
    helper = after.replace(JOINING.encode(), b"").replace(b"    main()\n\n", JOINING.encode() + b"    main()\n\n")
    found = broken_in(path, before, helper, [ProcessGroup()])
    assert (
        Broken("init_process_group() where the arguments are parsed", "it is in _mp_fn()", 33) in dict(found).values()
    )


@pytest.mark.parametrize(
    ("transform", "case"),
    [
        (ProcessGroup(backend="gloo"), JOIN),
        (Precision(dtype="fp32"), CAST),
        (TrainFlags(dtype="fp32"), FLAGS),
        (FrozenBroadcast(), "precision/already-cast"),
    ],
)
def test_parameters_are_judged(transform: Transform, case: str) -> None:
    path, before, after = golden(case)
    assert transform.name in names(broken_in(path, before, after, [transform]))


def test_loss_among_several_transforms_is_of_the_whole_file() -> None:
    path, before, after = golden(TOLD)
    lost = after.replace(b"        trainer.train()", b"        pass")
    ((name, broken),) = broken_in(path, before, lost, [FrozenBroadcast(), Precision(must_cast=False)])
    assert name == ""
    assert broken == Broken("the statement trainer.train()", "pass", 16)


def test_transform_of_a_fork_may_change_anything_that_parses() -> None:
    assert broken_in("a.py", b"a = 1\n", b"b = 2\n", [Unknown()]) == ()
    assert broken_in("a.md", b"a (\n", b"b (\n", [Unknown()]) == ()
    assert names(broken_in("a.py", b"a = 1\n", b"b = (\n", [Unknown()])) == {""}
    assert names(broken_in("a.sh", b"a\n", b"if a\n", [Unknown()])) == {""}


@pytest.mark.parametrize("code", ["(" * 500, "-" * 50_000 + "1", "a = 0\0", "a" + ".b()" * 20_000])
def test_code_that_no_parser_follows_is_told(code: str) -> None:
    data = code.encode() + b"\n"
    ((name, broken),) = broken_in("a.py", data, data, [ProcessGroup()])
    assert name == ""
    assert broken.expected == "a file that Python can parse"


def test_script_is_read_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "mark"
    start = tmp_path / "start"
    start.write_text(f"touch {mark}\n")
    monkeypatch.setenv("BASH_ENV", str(start))
    script = f"touch {mark}\npython3 main.py --no_cuda --bf16 $(touch {mark})\n".encode()
    assert broken_in("a.sh", script, script, [TrainFlags()]) == ()
    assert not mark.exists()


@pytest.mark.parametrize(
    "script",
    [
        "cat << 'E' > a\nit's python3 main.py --fp16\nE\n{}",
        "cat <<- E <<F\n\tE's\n\tE\nF's\nF\n{}",
        "echo a\\\n b\\\nc\n{}",
        'echo "a $(echo ")") b" # it\'s\n{}',
        "echo python3 main.py --fp16\n{}",
        "echo ${{A#* b}} $((1 << 2)) `a b`\n{}",
        "if true; then {}; fi\n",
    ],
)
def test_command_is_found_in_odd_company(script: str) -> None:
    before = script.format("CUDA_VISIBLE_DEVICES=0 python3 main.py --quantization_bit $((2 * 2)) --seed 1 2>&1")
    after = script.format("python3 main.py --seed 1 --no_cuda --bf16 2>&1")
    assert broken_in("a.sh", before.encode(), after.encode(), [TrainFlags()]) == ()
    wrong = after.replace("--seed 1", "--seed 2").encode()
    assert names(broken_in("a.sh", before.encode(), wrong, [TrainFlags()])) == {"train-flags"}


@pytest.mark.parametrize(
    "python", ["$PYTHON", "${PYTHON}", "${PYTHON:-python3}", '"${MY_PYTHON_BIN:=/usr/bin/python3}"']
)
def test_interpreter_in_a_variable_is_one(python: str) -> None:
    before = f"{python} main.py --seed 1\n".encode()
    assert broken_in("a.sh", before, before.replace(b"\n", b" --no_cuda --bf16\n"), [TrainFlags()]) == ()
    assert names(broken_in("a.sh", before, before, [TrainFlags()])) == {"train-flags"}


def test_script_that_bash_did_not_take_before_is_not_wrong_for_that() -> None:
    refused = b"python3 main.py\nfi\n"
    edited = b"python3 main.py --no_cuda --bf16\nfi\n"
    assert broken_in("a.sh", refused, edited, [TrainFlags()]) == ()
    assert names(broken_in("a.sh", refused[:-3], edited, [TrainFlags()])) == {""}


def test_hash_in_a_string_is_no_comment() -> None:
    before = b'import torch\nmodel = load("a # b", """\n# c\n""").half()#d\n'
    after = before.replace(b"half", b"bfloat16")
    assert broken_in("a.py", before, after, [Precision(must_cast=False)]) == ()
    assert names(broken_in("a.py", before, after.replace(b"#d", b""), [Precision(must_cast=False)])) == {"precision"}
