"""In the worker: calls that negmas limits in time, made by a thread that waits for them, without an executor between.

A mechanism calls its negotiators in another thread (``TimeoutCaller.run``), so that it can go on without one that takes
too long: some 3,500 times in a world of three seconds.  negmas has a ``ThreadPoolExecutor`` for that, in which each
call needs a future, a queue, a semaphore and a condition.  Here a thread makes one call at a time, and two locks hand
it over and back, in less than half of the CPU time.  What negotiators and mechanisms see is the same:

* A call runs in another thread than its caller's, one that earlier calls have used; one that is made inside another
  call has a thread of its own.
* What it returns or raises (any ``BaseException``) is its caller's.
* After ``timeout`` seconds the caller gets the ``TimeoutError`` and goes on.  The call is asked to end as negmas asks
  for it (``_async_raise``, where this version has it), and its thread is used no more.  Unlike negmas', which has a few
  threads in all, those that hang do not keep later calls from being made.
* ``force_single_thread`` makes all calls directly.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["handed_over"]


class _Caller:
    """A thread that makes one call at a time.

    Attributes:
        call: the next one.
        value, error: what the last one has returned or raised.
        hand_over: released when there is a call.
        is_over: released when it has ended.
    """

    def __init__(self) -> None:
        self.call: Callable[[], Any] | None = None
        self.value: Any = None
        self.error: BaseException | None = None
        self._given_up = False
        self.hand_over, self.is_over = threading.Lock(), threading.Lock()
        self.hand_over.acquire()
        self.is_over.acquire()
        self.thread = threading.Thread(target=self._run, name="resilient-exec-limited-call", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        with contextlib.suppress(BaseException):  # what negmas raises here, late, to end a call that was given up
            wait, tell = self.hand_over.acquire, self.is_over.release
            while True:
                wait()
                call, self.call = self.call, None
                if call is None or self.is_given_up():
                    return
                try:
                    self.value = call()
                except BaseException as error:
                    self.error = error
                del call  # what it holds is not kept until the next one
                if self.is_given_up():
                    return
                tell()

    def is_given_up(self) -> bool:
        """Whether nobody waits for its call, nor gives it another."""
        return self._given_up

    def end(self) -> None:
        """Have the thread end: now, behind the call that it makes, or without one that it has not begun."""
        self._given_up = True
        with contextlib.suppress(RuntimeError):  # it has not taken up its call yet
            self.hand_over.release()


class _Calls:
    """Stands in for ``TimeoutCaller.run``.

    Args:
        module: ``negmas.helpers.timeout``.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        self._interrupt = getattr(module.TimeoutCaller, "_async_raise", None)
        self._interruption = getattr(module, "_NegmasTimeoutInterrupt", None)
        self._idle: list[_Caller] = []

    def run(self, to_run: Callable[[], Any], timeout: float | None) -> Any:
        """Call it in another thread.

        Args:
            to_run: the call.
            timeout: seconds after which its result is not waited for any longer; ``None``: it always is.

        Raises:
            TimeoutError: it has not ended by then.
            BaseException: what it raises.
        """
        if self._module.is_single_thread():
            return to_run()
        try:
            caller = self._idle.pop()
        except IndexError:
            caller = _Caller()
        caller.call = to_run
        caller.hand_over.release()
        try:
            is_over = caller.is_over.acquire(*_how_to_wait(timeout))
        except BaseException:  # a signal's handler has raised
            caller.end()
            raise
        if not is_over:
            self._give_up(caller)
            raise self._module.TimeoutError
        error, value = caller.error, caller.value
        caller.error = caller.value = None
        self._idle.append(caller)
        if error is None:
            return value
        try:
            raise error
        finally:
            del error  # whose traceback holds this frame

    def _give_up(self, caller: _Caller) -> None:
        caller.end()
        if self._interrupt is None or self._interruption is None or caller.is_over.acquire(blocking=False):
            return
        self._interrupt(caller.thread.ident, self._interruption)

    def close(self) -> None:
        """End the threads that wait for a call."""
        while self._idle:
            self._idle.pop().end()


def _how_to_wait(timeout: float | None) -> tuple[bool, float]:
    """Arguments for ``Lock.acquire``."""
    if timeout is None:
        return True, -1
    return (True, min(timeout, threading.TIMEOUT_MAX)) if timeout > 0 else (False, -1)


@contextlib.contextmanager
def handed_over() -> Iterator[None]:
    """Have ``TimeoutCaller.run`` hand its calls over in this way until the block ends, where this negmas has it."""
    try:
        module: Any = importlib.import_module("negmas.helpers.timeout")
        kind, single = module.TimeoutCaller, module.is_single_thread
        original = vars(kind)["run"]
    except (ImportError, AttributeError, KeyError):
        yield
        return
    if not callable(single) or not isinstance(original, classmethod):
        yield
        return
    calls = _Calls(module)
    kind.run = staticmethod(calls.run)
    try:
        yield
    finally:
        kind.run = original
        calls.close()
