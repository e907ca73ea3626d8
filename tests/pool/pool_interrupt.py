"""A Ctrl-C at exactly the n-th place where one can strike."""

from __future__ import annotations

import sys


class Interrupt:
    """Raises ``KeyboardInterrupt`` at the n-th place where this thread may run a signal's handler.

    Those are the begins of functions and the moments behind calls of C functions (and ends of loops, not seen here).
    It is set with ``sys.setprofile``.
    """

    def __init__(self, place):
        self.left = place

    def __call__(self, frame, event, argument):
        if event in ("call", "c_return"):
            self.left -= 1
            if self.left < 0:
                sys.setprofile(None)
                raise KeyboardInterrupt
