"""What the workers of a tournament find imported: negmas, what makes the worlds, and the competitors' own modules.

A worker that imports negmas and scml for itself needs seconds of CPU before its first world.  Forked from a process
that has them it is there in some 30 ms, so that each world can have a process of its own: no memory leaked by former
worlds, no stale singleton, no lock of a former agent.

What is negmas' or scml's own is imported at once.  The competitors' modules are other people's code: they are imported
on trial first, in a child, and left to the workers if that fails or starts threads (a ``?`` in the pool's
``preload``).  Only what this process has imported under the very name is named: what lives in ``__main__`` or was made
at run time travels by value.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING, Any

from resilient_exec.pool.pool import ResilientPool

if TYPE_CHECKING:
    from collections.abc import Iterable

    from resilient_exec.adapters.negmas.settings import Settings

__all__ = ["NEGOTIATIONS", "WORLDS", "modules_for", "pool_for"]

WORLDS = (
    "negmas.tournaments.tournaments",
    "resilient_exec.adapters.negmas.worlds.task",
    "resilient_exec.adapters.negmas.worlds.tables",
)
NEGOTIATIONS = ("negmas.tournaments.neg.simple.cartesian", "resilient_exec.adapters.negmas.negotiations.runner")
_NEVER = {"__main__", "__mp_main__", "builtins"}
_TRUSTED = {"negmas", "scml"}  # to try them first would cost seconds for nothing


def modules_for(base: tuple[str, ...], functions: Iterable[Any], types: Iterable[str]) -> tuple[str, ...]:
    """The modules to preload, each once: the base, then (on trial) those of functions and of competitors.

    Args:
        base: what every worker needs.
        functions: the generator, the score calculator and the like.
        types: full names of competitors.
    """
    found = [getattr(function, "__module__", None) for function in map(_bare, functions)]
    found += [_module_of(name) for name in types]
    wanted = dict.fromkeys(module for module in found if module and module not in _NEVER and _is_importable(module))
    named = (module if module.partition(".")[0] in _TRUSTED else f"{module}?" for module in wanted)
    return tuple(dict.fromkeys((*base, *named)))


def pool_for(settings: Settings, lanes: int, modules: tuple[str, ...], **options: Any) -> ResilientPool:
    """A pool for a tournament.

    Args:
        settings: the tournament's.
        lanes: number of workers.
        modules: what to preload, if the settings say so.
        **options: further ones of the pool; they win over the settings.
    """
    given = {
        "start_timeout": settings.start_timeout,
        "memory_limit": settings.memory_limit,
        "max_tasks_per_worker": settings.max_tasks_per_worker,
        "observers": settings.observers,
        "preload": modules if settings.preload else (),
        **options,
    }
    if given["max_tasks_per_worker"] is not None or settings.fresh_process is False:
        return ResilientPool(lanes, **given)
    if settings.fresh_process:
        return ResilientPool(lanes, **{**given, "max_tasks_per_worker": 1})
    pool = ResilientPool(lanes, **{**given, "max_tasks_per_worker": 1})
    try:
        left_out = pool.preloaded()
    except BaseException:  # a Ctrl-C, too: it takes seconds
        pool.shutdown(kill=True)
        raise
    if left_out == ():
        return pool
    # None: nothing is preloaded.  Else each world would import those modules anew.
    pool.shutdown()
    return ResilientPool(lanes, **given)


def _bare(function: Any) -> Any:
    """The function itself, of a ``partial`` or of a wrapper of ours that holds it as ``generator``."""
    for name in ("func", "generator"):
        inner = getattr(function, name, None)
        if callable(inner):
            return _bare(inner)
    return function


def _module_of(type_name: str) -> str | None:
    """The module in a type's full name, which may also name classes that it is nested in."""
    name = type_name.replace(":", ".").rpartition(".")[0]
    while name and name not in sys.modules:
        name = name.rpartition(".")[0]
    return name or None


def _is_importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError, AttributeError):  # made at run time, or its parent cannot be imported
        return False
