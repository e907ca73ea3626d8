"""Checks, when a pool is made, that its initializer can be sent to a worker."""

from __future__ import annotations

import io
import sys
import warnings
from typing import TYPE_CHECKING, Any

from resilient_exec.model.errors import NotSendable
from resilient_exec.wire.script import globals_stored

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_exec.wire.script import Known

__all__ = ["check_initializer"]


class _NoProcess:
    """Stands for a process that is being started: what travels only then (multiprocessing's locks) may be pickled."""

    @staticmethod
    def DupFd(fd: int) -> int:  # noqa: N802  multiprocessing's name
        return fd

    @staticmethod
    def duplicate_for_child(fd: int) -> int:
        return fd


def check_initializer(
    initializer: Callable[..., object], initargs: tuple[Any, ...], script: Known | None = None
) -> None:
    """Pickle as a start would, and throw the result away: so that it fails now, and not in each of three starts.

    Warns of an initializer that sets globals which no task will see.

    Raises:
        NotSendable: it does not pickle (multiprocessing's locks of the fork context never do).
    """
    from multiprocessing.context import set_spawning_popen

    from resilient_exec.wire.explanation import explain
    from resilient_exec.wire.pickling import start_pickler

    set_spawning_popen(_NoProcess())  # type: ignore[arg-type]  # for this thread
    try:
        for name, part in (("initializer", initializer), *((f"initargs[{i}]", arg) for i, arg in enumerate(initargs))):
            try:
                start_pickler(script)(io.BytesIO()).dump(part)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # SystemExit in a __reduce__ is no reason to exit
                why = explain(part, name, error, lambda: start_pickler(script))
                raise NotSendable(
                    f"{name}, of type {type(part).__qualname__}, cannot be sent to a worker: {why}"
                ) from error
    finally:
        set_spawning_popen(None)
    stored = [] if script is not None and script.has(initializer) else globals_stored(initializer)
    if stored:
        warnings.warn(
            f"the initializer {initializer.__qualname__!r} sets {', '.join(map(repr, stored))}, which tasks will not "
            'see: it is sent to the workers by value. Guard the script with `if __name__ == "__main__":`, so that they '
            "import it (main=), or put the initializer and the tasks into a module",
            RuntimeWarning,
            stacklevel=_levels_to_caller(),
        )


def _levels_to_caller() -> int:
    """How far up from the calling function the first frame is that is none of ours."""
    frame, levels = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("resilient_exec."):
        frame, levels = frame.f_back, levels + 1
    return levels
