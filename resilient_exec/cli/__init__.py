"""The command ``resilient-exec``: reads the arguments, calls the module of the subcommand.

Each subcommand is a module here with ``add_parser(commands)``, which says what it takes, and ``run(arguments)``, which
does it and returns the exit status.  ``docs/commands.md`` has all of them, with their options and exit statuses.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from resilient_exec.cli import doctor, dump, scml, status, watch
from resilient_exec.cli import run as run_command
from resilient_exec.cli.parsing import CommandError, Parser
from resilient_exec.pool.options import WrongSetting

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

__all__ = ["main", "parser"]

_COMMANDS = (run_command, scml, status, watch, dump, doctor)
"""The modules of the subcommands, in the order of the help; they import what takes long when they are run."""


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    from resilient_exec import __version__

    top = Parser(prog="resilient-exec", description="Run negmas and scml tournaments on a pool that does not hang.")
    top.add_argument("--version", action="version", version=f"resilient-exec {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add_parser(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """The command's entry point; its exit status."""
    arguments = parser().parse_args(argv)
    if arguments.run is run_command.run:
        run_command.run(arguments)  # outside of the `try`: what the script raises is between it and Python
        return 0
    try:
        status: int = arguments.run(arguments)
    except (CommandError, WrongSetting) as error:
        print(f"resilient-exec: {error}", file=sys.stderr)
        return 2
    return status
