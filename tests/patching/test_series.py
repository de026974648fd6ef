from __future__ import annotations

from pathlib import Path

import pytest

from glmpatch.errors import ExitCode, UsageError
from glmpatch.patching import series as module
from glmpatch.patching import transforms
from glmpatch.patching.model import Edit, Options
from glmpatch.patching.series import OutOfScope, UpstreamPin, load_folder, load_patch, load_series, load_upstream
from tests.engine_support import SERIES, Swap
from tests.git_support import make_folder

PATCH = """\
id = "one"
title = "Do one"
why = '''
Because.
'''
drop_when = "done"

[[edits]]
path = "ptuning/main.py"
transform = "swap"
params = { old = "{backend}", new = "{dtype}" }

[[edits]]
path = "web_demo*.py"
transform = "swap"
optional = true
[edits.params]
old = "a {backend}"
new = "b"
"""


@pytest.fixture(autouse=True)
def swap_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transforms, "TRANSFORMS", {"swap": Swap})


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project's patches: two, out of order on the disk, and upstream.toml."""
    folder = tmp_path / "patches"
    folder.mkdir()
    (folder / "20-two.toml").write_text(PATCH.replace('"one"', '"two"'))
    (folder / "10-one.toml").write_text(PATCH)
    (folder / "upstream.toml").write_text('url = "u"\ncommit = "c"\nmarks = ["a"]\n')
    (folder / "README.md").write_text("no patch\n")
    monkeypatch.setattr(module, "asset_folder", lambda _name: folder)
    return folder


def test_a_patch_file(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text(PATCH)
    patch = load_patch(file, Options(backend="gloo", dtype="fp32"))
    assert (patch.id, patch.title, patch.why, patch.drop_when) == ("one", "Do one", "Because.", "done")
    assert patch.edits == (
        Edit("ptuning/main.py", Swap(old="gloo", new="fp32")),
        Edit("web_demo*.py", Swap(old="a {backend}", new="b"), optional=True),
    )


def test_the_order_is_that_of_the_file_names_then_the_users(tmp_path: Path, own: Path) -> None:
    assert own.exists()
    extra = tmp_path / "extra"
    extra.mkdir()
    (extra / "05-mine.toml").write_text(PATCH.replace('"one"', '"mine"'))
    assert [patch.id for patch in load_series(Options(), extra=[extra]).patches] == ["one", "two", "mine"]


def test_a_folder_alone(tmp_path: Path, own: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "20-two.toml").write_text(PATCH.replace('"one"', '"two"'))
    (other / "10-one.toml").write_text(PATCH)
    series = load_folder(other, Options(backend="gloo"))
    assert [patch.id for patch in series.patches] == ["one", "two"]
    assert series.patches[0].edits[0].transform == Swap(old="gloo", new="bf16")
    (other / "30-three.toml").write_text(PATCH)
    with pytest.raises(UsageError, match=r"30-three\.toml: the id 'one' is taken"):
        load_folder(other, Options())
    with pytest.raises(UsageError, match="holds no patch file"):
        load_folder(own / "none", Options())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('id = "one"', "id = one", "Invalid value"),
        ('id = "one"\n', "", "missing required field `id`"),
        ('id = "one"', "id = 1", "Expected `str`, got `int`"),
        ('id = "one"', 'id = ""', "regex"),
        ('id = "one"', 'id = "one\\n"', "regex"),
        ('id = "one"', 'id = "One, two"', "regex"),
        ('title = "Do one"', 'title = "Do\\none"', "regex"),
        ('title = "Do one"', 'title = "Do one"\ncolour = 1', "unknown field `colour`"),
        ("optional = true", 'optional = "yes"', "Expected `bool`, got `str`"),
        ("optional = true", "maybe = true", "unknown field `maybe`"),
        ('transform = "swap"', 'transform = "swop"', "edits[0]: no transform is called 'swop'"),
        ('old = "{backend}"', "old = 1", "edits[0]: params of swap: Expected `str`, got `int` - at `$.old`"),
        ('old = "{backend}", ', "", "edits[0]: params of swap: Object missing required field `old`"),
        ('old = "{backend}"', 'old = "", older = ""', "params of swap: Object contains unknown field `older`"),
        ('path = "ptuning/main.py"', 'path = "/etc/passwd"', "edits[0]: the path '/etc/passwd' leads out of the tree"),
        ('path = "ptuning/main.py"', 'path = "a/../../b"', "leads out of the tree"),
        (PATCH[PATCH.index("[[edits]]") :], "edits = []", "needs at least one edit"),
        (PATCH, "\udcff", ""),
        (PATCH, "", "missing required field"),
    ],
)
def test_what_is_wrong_with_a_patch_file_is_said_with_its_path(
    tmp_path: Path, own: Path, old: str, new: str, message: str
) -> None:
    assert own.exists()
    extra = tmp_path / "extra"
    extra.mkdir()
    text = PATCH.replace(old, new, 1)
    assert text != PATCH
    (extra / "mine.toml").write_text(text, errors="surrogateescape")
    with pytest.raises(UsageError) as caught:
        load_series(Options(), extra=[extra])
    assert caught.value.exit_code == ExitCode.USAGE
    assert str(extra / "mine.toml") in caught.value.message
    assert message in caught.value.message


def test_an_id_is_taken_once(tmp_path: Path, own: Path) -> None:
    assert own.exists()
    extra = tmp_path / "extra"
    extra.mkdir()
    (extra / "mine.toml").write_text(PATCH)
    with pytest.raises(UsageError, match=r"mine\.toml: the id 'one' is taken"):
        load_series(Options(), extra=[extra])


def test_a_folder_without_a_patch_and_a_folder_called_like_one(tmp_path: Path, own: Path) -> None:
    assert own.exists()
    extra = tmp_path / "extra"
    extra.mkdir()
    with pytest.raises(UsageError, match="holds no patch file"):
        load_series(Options(), extra=[extra])
    (extra / "mine.toml").mkdir()
    with pytest.raises(UsageError, match=r"mine\.toml: Is a directory"):
        load_series(Options(), extra=[extra])


def test_selecting() -> None:
    def ids(**names: tuple[str, ...]) -> list[str]:
        return [patch.id for patch in SERIES.select(**names).patches]

    assert ids() == ["backend", "dtype"]
    assert ids(only=("dtype", "backend")) == ["backend", "dtype"]
    assert ids(only=("dtype",)) == ids(skip=("backend",)) == ["dtype"]
    with pytest.raises(UsageError, match="no patch is called 'x'") as caught:
        ids(skip=("x",))
    assert caught.value.hint == "the patches are: backend, dtype"
    with pytest.raises(UsageError, match="leaves no patch"):
        ids(only=("dtype",), skip=("dtype",))


def test_upstream_is_pinned_by_a_full_hash() -> None:
    pin = load_upstream()
    assert pin.url.startswith("https://")
    assert len(pin.commit) == 40
    assert "ptuning/main.py" in pin.marks


def test_what_is_out_of_scope_is_said_of_files_that_are_there(root: Path) -> None:
    entries = [OutOfScope("ptuning/ds_train_finetune.sh", "GPU"), OutOfScope("gone.py", "gone")]
    pin = UpstreamPin(url="", commit="", marks=[], out_of_scope=entries)
    assert pin.left_alone(make_folder(root)) == entries[:1]
