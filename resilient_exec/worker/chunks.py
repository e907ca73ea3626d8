"""Runs the calls of a chunk or a bundle, one after the other, and tells what comes of each.

**Each call is begun by itself**: the register says its serial and its time before its arguments are opened and it runs;
so blame and deadlines are those of single attempts.  Before each it is looked whether the parent has taken it back:
of a chunk all from one call on, of a bundle, whose calls are tasks with a future each, each by its mark.

**A plain result is staged** in memory that the parent shares, at once: it is there however the process ends, and the
parent may look at it while the next call takes long.  What is staged is sent every few milliseconds, and at the end.
Anything else (an exception, a large result, one that leaves children behind) is sent by itself, as that of an attempt.

**The process is looked after** behind each call that took longer than two milliseconds, and behind quicker ones every
four (of a bundle, and in spurts: every millisecond): what a quick call leaves behind is found so much later.

Longer than 400 lines: it is one loop, in two speeds, and what it shares with the next call and the next message.
"""

from __future__ import annotations

import pickle
import signal
import struct
import time

from resilient_exec.wire import items, payload
from resilient_exec.wire.channel import CALL, CHUNK, END, ITEMS, Kind
from resilient_exec.wire.items import Sealed
from resilient_exec.wire.register import (
    AHEAD,
    BEGUN,
    BEGUN_AT,
    HALT,
    MARKS,
    NEXT,
    REGISTER_SIZE,
    RESULTS_FROM,
    STAGED,
    STOP,
    mark_of,
)
from resilient_exec.worker import context, outcomes, upkeep
from resilient_exec.worker.main import raise_soft_timeout_late, worker
from resilient_exec.worker.seat import SOFT_SIGNAL
from resilient_exec.worker.streams import flush

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["refuse", "run"]

_FLUSH = 0.01  # s between two times at which results are sent; less than until the parent looks for itself
_LONG = 0.002  # s: behind a call that takes as long the process is looked at in any case
_LOOK_AFTER = 0.004  # s between two looks at the process, which take 0.08 ms behind calls that sleep
_VERY_QUICK = 0.00005  # s: calls that take less, on average, are run in spurts
_FEW = 8  # for fewer that is not worth it
_monotonic = time.monotonic
_state = upkeep.state


def run(serial: int, body: Any) -> None:
    """Run the chunk of that frame, whose first call has that serial."""
    _Chunk(serial, body).run()


def refuse(serial: int, body: Any) -> None:
    """Run none of the calls of that frame: the process is not fit for more."""
    _, _, count, bundled = CHUNK.unpack_from(body, CALL.size)
    _say_skipped(serial, count if bundled else 1)


def _say_skipped(serial: int, count: int) -> None:
    for one in range(serial, serial + count):
        worker.channel.send(Kind.SKIPPED, one)


def _nothing() -> None:
    """Stands where there is no function."""


def _halt() -> None:
    """No other call is to begin before it is looked what this one has asked for."""
    worker.register.numbers[HALT] = 1


class _Chunk:
    """The calls of one frame."""

    def __init__(self, serial: int, body: Any) -> None:
        about_size, number, attempt, soft, hard, self._memory_limit = CALL.unpack_from(body)
        size, position, _, self._bundled = CHUNK.unpack_from(body, CALL.size)
        start = CALL.size + CHUNK.size
        about = bytes(body[start : start + about_size])
        start += about_size
        self._head = body[start : start + size]
        self._places, self._calls = items.load_calls(body[start + size :])
        self._calls.reverse()
        self._first, self._soft, self._hard = serial, soft, hard
        self._given = [serial, number, attempt, (soft, hard), about, 0.0, serial, position, _halt]
        self._register = worker.register
        self._room = self._register.room  # bytes, for what is staged
        self._from, self._filled = serial, 0  # what is staged: its first serial, and its bytes
        self._values: list[Any] = []  # the same, as it is sent
        self._begins: list[float] = []  # of a bundle: when each of these calls began
        self._is_unchanging = True  # nobody can have changed one of these
        self._may_spurt = not (soft or self._places or worker.streams.is_captured) and self._room > 0
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
        numbers = self._register.numbers
        numbers[STAGED], numbers[RESULTS_FROM] = 0, self._first
        now = self._ended = self._sent_at = self._since = _monotonic()
        if not self._begin_first(now):
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

    def _begin_first(self, now: float) -> bool:
        """Whether there is a call that has begun; it is the first one that has not been taken back."""
        given = self._given
        while not self._register.begin(given[0], now):
            if not self._bundled:
                self._refuse(given[0], len(self._calls))
                return False
            self._skip(given[0])
            given[0] += 1
            self._calls.pop()
            if not self._calls:
                return False
        return True

    def _open_function(self) -> None:
        try:
            self._fn, self._shared, _ = outcomes.opened(payload.unpack_call, self._head)
        except BaseException as error:
            self._problem = error
        del self._head

    # One loop, with what it needs in local names: for many calls it is all that they cost here.
    def _run_calls(self, now: float) -> None:  # noqa: C901, PLR0912, PLR0915
        numbers, times, barrier = self._register.numbers, self._register.times, self._register.barrier
        given, calls, first, page, bundled = self._given, self._calls, self._first, self._register.page, self._bundled
        begun = given[0]
        call = self._call_softly if self._soft else self._fn
        captured, notes = worker.streams.is_captured, self._register.notes
        looked_at, serial, count = now, begun - 1, 0
        pause = 0.0 if bundled else _LOOK_AFTER  # the tasks of a bundle were quick so far: the first one may be enough
        opens = self._problem is not None or bool(self._places)
        while calls:
            args: Any = calls.pop()
            serial += 1
            if serial != begun:
                numbers[NEXT] = serial
                with barrier:  # the processor may not look before others see that
                    pass
                if bundled:
                    if page[MARKS + serial % AHEAD] == mark_of(serial):
                        self._skip(serial)
                        continue
                elif first <= numbers[STOP] <= serial:
                    self._refuse(serial, len(calls) + 1)
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
                value, data = self._packed(value)
            except BaseException as error:
                self._tell(serial, now, *outcomes.failed(error))
            else:
                self._keep(serial, now, value, data)
            args = value = data = None  # nobody keeps them while the next one runs
            if context.was_asked():
                context.leave_call()
                self._may_spurt = False
            began, now = now, _monotonic()
            count += 1
            if now - looked_at >= pause or now - began >= _LONG or self._is_over:
                self._look_after(serial, slow=now - began > upkeep.QUICK)
                if self._may_spurt and not self._is_over and now - looked_at < _VERY_QUICK * count:
                    serial = self._run_in_spurts(serial, (now - looked_at) / count)
                    if _state.forked:
                        return
                if self._is_over:
                    if calls:
                        self._refuse(serial + 1, len(calls))
                    return
                now, count, pause = _monotonic(), 0, upkeep.QUICK if bundled else _LOOK_AFTER
                looked_at = now

    # -- very quick calls ----------------------------------------------------------------------------------------------

    def _run_in_spurts(self, serial: int, mean: float) -> int:
        """Run calls that are very quick for as long as they are that, a millisecond at a time; the last one's serial.

        They are begun one by one, too, and their results are staged before the next begins.  But they are not timed one
        by one (unless there is a limit), and what nobody asks for is not looked at behind each.
        """
        while self._may_spurt and not self._is_over and mean < _VERY_QUICK:
            room = self._untouched(serial + 1, int(upkeep.QUICK / mean))
            some = self._calls[-room:] if room else []
            if len(some) < _FEW or any(type(args) is Sealed for args in some):
                break
            some.reverse()
            before, began = serial, _monotonic()
            serial = self._spurt(serial, began, some)
            if _state.forked:
                break
            mean = (_monotonic() - began) / max(1, serial - before)
            if context.was_asked():
                context.leave_call()
                self._may_spurt = False
            if _state.children or upkeep.children():
                self._may_spurt = False
            if not self._is_over:
                self._look_after(serial, slow=False)
            if len(some) > serial - before:
                break
        return serial

    def _untouched(self, serial: int, most: int) -> int:
        """How many calls from that one on, at most, are before the first that is known to have been taken back.

        What is taken back while a spurt runs halts it; but such a word is heard once.
        """
        if not self._bundled:
            stop: int = self._register.numbers[STOP]
            return min(most, stop - serial) if stop >= serial else most
        most = min(most, len(self._calls))
        start = MARKS + serial % AHEAD
        most = min(most, MARKS + AHEAD - start)  # up to where the marks are those of another round
        found = self._register.page.find(bytes((mark_of(serial),)), start, start + most)
        return most if found < 0 else found - start

    def _spurt(self, serial: int, now: float, some: list[Any]) -> int:
        register, page, fn, given = self._register, self._register.page, self._fn, self._given
        numbers, times, values, before = register.numbers, register.times, self._values, len(self._values)
        register.notes.clear()
        times[BEGUN_AT] = given[5] = now
        self._since = self._since if values else now
        page.seek(REGISTER_SIZE + self._filled)
        keep, dump, bundled = values.append, items.PlainPickler(page).dump, self._bundled
        timed, begins = bool(self._hard) or bundled, self._begins
        last, is_staged = serial, True
        problem: BaseException | None = None
        try:
            for args in some:
                numbers[NEXT] = serial + 1
                if numbers[HALT]:
                    numbers[HALT] = 0
                    break
                serial += 1
                if timed:
                    times[BEGUN_AT] = given[5] = now = _monotonic()
                    if bundled:
                        begins.append(now)
                given[0] = numbers[BEGUN] = serial
                is_staged = False
                value = fn(*args)
                if _state.forked:
                    return serial
                keep(value)
                dump(value)
                is_staged = True
        except BaseException as error:
            if _state.forked:
                upkeep.end_forked(error)
            problem = error
        args = value = None
        del self._calls[len(self._calls) - (serial - last) :]
        self._ended = _monotonic()
        self._filled = page.tell() - REGISTER_SIZE
        has_value = not is_staged and len(values) - before == serial - last
        if has_value:
            value = values.pop()
        del begins[len(values) :]  # that of one that has raised is told with that
        self._is_unchanging = self._is_unchanging and items.PLAIN.issuperset(map(type, values[before:]))
        numbers[STAGED] = len(values)
        if problem is not None:
            self._may_spurt = has_value and type(problem) is ValueError  # there was no room
            self._take_one(serial, times[BEGUN_AT], value, problem, has_value=has_value)
        return serial

    def _take_one(self, serial: int, began: float, value: Any, problem: BaseException, *, has_value: bool) -> None:
        """The call has raised, or its value could not be staged as it is."""
        data = None
        if has_value:
            try:
                value, data = self._packed(value)
            except BaseException as error:
                problem, has_value = error, False
        if has_value:
            self._keep(serial, began, value, data)
        else:
            self._tell(serial, began, *outcomes.failed(problem))

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
    def _packed(value: Any) -> tuple[Any, bytes | None]:
        """A result as it is sent with others, and as it is staged; a long one packed by itself, and ``None``."""
        data = items.stage_plain(value)
        if data is not None:
            return value, data
        packed = payload.pack_value(value, fresh_locks=worker.fresh_locks, script=worker.script)
        if type(packed) is not bytes or len(packed) > items.LARGE:
            return packed, None
        sealed = items.SealedResult(packed)
        return sealed, items.stage_sealed(sealed)

    def _keep(self, serial: int, began: float, value: Any, data: bytes | None) -> None:
        """Stage the result; or send it by itself, if it is long or its call has left children."""
        ended = _monotonic()
        notes: dict[str, Any] = {}
        if ended - began > upkeep.NO_CHILD or _state.children:
            upkeep.note_children(notes, raised=False)
        if data is not None and not notes:
            self._stage(began, ended, value, data)
            return
        flush()
        if type(value) is items.SealedResult:
            value = value.data
        elif data is not None:
            value = payload.pack_value(value)
        self._tell(serial, began, Kind.RETURNED, notes, value)

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
        self._from = self._register.numbers[RESULTS_FROM] = serial + 1
        self._is_over = bool(worker.unfit)
        if notes.get("children"):
            worker.channel.await_kind(Kind.GO_ON)
            _state.children = upkeep.children()

    # -- results -------------------------------------------------------------------------------------------------------

    def _stage(self, began: float, ended: float, value: Any, data: bytes) -> None:
        register, values, filled = self._register, self._values, self._filled + len(data)
        if filled > self._room:
            self._send()
            filled = len(data)
        if not values:
            self._since = began
        values.append(value)
        if self._bundled:
            self._begins.append(began)
        self._ended = ended
        if filled > self._room:  # there is none
            self._send()
            return
        end = REGISTER_SIZE + filled
        register.page[end - len(data) : end] = data
        with register.barrier:  # others may not see the number before that
            pass
        self._filled = filled
        register.numbers[STAGED] = len(values)

    def _send(self, amiss: str = "") -> None:
        """Send what is staged, with what is amiss in the process."""
        values, numbers, joined = self._values, self._register.numbers, self._is_unchanging
        if values or amiss:
            staged = self._register.page[REGISTER_SIZE : REGISTER_SIZE + self._filled]
            data = items.join_results(values) if joined else staged
            words, begins = amiss.encode(errors="replace"), self._begins
            head = ITEMS.pack(self._since, self._ended, len(values), len(words), joined, bool(begins))
            worker.channel.send(Kind.ITEMS, self._from, head, words, struct.pack(f"<{len(begins)}d", *begins), data)
            begins.clear()
        self._from += len(values)
        numbers[STAGED] = 0
        numbers[RESULTS_FROM] = self._from
        values.clear()
        self._filled, self._is_unchanging = 0, True
        self._sent_at = _monotonic()

    # -- the process ---------------------------------------------------------------------------------------------------

    def _is_crowded(self, serial: int = 0) -> bool:
        """Whether so much is left of earlier calls that none is to be run here; then it is told, with who is next."""
        limit = self._memory_limit
        left = upkeep.weigh(limit, _monotonic()) if limit >= 0 or _state.backstop[0] else 0
        if left:
            self._send()
            worker.channel.send(Kind.CROWDED, serial or self._first, str(left).encode())
        return bool(left)

    def _refuse(self, serial: int, left: int) -> None:
        """The calls that are left, from that one on, are not run here."""
        self._is_over = True
        self._send()
        _say_skipped(serial, left if self._bundled else 1)

    def _skip(self, serial: int) -> None:
        """That task of a bundle was taken back; the next may run."""
        self._send()
        worker.channel.send(Kind.SKIPPED, serial)
        self._from = self._register.numbers[RESULTS_FROM] = serial + 1

    def _look_after(self, serial: int, *, slow: bool) -> None:
        """Put the process in order behind that call, send what is due; it is over if the process is not fit for more.

        ``slow``: it took so long that it may have left anything; that is looked for as often as results are sent.
        """
        flush()
        if not self._is_over:
            outcomes.settle_process(self._fn)
            self._is_over = bool(worker.unfit)
            if self._is_over:
                self._send(worker.unfit)
        is_time = _monotonic() - self._sent_at > _FLUSH
        if (slow and is_time) or not upkeep.look_quickly():
            upkeep.put_in_order()
        if is_time:
            self._send()
            context.after_attempt()
        if self._memory_limit >= 0 and self._calls and not self._is_over and self._is_crowded(serial + 1):
            self._calls.clear()
