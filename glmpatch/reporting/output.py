"""Where reports go: to files, and one of them to standard output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from glmpatch.checking.model import Report
from glmpatch.console import print_document
from glmpatch.errors import UsageError
from glmpatch.patching.tree import write_own_file
from glmpatch.reporting import FORMATS
from glmpatch.reporting.as_text import print_report

_SUFFIXES = {".txt": "text", ".json": "json", ".xml": "junit", ".md": "markdown", ".html": "html", ".htm": "html"}


@dataclass(frozen=True, slots=True)
class Output:
    """A report to be written: its format, and its file; None for standard output."""

    format: str
    file: Path | None = None


def plan_outputs(formats: Sequence[str], files: Sequence[Path]) -> tuple[Output, ...]:
    """Pair formats with files, in order; a format without a file is for standard output.

    Without any format, the suffixes of the files tell. Standard output gets the text where nothing else goes there.

    Raises:
        UsageError: More than one format is left for standard output, files are left without a format, or two reports
            would go to one file.
    """
    if len(set(files)) < len(files):
        raise UsageError("two reports cannot go to one file", hint="name another file with -o")
    if not formats:
        formats = [_format_of(file) for file in files]
    if len(files) > len(formats):
        raise UsageError("there are more files (-o) than formats (--format)", hint="name the format of each file")
    if len(formats) > len(files) + 1:
        raise UsageError("only one report can go to standard output", hint="name a file (-o) for each other format")
    outputs = [Output(format_, file) for format_, file in zip(formats, files, strict=False)]
    rest = formats[len(files) :] or ["text"]
    return (*outputs, Output(rest[0]))


def write_report(report: Report, outputs: Sequence[Output], console: Console) -> None:
    """Write all outputs.

    Raises:
        EnvironmentLacksError: A file cannot be written.
    """
    for output in outputs:
        if output.file is not None:
            write_own_file(output.file, FORMATS[output.format](report).encode())
        elif output.format == "text":
            print_report(console, report)
        else:
            print_document(FORMATS[output.format](report))


def _format_of(file: Path) -> str:
    suffix = file.suffix.lower()
    if suffix not in _SUFFIXES:
        raise UsageError(f"the suffix of {file} tells no format", hint="name it with --format")
    return _SUFFIXES[suffix]
