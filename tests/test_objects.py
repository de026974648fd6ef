"""Reading real repositories, some of them odd."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from glmpatch.errors import EnvironmentLacksError, ExitCode, UsageError
from glmpatch.objects import BrokenMirrorError, Entry, Objects
from tests.git_support import UPSTREAM, commit_all, git

LIMIT = 1_000_000


@pytest.fixture
def objects(source: Path) -> Iterator[Objects]:
    reader = Objects(source / ".git")
    yield reader
    reader.close()


def put(repo: Path, kind: str, data: bytes) -> str:
    """Store an object as it is, however odd; the hash."""
    command = ["git", "hash-object", "-t", kind, "-w", "--stdin", "--literally"]
    return subprocess.run(command, cwd=repo, input=data, capture_output=True, check=True).stdout.decode().strip()


def put_commit(repo: Path, *, header: bytes = b"committer A <a@b> 5 +0000\n", message: bytes = b"odd\n") -> str:
    tree = git(repo, "rev-parse", "HEAD^{tree}").encode()
    return put(repo, "commit", b"tree %s\nauthor A <a@b> 5 +0000\n%s\n%s" % (tree, header, message))


def file_of(repo: Path, name: str) -> Path:
    """The file of a loose object, made writable."""
    file = repo / ".git/objects" / name[:2] / name[2:]
    file.chmod(0o644)
    return file


def git_children() -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                name, _, fields = (folder / "stat").read_text().rpartition(")")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if fields.split()[1] == str(os.getpid()) and "(git" in name:
                found.append(int(folder.name))
    return found


def test_branches_and_what_they_are_called(source: Path, objects: Objects) -> None:
    odd = Path(os.fsdecode(os.fsencode(source) + b"/.git/refs/heads/\xff\xc2\x85"))
    odd.write_text(git(source, "rev-parse", "main"))
    assert objects.heads() == {
        "main": git(source, "rev-parse", "main"),
        "old": git(source, "rev-parse", "main~1"),
        "\\xff\x85": git(source, "rev-parse", "main"),
    }


def test_the_default_is_head_or_the_newest_branch(source: Path, objects: Objects) -> None:
    git(source, "checkout", "--quiet", "old")
    assert objects.default() == git(source, "rev-parse", "old")
    git(source, "branch", "newest", put_commit(source, header=b"committer A <a@b> 4000000000 +0000\n"))
    git(source, "symbolic-ref", "HEAD", "refs/heads/nowhere")
    assert objects.default() == git(source, "rev-parse", "newest")
    for name in ("main", "old", "newest"):
        git(source, "branch", "--quiet", "-D", name)
    with pytest.raises(EnvironmentLacksError, match="no branch"):
        objects.default()
    assert objects.heads() == {}


def test_what_names_a_commit(source: Path, objects: Objects) -> None:
    main, first = git(source, "rev-parse", "main"), git(source, "rev-parse", "main~1")
    git(source, "tag", "main", "main~1")  # the branch of this name wins
    for ref, commit in {"main": main, "HEAD": main, "v1": first, "old": first, main[:7]: main, "main~1": first}.items():
        assert objects.resolve(ref) == commit


def test_what_names_none(objects: Objects) -> None:
    ranges_and_options = ("-n1", "--all", "^main", "main..old", "main...old", ":/second", "main:api.py")
    for ref in ("", *ranges_and_options, "a b", "x\n", "x\0", "nowhere"):
        with pytest.raises(UsageError, match="no commit, branch or tag") as caught:
            objects.resolve(ref)
        assert caught.value.exit_code == ExitCode.USAGE


def test_what_is_no_commit_names_none(source: Path, objects: Objects) -> None:
    for ref in (git(source, "rev-parse", "main^{tree}"), "0" * 40, "0" * 7):
        with pytest.raises(UsageError):
            objects.resolve(ref)


def test_the_history_has_children_before_parents(source: Path, objects: Objects) -> None:
    git(source, "checkout", "--quiet", "old")
    (source / "side").touch()
    commit_all(source, "side")
    git(source, "checkout", "--quiet", "main")
    git(source, "merge", "--quiet", "--message", "merge", "old")
    main, second, old, first = (git(source, "rev-parse", ref) for ref in ("main", "main~1", "old", "v1^{}"))
    log = objects.log([main, old])
    assert [record.subject for record in log] in (
        ["merge", "second", "side", "upstream"],
        ["merge", "side", "second", "upstream"],
    )
    assert {record.hash: record.parents for record in log} == {
        main: (second, old),
        second: (first,),
        old: (first,),
        first: (),
    }
    assert log[0].tree == git(source, "rev-parse", "main^{tree}")
    assert log[0].timestamp == int(git(source, "log", "-1", "--format=%ct"))
    assert [record.hash for record in objects.log([first])] == [first]
    assert objects.log([]) == []


def test_subjects_of_any_bytes(source: Path, objects: Objects) -> None:
    subjects = {
        b"": "",
        b"\n\n": "",
        b"two\nlines\n\nbody": "two lines",
        b"\x1b[31mred\x1f\x1e\r!": "\x1b[31mred\x1f\x1e\r!",
        b"\xff\xfe bytes": "\ufffd\ufffd bytes",
        b"\xe4\xb8\xad\xe6\x96\x87": "\u4e2d\u6587",
        b"a\0b": "a",
    }
    odd = {put_commit(source, message=message): subject for message, subject in subjects.items()}
    log = {record.hash: record.subject for record in objects.log([*odd, git(source, "rev-parse", "main")])}
    assert {name: log[name] for name in odd} == odd
    assert len(log) == len(odd) + 2


def test_a_subject_in_another_encoding(source: Path, objects: Objects, neutral_environment: Path) -> None:
    header = b"committer A <a@b> 5 +0000\nencoding GBK\n"
    odd = put_commit(source, header=header, message="\u4e2d\u6587".encode("gbk"))
    text = neutral_environment.read_text()
    neutral_environment.write_text(f"{text}[i18n]\n\tlogOutputEncoding = GBK\n[color]\n\tui = always\n")
    try:
        assert [record.subject for record in objects.log([odd])] == ["\u4e2d\u6587"]
    finally:
        neutral_environment.write_text(text)


def test_dates_that_make_no_sense(source: Path, objects: Objects) -> None:
    times = {
        b"": 0,
        b"committer nobody\n": 0,
        b"committer A <a@b> 99999999999999 +0000\n": 253402300799,
        b"committer A <a@b> 7 +9999\n": 7,
    }
    for header, timestamp in times.items():
        assert [record.timestamp for record in objects.log([put_commit(source, header=header)])] == [timestamp]


def test_replaced_objects_are_read_as_they_were(source: Path, objects: Objects) -> None:
    main, first = git(source, "rev-parse", "main"), git(source, "rev-parse", "main~1")
    git(source, "replace", main, put_commit(source))
    assert [record.hash for record in objects.log([main])] == [main, first]


def test_what_is_at_a_path(source: Path, objects: Objects) -> None:
    name = os.fsdecode(b"\xff name")
    (source / name).write_bytes(b"odd\n")
    (source / "link").symlink_to("api.py")
    (source / "sub").mkdir()
    git(source, "update-index", "--add", "--cacheinfo", f"160000,{git(source, 'rev-parse', 'v1^{}')},sub")
    commit_all(source, "odd")
    root = git(source, "rev-parse", "main^{tree}")
    entry = objects.entry(root, "ptuning/main.py")
    assert entry == Entry(0o100644, git(source, "rev-parse", "main:ptuning/main.py"))
    assert entry.is_file
    assert objects.blob(entry.hash, LIMIT) == UPSTREAM["ptuning/main.py"]
    script = objects.entry(root, "ptuning/train.sh")
    assert script is not None
    assert (script.mode, script.is_file) == (0o100755, True)
    for path, mode in {"ptuning": 0o40000, "link": 0o120000, "sub": 0o160000}.items():
        found = objects.entry(root, path)
        assert found is not None
        assert (found.mode, found.is_file) == (mode, False)
    odd = objects.entry(root, name)
    assert odd is not None
    assert objects.blob(odd.hash, LIMIT) == b"odd\n"
    for path in ("nowhere", "ptuning/nowhere", "nowhere/x", "api.py/x", "link/x", "sub/x", "", "/api.py", "ptuning/"):
        assert objects.entry(root, path) is None
    assert objects.tree(root) is objects.tree(root)


def test_a_file_that_is_too_large_is_not_loaded(source: Path, objects: Objects) -> None:
    large = put(source, "blob", b"x" * 1001)
    assert objects.blob(large, 1000) is None
    assert objects.blob(large, 1001) == b"x" * 1001
    assert objects.blob(put(source, "blob", b""), 0) == b""
    bytes_with_lines = b"\n0 blob 3\n\r\n\0"
    assert objects.blob(put(source, "blob", bytes_with_lines), LIMIT) == bytes_with_lines


def test_what_is_missing_or_another_thing_is_broken(source: Path, objects: Objects) -> None:
    blob, tree = git(source, "rev-parse", "main:api.py"), git(source, "rev-parse", "main^{tree}")
    for action in (
        lambda: objects.blob("0" * 40, LIMIT),
        lambda: objects.tree("0" * 40),
        lambda: objects.blob(tree, LIMIT),
        lambda: objects.tree(blob),
        lambda: objects.log(["0" * 40]),
    ):
        with pytest.raises(BrokenMirrorError, match="is broken") as caught:
            action()
        assert caught.value.exit_code == ExitCode.ENVIRONMENT
        assert objects.blob(blob, LIMIT) == UPSTREAM["api.py"]  # the next answer is in step again


def test_what_is_damaged_is_broken(source: Path, objects: Objects) -> None:
    content = os.urandom(200_000)
    loose = put(source, "blob", content)
    file = file_of(source, loose)
    good = file.read_bytes()
    for bad in (b"", b"garbage", good[:30], good[:100_000], good[:-2]):
        file.write_bytes(bad)
        with pytest.raises(BrokenMirrorError):
            objects.blob(loose, LIMIT)
    file.write_bytes(good)
    assert objects.blob(loose, LIMIT) == content


@pytest.mark.parametrize("mode", [b"100644000000000000000000000000", b"644", b"9"])
def test_a_tree_with_a_mode_that_makes_no_sense_is_damaged(source: Path, objects: Objects, mode: bytes) -> None:
    blob = bytes.fromhex(git(source, "rev-parse", "main:api.py"))
    tree = put(source, "tree", b"100644 a.py\0%b%b b.py\0%b" % (blob, mode, blob))
    with pytest.raises(BrokenMirrorError, match=f"the tree {tree} is damaged"):
        objects.tree(tree)


def test_a_check_finds_what_is_missing(source: Path, objects: Objects) -> None:
    objects.check()
    for name in ("main~1", "main:ptuning", "v1:api.py"):
        file = file_of(source, git(source, "rev-parse", name))
        data = file.read_bytes()
        file.unlink()
        with pytest.raises(BrokenMirrorError):
            objects.check()
        file.write_bytes(data)
    objects.check()


def test_a_folder_that_is_no_repository_is_not_looked_for_above(source: Path) -> None:
    (source / "inside").mkdir()
    objects = Objects(source / "inside")
    for action in (objects.heads, objects.default, objects.check, lambda: objects.tree("0" * 40)):
        with pytest.raises(BrokenMirrorError):
            action()
    with pytest.raises(BrokenMirrorError):
        Objects(source / "nowhere").heads()


def test_two_processes_answer_for_all_and_none_stays(source: Path, objects: Objects) -> None:
    for name, entry in objects.tree(git(source, "rev-parse", "main^{tree}")).items():
        assert (objects.blob(entry.hash, LIMIT) is not None) if entry.is_file else name == "ptuning"
    assert len(git_children()) == 2
    objects.close()
    assert git_children() == []
    objects.close()
