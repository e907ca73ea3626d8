"""What is refused in words before a pool's first process: programs in which none can work, arguments that none has."""

from __future__ import annotations

import sys

from resilient_exec.model.errors import PoolBroken
from resilient_exec.process.executable import check_not_frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

__all__ = ["check_program", "refuse_unknown"]

_NO_SYSTEMS = ("win32", "emscripten", "wasi")
_NEEDED = ("thread", "threading", "select", "socket", "queue", "subprocess", "os", "time")


def check_program() -> None:
    """Refuse a program in which no pool can work.

    Raises:
        PoolBroken: the system is Windows or a WebAssembly one, the program was frozen, or gevent or eventlet have
            replaced parts of the standard library.
    """
    if sys.platform in _NO_SYSTEMS:
        raise PoolBroken(
            f"{sys.platform} is not supported yet: a worker inherits its channel as a descriptor, which this system "
            "does not pass on.  Use Linux (on Windows: WSL)"
        )
    try:
        check_not_frozen()
    except RuntimeError as error:
        raise PoolBroken(str(error)) from None
    for module, asks, name in (
        ("gevent.monkey", "is_module_patched", "gevent"),
        ("eventlet.patcher", "is_monkey_patched", "eventlet"),
    ):
        is_patched: Callable[[str], Any] | None = getattr(sys.modules.get(module), asks, None)
        if is_patched is not None and (patched := [one for one in _NEEDED if is_patched(one)]):
            raise PoolBroken(
                f"{name} has replaced parts of the standard library ({', '.join(patched)}): a pool needs threads, "
                "sockets and processes of the system's own.  Use it in a process that is not monkey-patched, "
                f"or do without {name}'s monkey-patching"
            )


_ELSEWHERE = {  # what pools of other kinds call it
    "max_tasks_per_child": "max_tasks_per_worker",
    "maxtasksperchild": "max_tasks_per_worker",
    "max_tasks": "max_tasks_per_worker",
    "worker_lifespan": "max_tasks_per_worker",
    "processes": "max_workers",
    "n_jobs": "max_workers",
    "num_workers": "max_workers",
    "mp_context": "",
    "context": "",
    "kill_workers": "",
    "reuse": "",
}


def refuse_unknown(given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse arguments that a pool does not have, with what it has for the same.

    Args:
        given: their names.
        known: the names of those that it has.

    Raises:
        TypeError: there is one.
    """
    for name in given:
        import difflib

        hint = ""
        if name in _ELSEWHERE:
            ours = _ELSEWHERE[name]
            hint = f"; here it is called {ours}" if ours else "; that is for pools of other kinds: leave it out"
        elif close := difflib.get_close_matches(name, list(known), 1):
            hint = f"; did you mean {close[0]}?"
        raise TypeError(f"ResilientPool() got an unexpected keyword argument {name!r}{hint}")
