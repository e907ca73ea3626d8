"""Every fault that a task, its payload, an initializer or a worker can bring, one row each; standard library only.

A row says what is submitted and how it ends in a pool that contains it.  Whoever reads the table runs each row amid
healthy tasks: here against the pool, in ``benchmarks/fault_matrix.py`` against its peers as well.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import fault_tasks as tasks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LIMIT = 1.0  # s; a healthy task needs a thousandth of it
LONG = 60.0  # s: for what takes a while and is no hang
LINUX = sys.platform == "linux"
MIB = 1 << 20


@dataclass(frozen=True)
class File:
    """Stands for the path of a file of that name in the folder of the test."""

    name: str


@dataclass(frozen=True)
class Fault:
    """One row.

    Attributes:
        name: the fault, in words.
        fn, args: the task; each ``File`` among the arguments becomes a path.
        ends: names of the ways in which it may end: ``value``, or the class of an error.
        value: what it returns, or a predicate for it.
        exitcode: of the worker that died.
        says: what the error's text must mention.
        shows: the function that the stacks in the error must name.
        attempts: how many begin, with ``retry=1``.
        limit: seconds for an attempt, where there is a limit.
        initializer: of the pool, with its arguments.
        memory_limit: of the pool, in bytes.
        output: of the pool, where it is not the default.
        unread: the descriptor of the parent (1 or 2) that is a pipe which nobody reads.
        slow: too long for the short form.
        linux: what it does is to be had on Linux only.
    """

    name: str
    fn: Callable[..., Any]
    args: tuple[Any, ...] = ()
    ends: tuple[str, ...] = ("value",)
    value: Any = None
    exitcode: int | None = None
    says: str = ""
    shows: str = ""
    attempts: int = 1
    limit: float = LIMIT
    initializer: tuple[Any, ...] = ()
    memory_limit: int | None = None
    output: str = ""
    unread: int | None = None
    slow: bool = False
    linux: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def hangs(self) -> bool:
        """Whether only a limit or a kill ends it."""
        return self.ends == ("TaskTimeout",)

    def call(self, folder: Path) -> tuple[Any, ...]:
        """The function and its arguments, with their files in that folder."""
        return self.fn, *_placed(self.args, folder)

    def initializer_call(self, folder: Path) -> tuple[Callable[..., object] | None, tuple[Any, ...]]:
        """The initializer and its arguments, likewise."""
        if not self.initializer:
            return None, ()
        fn, *args = self.initializer
        return fn, _placed(tuple(args), folder)


def _placed(args: tuple[Any, ...], folder: Path) -> tuple[Any, ...]:
    return tuple(str(folder / arg.name) if isinstance(arg, File) else arg for arg in args)


def _raises(name: str, cls: type[BaseException], *args: Any, **more: Any) -> Fault:
    return Fault(name, tasks.raise_it, (cls, *args), (cls.__name__,), **more)


def _dies(name: str, exitcode: int, fn: Callable[..., Any], *args: Any, **more: Any) -> Fault:
    return Fault(name, fn, args, ("WorkerDied",), exitcode=exitcode, **more)


def _hangs(name: str, fn: Callable[..., Any], *args: Any, shows: str | None = None, **more: Any) -> Fault:
    shown = getattr(fn, "__name__", "") if shows is None else shows
    return Fault(name, fn, args, ("TaskTimeout",), shows=shown, **more)


def _unsendable(name: str, fn: Callable[..., Any], *args: Any, says: str, **more: Any) -> Fault:
    return Fault(name, fn, args, ("NotSendable",), says=says, **more)


def _returns(name: str, value: Any, fn: Callable[..., Any], *args: Any, **more: Any) -> Fault:
    return Fault(name, fn, args, value=value, **more)


class HasSize:
    """A predicate: so many bytes, all of them zero."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, value: Any) -> bool:
        return type(value) is bytes and len(value) == self.size and value.count(0) == self.size


RAISING = [
    _raises("a plain exception", ValueError, "planned", says="planned"),
    _raises("KeyboardInterrupt raised by the task", KeyboardInterrupt),
    _raises("MemoryError raised by the task", MemoryError),
    Fault("recursion without end in Python", tasks.recurse, ends=("RecursionError",)),
    Fault("sys.exit in the task", tasks.call_sys_exit, (3,), ("SystemExit",)),
    _raises("an exception that its own class cannot rebuild", tasks.NeedsTwoError, 7, "seven", says="7: seven"),
    _unsendable(
        "an exception that holds what cannot be pickled", tasks.raise_it, tasks.HoldsLockError, says="HoldsLockError"
    ),
    _raises("an exception whose unpickling raises", tasks.CallsError, importlib.import_module, "no_such_module",
            says="as it is unpickled"),
    _hangs(
        "an exception whose unpickling hangs",
        tasks.raise_it, tasks.CallsError, tasks.sleep_for_ever, shows="sleep_for_ever",
    ),
    _dies("an exception whose unpickling exits", 0, tasks.raise_it, tasks.CallsError, os._exit, 0),
]  # fmt: skip

# PIPE and XFSZ are ignored by Python, INT by a worker; USR1 asks a worker of this pool for its stacks.
DEADLY = [
    number
    for name in ("HUP", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR2", "SEGV", "ALRM", "TERM", "STKFLT",
                 "XCPU", "VTALRM", "PROF", "IO", "PWR", "SYS", "RTMIN", "RTMAX")
    if (number := getattr(signal, f"SIG{name}", None)) is not None
]  # fmt: skip

DYING = [
    _dies("os._exit(0)", 0, tasks.exit_at_once, 0),
    _dies("os._exit(1)", 1, tasks.exit_at_once, 1),
    *(_dies(f"killed by {number.name}", -number, tasks.signal_itself, number) for number in DEADLY),
    _dies("a null pointer is read", -signal.SIGSEGV, tasks.read_address_zero),
    _dies("recursion until the C stack bursts", -signal.SIGSEGV, tasks.burst_the_stack, linux=True),
]

RESULTS = [
    _unsendable("a result that cannot be pickled", tasks.give_pickling_call, tasks.raise_it, ValueError, "planned",
                says="planned"),
    _unsendable("a result that cannot be unpickled", tasks.give_call, importlib.import_module, "no_such_module",
                says="no_such_module"),
    _unsendable("a result whose unpickling raises", tasks.give_call, tasks.raise_it, ValueError, "planned",
                says="planned"),
    _hangs("a result whose unpickling hangs", tasks.give_call, tasks.sleep_for_ever, shows="sleep_for_ever"),
    _dies("a result whose unpickling exits", 0, tasks.give_call, os._exit, 0),
    _hangs("a result whose pickling hangs", tasks.give_pickling_call, tasks.sleep_for_ever, shows="sleep_for_ever"),
    _dies("a result whose pickling exits", 1, tasks.give_pickling_call, os._exit, 1),
    _returns("a result of 64 MiB", HasSize(64 * MIB), tasks.give_bytes, 64 * MIB, limit=LONG),
    _returns("a result of 500 MiB", HasSize(500 * MIB), tasks.give_bytes, 500 * MIB, limit=LONG, slow=True),
    *(
        Fault(f"a result of 64 MiB on its way {early} s before the limit strikes", tasks.give_bytes_at,
              (LIMIT - early, 64 * MIB), ("value", "TaskTimeout"), HasSize(64 * MIB))
        for early in (0.0, 0.01, 0.02)
    ),
]  # fmt: skip

ARGUMENTS = [
    _unsendable("an argument that cannot be pickled", tasks.take,
                tasks.CallsWhenPickled(tasks.raise_it, ValueError, "planned"), says="planned", attempts=0),
    _unsendable("an argument that cannot be unpickled", tasks.take,
                tasks.Calls(importlib.import_module, "no_such_module"), says="no_such_module"),
    _dies("an argument that kills the worker as it is unpickled", -signal.SIGKILL, tasks.take,
          tasks.Calls(tasks.signal_itself, signal.SIGKILL)),
    _dies("an argument whose unpickling exits", 0, tasks.take, tasks.Calls(os._exit, 0)),
    _hangs("an argument that hangs the worker as it is unpickled", tasks.take,
           tasks.Calls(tasks.sleep_for_ever), shows="sleep_for_ever"),
]  # fmt: skip

HANGING = [
    _hangs("a sleep without end", tasks.sleep_for_ever),
    _hangs("a loop in Python", tasks.spin),
    _hangs("a loop that swallows BaseException", tasks.swallow_everything),
    _hangs("a loop in C that holds the GIL", tasks.burn_in_c),
    _hangs("a deadlock on a lock", tasks.deadlock),
    _hangs("stopped by SIGSTOP during the task", tasks.stop_itself),
    _hangs("SIGTERM is ignored", tasks.ignore_sigterm),
    _hangs("all handlers of signals are replaced", tasks.replace_handlers, shows=""),
    _hangs("all signals are blocked", tasks.block_signals, shows=""),
    _hangs("hangs in a session of its own", tasks.leave_session_and_hang),
    _hangs("hangs with two generations of children", tasks.hang_with_children),
]

LEAVING = [
    _returns("a session of its own", "left", tasks.leave_session),
    _returns("descriptors 3 to 64 closed, and files of the task's there", 60, tasks.close_descriptors, File("files")),
    _returns("a forked daemon that holds descriptors", "left", tasks.leave_daemon, File("daemon")),
    _returns("threads that never end", "left", tasks.leave_threads),
]


def _floods(name: str, size: int, *, slow: bool) -> list[Fault]:
    rows = []
    for descriptor, stream in ((1, "stdout"), (2, "stderr")):
        args = (descriptor, size)
        rows.append(
            _hangs(f"{name} to a {stream} that nobody reads, inherited", tasks.flood, *args, slow=slow,
                   unread=descriptor)
        )  # fmt: skip
        rows += [
            _returns(f"{name} to a {stream} that nobody reads, {verb}", size, tasks.flood, *args, slow=slow,
                     unread=descriptor, output=mode, limit=LONG)
            for mode, verb in (("capture", "captured"), ("discard", "discarded"))
        ]  # fmt: skip
    return rows


PRINTING = [*_floods("8 MiB", 8 * MIB, slow=False), *_floods("1 GiB", 1024 * MIB, slow=True)]

MEMORY = [
    Fault("memory runs away at 1 GB/s", tasks.allocate, (10**9, 1536 * MIB), ("MemoryLimitExceeded",),
          memory_limit=400 * MIB, limit=LONG, linux=True),
]  # fmt: skip

STARTING = [
    _returns("an initializer that fails the first time only", "taken", tasks.take, 1,
             initializer=(tasks.fail_first, File("first"))),
    _returns("an initializer that is killed the first time only", "taken", tasks.take, 1,
             initializer=(tasks.die_first, File("first"))),
]  # fmt: skip

FAULTS = [*RAISING, *DYING, *RESULTS, *ARGUMENTS, *HANGING, *LEAVING, *PRINTING, *MEMORY, *STARTING]

TOO_LONG = "it took too long"
NO_START = [
    Fault("an initializer that raises", tasks.take, (1,), ("PoolBroken",), says="the initializer's own words",
          attempts=0, initializer=(tasks.raise_in_initializer,)),
    Fault("an initializer that calls sys.exit", tasks.take, (1,), ("PoolBroken",), says="SystemExit",
          attempts=0, initializer=(tasks.call_sys_exit, 3)),
    Fault("an initializer that exits", tasks.take, (1,), ("PoolBroken",), says="exit", attempts=0,
          initializer=(tasks.exit_at_once, 0)),
    Fault("an initializer that hangs", tasks.take, (1,), ("PoolBroken",), says=TOO_LONG, attempts=0,
          initializer=(tasks.sleep_for_ever,)),
]  # fmt: skip


@dataclass(frozen=True)
class Hand:
    """A fault from outside: when all is done and the workers idle, the worker of one task gets a signal.

    Attributes:
        name: the fault, in words.
        number: the signal.
        payload: bytes of the argument of each task that is submitted after it.
    """

    name: str
    number: int
    payload: int = 0

    def __str__(self) -> str:
        return self.name


HANDS = [
    Hand("a worker is killed while it idles", signal.SIGKILL),
    Hand("a worker is ended by SIGTERM while it idles", signal.SIGTERM),
    Hand("a worker is stopped while it idles", signal.SIGSTOP),
    Hand("a worker is stopped while it idles, then 20 MB are sent", signal.SIGSTOP, 20_000_000),
]
