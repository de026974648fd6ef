"""Numbers as people read them."""

from __future__ import annotations

_GB = 10**9


def count(number: int, noun: str) -> str:
    """`1 rank`, `2 ranks`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def size(amount: float) -> str:
    """Bytes: `16.7 GB`, `64 MB`."""
    return f"{amount / _GB:.1f} GB" if amount >= _GB else f"{amount * 1000 / _GB:.0f} MB"
