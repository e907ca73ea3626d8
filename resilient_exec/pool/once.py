"""Makes something once, when it is first asked for, by a thread of its own."""

from __future__ import annotations

import threading

from resilient_exec.supervisor.latch import Latch, mark_as_supervising

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["Once"]


class Once:
    """A value that is made once, whoever asks for it: several threads, or a signal's handler within a call of this.

    By a thread of its own, since a handler could not wait for the thread that it has interrupted, nor import what that
    is just importing; and since a Ctrl-C then interrupts the wait only.
    """

    def __init__(self) -> None:
        self._taken = threading.Lock()
        self._done = Latch()
        self._value: Any = None
        self._error: BaseException | None = None
        self._maker = 0  # the thread that makes it now

    @property
    def has_begun(self) -> bool:
        """Whether somebody has asked for it."""
        return self._taken.locked()

    @property
    def has_failed(self) -> bool:
        """Whether making it has raised, as each call of ``get`` does then."""
        return self._error is not None

    def get(self, make: Callable[[], Any]) -> Any:
        """The value, from ``make()`` where this is the first call.

        Raises:
            BaseException: what ``make()`` raised.
            RuntimeError: this is called within ``make()``, by a finalizer that happens to run there.
        """
        if not self._done.is_set():
            if self._maker == threading.get_ident():
                raise RuntimeError("a finalizer asks for what is just being made by the thread that it runs in")
            self._start([make])
            self._done.wait()
        if self._error is not None:
            raise self._error
        return self._value

    def _start(self, make: list[Callable[[], Any]]) -> None:
        thread = threading.Thread(target=self._run, args=(make,), name="resilient-maker", daemon=True)
        mark_as_supervising(thread)
        try:
            thread.start()
        except RuntimeError:  # the system has no thread left
            self._run(make)

    def _run(self, make: list[Callable[[], Any]]) -> None:
        """``make`` is a list, which is empty behind it: nobody holds on to what that knows."""
        if not self._taken.acquire(blocking=False):
            return
        self._maker = threading.get_ident()
        try:
            self._value = make.pop()()
        except BaseException as error:
            self._error = error
        self._maker = 0
        self._done.set()
