"""Checks that the installed negmas has the functions and parameters that the backend needs."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, NoReturn

from resilient_exec.adapters.negmas import checks

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["check", "parameters", "refuse"]

_NEEDED = {
    "run_tournament": [
        "tournament_path",
        "world_generator",
        "score_calculator",
        "parallelism",
        "override_ran_worlds",
    ],
    "_run_parallel": [
        "parallelism",
        "verbose",
        "assigned",
        "world_generator",
        "score_calculator",
        "name",
        "scores_file",
        "tournament_progress_callback",
        "world_progress_callback",
        "run_ids",
        "print_exceptions",
        "attempts_path",
        "total_timeout",
        "max_attempts",
    ],
    "get_world_paths": ["tournament_path"],
    "score_adapter": ["scores_data"],
    "_run_id": [],
    "load": [],
}
"""Functions of negmas that are used, with the parameters that they need to have."""

_NEEDED_IN_ORDER = {
    "_run_worlds": [
        "worlds_params",
        "world_generator",
        "score_calculator",
        "world_progress_callback",
        "dry_run",
        "save_world_stats",
        "override_ran_worlds",
        "save_progress_every",
        "attempts_path",
        "max_attempts",
        "verbose",
    ],
    "save_run_results": [
        "run_id",
        "score_",
        "world_stats_",
        "type_stats_",
        "agent_stats_",
        "tournament_progress_callback",
        "world_paths",
        "name",
        "verbose",
        "_strt",
        "attempts_path",
        "n_world_configs",
        "i",
    ],
}
"""Those that are called by position."""


def check(tournaments: ModuleType) -> None:
    """Check the functions for world tournaments.

    Args:
        tournaments: the module ``negmas.tournaments.tournaments``.

    Raises:
        RuntimeError: a function or a parameter is missing; the message names it.
    """
    for name, needed in _NEEDED.items():
        have = parameters(tournaments, name)
        for parameter in needed:
            if parameter not in have:
                refuse(f"the parameter {parameter!r} of {tournaments.__name__}.{name}")
    for name, needed in _NEEDED_IN_ORDER.items():
        have = parameters(tournaments, name)
        if have[: len(needed)] != needed:
            refuse(f"the parameters {', '.join(needed)} (in this order) of {tournaments.__name__}.{name}")


def parameters(module: ModuleType, name: str) -> list[str]:
    """The names of the parameters of a function, in order.

    Raises:
        RuntimeError: the module has no function of that name.
    """
    function: Any = getattr(module, name, None)
    if function is None:
        refuse(f"{module.__name__}.{name}")
    return list(inspect.signature(function).parameters)


def refuse(missing: str) -> NoReturn:
    """Raise the error about something that the installed negmas does not have.

    Raises:
        RuntimeError: always.
    """
    raise RuntimeError(
        f"resilient_exec does not fit negmas {checks.version('negmas')}: it needs {missing}, which this version does "
        "not have. Versions 0.11 to 0.16 are known to work"
    )
