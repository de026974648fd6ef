from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from glmpatch.building.failures import Failure, describe_failure, find_failure, known_failures
from glmpatch.building.state import BuildFolder
from tests.git_support import make_folder, make_repo

_BLOCKS = (Path(__file__).parent / "printed.txt").read_text(encoding="utf-8").split("\n==== ")[1:]
_ALL = [tuple(block.rstrip("\n").split("\n", 1)) for block in _BLOCKS]
PRINTED = [(known, printed) for known, printed in _ALL if known != "innocent"]
INNOCENT = [printed for known, printed in _ALL if known == "innocent"]


@pytest.mark.parametrize(("known", "printed"), PRINTED)
def test_what_is_known(known: str, printed: str) -> None:
    lines = ["[1/9] Building CXX object a.o", *printed.split("\n"), "ninja: build stopped: subcommand failed."]
    found = find_failure(lines)
    assert found is not None
    assert found.id == known


def test_the_whole_table_is_tried() -> None:
    names = [failure.id for failure in known_failures()]
    assert len(set(names)) == len(names)
    assert {known for known, _ in PRINTED} == set(names)


@pytest.mark.parametrize("failure", known_failures(), ids=lambda failure: failure.id)
def test_each_pattern_is_tried(failure: Failure) -> None:
    for pattern in failure.patterns:
        assert any(re.search(pattern, text, re.MULTILINE) for known, text in PRINTED if known == failure.id), pattern


def test_cause_and_mend_are_sentence_and_clause() -> None:
    for failure in known_failures():
        assert failure.cause.endswith(".")
        assert not failure.mend.endswith((".", ";"))
        assert failure.mend[0].islower()


@pytest.mark.parametrize("printed", ["", *INNOCENT])
def test_what_is_not_it(printed: str) -> None:
    assert find_failure(printed.split("\n")) is None


def test_the_cause_goes_before_what_follows_from_it() -> None:
    failure = find_failure(["ERROR: No matching distribution found for x", "x: Could not resolve host: y"])
    assert failure is not None
    assert failure.id == "network"


# Real tools, which fail in the ways that the table knows.
SOURCES = {
    "compiler-too-new": "struct A { std::uint8_t a; };",
    "assembler-too-old": 'int main() { asm("vdpbogus %zmm0"); }',
    "submodule-missing": "#include <third_party/gloo/no-such.h>",
}


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.parametrize("known", SOURCES)
@pytest.mark.parametrize("language", ["C", "C.UTF-8"])
def test_gcc_itself(known: str, language: str, tmp_path: Path) -> None:
    (tmp_path / "a.cpp").write_text(SOURCES[known])
    environment = {**BuildFolder(tmp_path).environment(os.environ), "LC_ALL": language}
    assert _failure("g++", "-c", "a.cpp", cwd=tmp_path, env=environment) == known


def test_cmake_itself(tmp_path: Path) -> None:
    cmake = shutil.which("cmake", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if cmake is None:
        pytest.skip("needs cmake")
    begin = b"cmake_minimum_required(VERSION 3.18)\nproject(x LANGUAGES NONE)\n"
    (tmp_path / "third_party/gloo").mkdir(parents=True)
    make_folder(tmp_path / "a", {"CMakeLists.txt": begin + b"add_subdirectory(../third_party/gloo b)\n"})
    assert _failure(cmake, "-S", "a", "-B", "b", cwd=tmp_path) == "submodule-missing"
    part = b"include(FindPackageHandleStandardArgs)\nset(%s_FIND_REQUIRED %d)\n"
    part += b"find_package_handle_standard_args(%s REQUIRED_VARS missing_one missing_two Development.Module)\n"
    names = ((b"MPI", "mpi-not-found"), (b"Python3", "python-headers"))
    for name, known in names:
        make_folder(tmp_path / "a", {"CMakeLists.txt": begin + part % (name, 1, name)})
        assert _failure(cmake, "-S", "a", "-B", "b", cwd=tmp_path) == known
    rest = b"".join(part % (name, 0, name) for name, _ in names) + b'message(FATAL_ERROR "other")\n'
    make_folder(tmp_path / "a", {"CMakeLists.txt": begin + rest})
    assert _failure(cmake, "-S", "a", "-B", "b", cwd=tmp_path) is None


def test_git_itself(tmp_path: Path) -> None:
    for repository in ("a", "b"):
        make_repo(tmp_path / repository, {"file": b""})
    commit = "1" * 40
    fetch = ("-C", str(tmp_path / "b"), "fetch", "--depth=1")
    assert _failure("git", *fetch, "../a", commit, cwd=tmp_path) == "no-such-commit"
    assert _failure("git", "-c", "protocol.version=0", *fetch, "../a", commit, cwd=tmp_path) == "no-such-commit"
    assert _failure("git", *fetch, "../a", "no-such-branch", cwd=tmp_path) == "no-such-commit"
    assert _failure("git", *fetch, "http://127.0.0.1:9/x", commit, cwd=tmp_path) == "network"
    assert _failure("git", *fetch, "git://127.0.0.1:9/x", commit, cwd=tmp_path) == "network"


def _failure(*command: str, cwd: Path, env: dict[str, str] | None = None) -> str | None:
    done = subprocess.run(
        command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode != 0
    found = find_failure(done.stdout.splitlines())
    return found.id if found else None


def test_the_message() -> None:
    lines = [f"line {number}" for number in range(100)]
    message, hint = describe_failure("the step 'x'", 2, [*lines, "y" * 1000])
    assert message.splitlines() == [
        "the step 'x' failed with exit code 2:",
        *(f"    line {number}" for number in range(76, 100)),
        f"    {'y' * 300}",
    ]
    assert hint == ""
    message, hint = describe_failure("the step 'x'", -9, ["Python.h: No such file", *lines], ["the cause"])
    assert message.splitlines() == [
        "the step 'x' failed with exit code -9:",
        "    the cause",
        "what is likely wrong: the headers of this Python are missing.",
    ]
    assert hint.startswith("install them (Debian: apt-get install python3-dev)")
    assert hint.endswith("; ")


def test_colours_hide_nothing() -> None:
    failure = find_failure(
        ["a.cpp:1:1: \x1b[01;31m\x1b[Kerror: \x1b[m\x1b[K'\x1b[01muint8_t\x1b[m' does not name a type"]
    )
    assert failure
    assert failure.id == "compiler-too-new"
