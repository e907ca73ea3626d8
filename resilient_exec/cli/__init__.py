"""The command ``resilient-exec``: reads the arguments, calls what does the work.

Exit status: that of the script for ``run``; for ``scml`` 0 if every world was scored, 3 if some were not (the ranking
is there, and what it is worth stands beside it), 130 after a Ctrl-C; for ``scml check`` 0 if all is well, 1 if not;
2 for arguments, or ``RESILIENT_EXEC_*`` variables, that cannot be.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from resilient_exec.cli.pool_options import add_pool_options, seconds, usage, whole
from resilient_exec.pool.options import WrongSetting

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PRESETS", "main", "parser"]


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    from resilient_exec import __version__

    top = argparse.ArgumentParser(
        prog="resilient-exec", description="Run negmas and scml tournaments on a pool that does not hang."
    )
    top.add_argument("--version", action="version", version=f"resilient-exec {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_run(commands)
    _add_scml(commands)
    return top


def _add_run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    run = commands.add_parser(
        "run",
        help="run a script or module as it is; its parallel tournaments go through the pool",
        usage=f"resilient-exec run {usage()} (SCRIPT.py | -m MODULE) [ARGS ...]",
        description=(
            "Run a Python script or module unchanged. What it asks of negmas with parallelism='parallel', and its "
            "cartesian_tournament, goes through the pool. Exit status, stdout and Ctrl-C are the script's own."
        ),
    )
    add_pool_options(run)
    run.add_argument("-m", dest="is_module", action="store_true", help="TARGET is a module, as in python -m")
    run.add_argument("target", metavar="TARGET", help="the script's path, or with -m the module's name")
    run.add_argument("args", nargs=argparse.REMAINDER, metavar="ARGS", help="the script's own arguments")


PRESETS = {
    "quick": {"configs": 2, "runs": 1, "steps": 10, "per_world": 2},
    "full": {"configs": 10, "runs": 2, "steps": 50, "per_world": 2},
}
"""What ``scml --preset`` stands for: minutes on a laptop, or a night."""


def _preset(name: str) -> tuple[str, str]:
    return name, ", ".join(f"--{option.replace('_', '-')} {value}" for option, value in PRESETS[name].items())


def _add_scml(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    scml = commands.add_parser(
        "scml",
        help="run an SCML tournament among named competitors",
        description="Run an SCML tournament; show the ranking, what failed and why, and where everything lies.",
    )
    scml.add_argument(
        "track",
        choices=["std", "oneshot", "check"],
        help="the league's track (by the rules of 2024); check: try one agent before it is handed in",
    )
    scml.add_argument(
        "--track",
        dest="track_of",
        choices=["std", "oneshot"],
        help="of the agent to check, if its bases do not tell",
    )
    scml.add_argument(
        "competitors",
        nargs="*",
        metavar="COMPETITOR",
        help="module:Class, or the bare name of one of scml's own agents (default: three of these)",
    )
    scml.add_argument("--league", type=int, metavar="YEAR", help="add that year's agents from the scml-agents package")
    scml.add_argument(
        "--preset",
        choices=list(PRESETS),
        default="quick",
        help="; ".join(f"{name}: {words}" for name, words in map(_preset, PRESETS)) + " (default: quick)",
    )
    for option, text in (
        ("--configs", "different worlds, before competitors are assigned"),
        ("--runs", "runs of each assignment"),
        ("--steps", "simulated days"),
        ("--per-world", "competitors in one world"),
    ):
        scml.add_argument(option, type=whole, metavar="N", help=f"{text} (default: the preset's)")
    scml.add_argument("--total-timeout", type=seconds, metavar="S", help="seconds for the whole tournament")
    scml.add_argument("--output", metavar="DIR", help="folder for everything (default: a new one, here)")
    scml.add_argument("--resume", action="store_true", help="go on with the tournament in --output")
    scml.add_argument("--verbose", action="store_true", help="let negmas and the agents print")
    add_pool_options(scml)


def main(argv: Sequence[str] | None = None) -> int:
    """The command's entry point; its exit status."""
    arguments = parser().parse_args(argv)
    for option, value in PRESETS.get(getattr(arguments, "preset", ""), {}).items():
        if getattr(arguments, option) is None:
            setattr(arguments, option, value)
    if arguments.command == "run":
        from resilient_exec.cli.run import run

        run(arguments)
        return 0
    from resilient_exec.cli.scml import CommandError, check_settings, tournament

    try:
        check_settings(arguments)
        if arguments.track == "check":
            from resilient_exec.cli.check import check

            return check(arguments)
        return tournament(arguments)
    except (CommandError, WrongSetting) as error:
        print(f"resilient-exec: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nresilient-exec: interrupted; go on with --resume", file=sys.stderr)
        return 130
