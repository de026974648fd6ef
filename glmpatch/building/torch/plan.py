"""The steps of a build of PyTorch, as data: what is run, what is shown and what is written as a script is this."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from glmpatch.assets import asset_folder
from glmpatch.building import proof
from glmpatch.building.packages import cmake_variables, mpi_packages
from glmpatch.building.steps import Command, Output, Step
from glmpatch.building.toolchain import AUTOLOAD, build_variables, find_compiler
from glmpatch.building.torch.find_mpi import find_mpi
from glmpatch.building.torch.jobs import default_jobs
from glmpatch.building.torch.layout import Layout
from glmpatch.building.torch.options import TorchOptions, python_version
from glmpatch.building.torch.patching import patch_inputs, patch_source
from glmpatch.building.torch.recipe import KINDS, locked_requirements
from glmpatch.building.torch.source import source_commands, source_inputs

# All steps; `torch_steps` makes those behind the first.
STEPS = ("preflight", "mpi", "dependencies", "source", "patch", "configure", "build", "wheel", "install", "verify")
_RANKS = 2
_SECONDS = "600"


def torch_steps(options: TorchOptions) -> Iterator[Step]:
    """The steps behind the preflight, in order.

    They are made one by one, for what a step installs decides about those behind it.

    Args:
        options: What to build.

    Raises:
        UsageError: The recipe has no lists of requirements for this version, or the source is none.
    """
    plan = _Plan(options)
    yield plan.mpi()
    if plan.target.installation is None:
        # It is installed now.
        plan = _Plan(options)
    yield plan.dependencies()
    yield plan.source()
    yield plan.patch()
    yield plan.configure()
    yield plan.build()
    yield plan.wheel()
    yield plan.install()
    yield plan.verify()


def _differs(file: Path, text: str) -> bool:
    """Whether the file is there, and says something else."""
    return file.exists() and file.read_text(encoding="utf-8") != text


class _Plan:
    def __init__(self, options: TorchOptions) -> None:
        self.target = find_mpi(options)
        self._options = options
        self._layout = Layout(options.folder)
        self._tool = self._layout.files / "torch_tool.py"
        # All now: a list that is not there is told before anything is done.
        self._locks = {kind: locked_requirements(options.recipe_file, options.version, kind) for kind in KINDS}

    def mpi(self) -> Step:
        """Put the MPI into the prefix, unless there is one elsewhere."""
        target = self.target
        packages = mpi_packages(self._options.flavour)
        prefix = self._make_environment(self._options.base_python, self._options.prefix)
        if target.installation and target.elsewhere:
            return Step(
                "mpi",
                f"use {target.flavour.title} {target.installation.version} in {target.root}",
                commands=(prefix,),
                tools=self._tool_file(),
                inputs={"root": str(target.root), "library": target.installation.library},
                outputs=(self._options.python, target.root / "bin"),
            )
        return Step(
            "mpi",
            f"install {' and '.join(packages)} into {target.root}",
            # All of it: what a pip that was killed has left looks as if it were installed.
            commands=(prefix, self._pip(self._options.python, "install", "--force-reinstall", *packages)),
            tools=self._tool_file(),
            outputs=(self._options.python, target.root / "bin" / "mpirun"),
        )

    def dependencies(self) -> Step:
        """Make the environment of the build."""
        requirements = self._layout.files / "requires.txt"
        return Step(
            "dependencies",
            "install what PyTorch is built with, in an environment of its own",
            commands=(
                self._make_environment(self._options.python, self._layout.environment),
                self._pip(self._python, "install", "--require-hashes", "--requirement", str(requirements)),
            ),
            files={requirements: self._locks["requires"]},
            inputs={"python": python_version(self._options)},
            tools=self._tool_file(),
            outputs=(self._python,),
            stale=(self._layout.environment,),
        )

    def source(self) -> Step:
        """Get the source, whole and just as it was published."""
        options, tree = self._options, self._layout.source
        commit = () if options.source else (options.torch.commit,)
        return Step(
            "source",
            f"get the source from {options.source or options.origin}",
            commands=tuple(source_commands(options, tree, self._tool)),
            checks=(Command((str(options.python), str(self._tool), "source", str(tree), options.version, *commit)),),
            tools=self._tool_file(),
            inputs=source_inputs(options),
            outputs=(tree / "setup.py",),
            stale=(tree, self._layout.originals),
        )

    def patch(self) -> Step:
        """Teach PyTorch's MPI backend bf16, fp16 and bool."""
        layout = self._layout
        return Step(
            "patch",
            "patch PyTorch's MPI backend",
            needs=("source",),
            action=lambda: patch_source(layout.source, layout.originals),
            inputs=patch_inputs(),
        )

    def configure(self) -> Step:
        """Configure, and see that the MPI that was asked for was found."""
        build, root = self._layout.source / "build", self.target.root
        library = self.target.installation and self.target.installation.linked
        linked = (str(library),) if library else ()
        cache = build / "CMakeCache.txt"
        compiler = find_compiler()
        identity = f"{compiler.banner if compiler else ''}\n{python_version(self._options)}\n"
        compiled_for = self._layout.files / "compiled_for.txt"
        return Step(
            "configure",
            "configure with CMake",
            needs=("dependencies", "source"),
            commands=(self._setup(*self._options.recipe.configure),),
            checks=(Command((str(self._python), str(self._tool), "configured", str(build), str(root), *linked)),),
            tools=self._tool_file(),
            inputs={
                "mpi": self.target.installation.library if self.target.installation else "",
                "variables": {**build_variables(), "CC": os.environ.get("CC")},
            },
            volatile=self._volatile,
            files={compiled_for: identity},
            outputs=(cache,),
            # Ninja knows what a change of settings changes, but not what a change of compiler does.
            stale=(build,) if _differs(compiled_for, identity) else (cache,),
            # Where there is one, PyTorch's script does not ask CMake again.
            unfinished=(cache,),
        )

    def build(self) -> Step:
        """Compile: the long part."""
        return Step(
            "build",
            f"compile with {self._jobs} jobs",
            needs=("configure", "patch"),
            commands=(self._setup(*self._options.recipe.build),),
            volatile=self._volatile,
        )

    def wheel(self) -> Step:
        """Pack the wheel."""
        wheels = self._layout.wheels
        return Step(
            "wheel",
            "pack the wheel",
            needs=("build",),
            commands=(self._setup(*self._options.recipe.wheel, str(wheels)),),
            volatile=self._volatile,
            outputs=(Output(wheels, "torch-*.whl"),),
            stale=(wheels,),
        )

    def install(self) -> Step:
        """Install it, with exact versions of what it needs."""
        options, needs = self._options, self._layout.files / "needs.txt"
        wheel = ("--no-deps", "--no-index", "--force-reinstall", "--find-links", str(self._layout.wheels))
        ours_alone = {"PIP_CONFIG_FILE": os.devnull}
        return Step(
            "install",
            f"install torch {options.full_version} into {options.prefix}",
            needs=("mpi", "wheel"),
            commands=(
                self._pip(options.python, "install", "--require-hashes", "--requirement", str(needs)),
                # No settings of the user's: they can lead to another torch of that version.
                self._pip(
                    options.python, "--isolated", "install", *wheel, f"torch=={options.full_version}", **ours_alone
                ),
            ),
            files={needs: self._locks["needs"]},
            # Gone if another torch was installed over it.
            outputs=(Output(options.prefix, f"lib*/python*/site-packages/torch-{options.full_version}.dist-info"),),
        )

    def verify(self) -> Step:
        """Prove it: right version, right MPI, right sums, equal gradients."""
        options, target, script = self._options, self.target, self._layout.files / "proof.py"
        proved = ["--torch", options.full_version, "--mpi-root", str(target.root), "--ranks", str(_RANKS)]
        if target.installation:
            proved += ["--identity", target.installation.identity]
        environment = {
            **target.environment,
            "MPIEXEC_TIMEOUT": _SECONDS,
            "OMP_NUM_THREADS": "1",
            "PYTHONSAFEPATH": "",
            # Not the backend that was made for another PyTorch.
            AUTOLOAD: "0",
        }
        return Step(
            "verify",
            f"prove it with {_RANKS} ranks",
            needs=("mpi", "install"),
            commands=(
                Command(
                    tuple(target.launch(_RANKS, [str(options.python), str(script), *proved])),
                    environment,
                    target.search,
                    self._layout.root,
                ),
            ),
            files={script: Path(proof.__file__).read_text(encoding="utf-8")},
        )

    @property
    def _python(self) -> Path:
        return self._layout.environment / "bin" / "python"

    @property
    def _jobs(self) -> int:
        return self._options.choices.jobs or default_jobs(self._options.torch.job_gb)

    @property
    def _volatile(self) -> dict[str, str]:
        """The number of jobs, and ccache if it is there: neither changes what comes out."""
        ccache = shutil.which("ccache")
        launchers = {f"CMAKE_{language}_COMPILER_LAUNCHER": ccache for language in ("C", "CXX")} if ccache else {}
        return {"MAX_JOBS": str(self._jobs), **launchers}

    def _tool_file(self) -> dict[Path, str]:
        return {self._tool: (asset_folder("build") / "torch_tool.py").read_text(encoding="utf-8")}

    def _make_environment(self, python: Path, folder: Path) -> Command:
        return Command((str(python), str(self._tool), "environment", str(folder)))

    def _pip(self, python: Path, *arguments: str, **environment: str) -> Command:
        # Without the folder we are in, which can hold a pip.py.
        return Command(
            (str(python), "-I", "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments), environment
        )

    def _setup(self, *arguments: str) -> Command:
        """PyTorch's own script, told everything."""
        options, target = self._options, self.target
        environment = {
            **options.recipe.environment,
            **options.torch.environment,
            "PYTORCH_BUILD_VERSION": options.full_version,
            "CMAKE_PREFIX_PATH": str(self._layout.environment),
            **target.environment,
            **cmake_variables(options.flavour, target.root),
            **options.choices.variables,
        }
        # The build's own programs before those of the MPI's environment, which has a Python, too.
        first = str(self._layout.environment / "bin")
        search = {**target.search, "PATH": (first, *target.search["PATH"])}
        return Command((str(self._python), *arguments), environment, search, self._layout.source)
