from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glmpatch.patching.model import AlreadyDone, Changed, Dtype, Notice
from glmpatch.patching.syntax.shell import ShellFile
from glmpatch.patching.transforms.train_flags import TrainFlags
from tests.support import check_changed, check_refused, check_untouched

BF16 = TrainFlags()
FP32 = TrainFlags(dtype="fp32")
CASES = sorted((Path(__file__).parents[2] / "patches" / "train-flags").iterdir())
BASH = shutil.which("bash") or "bash"

OWN_VALUE = {"--quantization_bit", "--fp16_opt_level", "--half_precision_backend"}
BOOLEAN = {"--no_cuda", "--bf16", "--fp16", "--bf16_full_eval", "--fp16_full_eval"}

STUB = """#!/bin/sh
printf '%s\\0' "$(basename "$0")" "$@" >> "$ARGV_LOG"
printf '\\036' >> "$ARGV_LOG"
"""


def split_flags(arguments: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Set the flags that the transform cares for apart from the others. A naive model of argparse."""
    others: list[str] = []
    flags: dict[str, list[str]] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        name, glued, value = word.partition("=")
        if name not in OWN_VALUE | BOOLEAN:
            others.append(word)
            continue
        if not glued and (name in OWN_VALUE or (rest and rest[0].lower() in {"true", "false"})):
            value = rest.pop(0)
        flags.setdefault(name, []).append(value.lower())
    return others, flags


def check_arguments(before: list[str], after: list[str]) -> None:
    """Assert that `after` are the arguments of a training in bf16 on the CPU, and otherwise those of `before`."""
    others, old = split_flags(before)
    kept, new = split_flags(after)
    assert kept == others
    wants_full_eval = any(value != "false" for name in old for value in old[name] if name.endswith("_full_eval"))
    assert len(new.pop("--no_cuda")) == 1
    assert new.pop("--bf16") in ([""], ["true"])
    if wants_full_eval:
        assert new.pop("--bf16_full_eval") in ([""], ["true"])
    assert all(name.endswith("_full_eval") and set(values) == {"false"} for name, values in new.items())


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stubs")
    for name in ("python", "python3", "torchrun"):
        (folder / name).write_text(STUB)
        (folder / name).chmod(0o755)
    return folder


def run(script: bytes, stubs: Path, folder: Path) -> list[list[str]]:
    """Run a script with programs that only write down their arguments: those behind main.py, of each call."""
    folder = folder / "work"
    folder.mkdir()
    (folder / "run.sh").write_bytes(script.replace(b"\r\n", b"\n"))
    log = folder / "argv"
    log.touch()
    environment = {"PATH": f"{stubs}{os.pathsep}{os.environ['PATH']}", "ARGV_LOG": str(log)}
    subprocess.run([BASH, "run.sh"], cwd=folder, env=environment, check=False, capture_output=True, timeout=20)
    calls = [call.split("\0")[:-1] for call in log.read_text().split("\x1e")[:-1]]
    shutil.rmtree(folder)
    places = [next(index for index, word in enumerate(call) if word.endswith("main.py")) for call in calls]
    return [call[place + 1 :] for call, place in zip(calls, places, strict=True)]


def check_syntax(script: bytes) -> None:
    subprocess.run([BASH, "-n"], input=script.replace(b"\r\n", b"\n"), check=True, capture_output=True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.name))
def test_golden(case: Path) -> None:
    before = (case / "before.sh").read_bytes()
    after = (case / "after.sh").read_bytes()
    outcome = BF16(before)
    assert isinstance(outcome, Changed), outcome
    assert outcome.data.decode() == after.decode()
    assert isinstance(BF16(after), AlreadyDone)


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.name))
def test_golden_arguments(case: Path, stubs: Path, tmp_path: Path) -> None:
    before = run((case / "before.sh").read_bytes(), stubs, tmp_path)
    after = run((case / "after.sh").read_bytes(), stubs, tmp_path)
    assert before
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        check_arguments(old, new)


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.name))
def test_golden_dtype_can_be_switched(case: Path) -> None:
    after = (case / "after.sh").read_bytes()
    single = FP32(after)
    assert isinstance(single, Changed)
    check_syntax(single.data)
    assert b"bf16" not in single.data
    assert isinstance(FP32(single.data), AlreadyDone)
    back = BF16(single.data)
    assert isinstance(back, Changed)
    assert isinstance(BF16(back.data), AlreadyDone)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("--a", "--a --no_cuda --bf16"),
        ("", " --no_cuda --bf16"),
        ("--no_cuda --a", "--no_cuda --a --bf16"),
        ("--no_cuda=true --bf16 True --quantization_bit 4", "--no_cuda=true --bf16 True"),
        ("--no_cuda False --a", "--no_cuda --a --bf16"),
        ("--no_cuda=no --a", "--no_cuda --a --bf16"),
        ("--bf16 --no_cuda --bf16 True --no_cuda", "--bf16 --no_cuda"),
        ("--fp16 --a --no_cuda", "--bf16 --a --no_cuda"),
        ("--fp16 false --no_cuda", "--bf16 --no_cuda"),
        ("--fp16=True --no_cuda --bf16", "--no_cuda --bf16"),
        ("--fp16_full_eval --no_cuda --bf16", "--bf16_full_eval --no_cuda --bf16"),
        ("--fp16_full_eval True --bf16_full_eval --no_cuda --bf16", "--bf16_full_eval --no_cuda --bf16"),
        ("--fp16_opt_level O1 --fp16_backend=apex --no_cuda --bf16", "--no_cuda --bf16"),
        ("--half_precision_backend=apex --no_cuda --bf16", "--no_cuda --bf16"),
        ("--quantization_bit=4 --quantization_bit $Q --no_cuda --bf16", "--no_cuda --bf16"),
        ("'--fp16' \"--quantization_bit\" '4' --no_cuda", "--bf16 --no_cuda"),
        ("--fp16 --no_cuda -1", "--bf16 --no_cuda -1"),
    ],
)
def test_flags(before: str, after: str) -> None:
    check_changed(BF16, f"python3 main.py {before}".rstrip() + "\n", f"python3 main.py {after.lstrip()}\n")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("--a --fp16", "--a --no_cuda"),
        ("--bf16 --no_cuda", "--no_cuda"),
        ("--fp16_full_eval True --no_cuda --bf16_full_eval=True --fp16_opt_level O1", "--no_cuda"),
        ("--quantization_bit 4 --bf16=False --no_cuda True", "--no_cuda True"),
    ],
)
def test_flags_of_fp32(before: str, after: str) -> None:
    check_changed(FP32, f"python3 main.py {before}\n", f"python3 main.py {after}\n")


@pytest.mark.parametrize(
    ("transform", "flags"),
    [
        (BF16, "--bf16 --no_cuda"),
        (BF16, "--no_cuda True --bf16=true --half_precision_backend cpu_amp"),
        (BF16, "--no_cuda --bf16 --fp16_full_eval False"),
        (BF16, '--no_cuda "${ARGS[@]}" --bf16 "$@"'),
        (BF16, "--bf16 --no_cuda --fp16x 1 --my_quantization_bit 4"),
        (FP32, "--no_cuda"),
        (FP32, "--no_cuda --bf16_x"),
    ],
)
def test_already_done(transform: TrainFlags, flags: str) -> None:
    check_untouched(transform, f"python3 main.py {flags}\n")


def test_other_commands_stay() -> None:
    before = """
        # CUDA_VISIBLE_DEVICES=0 python3 main.py --fp16 --quantization_bit 4
        echo "python main.py --fp16"
        CUDA_VISIBLE_DEVICES=0 python my_main.py --fp16
        CUDA_VISIBLE_DEVICES=0 python web_demo.py --quantization_bit 4
        """
    own = "        python3 main.py --fp16 --no_cuda\n"
    check_changed(BF16, before + own, before + own.replace("--fp16", "--bf16"))


def test_another_script() -> None:
    check_changed(
        TrainFlags(script="tune.py"),
        "python tune.py\npython main.py\n",
        "python tune.py --no_cuda --bf16\npython main.py\n",
    )


def lines(notices: tuple[Notice, ...]) -> list[tuple[int | None, str]]:
    return [(notice.line, notice.message) for notice in notices]


@pytest.mark.parametrize(
    ("code", "line", "found"),
    [
        ("export CUDA_VISIBLE_DEVICES=0\npython main.py", 1, "CUDA_VISIBLE_DEVICES has no effect"),
        ("A=1 CUDA_VISIBLE_DEVICES=0\npython main.py", 1, "CUDA_VISIBLE_DEVICES has no effect"),
        ("python main.py \\\n  --preprocessing_num_workers 10", 2, "forks"),
        ("python main.py --preprocessing_num_workers=$N", 1, "forks"),
        ("python main.py --a 1 $ARGS", 1, "$ARGS"),
        ('python main.py --a \\\n  "${ARGS[@]}"', 2, '"${ARGS[@]}"'),
        ('python main.py --a 1 "$EXTRA"', 1, '"$EXTRA"'),
        ("python main.py --a 1 --$FLAG", 1, "--$FLAG"),
        ("python main.py \\\n  --a \\\n\n  --b 1", 4, "--b and what follows"),
        ("python main.py \\\n  --a\n  --b 1", 3, "--b and what follows"),
        ("python main.py \\\n  --a \\\n  # --b \\\n  --c \\\n  --fp16", 4, "--fp16 left as it is"),
        ("N=2\ntorchrun --nproc_per_node $N main.py", 1, "N is no longer used"),
        ("GPU=2\nCUDA_VISIBLE_DEVICES=$GPU python main.py", 1, "GPU is no longer used"),
        ("Q=4\npython main.py --quantization_bit ${Q}", 1, "Q is no longer used"),
    ],
)
def test_notices(code: str, line: int, found: str) -> None:
    outcome = BF16(f"{code}\n".encode())
    assert isinstance(outcome, Changed)
    ((where, message),) = lines(outcome.notices)
    assert where == line
    assert found in message


@pytest.mark.parametrize(
    "code",
    [
        "python main.py --preprocessing_num_workers 1",
        "N=2\ntorchrun --nproc_per_node $N main.py --batch $N",
        "N=2\ntorchrun --nproc_per_node $N main.py\necho ${N}",
        "python main.py --output_dir out-$A-$B-dev --lr $LR --x=$X",
        'python main.py --output_dir "$OUT"',
        "python other.py \\\n  --a",
    ],
)
def test_no_notice(code: str) -> None:
    outcome = BF16(f"{code}\npython main.py\n".encode())
    assert isinstance(outcome, Changed)
    assert lines(outcome.notices) == []


def test_notice_of_crlf() -> None:
    outcome = BF16(b"python main.py \\\r\n  --no_cuda \\\r\n  --bf16\r\n")
    assert isinstance(outcome, AlreadyDone)
    assert "CRLF" in outcome.notices[0].message


@pytest.mark.parametrize(
    ("code", "line", "found"),
    [
        ("python other.py\n", None, "no such command"),
        ("# python main.py\n", None, "no such command"),
        ("A=1\ndeepspeed main.py\n", 2, "out of scope"),
        ("python main.py\nbash -c 'python main.py'\n", 2, "in this script itself"),
        ("python main.py \\\n  --deepspeed x.json\n", 2, "out of scope"),
        ("python main.py config.json\n", 1, "JSON"),
        ("python main.py --quant 4\n", 1, "short for another"),
        ("python main.py --a \\\n  --quantization_bit\n", 2, "a value behind"),
        ("python main.py --quantization_bit --a\n", 1, "a value behind"),
        ('python main.py --quantization_bit "$@"\n', 1, "a value behind"),
        ("python main.py --fp16 $X\n", 1, "may be its value or more flags"),
        ("python main.py --no_cuda \\\n  $X\n", 2, "may be its value or more flags"),
        ('python main.py --bf16 "$X"\n', 1, "True, False or nothing"),
        ("python main.py --fp16_full_eval=$X\n", 1, "True, False or nothing"),
        ("python main.py --no_cuda maybe\n", 1, "True, False or nothing"),
        ('A=1\nARGS="--a --fp16"\npython main.py $ARGS\n', 2, "take the flags for the GPU out"),
        ("ARGS=(--a\n  --quantization_bit 4)\npython main.py ${ARGS[@]}\n", 1, "take the flags for the GPU out"),
        ("ARGS=(--a)\nARGS+=(--fp16)\npython main.py ${ARGS[@]}\n", 2, "take the flags for the GPU out"),
        ('B="--fp16"\nA="$B --a"\npython main.py --x 1 $A\n', 1, "take the flags for the GPU out"),
        ("python main.py --x 1 ${X:---fp16}\n", 1, "take the flags for the GPU out"),
        ("python main.py \\\n  --lr 1e-4\\\n--a\n", 2, "put a blank before the backslash"),
        ("python main.py \\\n  --a \\ \n  --b\n", 2, "white space behind the backslash"),
        ("if true; then\n  python main.py\n", 2, "bash -n"),
        ("@echo off\nset LR=1\npython main.py ^\n  --lr %LR%\n", 1, "batch"),
    ],
)
def test_refusals(code: str, line: int | None, found: str) -> None:
    check_refused(BF16, code, line=line, found=found)


def test_bf16_in_a_variable_is_only_wrong_for_fp32() -> None:
    code = "ARGS=(--bf16)\npython main.py --no_cuda ${ARGS[@]} --bf16\n"
    check_untouched(BF16, code)
    check_refused(FP32, code, line=1, found="take the flags for the GPU out")


OPTIONS = st.sampled_from(
    [
        "--do_train",
        "--lr 1e-4",
        "--output_dir out-$A-$B-dev",
        "--output_dir \"a b/$A\"'c d'",
        "--prompt_column ''",
        "--pre_seq_len=128",
        "--label 中文",
        "--min -1",
        "--quantization_bit 4",
        "--quantization_bit=$A",
        "--fp16",
        "--fp16 True",
        "--fp16=False",
        "--bf16",
        "--no_cuda",
        "--no_cuda False",
        "--fp16_full_eval",
        "--bf16_full_eval True",
        "--fp16_opt_level O1",
        "--half_precision_backend cuda_amp",
    ]
)
LAUNCHERS = st.sampled_from(
    [
        "python3 main.py",
        "python -u ./main.py",
        'nohup python3.10 "${DIR}/main.py"',
        "torchrun --standalone --nproc-per-node=$N main.py",
        "torchrun{}--nnodes 1{}--nproc_per_node 2{}main.py",
        "python -m torch.distributed.launch --use_env --nproc_per_node 1 main.py",
    ]
)
PREFIXES = st.sampled_from(
    ["", "CUDA_VISIBLE_DEVICES=0 ", "A=1 CUDA_VISIBLE_DEVICES=0,1{}B=2 ", "env CUDA_VISIBLE_DEVICES=0 "]
)
JOINERS = st.sampled_from([" ", " \\\n    ", "\t\\\n\t", "\\\n  ", " \\\n \\\n  "])
TAILS = st.sampled_from(["", " > log 2>&1", " 2>&1 | tee log", " &", " # --fp16", " \\\n", " || exit 1"])
AROUND = "# CUDA_VISIBLE_DEVICES=0 python3 main.py --fp16 \\\necho 'main.py --fp16' $CUDA\n"


def arguments_of(script: bytes) -> list[str]:
    """The arguments of the command between `AROUND` and `AROUND`, as shlex reads them."""
    command = script.decode().replace("\r\n", "\n").split(AROUND)[1].replace("\\\n", "")
    lexer = shlex.shlex(command, posix=True, punctuation_chars="|&>")
    lexer.whitespace_split = True
    words = [word for word in lexer if word != "2"]
    words = words[next(index for index, word in enumerate(words) if word.endswith("main.py")) + 1 :]
    ends = [index for index, word in enumerate(words) if word and set(word) <= set("|&>")]
    return words[: min(ends, default=len(words))]


@st.composite
def commands(draw: st.DrawFn) -> str:
    joiner = draw(JOINERS)
    start = (draw(PREFIXES) + draw(LAUNCHERS)).replace("{}", joiner)
    return joiner.join([start, *draw(st.lists(OPTIONS, max_size=7))]) + draw(TAILS)


@settings(max_examples=250, deadline=None)
@given(command=commands(), crlf=st.booleans(), dtype=st.sampled_from(["bf16", "fp32"]))
def test_any_layout(command: str, *, crlf: bool, dtype: Dtype) -> None:
    script = f"{AROUND}{command}\n{AROUND}".encode()
    around = AROUND.encode()
    if crlf:
        script, around = (code.replace(b"\n", b"\r\n") for code in (script, around))
    transform = TrainFlags(dtype=dtype)
    outcome = transform(script)
    after = outcome.data if isinstance(outcome, Changed) else script
    assert isinstance(outcome, Changed | AlreadyDone), outcome
    assert isinstance(transform(after), AlreadyDone)
    assert after.startswith(around)
    assert after.endswith(around)
    assert after.count(b"\r\n") == (after.count(b"\n") if crlf else 0)
    ShellFile(after)
    others, flags = split_flags(arguments_of(after))
    assert others == split_flags(arguments_of(script))[0]
    if dtype == "bf16":
        check_arguments(arguments_of(script), arguments_of(after))
    else:
        assert set(flags) == {"--no_cuda"}
    assert b"torch" not in after
    assert b"CUDA_VISIBLE_DEVICES" not in after.replace(around, b"")


@pytest.mark.parametrize("joiner", [" ", " \\\n    ", "\\\n  "])
@pytest.mark.parametrize("tail", ["", " > log 2>&1 &", " 2>&1 | tee log", " \\\n\n"])
@pytest.mark.parametrize("launcher", ["CUDA_VISIBLE_DEVICES=0 python3 main.py", "torchrun --nnodes=1 main.py"])
def test_bash_takes_the_result(joiner: str, tail: str, launcher: str) -> None:
    command = joiner.join([launcher, "--fp16_full_eval", "--lr $A-$B-c", "--quantization_bit 4"])
    outcome = BF16(f"f() {{\n{command}{tail}\n}}\n(f)\n".encode())
    assert isinstance(outcome, Changed)
    check_syntax(outcome.data)


@pytest.mark.parametrize(
    "script",
    [
        "".join(f"V{i}=$V{i + 1}\n" for i in range(3500)) + "python3 main.py --quantization_bit $V0\n",
        "echo " + "$(a)" * 8000 + "\npython3 main.py --fp16\n",
        "python3 main.py" + " --fp16" * 4000 + "\n",
    ],
)
def test_cost_grows_with_the_size_alone(script: str) -> None:
    start = time.process_time()
    assert isinstance(BF16(script.encode()), Changed)
    assert time.process_time() - start < 3, "each assignment, part or option read the whole script again"
