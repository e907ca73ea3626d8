"""The options that ``run`` and ``scml`` have in common: one table of flags, each another name for a variable.

What a flag means, its default and its rule stand with the variable of the environment
(:mod:`resilient_exec.adapters.negmas.settings`); here is only how it is written on the command line.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resilient_exec.pool.options import LONGEST, size

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["add_pool_options", "seconds", "usage", "variables", "whole"]


def whole(text: str) -> int:
    """A whole number, 1 or more."""
    return _at_least(1, text)


def _not_negative(text: str) -> int:
    return _at_least(0, text)


def _at_least(least: int, text: str) -> int:
    number = int(text)
    if number < least:
        raise argparse.ArgumentTypeError(f"must be a whole number, {least} or more; got {text}")
    return number


def seconds(text: str) -> float:
    """A finite number of seconds, more than 0."""
    number = float(text)
    if not 0 < number < LONGEST:
        raise argparse.ArgumentTypeError(f"must be a finite number of seconds, more than 0; got {text}")
    return number


def _size(text: str) -> int:
    try:
        number = size("it", text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return number or 0


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


_FLAGS = tuple(
    _Flag(name, f"RESILIENT_EXEC_{variable}", kind, metavar, text)
    for name, variable, kind, metavar, text in (
        ("--workers", "WORKERS", whole, "N", "worker processes (default: one per CPU)"),
        (
            *("--timeout", "TIMEOUT", seconds, "S"),
            "seconds for one attempt at a world or negotiation (default: what the worlds declare, plus 5 %%)",
        ),
        (
            *("--memory-limit", "MEMORY_LIMIT", _size, "SIZE"),
            'what one worker and all that it starts may hold, such as "2GiB" (default: no limit)',
        ),
        ("--retries", "RETRIES", _not_negative, "N", "further attempts after a death (default: 2)"),
        (
            *("--seed", "SEED", _not_negative, "N"),
            "same scores for any number of workers, with and without retries (default: as it comes)",
        ),
        (
            *("--verify", "VERIFY", _not_negative, "N"),
            "run N worlds a second time, and tell where scores do not follow the --seed (default: 0)",
        ),
        ("--step-timeout", "STEP_TIMEOUT", seconds, "S", "count steps of an agent that took longer (default: none)"),
        ("--disqualify-after", "DISQUALIFY_AFTER", whole, "N", "a competitor that spoils N worlds plays no more"),
        ("--start-timeout", "START_TIMEOUT", seconds, "S", "seconds for a worker to start (default: 120)"),
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
    )
)


def add_pool_options(command: argparse.ArgumentParser) -> None:
    """Add them to a command."""
    pool = command.add_argument_group("the pool")
    for flag in _FLAGS:
        if flag.type is None:
            pool.add_argument(flag.name, action=argparse.BooleanOptionalAction, default=None, help=flag.help)
        else:
            pool.add_argument(flag.name, type=flag.type, metavar=flag.metavar, help=flag.help)


def usage() -> str:
    """All of them, for a line of usage."""
    return " ".join(f"[{flag.name}{f' {flag.metavar}' if flag.metavar else ''}]" for flag in _FLAGS)


def variables(arguments: argparse.Namespace) -> dict[str, str]:
    """Those that were given, as variables of the environment."""
    given = {flag.variable: getattr(arguments, flag.dest, None) for flag in _FLAGS}
    return {
        variable: str(int(value)) if isinstance(value, bool) else str(value)
        for variable, value in given.items()
        if value is not None
    }
