"""``resilient-exec doctor``: the environment before the night, one line each, with the remedy."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resilient_exec.cli.parsing import CommandError, new_parser, whole

if TYPE_CHECKING:
    import argparse

    from resilient_exec.diagnosis.environment import Check, Environment

__all__ = ["add_parser", "run", "say_what_is_bad"]

_IMPORT_TIMEOUT = 120.0  # s
_NOT_FOR_OURS = ("python", "negmas", "pandas")  # no matter for our pool, or refused by the adapter anyway


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the subcommand."""
    command = new_parser(
        commands,
        "doctor",
        title="look at the environment before a long run",
        usage="[OPTION ...] [MODULE:CLASS ...]",
        description=(
            "Look at Python, negmas and its companions, limits, memory, disks, clock and\n"
            "streams, and say what would go wrong in a long run, with the remedy.\n"
            "Competitors that are named are imported in a worker.\n"
            "Exit status: 0, or 1 if something is bad."
        ),
        examples=(
            "resilient-exec doctor",
            "resilient-exec doctor my_agents:Mine their_agents:Theirs --output night",
            "resilient-exec doctor --json --workers 32",
        ),
    )
    command.add_argument("agents", nargs="*", metavar="MODULE:CLASS", help="competitors to import in a worker")
    command.add_argument(
        "--workers", type=whole, metavar="N", help="workers that are to run (default: as pools choose)"
    )
    command.add_argument("--output", type=Path, metavar="DIR", help="folder for the results (default: this one)")
    command.add_argument("--json", action="store_true", help="one JSON object in place of lines")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Look and tell; the exit status."""
    for name in arguments.agents:
        if ":" not in name:
            raise CommandError(f"{name!r} is no competitor: write MODULE:CLASS, such as my_agents:Mine")
    seen = _look(arguments.workers, arguments.output)
    seen = replace(seen, agents={name: _import_in_worker(name) for name in arguments.agents})
    from resilient_exec.diagnosis.environment import judge

    checks = judge(seen)
    if arguments.json:
        print(json.dumps({"checks": [asdict(check) for check in checks]}, indent=2))
    else:
        for check in checks:
            print(_line(check))
    return 1 if any(check.level == "bad" for check in checks) else 0


def _line(check: Check) -> str:
    remedy = f"\n      -> {check.remedy}" if check.remedy else ""
    return f"{check.level:4}  {check.text}{remedy}"


def _look(workers: int | None, output: Path | None) -> Environment:
    import loky

    from resilient_exec.diagnosis import surroundings

    folder = (output or Path.cwd()).absolute()
    while not folder.exists():  # it will be made
        folder = folder.parent
    return surroundings.read(workers or loky.cpu_count(), [folder])


def say_what_is_bad(workers: int | None, output: Path | None) -> None:
    """In short, before a tournament on our pool: only what is bad for it, on stderr."""
    from resilient_exec.diagnosis.environment import judge

    for check in judge(_look(workers, output)):
        if check.level == "bad" and check.name not in _NOT_FOR_OURS:
            print(f"resilient-exec: beware: {check.text} -> {check.remedy}", file=sys.stderr)


def _import(name: str, folder: str) -> str:
    """In a worker: what is wrong with the class; ``""``: nothing."""
    sys.path.insert(0, folder)
    module_name, _, class_name = name.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name, None)
    except Exception as error:
        return f"cannot be imported: {module_name} raises {type(error).__name__}: {error}"
    return "" if isinstance(found, type) else f"cannot be imported: {module_name} has no class {class_name!r}"


def _import_in_worker(name: str) -> str:
    from resilient_exec import AttemptError, ResilientPool

    with ResilientPool(1, output="discard", timeout=_IMPORT_TIMEOUT, retry=1) as pool:
        future = pool.submit(_import, name, str(Path.cwd()))
        error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, AttemptError):
        return f"ends its worker when it is imported: {str(error).partition('; attempt')[0]}"
    return f"cannot be imported: it raises {type(error).__name__}: {error}"
