from __future__ import annotations

import time
from collections import Counter
from types import SimpleNamespace
from typing import Any

from glmpatch.doctor.measure import _time_dtypes


def test_the_first_time_does_not_count() -> None:
    calls = Counter[str]()

    def linear(batch: Any, _layer: Any) -> None:
        calls[batch] += 1
        time.sleep(0.2 if calls[batch] == 1 else 0.001)

    functional = SimpleNamespace(linear=linear)
    torch = SimpleNamespace(
        float32="fp32",
        bfloat16="bf16",
        ones=lambda *_shape, dtype: dtype,
        nn=SimpleNamespace(functional=functional),
        get_num_threads=lambda: 1,
    )
    told: Any = _time_dtypes(torch)
    assert told["fp32"] < 0.1
    assert told["bf16"] < 0.1
