from __future__ import annotations

from pathlib import Path

import pytest

from glmpatch import assets
from glmpatch.assets import asset_folder
from glmpatch.errors import EnvironmentLacksError


@pytest.mark.parametrize("name", ["patches", "templates", "build"])
def test_a_checkout_has_all_folders(name: str) -> None:
    assert asset_folder(name).is_dir()


def test_a_wheel_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "glmpatch"
    monkeypatch.setattr(assets, "_PACKAGE", package)
    (tmp_path / "patches").mkdir()
    assert asset_folder("patches") == tmp_path / "patches"
    (package / "_assets/patches").mkdir(parents=True)
    assert asset_folder("patches") == package / "_assets/patches"


def test_an_incomplete_installation_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "_PACKAGE", tmp_path / "glmpatch")
    with pytest.raises(EnvironmentLacksError, match=r"lacks its folder 'patches' \(looked in .*_assets/patches and "):
        asset_folder("patches")
