"""Waiting for a future in an asyncio event loop; whose waiting is cancelled, its task is killed.

``asyncio.wrap_future`` is not used: a ``StopIteration`` of the task's would leave its future pending for ever (Python
3.11), it turns the task's own exceptions into others of asyncio's, and it leaves a running task alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from resilient_exec.supervisor.future import ResilientFuture

__all__ = ["outcome_of"]

T = TypeVar("T")


async def outcome_of(future: ResilientFuture[T]) -> T:
    """The future's value, or what it raises.  Cancelled, it kills the task, and ends when that is dead."""
    try:
        try:
            await _done(future)
        except asyncio.CancelledError:
            _end(future)
            await _done(future)  # bounded as every kill is; a further cancellation ends it
            raise
        finally:
            _end(future)  # GeneratorExit: the loop was closed, or the coroutine dropped
        return future.result()
    finally:
        del future  # breaks the cycle of the traceback with this frame


def _end(future: ResilientFuture[T]) -> None:
    if not future.cancel():
        future.kill()


async def _done(future: ResilientFuture[T]) -> None:
    """Wait until it is done; its outcome is not looked at."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def tell(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(done.set)

    future.add_done_callback(tell)
    await done.wait()
