"""The fixtures of this folder's tests."""

from __future__ import annotations

from watching import watched

__all__ = ["watched"]
