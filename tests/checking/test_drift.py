"""Histories that drift in every way, against the real patches: what each patch then says, and since when."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

import pytest

from glmpatch.checking.cache import ResultCache
from glmpatch.checking.check import Selection, check_commits
from glmpatch.checking.history import read_history
from glmpatch.checking.model import PatchCheck, Report, Standing, TreeCheck
from glmpatch.errors import EnvironmentLacksError
from glmpatch.objects import Objects
from glmpatch.patching.model import Options
from glmpatch.patching.plan import edit_file
from glmpatch.patching.series import load_series
from tests.checking.histories import DAY, FIRST_DAY, Change, Drift, Link, Submodule, make_history, stand_in

BASE = stand_in()
MAIN = BASE["ptuning/main.py"]
TRAIN = BASE["ptuning/train.sh"]
SERIES = load_series(Options())
IDS = [patch.id for patch in SERIES.patches]
IN_MAIN = {"process-group", "precision", "frozen-broadcast"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> ResultCache:
    """One for all: most files are the same in every history."""
    return ResultCache(tmp_path_factory.mktemp("results"))


class Repository:
    """A history, and the check of it."""

    def __init__(self, folder: Path, commits: Sequence[Drift], heads: Mapping[str, int] | None = None) -> None:
        self.hashes = make_history(folder, commits, heads)
        self._folder = folder

    def check(self, cache: ResultCache, *names: int, history: bool = False, since: datetime | None = None) -> Report:
        """Check the commits with these numbers, by default the last."""
        heads = {self.hashes[name]: (f"head {name}",) for name in names or [-1]}
        objects = Objects(self._folder)
        try:
            selection = Selection("upstream", heads, history, since)
            return check_commits(read_history(objects, SERIES, heads), selection, SERIES, cache)
        finally:
            objects.close()


def cells(tree: TreeCheck) -> dict[str, PatchCheck]:
    return {cell.patch.id: cell for cell in tree.patches}


def standings(tree: TreeCheck) -> dict[str, Standing]:
    """Those that are not clean."""
    return {name: cell.standing for name, cell in cells(tree).items() if cell.standing is not Standing.CLEAN}


def after(name: str, path: str) -> bytes:
    """A file of the stand-in with one patch in it."""
    (patch,) = (patch for patch in SERIES.patches if patch.id == name)
    return edit_file(path, BASE[path], tuple(edit.transform for edit in patch.edits if edit.path == path))[-1].after


def replaced(path: str, old: str, new: str) -> dict[str, bytes]:
    assert old.encode() in BASE[path]
    return {path: BASE[path].replace(old.encode(), new.encode())}


def all_of(names: set[str], standing: Standing) -> dict[str, Standing]:
    return dict.fromkeys(names, standing)


HARMLESS: dict[str, Mapping[str, Change]] = {
    "a file that nobody patches": {"README.md": b"new\n"},
    "other indentation": {"ptuning/main.py": MAIN.replace(b"    ", b"\t")},
    "CRLF": {"ptuning/main.py": MAIN.replace(b"\n", b"\r\n"), "ptuning/train.sh": TRAIN.replace(b"\n", b"\r\n")},
    "a byte order mark": {"ptuning/main.py": b"\xef\xbb\xbf" + MAIN},
    "no newline at the end": {"ptuning/main.py": MAIN.rstrip(b"\n"), "requirements.txt": b"transformers==4.27.1"},
    "a function that moved": {
        "ptuning/main.py": MAIN.replace(b"def main():", b"def later():\n    return 1\n\n\ndef main():")
    },
    "a function of another name": {
        "ptuning/main.py": MAIN.replace(b"def main():", b"def run():").replace(b"    main()", b"    run()")
    },
    "reformatted": {
        "ptuning/main.py": MAIN.replace(
            b"model = model.half()", b"model = (\n            model\n            .half()\n        )"
        ),
        "ptuning/train.sh": TRAIN.replace(b" \\\n    ", b" "),
    },
    "another demo": {"web_demo9.py": b"model = AutoModel.from_pretrained(path).half().cuda()\n"},
    "a script that is executable": {"ptuning/train.sh": TRAIN},
}


@pytest.mark.parametrize("what", HARMLESS)
def test_what_does_no_harm(tmp_path: Path, cache: ResultCache, what: str) -> None:
    report = Repository(tmp_path, [Drift(BASE), Drift(HARMLESS[what])]).check(cache)
    assert not report.has_drifted
    assert standings(report.trees[0]) == {}


# What changes, how each patch then stands that is not clean, and a place and a word of one of the troubles.
HARMFUL: dict[str, tuple[Mapping[str, Change], dict[str, Standing], str, str]] = {
    "renamed": (
        {"ptuning/main.py": None, "ptuning/tune.py": MAIN},
        all_of(IN_MAIN, Standing.CONFLICT), "ptuning/main.py", "no such file",
    ),
    "a folder that moved": (
        {"ptuning": None, **{path.replace("ptuning/", "tuning/"): data for path, data in BASE.items() if "/" in path}},
        {
            **all_of({*IN_MAIN, "train-flags"}, Standing.CONFLICT),
            **all_of({"cpu-autocast", "checkpoint-resume"}, Standing.GONE),
        }, "ptuning/train.sh", "no such file",
    ),
    "deleted": ({"requirements.txt": None}, {"requirements": Standing.CONFLICT}, "requirements.txt", "no such file"),
    "no cast any more": (
        replaced("ptuning/main.py", "model = model.half()", "pass"),
        {"precision": Standing.CONFLICT}, "ptuning/main.py", "model.float() alone",
    ),
    "a process group of its own": (
        replaced("ptuning/main.py", "set_seed(training_args.seed)", "dist.init_process_group(*backend)"),
        {"process-group": Standing.CONFLICT}, "ptuning/main.py", "",
    ),
    "no autocast in the trainer": (
        {"ptuning/trainer.py": b"class Trainer:\n    pass\n"},
        {"cpu-autocast": Standing.CONFLICT, "checkpoint-resume": Standing.CONFLICT}, "ptuning/trainer.py", "",
    ),
    "a quantised demo": (
        replaced("api.py", ".half()", ".quantize(8).half()"), {"cpu-demos": Standing.CONFLICT}, "api.py", "quantize",
    ),
    "conflict markers in Python": (
        {"ptuning/main.py": MAIN + b"<<<<<<< HEAD\nx = 1\n=======\nx = 2\n>>>>>>> 292b568\n"},
        all_of(IN_MAIN, Standing.CONFLICT), "ptuning/main.py", "<<<<<<< HEAD",
    ),
    "conflict markers in shell": (
        {"ptuning/train.sh": b"<<<<<<< HEAD\n" + TRAIN + b"=======\n" + TRAIN + b">>>>>>> 292b568\n"},
        {"train-flags": Standing.CONFLICT}, "ptuning/train.sh", "<<<<<<< HEAD",
    ),
    "a syntax error": (
        {"ptuning/main.py": MAIN.replace(b"def main():", b"def main(:")},
        all_of(IN_MAIN, Standing.CONFLICT), "ptuning/main.py", "",
    ),
    "binary garbage": (
        {"ptuning/main.py": bytes(range(256)) * 20}, all_of(IN_MAIN, Standing.CONFLICT), "ptuning/main.py", "byte 0x80",
    ),
    "null bytes": (
        {"ptuning/main.py": MAIN + b"\0", "ptuning/train.sh": TRAIN + b"\0"},
        all_of({*IN_MAIN, "train-flags"}, Standing.CONFLICT), "ptuning/main.py", "",
    ),
    "invalid UTF-8": (
        {"ptuning/train.sh": TRAIN + b"# \xc3\x28\n"},
        {"train-flags": Standing.CONFLICT}, "ptuning/train.sh", "byte 0xc3",
    ),
    "50 MB": (
        {"ptuning/main.py": MAIN + b"#" * 50_000_000},
        all_of(IN_MAIN, Standing.CONFLICT), "ptuning/main.py", "a larger file",
    ),
    "a link out of the tree": (
        {"ptuning/main.py": Link("../../../etc/passwd")},
        all_of(IN_MAIN, Standing.CONFLICT), "ptuning/main.py", "a symbolic link",
    ),
    "a folder that is a link": (
        {"ptuning": Link("/etc")},
        all_of({*IN_MAIN, "train-flags", "cpu-autocast", "checkpoint-resume", "cpu-demos"}, Standing.CONFLICT),
        "ptuning/main.py", "a symbolic link",
    ),
    "a submodule in its place": (
        {"ptuning/main.py": Submodule()}, all_of(IN_MAIN, Standing.CONFLICT), "ptuning/main.py", "a submodule",
    ),
    "a submodule above it": (
        {"ptuning": Submodule()},
        all_of({*IN_MAIN, "train-flags", "cpu-autocast", "checkpoint-resume", "cpu-demos"}, Standing.CONFLICT),
        "ptuning/train.sh", "a submodule",
    ),
    "a folder in its place": (
        {"ptuning/main.py": None, "ptuning/main.py/x": b""},
        all_of(IN_MAIN, Standing.CONFLICT), "ptuning/main.py", "a folder",
    ),
    "an empty file": (
        {"ptuning/main.py": b""}, all_of(IN_MAIN, Standing.CONFLICT), "ptuning/main.py", "",
    ),
    "Python 2": (
        {"ptuning/main.py": b"print 'x'\n"}, all_of(IN_MAIN, Standing.CONFLICT), "ptuning/main.py", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", HARMFUL)
def test_drift_is_found_with_the_commit_that_brought_it(tmp_path: Path, cache: ResultCache, what: str) -> None:
    changes, expected, path, found = HARMFUL[what]
    repository = Repository(
        tmp_path, [Drift(BASE), Drift({"README.md": b"a"}), Drift(changes, what), Drift({"x": b""})]
    )
    report = repository.check(cache)
    assert report.has_drifted
    assert standings(report.trees[0]) == expected
    troubles = [trouble for cell in report.trees[0].patches for trouble in cell.troubles]
    assert {trouble.since.hash for trouble in troubles if trouble.since} == {repository.hashes[2]}
    assert any(trouble.path == path and found in trouble.found for trouble in troubles)


def test_a_patch_that_landed(tmp_path: Path, cache: ResultCache) -> None:
    landed = {"ptuning/main.py": after("frozen-broadcast", "ptuning/main.py")}
    report = Repository(tmp_path, [Drift(BASE), Drift(landed)]).check(cache, 0, 1)
    assert not report.has_drifted
    assert standings(report.trees[0]) == {"frozen-broadcast": Standing.LANDED}
    assert [(patch.id, names) for patch, names in report.landed] == [("frozen-broadcast", ("head 1",))]


def test_a_patch_of_which_half_has_landed_still_applies(tmp_path: Path, cache: ResultCache) -> None:
    half = {"ptuning/train.sh": after("train-flags", "ptuning/train.sh")}
    report = Repository(tmp_path, [Drift(BASE), Drift(half)]).check(cache)
    assert standings(report.trees[0]) == {}
    assert "ptuning/train.sh" not in {change.path for change in cells(report.trees[0])["train-flags"].changes}
    assert report.landed == ()


def test_what_is_not_there_yet_is_no_drift(tmp_path: Path, cache: ResultCache) -> None:
    early = {path: data for path, data in BASE.items() if not path.startswith("ptuning/")}
    commits = [Drift(early), Drift({path: data for path, data in BASE.items() if path not in early})]
    report = Repository(tmp_path, commits).check(cache, 0, 1)
    late = {*IN_MAIN, "train-flags", "cpu-autocast", "checkpoint-resume"}
    assert [standings(tree) for tree in report.trees] == [{}, all_of(late, Standing.NOT_YET)]
    assert not report.has_drifted


def test_optional_files_that_went_are_no_drift(tmp_path: Path, cache: ResultCache) -> None:
    report = Repository(tmp_path, [Drift(BASE), Drift({"ptuning/trainer.py": None})]).check(cache)
    assert standings(report.trees[0]) == all_of({"cpu-autocast", "checkpoint-resume"}, Standing.GONE)
    assert not report.has_drifted


def test_the_history_has_the_commits_that_touch_a_patched_file(tmp_path: Path, cache: ResultCache) -> None:
    commits = [
        Drift({"README.md": b"nothing of ours"}),
        Drift(BASE, "all"),
        Drift({"README.md": b"more"}),
        Drift({"requirements.txt": b"protobuf\n"}, "touched"),
        Drift(replaced("api.py", ".half()", ".quantize(8).half()"), "bad", parents=(1,)),
        Drift({"requirements.txt": b"protobuf\n"}, "merged", parents=(4, 3)),
        Drift({"api.py": BASE["api.py"]}, "good again"),
    ]
    repository = Repository(tmp_path, commits)
    report = repository.check(cache, history=True)
    shown = [tree.commit.subject for tree in report.trees if tree.commit]
    assert shown == ["good again", "merged", "bad", "touched", "all"]
    assert [tree.has_drifted for tree in report.trees] == [False, True, True, False, False]
    assert not report.has_drifted, "what an old commit had is no drift"
    origins = {trouble.since for tree in report.trees for cell in tree.patches for trouble in cell.troubles}
    assert {origin.subject for origin in origins if origin} == {"bad"}
    recent = repository.check(cache, history=True, since=datetime.fromtimestamp(FIRST_DAY + 4 * DAY, timezone.utc))
    assert [tree.commit.subject for tree in recent.trees if tree.commit] == ["good again", "merged", "bad"]


def test_a_merge_that_only_brings_together_is_left_out(tmp_path: Path, cache: ResultCache) -> None:
    commits = [
        Drift(BASE, "base"),
        Drift({"README.md": b"x"}, "left"),
        Drift({"requirements.txt": b"protobuf\n"}, "right", parents=(0,)),
        Drift({"README.md": b"x"}, "merge", parents=(2, 1)),
        Drift({"z": b""}, "tip"),
    ]
    report = Repository(tmp_path, commits).check(cache, history=True)
    assert [tree.commit.subject for tree in report.trees if tree.commit] == ["tip", "right", "base"]


def test_trouble_that_went_and_came_back_began_when_it_came_back(tmp_path: Path, cache: ResultCache) -> None:
    bad, good = {"requirements.txt": None}, {"requirements.txt": BASE["requirements.txt"]}
    repository = Repository(tmp_path, [Drift(BASE), Drift(bad), Drift(good), Drift(bad), Drift({"x": b""})])
    (trouble,) = cells(repository.check(cache).trees[0])["requirements"].troubles
    assert trouble.since is not None
    assert trouble.since.hash == repository.hashes[3]


def test_of_two_branches_with_the_same_trouble_the_older_brought_it(tmp_path: Path, cache: ResultCache) -> None:
    bad: dict[str, Change] = {"requirements.txt": None}
    commits = [Drift(BASE), Drift({"x": b""}), Drift(bad), Drift(bad, parents=(1,)), Drift({}, parents=(3, 2))]
    repository = Repository(tmp_path, commits)
    (trouble,) = cells(repository.check(cache).trees[0])["requirements"].troubles
    assert trouble.since is not None
    assert trouble.since.hash == repository.hashes[2]


def test_trouble_for_another_reason_is_another_trouble(tmp_path: Path, cache: ResultCache) -> None:
    parsed = b"args = HfArgumentParser(()).parse_args_into_dataclasses()\ndist.init_process_group()\n"
    late = b"import torch.distributed as dist\nfrom transformers import HfArgumentParser\n" + parsed
    files = (None, b"print 'x'\n", late, b"\n" + late)
    commits = [Drift(BASE), *(Drift({"ptuning/main.py": data}) for data in files)]
    repository = Repository(tmp_path, commits)
    trees = repository.check(cache, 1, 2, 3, 4).trees
    found = [cells(tree)["process-group"].troubles[0] for tree in reversed(trees)]
    assert "(line 4)" in found[-1].expected
    assert [trouble.since and repository.hashes.index(trouble.since.hash) for trouble in found] == [1, 2, 3, 3]


def test_bash_that_is_killed_leaves_no_verdict_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/bash").write_text("#!/bin/sh\nkill -9 $$\n")
    (tmp_path / "bin/bash").chmod(0o755)
    fresh = ResultCache(tmp_path / "results")
    repository = Repository(tmp_path / "repository", [Drift(BASE)])
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
        with pytest.raises(EnvironmentLacksError, match="bash was killed"):
            repository.check(fresh)
    assert standings(repository.check(fresh).trees[0]) == {}


def test_folders_a_thousand_deep_are_walked(tmp_path: Path, cache: ResultCache) -> None:
    deep = "/".join(["d"] * 1000)
    report = Repository(tmp_path, [Drift({**BASE, deep: b"", "web_demo9.py": b"model.half().cuda()\n"})]).check(cache)
    assert "web_demo9.py" in {change.path for change in cells(report.trees[0])["cpu-demos"].changes}


def test_the_diffs_of_the_patches_follow_each_other(tmp_path: Path, cache: ResultCache) -> None:
    (tree,) = Repository(tmp_path, [Drift(BASE)]).check(cache).trees
    changes = [change for cell in tree.patches for change in cell.changes if change.path == "ptuning/main.py"]
    assert len(changes) == len(IN_MAIN)
    assert changes[0].before == MAIN
    assert [change.before for change in changes[1:]] == [change.after for change in changes[:-1]]


def test_files_that_are_equal_are_tried_once(tmp_path: Path) -> None:
    fresh = ResultCache(tmp_path / "results")
    commits = [Drift(BASE), *(Drift({"README.md": b"%d" % number}) for number in range(20))]
    repository = Repository(tmp_path / "repository", commits)
    first = repository.check(fresh, *range(21))
    assert len(first.trees) == 21
    assert first.files == first.computed == len({path for cell in first.trees[0].patches for path in paths(cell)})
    again = repository.check(fresh, *range(21))
    assert (again.files, again.computed) == (first.files, 0)
    assert again.trees == first.trees


def paths(cell: PatchCheck) -> Iterator[str]:
    """The files of the stand-in that a patch is about."""
    for edit in cell.patch.edits:
        yield from (path for path in BASE if Path(path).match(edit.path) and path.count("/") == edit.path.count("/"))
