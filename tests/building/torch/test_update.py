from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from glmpatch.building.torch import update
from glmpatch.building.torch.recipe import load_recipe, lock_file, recipe_file
from glmpatch.building.torch.update import _commit_of_tag, _oldest, _with_commit, update_version
from glmpatch.errors import EnvironmentLacksError, UsageError
from tests.git_support import commit_all, git, make_repo

OLD = "1" * 40
# The second was copied from the first, commit and all.
RECIPE = f"""\
url = "{{url}}"
default = "1.0.0"
configure = []
build = []
wheel = []

[environment]
{
    "".join(
        f'''
# The commit of the first is {OLD}.
[versions."{version}"]
tag = "v{version}"   # kept
commit = "{OLD}"
python = ">=3.10"
gcc = ">=9"
disk_gb = 1
job_gb = 0.5
requires = ["six==1.16.0"]
needs = ["six<1.17"]
'''
        for version in ("1.0.0", "1.0.1")
    )
}"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Its tag v1.0.0 is a plain one, and v1.0.1 has an object of its own."""
    repo = make_repo(tmp_path / "repository", {"file": b"1"})
    git(repo, "tag", "v1.0.0")
    (repo / "file").write_bytes(b"2")
    commit_all(repo, "second")
    git(repo, "tag", "--annotate", "--message", "with words", "v1.0.1")
    return repo


@pytest.fixture
def recipe(tmp_path: Path, repository: Path) -> Path:
    file = tmp_path / "recipe/torch.toml"
    file.parent.mkdir()
    file.write_text(RECIPE.format(url=repository))
    return file


@pytest.fixture
def uv(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The resolver of this environment on PATH."""
    folder = Path(sys.executable).parent
    if not (folder / "uv").exists():
        pytest.skip("needs uv")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder / "uv"


def test_the_commit_of_a_tag(repository: Path) -> None:
    assert _commit_of_tag(str(repository), "v1.0.0") == git(repository, "rev-parse", "v1.0.0")
    assert git(repository, "rev-parse", "v1.0.1") != git(repository, "rev-parse", "v1.0.1^{commit}")
    assert _commit_of_tag(str(repository), "v1.0.1") == git(repository, "rev-parse", "v1.0.1^{commit}")
    # Only whole names count.
    git(repository, "tag", "x/v1.0", "v1.0.0")
    with pytest.raises(UsageError, match=r"has no tag v1\.0"):
        _commit_of_tag(str(repository), "v1.0")
    with pytest.raises(UsageError, match="has no tag main"):
        _commit_of_tag(str(repository), "main")
    with pytest.raises(EnvironmentLacksError, match="cannot read http://127"):
        _commit_of_tag("http://127.0.0.1:9/x", "v1.0.0")


def test_only_the_commit_of_one_version_is_changed(recipe: Path) -> None:
    before = recipe.read_text()
    after = _with_commit(before, "1.0.1", "2" * 40)
    changed = [(old, new) for old, new in zip(before.splitlines(), after.splitlines(), strict=True) if old != new]
    assert changed == [(f'commit = "{OLD}"', f'commit = "{"2" * 40}"')]
    recipe.write_text(after)
    versions = load_recipe(recipe).versions
    assert [versions["1.0.0"].commit, versions["1.0.1"].commit] == [OLD, "2" * 40]
    # In TOML there is more than one way.
    other = (
        re.sub("commit *= *", "commit='", before.replace('"1.0.1"]', "'1.0.1']"))
        .replace("'\"", "'")
        .replace(f'{OLD}"', f"{OLD}'")
    )
    assert _with_commit(other, "1.0.1", "2" * 40).count("2" * 40) == 1
    with pytest.raises(UsageError, match=r"no line for the commit of 1\.0\.2"):
        _with_commit(before, "1.0.2", "2" * 40)
    with pytest.raises(UsageError, match=r"no line for the commit of 1\.0\.0"):
        _with_commit(before.replace(f'commit = "{OLD}"\n', "", 1), "1.0.0", "2" * 40)


def test_the_projects_recipe_can_be_written() -> None:
    text = recipe_file().read_text()
    for name, version in load_recipe(recipe_file()).versions.items():
        assert _with_commit(text, name, version.commit) == text


def test_the_oldest_python() -> None:
    assert [_oldest(python) for python in (">=3.10,<3.15", ">=3.8,<3.12", "==3.12.*")] == ["3.10", "3.8", "3.12"]
    with pytest.raises(UsageError, match="no Python goes with >=4"):
        _oldest(">=4")


def test_without_uv(recipe: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/git").symlink_to("/usr/bin/git")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    before = recipe.read_text()
    with pytest.raises(EnvironmentLacksError, match="uv, which resolves requirements") as caught:
        update_version(recipe, load_recipe(recipe), "1.0.0", lambda _text: None)
    assert caught.value.hint == "pip install uv"
    assert recipe.read_text() == before
    assert [path.name for path in recipe.parent.iterdir()] == ["torch.toml"]


@pytest.mark.usefixtures("uv")
def test_what_cannot_be_resolved(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe.write_text(recipe.read_text().replace("six==1.16.0", "six==1.16.0 ; and more"))
    monkeypatch.setenv("UV_OFFLINE", "1")
    with pytest.raises(UsageError, match=r"the requirements cannot be resolved:\n(.*\n)*.*and more"):
        update_version(recipe, load_recipe(recipe), "1.0.0", lambda _text: None)


@pytest.mark.usefixtures("uv")
def test_a_version_without_requirements(recipe: Path, repository: Path) -> None:
    """Nothing is to be resolved, so that no index is asked."""
    text = recipe.read_text().replace('["six==1.16.0"]', "[]").replace('["six<1.17"]', "[]")
    recipe.write_text(text)
    said: list[str] = []
    updated = update_version(recipe, load_recipe(recipe), "1.0.1", said.append)
    commit = git(repository, "rev-parse", "v1.0.1^{commit}")
    lists = tuple(lock_file(recipe, "1.0.1", kind) for kind in ("requires", "needs"))
    assert updated == update.Update("1.0.1", commit, moved=True, lists=lists)
    assert said == [
        f"ask {repository} for v1.0.1",
        "resolve what torch 1.0.1 requires",
        "resolve what torch 1.0.1 needs",
    ]
    assert load_recipe(recipe).versions["1.0.1"].commit == commit
    assert load_recipe(recipe).versions["1.0.0"].commit == OLD
    assert not update_version(recipe, load_recipe(recipe), "1.0.1", said.append).moved


@pytest.mark.download
@pytest.mark.usefixtures("uv")
def test_exact_versions_with_hashes(recipe: Path) -> None:
    updated = update_version(recipe, load_recipe(recipe), "1.0.0", lambda _text: None)
    for kind, file in zip(("requires", "needs"), updated.lists, strict=True):
        first, *lines = file.read_text().splitlines()
        assert first == (
            f"# Written by `glmpatch update-recipe`: what torch 1.0.0 {kind}, in exact versions with their hashes."
        )
        assert lines[0] == "six==1.16.0 \\"
        assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line) for line in lines[1:])
        assert len(lines) > 1
