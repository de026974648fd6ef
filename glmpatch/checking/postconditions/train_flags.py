"""What `train-flags` promises: each command that runs the script trains on the CPU, and all else is as it was."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import zip_longest
from typing import NamedTuple, Protocol

from glmpatch.checking.postconditions.broken import Broken, Edited
from glmpatch.checking.postconditions.shell import Token, tokens

_INTERPRETER = re.compile(r"(?:.*/)?(?:python[\d.]*|torchrun)|\$\w*python\w*|\$\{\w*python[^}]*\}", re.IGNORECASE)
_TALKERS = frozenset({"cat", "echo", "git", "grep", "ls", "printf"})
_ASSIGNMENT = re.compile(r"\w+\+?=")
_WORDS_BEFORE = frozenset({"!", "do", "else", "elif", "if", "then", "time", "until", "while", "{"})
_ALL_ELEMENTS = re.compile(r"\$\{?@|\[@\]")
_GPUS = "CUDA_VISIBLE_DEVICES="
_FALSE = frozenset({"no", "false", "f", "n", "0"})
_FULL_EVAL = ("--bf16_full_eval", "--fp16_full_eval")
_GPU_OPTIONS = ("--quantization_bit", "--fp16", "--fp16_opt_level", "--fp16_backend")
_HALF_BACKEND = "--half_precision_backend"
_CPU_BACKENDS = frozenset({"auto", "cpu_amp"})


class _Parameters(Protocol):
    script: str
    dtype: str


class _Option(NamedTuple):
    """An option of a command: its name, its value if it has one, and the places of its words."""

    name: str
    value: str | None
    places: tuple[int, ...]

    @property
    def is_on(self) -> bool:
        """Whether a value behind it, if there is one, turns it on."""
        return self.value is None or self.value.lower() not in _FALSE


class _Launch(NamedTuple):
    """A command that runs the script: its tokens, and the places of the interpreter and the script in them."""

    tokens: list[Token]
    interpreter: int
    script: int

    def options(self) -> list[_Option]:
        """The options behind the script."""
        found = []
        for place in range(self.script + 1, len(self.tokens)):
            token = self.tokens[place]
            name, is_glued, value = token.text.partition("=")
            if token.kind != "word" or not name.startswith("--"):
                continue
            behind = self.tokens[place + 1] if place + 1 < len(self.tokens) else None
            if is_glued:
                found.append(_Option(name, value, (place,)))
            elif behind and _is_value(behind):
                found.append(_Option(name, behind.text, (place, place + 1)))
            else:
                found.append(_Option(name, None, (place,)))
        return found


def find_broken(edited: Edited, transform: _Parameters) -> Iterator[Broken]:
    """Find a command that does not train on the CPU, and a word that is not what it was."""
    before = list(_commands(edited.before, transform.script))
    after = list(_commands(edited.after, transform.script))
    launches = [command for command in after if isinstance(command, _Launch)]
    if not launches:
        yield Broken(f"a command that runs {transform.script}", "none")
    for launch in launches:
        yield from _find_wrong(launch, transform.dtype)
    old = [word for command in before for word in _essence(command, transform.dtype)]
    new = [word for command in after for word in _essence(command, transform.dtype)]
    for one, other in zip_longest(old, new):
        if one is None or other is None or one[0] != other[0]:
            wanted = f"`{one[0].strip()}` as it was" if one else "the end of the script"
            found = repr(other[0]) if other else "the end of the script"
            yield Broken(wanted, found, other[1] if other else None)
            return


def _commands(text: str, script: str) -> Iterator[_Launch | list[Token]]:
    """The script, cut behind each operator, newline and comment."""
    command: list[Token] = []
    for token in (*tokens(text), None):
        if token is None or token.kind not in {"word", "redirect"}:
            yield _launch(command, script) or command
            command = []
            if token is not None:
                yield [token]
        else:
            command.append(token)


def _launch(command: list[Token], script: str) -> _Launch | None:
    """The command as one that runs the script with Python; None for any other."""
    words = [token.text for token in command]
    first = next((word for word in words if word not in _WORDS_BEFORE and not _ASSIGNMENT.match(word)), "")
    if first in _TALKERS:
        return None
    interpreter = next((place for place, word in enumerate(words) if _INTERPRETER.fullmatch(word)), None)
    if interpreter is None:
        return None
    for place in range(interpreter + 1, len(words)):
        word, previous = words[place], words[place - 1]
        if word.rpartition("/")[2] == script:
            return _Launch(command, interpreter, place)
        takes_value = previous in {"-m", "-W", "-X"} or (
            previous.startswith(("--", "-r", "-t")) and "=" not in previous
        )
        if not word.startswith("-") and not takes_value:
            return None
    return None


def _is_value(token: Token) -> bool:
    return token.kind == "word" and not token.text.startswith("-") and not _ALL_ELEMENTS.search(token.source)


def _find_wrong(launch: _Launch, dtype: str) -> Iterator[Broken]:
    line = launch.tokens[launch.script].line
    options = launch.options()
    for name in ("--no_cuda", *(["--bf16"] if dtype == "bf16" else [])):
        found = [option for option in options if option.name == name]
        if len(found) != 1 or not found[0].is_on:
            yield Broken(f"{name} once, and on", f"it is off, or there {len(found)} times", line)
    for option in options:
        is_wrong = _is_for_gpu(option) or (option.name == "--fp16_full_eval" and (option.is_on or dtype == "fp32"))
        is_wrong = is_wrong or (option.name in {"--bf16", "--bf16_full_eval"} and dtype == "fp32")
        if is_wrong:
            yield Broken(f"no {option.name}", f"{option.name} {option.value or ''}".rstrip(), line)
    for token in launch.tokens[: launch.script]:
        if token.text.startswith(_GPUS) or "torchrun" in token.text or "torch.distributed" in token.text:
            yield Broken("no GPU and no launcher of torch before the script", token.source, token.line)


def _is_for_gpu(option: _Option) -> bool:
    return option.name in _GPU_OPTIONS or (option.name == _HALF_BACKEND and option.value not in _CPU_BACKENDS)


def _essence(command: _Launch | list[Token], dtype: str) -> Iterator[tuple[str, int]]:
    """What of a command must stay, with its line."""
    if not isinstance(command, _Launch):
        yield from ((token.source, token.line) for token in command)
        return
    options = command.options()
    full_eval = [option for option in options if option.name in _FULL_EVAL]
    is_full = any(option.is_on for option in full_eval)
    dropped = set(_launcher(command))
    for option in options:
        is_replaced = option in full_eval and (is_full or dtype == "fp32")
        if is_replaced or _is_for_gpu(option) or option.name in {"--no_cuda", "--bf16"}:
            dropped.update(option.places)
    for place, token in enumerate(command.tokens):
        if place == command.interpreter and "torchrun" in token.text:
            yield "python3", token.line
        elif place not in dropped:
            yield token.source, token.line
    if is_full and dtype == "bf16":
        yield "--bf16_full_eval", command.tokens[command.script].line


def _launcher(launch: _Launch) -> Iterator[int]:
    """The places of what starts ranks or chooses GPUs before the script."""
    words = [token.text for token in launch.tokens[: launch.script]]
    is_launcher = "torchrun" in words[launch.interpreter]
    for place, word in enumerate(words):
        if place > launch.interpreter:
            is_launcher = is_launcher or (word == "-m" and words[place + 1].startswith("torch.distributed."))
            if is_launcher:
                yield place
        elif word.startswith(_GPUS):
            yield place
