"""Tasks that are called in chunks."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from resilient_exec import task_context


def noted(folder, number, what=""):
    """Leave a line in a file of its own for each execution; then do what is asked, in the first of them only."""
    path = Path(folder) / str(number)
    with path.open("a") as file:
        file.write(f"{os.getpid()}\n")
    if what and len(path.read_text().splitlines()) == 1:
        misbehave(what)
    return number


def misbehave(what):
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "exit":
        os._exit(0)
    elif what == "hang":
        time.sleep(600)
    elif what == "raise":
        raise ValueError("no")
    elif what == "sleep":
        time.sleep(0.3)


def quick(what, number=0):
    """A task that takes no time, unless it is asked for more."""
    if what == "who":
        context = task_context()
        return context.key, context.attempt
    if what == "raise":
        raise ValueError(number)
    if what == "sleep":
        time.sleep(0.05)
    results = {"list": [number], "large": "x" * 100_000, "tuple": (number, "y"), "none": None, "now": time.monotonic()}
    if what == "unpicklable":
        return (one for one in "ab")
    return results.get(what, number)


def executions(folder, count):
    """How often each was executed."""
    return [len((Path(folder) / str(number)).read_text().splitlines()) for number in range(count)]


def odd_one(number, at, what):
    if number == at:
        misbehave(what)
    return number


def who(_):
    context = task_context()
    return context.key, context.attempt, os.getpid()


def twice(number):
    context = task_context()
    if context.attempt == 1 and number == 2:
        raise ConnectionError(number)
    return context.key, context.attempt, context.previous_pids


class Awkward:
    """Does what is asked of it when it is unpickled, or pickled."""

    def __init__(self, number, what):
        self.number, self.what = number, what

    def __reduce__(self):
        if self.what == "cannot":
            raise TypeError("this one does not pickle")
        return make, (self.number, self.what)


def make(number, what):
    misbehave(what)
    return number


def give(number, at, what):
    return Awkward(number, what if number == at else "")


def take(made):
    return made


def same_list(number, kept=[]):  # noqa: B006  that is the point
    kept.append(number)
    return kept


def big(number, size):
    return bytes([number]) * size


def slow_then(number, seconds):
    time.sleep(seconds if number == 0 else 0)
    return number


def flood(number):
    print(f"{number} " * 200_000)
    if number == 3:
        raise ValueError("after a flood")
    return number


def say(number):
    print(f"this is {number}")
    if number == 2:
        raise ValueError(number)


def lower(number):
    """The second one leaves the process in a state that fails others."""
    if number == 1:
        sys.setrecursionlimit(120)
    time.sleep(0.002)
    return os.getpid()


def fork(number):
    if number == 2:
        child = os.fork()
        if child == 0:
            return "of the child"
        os.waitpid(child, 0)
    return number


def leave_child(number):
    if number == 1:
        child = os.fork()
        if child == 0:
            time.sleep(600)
        if True:
            raise ValueError(child)
    return number


def soft(number):
    if number != 1:
        return number
    try:
        time.sleep(60)
    except BaseException as error:
        return type(error).__name__
    return "was not struck"


def scratch(number):
    folder = task_context().scratch_dir
    (folder / "here").write_text(str(number))
    return str(folder)


def pool_inside(number):
    from resilient_exec import ResilientPool

    with ResilientPool(1) as pool:
        return list(pool.map(abs, [-number, number], chunksize=2))


def use_memory(number, size):
    data = bytearray(size) if number == 2 else b""
    for at in range(0, len(data), 4096):
        data[at] = 1
    if data:
        time.sleep(60)
    return number


def wait_in_turn(folder, number, go):
    """Leave word; the first one waits until it is told to go on."""
    noted(folder, number)
    while number == 0 and not os.path.exists(go):
        time.sleep(0.005)
    return number


def odd_value(number, at, what):
    """Very quick; what one of them gives, or does, is of another kind."""
    if number != at:
        return number
    if what == "stop":
        raise StopIteration(number, "really")
    if what == "list":
        return [number]
    if what == "long":
        return "x" * 100_000
    if what == "own":
        return Awkward(number, "")
    if what == "context":
        return task_context().key
    if what == "note":
        task_context().note("noted")
        return number
    if what == "fork":
        child = os.fork()
        if child == 0:
            return "of the child"
        os.waitpid(child, 0)
        return number
    misbehave(what)
    return number


def note_then_die(number):
    if number == 30_000:
        task_context().note("noted by another")
    if number == 30_001:
        misbehave("kill")
    return number
