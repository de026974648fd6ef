"""How a launch script runs a Python script: the interpreter, torch's launchers, and what goes before them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from glmpatch.patching.syntax.shell import ShellFile
from glmpatch.patching.syntax.shell_words import EXPANSION, SimpleCommand, Word


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PYTHON = re.compile(r"python(?:3(?:\.\d+)?)?")
_PYTHON_FLAGS = re.compile(r"-[bBdEiIOPqsSuvx]+|-[WX].+")
_PYTHON_OPTIONS_WITH_VALUE = _names("-W -X --check-hash-based-pycs")
_TORCH_MODULES = _names("torch.distributed.launch torch.distributed.run")
_TORCH_FLAGS = _names("--run_path --standalone --use_env --virtual_local_rank")
_TORCH_OPTIONS_WITH_VALUE = _names(
    """
    --duplicate_stderr_filters --duplicate_stdout_filters --event_log_handler --local_addr --local_ranks_filter
    --log_dir --logdir --logs_specs --master_addr --master_port --max_restarts --monitor_interval --nnodes --node_rank
    --nproc_per_node --numa_binding --rdzv_backend --rdzv_conf --rdzv_endpoint --rdzv_id --redirects --role
    --shutdown_timeout --signals_to_handle --start_method --tee -r -t
    """
)
_GPU_LAUNCHERS = _names("accelerate deepspeed")
_WRAPPERS = _names(
    "chrt command env exec ionice mpiexec mpirun nice nohup numactl setsid srun stdbuf sudo taskset time timeout"
)
_TAKE_ASSIGNMENTS = _names("env sudo")
_SHELLS = _names("bash dash eval ksh parallel screen sh ssh su tmux watch xargs zsh")
_READERS = _names(
    "awk cat chmod cp diff echo export git grep head logger ls mv printf rm rsync scp sed tail test touch wc"
)


@dataclass(frozen=True, slots=True)
class Launch:
    """A command that runs the script.

    Attributes:
        command: The command.
        prefix: The words before the interpreter or launcher: `nohup`, `env` and what they take.
        launcher: The words of torch's launcher with its options, up to the script; empty without one.
        interpreter: What stands in the place of the launcher when it is gone.
        script: The script.
        arguments: The words behind the script.
    """

    command: SimpleCommand
    prefix: tuple[Word, ...]
    launcher: tuple[Word, ...]
    interpreter: str
    script: Word
    arguments: tuple[Word, ...]

    def assignments_of(self, variable: str) -> list[Word]:
        """The `NAME=value` that set `variable` for this command alone, those behind `env` and `sudo` too."""
        found = list(self.command.assignments)
        wrapper = ""
        for word in self.prefix:
            wrapper = word.basename if word.basename in _WRAPPERS else wrapper
            if wrapper in _TAKE_ASSIGNMENTS:
                found.append(word)
        return [word for word in found if word.is_assignment and word.name == variable]


def find_launches(file: ShellFile, script: str) -> list[Launch]:
    """All commands of `file` that run `script`, by its base name, with Python.

    Raises:
        Refusal: `script` is run in a way that is not understood, or on a GPU, or might be.
    """
    finder = _Finder(file, script)
    finder.require_in_the_clear()
    found = (finder.find(command) for command in file.commands)
    return [launch for launch in found if launch]


class _Finder:
    """Looks at one command after the other."""

    def __init__(self, file: ShellFile, script: str) -> None:
        self._file = file
        self._script = script
        name = rf"(?<![\w.-]){re.escape(script)}(?![\w-]|\.\w)"
        self._mention = re.compile(name)
        self._run = re.compile(rf"\b(?:python[\d.]*|torchrun|deepspeed|accelerate)\b.*{name}", re.DOTALL)

    def require_in_the_clear(self) -> None:
        """Refuse a script that is run from a variable or a here-document."""
        assignments = [*self._file.assignments]
        for command in self._file.commands:
            assignments += command.assignments
        for assignment in assignments:
            if self._mention.search(assignment.source):
                self._refuse(assignment, f"write {self._script} into the command itself, not into a variable")
        for heredoc in self._file.heredocs:
            if self._run.search(heredoc.text):
                self._refuse(heredoc, "commands in a here-document are not looked at: run them from this script")

    def find(self, command: SimpleCommand) -> Launch | None:
        """The launch that `command` is, if it is one."""
        words = command.words
        if not any(self._mention.search(word.text) for word in words) or words[0].basename in _READERS:
            return None
        self._file.require_plain_gaps(command)
        index = self._skip_wrappers(words)
        launcher = words[index]
        if launcher.basename in _GPU_LAUNCHERS:
            self._file.refuse(
                launcher.start,
                f"a launch of {self._script} without {launcher.basename}",
                hint=f"{launcher.basename} launches for GPUs: out of scope",
            )
        if launcher.basename == "torchrun":
            return self._find_behind_torch(command, index, index, index + 1)
        if self._is_python(words[index:]):
            return self._find_behind_python(command, index)
        self._require_no_launch(words[index:])
        return None

    def _skip_wrappers(self, words: Sequence[Word]) -> int:
        """The index of the word that a wrapper, like `nohup` or `numactl -C 0-7`, runs."""
        index = 0
        while words[index].basename in _WRAPPERS:
            known = (place for place in range(index + 1, len(words)) if self._is_known(words[place:]))
            index = next(known, -1)
            if index < 0:
                return 0
        return index

    def _is_known(self, words: Sequence[Word]) -> bool:
        name = words[0].basename
        return name == "torchrun" or name in _WRAPPERS | _SHELLS | _GPU_LAUNCHERS or self._is_python(words)

    def _is_python(self, words: Sequence[Word]) -> bool:
        """Whether the first word is a Python interpreter, a variable like `$PYTHON` too."""
        word = words[0]
        if word.text != EXPANSION:
            return _PYTHON.fullmatch(word.basename) is not None
        if len(word.variables) != 1 or "python" not in next(iter(word.variables)).lower():
            return False
        values = [found.value for found in self._file.assignments if found.name in word.variables]
        return all(EXPANSION in value or _is_interpreter(value) for value in values)

    def _find_behind_python(self, command: SimpleCommand, interpreter: int) -> Launch | None:
        words = command.words
        index = interpreter + 1
        while index < len(words) and words[index].text.startswith("-"):
            option = words[index].text
            if option == "-m" and index + 1 < len(words) and words[index + 1].text in _TORCH_MODULES:
                return self._find_behind_torch(command, interpreter, index, index + 2)
            if option in _PYTHON_OPTIONS_WITH_VALUE:
                index += 1
            elif not _PYTHON_FLAGS.fullmatch(option):
                self._refuse(words[index], f"run it as `python3 {self._script}`")
            index += 1
        return self._launch(command, interpreter, (index, index), "")

    def _find_behind_torch(self, command: SimpleCommand, prefix: int, start: int, options: int) -> Launch | None:
        """The launch behind torch's launcher, which starts at `start` and has its options from `options` on."""
        words = command.words
        index = options
        while index < len(words) and words[index].text.startswith("-"):
            name, has_value, _ = words[index].text.partition("=")
            name = name[:2] + name[2:].replace("-", "_")
            takes_next = name in _TORCH_OPTIONS_WITH_VALUE and not has_value
            if name not in _TORCH_OPTIONS_WITH_VALUE and (has_value or name not in _TORCH_FLAGS):
                self._refuse(words[index], f"the launcher's option {words[index].source} is not understood")
            if takes_next and (index + 1 == len(words) or words[index + 1].is_list):
                self._refuse(words[index], f"{words[index].source} has no value in the clear")
            index += 1 + takes_next
        interpreter = "python3 " if start == prefix else ""
        return self._launch(command, prefix, (start, index), interpreter)

    def _launch(self, command: SimpleCommand, prefix: int, span: tuple[int, int], interpreter: str) -> Launch | None:
        """The launch whose launcher is the words `[span[0], span[1])` and whose script is the next."""
        start, place = span
        words = command.words
        script = words[min(place, len(words) - 1)]
        if place >= len(words) or EXPANSION in script.basename:
            self._refuse(script, f"write {self._script} and what stands before it in the clear")
        if script.basename != self._script:
            return None
        if any(item.is_heredoc or words[prefix].start < item.start < script.start for item in command.redirects):
            self._refuse(script, "put redirections behind the command, and use no here-document")
        return Launch(command, words[:prefix], words[start:place], interpreter, script, words[place + 1 :])

    def _require_no_launch(self, words: Sequence[Word]) -> None:
        """See that a command which names the script does not run it."""
        name = words[0].basename
        runs = self._run.search(" ".join(word.text for word in words)) is not None
        if runs or name in _SHELLS | self._file.functions | {EXPANSION, self._script}:
            self._refuse(words[0], f"run it as `python3 {self._script}`, in this script itself")

    def _refuse(self, word: Word, hint: str) -> NoReturn:
        self._file.refuse(
            word.start, f"{self._script} run by python, torchrun or python -m torch.distributed.run", hint=hint
        )


def _is_interpreter(command: str) -> bool:
    try:
        words = shlex.split(command)
    except ValueError:
        return False
    return len(words) == 1 and _PYTHON.fullmatch(words[0].rpartition("/")[2]) is not None
