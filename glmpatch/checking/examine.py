"""One file, looked at hard: its edits, the edits run again, and what a second reader says of the result."""

from __future__ import annotations

from dataclasses import dataclass

from glmpatch.checking.postconditions import Broken, broken_in
from glmpatch.patching.model import Changed, Conflict, Transform
from glmpatch.patching.plan import Step, edit_file


@dataclass(frozen=True, slots=True)
class Examined:
    """What the edits of one file came to.

    Attributes:
        steps: One for each transform.
        broken: What is wrong with the result, with the name of the transform ("" for the file as a whole).
    """

    steps: tuple[Step, ...]
    broken: tuple[tuple[str, Broken], ...] = ()


def examine(path: str, data: bytes, transforms: tuple[Transform, ...]) -> Examined:
    """Run the edits of one file, and judge the result by its own rules and by those of a second reader.

    The transforms that refuse the file are left out of the judgement.
    """
    steps = edit_file(path, data, transforms)
    accepted = tuple(
        transform for transform, step in zip(transforms, steps, strict=True) if not isinstance(step.outcome, Conflict)
    )
    if not accepted:
        return Examined(steps)
    after = steps[-1].after
    broken = broken_in(path, data, after, accepted)
    if after != data:
        again = edit_file(path, after, accepted)
        broken += tuple(
            (transform.name, Broken("nothing left to change when it runs again", _found(step)))
            for transform, step in zip(accepted, again, strict=True)
            if isinstance(step.outcome, Changed | Conflict)
        )
    return Examined(steps, broken)


def _found(step: Step) -> str:
    return f"a refusal: {step.outcome.found}" if isinstance(step.outcome, Conflict) else "another change"
