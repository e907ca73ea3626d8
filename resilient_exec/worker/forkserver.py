"""A process that has imported what all workers need, and forks one for each start: the forkserver.

Importing negmas and scml costs seconds of CPU for each new worker; a fork of a process that has them costs
milliseconds, and their pages are shared.  What is different from multiprocessing's own forkserver:

* It is *private* to a pool, and never imports the user's ``__main__``.
* It says what it is doing in a file that it shares with the parent (one JSON list a line): ``importing`` a module,
  ``left out`` one, ``failed``, ``ready``.  Readers need no lock, and a server that hangs holds nobody up.
* Each request is one datagram with its descriptors; each worker has a socket of its own, over which its pid and its
  exit status are told.  A dead worker is reaped when the parent has closed that socket: until then its pid means it.
* A worker gets what a started process would get: the parent's present environment, standard descriptors, directory
  and ``sys.path``, and descriptors under the numbers that the parent has named.
* **The mark.**  ``/proc/PID/environ`` is frozen at exec, and marks are found there.  So the server is started with a
  variable that is as long as a mark, and its child writes its own over it, in place.
* **Entropy.**  ``random`` seeds itself anew in a forked child; numpy's and torch's global generators do not.
* **Death of the parent** is read from its pidfd: the server kills what it has forked and ends.  Its own death harms no
  worker: only their exit statuses are lost with it.
* **Threads** do not survive a fork, and the locks that they held stay locked.  A module that leaves a Python thread
  running is refused.  A module with a ``?`` is imported in a forked child first, and left out if it raises, kills
  that child, or starts any thread.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pickle
import select
import signal
import socket
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

from resilient_exec.worker import fast_exit

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Numbered", "main"]

_OWN = ("loky.backend.popen_loky_posix", "loky.process_executor", "cloudpickle", "resilient_exec.worker.main")
_FIRST_FDS = 5  # of a request: the worker's link, its standard descriptors, the file with what it starts with
_MOST_FDS = 64
_ROOM = 16  # between the highest descriptor of the server and the lowest that a worker is given
_PROBE_TIMEOUT = 60.0  # s, for a module with a "?" to be imported on trial


class Numbered:
    """A descriptor by the number that it has in the worker."""

    def __init__(self, number: int) -> None:
        self._number = number

    def detach(self) -> int:
        """The number."""
        return self._number


def main(control: int, log: int, parent: int, mark: str, modules: list[str]) -> None:
    """Import, then fork until the parent is gone.

    Args:
        control: the descriptor of the socket for requests.
        log: that of the file that says what is being done.
        parent: the pid of the process that is served.
        mark: the variable over which workers write their marks.
        modules: what to import, in this order; with a ``?`` behind those that may be left out.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    watch = os.pidfd_open(parent)
    if os.getppid() != parent:
        os._exit(1)
    try:
        for name in (*_OWN, *modules):
            _import(name, log)
    except BaseException as error:
        _say(log, "failed", f"{type(error).__name__}: {error}", traceback.format_exc())
        os._exit(1)
    fast_exit.flush_before_fork()
    gc.collect()
    gc.freeze()  # the collector of a child would else write to, and so copy, every page
    base = max(map(int, os.listdir("/proc/self/fd"))) + _ROOM
    _say(log, "ready", base)
    become = _Server(socket.socket(fileno=control), log, watch, mark, base).run()
    become()  # in a worker, on a stack of its own; it does not come back


def _say(log: int, *words: object) -> None:
    os.write(log, f"{json.dumps(words)}\n".encode())


# -- importing ---------------------------------------------------------------------------------------------------------


def _import(name: str, log: int) -> None:
    module, may_fail = name.removesuffix("?"), name.endswith("?")
    _say(log, "importing", module)
    if may_fail:
        why = _try(module)
        if why:
            _say(log, "left out", module, why)
            return
    importlib.import_module(module)
    others = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if others:
        raise RuntimeError(
            f"preload {module!r}: it leaves a thread running ({', '.join(others)}), and a process with threads cannot "
            "be forked safely; import it in the tasks or in an initializer instead"
        )


def _try(module: str) -> str:
    """Import the module in a child; why it is to be left out, or ``""``."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os._exit(_try_in_child(module, writer))
    os.close(writer)
    try:
        ready, _, _ = select.select([reader], [], [], _PROBE_TIMEOUT)
        words = os.read(reader, 4096).decode(errors="replace") if ready else "importing it hangs"
    finally:
        os.close(reader)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    return words.removeprefix("ok") or ("" if words else f"importing it ends the process (status {status})")


def _try_in_child(module: str, writer: int) -> int:
    before = len(os.listdir("/proc/self/task"))
    try:
        importlib.import_module(module)
        more = len(os.listdir("/proc/self/task")) - before
        words = f"importing it starts {more} thread(s)" if more > 0 else "ok"
    except BaseException as error:
        words = f"importing it raises {type(error).__name__}: {error}"
    os.write(writer, words.encode(errors="replace")[:4096])
    signal.pause()  # the parent kills us: nothing of the module's runs at an exit
    return 0


# -- forking -----------------------------------------------------------------------------------------------------------


class _Server:
    def __init__(self, control: socket.socket, log: int, parent: int, mark: str, base: int) -> None:
        self._control, self._log, self._parent, self._mark, self._base = control, log, parent, mark, base
        self._poller = select.poll()
        self._links: dict[int, int] = {}  # the socket of a worker -> its pid
        self._deaths: dict[int, int] = {}  # the pidfd of a worker -> its socket
        for fd in (control.fileno(), parent):
            self._poller.register(fd, select.POLLIN)

    def run(self) -> Callable[[], None]:
        """Serve; returns in a forked child only: what it is to do."""
        while True:
            ready = {fd for fd, _ in self._poller.poll()}
            if self._parent in ready:
                self._end()
            for fd in ready & self._deaths.keys():
                self._tell_death(fd)
            for fd in ready & self._links.keys():
                self._reap(fd)
            if self._control.fileno() in ready:
                worker = self._fork()
                if worker is not None:
                    return worker

    def _end(self) -> NoReturn:
        for pid in self._links.values():  # none of them is reaped, so each pid is still its own
            os.kill(pid, signal.SIGKILL)
        for pid in self._links.values():
            os.waitpid(pid, 0)
        os._exit(0)

    def _tell_death(self, pidfd: int) -> None:
        link = self._deaths.pop(pidfd)
        self._poller.unregister(pidfd)
        os.close(pidfd)
        # WNOWAIT: it stays a zombie until the parent has let go of it.
        info = os.waitid(os.P_PID, self._links[link], os.WEXITED | os.WNOWAIT)
        if info is None:
            return
        code = info.si_status if info.si_code == os.CLD_EXITED else -info.si_status
        _tell(link, f"ended {code}")

    def _reap(self, link: int) -> None:
        """The parent has closed a worker's socket: nobody asks any more."""
        pid = self._links.pop(link)
        self._poller.unregister(link)
        os.close(link)
        for pidfd, of in list(self._deaths.items()):
            if of == link:  # it lives: the parent has lost interest in it, and so it must not
                del self._deaths[pidfd]
                self._poller.unregister(pidfd)
                os.close(pidfd)
                os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    def _fork(self) -> Callable[[], None] | None:
        try:
            data, fds, _, _ = socket.recv_fds(self._control, 64, _MOST_FDS)
        except OSError:
            self._end()
        if not data:
            self._end()  # the parent has closed its end
        try:
            pid = os.fork()
        except OSError as error:
            _tell(fds[0], f"error {error}")
            pid = -1
        if pid == 0:
            self._leave()
            return lambda: _become(fds, self._mark, self._base)
        for fd in fds[1:]:
            os.close(fd)
        if pid < 0:
            os.close(fds[0])
            return None
        self._links[fds[0]] = pid
        pidfd = os.pidfd_open(pid)
        self._deaths[pidfd] = fds[0]
        for fd in (fds[0], pidfd):
            self._poller.register(fd, select.POLLIN)
        _tell(fds[0], f"pid {pid}")
        return None

    def _leave(self) -> None:
        """In the child: close what is the server's."""
        self._control.close()
        for fd in (self._log, self._parent, *self._links, *self._deaths):
            os.close(fd)


def _tell(link: int, words: str) -> None:
    with socket.socket(fileno=os.dup(link)) as far, contextlib.suppress(OSError):
        far.send(words.encode())


# -- in the worker -----------------------------------------------------------------------------------------------------


def _become(fds: list[int], mark: str, base: int) -> None:
    """What loky's own ``python -m`` does in a process that it has started."""
    from loky.backend import spawn

    start = _take_places(fds, base)
    with open(start, "rb") as file:
        file.seek(0)
        environment, name = pickle.load(file)
        os.environ.clear()
        os.environ.update(environment)
        _write_over(mark, name)
        _reseed()
        from multiprocessing import process

        current: Any = process.current_process()
        current._inheriting = True
        try:
            spawn.prepare(pickle.load(file))
            started = pickle.load(file)
        finally:
            del current._inheriting
    fast_exit.end(started._bootstrap())


def _take_places(fds: list[int], base: int) -> int:
    """Put all descriptors where the parent wants them; the one of the file with what the worker starts with."""
    import fcntl

    above = base + len(fds)
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for fd in fds]
    for fd in fds:
        os.close(fd)
    os.close(high[0])  # the link is the server's
    for number, fd in enumerate(high[1:4]):
        os.dup2(fd, number)
        os.close(fd)
    for number, fd in enumerate(high[_FIRST_FDS:], start=base):
        os.dup2(fd, number)
        os.close(fd)
    return high[4]


def _write_over(placeholder: str, name: str) -> None:
    """Give this process's own memory of its environment the variable ``name`` in place of another, as long one."""
    os.environ.pop(placeholder, None)
    if len(name) != len(placeholder):
        return
    import ctypes

    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[47]), int(fields[48])  # env_start, env_end: fields 50 and 51, by proc(5)
    if not 0 < start < end:
        return
    position = ctypes.string_at(start, end - start).find(f"\0{placeholder}=".encode())
    if position >= 0:
        ctypes.memmove(start + position + 1, name.encode(), len(name))


def _reseed() -> None:
    numpy, torch = sys.modules.get("numpy.random"), sys.modules.get("torch")
    for module in (numpy, torch):
        if module is not None:
            with contextlib.suppress(Exception):  # a module that is only half there is the user's affair
                module.seed()
