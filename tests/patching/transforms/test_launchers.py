from __future__ import annotations

import pytest

from glmpatch.patching.model import Refusal
from glmpatch.patching.syntax.shell import ShellFile
from glmpatch.patching.transforms.launchers import Launch, find_launches


def launches(code: str) -> list[Launch]:
    return find_launches(ShellFile(code.encode()), "main.py")


def launch(code: str) -> Launch:
    (found,) = launches(code)
    return found


@pytest.mark.parametrize(
    "before",
    [
        "python main.py",
        "python3 ./main.py",
        "python3.10 -u ptuning/main.py",
        "/usr/bin/python3 -W ignore -X faulthandler ${DIR}/main.py",
        "~/env/bin/python -Wignore -OB '/a b/main.py'",
        '$PYTHON "${DIR}/main.py"',
        '"${PYTHON_BIN:-python3}" "$DIR"/main.py',
        "A=1 nohup python3 main.py",
        "time env A=1 nice -n 5 python3 main.py",
        "exec numactl -C 0-7 --membind=0 python3 $(dirname $0)/main.py",
        "mpirun -n 2 -x A=1 python3 main.py",
        "torchrun main.py",
        "torchrun --standalone --nproc-per-node 2 main.py",
        "torchrun --nnodes=1:2 --nproc_per_node=$N --rdzv-backend c10d --log_dir x -r 3 -t 3 --run-path main.py",
        "$DIR/torchrun --master_port $PORT main.py",
        "python -m torch.distributed.launch --use_env --nproc_per_node 2 main.py",
        "python3 -u -m torch.distributed.run --max-restarts=0 main.py",
    ],
)
def test_launches(before: str) -> None:
    found = launch(f"{before} --a 1 > log\n")
    assert found.script.basename == "main.py"
    assert [word.text for word in found.arguments] == ["--a", "1"]


def test_parts_of_a_launch() -> None:
    found = launch("A=1 nohup python3 -u -m torch.distributed.run --nnodes 1 main.py --a\n")
    assert [word.text for word in found.prefix] == ["nohup"]
    assert [word.text for word in found.launcher] == ["-m", "torch.distributed.run", "--nnodes", "1"]
    assert found.interpreter == ""
    assert launch("torchrun main.py\n").interpreter == "python3 "
    assert launch("python main.py\n").launcher == ()


def test_assignments_of_a_launch() -> None:
    found = launch("A=1 B=2 env A=3 -u A sudo A=4 nohup A=5 mpirun -x A=6 python3 main.py A=7\n")
    assert [word.text for word in found.assignments_of("A")] == ["A=1", "A=3", "A=4"]


def test_python_from_a_variable_of_the_script() -> None:
    assert launch("PYTHON=/opt/bin/python3.11\n$PYTHON main.py\n")
    assert launch("PYTHON=$(which python3)\n$PYTHON main.py\n")


def test_all_of_them() -> None:
    code = "f() { python main.py; }\n(cd x && python main.py) || torchrun main.py\necho $(python main.py)\n"
    assert len(launches(code)) == 4


@pytest.mark.parametrize(
    "code",
    [
        "# python main.py",
        "python my_main.py",
        "python main.pyc",
        "python main.py.bak",
        "python other.py main.py",
        "torchrun other.py --script main.py",
        "deepspeed other.py",
        "echo 'python main.py'",
        "echo python main.py",
        "cp main.py main2.py",
        "[ -f main.py ] || exit 1",
        "if [[ -e main.py ]]; then :; fi",
        "vim main.py",
        "nohup vim main.py",
        "LOG=main.py.log",
    ],
)
def test_near_misses(code: str) -> None:
    assert launches(f"{code}\n") == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("deepspeed --num_gpus=4 main.py --a", "out of scope"),
        ("nohup deepspeed main.py", "out of scope"),
        ("accelerate launch --config x main.py", "out of scope"),
        ("python -m accelerate.commands.launch main.py", "python3 main.py"),
        ("python -m pdb main.py", "python3 main.py"),
        ("python -c 'import main' main.py", "python3 main.py"),
        ("python --unknown main.py", "python3 main.py"),
        ("python $OPTIONS main.py", "in the clear"),
        ("torchrun $OPTIONS main.py", "in the clear"),
        ("torchrun --unknown 1 main.py", "--unknown"),
        ("torchrun --nproc 1 main.py", "--nproc"),
        ("torchrun --standalone=1 main.py", "--standalone"),
        ("torchrun --no-python main.py", "--no-python"),
        ("torchrun -m main main.py", "-m"),
        ('torchrun --nnodes "${N[@]}" main.py', "no value"),
        ("torchrun --standalone > log main.py", "redirections"),
        ("python main.py <<EOF\nEOF", "here-document"),
        ("./main.py --a", "python3 main.py"),
        ("bash -c 'python main.py'", "in this script itself"),
        ("nohup bash -c 'cd x; ./main.py'", "in this script itself"),
        ("eval python main.py", "in this script itself"),
        ("ssh host 'cd x; python main.py'", "in this script itself"),
        ("docker run x python main.py", "in this script itself"),
        ("nohup ./wrap python9 main.py", "in this script itself"),
        ("$RUN main.py", "in this script itself"),
        ('PYTHON="accelerate launch" && $PYTHON main.py', "in this script itself"),
        ('PYTHON="python \'x" && $PYTHON main.py', "in this script itself"),
        ("run() { python $@; }; run main.py", "in this script itself"),
        ("CMD='python main.py --fp16'", "not into a variable"),
        ("SCRIPT=main.py bash run.sh", "not into a variable"),
        ("ARGS=(python main.py)", "not into a variable"),
        ("cat > run.sh <<EOF\npython main.py\nEOF", "here-document"),
    ],
)
def test_refusals(code: str, found: str) -> None:
    with pytest.raises(Refusal) as caught:
        launches(f"\n{code}\n")
    conflict = caught.value.conflict
    assert conflict.line == 2 + (code.startswith("cat"))
    assert found in f"{conflict.expected}\n{conflict.hint}"
