"""Helpers to make real folders and real git repositories that look like upstream."""

from __future__ import annotations

import atexit
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

# No copy of upstream: its names, and a word for each of the patches in `engine_support` to find.
UPSTREAM: Mapping[str, bytes] = {
    ".gitignore": b"output/\n",
    "README.md": b"# ChatGLM-6B \xe4\xb8\xad\xe6\x96\x87\n",
    "api.py": b"model = load().half().cuda()\n",
    "ptuning/arguments.py": b"ARGUMENTS = {}\n",
    "ptuning/ds_train_finetune.sh": b"deepspeed main.py\n",
    "ptuning/main.py": (
        b"def main():\n    init('nccl')  # \xe5\x90\x8e\xe7\xab\xaf\n\n    work()\n\n    model.half()\n\n\nmain()\n"
    ),
    "ptuning/train.sh": b"python3 main.py \\\n    --do_train \\\n    --quantization_bit 4\n",
    "requirements.txt": b"transformers==4.27.1\n",
    "web_demo.py": b"model = load().half().cuda()\n",
    "web_demo_old.py": b"model = load().half().cuda()\n",
}
_IDENTITY = {
    "GIT_AUTHOR_NAME": "An Author",
    "GIT_AUTHOR_EMAIL": "author@example.org",
    "GIT_COMMITTER_NAME": "An Author",
    "GIT_COMMITTER_EMAIL": "author@example.org",
}


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder, with an identity; what it prints, without the white space at the end."""
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env={**os.environ, **_IDENTITY}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().rstrip()


def make_folder(folder: Path, files: Mapping[str, bytes] = UPSTREAM) -> Path:
    """A plain folder with these files; the shell scripts can be executed."""
    for path, data in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        file.chmod(0o755 if path.endswith(".sh") else 0o644)
    return folder


def make_repo(folder: Path, files: Mapping[str, bytes] = UPSTREAM) -> Path:
    """A repository with these files, and with what is in the folder already, in its one commit."""
    if not folder.exists():
        shutil.copytree(_template(tuple(files.items())), folder, symlinks=True)
        git(folder, "update-index", "--refresh")
        return folder
    make_folder(folder, files)
    git(folder, "init", "--quiet", "--template=")
    commit_all(folder, "upstream")
    return folder


@cache
def _template(files: tuple[tuple[str, bytes], ...]) -> Path:
    """A repository to copy: git takes much longer to make one."""
    scratch = tempfile.mkdtemp(prefix="glmpatch-tests-")
    atexit.register(shutil.rmtree, scratch)
    (folder := Path(scratch, "repository")).mkdir()
    return make_repo(folder, dict(files))


def commit_all(folder: Path, message: str) -> str:
    """Commit everything; the hash."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)
    return git(folder, "rev-parse", "HEAD")


def snapshot(folder: Path) -> dict[str, tuple[str, bytes]]:
    """The mode and the bytes of every file (for a link, where it leads), but for those in `.git`."""
    found: dict[str, tuple[str, bytes]] = {}
    for file in sorted(folder.rglob("*")):
        path = file.relative_to(folder)
        if path.parts[0] == ".git" or (file.is_dir() and not file.is_symlink()):
            continue
        data = os.fsencode(file.readlink()) if file.is_symlink() else file.read_bytes()
        found[path.as_posix()] = stat.filemode(file.lstat().st_mode), data
    return found


@contextmanager
def settings(config: Path, more: str) -> Iterator[None]:
    """More settings in a file of git's, for a while."""
    text = config.read_text()
    config.write_text(text + more)
    try:
        yield
    finally:
        config.write_text(text)


def status(folder: Path) -> list[str]:
    """What git finds changed or untracked."""
    return git(folder, "status", "--porcelain", "--untracked-files=all").splitlines()


def subjects(folder: Path) -> list[str]:
    """The first lines of the commit messages, newest first."""
    return git(folder, "log", "--format=%s").splitlines()
