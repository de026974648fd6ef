from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from glmpatch.doctor.hosts import ask_name, hostname, libraries, slurm
from glmpatch.doctor.row import State
from tests.doctor.support import apart, is_fine

ASK = (
    f"{sys.executable} -c 'import json; from glmpatch.doctor.hosts import ask_name, hostname;"
    " row = hostname(*ask_name()); print(json.dumps([row.state.value, row.evidence, row.mend]))'"
)


def test_this_host_has_a_name() -> None:
    assert hostname(*ask_name()).evidence


@pytest.mark.parametrize("line", ["", "203.0.113.7 glmpatch-test-host"])
def test_a_name_that_does_not_lead_here_is_mended(tmp_path: Path, line: str) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(f"127.0.0.1 localhost\n{line}\n")
    # /etc itself is laid under another one, as `sed -i` puts a new file in the old one's place.
    begin = f"""
        mkdir {tmp_path}/etc
        mount -t tmpfs tmpfs {tmp_path}/etc
        cp -r /etc/nsswitch.conf /etc/ssl /etc/ld.so.cache {tmp_path}/etc 2>/dev/null || true
        cp {hosts} {tmp_path}/etc/hosts
        mount --bind {tmp_path}/etc /etc
        hostname glmpatch-test-host
    """
    said = apart(f"{begin}\n{ASK}", "--mount", "--uts")
    state, evidence, mend = json.loads(said)
    assert state == "warn"
    assert ("203.0.113.7" in evidence) == bool(line)
    (tmp_path / "etc").rmdir()
    said = apart(f"{begin}\n{mend.replace('sudo ', '')} >/dev/null\n{ASK}", "--mount", "--uts")
    assert json.loads(said)[:2] == ["pass", "glmpatch-test-host is 127.0.1.1"]


def test_a_hostile_name_is_quoted() -> None:
    row = hostname("a'$(touch x)", "no")
    assert row.state is State.WARN
    assert shlex.split(row.mend)[1] == "127.0.1.1 a'$(touch x)"


def test_slurm_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "not here" in slurm().evidence
    sbatch = tmp_path / "sbatch"
    sbatch.write_text("#!/bin/sh\n")
    sbatch.chmod(0o755)
    assert str(sbatch) in slurm().evidence
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert "job 7" in slurm().evidence


def test_libraries_are_a_hint() -> None:
    assert is_fine(libraries())
