"""Runs one fault in one pool; `fault_matrix.py` starts it in the peer's own environment for each cell of its table.

    python _fault_run.py PEER "NAME OF THE FAULT" REPORT

Only the standard library and the peer are imported. The pool has two workers. Submitted are ten healthy tasks, the
faulty one, and ten healthy ones; when all have ended, one more; then the pool is shut down. Each step has a time limit.
The first step that fails or exceeds its limit is written to REPORT as JSON, and this process ends immediately. The
limit is kept by an alarm of the kernel and not by a thread, because some peers fork this process.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _fault_peers import PEERS, Settings

if TYPE_CHECKING:
    from collections.abc import Callable

BESIDE = 10  # healthy tasks before the faulty one, and as many after it
GRACE = 6.0  # s, in addition to its limit, for the faulty task to end
INNOCENT = 10.0  # s, for the healthy tasks to end after that
LATER = 15.0  # s, for the last task, and for all tasks after a signal to an idle worker
SHUTDOWN = 15.0  # s, for the shutdown
MOST = 10.0  # s: the largest limit of a task


class NotContainedError(Exception):
    """A step failed; `step` is its letter, and the message says how."""

    def __init__(self, step: str, text: str) -> None:
        super().__init__(text)
        self.step = step


class Run:
    """The steps in order, and the alarm that ends the process if one takes too long."""

    def __init__(self, table: Any, fault: Any, folder: Path, report: Callable[[str, str], Any]) -> None:
        self.table, self.fault, self.folder, self.report = table, fault, folder, report
        self.step, self.tasks = "", table.tasks
        self.executed = str(folder / "executed")
        self.pool: Any = None
        self.pid = os.getpid()
        signal.signal(signal.SIGALRM, self._too_late)

    def _too_late(self, *_: object) -> None:
        if os.getpid() == self.pid:  # not in a worker that a peer has forked
            self.report(self.step, "it takes too long")
        os._exit(0)

    def within(self, seconds: float, step: str) -> None:
        """Begin a step, and set its time limit in seconds; 0: no limit."""
        self.step = step
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def healthy(self, numbers: range, payload: bytes = b"") -> dict[int, Any]:
        """Submit healthy tasks; returns their handles by number."""
        return {n: self.pool.submit(self.tasks.healthy, self.executed, n, payload) for n in numbers}

    def check_healthy(self, handles: dict[int, Any], payload: int = 0) -> None:
        """Check that all healthy tasks return the right value."""
        for number, handle in handles.items():
            try:
                value = self.pool.outcome(handle)
            except BaseException as error:
                raise NotContainedError("h", f"a healthy task: {describe(error)}") from error
            if value != 2 * number + payload:
                raise NotContainedError("h", f"a healthy task gave {value!r:.50}")

    def check_executed(self, numbers: range) -> None:
        """Check that each healthy task has been executed exactly once."""
        lines = Path(self.executed).read_text().split()
        if sorted(map(int, lines)) != list(numbers):
            raise NotContainedError("h", "healthy tasks were executed more than once, or not at all")

    def everything(self) -> None:
        """Run all steps."""
        table, fault = self.table, self.fault
        limit = min(getattr(fault, "limit", table.LIMIT), MOST)
        initializer, initargs = fault.initializer_call(self.folder) if isinstance(fault, table.Fault) else (None, ())
        memory = getattr(fault, "memory_limit", None)
        self.within(limit + GRACE, "t")
        self.pool = PEERS[sys.argv[1]](Settings(limit, memory, initializer, initargs))
        if isinstance(fault, table.Hand):
            self._by_hand()
        elif fault in table.NO_START:
            self._never_starts()
        else:
            self._in_a_task(limit)
        self.within(SHUTDOWN, "s")
        self.pool.close()
        self.within(0, "")

    def _in_a_task(self, limit: float) -> None:
        before = self.healthy(range(BESIDE))
        faulty = self.pool.submit(*self.fault.call(self.folder))
        behind = self.healthy(range(BESIDE, 2 * BESIDE))
        self.within(limit + GRACE, "t")
        try:
            self._check_value(self.pool.outcome(faulty))
        except NotContainedError:
            raise
        except BaseException as error:
            self._check_error(error)
        self.within(INNOCENT, "h")
        self.check_healthy(before | behind)
        self.check_executed(range(2 * BESIDE))
        self._goes_on()

    def _check_value(self, value: Any) -> None:
        wanted = self.fault.value
        if "value" not in self.fault.ends or not (wanted(value) if callable(wanted) else value == wanted):
            raise NotContainedError("t", f"the faulty task gave {value!r:.50}")

    def _check_error(self, error: BaseException) -> None:
        """For a hang any error is right; for any other fault an error that is no timeout."""
        name = type(error).__name__
        timeout = isinstance(error, TimeoutError) or "Timeout" in name or "TimeLimit" in name
        if self.fault.ends == ("value",) or (timeout and "TaskTimeout" not in self.fault.ends):
            raise NotContainedError("t", f"the faulty task: {describe(error)}")

    def _goes_on(self) -> None:
        self.within(LATER, "l")
        try:
            value = self.pool.outcome(self.pool.submit(self.tasks.healthy, str(self.folder / "later"), 7))
        except BaseException as error:
            raise NotContainedError("l", f"a later task: {describe(error)}") from error
        if value != 14:
            raise NotContainedError("l", f"a later task gave {value!r:.50}")

    def _by_hand(self) -> None:
        first = self.healthy(range(BESIDE))
        victim = self.pool.submit(self.tasks.pid)
        self.check_healthy(first)
        pid = self.pool.outcome(victim)
        time.sleep(0.3)  # until the worker is idle
        os.kill(pid, self.fault.number)
        self.within(LATER, "h")
        behind = range(BESIDE, 2 * BESIDE)
        try:
            handles = self.healthy(behind, bytes(self.fault.payload))
        except BaseException as error:
            raise NotContainedError("h", f"a healthy task is refused: {describe(error)}") from error
        self.check_healthy(handles, self.fault.payload)
        self.check_executed(range(2 * BESIDE))
        self._goes_on()

    def _never_starts(self) -> None:
        """Check that every task fails, which is all that a pool can do whose workers never start."""
        self.within(LATER, "t")
        handles = [self.pool.submit(*self.fault.call(self.folder)) for _ in range(4)]
        if any(self._returns(handle) for handle in handles):
            raise NotContainedError("t", "a task ran although its worker's initializer had failed")

    def _returns(self, handle: Any) -> bool:
        try:
            self.pool.outcome(handle)
        except BaseException:
            return False
        return True


def describe(error: BaseException) -> str:
    """The type of an error and the begin of its message."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:120]}"


def block_stream(descriptor: int | None) -> None:
    """Replace that stream of this process by a pipe that is never read."""
    if descriptor is not None:
        read, write = os.pipe()
        os.dup2(write, descriptor)
        os.set_inheritable(read, False)  # it stays open in this process only


def main() -> None:
    """Run one fault."""
    table: Any = importlib.import_module("fault_table")
    (fault,) = (one for one in (*table.FAULTS, *table.NO_START, *table.HANDS) if one.name == sys.argv[2])
    begin = time.monotonic()
    file = os.open(sys.argv[3], os.O_WRONLY | os.O_CREAT, 0o600)

    def report(step: str, text: str) -> None:
        words = {"contained": not step, "step": step, "text": text, "seconds": time.monotonic() - begin}
        os.write(file, json.dumps(words).encode())

    block_stream(getattr(fault, "unread", None))
    run = Run(table, fault, Path(tempfile.mkdtemp(dir=".")), report)
    try:
        run.everything()
    except NotContainedError as error:
        report(error.step, str(error))
    except BaseException as error:
        report(run.step, describe(error))
    else:
        report("", "")
    with contextlib.suppress(BaseException):
        os._exit(0)  # the report is written; a plain exit may hang, and the caller kills all processes


if __name__ == "__main__":
    main()
