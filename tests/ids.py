"""Names of parametrized tests that are the same in every process: pytest-xdist compares them between its workers."""

from __future__ import annotations

import re


def stable(value: object) -> str:
    """The repr of ``value`` without addresses, and sets in order."""
    if isinstance(value, str):
        return value
    if isinstance(value, (set, frozenset)):
        return f"{type(value).__name__}({sorted(value)!r})"
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))[:60]
