"""A transform and a series to test the engine with, whatever the real patches do."""

from __future__ import annotations

from typing import ClassVar

from glmpatch.patching.model import Edit, Notice, Patch, Refusal, Replacement, Rewrite, Transform
from glmpatch.patching.series import Series


class Swap(Transform, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Put `new` in the place of the only `old`."""

    name: ClassVar[str] = "swap"

    old: str
    new: str
    notice: str = ""

    def rewrite(self, data: bytes) -> Rewrite:
        """Find `old`, or see that `new` is there already."""
        notices = (Notice(self.notice, 1),) if self.notice else ()
        old, new = self.old.encode(), self.new.encode()
        if new and new in data:
            return Rewrite(notices=notices)
        start = data.find(old)
        if start < 0:
            raise Refusal(self.old, "no such text", hint="look for it", line=1)
        return Rewrite((Replacement(start, start + len(old), new),), notices)


def patch(name: str, *edits: Edit) -> Patch:
    """A patch with some reason."""
    return Patch(name, f"Do {name}", f"Because of {name}.", f"{name} is done upstream", edits)


BACKEND = patch(
    "backend",
    Edit("ptuning/main.py", Swap(old="nccl", new="gloo")),
    Edit("ptuning/train.sh", Swap(old="--quantization_bit 4", new="--no_cuda")),
)
DTYPE = patch(
    "dtype",
    Edit("ptuning/main.py", Swap(old="half()", new="bfloat16()")),
    Edit("web_demo*.py", Swap(old="half().cuda()", new="bfloat16()"), optional=True),
    Edit("not_there.py", Swap(old="a", new="b"), optional=True),
)
SERIES = Series((BACKEND, DTYPE))
STUBBORN = Series((BACKEND, patch("stubborn", Edit("README.md", Swap(old="nowhere", new="somewhere"))), DTYPE))
CHANGED = ["ptuning/main.py", "ptuning/train.sh", "web_demo.py", "web_demo_old.py"]
