"""For the scripts of the tests: is all well with this pool, and how to do harm to the process around it."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import select
import sys
import time
from pathlib import Path

import fault_tasks as tasks

from resilient_exec import PoolBroken, ResilientPool, TaskTimeout, WorkerDied

DEADLINE = 60


def contained(pool, executed):
    """A crash and a hang amid eight healthy tasks: each ends as it should, the healthy ones are executed once."""
    futures = [pool.submit(tasks.healthy, executed, number) for number in range(4)]
    crash = pool.submit(tasks.exit_at_once, 0)
    hang = pool.options(timeout=0.3).submit(tasks.spin)
    futures += [pool.submit(tasks.healthy, executed, number) for number in range(4, 8)]
    assert [future.result(DEADLINE) for future in futures] == [2 * number for number in range(8)]
    assert type(crash.exception(DEADLINE)) is WorkerDied, crash.exception()
    assert type(hang.exception(DEADLINE)) is TaskTimeout, hang.exception()
    with open(executed) as file:
        assert sorted(map(int, file)) == list(range(8))
    os.unlink(executed)


def up(pool, count=2):
    """So many workers are up, and idle."""
    for future in [pool.submit(tasks.gather, "gathered", number, count) for number in range(count)]:
        future.result(DEADLINE)


def all_is_well(pool, name="well"):
    """The pool contains what it should, and the test is told so."""
    contained(pool, "executed")
    tasks.note(name, "yes")


def broken(pool, words):
    """No worker can be started: every task settles with that, in the system's own words."""
    for future in [pool.submit(tasks.healthy, "executed", number) for number in range(4)]:
        error = future.exception(DEADLINE)
        assert type(error) is PoolBroken, error
        assert words in str(error), error


def well_or_broken(pool):
    """Where it cannot be known whether a worker starts: every task settles all the same."""
    for number, future in enumerate([pool.submit(tasks.healthy, "perhaps", number) for number in range(4)]):
        error = future.exception(DEADLINE)
        assert type(error) is PoolBroken if error else future.result() == 2 * number, error


# -- pools in tasks --------------------------------------------------------------------------------------------------


def pool_inside(folder):
    with ResilientPool(2, timeout=30, retry=1) as pool:
        contained(pool, os.path.join(folder, "executed"))
    return "contained"


def hang_inside(path):
    """A pool in a task, whose own task hangs, and a process that this one has started."""
    with ResilientPool(1) as pool:
        pool.submit(tasks.hang_with_children)
        tasks.note(path, "hangs")


# -- harm ----------------------------------------------------------------------------------------------------------


def tracker_of(who):
    """Pid of the resource tracker of loky or of multiprocessing, with a pipe to it that is full soon."""
    import fcntl
    from multiprocessing import resource_tracker

    from loky.backend.resource_tracker import _resource_tracker

    tracker = _resource_tracker if who == "loky" else resource_tracker._resource_tracker
    tracker.ensure_running()
    fcntl.fcntl(tracker._fd, fcntl.F_SETPIPE_SZ, 4096)
    return tracker._pid


_LIBC = ctypes.CDLL(None, use_errno=True)
_NEW_NAMESPACE, _READ_ONLY, _ALL_PRIVATE = 0x20000, 1, 0x4000 | 0x40000
NOT_ALLOWED = 77  # exit status of a script that may not mount


def _called(result):
    if result != 0:
        number = ctypes.get_errno()
        if number in (errno.EPERM, errno.EACCES):
            sys.exit(NOT_ALLOWED)
        raise OSError(number, os.strerror(number))


def private_mounts():
    """From here on, mounts of this process are its own and its children's."""
    _called(_LIBC.unshare(_NEW_NAMESPACE))
    _called(_LIBC.mount(b"none", b"/", None, _ALL_PRIVATE, None))


def hidden_mount(path, size="64k", *, read_only=False):
    """A small file system at that place, for this process and its children alone."""
    os.makedirs(path, exist_ok=True)
    private_mounts()
    options = f"size={size}".encode()
    flags = _READ_ONLY if read_only else 0
    _called(_LIBC.mount(b"tmpfs", os.fsencode(path), b"tmpfs", flags, options))
    return path


def fill(folder):
    """Write there until nothing more goes in."""
    with contextlib.suppress(OSError), open(os.path.join(folder, "filler"), "wb", buffering=0) as file:
        while True:
            file.write(bytes(1024))


def tasks_of_user():
    """How many tasks (processes and threads) the kernel counts for this user."""
    found = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{name}").stat().st_uid == os.getuid():
                found += len(os.listdir(f"/proc/{name}/task"))
    return found


@contextlib.contextmanager
def few_processes(more):
    """Of processes and threads this user gets only so many more."""
    before = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (tasks_of_user() + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NPROC, before)


@contextlib.contextmanager
def no_descriptors(keep=0):
    """Every descriptor is taken, but for ``keep``."""
    taken = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    for _ in range(keep):
        os.close(taken.pop())
    try:
        yield
    finally:
        for fd in taken:
            os.close(fd)


def until_full(descriptor):
    """Wait until a pipe takes nothing more."""
    while select.select([], [descriptor], [], 0)[1]:
        time.sleep(0.005)
