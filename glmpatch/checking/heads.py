"""Which commits of a repository count: the pinned one and the newest of each branch, or those that the user names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from glmpatch.errors import EnvironmentLacksError, UsageError
from glmpatch.mirror import Mirror
from glmpatch.patching.series import UpstreamPin

PINNED = "pinned"


def heads_to_check(
    mirror: Mirror, pin: UpstreamPin, refs: Sequence[str], *, may_lack_pin: bool
) -> dict[str, tuple[str, ...]]:
    """The hashes of the commits that count, each with its names.

    Args:
        mirror: The repository.
        pin: The pinned commit.
        refs: Commits, branches and tags; empty for the pinned commit and every branch.
        may_lack_pin: Whether the repository may be without the pinned commit, as a fork may be.

    Raises:
        UsageError: There is no such `ref`.
        EnvironmentLacksError: Upstream no longer has the pinned commit.
    """
    if refs:
        return _by_commit({ref: mirror.ensure(ref) for ref in refs})
    heads = _by_commit(mirror.objects.heads())
    try:
        pinned = mirror.ensure(pin.commit)
    except (UsageError, EnvironmentLacksError) as error:
        if may_lack_pin:
            return heads
        raise EnvironmentLacksError(
            f"the pinned commit is not to be had: {error.message}",
            hint="glmpatch update-pin takes another one, and apply --ref main does without",
        ) from error
    # A branch can have the name, too.
    return {pinned: (PINNED, *heads.pop(pinned, ())), **heads}


def _by_commit(names: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    commits = dict.fromkeys(names.values())
    return {commit: tuple(name for name, other in names.items() if other == commit) for commit in commits}
