"""Levels of the machine's available memory."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["MemoryLevel"]


class MemoryLevel(StrEnum):
    """How much memory the machine has available: enough, less than the reserve, less than half of the reserve."""

    OK = "ok"
    LOW = "low"
    CRITICAL = "critical"
