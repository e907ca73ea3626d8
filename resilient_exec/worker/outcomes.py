"""What comes of a call in the worker, packed for the way back, with what the parent could not find out any more."""

from __future__ import annotations

import os
import sys

from resilient_exec.model.worker_errors import SoftTimeout
from resilient_exec.wire import payload
from resilient_exec.wire.channel import Kind
from resilient_exec.worker import upkeep
from resilient_exec.worker.main import worker
from resilient_exec.worker.streams import flush

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from resilient_exec.wire.buffers import Pieces

__all__ = ["failed", "left", "opened", "settle_process"]

_NO_THREAD = "can't start new thread"
_BACKSTOP_WORDS = (
    "behind memory_limit stands RLIMIT_DATA, at twice as much (and 1 GiB more at least), on what a process maps: it "
    "counts the stack of each thread in full (8 MiB as a rule), used or not; threading.stack_size() makes it less"
)
_TAIL = 16 << 10  # bytes of captured output that travel with an exception
_HERE = os.path.dirname(__file__) + os.sep


def failed(error: BaseException) -> tuple[Kind, dict[str, Any], bytes | Pieces]:
    """What is told of a call that did not return, or returned what cannot be sent."""
    if issubclass(type(error), payload.Unsendable):  # by the type: a __getattribute__ of the user's may raise
        return Kind.NOT_SENDABLE, _evidence(), str(error).encode(errors="replace")
    # SystemExit and KeyboardInterrupt, too, are the task's outcome and not this process's.
    if upkeep.state.forked:
        upkeep.end_forked(error)
    flush()
    _forget_our_frames(error)
    notes = _evidence()
    notes["name"], notes["ordinary"] = str(type(error).__qualname__), issubclass(type(error), Exception)
    notes["soft"] = _is_soft(error)
    notes["remark"] = _remark(error)
    packed = payload.pack_exception(error, fresh_locks=worker.fresh_locks, script=worker.script)
    return Kind.RAISED, notes, packed


def opened(load: Callable[[Any], Any], data: Any) -> Any:
    """What ``load`` makes of a pickled call, or of a part of one.

    Raises:
        Unsendable: it raised; the text says what.
    """
    try:
        return load(data)
    except Exception as error:
        text = f"the call cannot be unpickled in the worker: {payload.text_of(error)}"
        raise payload.Unsendable(text + _why_no_script(error)) from error


def settle_process(fn: Callable[..., Any]) -> None:
    """Behind a call of ``fn``: take a trace function away, and note whether the process is fit for others."""
    worker.running = 0
    worker.state.untrace()
    worker.unfit = worker.state.compare(fn)


def _remark(error: BaseException) -> str:
    """What may have been the reason, where the error is what the kernel's limit brings about."""
    refused = issubclass(type(error), MemoryError) or (type(error) is RuntimeError and _NO_THREAD in error.args)
    return _BACKSTOP_WORDS if refused and upkeep.state.backstop[0] else ""


def _is_soft(error: BaseException) -> bool:
    # By the types alone: a __getattribute__ of the user's may raise.
    if issubclass(type(error), BaseExceptionGroup):
        return any(map(_is_soft, vars(BaseExceptionGroup)["exceptions"].__get__(error)))
    return issubclass(type(error), SoftTimeout)


def _evidence() -> dict[str, Any]:
    """What the parent could not find out any more when the next attempt has begun."""
    out, err = worker.streams.tails(_TAIL)
    return {"note": worker.register.noted(), "stdout": out, "stderr": err, "held": upkeep.resident(), **left()}


def left() -> dict[str, Any]:
    """What the attempt has left in this process that fails others."""
    return {"unfit": worker.unfit} if worker.unfit else {}


def _why_no_script(error: Exception) -> str:
    """What to say about the script where a call did not find something: it may be the script's."""
    if not issubclass(type(error), AttributeError):
        return ""
    if worker.script is not None:
        return '; what is defined behind `if __name__ == "__main__":` is not there: define it above'
    loaded = sys.modules.get("resilient_exec.worker.script")
    return f"; {loaded.failed.words}" if loaded is not None and loaded.failed.words else ""


def _forget_our_frames(error: BaseException) -> None:
    """Let the traceback begin with the user's code."""
    # By the slot itself: a __getattribute__ of the user's may raise.
    trace = vars(BaseException)["__traceback__"].__get__(error)
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_HERE):
        trace = trace.tb_next
    if trace is not None:
        BaseException.with_traceback(error, trace)  # a frozen dataclass refuses setattr
