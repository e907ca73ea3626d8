"""Which modules the workers of a tournament preload: negmas, what makes the worlds, and the competitors' modules.

A worker that imports negmas and scml itself needs seconds of CPU time before its first world.  Forked from a process
that has imported them, it starts in about 30 ms, so that each world can have a process of its own: without memory that
earlier worlds have leaked, and without singletons and locks of earlier agents.

Modules of negmas and scml are imported directly.  The competitors' modules are code of others, so they are imported on
trial first, in a child process, and left to the workers if that fails or starts threads (a ``?`` in the pool's
``preload``).  Only modules that this process has imported under their own name are preloaded: code in ``__main__``, or
made at run time, is pickled by value.
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
_SKIPPED = {"__main__", "__mp_main__", "builtins"}
_KNOWN_PACKAGES = {"negmas", "scml"}  # need no trial import, which would take seconds


def modules_for(base: tuple[str, ...], functions: Iterable[Any], types: Iterable[str]) -> tuple[str, ...]:
    """The modules to preload, each once: the base, then (on trial) those of functions and of competitors.

    Args:
        base: modules that every worker needs.
        functions: the generator, the score calculator and the like.
        types: full names of competitors.

    Returns:
        Names of modules, with a ``?`` behind those that are to be imported on trial first.
    """
    found = [getattr(function, "__module__", None) for function in map(_unwrap, functions)]
    found += [_module_of(name) for name in types]
    wanted = dict.fromkeys(name for name in found if name and name not in _SKIPPED and _is_importable(name))
    named = (module if module.partition(".")[0] in _KNOWN_PACKAGES else f"{module}?" for module in wanted)
    return tuple(dict.fromkeys((*base, *named)))


def pool_for(settings: Settings, lanes: int, modules: tuple[str, ...], **options: Any) -> ResilientPool:
    """A pool for a tournament.

    Args:
        settings: the tournament's.
        lanes: number of workers.
        modules: to be preloaded, if the settings say so.
        **options: further options of the pool, which override the settings.
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
    except BaseException:  # also a Ctrl-C, since it takes seconds
        pool.shutdown(kill=True)
        raise
    if left_out == ():
        return pool
    # Nothing is preloaded (None), or some modules are left out: a fresh process for each world would import them anew.
    pool.shutdown()
    return ResilientPool(lanes, **given)


def _unwrap(function: Any) -> Any:
    """The function inside a ``partial``, or inside a wrapper of ours that holds it as ``generator``."""
    for name in ("func", "generator"):
        inner = getattr(function, name, None)
        if callable(inner):
            return _unwrap(inner)
    return function


def _module_of(type_name: str) -> str | None:
    """The module in a type's full name, which may also contain the classes that the type is nested in."""
    name = type_name.replace(":", ".").rpartition(".")[0]
    while name and name not in sys.modules:
        name = name.rpartition(".")[0]
    return name or None


def _is_importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError, AttributeError):  # made at run time, or its parent package cannot be imported
        return False
