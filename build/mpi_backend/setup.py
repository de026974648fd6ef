"""Builds the wheel `glmpatch-mpi`: the MPI backend for the PyTorch that runs this file.

What it is built for and with stands in `glmpatch_mpi/build.json`, which `glmpatch build-backend` writes beforehand and
which goes into the wheel. With `GLMPATCH_SANITIZE=1` in the environment, the address and undefined behaviour sanitizers
of the compiler are on; Python then needs their runtime libraries in `LD_PRELOAD`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CppExtension

HERE = Path(__file__).parent
BUILD = json.loads((HERE / "glmpatch_mpi" / "build.json").read_text(encoding="utf-8"))
FOLDERS = {HERE: "glmpatch", Path(torch.__file__).parent: "torch"}

# No -march: the wheel is carried to other machines, and what needs newer instructions asks for them when it runs.
# The messages of errors name files, but not folders of this machine.
COMPILE = ["-O3", "-g0", "-fvisibility=hidden"]
COMPILE += [f"-ffile-prefix-map={folder.resolve()}={name}" for folder, name in FOLDERS.items()]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-O1", "-g"]
# Where the MPI is now comes first, then the `lib` of the environment that the wheel is in: there the packages put it.
LINK = ["-Wl,-rpath,$ORIGIN/../../.."]


def main() -> None:
    """Build what the command line asks for."""
    sanitize = SANITIZE if os.environ.get("GLMPATCH_SANITIZE") == "1" else []
    setup(
        name="glmpatch-mpi",
        version=BUILD["version"],
        description="An MPI backend for PyTorch, made by glmpatch",
        license="Apache-2.0",
        packages=["glmpatch_mpi"],
        package_data={"glmpatch_mpi": ["build.json"]},
        entry_points={"torch.backends": ["mpi = glmpatch_mpi:autoload"]},
        ext_modules=[
            CppExtension(
                "glmpatch_mpi._C",
                sorted(path.name for path in HERE.glob("*.cpp")),
                # Not a compiler argument: those come behind the headers of the environment, which may hold another MPI.
                include_dirs=[flag.removeprefix("-I") for flag in BUILD["compile_flags"]],
                extra_compile_args=[*COMPILE, *sanitize],
                extra_link_args=[*sanitize, *BUILD["link_flags"], *LINK],
            )
        ],
        cmdclass={"build_ext": BuildExtension},
        zip_safe=False,
    )


if __name__ == "__main__":
    main()
