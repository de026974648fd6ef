"""Python and the packages that the patched upstream imports, by what glmpatch's own metadata asks for."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

import glmpatch
from glmpatch.building.problem import pip
from glmpatch.doctor.row import Check, Row
from glmpatch.wording import count

_PYTHON = Check("python", "Python")
_PACKAGES = Check("packages", "Packages")
_EXTRA = "train"
_PYTHONS = tuple(f"3.{minor}" for minor in range(10, 20))
# Those that decide most.
_SHOWN = ("torch", "transformers", "accelerate", "tokenizers", "numpy")


def train_requirements() -> list[Requirement]:
    """What the extra `train` asks for, for any Python; nothing where glmpatch is not installed."""
    try:
        found = map(Requirement, requires("glmpatch") or ())
    except PackageNotFoundError:
        return []
    return [
        each
        for each in found
        if any(_applies(each, _EXTRA, on) for on in _PYTHONS) and not any(_applies(each, "", on) for on in _PYTHONS)
    ]


def python(requirements: Sequence[Requirement], running: str = platform.python_version()) -> Row:
    """Whether this Python is one that the packages are for.

    Args:
        requirements: Those of the extra.
        running: The version of Python, `3.11.2`.
    """
    if not requirements:
        return _PYTHON.passes(f"{running}; which ones will do is unknown: glmpatch is not installed")
    fitting = [on for on in _PYTHONS if all(_applies(each, _EXTRA, on) for each in requirements)]
    if running.rpartition(".")[0] in fitting:
        return _PYTHON.passes(f"{running} ({' and '.join(fitting)} will do)")
    return _PYTHON.fails(
        f"{running}, and what upstream imports is for {' and '.join(fitting)}",
        f"python{fitting[-1]} -m venv .venv && .venv/bin/pip install {_to_install(requirements)}",
    )


def packages(requirements: Sequence[Requirement]) -> Row:
    """Whether all packages are there, in versions that work together."""
    if not requirements:
        checkout = Path(glmpatch.__file__).parent.parent
        return _PACKAGES.warns(
            "glmpatch is not installed: what it needs is unknown",
            pip(f"install -e {shlex.quote(f'{checkout}[{_EXTRA}]')}"),
        )
    wanted = [each for each in requirements if _applies(each, _EXTRA)]
    if not wanted:
        return _PACKAGES.fails("none of them is for this Python", python(requirements).mend)
    wrong = {each: why for each in wanted if (why := _what_is_wrong(each))}
    if wrong:
        return _PACKAGES.fails("; ".join(wrong.values()), pip(f"install {_to_install(wrong)}"))
    shown = [f"{each.name} {version(each.name)}" for each in wanted if each.name in _SHOWN]
    return _PACKAGES.passes(f"{', '.join(shown)}, and {count(len(wanted) - len(shown), 'other')} as needed")


def _to_install(needs: Iterable[Requirement]) -> str:
    return shlex.join(f"{each.name}{each.specifier}" for each in needs)


def _what_is_wrong(need: Requirement) -> str:
    try:
        found = version(need.name)
    except PackageNotFoundError:
        return f"{need.name} is not installed"
    if need.specifier.contains(found, prereleases=True):
        return ""
    return f"{need.name} is {found}, needed is {need.specifier}"


def _applies(need: Requirement, extra: str, on: str | None = None) -> bool:
    """Whether it is asked for with that extra, by this Python or by another one."""
    environment = {"extra": extra} if on is None else {"extra": extra, "python_version": on}
    return need.marker is None or need.marker.evaluate(environment)
