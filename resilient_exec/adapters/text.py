"""Text of other people, made harmless for a terminal."""

from __future__ import annotations

import re

__all__ = ["plain"]

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?", re.DOTALL)
_CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if code not in (9, 10)}


def plain(text: str) -> str:
    """The text without escape sequences and control characters, but for tabs and line ends."""
    return _ESCAPES.sub("", text).translate(_CONTROLS)
