"""The launch script at work, with real MPIs on this machine."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from glmpatch.launching.plan import LaunchPlan, Mpi
from glmpatch.launching.script import render_script, write_script
from glmpatch.machine.placement import place
from glmpatch.machine.read import read_topology
from glmpatch.mpi import FLAVOURS
from glmpatch.mpi.flavour import FlavourId
from tests.launching.cluster_support import Records, no_backend
from tests.launching.test_script import HOSTILE
from tests.machine.machines import max9462
from tests.mpi_support import ALL_FLAVOURS, installation

RANKS = min(2, len(read_topology(None).usable_cores))
# What the ranks of a test need is nothing beside ChatGLM-6B.
SMALL = {"GLMPATCH_RANK_MB": "1"}
SHOWN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "OMP_NUM_THREADS", "MASTER_ADDR", "MASTER_PORT", "LD_PRELOAD", "MINE")
SHOW = f"""\
import json, os, sys
shown = {{name: os.environ.get(name) for name in {SHOWN}}}
found = {{"cpus": sorted(os.sched_getaffinity(0)), "cwd": os.getcwd(), "arguments": sys.argv[1:]}}
with open("rank" + shown["RANK"], "w") as file:
    json.dump({{**shown, **found}}, file)
"""


def plan_for(flavour: FlavourId) -> LaunchPlan:
    topology = read_topology(None)
    return LaunchPlan(Mpi(FLAVOURS[flavour], installation(flavour)), topology, place(topology, ranks=RANKS))


def make_tree(folder: Path, script: str = 'python3 show.py "$@"\n') -> Path:
    """The folder ptuning of a tree that looks patched, with a script to launch."""
    ptuning = folder / "ptuning"
    ptuning.mkdir(parents=True)
    (ptuning / "main.py").write_text('dist.init_process_group(backend="gloo")\n')
    (ptuning / "show.py").write_text(SHOW)
    (ptuning / "train.sh").write_text(script)
    return ptuning


def launch(
    plan: LaunchPlan, ptuning: Path, *arguments: str, cwd: Path = Path("/"), env: Mapping[str, str] = SMALL
) -> subprocess.CompletedProcess[str]:
    """Write the launch script beside the others, and run it."""
    write_script(ptuning / "launch_cpu.sh", render_script(plan))
    return subprocess.run(
        [ptuning / "launch_cpu.sh", *arguments],
        cwd=cwd,
        env={**os.environ, **no_backend(), **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
        check=False,
    )


def shown(ptuning: Path) -> list[dict[str, object]]:
    """What the ranks saw, by rank."""
    return [json.loads((ptuning / f"rank{rank}").read_text()) for rank in range(RANKS)]


@pytest.mark.parametrize("flavour", ALL_FLAVOURS)
def test_the_ranks_have_their_cores_and_their_environment(tmp_path: Path, flavour: FlavourId) -> None:
    folder = tmp_path / HOSTILE.replace("/", "")
    ptuning = make_tree(folder)
    python = folder / "bin" / "python3"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    plan = replace(plan_for(flavour), python_folder=python.parent)
    arguments = ["two words", HOSTILE, "", "--rank"]
    environment = {**SMALL, "MINE": HOSTILE, "SLURM_JOB_ID": "1", "SLURM_NODELIST": "elsewhere", "PMI_RANK": "7"}
    done = launch(plan, ptuning, "train.sh", *arguments, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    for rank, (seat, saw) in enumerate(zip(plan.placement.seats, shown(ptuning), strict=True)):
        cores = {cpu for core in seat.cores for cpu in core.cpus}
        assert set(seat.cpus) <= set(saw["cpus"]) <= cores  # type: ignore[call-overload]
        assert int(str(saw["MASTER_PORT"])) > 1024
        expected = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(RANKS),
            "OMP_NUM_THREADS": str(plan.placement.threads),
            "MASTER_ADDR": "127.0.0.1",
            "LD_PRELOAD": None,
            "MINE": HOSTILE,
            "cwd": str(ptuning),
            "arguments": arguments,
        }
        assert {**saw, **expected} == saw
    assert not list(tmp_path.rglob("pwned"))


@pytest.mark.parametrize("flavour", ALL_FLAVOURS)
def test_a_rank_that_fails_ends_the_others_and_tells_its_code(tmp_path: Path, flavour: FlavourId) -> None:
    ptuning = make_tree(tmp_path, "if ((RANK != WORLD_SIZE - 1)); then sleep 600; sleep 600; fi\nexit 7\n")
    assert launch(plan_for(flavour), ptuning, "train.sh").returncode == 7
    check_empty(ptuning)


@contextmanager
def at_work(ptuning: Path, plan: LaunchPlan) -> Iterator[subprocess.Popen[bytes]]:
    """A training that sleeps, when all its ranks do. In a session of its own, as in a terminal."""
    write_script(ptuning / "launch_cpu.sh", render_script(plan))
    with subprocess.Popen(
        [ptuning / "launch_cpu.sh", "train.sh"],
        env={**os.environ, **SMALL},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            end = time.monotonic() + 30
            while len(list(ptuning.glob("up*"))) < RANKS:
                assert time.monotonic() < end
                assert process.poll() is None
                time.sleep(0.02)
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def at_home(folder: Path) -> list[str]:
    """The processes that are in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder:
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found


def check_empty(folder: Path) -> None:
    """Assert that no process is in a folder, or soon none."""
    end = time.monotonic() + 5
    while left := at_home(folder):
        assert time.monotonic() < end, left
        time.sleep(0.02)


@pytest.mark.parametrize("flavour", ALL_FLAVOURS)
@pytest.mark.parametrize("how", ["Ctrl-C", "TERM"])
def test_nothing_is_left_of_a_training_that_is_stopped(tmp_path: Path, flavour: FlavourId, how: str) -> None:
    ptuning = make_tree(tmp_path, 'touch "up$RANK"\nsleep 600 &\npython3 -c "import time; time.sleep(600)"\n')
    with at_work(ptuning, plan_for(flavour)) as process:
        assert len(at_home(ptuning)) > RANKS
        if how == "Ctrl-C":
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.terminate()
        assert process.wait(15) != 0
        check_empty(ptuning)


@pytest.mark.train
def test_it_trains_and_evaluates(tmp_path: Path) -> None:
    # With fewer tokens to generate, and each with another MPI: test_two_hosts trains with all of them.
    shorter = "exec bash <(sed 's/max_target_length 64/max_target_length 4/' evaluate.sh)"
    flavours: tuple[FlavourId, ...] = ("intel", "openmpi")
    for flavour, command, made in zip(
        flavours, ("exec bash train.sh", shorter), ("checkpoint-2", "generated_predictions.txt"), strict=True
    ):
        records = Records(tmp_path / flavour, flavour)
        name = records.script(f"export STEPS=2 OUTPUT={shlex.quote(str(tmp_path / 'output'))}", command)
        done = launch(plan_for(flavour), records.ptuning, name)
        assert done.returncode == 0, done.stdout + done.stderr
        assert [(rank.local_rank, rank.size) for rank in records.ranks()] == [(rank, RANKS) for rank in range(RANKS)]
        assert list(tmp_path.glob(f"output/*/{made}"))


def test_all_that_is_missing_is_told_at_once(tmp_path: Path) -> None:
    ptuning = make_tree(tmp_path / "a tree")
    (ptuning / "main.py").write_text("# init_process_group is not called\n")
    topology = max9462("cache")
    plan = LaunchPlan(Mpi(FLAVOURS["mpich"], None), topology, place(topology), python_folder=Path("/nowhere"))
    done = launch(plan, ptuning, "--check", "train.sh", env={"GLMPATCH_RANK_MB": "100000000", "PATH": "/usr/bin:/bin"})
    errors = [line.removeprefix("error: ") for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 3
    for start, mend in (
        ("there is no mpirun in /nowhere or on PATH", "glmpatch build-backend --mpi mpich"),
        ("there is no python3 in /nowhere", "GLMPATCH_PYTHON_FOLDER"),
        (f"{ptuning}/main.py makes no process group", f"glmpatch apply {str(tmp_path / 'a tree')!r}".replace("'", "")),
        ("this was written for test machine and the CPUs 0-7 8-15 16-23 ", "glmpatch launch"),
        ("8 ranks need 100000000 MB each, 800000000 MB in all", "GLMPATCH_RANK_MB"),
    ):
        (line,) = (line for line in errors if line.startswith(start))
        assert mend in line.replace("\\ ", " ")
    done = launch(plan, ptuning, "missing.sh")
    assert done.returncode == 3
    assert "there is no script /missing.sh" in done.stderr


def test_another_mpi_than_it_was_written_for(tmp_path: Path) -> None:
    ptuning = make_tree(tmp_path)
    said = {"GLMPATCH_MPI_ROOT": str(installation("openmpi").root), **SMALL}
    done = launch(plan_for("mpich"), ptuning, "--check", "train.sh", env=said)
    assert done.returncode == 3
    assert "/bin/mpirun is not MPICH 5, but says: mpirun (Open MPI) 5" in done.stderr
    # The options of Open MPI 5 are not those of 4, also where it was not known yet.
    (tmp_path / "bin").mkdir()
    older = tmp_path / "bin" / "mpirun"
    older.write_text("#!/bin/sh\necho 'mpirun (Open MPI) 4.1.4'\n")
    older.chmod(0o755)
    plan = replace(plan_for("openmpi"), mpi=Mpi(FLAVOURS["openmpi"], None))
    done = launch(plan, ptuning, "--check", "train.sh", env={"GLMPATCH_MPI_ROOT": str(tmp_path), **SMALL})
    assert "is not Open MPI 5, but says: mpirun (Open MPI) 4.1.4" in done.stderr


def test_a_backend_for_another_mpi(tmp_path: Path) -> None:
    ptuning = make_tree(tmp_path)
    (ptuning / "main.py").write_text('dist.init_process_group("mpi")\n')
    done = launch(plan_for("mpich"), ptuning, "--check", "train.sh")
    assert done.returncode == 0
    assert done.stderr.endswith("unless torch was built with it: glmpatch build-backend --mpi mpich\n")
    backend = tmp_path / "site" / "glmpatch_mpi"
    backend.mkdir(parents=True)
    (backend / "__init__.py").touch()
    (backend / "build.json").write_text('{"flavour": "intel", "mpi": "Intel MPI"}')
    done = launch(plan_for("mpich"), ptuning, "--check", "train.sh", env={**SMALL, "PYTHONPATH": str(backend.parent)})
    assert done.returncode == 3
    assert "has a backend for Intel MPI and would be started by another MPI" in done.stderr


@pytest.mark.parametrize("flag", ["    --bf16 \\\n", "  --bf16_full_eval", "# --bf16\n", "  # --bf16\n"])
def test_bf16_without_a_unit_for_it(tmp_path: Path, flag: str) -> None:
    ptuning = make_tree(tmp_path, f"python3 main.py \\\n{flag}")
    done = launch(plan_for("mpich"), ptuning, "--check", "train.sh")
    warned = f"glmpatch apply --dtype fp32 {tmp_path}" in done.stderr
    has_unit = {"amx_bf16", "avx512_bf16"}.intersection(read_topology(None).isa or ())
    assert warned == (not has_unit and "#" not in flag)
    assert done.returncode == 0


def test_how_it_is_called(tmp_path: Path) -> None:
    ptuning = make_tree(tmp_path)
    plan = plan_for("openmpi")
    for arguments in ((), ("--colour", "train.sh"), ("--check",)):
        done = launch(plan, ptuning, *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("usage: launch_cpu.sh [--check | --print] SCRIPT")
    assert "only prints the command" in launch(plan, ptuning, "--help").stdout
    done = launch(plan, ptuning, "--check", "train.sh")
    assert done.stdout == (
        f"all is well: {RANKS} ranks with {plan.placement.threads} threads each can run {ptuning}/train.sh\n"
    )
    printed = launch(plan, ptuning, "--print", "train.sh", "two words").stdout
    assert not (ptuning / "rank0").exists()
    subprocess.run(["bash", "-c", printed], cwd=tmp_path, check=True, timeout=60)
    assert [each["arguments"] for each in shown(ptuning)] == [["two words"]] * RANKS


@pytest.mark.parametrize("how", ["sh", "dash", "bash --posix", "bash -eu", "env -i", "PATH= /bin/bash"])
def test_whatever_shell_and_environment_it_is_called_in(tmp_path: Path, how: str) -> None:
    ptuning = make_tree(tmp_path / "the tree")
    file, link = ptuning / "launch_cpu.sh", tmp_path / "a link"
    write_script(file, render_script(plan_for("openmpi")))
    link.symlink_to(file)
    words = f"export GLMPATCH_RANK_MB=1 SHELLOPTS; {how} {shlex.quote(str(link))} train.sh"
    if how == "env -i":
        words = words.replace("env -i", "env -i GLMPATCH_RANK_MB=1")
    done = subprocess.run(["bash", "-euc", words], cwd="/", capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(shown(ptuning)) == RANKS


@pytest.mark.parametrize("flavour", ALL_FLAVOURS)
def test_without_outputs(tmp_path: Path, flavour: FlavourId) -> None:
    ptuning = make_tree(tmp_path)
    write_script(ptuning / "launch_cpu.sh", render_script(plan_for(flavour)))
    words = ["timeout", "-s", "KILL", "30", "bash", "-c", 'exec bash "$0" train.sh >&- 2>&-']
    subprocess.run([*words, ptuning / "launch_cpu.sh"], env={**os.environ, **SMALL}, check=True)
    assert len(shown(ptuning)) == RANKS


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OMP_NUM_THREADS", "four"),
        ("OMP_NUM_THREADS", "0"),
        ("GLMPATCH_RANK_MB", "16GB"),
        ("GLMPATCH_RANK_MB", "08"),
        ("GLMPATCH_RANK_MB", "a[$(touch pwned)]"),
        ("MASTER_PORT", "a[$(touch pwned)]"),
    ],
)
def test_what_is_no_number(tmp_path: Path, name: str, value: str) -> None:
    ptuning = make_tree(tmp_path)
    done = launch(plan_for("mpich"), ptuning, "--check", "train.sh", cwd=tmp_path, env={**SMALL, name: value})
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {name} is ")
    assert not (tmp_path / "pwned").exists()


def test_threads_of_loops_in_loops(tmp_path: Path) -> None:
    done = launch(
        plan_for("mpich"), make_tree(tmp_path), "--check", "train.sh", env={**SMALL, "OMP_NUM_THREADS": "3,2"}
    )
    assert done.returncode == 0
    assert "OMP_NUM_THREADS is 3,2 here" in done.stderr


@pytest.mark.parametrize("code", [0, 1])
def test_what_python_says_besides_is_no_problem(tmp_path: Path, code: int) -> None:
    ptuning = make_tree(tmp_path)
    python = tmp_path / "bin" / "python3"
    python.parent.mkdir()
    python.write_text(f"#!/bin/sh\necho 'an odd site' >&2\nexit {code}\n")
    python.chmod(0o755)
    done = launch(replace(plan_for("mpich"), python_folder=python.parent), ptuning, "--check", "train.sh")
    assert done.returncode == (3 if code else 0)
    assert done.stderr == "an odd site\n" + (f"error: {python} does not run\n" if code else "")


@pytest.mark.parametrize(
    ("groups", "limits", "free"),
    [
        ("0::/\n", {"memory.max": "5000000000"}, 5000),
        ("0::/a b/c\n", {"a b/memory.max": "6000000000", "a b/c/memory.max": "max"}, 6000),
        ("0::/outside/of/it\n", {"memory.max": "7000000000"}, 7000),
        ("9:memory:/job\n1:name=x:/\n", {"memory/job/memory.limit_in_bytes": "8000000000"}, 8000),
        ("9:memory:/outside\n0::/\n", {"memory/memory.limit_in_bytes": "9000000000"}, 9000),
        ("9:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712"}, 99000),
        ("", {}, 99000),
    ],
)
def test_the_memory_of_the_control_group(tmp_path: Path, groups: str, limits: Mapping[str, str], free: int) -> None:
    (tmp_path / "cgroup").mkdir()
    for path, limit in limits.items():
        (tmp_path / "cgroup" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / path).write_text(f"{limit}\n")
    (tmp_path / "self").write_text(groups)
    (tmp_path / "meminfo").write_text("MemTotal: 200000000 kB\nMemAvailable: 96679688 kB\n")
    script = render_script(plan_for("mpich")).decode().rpartition("\nSELF=")[0] + "\nfree_mb\n"
    for real, ours in (("/sys/fs/cgroup", "cgroup"), ("/proc/self/cgroup", "self"), ("/proc/meminfo", "meminfo")):
        script = script.replace(real, str(tmp_path / ours))
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"{free}\n", "")


def test_a_script_elsewhere_and_threads_of_the_user(tmp_path: Path) -> None:
    ptuning, other = make_tree(tmp_path / "one"), make_tree(tmp_path / "other")
    done = launch(plan_for("mpich"), ptuning, "train.sh", cwd=other, env={**SMALL, "OMP_NUM_THREADS": "93"})
    assert done.returncode == 0
    assert "OMP_NUM_THREADS is 93 here" in done.stderr
    assert [each["OMP_NUM_THREADS"] for each in shown(other)] == ["93"] * RANKS
    assert not (ptuning / "rank0").exists()


def test_what_is_preloaded(tmp_path: Path) -> None:
    ptuning = make_tree(tmp_path, 'python3 show.py; echo "$KMP_AFFINITY $KMP_BLOCKTIME $MALLOC_CONF" >"said$RANK"\n')
    python = tmp_path / "env" / "bin" / "python3"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    libraries = [tmp_path / "env" / "lib" / name for name in ("libiomp5.so", "libjemalloc.so.2")]
    libraries[0].parent.mkdir()
    for library in libraries:
        subprocess.run(["cc", "-shared", "-o", library, "-x", "c", "-"], input=b"int here;\n", check=True)
    plan = replace(plan_for("mpich"), python_folder=python.parent)
    done = launch(plan, ptuning, "train.sh", env={**SMALL, "KMP_BLOCKTIME": "5"})
    preloaded = ":".join(map(str, libraries))
    assert (done.returncode, done.stderr) == (0, f"preloaded: {preloaded}\n")
    assert [each["LD_PRELOAD"] for each in shown(ptuning)] == [preloaded] * RANKS
    assert (ptuning / "said0").read_text() == (
        "reset,granularity=fine,compact,1,0 5 oversize_threshold:1,background_thread:true,metadata_thp:auto\n"
    )
    for environment in ({"GLMPATCH_PRELOAD": "no"}, {"LD_PRELOAD": str(libraries[0])}):
        launch(plan, ptuning, "train.sh", env={**SMALL, **environment})
        assert shown(ptuning)[0]["LD_PRELOAD"] == environment.get("LD_PRELOAD")
        assert (ptuning / "said0").read_text() == "  \n"


HOSTFILE = """\
# our hosts
one:2
two slots=2 # the second\r

\t10.0.0.3\t
one
four.example.org max_slots=9"""


@pytest.mark.parametrize(
    ("text", "nodes", "told"),
    [
        (HOSTFILE, None, "one,two,10.0.0.3,four.example.org"),
        (HOSTFILE, 2, "one,two"),
        (HOSTFILE, 5, "names 4 hosts, and 5 are to train"),
        ("", None, "names 0 hosts, and 0 are to train"),
        ("one\n$(touch pwned)\n", None, r"\$\(touch is not the name of a host"),
        ("`id`\n", None, r"\`id\` is not the name of a host"),
        ("-oProxyCommand=x\n", None, "is not the name of a host"),
        ("中文\n", None, "is not the name of a host"),
        ("fe80::1\n", None, "fe80::1 is not the name of a host, nor an address of IPv4"),
        ("[fe80::1]:2\n", None, "is not the name of a host"),
        ("me@one\n", None, "me@one is not the name of a host"),
        ("one slots=0\n", None, "one offers 0 slots, and each host gets"),
        ("one:1\n", None, "one offers 1 slots, and each host gets 2" if RANKS == 2 else "one"),
        (None, None, "there is no file"),
    ],
)
def test_the_host_file(tmp_path: Path, text: str | None, nodes: int | None, told: str) -> None:
    ptuning, hostfile = make_tree(tmp_path), tmp_path / "the hosts"
    if text is not None:
        hostfile.write_bytes(text.encode())
    done = launch(
        replace(plan_for("mpich"), hostfile=hostfile, nodes=nodes), ptuning, "--print", "train.sh", cwd=tmp_path
    )
    if done.returncode == 0:
        words = shlex.split(done.stdout)
        assert words[words.index("-hosts") + 1] == told
        hosts = told.split(",")
        assert words[words.index("-n") + 1] == str(RANKS * len(hosts))
        assert f"MASTER_ADDR={hosts[0]}" in words
    else:
        assert done.returncode == 3
        assert told in done.stderr
    assert not (tmp_path / "pwned").exists()
