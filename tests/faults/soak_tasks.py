"""What the soak runs in workers, and what must come of each."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time

from resilient_exec import NotSendable, WorkerDied, task_context


class Unpicklable(Exception):
    def __reduce__(self):
        raise TypeError("no")


def run(what, number):
    if what != "nothing":
        return globals()[what](number)
    return number


def raises(number):
    raise ValueError(number)


def raises_what_cannot_travel(number):
    raise Unpicklable(number)


def exits(number):
    os._exit(number % 3)


def is_killed(_):
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def crashes(_):
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(60)


def hangs(_):
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(60)


def returns_what_cannot_travel(_):
    return sys._getframe()


def returns_a_lock(number):
    return [threading.Lock(), number]


def floods(number):
    os.write(1, b"x" * 99 + b"\n" * 100_000)
    print(number)
    return number


def closes_descriptors(_):
    os.closerange(3, 64)
    return "closed"


def leaves_a_child(number):
    if os.fork() == 0:
        time.sleep(120)
        os._exit(0)
    return number


def leaves_a_thread(number):
    threading.Thread(target=time.sleep, args=(0.2,)).start()
    return number


def leaves_scratch_and_dies(_):
    (task_context().scratch_dir / "file").write_text("text")
    os._exit(3)


def returns(done):
    assert done.ok, done.error


def _fails_with(*kinds):
    def check(done):
        assert isinstance(done.error, kinds), (done.value, done.error)

    return check


CHECKS = {
    "raises": _fails_with(ValueError),
    "raises_what_cannot_travel": _fails_with(Unpicklable),
    "exits": _fails_with(WorkerDied),
    "is_killed": _fails_with(WorkerDied),
    "crashes": _fails_with(WorkerDied),
    "returns_what_cannot_travel": _fails_with(NotSendable),
    "returns_a_lock": returns,
    "floods": returns,
    "closes_descriptors": returns,
    "leaves_a_child": returns,
    "leaves_a_thread": returns,
    "leaves_scratch_and_dies": _fails_with(WorkerDied),
}
SICK = sorted([*CHECKS, "hangs"])
