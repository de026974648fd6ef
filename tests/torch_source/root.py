"""A root of Debian trixie, beside the machine's own: what Debian builds PyTorch 2.6.0 with, and its source."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# The namespaces end with the program, and with them its /proc and all that it has started. It ends when we do, however.
_APART = ("setpriv", "--pdeathsig=KILL", "unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_LENT_CERTIFICATES = "/etc/ssl/lent.crt"
_ARCHIVE = "http://deb.debian.org/debian"
_SECONDS = 3600
# How the machine gets at the network.
_LENT_VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "PIP_INDEX_URL")
# Signatures are checked all the same.
_APT = f"""\
Acquire::Check-Date "false";
Acquire::https::CAInfo "{_LENT_CERTIFICATES}";
APT::Install-Recommends "false";
"""
_PIP = f"""\
[global]
cert = {_LENT_CERTIFICATES}
"""


def why_not() -> str | None:
    """Why there can be no such root here; None if there can."""
    if platform.machine() != "x86_64":
        return "needs an x86-64 processor, as Intel MPI does"
    if os.geteuid() != 0:
        return "needs root, to make a root of Debian"
    if not _KEYRING.exists():
        return f"needs Debian: there is no {_KEYRING}"
    for program in ("debootstrap", "setpriv", "unshare"):
        if shutil.which(program) is None:
            return f"needs {program}: apt-get install {program}"
    tried = _call([*_APART, "--root=/", "true"])
    return f"may not chroot and mount here: {tried.stderr.strip()}" if tried.returncode else None


def debian_archive(folder: Path = Path("/etc/apt")) -> str:
    """Where the machine gets Debian from: the first such address in apt's sources, else Debian's own."""
    for file in (folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))):
        text = file.read_text() if file.suffix in {".list", ".sources"} and file.is_file() else ""
        if found := re.search(r"^[^#\n]*\b(https?://\S+/debian)/?(?=\s|$)", text, re.MULTILINE):
            return found[1]
    return _ARCHIVE


@dataclass(frozen=True, slots=True)
class TrixieRoot:
    """The root. Each step of making it is done once, and kept.

    Attributes:
        folder: Where it is, with a mark for each step that is done.
    """

    folder: Path

    @property
    def root(self) -> Path:
        """Its own /."""
        return self.folder / "root"

    def path(self, inside: str) -> Path:
        """Where a file of the root is outside."""
        return self.root / inside.lstrip("/")

    def call(self, *argv: str, path: str = "", cwd: str = "/") -> subprocess.CompletedProcess[str]:
        """Run a program in the root, with a clean environment.

        Args:
            argv: The program and its arguments.
            path: A folder that goes first on PATH.
            cwd: The folder to run it in.

        Returns:
            What it printed, and its exit code.
        """
        lent = {name: os.environ[name] for name in _LENT_VARIABLES if name in os.environ}
        search = ":".join(filter(None, [path, "/usr/sbin:/usr/bin:/sbin:/bin"]))
        own = {"PATH": search, "HOME": "/root", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
        return _call([*_APART, f"--root={self.root}", f"--wd={cwd}", *argv], {**lent, **own})

    def run(self, *argv: str, path: str = "", cwd: str = "/") -> str:
        """Run a program in the root that must succeed, and return what it printed."""
        return _succeeded(self.call(*argv, path=path, cwd=cwd))

    def prepare(self, tell: Callable[[str], None]) -> None:
        """Do what is not done yet.

        Args:
            tell: Told of each step that takes long.
        """
        for name, step in (("root", self._bootstrap), ("packages", self._install), ("source", self._get_source)):
            done = self.folder / "done" / name
            if not done.exists():
                tell(f"{name}: make it in {self.folder}")
                step()
                done.parent.mkdir(exist_ok=True)
                done.touch()
        self._lend()

    def _bootstrap(self) -> None:
        if self.root.exists():
            shutil.rmtree(self.root)
        archive = debian_archive()
        words = ("debootstrap", "--variant=minbase", f"--keyring={_KEYRING}", "trixie", str(self.root), archive)
        _succeeded(_call([*_APART, *words]))
        lines = [f"{kind} {archive} trixie main\n" for kind in ("deb", "deb-src")]
        self.path("/etc/apt/sources.list").write_text("".join(lines))
        self.path("/etc/apt/apt.conf.d/90root").write_text(_APT)
        # No service is started when its package is installed.
        policy = self.path("/usr/sbin/policy-rc.d")
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)

    def _lend(self) -> None:
        """What the network needs, of the machine's of today."""
        shutil.copyfile("/etc/resolv.conf", self.path("/etc/resolv.conf"))
        lent = self.path(_LENT_CERTIFICATES)
        lent.parent.mkdir(exist_ok=True)
        if _CERTIFICATES.exists():
            shutil.copyfile(_CERTIFICATES, lent)
            self.path("/etc/pip.conf").write_text(_PIP)

    def _install(self) -> None:
        self._lend()
        # What an earlier run was in the middle of.
        self.run("dpkg", "--configure", "-a")
        self.run("apt-get", "update", "-qq")
        self.run("apt-get", "build-dep", "-y", "-qq", "pytorch")
        self.run("apt-get", "install", "-y", "-qq", "python3-venv", "dpkg-dev", "ca-certificates", "git")
        self.run("apt-get", "clean")

    def _get_source(self) -> None:
        sources = self.path("/src")
        shutil.rmtree(sources, ignore_errors=True)
        sources.mkdir()
        self.run("apt-get", "source", "-qq", "pytorch", cwd="/src")
        (tree,) = sources.glob("pytorch-2.6.0*/")
        tree.rename(sources / "pytorch")


def _call(argv: list[str], env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=_SECONDS
    )


def _succeeded(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, f"{done.args}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout
