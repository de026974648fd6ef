"""Hosts to launch on: two on this machine, joined by a network of their own, or a Slurm of our own; and what trains."""

from __future__ import annotations

import atexit
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import TypeVar

import pytest

from glmpatch.mpi.flavour import FlavourId
from glmpatch.patching.model import Options
from glmpatch.training.corpus import make_corpus, write_data
from glmpatch.training.demo import SEED, clone_and_patch, make_upstream
from glmpatch.training.run import training_environment
from tests.mpi_support import backend_folder

Value = TypeVar("Value")

# Less taught than the demo's, and made in a fifth of the time: its loss falls all the same.
_MODEL = f"""\
import sys
from pathlib import Path
from glmpatch.training import tiny_model
from glmpatch.training.corpus import make_corpus
tiny_model._PRETRAINING_STEPS = 20
tiny_model.build_model(Path(sys.argv[1]), corpus=make_corpus({SEED}), seed={SEED})
"""
_RECORD = """\
import json, os, socket, sys
found = {
    "host": socket.gethostname(),
    "network": os.readlink("/proc/self/ns/net"),
    "cpus": sorted(os.sched_getaffinity(0)),
    "threads": int(os.environ["OMP_NUM_THREADS"]),
    "local_rank": int(os.environ["LOCAL_RANK"]),
    "size": int(os.environ["WORLD_SIZE"]),
}
with open(os.path.join(sys.argv[1], os.environ["RANK"]), "w") as file:
    json.dump(found, file)
"""
# All that MPI is for; a megabyte, so that it is seen on a network.
_MEET = """\
import torch, torch.distributed as dist
dist.init_process_group("mpi")
tensor = torch.full((1 << 18,), dist.get_rank() + 1.0)
dist.all_reduce(tensor)
assert tensor.unique().tolist() == [3.0], tensor
print(f"rank {dist.get_rank()} of {dist.get_world_size()} has met the other", flush=True)
dist.destroy_process_group()
"""
# As ssh does it: options, then the host, then words for a shell there, which knows nothing of our environment.
_REMOTE_SHELL = """\
#!/bin/bash
while [[ $1 == -* ]]; do shift; done
[[ $1 == {first} || $1 == {second} ]] || exit 255
exec env -i HOME=/ PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
    ip netns exec "$1" unshare --uts bash -c 'hostname "$0" && cd && eval "$1"' "$1" "${{*:2}}"
"""
_SLURM = """\
ClusterName=glmpatch
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 {hardware}
PartitionName=all Nodes=ALL Default=YES
"""
_OVER = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE"}


@cache
def no_backend() -> Mapping[str, str]:
    """Hides the MPI backend of this environment, which may be for another MPI. Our scripts bring their own."""
    folder = Path(mkdtemp(prefix="glmpatch-hiding-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "sitecustomize.py").write_text('import sys\nsys.modules["glmpatch_mpi"] = None\n')
    return {"PYTHONPATH": str(folder)}


@cache
def demo_tree() -> Path:
    """A folder with `ChatGLM-6B`, patched for MPI in fp32, and a `model`, `data` and a `cache` for it."""
    folder = Path(mkdtemp(prefix="glmpatch-tree-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    make_upstream(folder / "upstream")
    clone_and_patch(folder / "upstream", folder / "ChatGLM-6B", Options("mpi", "fp32"))
    write_data(make_corpus(SEED), folder / "data")
    environment = {
        **training_environment(folder / "cache", ranks=1),
        "PYTHONPATH": str(Path.cwd()),
        "OMP_NUM_THREADS": "1",
    }
    finish([sys.executable, "-c", _MODEL, str(folder / "model")], env=environment)
    return folder


@dataclass(frozen=True)
class Rank:
    """What a rank saw of itself."""

    host: str
    network: str
    cpus: list[int]
    threads: int
    local_rank: int
    size: int


@dataclass(frozen=True)
class Records:
    """Training scripts beside `main.py`, whose ranks write down what they see; and what they wrote."""

    folder: Path
    flavour: FlavourId

    @property
    def ptuning(self) -> Path:
        return demo_tree() / "ChatGLM-6B" / "ptuning"

    @property
    def losses(self) -> list[float]:
        """The logged losses of a finished training, in nats per token."""
        (file,) = (self.folder / "output").glob("*/trainer_state.json")
        return [entry["loss"] for entry in json.loads(file.read_bytes())["log_history"] if "loss" in entry]

    def ranks(self) -> list[Rank]:
        """The ranks that have written, by number."""
        files = sorted(self.folder.glob("ranks/*"), key=lambda file: int(file.name))
        return [Rank(**json.loads(text)) for text in map(Path.read_text, files) if text]

    def script(self, *lines: str) -> str:
        """The name of a script that says what it sees, then does this; without any lines: trains ten steps.

        All that it needs stands in it: a host may get nothing of our environment.
        """
        (self.folder / "ranks").mkdir(parents=True)
        (self.folder / "record.py").write_text(_RECORD)
        tree = demo_tree()
        settings = {
            **{name: value for name, value in training_environment(tree / "cache", 2, {}).items() if name != "PATH"},
            "PYTHONPATH": str(backend_folder(self.flavour)),
            "MODEL": str(tree / "model"),
            "DATA": str(tree / "data"),
            "OUTPUT": str(self.folder / "output"),
            "STEPS": "10",
        }
        # The launch script has the last word about the threads.
        settings.pop("OMP_NUM_THREADS")
        exports = [f"export {name}={shlex.quote(value)}" for name, value in settings.items()]
        record = shlex.join(["python3", str(self.folder / "record.py"), str(self.folder / "ranks")])
        file = self.ptuning / f"{self.folder.name}.sh"
        file.write_text("\n".join([*exports, record, *(lines or ("exec bash train.sh",)), ""]))
        return file.name

    def meeting_script(self) -> str:
        """The name of a script whose two ranks meet, in a second."""
        (self.folder / "meet.py").write_text(_MEET)
        return self.script(shlex.join(["exec", "python3", str(self.folder / "meet.py")]))

    def failing_script(self) -> str:
        """The name of a script whose rank 1 fails with 7 as soon as both are there, while rank 0 waits."""
        both = " && ".join(f"-s {shlex.quote(str(self.folder / 'ranks' / rank))}" for rank in "01")
        return self.script(f"until [[ {both} ]]; do sleep 0.1; done", "[[ $RANK == 0 ]] || exit 7", "exec sleep 300")


def finish(command: list[str], *, timeout: float = 120, env: Mapping[str, str] | None = None) -> str:
    """What a command prints that must succeed."""
    done = subprocess.run(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{shlex.join(command)}: exit code {done.returncode}\n{done.stdout}"
    return done.stdout


def wait_for(ask: Callable[[], Value | None], what: str, *, seconds: float = 60) -> Value:
    """What `ask` returns as soon as it is true. Fails the test if that takes too long."""
    end = time.monotonic() + seconds
    while True:
        if answer := ask():
            return answer
        if time.monotonic() > end:
            pytest.fail(f"waited {seconds:g} seconds for {what}")
        time.sleep(0.1)


@dataclass(frozen=True)
class TwoHosts:
    """Two hosts with a cable between them, and nothing else to talk to. They share all files.

    Attributes:
        names: Their names, which are those of their network namespaces, too.
        remote_shell: A program that is used as ssh.
    """

    names: tuple[str, str]
    remote_shell: Path

    def on_first(self, *command: str | Path) -> list[str]:
        """The command to run a command on the first host."""
        there = ["unshare", "--uts", "bash", "-c", 'hostname "$0" && exec "$@"', self.names[0]]
        return ["ip", "netns", "exec", self.names[0], *there, *map(str, command)]

    def processes(self) -> list[str]:
        """The processes on both hosts."""
        return [pid for name in self.names for pid in finish(["ip", "netns", "pids", name]).split()]

    def networks(self) -> list[str]:
        """The network of each host, as a process there sees it."""
        return [_on(name, "readlink", "/proc/self/ns/net").strip() for name in self.names]

    def received(self) -> list[int]:
        """The bytes that each host has received over the cable."""
        return [int(_on(name, "cat", "/sys/class/net/cable/statistics/rx_bytes")) for name in self.names]


def _on(name: str, *command: str) -> str:
    return finish(["ip", "netns", "exec", name, *command])


@contextmanager
def two_hosts(folder: Path) -> Iterator[TwoHosts]:
    """Make two hosts and remove them. The test is skipped where that is not allowed."""
    _skip_unless_root("ip", "unshare", "hostname")
    names = (f"glmpatch{os.getpid()}a", f"glmpatch{os.getpid()}b")
    with ExitStack() as stack:
        for name in names:
            made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
            if made.returncode != 0:
                pytest.skip(f"no network namespaces here: {made.stderr.strip()}")
            stack.callback(_remove_host, name)
        _connect(names)
        shell = folder / "remote-shell"
        shell.write_text(_REMOTE_SHELL.format(first=names[0], second=names[1]))
        shell.chmod(0o755)
        yield TwoHosts(names, shell)


def _connect(names: tuple[str, str]) -> None:
    addresses = ("10.77.0.1", "10.77.0.2")
    hosts = "127.0.0.1 localhost\n" + "".join(f"{pair[0]} {pair[1]}\n" for pair in zip(addresses, names, strict=True))
    cable = [["cable", "netns", name] for name in names]
    finish(["ip", "link", "add", *cable[0], "type", "veth", "peer", "name", *cable[1]])
    for name, address in zip(names, addresses, strict=True):
        # What `ip netns exec` shows in the place of /etc/hosts.
        file = Path("/etc/netns", name, "hosts")
        file.parent.mkdir(parents=True)
        file.write_text(hosts)
        finish(["ip", "-n", name, "address", "add", f"{address}/24", "dev", "cable"])
        for device in ("lo", "cable"):
            finish(["ip", "-n", name, "link", "set", device, "up"])


def _remove_host(name: str) -> None:
    for pid in finish(["ip", "netns", "pids", name]).split():
        os.kill(int(pid), signal.SIGKILL)
    finish(["ip", "netns", "delete", name])
    shutil.rmtree(Path("/etc/netns", name), ignore_errors=True)


@dataclass(frozen=True)
class Job:
    """A job that is over.

    Attributes:
        state: As Slurm calls it: COMPLETED, FAILED.
        code: Its exit code.
        output: All that it printed.
    """

    state: str
    code: int
    output: str


@dataclass(frozen=True)
class Slurm:
    """A Slurm whose one node is this machine.

    Attributes:
        folder: Where its files are.
        environment: What its programs need to find it.
    """

    folder: Path
    environment: Mapping[str, str]

    def ask(self, *command: str | Path, env: Mapping[str, str] | None = None) -> str:
        """What one of its programs prints."""
        return finish([str(word) for word in command], env={**os.environ, **self.environment, **(env or {})})

    def submit(self, *command: str | Path, env: Mapping[str, str] | None = None, seconds: float = 120) -> Job:
        """Submit a script with its arguments, and wait until it is over."""
        output = self.folder / "job.out"
        number = self.ask("sbatch", "--parsable", "--output", output, *command, env=env).strip()
        try:
            record = wait_for(lambda: self._ended(number), f"job {number}", seconds=seconds)
        except pytest.fail.Exception:
            self.ask("scancel", number)
            pytest.fail(f"job {number} is not over after {seconds:g} seconds:\n{output.read_text(errors='replace')}")
        return Job(record["JobState"], int(record["ExitCode"].partition(":")[0]), output.read_text(errors="replace"))

    def _ended(self, number: str) -> dict[str, str] | None:
        words = self.ask("scontrol", "show", "job", "--oneliner", number).split()
        record = dict(word.split("=", 1) for word in words if "=" in word)
        return record if record["JobState"] in _OVER else None


@contextmanager
def one_slurm() -> Iterator[Slurm]:
    """Start a Slurm of our own and stop it. The test is skipped where it is not installed."""
    _skip_unless_root("munged", "slurmctld", "slurmd", "sbatch")
    if len(os.sched_getaffinity(0)) != os.cpu_count():
        pytest.skip("Slurm would use CPUs that are not ours")
    with ExitStack() as stack:
        # Not pytest's own: the path of a socket must be short.
        folder = Path(mkdtemp(prefix="glmpatch-slurm-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        slurm = Slurm(folder, {"SLURM_CONF": str(folder / "slurm.conf")})
        _configure(folder)
        files = [f"--{name}={folder}/munge.{name.partition('-')[0]}" for name in ("key-file", "log-file", "seed-file")]
        munged = ["munged", "--foreground", "--force", *files]
        stack.enter_context(_daemon([*munged, f"--socket={folder}/munge.socket", f"--pid-file={folder}/munge.pid"]))
        wait_for((folder / "munge.socket").exists, "munged")
        for name in ("slurmctld", "slurmd"):
            stack.enter_context(_daemon([name, "-D", "-f", str(folder / "slurm.conf")], folder / f"{name}.log"))
        wait_for(lambda: "idle" in slurm.ask("sinfo", "--noheader", "--format=%T"), "the node of Slurm")
        yield slurm
        # Else what is left of a job outlives it.
        slurm.ask("scancel", "--user=root")
        wait_for(lambda: not slurm.ask("squeue", "--noheader").strip(), "the last jobs")


def _configure(folder: Path) -> None:
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    (folder / "state").mkdir()
    # Its first line is `NodeName=here CPUs=2 Boards=1 SocketsPerBoard=1 CoresPerSocket=2 ...`.
    node, hardware = finish(["slurmd", "-C"]).splitlines()[0].split(maxsplit=1)
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [each.getsockname()[1] for each in (one, other)]
    (folder / "slurm.conf").write_text(
        _SLURM.format(
            folder=folder, host=node.partition("=")[2], hardware=hardware, controller=ports[0], daemon=ports[1]
        )
    )


@contextmanager
def _daemon(command: list[str], log: Path | None = None) -> Iterator[None]:
    with (log or Path(os.devnull)).open("w") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _skip_unless_root(*programs: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
