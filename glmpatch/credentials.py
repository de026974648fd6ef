"""Keeps users and passwords that are in a URL out of all that is shown or written."""

from __future__ import annotations

import re

# The user of an ssh URL is part of the address, and no secret.
_CREDENTIALS = re.compile(r"(?<=ssh://)([^/\n:@]*)(?::[^/\n]*)?(?=@)|(?<=://)(?<!ssh://)[^/\n]*@")


def without_credentials(text: str) -> str:
    """A text without the users and passwords of the URLs in it."""
    return _CREDENTIALS.sub(r"\1", text)
