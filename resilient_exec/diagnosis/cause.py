"""A cause with a name: what hangs, the evidence that was seen, and what to do."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Cause"]


@dataclass(frozen=True)
class Cause:
    """Why a program hangs.

    Attributes:
        name: short and fixed, for programs that read it.
        title: one sentence.
        evidence: what was seen, one fact each.
        remedy: what to do, today and for good.
    """

    name: str
    title: str
    evidence: tuple[str, ...]
    remedy: tuple[str, ...]
