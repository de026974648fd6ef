"""The tree of upstream: whether it is patched, and whether its launch script is for this machine."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from glmpatch.doctor.row import Check, Row
from glmpatch.launching.in_tree import SCRIPT
from glmpatch.launching.script import holds_ours
from glmpatch.machine.topology import Topology, format_cpu_list, parse_cpu_list
from glmpatch.patching.apply import require_upstream, survey
from glmpatch.patching.model import Backend, Conflict, Dtype, Options
from glmpatch.patching.plan import Plan
from glmpatch.patching.series import load_series, load_upstream
from glmpatch.wording import count

_TREE = Check("tree", "Patched tree")
_SCRIPT = Check("launch-script", "Launch script")
_LARGEST = 1 << 20
# Those that Linux can be built for.
_MOST_CPUS = 8192


@dataclass(frozen=True, slots=True)
class PatchedTree:
    """A tree of upstream, held against the patches.

    Attributes:
        folder: Where it is.
        options: Those that it is nearest to being patched with.
        plan: What the patches would do to it with these options; None if there is no tree yet.
        dtypes: Those that it can still be patched for, if it is not patched.
    """

    folder: Path
    options: Options
    plan: Plan | None
    dtypes: tuple[Dtype, ...] = ()

    @property
    def done(self) -> bool:
        """Whether it is patched."""
        return self.plan is not None and self.plan.done

    @property
    def script(self) -> Path:
        """Where its launch script is, if it has one."""
        return self.folder / SCRIPT


def apply_command(tree: PatchedTree | None, dtype: Dtype) -> str:
    """The command that patches a tree for that dtype. It cannot go from one to another but by going back first."""
    if tree is None:
        return f"glmpatch apply ./ChatGLM-6B --dtype {dtype}"
    folder = shlex.quote(str(tree.folder))
    options = "" if tree.options.backend == Options().backend else f" --backend {tree.options.backend}"
    revert = f"glmpatch revert {folder} && " if tree.done else ""
    return f"{revert}glmpatch apply {folder}{options} --dtype {dtype}"


def holds_upstream(folder: Path) -> bool:
    """Whether upstream is there; else there is room for it.

    Raises:
        UsageError: There is something else in that folder.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    require_upstream(folder, load_upstream())
    return True


def read_tree(folder: Path) -> PatchedTree:
    """See how a tree is patched. Writes nothing.

    Raises:
        UsageError: There is something else in that folder.
    """
    if not holds_upstream(folder):
        return PatchedTree(folder, Options(), None)
    found: dict[Options, Plan] = {}
    for backend in get_args(Backend):
        for dtype in get_args(Dtype):
            options = Options(backend, dtype)
            found[options] = plan = survey(folder, load_series(options))
            if plan.done:
                return PatchedTree(folder, options, plan)
        # Where the dtype is not decided yet, nothing much is: the other backends are no nearer.
        if len(nearest := _nearest(found)) > 1:
            break
    return PatchedTree(folder, nearest[0], found[nearest[0]], tuple(options.dtype for options in nearest))


def _nearest(plans: Mapping[Options, Plan]) -> list[Options]:
    """Those options that lack least, the first ones first."""
    lacks = {options: (len(plan.conflicts), len(plan.after)) for options, plan in plans.items()}
    return [options for options in plans if lacks[options] == min(lacks.values())]


def patched(tree: PatchedTree, dtype: Dtype) -> Row:
    """Whether upstream is there, and patched.

    Args:
        tree: The tree.
        dtype: What is faster here.
    """
    plan = tree.plan
    if plan is None:
        return _TREE.fails(f"there is no ChatGLM-6B in {tree.folder}", apply_command(tree, dtype))
    with_options = f"--backend {tree.options.backend} --dtype {tree.options.dtype}"
    if plan.done:
        return _TREE.passes(f"{tree.folder}: all patches are applied ({with_options})")
    if plan.conflicts:
        first = plan.conflicts[0].outcome
        assert isinstance(first, Conflict)  # noqa: S101 - for mypy
        where = f"{plan.conflicts[0].path}{f':{first.line}' if first.line else ''}"
        more = f", and {count(len(plan.conflicts) - 1, 'other conflict')}" if len(plan.conflicts) > 1 else ""
        evidence = f"{where}: expected {first.expected}, found {first.found}{more}"
        return _TREE.fails(evidence, f"glmpatch status {shlex.quote(str(tree.folder))}  # shows what to change by hand")
    waiting = [result.patch.id for result in plan.patches if result.files]
    return _TREE.fails(
        f"{tree.folder}: to apply: {', '.join(waiting)}",
        apply_command(tree, dtype if dtype in tree.dtypes else tree.options.dtype),
    )


def launch_script(tree: PatchedTree, topology: Topology) -> Row:
    """Whether the launch script of the tree was written for this machine. It is read, not run."""
    file, mend = tree.script, write_launch_script(tree.script)
    text = _read(file)
    if text is None:
        if tree.options.backend != "mpi":
            return _SCRIPT.passes(f"none, nor is it needed for {tree.options.backend}")
        return _SCRIPT.warns(f"there is no {file}", mend)
    cpus = _variable(text, "CPUS")
    wanted = None if cpus is None else _numbers(cpus)
    if cpus is None or wanted is None:
        return _SCRIPT.passes(f"unknown: {file} is not as glmpatch writes it")
    if missing := set(wanted) - set(topology.allowed_cpus):
        return _SCRIPT.fails(f"{file} is for CPUs that are not here, or not for us: {format_cpu_list(missing)}", mend)
    here = [f"{node.number}:{format_cpu_list(node.cpus)}" for node in topology.clusters]
    nodes = _variable(text, "NUMA_NODES")
    gone = [root for root in _variable(text, "MPI_ROOT") or () if not Path(root, "bin").is_dir()]
    if gone or nodes not in (None, here):
        other = f"an MPI in {gone[0]}, which is not there" if gone else f"other NUMA nodes: {' '.join(nodes or ())}"
        return _SCRIPT.warns(f"{file} is for {other}", mend)
    return _SCRIPT.passes(f"{file} is for this machine: {count(len(cpus), 'rank')}")


def write_launch_script(file: Path, ranks: int | None = None) -> str:
    """The command that writes it: over one that was changed by hand only if it is told so."""
    changed = file.exists() and not holds_ours(file)
    options = [*(["--ranks", str(ranks)] if ranks else []), *(["--force"] if changed else [])]
    return shlex.join(["glmpatch", "launch", *options, "-o", str(file)])


def _read(file: Path) -> str | None:
    """The text of a file; None if there is none, or none that may be read. No program writes a larger script."""
    with suppress(OSError):
        if file.is_file():
            with file.open(encoding="utf-8", errors="replace") as script:
                return script.read(_LARGEST)
    return None


def _variable(text: str, name: str) -> list[str] | None:
    """The words of an array of the script, or of the default that a variable has; None if there is no such line."""
    found = re.search(rf"^{name}=(?:\((.*)\)|\$\{{\w+:-(.*)\}})$", text, re.MULTILINE)
    try:
        return shlex.split(found[1] or found[2] or "") if found else None
    except ValueError:
        return None


def _numbers(ranks: Sequence[str]) -> Sequence[int] | None:
    """The CPUs in lists of them; None if they are not such lists, or longer than those of any machine."""
    parts = ",".join(ranks).split(",")
    if len(parts) > _MOST_CPUS or not all(re.fullmatch(r"\d{1,4}(-\d{1,4})?", part, re.ASCII) for part in parts):
        return None
    return parse_cpu_list(",".join(parts))
