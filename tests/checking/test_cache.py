"""What is kept of a result, and what happens to it."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from glmpatch.checking import cache as module
from glmpatch.checking.cache import ResultCache, code_version, decode, encode
from glmpatch.checking.examine import Examined, examine
from glmpatch.checking.postconditions import Broken
from glmpatch.patching.model import AlreadyDone, Changed, Conflict, Notice
from glmpatch.patching.plan import Step
from tests.engine_support import Swap

DATA = b"old\n"
EDITS = (Swap(old="old", new="new", notice="look"), Swap(old="none", new="x"))


def results(cache: Path) -> list[Path]:
    return [file for file in cache.rglob("*") if file.is_file()]


def store(folder: Path, data: bytes = DATA) -> tuple[ResultCache, str]:
    cache = ResultCache(folder)
    key = cache.key("a.py", data, EDITS)
    cache.store(key, encode(examine("a.py", data, EDITS)))
    return cache, key


@pytest.mark.parametrize(
    "examined",
    [
        Examined(()),
        Examined((Step(Changed(b"new", (Notice("look", 3),)), b"new"), Step(AlreadyDone((Notice("x"),)), b"new"))),
        Examined((Step(Conflict("a", "b\N{GRINNING FACE}", "c", 7), DATA), Step(Changed(b"", ()), b""))),
        Examined((Step(AlreadyDone(), DATA),), (("swap", Broken("this", "that", 2)), ("", Broken("x", "y")))),
    ],
)
def test_a_result_is_read_as_it_was_written(examined: Examined) -> None:
    assert decode(encode(examined), DATA) == examined


def test_what_was_stored_is_found_again(tmp_path: Path) -> None:
    _, key = store(tmp_path)
    assert ResultCache(tmp_path).load(key, DATA) == examine("a.py", DATA, EDITS)
    assert ResultCache(tmp_path).load(key.replace(key[0], "z"), DATA) is None


def test_the_key_is_of_the_bytes_the_edits_and_the_suffix() -> None:
    cache = ResultCache(None)
    key = cache.key("a.py", DATA, EDITS)
    assert key == cache.key("folder/b.py", bytes(DATA), (Swap(old="old", new="new", notice="look"), EDITS[1]))
    others = [
        cache.key("a.sh", DATA, EDITS),
        cache.key("a.py", b"old", EDITS),
        cache.key("a.py", DATA, EDITS[:1]),
        cache.key("a.py", DATA, EDITS[::-1]),
        cache.key("a.py", DATA, (Swap(old="old", new="new"), EDITS[1])),
    ]
    assert len({key, *others}) == len(others) + 1


def test_other_code_has_other_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, key = store(tmp_path)
    monkeypatch.setattr(module, "version", lambda name: f"{name} 99")
    assert ResultCache(tmp_path).load(key, DATA) is None


def test_the_version_is_of_our_own_code_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = code_version()
    assert before == code_version()
    (tmp_path / "glmpatch/patching").mkdir(parents=True)
    (tmp_path / "glmpatch/checking").mkdir()
    (tmp_path / "glmpatch/process.py").touch()
    monkeypatch.setattr("glmpatch.__file__", str(tmp_path / "glmpatch/__init__.py"))
    bare = code_version()
    (tmp_path / "glmpatch/patching/new.py").touch()
    assert len({before, bare, code_version()}) == 3


def test_another_bash_has_other_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {code_version()}
    for says in ("echo bash 1", "echo bash 2", "kill -9 $$"):
        (tmp_path / "bash").write_text(f"#!/bin/sh\n{says}\n")
        (tmp_path / "bash").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        versions.add(code_version())
    assert len(versions) == 4


@pytest.mark.parametrize("damage", [b"", b"\0" * 100, b"x\x9c", "half", "flipped"])
def test_a_damaged_result_is_no_result(tmp_path: Path, damage: bytes | str) -> None:
    cache, key = store(tmp_path)
    (file,) = results(tmp_path)
    good = file.read_bytes()
    if damage == "half":
        damage = good[: len(good) // 2]
    elif damage == "flipped":
        damage = good[:-5] + bytes([good[-5] ^ 1]) + good[-4:]
    assert isinstance(damage, bytes)
    file.write_bytes(damage)
    assert cache.load(key, DATA) is None
    store(tmp_path)
    assert cache.load(key, DATA) == examine("a.py", DATA, EDITS)


def test_without_a_folder_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cache = ResultCache(None)
    key = cache.key("a.py", DATA, EDITS)
    cache.store(key, encode(examine("a.py", DATA, EDITS)))
    assert cache.load(key, DATA) is None
    assert results(tmp_path) == []


def test_a_folder_that_cannot_be_made_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache, key = store(tmp_path / "file")
    assert cache.load(key, DATA) is None


def test_the_results_of_old_code_go_after_a_month(tmp_path: Path) -> None:
    for name, days in (("old", 31), ("recent", 29)):
        (tmp_path / name).mkdir()
        then = time.time() - days * 86_400
        os.utime(tmp_path / name, (then, then))
    ResultCache(tmp_path)
    assert {folder.name for folder in tmp_path.iterdir()} == {"recent", code_version()}


def keep_storing(folder: Path) -> None:
    cache, key = store(folder)
    encoded = encode(examine("a.py", DATA, EDITS))
    for _ in range(300):
        cache.store(key, encoded)


@pytest.fixture
def other_writer(tmp_path: Path) -> Iterator[None]:
    process = multiprocessing.get_context("spawn").Process(target=keep_storing, args=(tmp_path,))
    process.start()
    yield
    process.join()
    assert process.exitcode == 0


@pytest.mark.usefixtures("other_writer")
def test_two_runs_at_once_never_see_half_a_result(tmp_path: Path) -> None:
    cache, key = store(tmp_path)
    expected = examine("a.py", DATA, EDITS)
    for _ in range(300):
        cache.store(key, encode(expected))
        assert cache.load(key, DATA) == expected
    assert [file for file in results(tmp_path) if file.name.startswith(".new-")] == []
