"""Where no pool can work, said in words before its first process."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from resilient_exec.model.errors import PoolBroken
from resilient_exec.process.executable import check_not_frozen

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["check_program"]

_NEEDED = ("thread", "threading", "select", "socket", "queue", "subprocess", "os", "time")


def check_program() -> None:
    """Refuse a program in which threads and processes are not what they are.

    Raises:
        PoolBroken: it was frozen, or gevent or eventlet have replaced parts of the standard library.
    """
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
