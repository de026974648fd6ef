"""Mirrors of real repositories, from real servers: local ones, and some that do not answer."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from glmpatch.errors import EnvironmentLacksError, ExitCode, UsageError
from glmpatch.mirror import Mirror, open_mirror
from glmpatch.objects import BrokenMirrorError
from tests.git_support import UPSTREAM, commit_all, git, make_repo, settings

LIMIT = 1_000_000
NOWHERE = "http://127.0.0.1:9/x"
# Opens a mirror, says so, and keeps it until its input ends.
OPENING = """
import sys
from glmpatch.mirror import open_mirror
with open_mirror(sys.argv[1]) as mirror:
    print(len(mirror.objects.log(mirror.objects.heads().values())), flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the mirrors. It does not exist yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache/glmpatch/mirrors"


@pytest.fixture
def silent_server() -> Iterator[socket.socket]:
    """A server that takes every connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def mirrored(source: Path, *, offline: bool = False) -> Path:
    """Bring the mirror up to date, see that it is like its source and can be read; its folder."""
    with open_mirror(str(source), offline=offline) as mirror:
        check_same(mirror, source)
    return mirror.folder


def check_same(mirror: Mirror, source: Path) -> None:
    heads = git(source, "for-each-ref", "--format=%(objectname) %(refname:lstrip=2)", "refs/heads").splitlines()
    assert mirror.objects.heads() == {name: commit for commit, _, name in (line.partition(" ") for line in heads)}
    assert len(mirror.objects.log(mirror.objects.heads().values())) == int(
        git(source, "rev-list", "--count", "--branches")
    )
    entry = mirror.objects.entry(git(source, "rev-parse", "HEAD^{tree}"), "api.py")
    assert entry is not None
    assert mirror.objects.blob(entry.hash, LIMIT) == UPSTREAM["api.py"]
    assert left_over(mirror.folder.parent) == []


def left_over(cache: Path) -> list[Path]:
    """What stands beside the mirrors and their locks, and what a killed git leaves in them."""
    beside = [path for path in cache.iterdir() if path.suffix not in {".git", ".lock"}]
    return [*beside, *cache.glob("*.git/**/*.lock"), *cache.glob("*.git/objects/**/tmp_*")]


def processes_of(text: str) -> list[str]:
    """The command lines of all processes that name `text`."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if text in line:
            found.append(line)
    return found


def wait_for(condition: Callable[[], object]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("waited in vain")


def check_asked_once(server: socket.socket) -> None:
    """It is given up at once, not asked again."""
    server.accept()[0].close()
    with pytest.raises(BlockingIOError):
        server.accept()


def start_opening(source: str, *, stdin: int = subprocess.PIPE, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", OPENING, source],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        stdin=stdin,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("as_url", [True, False])
def test_a_mirror_has_all_and_follows(source: Path, *, as_url: bool) -> None:
    url = source.as_uri() if as_url else str(source)
    with open_mirror(url) as mirror:
        check_same(mirror, source)
        assert mirror.objects.resolve("v1") == git(source, "rev-parse", "v1^{commit}")
        assert mirror.url == url
    (source / "README.md").write_text("third\n")
    third = commit_all(source, "third")
    git(source, "branch", "--quiet", "-D", "old")
    git(source, "branch", "new")
    git(source, "tag", "--force", "v1", "main")
    with open_mirror(url) as mirror:
        check_same(mirror, source)
        assert mirror.objects.default() == mirror.objects.resolve("v1") == third


def test_a_branch_that_was_forced_back(source: Path) -> None:
    mirrored(source)
    git(source, "reset", "--quiet", "--hard", "main~1")
    mirrored(source)
    git(source, "commit", "--quiet", "--amend", "--message", "another")
    mirrored(source)


def test_a_branch_and_a_folder_of_branches_change_places(source: Path) -> None:
    inode = mirrored(source).stat().st_ino
    for old, new in (("old", "old/x"), ("old/x", "old"), ("old", "old/y/z")):
        git(source, "branch", "--move", old, new)
        git(source, "tag", "--delete", "v1")
        git(source, "tag", "v1", "main")
        assert mirrored(source).stat().st_ino == inode


def test_the_head_of_the_remote(source: Path) -> None:
    git(source, "checkout", "--quiet", "old")
    with open_mirror(str(source)) as mirror:
        assert mirror.objects.default() == git(source, "rev-parse", "old")
    git(source, "checkout", "--quiet", "--detach", "main")
    with open_mirror(str(source)) as mirror:
        assert mirror.objects.default() == git(source, "rev-parse", "main")
    git(source, "symbolic-ref", "HEAD", "refs/heads/nowhere")
    with open_mirror(str(source)) as mirror:
        assert mirror.objects.default() in mirror.objects.heads().values()


def test_a_shallow_clone_is_mirrored_as_far_as_it_goes(tmp_path: Path, source: Path) -> None:
    git(tmp_path, "clone", "--quiet", "--depth=1", source.as_uri(), "shallow")
    shallow = tmp_path / "shallow"
    mirrored(shallow)
    (source / "README.md").write_text("third\n")
    commit_all(source, "third")
    git(shallow, "pull", "--quiet")
    mirrored(shallow)
    git(shallow, "fetch", "--quiet", "--unshallow")
    mirrored(shallow)
    with open_mirror(str(shallow)) as mirror:
        assert len(mirror.objects.log([mirror.objects.default()])) == 3


def test_a_path_and_its_other_spellings_share_a_mirror(
    tmp_path: Path, source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("source", "./source/", "cache/../source", str(source)):
        with open_mirror(path) as mirror:
            assert mirror.folder.parent == cache
            assert "-source-" in mirror.folder.name
    assert len(list(cache.glob("*.git"))) == 1


def test_what_differs_has_a_mirror_of_its_own(tmp_path: Path, source: Path, cache: Path) -> None:
    mirrored(source)
    mirrored(make_repo(tmp_path / "source+"))
    mirrored(make_repo(tmp_path / ("x" * 200)))
    assert len(list(cache.glob("*.git"))) == 3


def test_no_hook_template_or_setting_of_others_gets_in(tmp_path: Path, source: Path, neutral_environment: Path) -> None:
    ran = tmp_path / "ran"
    hooks = tmp_path / "template/hooks"
    hooks.mkdir(parents=True)
    for name in ("reference-transaction", "post-update"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {ran}\n")
        (hooks / name).chmod(0o755)
    more = f"[init]\n\ttemplateDir = {hooks.parent}\n[core]\n\thooksPath = {hooks}\n"
    with settings(neutral_environment, f"{more}[safe]\n\tbareRepository = explicit\n"):
        folder = mirrored(source)
    assert not ran.exists()
    assert not (folder / "hooks").exists()
    assert not (folder / "objects/info/alternates").exists()


def test_a_remote_without_commits(tmp_path: Path, source: Path, cache: Path) -> None:
    git(tmp_path, "init", "--quiet", "empty")
    for _ in range(2):
        with (
            pytest.raises(EnvironmentLacksError, match="empty has no branch") as caught,
            open_mirror(str(tmp_path / "empty")),
        ):
            pytest.fail("there is nothing in it")
        assert "--upstream" in caught.value.hint
        assert list(cache.glob("*.git")) == left_over(cache) == []
    mirrored(source)
    for name in ("main", "old"):
        git(source, "update-ref", "-d", f"refs/heads/{name}")
    with pytest.raises(EnvironmentLacksError, match="has no branch"), open_mirror(str(source)):
        pytest.fail("there is nothing in it any more")


@pytest.mark.parametrize("url", ["ext::sh -c 'touch ran'", "fd::17", "--upload-pack=touch ran", "http::https://x/y"])
def test_a_url_that_runs_something_is_wrong_usage(url: str, cache: Path) -> None:
    with pytest.raises(UsageError), open_mirror(url):
        pytest.fail("it is not to be opened")
    assert not cache.exists()


@pytest.mark.parametrize("url", [NOWHERE, "/nowhere/at/all", "nowhere", "git://127.0.0.1:9/x", "gopher://127.0.0.1/x"])
def test_what_cannot_be_reached_is_named_and_leaves_nothing(url: str, cache: Path) -> None:
    with pytest.raises(EnvironmentLacksError, match=f"cannot reach {url}: ") as caught, open_mirror(url):
        pytest.fail("there is nothing")
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert "--upstream" in caught.value.hint
    assert "--offline" not in caught.value.hint
    assert list(cache.glob("*.git")) == left_over(cache) == []


def test_an_older_mirror_is_offered_and_used_offline(tmp_path: Path, source: Path) -> None:
    url = source.as_uri()
    with open_mirror(url):
        pass
    source.rename(tmp_path / "away")
    with pytest.raises(EnvironmentLacksError, match="cannot reach") as caught, open_mirror(url):
        pytest.fail("it is away")
    assert "--offline" in caught.value.hint
    with open_mirror(url, offline=True) as mirror:
        check_same(mirror, tmp_path / "away")


def test_offline_there_must_be_a_mirror_that_can_be_read(source: Path) -> None:
    with pytest.raises(EnvironmentLacksError, match="no mirror of") as caught, open_mirror(str(source), offline=True):
        pytest.fail("there is none")
    assert "without --offline" in caught.value.hint
    folder = mirrored(source)
    (folder / "HEAD").write_text("garbage\n")
    with pytest.raises(EnvironmentLacksError, match="is broken") as caught, open_mirror(str(source), offline=True):
        pytest.fail("it is broken")
    assert "without --offline" in caught.value.hint
    mirrored(source)
    with open_mirror(str(source), offline=True) as mirror, pytest.raises(EnvironmentLacksError, match="is broken"):
        mirror.rebuild()
    mirrored(source, offline=True)


def test_a_cache_that_cannot_be_written_to_is_named(tmp_path: Path, source: Path, cache: Path) -> None:
    (tmp_path / "cache").touch()
    with (
        pytest.raises(EnvironmentLacksError, match=f"cannot use the cache in {cache}: ") as caught,
        open_mirror(str(source)),
    ):
        pytest.fail("it cannot be made")
    assert "XDG_CACHE_HOME" in caught.value.hint


def pack(folder: Path) -> Path:
    git(folder, "repack", "-a", "-d", "--quiet")
    (found,) = folder.glob("objects/pack/*.pack")
    found.chmod(0o644)
    return found


def lose(folder: Path, name: str) -> None:
    commit = git(folder, "rev-parse", name)
    (folder / "objects" / commit[:2] / commit[2:]).unlink()


def truncate(file: Path, size: int) -> None:
    with file.open("r+b") as opened:
        opened.truncate(size)


def replace(folder: Path, make: Callable[[Path], object]) -> None:
    shutil.rmtree(folder)
    make(folder)


BREAKING: dict[str, Callable[[Path], object]] = {
    "a commit is missing": lambda folder: lose(folder, "refs/heads/main"),
    "an old commit is missing": lambda folder: lose(folder, "refs/heads/main~1"),
    "a tree is missing": lambda folder: lose(folder, "refs/heads/main~1:ptuning"),
    "a file is missing": lambda folder: lose(folder, "refs/heads/main:api.py"),
    "all objects are missing": lambda folder: replace(folder / "objects", lambda objects: objects.mkdir()),
    "there is no folder for objects": lambda folder: shutil.rmtree(folder / "objects"),
    "the pack is cut": lambda folder: truncate(pack(folder), 500),
    "the pack is empty": lambda folder: truncate(pack(folder), 0),
    "the index of the pack is cut": lambda folder: truncate(pack(folder).with_suffix(".idx"), 100),
    "the head is garbage": lambda folder: (folder / "HEAD").write_bytes(b"\0garbage\n"),
    "the head is empty": lambda folder: (folder / "HEAD").write_bytes(b""),
    "the configuration is garbage": lambda folder: (folder / "config").write_bytes(b"[garbage\n"),
    "the configuration is of a later git": lambda folder: (folder / "config").write_text(
        "[core]\nrepositoryformatversion = 99\nbare = true\n"
    ),
    "a branch is garbage": lambda folder: (folder / "refs/heads/main").write_bytes(b"garbage\n"),
    "a branch is empty": lambda folder: (folder / "refs/heads/main").write_bytes(b""),
    "a branch leads nowhere": lambda folder: (folder / "refs/heads/other").write_text("1" * 40),
    "the names are garbage": lambda folder: (folder / "packed-refs").write_bytes(b"garbage\n"),
    "the folder is empty": lambda folder: replace(folder, lambda path: path.mkdir()),
    "the folder is another's": lambda folder: replace(folder, lambda path: make_repo(path / "x")),
    "a file is in its place": lambda folder: replace(folder, lambda path: path.touch()),
    "a link that leads nowhere is in its place": lambda folder: replace(
        folder, lambda path: path.symlink_to("nowhere")
    ),
}


@pytest.mark.parametrize("name", BREAKING)
def test_a_broken_mirror_is_made_anew(source: Path, name: str) -> None:
    folder = mirrored(source)
    BREAKING[name](folder)
    mirrored(source)
    assert folder.is_dir()
    git(folder, "symbolic-ref", "HEAD", "refs/heads/main")  # fsck finds the place that it is at strange
    assert git(folder, "fsck", "--full") == ""


@pytest.mark.parametrize("break_it", [BREAKING["an old commit is missing"], BREAKING["the head is garbage"]])
def test_a_broken_mirror_stays_while_the_server_is_away(
    tmp_path: Path, source: Path, break_it: Callable[[Path], object]
) -> None:
    folder = mirrored(source)
    break_it(folder)
    source.rename(tmp_path / "away")
    with pytest.raises(EnvironmentLacksError, match="cannot reach") as caught, open_mirror(str(source)):
        pytest.fail("it is away")
    assert "--offline" not in caught.value.hint
    assert folder.exists()
    (tmp_path / "away").rename(source)
    mirrored(source)


@pytest.mark.parametrize("packed", [True, False])
def test_damage_that_shows_when_a_file_is_read_is_mended_once_asked_for(source: Path, *, packed: bool) -> None:
    folder = mirrored(source)
    blob = git(source, "rev-parse", "main:api.py")
    file = folder / "objects" / blob[:2] / blob[2:]
    if packed:
        file = pack(folder)
        line = git(folder, "verify-pack", "-v", str(file.with_suffix(".idx"))).split(blob)[1].split()
        offset = int(line[3]) + 5
    else:
        file.chmod(0o644)
        offset = 5
    data = bytearray(file.read_bytes())
    data[offset : offset + 4] = b"\xff" * 4
    file.write_bytes(data)
    with open_mirror(str(source)) as mirror:
        with pytest.raises(BrokenMirrorError):
            mirror.objects.blob(blob, LIMIT)
        mirror.rebuild()
        assert mirror.objects.blob(blob, LIMIT) == UPSTREAM["api.py"]
        check_same(mirror, source)


def test_a_commit_that_no_branch_holds_is_fetched_alone(source: Path) -> None:
    git(source, "checkout", "--quiet", "--detach", "main")
    (source / "README.md").write_text("lost\n")
    lost = commit_all(source, "lost")
    git(source, "checkout", "--quiet", "main")
    with open_mirror(str(source)) as mirror:
        main = git(source, "rev-parse", "main")
        assert mirror.ensure("main") == mirror.ensure(main) == mirror.ensure(main[:8]) == main
        assert mirror.ensure(lost) == lost
        assert [record.hash for record in mirror.objects.log([lost])][:2] == [lost, main]
        with pytest.raises(UsageError, match="no commit, branch or tag"):
            mirror.ensure("nowhere")
        with pytest.raises(EnvironmentLacksError, match="does not give commit") as caught:
            mirror.ensure("1" * 40)
        assert "--upstream" in caught.value.hint
        check_same(mirror, source)
    mirrored(source)
    with open_mirror(str(source), offline=True) as mirror:
        assert mirror.ensure(lost) == lost
        with pytest.raises(EnvironmentLacksError, match="has no commit"):
            mirror.ensure("1" * 40)


def test_a_branch_that_is_called_like_a_hash_is_not_taken_for_the_commit(source: Path) -> None:
    first, main = git(source, "rev-parse", "main~1"), git(source, "rev-parse", "main")
    git(source, "update-ref", f"refs/heads/{main}", first)
    git(source, "branch", main[:10], first)
    with open_mirror(str(source)) as mirror:
        assert mirror.ensure(main) == main
        assert mirror.ensure(main[:10]) == first, "what is not a full hash can be a name"
        assert mirror.ensure(main[:11]) == main


def test_only_branches_tags_and_hashes_are_refs(source: Path) -> None:
    main = git(source, "rev-parse", "main")
    git(source, "branch", "a/\u2028")
    git(source, "tag", "blob", "main:api.py")
    expressions = ["HEAD", "FETCH_HEAD", "main~1", "main^{/second}", "main@{0}", ":/second", f"x-g{main}"]
    others = ["heads/main", "refs/heads/main", "a", "m*", "", "blob"]
    with open_mirror(str(source)) as mirror:
        for name, commit in (("a/\u2028", "main"), ("v1", "main~1"), ("old", "main~1")):
            assert mirror.ensure(name) == git(source, "rev-parse", commit)
        for ref in (*expressions, *others):
            with pytest.raises(UsageError, match="no commit, branch or tag") as caught:
                mirror.ensure(ref)
            assert "a branch, a tag or the hash" in caught.value.hint


def test_a_repository_of_another_user_is_named_with_the_mend_of_git(
    source: Path, neutral_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(EnvironmentLacksError, match=r"fatal: .*ownership") as caught, open_mirror(str(source)):
        pytest.fail("it is not trusted")
    assert f"git config --global --add safe.directory {source}" in caught.value.hint
    assert "network" not in caught.value.hint
    with settings(neutral_environment, f"[safe]\n\tdirectory = {source}/.git\n\tdirectory = {source}\n"):
        mirrored(source)


def test_another_default_for_hashes(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DEFAULT_HASH", "sha256")
    mirrored(source)


@pytest.mark.parametrize("scheme", ["git", "http"])
def test_a_server_that_says_nothing_is_given_up(silent_server: socket.socket, cache: Path, scheme: str) -> None:
    url = f"{scheme}://127.0.0.1:{silent_server.getsockname()[1]}/x"
    with (
        pytest.raises(EnvironmentLacksError, match=f"cannot reach {url}: nothing came for 0.3 seconds"),
        open_mirror(url, silence=0.3),
    ):
        pytest.fail("it says nothing")
    check_asked_once(silent_server)
    wait_for(lambda: processes_of(url) == [])
    assert left_over(cache) == []


def test_an_older_mirror_outlives_a_server_that_says_nothing(
    source: Path, neutral_environment: Path, silent_server: socket.socket
) -> None:
    """The setting leads a URL to another server, as a proxy would."""
    url = "http://example.invalid/x"
    with settings(neutral_environment, f'[url "{source}"]\n\tinsteadOf = {url}\n'), open_mirror(url) as mirror:
        check_same(mirror, source)
    silent = f"git://127.0.0.1:{silent_server.getsockname()[1]}/x"
    with settings(neutral_environment, f'[url "{silent}"]\n\tinsteadOf = {url}\n'):
        with pytest.raises(EnvironmentLacksError, match="nothing came") as caught, open_mirror(url, silence=0.4):
            pytest.fail("it says nothing")
        check_asked_once(silent_server)
    assert "--offline" in caught.value.hint
    with open_mirror(url, offline=True) as mirror:
        check_same(mirror, source)


def test_ssh_has_nobody_to_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text(
        f"#!/bin/sh\n(: </dev/tty) 2>{tmp_path}/tty; echo $? $SSH_ASKPASS_REQUIRE >{tmp_path}/said; sleep 60\n"
    )
    ssh.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    with pytest.raises(EnvironmentLacksError, match="nothing came"), open_mirror("git@example.org:x/y", silence=0.5):
        pytest.fail("it waits for a password")
    assert (tmp_path / "said").read_text().split()[1] == "never"
    assert "No such device" in (tmp_path / "tty").read_text()


def test_a_password_stays_secret(source: Path, cache: Path, neutral_environment: Path) -> None:
    url = "https://user:t0ken@127.0.0.1:9/x/y"
    with (
        pytest.raises(EnvironmentLacksError, match=r"cannot reach https://127\.0\.0\.1:9/x/y: ") as caught,
        open_mirror(url),
    ):
        pytest.fail("there is nothing")
    assert "t0ken" not in caught.value.message
    assert "user" not in caught.value.message
    more = f'[url "{source}"]\n\tinsteadOf = {url}\n[core]\n\tlogAllRefUpdates = always\n'
    with settings(neutral_environment, more), open_mirror(url) as mirror:
        check_same(mirror, source)
        assert mirror.url == "https://127.0.0.1:9/x/y"
        with pytest.raises(EnvironmentLacksError) as caught:
            mirror.ensure("1" * 40)
        assert "t0ken" not in caught.value.message
    for path in cache.rglob("*"):
        assert "t0ken" not in path.name
        assert path.is_dir() or b"t0ken" not in path.read_bytes()


def test_a_token_that_git_asks_a_password_for_stays_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    monkeypatch.delenv("SSH_ASKPASS", raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        try:
            with (
                pytest.raises(EnvironmentLacksError, match="could not read Password") as caught,
                open_mirror(f"http://t0ken@127.0.0.1:{server.server_port}/x"),
            ):
                pytest.fail("it lets nobody in")
        finally:
            server.shutdown()
    assert "t0ken" not in caught.value.message


@pytest.mark.parametrize("first", [True, False])
def test_killed_in_the_middle_it_goes_on_the_next_time(
    tmp_path: Path, source: Path, cache: Path, *, first: bool
) -> None:
    """The server sends half a pack and then nothing; then all is killed, as when the power goes."""
    if not first:
        mirrored(source)
    (source / "large").write_bytes(os.urandom(500_000))
    commit_all(source, "large")
    hook = tmp_path / "hook"
    hook.write_text(f'#!/bin/sh\necho $$ >{tmp_path}/pid\n"$@" | head -c 250000\nsleep 60\n')
    hook.chmod(0o755)
    config = tmp_path / "slow"
    config.write_text(f"[uploadpack]\n\tpackObjectsHook = {hook}\n[fetch]\n\tunpackLimit = 1\n")
    process = start_opening(source.as_uri(), GIT_CONFIG_GLOBAL=str(config))
    with process:
        wait_for(lambda: [path for path in cache.rglob("tmp_pack_*") if path.stat().st_size > 100_000])
        process.kill()
        assert process.wait() == -signal.SIGKILL
    os.killpg(os.getpgid(int((tmp_path / "pid").read_text())), signal.SIGKILL)
    assert left_over(cache)
    with open_mirror(source.as_uri()) as mirror:
        check_same(mirror, source)


def test_locks_of_a_killed_fetch_are_removed(source: Path) -> None:
    folder = mirrored(source)
    git(source, "branch", "--move", "old", "tmp_work")
    (source / "README.md").write_text("third\n")
    commit_all(source, "third")
    for name in ("packed-refs.lock", "shallow.lock", "config.lock", "refs/heads/main.lock", "objects/pack/tmp_pack_x"):
        (folder / name).touch()
    inode = folder.stat().st_ino
    mirrored(source)
    mirrored(source)
    assert folder.stat().st_ino == inode
    folder.with_suffix(".new").mkdir()
    (folder / "HEAD").unlink()
    mirrored(source)


def test_many_at_once(source: Path) -> None:
    """None may wait for its input to end, or the others would wait for it."""
    processes = [start_opening(str(source), stdin=subprocess.DEVNULL) for _ in range(3)]
    for process in processes:
        out, _ = process.communicate()
        assert (process.returncode, out) == (0, "2\n")
    mirrored(source)


def test_who_comes_second_waits_and_says_so(source: Path) -> None:
    process = start_opening(str(source))
    with process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "2\n"
        told: list[str] = []

        def end_the_first() -> None:
            told.append("wait")
            process.stdin.close()  # type: ignore[union-attr]

        with open_mirror(str(source), offline=True, on_wait=end_the_first) as mirror:
            assert told == []
            check_same(mirror, source)
        with open_mirror(str(source), on_wait=end_the_first) as mirror:
            assert told == ["wait"]
            check_same(mirror, source)
