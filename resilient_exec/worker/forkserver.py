"""A process that has imported what all workers need, and forks one for each start: the forkserver.

An interpreter with what a worker needs takes a tenth of a second to start, with negmas and scml seconds of CPU; a fork
of a process that has them takes milliseconds, and their pages are shared.  What is different from multiprocessing's
own forkserver:

* It is *private* to a pool, and never imports the user's ``__main__``.
* It says what it is doing in a file that it shares with the parent (a few texts a line): ``importing`` a module,
  ``left out`` one, ``failed``, ``ready``.  Readers need no lock, and a server that hangs holds nobody up.
* Each request is one datagram with its descriptors (or a few, where there are many); each worker has a socket of its
  own, over which its pid and its exit status are told.  A dead worker is reaped when the parent has closed that socket:
  until then its pid means it.
* A worker gets what a started process would get: the parent's present environment, standard descriptors, directory,
  ``sys.path``, limits, priority, affinity and umask, and descriptors under the numbers that the parent has named.  What
  the preloaded modules have changed when they were imported (``sys.path``, the environment) is changed in it, too.
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
import os
import select
import signal
import socket
import threading
import warnings

from resilient_exec.wire.lines import as_line
from resilient_exec.worker import fast_exit, state
from resilient_exec.worker.become import Changes, become
from resilient_exec.worker.terminal import disregard_interrupts, leave_group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

__all__ = ["main"]

_OWN = ("resilient_exec.worker.serving", "resilient_exec.worker.script")
_LATER = ("cloudpickle",)  # which many need, but not the first worker as a rule: it is imported when nobody waits
_SELDOM = 100_000  # objects between two collections while modules are imported, in place of 700
_QUIET = 100  # ms without a request
_PART = 250  # descriptors in one datagram, at most
_PROBE_TIMEOUT = 60.0  # s, for a module with a "?" to be imported on trial


def main(control: int, log: int, parent: int, mark: str, modules: list[str], *, own: tuple[str, ...]) -> None:
    """Import, then fork until the parent is gone.

    Args:
        control: the descriptor of the socket for requests.
        log: that of the file that says what is being done.
        parent: the pid of the process that is served.
        mark: the variable over which workers write their marks.
        modules: what to import, in this order; with a ``?`` behind those that may be left out.
        own: modules of this package that each worker would import otherwise, with the script.
    """
    leave_group()
    disregard_interrupts()
    control, log = _lowest(control), _lowest(log)  # they have the parent's numbers, and limits may be tight
    watch = os.pidfd_open(parent)
    if os.getppid() != parent:
        os._exit(1)
    _take_all_descriptors()
    changes = Changes()
    try:
        for name in (*_OWN, *own):
            importlib.import_module(name)
        gc.enable()  # it was disabled for the imports of our own, which leave nothing to collect
        with changes:
            _import_all(modules, log)
    except BaseException as error:
        import traceback

        lasting = "" if isinstance(error, OSError | MemoryError) else "lasting"
        _say(log, "failed", f"{type(error).__name__}: {error}", traceback.format_exc(), lasting)
        os._exit(1)
    fast_exit.flush_before_fork()
    if modules:
        gc.collect()  # all: a child then looks through all only when it has made a quarter as many objects
    state.note_modules()
    gc.freeze()  # the collector of a child would else write to, and so copy, every page
    base = max(map(int, os.listdir("/proc/self/fd"))) + 1
    _say(log, "ready", str(base))
    requests = socket.socket(fileno=control)
    requests.send(b"ready")  # nobody takes it: all who wait see it
    fds = _Server(requests, log, watch).run()
    become(fds, mark, base, changes)  # in a worker; it does not come back


def _say(log: int, *texts: str) -> None:
    os.write(log, as_line(*texts))


def _lowest(fd: int) -> int:
    low = os.dup(fd)
    if low > fd:
        os.close(low)
        return fd
    os.close(fd)
    return low


def _take_all_descriptors() -> None:
    """Allow this process as many descriptors as it may have: it holds two for each worker (which gets the parent's)."""
    import resource

    with contextlib.suppress(OSError, ValueError):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _import_later(name: str) -> None:
    with contextlib.suppress(Exception):  # who needs it is told so when it imports it
        importlib.import_module(name)
    gc.freeze()


# -- importing ---------------------------------------------------------------------------------------------------------


def _import_all(modules: list[str], log: int) -> None:
    """Import them, with few collections: what is imported is there to stay, and is looked through again and again."""
    before = gc.get_threshold()
    gc.set_threshold(_SELDOM, *before[1:])
    for name in modules:
        _import(name, log)
    if gc.get_threshold()[0] == _SELDOM:  # else a module has set its own
        gc.set_threshold(*before)


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
    pid = _fork()
    if pid == 0:
        _try_in_child(module, writer)
    os.close(writer)
    try:
        ready, _, _ = select.select([reader], [], [], _PROBE_TIMEOUT)
        words = os.read(reader, 4096).decode(errors="replace") if ready else "importing it hangs"
    finally:
        os.close(reader)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    return words.removeprefix("ok") or ("" if words else f"importing it ends the process (status {status})")


def _try_in_child(module: str, writer: int) -> NoReturn:
    before = len(os.listdir("/proc/self/task"))
    try:
        importlib.import_module(module)
        more = len(os.listdir("/proc/self/task")) - before
        words = f"importing it starts {more} thread(s)" if more > 0 else "ok"
    except BaseException as error:
        words = f"importing it raises {type(error).__name__}: {error}"
    os.write(writer, words.encode(errors="replace")[:4096])
    while True:
        signal.pause()  # the parent kills us: nothing of the module's runs at an exit


# -- forking -----------------------------------------------------------------------------------------------------------


def _fork() -> int:
    """Fork without the warning that a process with threads may deadlock.

    Python threads are refused (see :func:`_import`).  What is left are native ones, numpy's say, for which their
    library has handlers at fork; and a warning that is an error would end the server.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return os.fork()


_UNKNOWN_STATUS = 255


class _Server:
    def __init__(self, control: socket.socket, log: int, parent: int) -> None:
        self._control, self._log, self._parent = control, log, parent
        self._poller = select.poll()
        self._links: dict[int, int] = {}  # the socket of a worker -> its pid
        self._deaths: dict[int, int] = {}  # the pidfd of a worker -> its socket
        self._is_open = True  # more requests may come
        self._arriving: list[int] = []  # descriptors of a request of which more are to come
        for fd in (control.fileno(), parent):
            self._poller.register(fd, select.POLLIN)

    def run(self) -> list[int]:
        """Serve; returns in a forked child only: the descriptors that it was given."""
        later = [*_LATER]
        while self._is_open or self._links:
            ready = {fd for fd, _ in self._poller.poll(_QUIET if later and self._links else None)}
            if not ready:
                _import_later(later.pop())
            if self._parent in ready:
                self._end()
            for fd in ready & self._deaths.keys():
                self._tell_death(fd)
            for fd in ready & self._links.keys():
                self._reap(fd)
            if self._is_open and self._control.fileno() in ready:
                worker = self._take_request()
                if worker is not None:
                    return worker
        os._exit(0)

    def _end(self) -> NoReturn:
        """The parent is dead."""
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
        try:
            info = os.waitid(os.P_PID, self._links[link], os.WEXITED | os.WNOWAIT)
        except OSError:  # a sandbox refuses it
            _tell(link, f"ended {_UNKNOWN_STATUS}")
            return
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

    def _take_request(self) -> list[int] | None:
        """Read a datagram; in a child that was forked for it: its descriptors."""
        try:
            data, fds, _, _ = socket.recv_fds(self._control, 64, _PART)
        except OSError:
            data, fds = b"", []
        if not data:
            self._close()  # the parent wants no more
            return None
        fds, self._arriving = self._arriving + fds, []
        if int(data.split()[1]):
            self._arriving = fds
            return None
        return self._fork(fds)

    def _close(self) -> None:
        self._is_open = False
        self._poller.unregister(self._control.fileno())
        for fd in self._arriving:
            os.close(fd)

    def _fork(self, fds: list[int]) -> list[int] | None:
        try:
            pid = _fork()
        except OSError as error:
            _tell(fds[0], f"error {error}")
            pid = -1
        if pid == 0:
            self._leave()
            return fds
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
