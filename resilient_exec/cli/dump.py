"""``resilient-exec dump``: where a program and the workers of its pools stand, now; or which of our pools run here."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from resilient_exec.cli.parsing import CommandError, new_parser, whole

if TYPE_CHECKING:
    import argparse

__all__ = ["add_parser", "run"]


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the subcommand."""
    command = new_parser(
        commands,
        "dump",
        title="show where a program and its workers stand, now",
        usage="[PID]",
        description=(
            "Show the Python stacks of a program and of all its processes, and of pools of\n"
            "resilient_exec each lane with its task, attempt, time, last note and last lines.\n"
            "Nothing is stopped for it.  Without a PID: list the programs of this user\n"
            "(root: of all) that have a ResilientPool at work.\n"
            "Exit status: 0; 1 if there is no such pool, or no stack could be taken."
        ),
        examples=("resilient-exec dump", "resilient-exec dump 4711"),
    )
    command.add_argument("pid", nargs="?", type=whole, metavar="PID", help="of the program")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """List or dump; the exit status."""
    if not sys.platform.startswith("linux"):
        raise CommandError(f"dump reads /proc, which {sys.platform} does not have: it needs Linux")
    from resilient_exec.diagnosis import dumping

    if arguments.pid is None:
        lines = dumping.pools_here(None if os.geteuid() == 0 else os.geteuid())
        print("\n".join(lines) or "no ResilientPool of yours is at work on this machine")
        return 0 if lines else 1
    if not os.path.exists(f"/proc/{arguments.pid}"):
        raise CommandError(f"there is no process {arguments.pid}; `ps -ef` lists those that run")
    if os.stat(f"/proc/{arguments.pid}").st_uid != os.geteuid() and os.geteuid() != 0:
        raise CommandError(
            f"process {arguments.pid} is another user's: only that user, or root, can look at what it does"
        )
    text, is_known = dumping.dump(arguments.pid)
    print(text)
    return 0 if is_known else 1
