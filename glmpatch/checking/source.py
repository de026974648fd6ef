"""Where commits are read from: a mirror of upstream, or of another repository."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from glmpatch.credentials import without_credentials
from glmpatch.mirror import Mirror, open_mirror
from glmpatch.objects import BrokenMirrorError
from glmpatch.patching.series import UpstreamPin

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Source:
    """How to get at upstream.

    Attributes:
        upstream: The URL or path of a repository of the user's own choice; None for the official one.
        offline: Whether to take the mirror as it is.
        silence: After how many seconds without a word from the server to give up.
    """

    upstream: str | None = None
    offline: bool = False
    silence: float = 60.0

    def url(self, pin: UpstreamPin) -> str:
        """The repository."""
        return self.upstream or pin.url

    def ask(self, pin: UpstreamPin, question: Callable[[Mirror], T], say: Callable[[str], None]) -> T:
        """Bring the mirror up to date and ask it something. If it proves to be broken, it is made anew, once.

        Args:
            pin: The official repository.
            question: What to ask.
            say: Called with what is going on.

        Raises:
            EnvironmentLacksError: The repository cannot be reached, or the mirror cannot be read.
        """
        url = self.url(pin)
        shown = without_credentials(url)

        def wait() -> None:
            say(f"waiting for another run that uses the mirror of {shown}")

        say(f"fetching {shown}")
        with open_mirror(url, offline=self.offline, silence=self.silence, on_wait=wait) as mirror:
            try:
                return question(mirror)
            except BrokenMirrorError:
                say(f"fetching {shown} anew: the mirror was broken")
                mirror.rebuild()
                return question(mirror)
