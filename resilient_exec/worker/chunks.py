"""Runs the calls of a chunk, one after the other, and tells what comes of each.

**Each call is begun by itself**: the register says its serial and its time before its arguments are opened and it runs;
so blame and deadlines are those of single attempts.  Before each it is looked whether the parent has taken it back.

**A plain result is staged** in memory that the parent shares, at once: it is there however the process ends, and the
parent may look at it while the next call takes long.  What is staged is sent every few milliseconds, and at the end.
Anything else (an exception, a large result, one that leaves children behind) is sent by itself, as that of an attempt.

**The process is looked after** behind each call that took longer than a millisecond, and behind quicker ones as often
as that: what one of a thousand quick calls leaves behind is found a millisecond later.
"""

from __future__ import annotations

import pickle
import signal
import time
from typing import TYPE_CHECKING, Any

from resilient_exec.wire import items, payload
from resilient_exec.wire.channel import CALL, CHUNK, END, ITEMS, Kind
from resilient_exec.wire.items import Sealed
from resilient_exec.wire.register import BEGUN, BEGUN_AT, NEXT, REGISTER_SIZE, RESULTS_FROM, STAGED, STOP
from resilient_exec.worker import context, outcomes, upkeep
from resilient_exec.worker.main import raise_soft_timeout_late, worker
from resilient_exec.worker.seat import SOFT_SIGNAL
from resilient_exec.worker.streams import flush

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["run"]

_FLUSH = 0.004  # s between two times at which results are sent
_monotonic = time.monotonic
_state = upkeep.state


def run(serial: int, body: Any) -> None:
    """Run the chunk of that frame, whose first call has that serial."""
    _Chunk(serial, body).run()


def _nothing() -> None:
    """Stands where there is no function."""


class _Chunk:
    """The calls of one frame."""

    def __init__(self, serial: int, body: Any) -> None:
        about_size, number, attempt, soft, hard, self._memory_limit = CALL.unpack_from(body)
        size, position = CHUNK.unpack_from(body, CALL.size)
        start = CALL.size + CHUNK.size
        about = bytes(body[start : start + about_size])
        start += about_size
        self._head = body[start : start + size]
        self._places, self._calls = items.load_calls(body[start + size :])
        self._calls.reverse()
        self._first, self._soft = serial, soft
        self._given = [serial, number, attempt, (soft, hard), about, 0.0, serial, position]
        self._register = worker.register
        self._room = len(self._register.page) - REGISTER_SIZE  # bytes, for what is staged
        self._from, self._count, self._filled = serial, 0, 0  # what is staged
        self._since = 0.0  # when the first of that began
        self._ended = 0.0  # when the last one ended
        self._sent_at = 0.0  # when results were last sent
        self._fn: Callable[..., Any] = _nothing
        self._problem: BaseException | None = None  # why there is no function
        self._shared: tuple[Any, ...] = ()
        self._is_over = False  # no other call of it is to run here

    def run(self) -> None:
        """Run them all, unless they are taken back, or the process is not fit for more."""
        if not upkeep.look_quickly():
            upkeep.put_in_order()
        if self._soft and SOFT_SIGNAL is not None:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (SOFT_SIGNAL,))
        if self._is_crowded():
            return
        now = self._ended = self._sent_at = self._since = _monotonic()
        if not self._register.begin(self._first, now):
            self._refuse(self._first)
            return
        context.enter_chunk(self._given)
        self._open_function()
        try:
            self._run_calls(now)
        finally:
            if _state.forked:
                upkeep.end_forked(None)  # the answers are the parent's to give
        if not self._is_over:
            self._look_after(self._given[0], slow=False)
        self._send()
        context.leave()

    def _open_function(self) -> None:
        try:
            self._fn, self._shared, _ = outcomes.opened(payload.unpack_call, self._head)
        except BaseException as error:
            self._problem = error
        del self._head

    # One loop, with what it needs in local names: for most calls it is all that they cost here.
    def _run_calls(self, now: float) -> None:  # noqa: C901, PLR0912
        numbers, times, barrier = self._register.numbers, self._register.times, self._register.barrier
        given, calls, first = self._given, self._calls, self._first
        call = self._call_softly if self._soft else self._fn
        captured, notes = worker.streams.is_captured, self._register.notes
        look_at, serial = now + upkeep.QUICK, first - 1
        stage, take, no_child = items.stage_plain, self._stage, upkeep.NO_CHILD
        opens = self._problem is not None or bool(self._places)
        while calls:
            args: Any = calls.pop()
            serial += 1
            if serial != first:
                numbers[NEXT] = serial
                with barrier:  # the processor may not look before others see that
                    pass
                if first <= numbers[STOP] <= serial:
                    self._refuse(serial)
                    return
                notes.clear()
                times[BEGUN_AT] = now
                numbers[BEGUN] = serial
            if captured:
                worker.streams.begin()
            given[0], given[5] = serial, now
            try:
                if opens or type(args) is Sealed:
                    args = self._opened(args)
                value = call(*args)
                if _state.forked:
                    return
                data = stage(value)
                if data is None:
                    data = self._packed(value)
            except BaseException as error:
                self._tell(serial, now, *outcomes.failed(error))
            else:
                ended = _monotonic()
                is_plain = type(data) is bytes and ended - now <= no_child and not _state.children
                if is_plain or not self._sent_alone(serial, now, ended, value, data):
                    take(serial, now, ended, data)
            args = value = data = None  # nobody keeps them while the next one runs
            if context.was_asked():
                context.leave_call()
            began, now = now, _monotonic()
            if now >= look_at or self._is_over:
                self._look_after(serial, slow=now - began > upkeep.QUICK)
                if self._is_over:
                    if calls:
                        self._refuse(serial + 1)
                    return
                now = _monotonic()
                look_at = now + upkeep.QUICK

    # -- one call ------------------------------------------------------------------------------------------------------

    def _opened(self, args: Any) -> tuple[Any, ...]:
        if self._problem is not None:
            raise self._problem.with_traceback(None)
        own = outcomes.opened(payload.unpack_arguments, args.data) if type(args) is Sealed else args
        return items.with_columns(own, self._places, self._shared) if self._places else own

    def _call_softly(self, *args: Any) -> Any:
        """Call it, and let ``SoftTimeout`` be raised meanwhile."""
        serial = self._given[0]
        try:
            worker.running = serial
            if self._register.soft() == serial:  # it may be over already
                raise_soft_timeout_late(context.ran())
            return self._fn(*args)
        finally:
            worker.running = 0

    @staticmethod
    def _packed(value: Any) -> Any:
        """A result that is not plain: as it is staged, or, if it is long, in a list as it is sent."""
        data = payload.pack_value(value, fresh_locks=worker.fresh_locks, script=worker.script)
        return items.stage_sealed(data) if type(data) is bytes and len(data) <= items.LARGE else [data]

    def _sent_alone(self, serial: int, began: float, ended: float, value: Any, data: Any) -> bool:
        """Send it by itself if it is long, or has left children; whether that was so."""
        notes: dict[str, Any] = {}
        if ended - began > upkeep.NO_CHILD or _state.children:
            upkeep.note_children(notes, raised=False)
        if type(data) is bytes and not notes:
            return False
        flush()
        if type(data) is bytes:
            data = payload.pack_value(value, fresh_locks=worker.fresh_locks, script=worker.script)
        else:
            (data,) = data
        self._tell(serial, began, Kind.RETURNED, notes, data)
        return True

    def _tell(self, serial: int, began: float, kind: Kind, notes: dict[str, Any], answer: Any) -> None:
        """Tell of one call by itself, as of an attempt."""
        ended = self._ended = _monotonic()
        outcomes.settle_process(self._fn)
        notes.update(outcomes.left())
        if kind is not Kind.RETURNED and (ended - began > upkeep.NO_CHILD or _state.children):
            upkeep.note_children(notes, raised=True)
        self._send()
        packed = pickle.dumps(notes, 5) if notes else b""
        worker.channel.send(kind, serial, END.pack(began, ended, len(packed)), packed, answer)
        self._register.end(serial)
        self._is_over = bool(worker.unfit)
        if notes.get("children"):
            worker.channel.await_kind(Kind.GO_ON)
            _state.children = upkeep.children()

    # -- results -------------------------------------------------------------------------------------------------------

    def _stage(self, serial: int, began: float, ended: float, data: bytes) -> None:
        register, start = self._register, self._filled
        filled = start + len(data)
        if filled > self._room:
            self._send()
            if len(data) > self._room:  # there is none
                self._send_items(serial, 1, began, ended, data)
                return
            start, filled = 0, len(data)
        if not self._count:
            self._from, self._since = serial, began
            register.numbers[RESULTS_FROM] = serial
        register.page[REGISTER_SIZE + start : REGISTER_SIZE + filled] = data
        with register.barrier:  # others may not see the number before that
            pass
        self._count += 1
        self._filled, self._ended = filled, ended
        register.numbers[STAGED] = self._count << 32 | filled

    def _send(self, amiss: str = "") -> None:
        """Send what is staged."""
        if self._count or amiss:
            data = self._register.page[REGISTER_SIZE : REGISTER_SIZE + self._filled]
            self._send_items(self._from, self._count, self._since, self._ended, data, amiss)
        self._register.numbers[STAGED] = 0
        self._count = self._filled = 0
        self._sent_at = _monotonic()

    @staticmethod
    def _send_items(  # noqa: PLR0917
        serial: int, count: int, began: float, ended: float, data: bytes, amiss: str = ""
    ) -> None:
        words = amiss.encode(errors="replace")
        worker.channel.send(Kind.ITEMS, serial, ITEMS.pack(began, ended, count, len(words)), words, data)

    # -- the process ---------------------------------------------------------------------------------------------------

    def _is_crowded(self, serial: int = 0) -> bool:
        """Whether so much is left of earlier calls that none is to be run here; then it is told, with who is next."""
        limit = self._memory_limit
        left = upkeep.weigh(limit, _monotonic()) if limit >= 0 or _state.backstop[0] else 0
        if left:
            self._send()
            worker.channel.send(Kind.CROWDED, serial or self._first, str(left).encode())
        return bool(left)

    def _refuse(self, serial: int) -> None:
        """That call and the next are not run here."""
        self._is_over = True
        self._send()
        worker.channel.send(Kind.SKIPPED, serial)

    def _look_after(self, serial: int, *, slow: bool) -> None:
        """Put the process in order behind that call, send what is due; it is over if the process is not fit for more.

        ``slow``: the call took so long that it may have left anything.
        """
        flush()
        if not self._is_over:
            outcomes.settle_process(self._fn)
            self._is_over = bool(worker.unfit)
            if self._is_over:
                self._send(worker.unfit)
        if slow or not upkeep.look_quickly():
            upkeep.put_in_order()
        if _monotonic() - self._sent_at > _FLUSH:
            self._send()
            context.after_attempt()
        if self._memory_limit >= 0 and self._calls and not self._is_over and self._is_crowded(serial + 1):
            self._calls.clear()
