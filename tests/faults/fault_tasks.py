"""The faults themselves, and the healthy task beside them: only the standard library, so that any pool can run them."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
import signal
import sys
import threading
import time

# -- the healthy one, and what all use -----------------------------------------------------------------------------


def note(path, text):
    """Append one line, in one write: each execution leaves its own."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, f"{text}\n".encode())
    finally:
        os.close(fd)


def healthy(path, number, payload=b""):
    """Leave a line, return twice the number."""
    note(path, number)
    return 2 * number + len(payload)


def pid():
    return os.getpid()


def gather(path, number, count):
    """Wait until so many tasks are there at the same time, each in a worker of its own."""
    note(path, number)
    while True:
        with open(path) as file:
            if len(file.readlines()) >= count:
                return
        time.sleep(0.002)


def sleep_for_ever():
    while True:
        time.sleep(60)


class Calls:
    """Unpickling it calls ``fn(*args)``."""

    def __init__(self, fn, *args):
        self.call = (fn, args)

    def __reduce__(self):
        return self.call


class CallsWhenPickled:
    """Pickling it calls ``fn(*args)``."""

    def __init__(self, fn, *args):
        self.call = (fn, args)

    def __reduce__(self):
        fn, args = self.call
        fn(*args)
        return int, ()


def give_call(fn, *args):
    """Return what calls ``fn(*args)`` when it is unpickled."""
    return Calls(fn, *args)


def give_pickling_call(fn, *args):
    return CallsWhenPickled(fn, *args)


def take(_):
    return "taken"


# -- raising -------------------------------------------------------------------------------------------------------


class NeedsTwoError(Exception):
    """Its class cannot be called with its args: plain pickle fails to rebuild it."""

    def __init__(self, code, detail):
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class HoldsLockError(Exception):
    def __init__(self):
        super().__init__("it holds a lock")
        self.lock = threading.Lock()


class CallsError(Exception):
    """Unpickling it calls ``fn(*args)``."""

    def __init__(self, fn, *args):
        super().__init__("it calls as it is unpickled")
        self.call = (fn, args)

    def __reduce__(self):
        return self.call


def raise_it(cls, *args):
    raise cls(*args)


def call_sys_exit(status):
    sys.exit(status)


def recurse():
    return recurse()


# -- dying ---------------------------------------------------------------------------------------------------------


def exit_at_once(status):
    os._exit(status)


def no_core():
    """No dump of a deadly signal shall be left where the worker runs."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def signal_itself(number):
    no_core()
    with contextlib.suppress(OSError):  # of SIGKILL there is no other disposition
        signal.signal(number, signal.SIG_DFL)  # who was started by nohup ignores SIGHUP, and so do its children
    os.kill(os.getpid(), number)
    sleep_for_ever()


def read_address_zero():
    import faulthandler

    no_core()
    faulthandler.disable()
    ctypes.string_at(0)


def burst_the_stack():
    """Recursion in C that Python's own limit does not stop in time: the C stack is made small first."""
    import resource

    no_core()
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    resource.setrlimit(resource.RLIMIT_STACK, (128 * 1024, hard))
    sys.setrecursionlimit(10**9)
    _down(0, 0)


def _down(_, depth):
    return functools.reduce(_down, [depth + 1], 0)


# -- hanging -------------------------------------------------------------------------------------------------------


def spin():
    while True:
        pass


def swallow_everything():
    while True:
        with contextlib.suppress(BaseException):
            while True:
                pass


def burn_in_c():
    """Hold the GIL in C code, for ever as far as anybody is concerned."""
    re.match(r"(a+)+$", "a" * 60 + "b")


def deadlock():
    lock = threading.Lock()
    with lock, lock:
        pass


def ignore_sigterm():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sleep_for_ever()


def replace_handlers():
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, lambda *_: None)
    sleep_for_ever()


def block_signals():
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
    spin()


def stop_itself():
    os.kill(os.getpid(), signal.SIGSTOP)
    sleep_for_ever()


def leave_session_and_hang():
    os.setsid()
    sleep_for_ever()


def hang_with_children():
    """Two generations of children, which hang as well."""
    if os.fork() == 0:
        os.fork()
        sleep_for_ever()
    sleep_for_ever()


# -- misbehaving, and returning ------------------------------------------------------------------------------------


def leave_session():
    os.setsid()
    return "left"


def close_descriptors(path):
    """Close 3 to 64, then open files there: nothing but our own words may be found in them.  They stay open."""
    os.closerange(3, 65)
    fds = [os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) for _ in range(60)]
    for fd in fds:
        os.write(fd, b"mine\n")
    return len(fds)


def leave_daemon(path):
    """Fork twice, in a session of its own, with every descriptor still open; the daemon outlives the task."""
    if (child := os.fork()) == 0:
        os.setsid()
        if os.fork() == 0:
            note(path, os.getpid())
            sleep_for_ever()
        os._exit(0)
    os.waitpid(child, 0)
    while not (os.path.exists(path) and os.path.getsize(path)):
        time.sleep(0.001)
    return "left"


def leave_threads():
    for daemon in (True, False):
        threading.Thread(target=sleep_for_ever, daemon=daemon).start()
    return "left"


def give_bytes(size):
    return bytes(size)


def give_bytes_at(seconds, size):
    """A large result that is on its way ``seconds`` after the begin."""
    begin = time.monotonic()
    data = bytes(size)
    time.sleep(max(0.0, seconds - (time.monotonic() - begin)))
    return data


def flood(descriptor, size):
    """So many bytes to stdout (1) or stderr (2), by way of Python's own stream."""
    stream = sys.stdout if descriptor == 1 else sys.stderr
    line = "x" * 1023 + "\n"
    for _ in range(size // 1024):
        stream.write(line)
    stream.flush()
    return size


def allocate(rate, most):
    """Take memory, ``rate`` bytes a second; hold ``most`` for ever, so that no machine is brought down."""
    step, held, begin = 8 << 20, [], time.monotonic()
    while len(held) * step < most:
        held.append(b"x" * step)
        time.sleep(max(0.0, len(held) * step / rate - (time.monotonic() - begin)))
    sleep_for_ever()


# -- initializers --------------------------------------------------------------------------------------------------


def raise_in_initializer():
    raise ValueError("the initializer's own words")


def fail_first(path):
    """Fails in the first worker that tries, and in no other."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return
    raise ValueError("the first one fails")


def die_first(path):
    """Kills the first worker that tries, and no other."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
