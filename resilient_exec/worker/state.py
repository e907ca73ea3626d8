"""What a task may leave in its worker that fails the next ones: taken when the worker is ready, compared behind each.

A worker in which any of it has changed for the worse is put in order as far as that goes (so that its own code still
works), runs no further attempt, and is replaced; nobody is charged.  What only *differs*, a folder that was changed to,
a variable that was set, stays as the task has left it: programs set up their workers in that way.

**What it costs.**  Each look is one call in C.  Behind a function that uses no name but its arguments, which can have
changed nothing, only what needs no system call is looked at (half a microsecond); behind others, all of it (three).

What is not seen: what belongs to libraries (``numpy.seterr``), a lower priority, locks that are never given back.
"""

from __future__ import annotations

import _imp
import _thread
import builtins
import contextlib
import errno
import gc
import locale
import os
import pickle
import signal
import sys
import time
import warnings
from types import BuiltinFunctionType, FunctionType

try:
    import resource
    from _locale import setlocale as _setlocale  # the plain ones in C: no enumerations, no wrappers
    from _signal import getsignal as _getsignal  # type: ignore[import-not-found]
    from _signal import pthread_sigmask as _sigmask
except ImportError:  # another system, on which nothing of this is looked at
    pass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, ClassVar

__all__ = ["WorkerState", "note_modules"]

_ON_UNIX = os.name == "posix"
_SPARE_DESCRIPTORS = 32
_ROUGH_MASK = 0o700  # a umask with one of these makes files that their owner cannot use
_IMPORT_LOCK_PATIENCE = 200  # looks, a millisecond apart: a thread that imports holds it for a moment
_LIMITS = [f"RLIMIT_{what}" for what in ("AS", "DATA", "STACK", "NOFILE", "NPROC", "FSIZE", "CPU")]
_HARMLESS = frozenset(("builtins", "math", "operator", "_operator", "time"))  # what is in them changes no process

# What is called here is kept by its own name: a task may have put something else into its module.
_getpid, _getcwd, _umask, _chdir = os.getpid, os.getcwd, os.umask, os.chdir
_geteuid = getattr(os, "geteuid", _getpid)
_dup, _close, _isdir = os.dup, os.close, os.path.isdir
_loads, _dumps = pickle.loads, pickle.dumps
_modules, _builtins = sys.modules, builtins.__dict__
_IGNORED = int(getattr(signal, "SIG_IGN", 1))
_BLOCK = int(getattr(signal, "SIG_BLOCK", 0))
_SIGCHLD = int(getattr(signal, "SIGCHLD", 0))


class _BeforeFork:
    modules: ClassVar[dict[str, Any]] = {}  # of the forkserver; outside of one there are none


def note_modules() -> None:
    """In the forkserver: keep its modules by name, for its children to compare theirs with."""
    _BeforeFork.modules = dict(_modules)


def _there() -> tuple[dict[str, Any], ...]:
    """This process's modules by name: those of the forkserver, as it has kept them, and the others.

    A copy of the table refers to all that is in it, and so writes to each page that a module or its name is in, which
    copies the page: 1,600 with negmas and scml.  What was imported since the fork stands at the table's end.
    """
    before = _BeforeFork.modules
    last = next(reversed(before), None)
    since: dict[str, Any] = {}
    for name in reversed(_modules):
        if name == last:
            break
        since[name] = _modules[name]
    is_whole = last is not None and len(before) + len(since) == len(_modules)  # none was removed, or moved to the end
    return (before, since) if is_whole else (dict(_modules),)


class WorkerState:
    """How a process stands; made by :meth:`take`."""

    def __init__(self) -> None:
        self._recursion = sys.getrecursionlimit()
        self._modules = _there()
        self._builtins = dict(_builtins)
        self._path = list(sys.path)
        self._meta_path, self._path_hooks = list(sys.meta_path), list(sys.path_hooks)
        self._environment = dict(os.environ)
        self._trace, self._profile = sys.gettrace(), sys.getprofile()
        self._switch = sys.getswitchinterval()
        self._user = _geteuid()
        self._filters = list(warnings.filters)
        self._temporary = _temporary()
        self._home = ""
        with contextlib.suppress(OSError):
            self._home = _getcwd()
        self._accept()
        if not _ON_UNIX:
            return
        self._limits = _limits()
        self._blocked = _blocked()
        self._numbers, self._point = _numbers(), locale.localeconv()["decimal_point"]
        self._children_are_told = _getsignal(_SIGCHLD) != _IGNORED

    def _accept(self) -> None:
        """Note as harmless how what is looked at first stands now, so that it is not looked at closely each time."""
        self._least = len(_modules), len(os.environ)
        self._last_folder = sys.path[-1] if sys.path else None
        self._first_filter = warnings.filters[:1]
        self._temporary_seen = _temporary()
        self._numbers_seen = _numbers() if _ON_UNIX else ""

    @classmethod
    def take(cls) -> WorkerState:
        """Of this process, now."""
        return cls()

    def note_limits(self) -> None:
        """We have changed this process's limits ourselves."""
        self._limits = _limits()

    def untrace(self) -> None:
        """Take away a trace or profile function that a task has left: it would be called in our own code."""
        if sys.getprofile() is not self._profile:
            with contextlib.suppress(BaseException):  # it is called once more, and may raise
                sys.setprofile(self._profile)
        if sys.gettrace() is not self._trace:
            with contextlib.suppress(BaseException):
                sys.settrace(self._trace)

    def compare(self, fn: Any) -> str:
        """What the attempt that called ``fn`` has left that fails others, in words; ``""``: nothing.

        It is mended as far as possible; the worker is unfit for more.  Raises nothing.
        """
        if self._seems_well() and (not _ON_UNIX or _is_harmless(fn) or self._is_well()):
            return ""
        try:
            words = "; ".join(self._mended())
            if not words:
                self._accept()
            return words
        except BaseException as error:
            return f"the state of its process cannot be read: {type(error).__name__}"

    # -- quick looks: each is one call in C, and none is allowed to miss what it is for ------------------------------

    def _seems_well(self) -> bool:
        least = self._least
        try:
            return (
                sys.getrecursionlimit() >= self._recursion
                and len(_modules) >= least[0]
                and sys.modules is _modules
                and len(_builtins) >= len(self._builtins)
                and pickle.loads is _loads
                and pickle.dumps is _dumps
                and os.getpid is _getpid
                and (self._last_folder in sys.path or self._last_folder is None)
                and len(sys.meta_path) >= len(self._meta_path)
                and len(sys.path_hooks) >= len(self._path_hooks)
                and len(os.environ) >= least[1]
                and warnings.filters[:1] == self._first_filter
            )
        except Exception:
            return False

    def _is_well(self) -> bool:
        try:
            sys.audit("resilient_exec.attempt_ended")
            return (
                _limits() == self._limits
                and _mask_is_usable()
                and bool(_getcwd())
                and _blocked() <= self._blocked
                and _geteuid() == self._user
                and _numbers() == self._numbers_seen
                and sys.getswitchinterval() <= self._switch
                and (_getsignal(_SIGCHLD) != _IGNORED or not self._children_are_told)
                and _temporary() == self._temporary_seen
                and not _imp.lock_held()
                and _has_spare_descriptors()
            )
        except Exception:
            return False

    # -- a close look, behind one that has found something ------------------------------------------------------------

    def _mended(self) -> Iterator[str]:
        if sys.getrecursionlimit() < self._recursion:  # first: what follows calls functions
            low = sys.getrecursionlimit()
            sys.setrecursionlimit(self._recursion)
            yield f"sys.setrecursionlimit({low})"
        if _ON_UNIX:
            yield from self._mended_limits()
        yield from self._mended_names()
        yield from self._mended_imports()
        yield from self._mended_settings()
        yield from self._mended_process()
        yield from self._mended_signals()
        yield from _found_used_up()

    def _mended_limits(self) -> Iterator[str]:
        for (name, number), (soft, hard), (now, most) in zip(_RESOURCES, self._limits, _limits(), strict=True):
            if _is_lower(now, soft) or _is_lower(most, hard):
                with contextlib.suppress(OSError, ValueError):
                    resource.setrlimit(number, (most if _is_lower(most, soft) else soft, most))
                yield f"{name} lowered from {_limit(soft)} to {_limit(now)}"

    def _mended_names(self) -> Iterator[str]:
        if sys.modules is not _modules or any(name not in _modules for name in self._needed()):
            sys.modules = _modules
            for some in self._modules:
                for name, module in some.items():
                    _modules.setdefault(name, module)
            yield "modules removed from sys.modules"
        if gone := self._builtins.keys() - _builtins.keys():
            _builtins.update({name: self._builtins[name] for name in gone})
            yield f"builtins removed: {', '.join(sorted(gone))}"
        for module, name, value in ((pickle, "loads", _loads), (pickle, "dumps", _dumps), (os, "getpid", _getpid)):
            if getattr(module, name, None) is not value:
                setattr(module, name, value)
                yield f"{module.__name__}.{name} replaced"

    def _needed(self) -> Iterator[str]:
        """Modules without which next to nothing goes on: the standard library's, and ours."""
        own = ("resilient_exec", "loky", "cloudpickle")
        for name in (name for some in self._modules for name in some):
            first = name.partition(".")[0]
            if first in sys.stdlib_module_names or first in own:
                yield name

    def _mended_imports(self) -> Iterator[str]:
        kept: dict[str, list[Any]] = {"path": self._path, "meta_path": self._meta_path, "path_hooks": self._path_hooks}
        for name, before in kept.items():
            there = getattr(sys, name)
            missing = [one for one in before if one not in there]
            if missing:
                setattr(sys, name, list(before))
                yield f"removed from sys.{name}: {missing[0]!r}"
        if _imp.lock_held() and not _is_given_back():
            yield "the import lock held for ever"

    def _mended_settings(self) -> Iterator[str]:
        if len(os.environ) * 2 < len(self._environment):
            os.environ.update(self._environment)
            yield "os.environ emptied"
        if any(map(_raises_all, warnings.filters)) and not any(map(_raises_all, self._filters)):
            filters: Any = warnings.filters
            filters[:] = self._filters
            yield "each warning made an error"
        if sys.getswitchinterval() > self._switch:
            sys.setswitchinterval(self._switch)
            yield "sys.setswitchinterval() raised"

    def _mended_process(self) -> Iterator[str]:
        if not _mask_is_usable():
            _umask(0o022)
            yield "a umask under which nobody can use his own files"
        try:
            _getcwd()
        except OSError:
            with contextlib.suppress(OSError):
                _chdir(self._home)
            yield "its working directory was removed"
        if _geteuid() != self._user:
            yield f"the user changed from {self._user} to {_geteuid()}"
        if (folder := _temporary()) != self._temporary and not _isdir(folder or os.sep):
            sys.modules["tempfile"].tempdir = self._temporary  # type: ignore[attr-defined]
            yield "tempfile.tempdir set to a folder that is not there"

    def _mended_signals(self) -> Iterator[str]:
        if not _ON_UNIX:
            return
        if more := _blocked() - self._blocked:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, more)
            yield f"signals blocked: {', '.join(map(str, sorted(more)))}"
        if self._children_are_told and _getsignal(_SIGCHLD) == _IGNORED:
            signal.signal(_SIGCHLD, signal.SIG_DFL)
            yield "SIGCHLD ignored, so that no exit status of a child is known"
        if (point := locale.localeconv()["decimal_point"]) != self._point:
            _setlocale(_NUMERIC, self._numbers)
            yield f"the decimal point of C changed to {point!r} by a locale"


def _found_used_up() -> Iterator[str]:
    if _ON_UNIX and not _has_spare_descriptors():
        gc.collect()
        if not _has_spare_descriptors():
            yield "descriptors used up"
    try:
        sys.audit("resilient_exec.attempt_ended")
    except Exception as error:
        yield f"an audit hook that raises {type(error).__name__}"


_NUMERIC = locale.LC_NUMERIC
_RESOURCES = [(name, getattr(resource, name)) for name in _LIMITS if hasattr(resource, name)] if _ON_UNIX else []
_NOFILE = dict(_RESOURCES).get("RLIMIT_NOFILE", 0)
_NUMBERS = [number for _, number in _RESOURCES]


def _limits() -> list[tuple[int, int]]:
    return list(map(resource.getrlimit, _NUMBERS))


def _is_lower(now: int, before: int) -> bool:
    return now not in (before, resource.RLIM_INFINITY) and (before == resource.RLIM_INFINITY or now < before)


def _limit(value: int) -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else str(value)


def _blocked() -> set[int]:
    return set(_sigmask(_BLOCK, ()))


def _numbers() -> str:
    """The name of the locale of numbers: where that has a decimal comma, C reads and writes them in another way."""
    return _setlocale(_NUMERIC, None)


def _temporary() -> Any:
    """The folder for temporary files, where somebody has set it or asked for it; else ``None``."""
    return getattr(_modules.get("tempfile"), "tempdir", None)


def _mask_is_usable() -> bool:
    if _thread._count():  # threads: their files must not be made under another mask for a moment
        return True
    mask = _umask(0o077)
    _umask(mask)
    return not mask & _ROUGH_MASK


def _is_harmless(fn: Any) -> bool:
    """Whether it cannot have changed the process, as far as that is seen at once."""
    if type(fn) is FunctionType:
        code = fn.__code__
        return not code.co_names and not code.co_freevars
    return type(fn) in (type, BuiltinFunctionType) and fn.__module__ in _HARMLESS


def _raises_all(one: Any) -> bool:
    return one[0] == "error" and one[1] is None and one[2] in (Warning, Exception) and one[3] is None


def _is_given_back() -> bool:
    for _ in range(_IMPORT_LOCK_PATIENCE):
        if not _imp.lock_held():
            return True
        time.sleep(0.001)
    return False


def _has_spare_descriptors() -> bool:
    try:
        fd = _dup(2)
    except OSError as error:
        return error.errno == errno.EBADF  # there is no descriptor 2: what the streams of a worker mend
    _close(fd)
    return fd + _SPARE_DESCRIPTORS < resource.getrlimit(_NOFILE)[0]
