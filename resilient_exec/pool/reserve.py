"""Descriptors that are held until they are needed: for what a pool makes with its first task."""

from __future__ import annotations

import contextlib
import os

__all__ = ["Reserve"]


class Reserve:
    """Holds some descriptors open, so that so many are to be had when these are let go of.

    Raises:
        OSError: there are not so many.
    """

    def __init__(self, count: int) -> None:
        self._held: list[int] = []
        for _ in range(count):
            self._held.append(os.open(os.devnull, os.O_RDONLY))

    def release(self) -> None:
        """Let go of them."""
        while self._held:
            with contextlib.suppress(OSError, IndexError):  # another thread is quicker
                os.close(self._held.pop())

    def __del__(self) -> None:
        self.release()
