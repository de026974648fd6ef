from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from glmpatch.building.torch.recipe import KINDS, load_recipe, lock_file, locked_requirements, recipe_file
from glmpatch.errors import UsageError

RECIPE = load_recipe(recipe_file())
SMALL = """\
url = "https://example.org/pytorch"
default = "1.0.0"
configure = []
build = []
wheel = []

[environment]

[versions."1.0.0"]
tag = "v1.0.0"
commit = "1111111111111111111111111111111111111111"
python = ">=3.10"
gcc = ">=9"
disk_gb = 1
job_gb = 0.5
requires = []
needs = []
"""


class Locked(NamedTuple):
    """A line of a list."""

    requirement: Requirement
    hashes: list[str]


def locked(version: str, kind: str) -> Iterator[Locked]:
    text = locked_requirements(recipe_file(), version, kind).replace("\\\n", " ")
    for line in text.splitlines():
        if not line.startswith("#"):
            requirement, *hashes = line.split(" --hash=")
            yield Locked(Requirement(requirement), [digest.strip() for digest in hashes])


def pythons(version: str) -> list[str]:
    """Those that it goes with: `["3.10", "3.11"]`."""
    allowed = SpecifierSet(RECIPE.versions[version].python)
    return [f"3.{minor}" for minor in range(20) if f"3.{minor}" in allowed]


def environment(python: str) -> dict[str, str]:
    return {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_machine": "x86_64",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }


def test_the_default_is_there() -> None:
    assert RECIPE.default in RECIPE.versions
    assert RECIPE.find(None) == (RECIPE.default, RECIPE.versions[RECIPE.default])


@pytest.mark.parametrize("version", RECIPE.versions)
def test_a_version_holds_together(version: str) -> None:
    torch = RECIPE.versions[version]
    assert re.fullmatch("[0-9a-f]{40}", torch.commit)
    assert torch.tag == f"v{version}"
    assert pythons(version)
    assert any(f"{major}.{minor}.0" in SpecifierSet(torch.gcc) for major in range(5, 20) for minor in range(6))
    commits = [other.commit for other in RECIPE.versions.values()]
    assert len(set(commits)) == len(commits)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("version", RECIPE.versions)
def test_a_list_is_exact_and_has_what_is_asked_for(version: str, kind: str) -> None:
    lines = list(locked(version, kind))
    for line in lines:
        assert re.fullmatch(r"==[^*,]+", str(line.requirement.specifier)), line
        assert line.hashes, line
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", digest) for digest in line.hashes), line
    asked = [Requirement(text) for text in getattr(RECIPE.versions[version], kind)]
    for python in pythons(version):
        here = environment(python)
        chosen: dict[str, str] = {}
        for line in lines:
            if line.requirement.marker is None or line.requirement.marker.evaluate(here):
                name = canonicalize_name(line.requirement.name)
                assert name not in chosen, (python, line)
                chosen[name] = str(line.requirement.specifier).removeprefix("==")
        for requirement in asked:
            if requirement.marker is None or requirement.marker.evaluate(here):
                found = chosen[canonicalize_name(requirement.name)]
                assert requirement.specifier.contains(found, prereleases=True), (python, requirement, found)


def test_a_version_that_is_not_there() -> None:
    with pytest.raises(UsageError, match=r"there is no recipe for torch 9\.9\.9") as caught:
        RECIPE.find("9.9.9")
    assert "there is one for 2.13.0" in caught.value.hint
    assert RECIPE.find("2.0.1")[0] == "2.0.1"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("1111", "111", "matching"),
        ("1111", "111G", "matching"),
        ('">=3.10"', '"3.10 or so"', "Invalid specifier"),
        ('">=9"', '">="', "Invalid specifier"),
        ("disk_gb = 1", "disk_gb = 0", "0 GB are not from 1e-06 to 1e+09"),
        ("disk_gb = 1", "disk_gb = nan", "nan GB"),
        ("disk_gb = 1", "disk_gb = inf", "inf GB"),
        ("job_gb = 0.5", "job_gb = 1e-320", "GB are not from"),
        ("[environment]", '[environment]\n"A=B" = ""', "'A=B' is no name of a variable"),
        ("[environment]", '[environment]\nA = "x\\u0000"', "holds a NUL"),
        ("needs = []", 'needs = []\nenvironment = { "" = "" }', "'' is no name of a variable"),
        ("build = []", 'build = ["\\u0000"]', "holds a NUL"),
        ('"v1.0.0"', '"\\u0000"', "holds a NUL"),
        ("https://example.org/pytorch", "", "the url is empty"),
        ('[versions."1.0.0"]', '[versions."../1"]', "Invalid version"),
        ("job_gb = 0.5\n", "", "job_gb"),
        ("tag =", "tags =", "tags"),
        ('default = "1.0.0"', "default = 1", "`str`"),
        ("[environment]", "[environment", "Expected"),
    ],
)
def test_a_recipe_that_is_wrong(tmp_path: Path, old: str, new: str, told: str) -> None:
    file = tmp_path / "torch.toml"
    file.write_text(SMALL)
    assert load_recipe(file).find(None)[1].disk_gb == 1
    file.write_text(SMALL.replace(old, new, 1))
    with pytest.raises(UsageError) as caught:
        load_recipe(file)
    assert caught.value.message.startswith(f"{file}: ")
    assert told in caught.value.message


def test_a_recipe_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        load_recipe(tmp_path / "torch.toml")
    with pytest.raises(UsageError, match="Is a directory"):
        load_recipe(tmp_path)
    (tmp_path / "torch.toml").write_bytes(b"\xff")
    with pytest.raises(UsageError, match=str(tmp_path)):
        load_recipe(tmp_path / "torch.toml")


def test_lists_are_beside_the_recipe(tmp_path: Path) -> None:
    file = tmp_path / "torch.toml"
    assert lock_file(file, "1.0.0", "needs") == tmp_path / "constraints/torch-1.0.0-needs.txt"
    with pytest.raises(UsageError, match=r"needs\.txt: No such file") as caught:
        locked_requirements(file, "1.0.0", "needs")
    assert caught.value.hint == "glmpatch update-recipe writes it"
    lock_file(file, "1.0.0", "needs").parent.mkdir()
    lock_file(file, "1.0.0", "needs").write_text("sympy==1\n")
    assert locked_requirements(file, "1.0.0", "needs") == "sympy==1\n"
    lock_file(file, "1.0.0", "needs").write_bytes(b"\xff")
    with pytest.raises(UsageError, match=r"needs\.txt: .*can't decode"):
        locked_requirements(file, "1.0.0", "needs")
