"""Between the words of the core and the bytes of a channel: what a worker is sent, and what its answer means."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from resilient_exec.model.evidence import Evidence
from resilient_exec.model.packed import Packed
from resilient_exec.model.task import NotSent, Raised
from resilient_exec.process.tree import identify
from resilient_exec.wire import payload
from resilient_exec.wire.channel import CALL, CHUNK, Kind
from resilient_exec.wire.items import pack_calls

if TYPE_CHECKING:
    from collections.abc import Iterable

    from resilient_exec.model.task import Outcome, Task
    from resilient_exec.process.tree import Identity
    from resilient_exec.wire.buffers import Pieces

__all__ = ["call_parts", "chunk_parts", "failure_of", "identities"]


def call_parts(task: Task, attempt: int) -> tuple[tuple[Any, ...], bytes, Any]:
    """What is sent of an attempt: the numbers of ``CALL``, what else is said of it, the pickled call."""
    parcel = task.cargo
    about = b"" if parcel.packed_key is None and not task.name and attempt == 1 else _about(task)
    return _numbers(task, attempt, len(about)), about, parcel.call_of(task)


def chunk_parts(task: Task, attempt: int) -> tuple[bytes | Pieces, ...]:
    """The body of the frame that sends calls of a chunk, or one of them by itself, in parts."""
    about, parcel = _about(task), task.cargo
    position = task.number - task.group.first
    calls = pack_calls(parcel.places, parcel.calls[position : position + (task.calls or 1)])
    what = CHUNK.pack(len(parcel.call), position, task.calls or 1, task.group.bundled)
    return CALL.pack(*_numbers(task, attempt, len(about))) + what, about, parcel.call, calls


def _numbers(task: Task, attempt: int, about: int) -> tuple[Any, ...]:
    number, limit = task.number, task.memory_limit
    return (
        about,
        number if type(number) is int else 0,
        attempt,
        task.soft_timeout or 0.0,
        task.timeout or 0.0,
        -1 if limit is None else limit,
    )


def _about(task: Task) -> bytes:
    """What is said beside numbers: the task's key, where that is not its number, and the workers before."""
    parcel, numbered = task.cargo, task.group is not None and task.group.numbered
    packed, pids = parcel.packed_key, parcel.pids_before(task)
    if packed is None and not task.name and not pids:
        return b""
    if packed is not None and numbered:
        packed = pickle.dumps(task.key)
    return pickle.dumps((packed, task.name or None, pids, numbered))


def failure_of(
    kind: Kind,
    data: memoryview | bytes,
    notes: dict[str, Any],
    tails: tuple[str, str],
    measured: tuple[tuple[tuple[float, int], ...], int],
) -> Outcome:
    """The outcome of an attempt that did not return.

    Args:
        kind: of its frame.
        data: the packed exception, or a text.
        notes: what else the worker says of it.
        tails: the last lines that it printed.
        measured: the samples of what it held, and the most (bytes).
    """
    samples, peak = measured
    trace = payload.trace_of(data) if kind is Kind.RAISED else ""
    evidence = Evidence("", *tails, samples, max(peak, notes["held"]), trace, notes.get("remark", ""), notes["note"])
    if kind is not Kind.RAISED:
        return NotSent(bytes(data).decode(errors="replace"), None, evidence)
    packed = Packed(data, payload.unpack_exception)
    return Raised(packed, evidence, notes["name"], notes["ordinary"], notes["soft"])


def identities(pids: Iterable[int]) -> list[Identity]:
    """The processes that have these pids now."""
    return [who for who in map(identify, pids) if who is not None]
