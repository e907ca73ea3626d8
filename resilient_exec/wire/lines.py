"""Texts in lines, as the forkserver tells what it is doing: each line a few texts, whatever is in them.

Not JSON, whose modules take 2 ms of each first result to import.
"""

from __future__ import annotations

__all__ = ["as_line", "texts_of"]

_BETWEEN = "\x1f"  # in a text it is escaped, as are ends of lines


def as_line(*texts: str) -> bytes:
    """One line."""
    return b"%s\n" % _BETWEEN.encode().join(text.encode("unicode_escape") for text in texts)


def texts_of(lines: str) -> list[list[str]]:
    """The texts of each whole line."""
    return [
        [text.encode().decode("unicode_escape") for text in line.split(_BETWEEN)] for line in lines.split("\n")[:-1]
    ]
