"""Values and exceptions that are hard to send: what they are made of runs where they are pickled or unpickled."""

from __future__ import annotations

import os
import signal
import sys
import threading
from dataclasses import dataclass

PARENT = int(os.environ.setdefault("RESILIENT_EXEC_TEST_PARENT", str(os.getpid())))  # workers inherit the variable


# -- odd values ----------------------------------------------------------------------------------------------------


class CannotBePickled:
    def __reduce__(self):
        raise ValueError("not to be pickled")


class ExitsWhenPickled:
    def __reduce__(self):
        sys.exit(7)


def _raise_when_unpickled():
    raise ValueError("not to be unpickled")


class CannotBeUnpickled:
    def __reduce__(self):
        return _raise_when_unpickled, ()


def _exit_when_unpickled():
    sys.exit(7)


class ExitsWhenUnpickled:
    def __reduce__(self):
        return _exit_when_unpickled, ()


def _die_when_unpickled():
    os._exit(9)


class DiesWhenUnpickled:
    def __reduce__(self):
        return _die_when_unpickled, ()


def _kill_when_pickled():
    os.kill(os.getpid(), signal.SIGKILL)


class DiesWhenPickled:
    def __reduce__(self):
        _kill_when_pickled()


def make(name, *args):
    """An object of the class with that name: made in the worker, so that only its way back is tested."""
    return globals()[name](*args)


parent_may_go_on = threading.Event()  # in the parent: what is stuck below ends, so that a test leaves no thread
parent_is_stuck = threading.Event()


def _hang_in_parent(value):
    if os.getpid() == PARENT:
        parent_is_stuck.set()
        parent_may_go_on.wait(120)
    return value


class HangsInParent:
    """Looks at the process id: it proves itself in the worker, and hangs in the parent."""

    def __reduce__(self):
        return _hang_in_parent, (17,)


def _raise_in_parent():
    if os.getpid() == PARENT:
        raise ValueError("only in the parent")
    return


class RaisesInParent:
    def __reduce__(self):
        return _raise_in_parent, ()


def _exit_in_parent():
    if os.getpid() == PARENT:
        sys.exit(5)


class ExitsInParent:
    def __reduce__(self):
        return _exit_in_parent, ()


# -- exceptions of users -------------------------------------------------------------------------------------------


class NeedsKeyword(Exception):
    """Its own class cannot rebuild it from args."""

    def __init__(self, code, *, detail):
        super().__init__(f"code {code}")
        self.code = code
        self.detail = detail


class HoldsALock(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


@dataclass(frozen=True)
class FrozenError(Exception):
    code: int
    text: str


class BreaksWhenUnpickled(Exception):
    def __reduce__(self):
        return _raise_when_unpickled, ()


class DiesAsItIsUnpickled(Exception):
    def __reduce__(self):
        return _exit_when_unpickled, ()


class BadText(Exception):
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


def raise_needs_keyword():
    raise NeedsKeyword(7, detail={"a": [1]})


def raise_holds_a_lock():
    raise HoldsALock("held")


def raise_frozen():
    raise FrozenError(3, "frozen")


def raise_breaks():
    raise BreaksWhenUnpickled("broken")


def raise_dies():
    raise DiesAsItIsUnpickled("dead")


def raise_bad_text():
    raise BadText


def raise_local():
    class Local(Exception):
        pass

    raise Local("local", 1)


def raise_from():
    try:
        raise KeyError("inner")
    except KeyError as error:
        raise ValueError("outer", 2) from error


def raise_with_note():
    error = ValueError("noted")
    error.add_note("a note")
    raise error


def raise_group():
    raise ExceptionGroup("several", [ValueError(1), KeyError("k")])


class RaisesInRepr:
    def __repr__(self):
        raise ValueError("no repr")


class RaisesInEqLater:
    """Can be found for a while."""

    looks = 0

    def __hash__(self):
        return 1

    def __eq__(self, other):
        self.looks += 1
        if self.looks > 3:
            raise ValueError("not equal to anything any more")
        return self is other


class RaisesInReprLater:
    """Prints as others do at first: as long as a pool might look."""

    looks = 0

    def __repr__(self):
        self.looks += 1
        if self.looks > 1:
            raise ValueError("no repr any more")
        return "still well"

    def __reduce__(self):
        raise SystemExit(3)
