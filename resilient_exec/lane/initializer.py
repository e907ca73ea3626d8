"""Checks, when a pool is made, that its initializer can be sent to a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resilient_exec.model.errors import NotSendable

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["check_initializer"]


class _NoProcess:
    """Stands for a process that is being started: what travels only then (multiprocessing's locks) may be pickled."""

    @staticmethod
    def DupFd(fd: int) -> int:  # noqa: N802  multiprocessing's name
        return fd

    @staticmethod
    def duplicate_for_child(fd: int) -> int:
        return fd


def check_initializer(initializer: Callable[..., object], initargs: tuple[Any, ...]) -> None:
    """Pickle as a start would, and throw the result away: so that it fails now, and not in each of three starts.

    Raises:
        NotSendable: it does not pickle (multiprocessing's locks of the fork context never do).
    """
    from multiprocessing.context import set_spawning_popen

    from loky.backend.reduction import dumps, get_loky_pickler

    from resilient_exec.wire.payload import explain

    set_spawning_popen(_NoProcess())  # type: ignore[arg-type]  # for this thread
    try:
        for name, part in (("initializer", initializer), *((f"initargs[{i}]", arg) for i, arg in enumerate(initargs))):
            try:
                dumps(part)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # SystemExit in a __reduce__ is no reason to exit
                why = explain(part, name, error, get_loky_pickler)
                raise NotSendable(
                    f"{name}, of type {type(part).__qualname__}, cannot be sent to a worker: {why}"
                ) from error
    finally:
        set_spawning_popen(None)
