from __future__ import annotations

import shlex
import shutil
import zipfile
from pathlib import Path

import msgspec
import pytest
from packaging.version import Version

from glmpatch.building.state import BuildFolder
from glmpatch.building.steps import BuildEvent, Progress, run_steps
from glmpatch.building.toolchain import Compiler, find_compiler
from glmpatch.building.wheel import build_step, wheel_version
from glmpatch.errors import BuildFailedError, ExitCode
from tests.building.test_record import INFO
from tests.building.test_toolchain import MPI

pytestmark = pytest.mark.usefixtures("_with_torch")

PLAIN = msgspec.structs.replace(INFO, compile_flags=(), link_flags=())


@pytest.fixture
def compiler() -> Compiler:
    found = find_compiler()
    assert found
    return found


def build(path: Path, compiler: Compiler, events: list[BuildEvent] | None = None) -> Path:
    folder = BuildFolder(path)
    with folder.hold():
        run_steps([build_step(PLAIN, compiler, path, jobs=1)], folder, ([] if events is None else events).append)
    (wheel,) = path.glob("dist/*.whl")
    return wheel


def test_the_wheel_is_the_same_wherever_it_is_built(sources: Path, compiler: Compiler, tmp_path: Path) -> None:
    assert sources.exists()
    seen: list[BuildEvent] = []
    first = build(tmp_path / "one", compiler, seen)
    assert Progress("build", 1, 1) in seen
    with zipfile.ZipFile(first) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith("/METADATA"))
        assert f"Version: {INFO.version}\n" in archive.read(metadata).decode()
    assert {"glmpatch_mpi/__init__.py", "glmpatch_mpi/build.json"} < set(names)
    assert build(tmp_path / "another place", compiler).read_bytes() == first.read_bytes()


def test_what_does_not_compile_leaves_a_log(sources: Path, compiler: Compiler, tmp_path: Path) -> None:
    (sources / "module.cpp").write_text("int other() { return no_such_name; }\n")
    with pytest.raises(BuildFailedError) as caught:
        build(tmp_path / "one", compiler)
    assert caught.value.exit_code == ExitCode.BUILD
    assert "no_such_name" in caught.value.message
    assert "subprocess.CalledProcessError" not in caught.value.message
    log = tmp_path / "one/logs/build.log"
    assert caught.value.hint.endswith(str(log))
    assert "subprocess.CalledProcessError" in log.read_text()


def test_what_fails_behind_the_compilers_is_shown(sources: Path, compiler: Compiler, tmp_path: Path) -> None:
    (sources / "setup.py").write_text("print('[1/1] c++ module.o', flush=True)\nraise ValueError('no metadata')\n")
    with pytest.raises(BuildFailedError, match="ValueError: no metadata"):
        build(tmp_path / "one", compiler)


def test_modules_are_found_where_this_python_finds_them(
    sources: Path, compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch itself may be on PYTHONPATH."""
    (tmp_path / "only_here.py").write_text("raise SystemExit('found it')")
    (sources / "setup.py").write_text("import only_here")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(BuildFailedError, match="found it"):
        build(tmp_path / "one", compiler)


def test_what_is_likely_wrong_is_told(sources: Path, compiler: Compiler, tmp_path: Path) -> None:
    (sources / "setup.py").write_text("raise SystemExit('c++: fatal error: Killed signal terminated program cc1plus')")
    with pytest.raises(BuildFailedError, match="what is likely wrong: memory ran out") as caught:
        build(tmp_path / "one", compiler)
    assert "--jobs" in caught.value.hint


@pytest.mark.skipif(shutil.which("ccache") is None, reason="ccache is not installed")
def test_ccache_is_used(sources: Path, compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sources.exists()
    monkeypatch.setenv("CCACHE_DIR", str(tmp_path / "cache"))
    build(tmp_path / "one", compiler)
    assert [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]


@pytest.mark.skipif(shutil.which("ccache") is None, reason="ccache is not installed")
def test_ccache_calls_the_compiler_that_was_chosen(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sources.exists()
    for folder in ("chosen", "first"):
        program = tmp_path / folder / "g++-of-a-module"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\ntouch {shlex.quote(str(program))}.called\nexec c++ "$@"\n')
        program.chmod(0o755)
    monkeypatch.setenv("CCACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'first'}:/usr/bin:/bin")
    build(tmp_path / "one", Compiler(str(tmp_path / "chosen/g++-of-a-module"), "c++"))
    assert [file.parent.name for file in tmp_path.glob("*/*.called")] == ["chosen"]
    assert [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]


def test_a_broken_backend_is_no_reason_not_to_build(
    sources: Path, compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not ours, nor that of another package: PyTorch would load it, as it is imported to build."""
    assert sources.exists()
    metadata = tmp_path / "site/other-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[torch.backends]\nother = no_such_module:autoload\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    assert build(tmp_path / "one", compiler).exists()


@pytest.mark.parametrize(
    ("torch", "version"),
    [
        ("2.13.0+cpu", "torch2.13.0.cpu.mpich5.0.2"),
        ("2.15.0.dev20260101+cu130", "torch2.15.0.dev20260101.cu130.mpich5.0.2"),
        ("2.6.0a0+gitABC-dirty", "torch2.6.0a0.gitabc.dirty.mpich5.0.2"),
    ],
)
def test_the_version_names_what_it_is_for(torch: str, version: str) -> None:
    public, _, local = wheel_version(torch, MPI).partition("+")
    assert local == version
    assert str(Version(f"{public}+{local}")) == f"{public}+{local}"
