from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from glmpatch.building.state import BuildFolder, Record
from glmpatch.building.steps import (
    BuildEvent,
    Command,
    Output,
    Progress,
    Step,
    StepEnded,
    StepSkipped,
    StepStarted,
    remove,
    run_steps,
)
from glmpatch.errors import BuildFailedError, EnvironmentLacksError, ExitCode


def shell(code: str, **more: Any) -> Command:
    return Command(("sh", "-c", code), **more)


def run(folder: BuildFolder, *steps: Step, until: str | None = None) -> list[str]:
    """Run the steps; the names of those that were not skipped."""
    events: list[BuildEvent] = []
    with folder.hold():
        run_steps(steps, folder, events.append, until=until)
    assert [event.step for event in events if isinstance(event, StepStarted | StepSkipped)] == [
        step.id for step in steps[: len([event for event in events if isinstance(event, StepEnded | StepSkipped)])]
    ]
    return [event.step for event in events if isinstance(event, StepEnded)]


@pytest.fixture
def folder(tmp_path: Path) -> BuildFolder:
    return BuildFolder(tmp_path / "build")


@pytest.fixture
def chain(tmp_path: Path) -> list[Step]:
    """Three steps, each with something to keep and something to make."""
    before = {"one": (), "two": ("one",), "three": ("two",)}
    return [
        Step(
            name,
            f"make {name}",
            needs=needs,
            commands=(shell(f"echo did {name}; touch {tmp_path / name}.out"),),
            outputs=(tmp_path / f"{name}.out",),
            stale=(tmp_path / f"{name}.stale",),
        )
        for name, needs in before.items()
    ]


def refill(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / f"{name}.stale").mkdir(exist_ok=True)


def left(tmp_path: Path) -> list[str]:
    return [name for name in ("one", "two", "three") if (tmp_path / f"{name}.stale").exists()]


def test_what_is_unchanged_is_skipped(folder: BuildFolder, chain: list[Step]) -> None:
    events: list[BuildEvent] = []
    with folder.hold():
        run_steps(chain[:2], folder, events.append)
        run_steps(chain, folder, events.append)
    seconds = [event.seconds for event in events if isinstance(event, StepEnded)]
    assert events == [
        StepStarted("one", "make one"),
        StepEnded("one", seconds[0]),
        StepStarted("two", "make two"),
        StepEnded("two", seconds[1]),
        StepSkipped("one", "make one"),
        StepSkipped("two", "make two"),
        StepStarted("three", "make three"),
        StepEnded("three", seconds[2]),
    ]
    record = folder.read("two")
    assert record == Record(
        chain[1].digest({"one": chain[0].digest({})}), done=True, seconds=round(seconds[1], 1), needs=("one",)
    )


CHANGES: dict[str, dict[str, Any]] = {
    "another command": {"commands": (shell("true"), shell("true"))},
    "a variable": {"commands": (shell("true", environment={"A": "2"}),)},
    "a folder of programs": {"commands": (shell("true", search={"PATH": ("/other",)}),)},
    "the folder it runs in": {"commands": (shell("true", cwd=Path("/")),)},
    "a check": {"checks": (shell("true"),)},
    "an input": {"inputs": {"compiler": "13"}},
    "a file's text": {"files": {"file": "other text"}},
    "a file's name": {"files": {"other": "text"}},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_input_runs_the_step_and_all_behind_it(
    folder: BuildFolder, chain: list[Step], tmp_path: Path, change: dict[str, Any]
) -> None:
    if "files" in change:
        change = {"files": {tmp_path / name: text for name, text in change["files"].items()}}
    before = dataclasses.replace(
        chain[1], commands=(shell("true"),), outputs=(), inputs={"compiler": "12"}, files={tmp_path / "file": "text"}
    )
    first, third = chain[0], chain[2]
    assert run(folder, first, before, third) == ["one", "two", "three"]
    refill(tmp_path)
    assert run(folder, first, before, third) == []
    assert run(folder, first, dataclasses.replace(before, **change), third) == ["two", "three"]
    assert left(tmp_path) == ["one"]


def test_how_many_jobs_and_what_a_step_is_called_are_no_inputs(folder: BuildFolder, chain: list[Step]) -> None:
    run(folder, *chain)
    tool = folder.path / "files/tool"
    others = [
        dataclasses.replace(step, title="other", volatile={"MAX_JOBS": "7"}, stale=(), tools={tool: "text"})
        for step in chain
    ]
    assert run(folder, *others) == []
    assert not tool.exists()
    (folder.path / "state/three.json").unlink()
    assert run(folder, *others) == ["three"]
    assert tool.read_text() == "text"


def test_what_does_not_need_a_step_is_not_behind_it(folder: BuildFolder, chain: list[Step]) -> None:
    apart = Step("apart", "", commands=(shell("true"),))
    run(folder, *chain, apart)
    assert run(folder, chain[0], dataclasses.replace(chain[1], inputs={"new": 1}), chain[2], apart) == ["two", "three"]


def test_what_is_stale_goes_first(folder: BuildFolder, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    step = Step("one", "", commands=(shell(f"test ! -e {tree}"), shell(f"mkdir {tree}")), stale=(tree,))
    assert run(folder, step) == ["one"]
    assert run(folder, dataclasses.replace(step, inputs={"version": 2})) == ["one"]
    assert tree.is_dir()


def test_a_step_that_failed_goes_on_with_what_it_has(folder: BuildFolder, chain: list[Step], tmp_path: Path) -> None:
    """It is run again, and so is nothing before it; what it has made so far stays."""
    failing = dataclasses.replace(chain[1], commands=(shell(f"test -e {tmp_path / 'mended'}"),), outputs=())
    for _ in range(2):
        with pytest.raises(BuildFailedError):
            run(folder, chain[0], failing, chain[2])
        refill(tmp_path)
    (tmp_path / "mended").touch()
    assert run(folder, chain[0], failing, chain[2]) == ["two", "three"]
    assert left(tmp_path) == ["one", "two"]


def test_an_output_that_is_gone_is_made_again_and_all_behind_it(
    folder: BuildFolder, chain: list[Step], tmp_path: Path
) -> None:
    """A step behind it may have changed in place what is made again here: the source, which is then patched."""
    run(folder, *chain)
    refill(tmp_path)
    (tmp_path / "two.out").unlink()
    assert run(folder, *chain, until="two") == ["two"]
    assert run(folder, *chain) == ["three"]
    assert left(tmp_path) == ["one", "two", "three"]


def test_there_and_back(folder: BuildFolder, chain: list[Step]) -> None:
    """The last step was done with these inputs, but what it did may have gone with the others."""
    run(folder, *chain)
    other = dataclasses.replace(chain[1], inputs={"version": 2})
    assert run(folder, chain[0], other, until="two") == ["two"]
    assert run(folder, *chain) == ["two", "three"]


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 64, b'{"digest": "', b'{"digest": 1, "done": true}', b'{"digest": "\xff", "done": true}', b"[]"],
)
def test_a_damaged_record_is_none(folder: BuildFolder, chain: list[Step], data: bytes) -> None:
    run(folder, *chain)
    (folder.path / "state/two.json").write_bytes(data)
    assert folder.read("two") is None
    assert run(folder, *chain) == ["two", "three"]


def test_only_up_to_a_step_and_one_by_one(folder: BuildFolder, chain: list[Step], tmp_path: Path) -> None:
    """A step is made when the one before is done: what that installed decides about it."""

    def make() -> Iterator[Step]:
        yield chain[0]
        assert (tmp_path / "one.out").exists()
        yield chain[1]
        pytest.fail("nobody has asked for more")

    with folder.hold():
        run_steps(make(), folder, lambda _event: None, until="two")


def test_files_then_the_action_then_commands_then_checks(folder: BuildFolder, tmp_path: Path) -> None:
    file = tmp_path / "deep/file"

    def action() -> None:
        file.write_text(f"{file.read_text()} action")

    step = Step(
        "one",
        "",
        action=action,
        files={file: "file"},
        commands=(shell(f"echo ' command' >> {file}"),),
        checks=(shell(f"grep 'file action command' {file}"),),
    )
    assert run(folder, step) == ["one"]
    with pytest.raises(BuildFailedError, match=r"the step 'one' failed with exit code 1:"):
        run(folder, dataclasses.replace(step, checks=(shell("exit 1"),)))
    assert file.read_text() == "file action command\n"


def test_an_action_that_fails_is_not_done(folder: BuildFolder) -> None:
    def action() -> None:
        raise BuildFailedError("no")

    with pytest.raises(BuildFailedError, match="no"):
        run(folder, Step("one", "", action=action))
    assert run(folder, Step("one", "", action=lambda: None)) == ["one"]


def test_the_log_has_everything(folder: BuildFolder) -> None:
    run(folder, Step("one", "", commands=(shell("echo old"),)))
    commands = (shell("echo 'a b'; echo err >&2; printf 'x\\377\\r中\\n'"), shell("seq 100; kill -9 $$"))
    with pytest.raises(BuildFailedError) as caught:
        run(folder, Step("one", "", commands=commands))
    lines = folder.log("one").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("$ sh -c ")
    assert lines[1:5] == ["a b", "err", "x\ufffd", "中"]
    assert lines[6:] == [*map(str, range(1, 101)), "exit code -9"]
    assert caught.value.exit_code == ExitCode.BUILD
    assert caught.value.message.splitlines() == [
        "the step 'one' failed with exit code -9:",
        *(f"    {n}" for n in range(76, 101)),
    ]
    assert caught.value.hint == f"all that was printed is in {folder.path / 'logs/one.log'}"


def test_a_failure_that_is_known_is_explained(folder: BuildFolder) -> None:
    with pytest.raises(BuildFailedError) as caught:
        run(folder, Step("one", "", commands=(shell("echo 'x.cpp: No space left on device'; seq 100; exit 2"),)))
    assert caught.value.message.endswith("    100\nwhat is likely wrong: the disk is full.")
    assert caught.value.hint.startswith("free some space, or work on another disk")


def test_of_what_ninja_prints_the_cause_is_shown(folder: BuildFolder) -> None:
    code = r"""printf '%s\n' '[1/9] CXX a.o' 'a.cpp:1: warning: x' 'FAILED: b.o ' 'c++ -Wno-error=x b.cpp'
        printf '%s\n' 'b.cpp:2: warning: y' 'b.cpp:3:1: error: no such thing' '    3 | x' '[2/9] CXX c.o'; seq 100
        printf '%s\n' 'ninja: build stopped: subcommand failed.' 'Traceback'; exit 1"""
    with pytest.raises(BuildFailedError) as caught:
        run(folder, Step("one", "", commands=(shell(code),)))
    assert caught.value.message.splitlines()[1:] == [
        "    FAILED: b.o ",
        "    b.cpp:3:1: error: no such thing",
        "        3 | x",
    ]


def test_what_a_run_leaves_that_did_not_come_to_its_end(folder: BuildFolder, tmp_path: Path) -> None:
    cache, left = tmp_path / "cache", tmp_path / "left"
    code = f"[ ! -e {cache} ] && touch {cache} {left} && [ -e {tmp_path / 'mended'} ]"
    step = Step("one", "", commands=(shell(code),), unfinished=(cache,), stale=(left,))
    for _ in range(2):
        with pytest.raises(BuildFailedError):
            run(folder, step)
        assert cache.exists()
    (tmp_path / "mended").touch()
    run(folder, step)
    cache.write_text("kept")
    run(folder, step)
    assert cache.read_text() == "kept"


def test_the_progress_of_ninja(folder: BuildFolder) -> None:
    events: list[BuildEvent] = []
    code = r"printf '[1/12] CXX a.o\nnote: [2/12]\n[12/12] LINK\n[x/y]\n'"
    with folder.hold():
        run_steps([Step("one", "", commands=(shell(code),))], folder, events.append)
    assert events[1:-1] == [Progress("one", 1, 12), Progress("one", 12, 12)]


def test_what_the_programs_of_a_step_see(folder: BuildFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USE_CUDA", "1")
    monkeypatch.setenv("KEPT", "yes")
    monkeypatch.delenv("NEW_PATH", raising=False)
    command = shell(
        'echo "[$USE_CUDA] $KEPT $A $PATH $NEW_PATH $MAX_JOBS $PWD"',
        environment={"A": "b"},
        search={"PATH": ("/x", "/y"), "NEW_PATH": ("/z",)},
        cwd=tmp_path,
    )
    run(folder, Step("one", "", commands=(command,), volatile={"MAX_JOBS": "3", "A": "not this"}))
    seen = folder.log("one").read_text().splitlines()[-1]
    assert seen == f"[] yes b /x:/y:{os.environ['PATH']} /z 3 {tmp_path}"


def test_what_the_machine_lacks(folder: BuildFolder, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLacksError, match="no-such-program is not installed"):
        run(folder, Step("one", "", commands=(Command(("no-such-program",)),)))
    with pytest.raises(BuildFailedError, match="No space left on device\nwhat is likely wrong: the disk is full"):
        run(folder, Step("one", "", files={Path("/dev/full"): "text"}))
    (tmp_path / "program").write_bytes(b"\x7fELF of another machine")
    (tmp_path / "program").chmod(0o755)
    with pytest.raises(BuildFailedError, match=r"Exec format error: .*program"):
        run(folder, Step("one", "", commands=(Command((str(tmp_path / "program"),)),)))


def test_remove(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    link, file, tree = tmp_path / "link", tmp_path / "file", tmp_path / "tree"
    link.symlink_to(kept)
    file.touch()
    (tree / "deep").mkdir(parents=True)
    for path in (link, file, tree, tmp_path / "missing"):
        remove(path)
    assert list(tmp_path.rglob("*")) == [kept, kept / "file"]


# What a process runs that is killed; `{moment}` says where it kills itself, if it does.
_BUILD = """\
import os, signal, sys
from pathlib import Path
from glmpatch.building import state, steps
from glmpatch.building.state import BuildFolder
from tests.building.test_steps import killed_steps

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

{moment}
folder = BuildFolder(Path(sys.argv[1]))
with folder.hold():
    steps.run_steps(killed_steps(Path(sys.argv[2]), int(sys.argv[3])), folder, print)
"""
_AT = {
    "while what is stale is taken away": "steps.remove = lambda path: ((path / 'half').unlink(), die())",
    "before anything is touched": "state.os.fsync = die",
    "before the note that it is done": """
write = BuildFolder.write
BuildFolder.write = lambda self, step, record: die() if record.done and step == 'two' else write(self, step, record)
""",
}


def killed_steps(place: Path, version: int) -> list[Step]:
    """Two steps; the second hangs unless there is the file `go`, and does not hang alone."""
    hang = f"echo $$ > {place}/hangs; test -e {place}/go || sleep 60 & wait"
    return [
        Step("one", "", commands=(shell(f"echo one >> {place}/ran"),)),
        Step(
            "two",
            "",
            commands=(shell(f"echo two >> {place}/ran; {hang}; mkdir -p {place}/tree; touch {place}/tree/half"),),
            inputs={"version": version},
            stale=(place / "tree",),
        ),
    ]


def start(folder: BuildFolder, place: Path, version: int, moment: str = "") -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", _BUILD.format(moment=moment), str(folder.path), str(place), str(version)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)


def wait_for(what: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def environment(process: str) -> bytes:
    """None is left when it has ended, even while it waits for init to reap it."""
    with suppress(OSError):
        return Path("/proc", process, "environ").read_bytes()
    return b""


def test_killed_while_a_program_runs(folder: BuildFolder, tmp_path: Path) -> None:
    """What it has left running is ended, what it was at is done again, and goes on with what is there."""
    with start(folder, tmp_path, 1) as process:
        wait_for((tmp_path / "hangs").exists)
        wait_for((tmp_path / "hangs").read_text)
        orphan = (tmp_path / "hangs").read_text().strip()
        process.kill()
    assert environment(orphan)
    (tmp_path / "go").touch()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/object").touch()
    assert run(folder, *killed_steps(tmp_path, 1)) == ["two"]
    assert not environment(orphan)
    assert (tmp_path / "tree/object").exists()


@pytest.mark.parametrize("moment", _AT)
def test_killed_between(folder: BuildFolder, tmp_path: Path, moment: str) -> None:
    """Killed with other inputs, and then called with the old ones again: nothing half is taken for whole."""
    (tmp_path / "go").touch()
    run(folder, *killed_steps(tmp_path, 1))
    with start(folder, tmp_path, 2, _AT[moment]) as process:
        assert process.wait(30) == -9
    assert run(folder, *killed_steps(tmp_path, 1)) == ([] if moment == "before anything is touched" else ["two"])
    assert (tmp_path / "tree/half").exists()
    assert run(folder, *killed_steps(tmp_path, 1)) == []


def test_what_ends_well_without_its_outputs_has_failed(folder: BuildFolder, tmp_path: Path) -> None:
    step = Step("one", "", commands=(shell("true"),), outputs=(Output(tmp_path, "*.whl"), folder.path))
    with pytest.raises(BuildFailedError, match=r"the step 'one' ended well, but .*/\*.whl is not there"):
        run(folder, step)
    (tmp_path / "a.whl").touch()
    assert run(folder, step) == ["one"]
    assert run(folder, step) == []
    (tmp_path / "a.whl").rename(tmp_path / "b.whl")
    assert run(folder, step) == []


def test_where_the_interpreter_is_does_not_count() -> None:
    def digest(*argv: str) -> str:
        return Step("one", "", commands=(Command(argv),)).digest({})

    assert digest("/a/python3.11", "x") == digest("/b/bin/python", "x")
    assert digest("/a/python3.11", "x") != digest("/a/python3.11", "y")
    assert digest("/a/gcc", "x") != digest("/b/gcc", "x")
