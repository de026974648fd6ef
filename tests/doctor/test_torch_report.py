from __future__ import annotations

import sys
from pathlib import Path

import pytest

from glmpatch.doctor.torch_report import TorchReport, ask_torch, kernel_of

LINE = (
    "onednn_verbose,v1,primitive,exec,cpu,matmul,{},undef,src:{}::blocked:ab::f0 wei:{}::blocked:ba::f0,,,128x4096,0.4"
)
OLD = "onednn_verbose,exec,cpu,{},{},undef,src_{}::blocked:ab:f0 dst_f32::blocked:ab:f0,,,128x4096:4096x4096,0.4"


@pytest.mark.parametrize(
    ("line", "kernel"),
    [
        (LINE.format("brg_matmul:avx10_1_512_amx", "bf16", "bf16"), "brg_matmul:avx10_1_512_amx"),
        (OLD.format("matmul", "brg:avx512_core_amx_bf16", "bf16"), "brg:avx512_core_amx_bf16"),
        (OLD.format("inner_product", "brgemm:avx512_core_bf16", "bf16"), "brgemm:avx512_core_bf16"),
        (LINE.format("brg_matmul:avx512_core", "f32", "f32"), ""),
        (OLD.format("reorder", "jit:uni", "bf16"), ""),
        ("onednn_verbose,v1,info,cpu,isa:Intel AVX-512 with Intel DL Boost and bfloat16 support", ""),
        ("onednn_verbose,exec bf16", ""),
        ("onednn_verbose,bf16,exec", ""),
    ],
)
def test_the_kernel_is_read_from_the_report(line: str, kernel: str) -> None:
    assert kernel_of(line) == kernel


def test_torch_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    # How Python itself is told that there is no such module.
    monkeypatch.setitem(sys.modules, "torch", None)
    assert ask_torch([], 1) == TorchReport(error="it is not installed")


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import ctypes\nctypes.CDLL('libgone.so.1')\n", "OSError: libgone.so.1: cannot open shared object file"),
        ("import os\nos.abort()\n", "exit code -6"),
    ],
)
def test_torch_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, error: str) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    report = ask_torch([], 1)
    assert report.error.startswith(error)
    assert report == TorchReport(error=report.error)


def test_torch_is_there_and_dies_when_it_multiplies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch" / "distributed").mkdir(parents=True)
    code = "import os\n__version__ = '2.13.0'\nnn = type('', (), {'functional': type('', (), {'linear': None})})\n"
    code += "float32 = bfloat16 = None\ndef ones(*_, **__): os.abort()\n"
    (tmp_path / "torch" / "__init__.py").write_text(code)
    (tmp_path / "torch" / "distributed" / "__init__.py").write_text("def is_available(): return False\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    report = ask_torch([], 1)
    assert report == TorchReport(error="exit code -6", version="2.13.0")


def test_torch_in_the_folder_we_are_in_is_not_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('the wrong one')\n")
    (tmp_path / "right" / "torch").mkdir(parents=True)
    (tmp_path / "right" / "torch" / "__init__.py").write_text("raise SystemExit('the right one')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "right")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "right"))
    assert ask_torch([], 1).error == "the right one"
