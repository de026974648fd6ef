"""Applies a series to a folder, and takes it back."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from glmpatch import __version__
from glmpatch.checkout import Checkout, NewCommit, merge, open_checkout
from glmpatch.errors import TreeError, UsageError
from glmpatch.patching.journal import Change, Journal, Layer, undo
from glmpatch.patching.model import Patch, Refusal
from glmpatch.patching.plan import Plan, make_plan
from glmpatch.patching.series import Series, UpstreamPin
from glmpatch.patching.tree import JOURNAL, CommittedTree, WorkTree, write_files

_PATCH = "Glmpatch-Patch"
_VERSION = "Glmpatch-Version"
_REVERTS = "Glmpatch-Reverts"


@dataclass(frozen=True, slots=True)
class Applied:
    """What `apply` did.

    Attributes:
        plan: Every outcome. With a conflict in it, nothing was written.
        written: The paths of the files that now have other bytes.
        commits: The hash of each new commit, by the id of its patch.
    """

    plan: Plan
    written: tuple[str, ...] = ()
    commits: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reverted:
    """What `revert` did.

    Attributes:
        written: The paths of the files that have their old bytes back.
        patches: The ids of the patches whose commits were reverted, in the order of the series.
        commit: The hash of the new commit, if there is one.
    """

    written: tuple[str, ...] = ()
    patches: tuple[str, ...] = ()
    commit: str | None = None


def require_upstream(root: Path, pin: UpstreamPin) -> None:
    """See that `root` is a folder of upstream.

    Raises:
        UsageError: It is not.
    """
    missing = [mark for mark in pin.marks if not (root / mark).is_file()]
    if missing:
        raise UsageError(
            f"{root} is not ChatGLM-6B: it has no {', no '.join(missing)}",
            hint="name its folder, or one that does not exist yet, to clone into",
        )


def survey(root: Path, series: Series) -> Plan:
    """The plan for the folder as it is. Writes nothing."""
    return make_plan(series, WorkTree(root, open_checkout(root)))


def apply(root: Path, series: Series, *, commit: bool = True, allow_dirty: bool = False) -> Applied:
    """Apply a series to a folder of upstream: all of it, or nothing.

    In the top folder of a git working tree, each patch becomes a commit. In a plain folder, or with `commit` off, the
    files are changed and their old bytes kept, so that `revert` can give them back.

    Args:
        root: The folder.
        series: The patches.
        commit: Whether to make commits where that can be done.
        allow_dirty: Whether changes of the user's in other files than those that are patched are fine.

    Raises:
        TreeError: The working tree holds changes of the user's that forbid commits.
        EnvironmentLacksError: The folder cannot be written, or git cannot work in it.
    """
    checkout = open_checkout(root)
    tree = WorkTree(root, checkout)
    if checkout is not None and commit:
        return _apply_as_commits(checkout, tree, series, allow_dirty=allow_dirty)
    plan = make_plan(series, tree)
    if plan.conflicts or not plan.after:
        return Applied(plan)
    _journal(root, checkout).push({path: Change(plan.before[path], data) for path, data in plan.after.items()})
    write_files(root, plan.after)
    return Applied(plan, tuple(plan.after))


def revert(root: Path) -> Reverted:
    """Take back what `apply` did, keeping what the user changed since.

    Changes without a commit get their old bytes back. Commits are reverted by one new commit.

    Raises:
        TreeError: The user changed the same lines since, or has uncommitted changes in those files.
        EnvironmentLacksError: The folder cannot be written, or git cannot work in it.
    """
    checkout = open_checkout(root)
    tree = WorkTree(root, checkout)
    journal = _journal(root, checkout)
    layers = journal.layers()
    files: dict[str, bytes] = {}
    if layers:
        files = _undo(layers, tree.read)
        write_files(root, files)
        journal.clear()
    if checkout is None:
        return Reverted(tuple(files))
    reverted = _revert_commits(checkout, tree)
    return Reverted(tuple(dict.fromkeys((*files, *reverted.written))), reverted.patches, reverted.commit)


def _apply_as_commits(checkout: Checkout, tree: WorkTree, series: Series, *, allow_dirty: bool) -> Applied:
    dirty = checkout.dirty()
    plan = make_plan(series, CommittedTree(tree, checkout, dirty))
    if plan.conflicts:
        return Applied(plan)
    if plan.after or (dirty and not make_plan(series, tree).done):
        _require_clean(tree, dirty, plan.after, allow_dirty=allow_dirty)
    if not plan.after:
        return Applied(plan)
    changing = [result for result in plan.patches if result.files]
    commits = checkout.record([NewCommit(_message(result.patch), result.files) for result in changing])
    written = _switch(checkout, tree, commits[-1], plan.after)
    return Applied(plan, written, {result.patch.id: commit for result, commit in zip(changing, commits, strict=True)})


def _switch(checkout: Checkout, tree: WorkTree, commit: str, files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Bring working tree, index and HEAD to a recorded commit, in this order.

    Killed in between, the files hold what the commit would; `_require_clean` of the next run sees that they are ours.
    """
    pending = {path: data for path, data in files.items() if not tree.holds(path, data)}
    write_files(tree.root, pending)
    # Before HEAD moves: a second run after a kill comes by here again. From now on the commits are the undo log.
    _journal(tree.root, checkout).clear()
    checkout.move_head(commit, list(files))
    return tuple(pending)


def _require_clean(tree: WorkTree, dirty: Iterable[str], target: Mapping[str, bytes], *, allow_dirty: bool) -> None:
    """See that the user's changes are not in the way. A file that already is what we make of it is not the user's."""
    foreign = sorted(path for path in dirty if path not in target or not tree.holds(path, target[path]))
    if foreign and not allow_dirty:
        raise TreeError(
            f"{tree.root} has uncommitted changes:\n" + "\n".join(f"    {path}" for path in foreign),
            hint="commit or stash them, or use --allow-dirty or --no-commit",
        )
    mixed = [path for path in foreign if path in target]
    if mixed:
        raise TreeError(
            f"a commit would take your changes along, in: {', '.join(mixed)}",
            hint="commit or stash them, or use --no-commit",
        )


def _revert_commits(checkout: Checkout, tree: WorkTree) -> Reverted:
    reverted = {commit for found in checkout.trailed(_REVERTS) for commit in found.values}
    todo = [found for found in checkout.trailed(_PATCH) if found.commit not in reverted]
    if not todo:
        return Reverted()
    dirty = checkout.dirty()
    layers = [_layer(checkout, found.commit) for found in todo]
    files = _undo(layers, CommittedTree(tree, checkout, dirty).read)
    patches = tuple(value for found in reversed(todo) for value in found.values)
    if not files:
        return Reverted()
    _require_clean(tree, dirty & {path for layer in layers for path in layer}, files, allow_dirty=False)
    message = _with_trailers(
        "Revert the patches of glmpatch", ", ".join(patches), [(_REVERTS, found.commit) for found in todo]
    )
    (commit,) = checkout.record([NewCommit(message, files)])
    return Reverted(_switch(checkout, tree, commit, files), patches, commit)


def _layer(checkout: Checkout, commit: str) -> Layer:
    layer: dict[str, Change] = {}
    for path in checkout.changed_paths(commit):
        before, after = checkout.read(f"{commit}^", path), checkout.read(commit, path)
        if before is None or after is None:
            raise TreeError(f"commit {commit} carries a trailer of glmpatch, but adds or removes {path}")
        layer[path] = Change(before, after)
    return layer


def _undo(layers: list[Layer], read: Callable[[str], bytes | None]) -> dict[str, bytes]:
    paths = sorted({path for layer in layers for path in layer})
    try:
        return undo({path: read(path) for path in paths}, layers, merge)
    except Refusal as refusal:
        found = refusal.conflict
        raise TreeError(f"cannot take back what is not {found.expected}: {found.found}", hint=found.hint) from refusal


def _journal(root: Path, checkout: Checkout | None) -> Journal:
    return Journal(root / JOURNAL if checkout is None else checkout.private_folder)


def _message(patch: Patch) -> str:
    """A commit message: subject, why, when it can go, trailers."""
    body = "\n\n".join(_wrapped(text) for text in (patch.why, f"Can go when: {patch.drop_when}"))
    return _with_trailers(patch.title, body, [(_PATCH, patch.id), (_VERSION, __version__)])


def _wrapped(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 72, break_long_words=False, break_on_hyphens=False)


def _with_trailers(subject: str, body: str, trailers: Iterable[tuple[str, str]]) -> str:
    lines = "\n".join(f"{key}: {value}" for key, value in trailers)
    return f"{subject}\n\n{body}\n\n{lines}\n"
