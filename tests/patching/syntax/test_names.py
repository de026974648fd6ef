from __future__ import annotations

import pytest

from glmpatch.patching.syntax.names import Names
from glmpatch.patching.syntax.python import PythonFile
from tests.support import text

CODE = """
    import torch
    import torch.nn
    import torch.distributed as dist
    from torch import distributed
    from torch.distributed import init_process_group as join
    from . import comm
    from ..tools.net import ring
    import numpy as np, numpy as np2
    import a as two
    import b as two
    rebound = 1
    import c as rebound
    def f(parameter, torch=None):
        import d as inner
        global counted
        for loop, (left, right) in []:
            with x as context:
                pass
        try:
            pass
        except OSError as error:
            pass
        def g():
            if (walrus := 1) is None or dist == dist[0] == dist.x:
                return not dist, -dist, dist + 1
            call(dist, dist=dist)
            return dist
"""
F = ("f",)
G = ("f", "g")


@pytest.fixture(scope="module")
def names() -> Names:
    return Names(PythonFile(text(CODE)))


@pytest.mark.parametrize(
    ("name", "scopes", "origin"),
    [
        ("torch", (), "torch"),
        ("torch.nn.Module", (), "torch.nn.Module"),
        ("torch", F, None),
        ("torch", G, None),
        ("dist.get_rank", (), "torch.distributed.get_rank"),
        ("dist.get_rank", G, "torch.distributed.get_rank"),
        ("distributed", (), "torch.distributed"),
        ("join", G, "torch.distributed.init_process_group"),
        ("comm", (), ".comm"),
        ("ring.up", (), "..tools.net.ring.up"),
        ("np2.array", (), "numpy.array"),
        ("two", (), None),
        ("rebound", (), None),
        ("inner", (), None),
        ("inner", G, "d"),
        ("unknown", (), None),
        ("", (), None),
    ],
)
def test_origin(names: Names, name: str, scopes: tuple[str, ...], origin: str | None) -> None:
    assert names.origin(name, scopes) == origin


@pytest.mark.parametrize("name", ["parameter", "loop", "left", "right", "context", "error", "g", "inner"])
def test_name_bound_in_a_function_is_free_outside_it(names: Names, name: str) -> None:
    assert names.is_free(name, ())
    assert not names.is_free(name, F)
    assert not names.is_free(name, G)
    assert names.is_of_module(name, ())
    assert not names.is_of_module(name, F)


@pytest.mark.parametrize("name", ["torch", "f", "two", "rebound", "counted", "np"])
def test_name_of_the_module_is_free_nowhere(names: Names, name: str) -> None:
    assert not names.is_free(name, ())
    assert not names.is_free(name, G)


def test_reading_a_name_does_not_bind_it(names: Names) -> None:
    assert names.is_of_module("dist", G)
    assert not names.is_of_module("walrus", G)


def test_nothing_is_free_beside_a_star_import() -> None:
    names = Names(PythonFile(b"from helpers import *\n"))
    assert not names.is_free("dist", ())
    assert names.origin("dist", ()) is None
