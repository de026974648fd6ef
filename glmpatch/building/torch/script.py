"""Writes the steps of a build as one shell script, to be read first and run on a machine without glmpatch."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from glmpatch import __version__
from glmpatch.assets import shell_template
from glmpatch.building.state import MISLEADING
from glmpatch.building.steps import Command, Output, Step
from glmpatch.building.torch.layout import Layout
from glmpatch.building.torch.options import TorchOptions
from glmpatch.building.torch.patching import patch_as_diff
from glmpatch.building.torch.plan import torch_steps

_TEMPLATE = "build_torch.sh.j2"


@dataclass(frozen=True, slots=True)
class _ScriptStep:
    id: str
    title: str
    lines: tuple[str, ...]
    outputs: tuple[str, ...]


def render_script(options: TorchOptions) -> str:
    """The script.

    Raises:
        BuildFailedError: The source is not what the patches understand.
        EnvironmentLacksError: The source, which the patch is made for, cannot be reached.
    """
    steps = list(torch_steps(options))
    layout = Layout(options.folder)
    diff = layout.files / "pytorch.patch"
    files = {path: text for step in steps for path, text in {**step.files, **step.tools}.items()}
    files[diff] = patch_as_diff(options).decode("utf-8")
    words = _Words(options)
    rendered = [
        _ScriptStep(
            step.id,
            shlex.quote(step.title),
            (" ".join(["reopen", *_behind(step, steps)]), *_lines(step, words, diff, layout)),
            tuple(map(words.output, step.outputs)),
        )
        for step in steps
    ]
    return shell_template(_TEMPLATE).render(
        version=__version__,
        torch=options.full_version,
        variables={name: shlex.quote(str(path)) for name, path in words.places.items()},
        python=shlex.quote(str(options.base_python)),
        disk_gb=options.torch.disk_gb,
        job_gb=options.torch.job_gb,
        misleading=" | ".join(MISLEADING),
        files=[(words.quote(str(path)), _end_mark(text), text) for path, text in files.items()],
        environments={name: assignments for assignments, name in words.environments.items()},
        steps=rendered,
        digest=hashlib.sha256(repr((rendered, list(words.environments), files)).encode()).hexdigest(),
    )


def _behind(step: Step, steps: Sequence[Step]) -> Iterator[str]:
    """The steps that work on its outcome."""
    behind = {step.id}
    for other in steps:
        if behind & set(other.needs):
            behind.add(other.id)
            yield other.id


def _lines(step: Step, words: _Words, diff: Path, layout: Layout) -> Iterator[str]:
    if step.id == "patch":
        tree, patch = words.quote(str(layout.source)), words.quote(str(diff))
        yield f"apply_patch {tree} {patch}"
    for command in (*step.commands, *step.checks):
        yield words.render(command)


def _end_mark(text: str) -> str:
    """A word to end a here-document with that is no line of it."""
    mark = "END_OF_FILE"
    while mark in text.splitlines():
        mark += "_"
    return mark


class _Words:
    """Words of the shell, with the places that the reader may change as variables."""

    def __init__(self, options: TorchOptions) -> None:
        # What makes the environment of the prefix: the one command that does not run with the Python in there.
        self._first = str(options.base_python), ("environment", str(options.prefix))
        self.places: dict[str, Path] = {"WORK": options.folder, "PREFIX": options.prefix}
        # The names of the functions that set the variables which commands share.
        self.environments: dict[tuple[str, ...], str] = {}

    def quote(self, word: str) -> str:
        """The word, so that the shell takes it as it is."""
        # The inner one first, where one is in the other.
        for name, place in sorted(self.places.items(), key=lambda item: -len(str(item[1]))):
            before, found, behind = word.partition(str(place))
            if found and before[-1:] in {"", "=", ":"} and behind[:1] in {"", "/", ":"}:
                return f'{_plain(before)}"${name}"{_plain(behind)}'
        return shlex.quote(word)

    def output(self, output: Path | Output) -> str:
        """The path of what a step makes, which the shell expands."""
        if isinstance(output, Path):
            return self.quote(str(output))
        return f"{self.quote(str(output.folder))}/{'*'.join(map(_plain, output.pattern.split('*')))}"

    def render(self, command: Command) -> str:
        """The command; in a shell of its own where it needs a folder or variables."""
        words = " ".join(self.quote(word) for word in command.argv)
        if (command.argv[0], command.argv[-2:]) == self._first:
            words = f'"$PYTHON" {" ".join(map(self.quote, command.argv[1:]))}'
        assignments = (*self._search(command.search), *self._assign(command.environment))
        body = [f"run {words}"]
        if assignments:
            body.insert(0, self.environments.setdefault(assignments, f"environment_{len(self.environments) + 1}"))
        if command.cwd is not None:
            body.insert(0, f"cd {self.quote(str(command.cwd))}")
        return body[0] if len(body) == 1 else "\n".join(["(", *(f"    {line}" for line in body), ")"])

    def _search(self, search: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
        for name, folders in search.items():
            yield f'{name}={":".join(map(self.quote, folders))}"${{{name}:+:${name}}}"'

    def _assign(self, environment: Mapping[str, str]) -> Iterator[str]:
        for name, value in environment.items():
            yield f"{name}={self.quote(value)}"


def _plain(text: str) -> str:
    return shlex.quote(text) if text else ""
