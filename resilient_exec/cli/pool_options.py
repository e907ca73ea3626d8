"""The options that ``run`` and ``scml`` have in common: one table of flags, each another name for a variable.

What a flag means, its default and its rule stand with the variable of the environment
(:mod:`resilient_exec.adapters.negmas.settings`); here is only how it is written on the command line.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resilient_exec.cli.parsing import memory, not_negative, seconds, whole
from resilient_exec.model.policies import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

__all__ = ["add_pool_options", "flags_of", "pool_arguments", "variables"]


@dataclass(frozen=True)
class _Flag:
    name: str
    variable: str
    type: Callable[[str], Any] | None  # None: the flag has a negative, and no value
    metavar: str
    help: str

    @property
    def dest(self) -> str:
        return self.name.removeprefix("--").replace("-", "_")


_GROUPS = {
    "limits": (
        (
            *("--timeout", "TIMEOUT", seconds, "T"),
            "for one attempt at a world or negotiation (default: what the worlds declare, plus 5 %%)",
        ),
        (
            *("--memory-limit", "MEMORY_LIMIT", memory, "SIZE"),
            "what one worker and all that it starts may hold, such as 2GiB (default: no limit)",
        ),
        ("--retries", "RETRIES", not_negative, "N", "further attempts after a death (default: 2)"),
        ("--step-timeout", "STEP_TIMEOUT", seconds, "T", "count steps of an agent that took longer (default: none)"),
        ("--disqualify-after", "DISQUALIFY_AFTER", whole, "N", "a competitor that spoils N worlds plays no more"),
    ),
    "scores": (
        (
            *("--seed", "SEED", not_negative, "N"),
            "same scores for any number of workers, with and without retries (default: as it comes)",
        ),
        (
            *("--verify", "VERIFY", not_negative, "N"),
            "run N worlds a second time, and tell where scores do not follow the --seed (default: 0)",
        ),
    ),
    "workers": (
        ("--workers", "WORKERS", whole, "N", "worker processes (default: one per CPU)"),
        ("--start-timeout", "START_TIMEOUT", seconds, "T", "for a worker to start (default: 2m)"),
        (
            *("--tasks-per-worker", "TASKS_PER_WORKER", whole, "N"),
            "replace a worker after N worlds (default: see --fresh-process)",
        ),
        (
            *("--fresh-process", "FRESH_PROCESS", None, ""),
            "each world in a process of its own (default: where that is cheap)",
        ),
        ("--preload", "PRELOAD", None, "", "fork workers with negmas and scml imported (default: yes)"),
        (
            *("--take-over", "TAKE_OVER", None, ""),
            "go on in a folder that another host claims; only if nobody is at work there (default: no)",
        ),
    ),
}
_FLAGS = {
    group: tuple(_Flag(name, f"RESILIENT_EXEC_{rest[0]}", *rest[1:]) for name, *rest in flags)
    for group, flags in _GROUPS.items()
}


def add_pool_options(command: argparse.ArgumentParser, without: Collection[str] = ()) -> None:
    """Add them to a command, in groups.

    Args:
        command: its parser.
        without: names of flags that mean nothing to this command.
    """
    for title, flags in _FLAGS.items():
        group = command.add_argument_group(title)
        for flag in flags:
            if flag.name in without:
                continue
            if flag.type is None:
                group.add_argument(flag.name, action=argparse.BooleanOptionalAction, default=None, help=flag.help)
            else:
                group.add_argument(flag.name, type=flag.type, metavar=flag.metavar, help=flag.help)


_WITHOUT_A_FLAG = ("MARKER_WAIT", "OUTPUT", "OUTPUT_LIMIT", "RETRY_FAILED")


def given_by_environment() -> dict[str, str]:
    """The options that stand in this process's environment; what else is called so there is none of ours."""
    names = {flag.variable for flags in _FLAGS.values() for flag in flags}
    names.update(f"RESILIENT_EXEC_{name}" for name in _WITHOUT_A_FLAG)
    return {name: os.environ[name] for name in sorted(names) if os.environ.get(name)}


def variables(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the options that were given, as variables of the environment."""
    return {
        flag.variable: str(int(value)) if isinstance(value, bool) else str(value)
        for flags in _FLAGS.values()
        for flag in flags
        if (value := getattr(arguments, flag.dest, None)) is not None
    }


def pool_arguments(arguments: argparse.Namespace) -> dict[str, Any]:
    """Those that were given and mean something to any pool, as arguments of ``ResilientPool``."""
    names = {"workers": "max_workers", "tasks_per_worker": "max_tasks_per_worker"}
    names |= {name: name for name in ("timeout", "memory_limit", "start_timeout")}
    given = {name: getattr(arguments, flag) for flag, name in names.items() if getattr(arguments, flag) is not None}
    if arguments.retries is not None:
        given["retry"] = RetryPolicy(deaths=arguments.retries, timeouts=0, memory=min(1, arguments.retries))
    return given


def flags_of(given: Mapping[str, Any]) -> list[str]:
    """Values by their names in the arguments, as they are written on a command line."""
    words = []
    for name, value in given.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag.removeprefix('--')}")
        else:
            words += [flag, f"{value:g}" if isinstance(value, float) else str(value)]
    return words
