"""Wakes a thread out of its ``poll``, from any other thread."""

from __future__ import annotations

import contextlib
import socket

__all__ = ["Bell"]


class Bell:
    """A pair of sockets: what rings it makes the other end readable."""

    def __init__(self) -> None:
        self._near, self._far = socket.socketpair()
        self._near.setblocking(False)
        self._far.setblocking(False)

    def fileno(self) -> int:
        """The descriptor to poll: readable while it rings."""
        return self._near.fileno()

    def ring(self) -> None:
        """Wake the poller; never waits."""
        with contextlib.suppress(OSError):  # full: it is ringing; closed: nobody is left to wake
            self._far.send(b"\0")

    def hush(self) -> None:
        """Stop ringing."""
        with contextlib.suppress(OSError):
            self._near.recv(4096)

    def close(self) -> None:
        """Give the descriptors back."""
        self._near.close()
        self._far.close()
