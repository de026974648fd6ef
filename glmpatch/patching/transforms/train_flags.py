"""Launch scripts: the flags that train on the CPU, in the place of those for a GPU."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

from glmpatch.patching.model import Dtype, Notice, Refusal, Replacement, Rewrite, Transform
from glmpatch.patching.syntax.shell import ShellFile
from glmpatch.patching.syntax.shell_words import EXPANSION, Word
from glmpatch.patching.transforms.launchers import Launch, find_launches

_TRUE = frozenset({"yes", "true", "t", "y", "1"})
_FALSE = frozenset({"no", "false", "f", "n", "0"})
_CPU_BACKENDS = frozenset({"auto", "cpu_amp"})
_BOOLEANS = frozenset({"--no_cuda", "--fp16", "--bf16", "--fp16_full_eval", "--bf16_full_eval"})
_VALUED = frozenset({"--quantization_bit", "--fp16_opt_level", "--fp16_backend", "--half_precision_backend"})
_HANDLED = _BOOLEANS | _VALUED
_UNWANTED = {
    "bf16": re.compile(r"(?<!\w)--(?:quantization_bit|half_precision_backend|deepspeed|fp16\w*)\b"),
    "fp32": re.compile(r"(?<!\w)--(?:quantization_bit|half_precision_backend|deepspeed|(?:bf|fp)16\w*)\b"),
}
_USE = re.compile(r"\b\w+\b(?!\+?=)")
_GPUS = "CUDA_VISIBLE_DEVICES"
_WORKERS = "--preprocessing_num_workers"


class TrainFlags(Transform, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Make every command that runs `script` train on the CPU.

    Args:
        script: The base name of the script that parses the training arguments.
        dtype: The dtype of the frozen weights and of autocast.
    """

    name: ClassVar[str] = "train-flags"

    script: str = "main.py"
    dtype: Dtype = "bf16"

    def rewrite(self, data: bytes) -> Rewrite:
        """Find the commands and edit each of them."""
        file = ShellFile(data)
        launches = find_launches(file, self.script)
        if not launches:
            raise Refusal(
                f"a command that runs {self.script}",
                "no such command",
                hint=f"name the file that runs {self.script}, or leave this edit out",
            )
        draft = _Draft(file)
        for launch in launches:
            _CommandEditor(draft, launch, self.dtype).edit()
        draft.note_file()
        notices = sorted(draft.notices, key=lambda notice: notice.line or 0)
        return Rewrite(tuple(draft.replacements), tuple(dict.fromkeys(notices)))


@dataclass
class _Draft:
    """What has been asked for so far, and the assignments, by name, that no flags were looked for in yet."""

    file: ShellFile
    replacements: list[Replacement] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    dropped: list[Word] = field(default_factory=list)
    unread: dict[str, list[Word]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for assignment in self.file.assignments:
            self.unread.setdefault(assignment.name, []).append(assignment)

    def note(self, offset: int, message: str) -> None:
        self.notices.append(Notice(message, self.file.line_at(offset)))

    def note_file(self) -> None:
        """Say what stands outside of the commands."""
        if self.file.has_crlf:
            self.notices.append(Notice("bash does not run a script with CRLF line endings: convert it to LF"))
        for assignment in self.file.assignments:
            if assignment.name == _GPUS:
                self.note(assignment.start, f"{_GPUS} has no effect with --no_cuda: this line can go")
        for command in self.file.commands:
            if command.words[0].text.startswith("-"):
                self._note_cut_off(command.words)
        self._note_unused()

    def _note_cut_off(self, words: tuple[Word, ...]) -> None:
        message = (
            f"{words[0].source} and what follows never reach the command above: a comment, a blank line or a missing"
            " backslash ends it"
        )
        names = [word.text.partition("=")[0] for word in words]
        left = [name for name in names if name in _HANDLED]
        self.note(words[0].start, f"{message}; {', '.join(left)} left as it is" if left else message)

    def _note_unused(self) -> None:
        variables = {name for word in self.dropped for name in word.variables}
        uses = Counter(_USE.findall(self.file.text.decode()))
        for word in self.dropped:
            uses.subtract(_USE.findall(word.source))
        for assignment in self.file.assignments:
            if assignment.name in variables and not uses[assignment.name]:
                self.note(assignment.start, f"{assignment.name} is no longer used")


@dataclass(frozen=True, slots=True)
class _Option:
    """An option and, if it stands apart, its value.

    Attributes:
        name: The option with its dashes.
        word: The word that holds the name.
        glued: What follows `=`; None without one.
        next: The word behind, if that is no option itself.
    """

    name: str
    word: Word
    glued: str | None
    next: Word | None


class _CommandEditor:
    """Edits one command."""

    def __init__(self, draft: _Draft, launch: Launch, dtype: Dtype) -> None:
        self._draft = draft
        self._file = draft.file
        self._launch = launch
        self._dtype = dtype
        self._options = list(_options(launch.arguments))
        self._added: list[str] = []

    def edit(self) -> None:
        """Ask for all that the command needs."""
        self._require_understood()
        self._drop_launcher()
        for option in self._named("--quantization_bit", "--fp16_opt_level", "--fp16_backend"):
            self._drop(option)
        for option in self._named("--half_precision_backend"):
            if self._value(option) not in _CPU_BACKENDS:
                self._drop(option)
        self._set("--no_cuda")
        if self._dtype == "bf16":
            self._set("--bf16", "--fp16")
            if any(self._is_true(option) for option in self._named("--bf16_full_eval", "--fp16_full_eval")):
                self._set("--bf16_full_eval", "--fp16_full_eval")
        else:
            for option in self._named("--bf16", "--fp16", "--bf16_full_eval", "--fp16_full_eval"):
                self._drop(option)
        if self._added:
            self._draft.replacements.append(self._file.append(self._launch.command, self._added))
        self._note()

    def _require_understood(self) -> None:
        arguments = self._launch.arguments
        if len(arguments) == 1 and arguments[0].text.endswith(".json"):
            self._file.refuse(arguments[0].start, "flags in the command", hint="set no_cuda and bf16 in the JSON file")
        for option in self._options:
            if option.name == "--deepspeed":
                self._file.refuse(
                    option.word.start, "a command without --deepspeed", hint="DeepSpeed on GPUs: out of scope"
                )
            if option.name not in _HANDLED and any(name.startswith(option.name) for name in _HANDLED):
                self._file.refuse(
                    option.word.start, "flags by their full name", hint=f"{option.name} is short for another"
                )
        for word in arguments:
            if not word.is_static:
                self._require_nothing_inside(word)

    def _require_nothing_inside(self, word: Word) -> None:
        """Refuse flags of the GPU in a variable or an array that `word` expands."""
        sources = [word]
        for source in sources:
            is_option = source is word and word.text.startswith("--")
            if not is_option and _UNWANTED[self._dtype].search(source.source):
                self._file.refuse(
                    source.start, "flags in the command itself", hint="take the flags for the GPU out of the variable"
                )
            inside = [found for name in source.variables for found in self._draft.unread.pop(name, ())]
            sources += sorted(inside, key=lambda found: found.start)

    def _drop_launcher(self) -> None:
        launch = self._launch
        for word in launch.assignments_of(_GPUS):
            self._draft.dropped.append(word)
            self._draft.replacements.append(self._file.remove_prefix(launch.command, word))
        if launch.launcher:
            self._draft.dropped += launch.launcher
            start = launch.launcher[0].start
            self._draft.replacements.append(self._file.replace(start, launch.script.start, launch.interpreter))

    def _set(self, name: str, alias: str = "") -> None:
        """See that exactly one option called `name` is there, and on, and none called `alias`."""
        found = self._named(name, alias)
        kept = next((option for option in found if option.name == name and self._is_true(option)), None)
        if not found:
            self._added.append(name)
        for option in found:
            if kept is None:
                kept = option
                self._replace(option, name)
            elif option is not kept:
                self._drop(option)

    def _named(self, *names: str) -> list[_Option]:
        return [option for option in self._options if option.name in names]

    def _is_true(self, option: _Option) -> bool:
        value = self._value(option)
        if value is not None and value.lower() not in _TRUE | _FALSE:
            self._file.refuse(option.word.start, f"{option.name} with True, False or nothing behind it")
        return value is None or value.lower() in _TRUE

    def _value(self, option: _Option) -> str | None:
        if option.glued is not None:
            return option.glued
        word = self._value_word(option)
        return word.text if word else None

    def _value_word(self, option: _Option) -> Word | None:
        """The word behind `option` that is its value."""
        word = option.next
        if option.glued is not None:
            return None
        if option.name in _BOOLEANS:
            if word and word.is_list:
                return None
            if word and word.splits:
                self._file.refuse(
                    word.start,
                    f"{option.name} with True, False or nothing behind it",
                    hint=f"{word.source} may be its value or more flags",
                )
        elif word is None or word.is_list:
            self._file.refuse(option.word.start, f"a value behind {option.name}")
        return word

    def _drop(self, option: _Option) -> None:
        value = self._value_word(option)
        self._draft.dropped += [option.word, value] if value else [option.word]
        self._draft.replacements.append(self._file.remove(self._launch.command, option.word, value or option.word))

    def _replace(self, option: _Option, name: str) -> None:
        value = self._value_word(option)
        self._draft.dropped += [value] if value else []
        self._draft.replacements.append(self._file.replace(option.word.start, (value or option.word).end, name))

    def _note(self) -> None:
        for option in self._named(_WORKERS):
            value = option.glued if option.glued is not None else option.next.text if option.next else ""
            if value not in {"0", "1"}:
                self._draft.note(option.word.start, f"{_WORKERS} forks after MPI has started: better leave it out")
        for word in _hidden_flags(self._launch.arguments):
            self._draft.note(word.start, f"flags inside {word.source} were not looked at")


def _options(arguments: tuple[Word, ...]) -> Iterable[_Option]:
    for index, word in enumerate(arguments):
        name, has_value, glued = word.text.partition("=")
        if not name.startswith("--") or EXPANSION in name:
            continue
        behind = arguments[index + 1] if index + 1 < len(arguments) else None
        if behind and behind.text.startswith("-"):
            behind = None
        yield _Option(name, word, glued if has_value else None, behind)


def _hidden_flags(arguments: tuple[Word, ...]) -> Iterable[Word]:
    """The expansions in the place of an option."""
    before = ""
    for word in arguments:
        follows_option = before.startswith("-") and "=" not in before
        name = word.text.partition("=")[0]
        hides = EXPANSION in name and (name.startswith("-") or (name.startswith(EXPANSION) and not follows_option))
        if word.is_list or hides:
            yield word
        before = word.text
