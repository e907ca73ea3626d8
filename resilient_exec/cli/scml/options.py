"""What ``resilient-exec scml std`` and ``oneshot`` take, and what is looked at before anything is loaded."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from resilient_exec.cli.parsing import CommandError, new_parser, output_limit, seconds, whole
from resilient_exec.cli.pool_options import add_pool_options, flags_of, variables

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

__all__ = [
    "LOGS",
    "NAME",
    "PRESETS",
    "TRACKS",
    "add_options",
    "apply_preset",
    "check_settings",
    "check_steps",
    "installed",
    "played",
]

LOGS: dict[str, dict[str, Any]] = {
    "none": {"compact": True, "forced_logs_fraction": 0.0},
    "tables": {},
    "all": {"log_negotiations": True, "log_ufuns": True},
}
"""What ``--logs`` stands for."""
NAME = "tournament"
TRACKS = {
    "std": ("GreedyStdAgent", "RandomStdAgent", "SyncRandomStdAgent"),
    "oneshot": ("GreedyOneShotAgent", "RandomOneShotAgent", "RandDistOneShotAgent"),
}

_LEAST_STEPS = {"std": 5, "oneshot": 3}  # the most products that a world may have


PRESETS = {
    "quick": {"configs": 2, "runs": 1, "steps": 10, "per_world": 2},
    "full": {"configs": 10, "runs": 2, "steps": 50, "per_world": 2},
}
"""What ``--preset`` stands for: minutes on a laptop, or a night."""


def add_options(tracks: argparse._SubParsersAction[Any], track: str) -> argparse.ArgumentParser:
    """Add the subcommand of a track, with all that it takes."""
    first = TRACKS[track][0]
    command = new_parser(
        tracks,
        track,
        usage="[OPTION ...] [COMPETITOR ...]",
        title=f"a tournament of the {track} track",
        description=(
            f"Run a tournament of the {track} track (by the rules of 2024); show the\n"
            "ranking, what failed and why, and where everything lies."
        ),
        examples=(
            f"resilient-exec scml {track} my_agents:Mine {first}",
            f"resilient-exec scml {track} my_agents:Mine --preset full --output night",
            f"resilient-exec scml {track} --resume --output night   # go on after a Ctrl-C",
        ),
    )
    command.is_intermixed = True
    command.add_argument(
        "competitors",
        nargs="*",
        metavar="COMPETITOR",
        help="module:Class, or the bare name of one of scml's own agents (default: three of these)",
    )
    _add_what_is_played(command)
    add_pool_options(command)
    output = command.add_argument_group("output")
    output.add_argument("--output", metavar="DIR", help="folder for everything (default: a new one, here)")
    output.add_argument(
        "--logs",
        choices=list(LOGS),
        default="tables",
        help="what negmas keeps of each world: none; tables of it; all, with each negotiation (default: tables)",
    )
    output.add_argument(
        "--output-limit",
        type=output_limit,
        metavar="SIZE",
        help="of what a world prints into its file (default: 1MiB)",
    )
    output.add_argument("--verbose", action="store_true", help="what negmas and the agents print is shown, too")
    output.add_argument("--quiet", action="store_true", help="no progress: only what is told at the end")
    output.add_argument("--json", action="store_true", help="what is told at the end, as JSON on stdout")
    output.add_argument("--dry-run", action="store_true", help="say what would be run, and run nothing")
    going_on = command.add_argument_group("going on")
    going_on.add_argument(
        "--resume", action="store_true", help="go on with the tournament in --output, with the options of its begin"
    )
    going_on.add_argument("--retry-failed", action="store_true", help="with --resume: also run again what failed")
    return command


def _add_what_is_played(command: argparse.ArgumentParser) -> None:
    played = command.add_argument_group("what is played")
    played.add_argument("--league", type=int, metavar="YEAR", help="add that year's agents of the package scml-agents")
    played.add_argument(
        "--preset",
        choices=list(PRESETS),
        default="quick",
        help="; ".join(f"{name}: {' '.join(flags_of(values))}" for name, values in PRESETS.items())
        + " (default: quick)",
    )
    for option, text in (
        ("--configs", "different worlds, before competitors are assigned"),
        ("--runs", "runs of each assignment"),
        ("--steps", "simulated days"),
        ("--per-world", "competitors in one world"),
    ):
        played.add_argument(option, type=whole, metavar="N", help=f"{text} (default: the preset's)")
    played.add_argument("--total-timeout", type=seconds, metavar="T", help="for the whole tournament (default: none)")


def apply_preset(arguments: argparse.Namespace) -> None:
    """Fill in what was not given."""
    for option, value in PRESETS[arguments.preset].items():
        if getattr(arguments, option) is None:
            setattr(arguments, option, value)


def check_settings(arguments: argparse.Namespace) -> None:
    """Look at the environment and the arguments together, before anything is loaded that takes seconds.

    Raises:
        CommandError, WrongSetting: something cannot be.
    """
    with installed():
        from resilient_exec.adapters.negmas import settings
    given = {**settings.from_environment(), **settings.from_environment(variables(arguments))}
    if given.get("verify") and given.get("seed") is None and not arguments.resume:
        raise CommandError("--verify (RESILIENT_EXEC_VERIFY) compares what a seed has made: give one, such as --seed 7")


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Say it plainly where negmas or scml is missing.

    Raises:
        CommandError: one of them is.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise CommandError(f"{error}; install it with: pip install negmas scml") from error


def check_steps(track: str, steps: int) -> None:
    """Refuse worlds that scml cannot make.

    Raises:
        CommandError: how many steps it takes.
    """
    if steps < _LEAST_STEPS[track]:
        raise CommandError(
            f"--steps is {steps}, but {track} needs {_LEAST_STEPS[track]} or more: scml cannot price the products of a "
            "world that has fewer steps than products"
        )


def played(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments of scml's function that say which worlds are made."""
    return {
        "n_configs": arguments.configs,
        "n_runs_per_world": arguments.runs,
        "n_steps": arguments.steps,
        "n_competitors_per_world": arguments.per_world,
        **LOGS[arguments.logs],
    }
