"""Builds the stand-in with the command line, the variables, the folders and the files of PyTorch's own setup.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from setuptools import Distribution, setup  # type: ignore[import-untyped,unused-ignore]

_TREE = Path(__file__).resolve().parent
_BUILD = _TREE / "build"
_PACKAGE = _TREE / "torch"
_ONLY = "--cmake-only"


class _NotPure(Distribution):  # type: ignore[misc,unused-ignore]
    """The wheel is for one machine, though no extension module is known here."""

    def has_ext_modules(self) -> bool:
        return True


def _version() -> str:
    """The version that the environment names, else the one of the tree."""
    if told := os.environ.get("PYTORCH_BUILD_VERSION"):
        number = int(os.environ["PYTORCH_BUILD_NUMBER"])
        return f"{told}.post{number}" if number > 1 else told
    return (_TREE / "version.txt").read_text().strip() + "a0"


def _check_submodules() -> None:
    if not (_TREE / "third_party/tiny/CMakeLists.txt").exists():
        sys.exit("The submodule third_party/tiny is missing. Please run:\n\tgit submodule update --init --recursive")


def _configure() -> None:
    """Run CMake, but not where it ran before, whatever the environment says now."""
    if (_BUILD / "CMakeCache.txt").exists() and (_BUILD / "build.ninja").exists():
        return
    told = {name: value for name, value in os.environ.items() if name.startswith(("BUILD_", "USE_", "CMAKE_"))}
    defined = [f"-D{name}={value}" for name, value in {**told, "CMAKE_INSTALL_PREFIX": _PACKAGE}.items()]
    _BUILD.mkdir(exist_ok=True)
    subprocess.run(["cmake", "-GNinja", *defined, _TREE], cwd=_BUILD, check=True)


def _compile() -> None:
    jobs = os.environ.get("MAX_JOBS")
    parallel = ["--", "-j", jobs] if jobs else []
    subprocess.run(["cmake", "--build", ".", "--target", "install", *parallel], cwd=_BUILD, check=True)


def main(arguments: list[str]) -> None:
    """Build what can be built with CMake first, whatever the command; the rest is the business of setuptools."""
    version = _version()
    _check_submodules()
    (_PACKAGE / "version.py").write_text(f"__version__ = {version!r}\n")
    _configure()
    if _ONLY in arguments:
        return
    _compile()
    setup(
        name="torch",
        version=version,
        packages=["torch"],
        package_data={"torch": ["lib/*.so"]},
        distclass=_NotPure,
        script_args=arguments,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
