from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from glmpatch.building.torch.options import TorchChoices, TorchOptions, builds_folder, kept_builds
from glmpatch.building.torch.recipe import load_recipe, recipe_file
from glmpatch.errors import UsageError


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def chosen(**choices: Any) -> TorchOptions:
    return TorchOptions(TorchChoices(flavour="mpich", **choices))


def test_what_follows_where_nothing_is_chosen(tmp_path: Path) -> None:
    options = chosen()
    recipe = load_recipe(recipe_file())
    assert (options.recipe_file, options.recipe) == (recipe_file(), recipe)
    assert (options.version, options.torch) == recipe.find(None)
    assert options.folder == tmp_path / f"cache/glmpatch/torch/{recipe.default}-mpich"
    assert options.folder.parent == builds_folder()
    assert options.full_version == f"{recipe.default}+mpi.mpich"
    assert (options.prefix, options.python) == (Path(sys.prefix), Path(sys.executable))
    assert (options.mpi_root, options.source) == (None, None)
    assert options.origin == recipe.url


def test_what_is_chosen_goes_first_and_paths_are_absolute(tmp_path: Path) -> None:
    recipe = tmp_path / "here/torch.toml"
    recipe.write_bytes(recipe_file().read_bytes())
    paths = {name: Path(name) for name in ("work_dir", "prefix", "mpi_root", "source")}
    options = chosen(version="2.0.1", url="https://example.org/fork", recipe=Path("torch.toml"), **paths)
    here = tmp_path / "here"
    assert options.recipe_file == recipe
    assert options.folder == here / "work_dir"
    assert (options.prefix, options.python) == (here / "prefix", here / "prefix/bin/python")
    assert (options.mpi_root, options.source) == (here / "mpi_root", here / "source")
    assert options.full_version == "2.0.1+mpi.mpich"
    assert options.origin == "https://example.org/fork"


def test_a_repository_on_this_disk_is_found_from_everywhere(tmp_path: Path) -> None:
    (tmp_path / "fork").mkdir()
    options = chosen(url="../fork", work_dir=tmp_path)
    assert options.origin == str(tmp_path / "fork")
    recipe = tmp_path / "torch.toml"
    recipe.write_text(recipe_file().read_text().replace("https://github.com/pytorch/pytorch", "../fork"))
    assert chosen(recipe=recipe).origin == str(tmp_path / "fork")


@pytest.mark.parametrize("url", ["https://me:secret@example.org/x", "--upload-pack=touch x", "ext::sh -c true"])
def test_a_url_that_is_refused(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        chosen(url=url)
    assert "secret" not in caught.value.message


def test_a_version_and_a_recipe_that_are_not_there() -> None:
    with pytest.raises(UsageError, match="no recipe for torch 1"):
        chosen(version="1")
    with pytest.raises(UsageError, match="No such file"):
        chosen(recipe=Path("missing.toml"))


def test_a_build_is_found_again_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fork").mkdir()
    options = chosen(
        version="2.0.1", prefix=Path("env"), jobs=3, variables={"USE_KINETO": "0"}, url="../fork", work_dir=Path("work")
    )
    assert list(kept_builds(options.folder)) == []
    options.keep()
    monkeypatch.chdir("/")
    (kept,) = kept_builds(tmp_path / "here/work")
    assert kept.choices == options.choices
    assert kept.prefix == tmp_path / "here/env"
    assert kept.origin == str(tmp_path / "fork")
    # Moved with all that is in it.
    options.folder.rename(tmp_path / "moved")
    (kept,) = kept_builds(tmp_path / "moved")
    assert kept.folder == tmp_path / "moved"


def test_all_builds_in_the_cache() -> None:
    assert list(kept_builds(None)) == []
    for options in (chosen(version="2.6.0"), chosen(version="2.0.1")):
        options.keep()
    (builds_folder() / "other").mkdir()
    assert [options.version for options in kept_builds(None)] == ["2.0.1", "2.6.0"]


@pytest.mark.parametrize("data", [b"", b'{"flavour": "lam"}', b"\xff", b'{"version": "2.0.1"'])
def test_choices_that_are_damaged(data: bytes) -> None:
    options = chosen()
    options.keep()
    file = options.folder / "options.json"
    file.write_bytes(data)
    with pytest.raises(UsageError, match=str(file)) as caught:
        list(kept_builds(None))
    assert caught.value.hint == "run the build again, which writes it anew"


@pytest.mark.parametrize("name", ["source", "prefix", "mpi_root", "recipe"])
def test_what_the_user_has_is_apart_from_what_the_build_removes(tmp_path: Path, name: str) -> None:
    work = tmp_path / "work"
    recipe = work / "env/torch.toml"
    recipe.parent.mkdir(parents=True)
    recipe.write_bytes(recipe_file().read_bytes())
    place = recipe if name == "recipe" else work / "source"
    with pytest.raises(UsageError, match="is in the folder of the build"):
        chosen(work_dir=work, **{name: place})
    (tmp_path / "link").symlink_to(work)
    with pytest.raises(UsageError, match="is in the folder of the build"):
        chosen(work_dir=tmp_path / "link", **{name: place})


def test_the_build_is_not_in_its_source(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is in the source tree"):
        chosen(source=tmp_path, work_dir=tmp_path / "work")


def test_two_spellings_of_a_folder(tmp_path: Path) -> None:
    assert chosen(work_dir=Path("../here/../x")).folder == tmp_path / "x"
