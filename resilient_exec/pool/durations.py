"""Lengths of time as people write them: ``90``, ``5m``, ``1h30m``."""

from __future__ import annotations

import re

__all__ = ["seconds_in", "short"]

_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(min|[smhd])", re.IGNORECASE)


def seconds_in(text: str) -> float:
    """Seconds in a text: a number of them (``90``, ``1.5``), or numbers with units s, m, h, d (``5m``, ``1h30m``).

    Raises:
        ValueError: the text is neither.
    """
    try:
        return float(text)
    except ValueError:
        pass
    total, end = 0.0, 0
    while found := _PART.match(text, end):
        total += float(found[1]) * _UNITS[found[2].lower()]
        end = found.end()
    if not end or text[end:].strip():
        raise ValueError(f"{text!r} is no length of time: write seconds (90), or units (5m, 1h, 1h30m)")
    return total


def short(seconds: float) -> str:
    """A length of time in few characters: ``8 s``, ``4 min 05 s``, ``2 h 10 min``."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 or seconds == int(seconds) else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
