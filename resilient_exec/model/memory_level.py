"""How the machine stands for memory."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["MemoryLevel"]


class MemoryLevel(StrEnum):
    """How the machine stands for memory."""

    OK = "ok"
    LOW = "low"
    CRITICAL = "critical"
