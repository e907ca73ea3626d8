"""``resilient-exec watch``: follows a program, notices when it hangs, and says why."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resilient_exec.cli.parsing import CommandError, new_parser, seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["add_parser", "run"]

_NOT_FOUND, _NOT_EXECUTABLE = 127, 126  # as shells have it


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the subcommand."""
    command = new_parser(
        commands,
        "watch",
        title="follow any Python program; when it hangs, say why",
        usage="[OPTION ...] (-- COMMAND [ARGS ...] | PID)",
        description=(
            "Start a program, or follow one that runs, and tell every few seconds what it and\n"
            "its children do and how far its pools are (on stderr; its own output stays its\n"
            "own).  When nothing gets done any more, the stacks of all its threads and\n"
            "processes are shown, with the cause where it is one that is recognised.\n"
            "Exit status: the program's own; 75 after a stall with --exit-on-stall."
        ),
        examples=(
            "resilient-exec watch -- python tournament.py",
            "resilient-exec watch --every 1m --report hang.md -- python -m its.module",
            "resilient-exec watch --stall 2m --exit-on-stall -- pytest",
            "resilient-exec watch 4711",
        ),
    )
    command.add_argument(
        "--every", type=seconds, default=10.0, metavar="S", help="seconds between two lines (default: 10)"
    )
    command.add_argument(
        "--stall",
        type=seconds,
        default=30.0,
        metavar="S",
        help="seconds without a task done, or without any sign of life, after which it is examined (default: 30)",
    )
    command.add_argument(
        "--exit-on-stall", action="store_true", help="end the program after the report of a stall; exit status 75"
    )
    command.add_argument("--report", type=Path, metavar="FILE", help="write the report as Markdown, fit for an issue")
    command.add_argument("--log", type=Path, metavar="FILE", help="add each look to FILE, one JSON object a line")
    command.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="COMMAND", help="the program and its arguments, or the PID of one"
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Watch; the exit status."""
    from resilient_exec.diagnosis import watcher

    words = list(arguments.command)
    if words[:1] == ["--"]:
        words = words[1:]
    if not words:
        raise CommandError("watch needs what to watch: -- COMMAND ARGS ..., or the PID of a program that runs")
    if not sys.platform.startswith("linux"):
        raise CommandError(f"watch reads /proc, which {sys.platform} does not have: it needs Linux")
    for option in ("log", "report"):
        _check_writable(option, getattr(arguments, option))
    settings = watcher.Settings(
        every=arguments.every,
        stall=arguments.stall,
        exit_on_stall=arguments.exit_on_stall,
        report=arguments.report,
        log=arguments.log,
        say=watcher.say,
    )
    if len(words) == 1 and words[0].isdigit():
        return _watch_pid(int(words[0]), settings)
    return _start(words, settings)


def _check_writable(option: str, path: Path | None) -> None:
    if path is None:
        return
    is_new = not path.exists()
    try:
        with path.open("a", encoding="utf-8"):
            pass
        if is_new:
            path.unlink()  # it comes with something to say
    except OSError as error:
        raise CommandError(
            f"--{option} {path}: cannot be written: {error.strerror}; name a file in a folder of yours"
        ) from None


def _watch_pid(pid: int, settings: Any) -> int:
    from resilient_exec.diagnosis import watcher

    if not os.path.exists(f"/proc/{pid}"):
        raise CommandError(f"there is no process {pid}; `ps -ef` lists those that run")
    if os.stat(f"/proc/{pid}").st_uid != os.geteuid() and os.geteuid() != 0:
        raise CommandError(f"process {pid} is another user's: only that user, or root, can look at what it does")
    try:
        return watcher.watch(pid, settings)
    except KeyboardInterrupt:  # it goes on without us
        return 130


def _start(words: Sequence[str], settings: Any) -> int:
    from resilient_exec.diagnosis import watcher

    try:
        status = watcher.start(words, settings)
    except FileNotFoundError:
        print(f"resilient-exec: {words[0]}: there is no such command", file=sys.stderr)
        return _NOT_FOUND
    except OSError as error:
        print(f"resilient-exec: {words[0]} cannot be started: {error.strerror}", file=sys.stderr)
        return _NOT_EXECUTABLE
    if status < 0:
        _die_of(-status)
    return status


def _die_of(number: int) -> None:
    """End by the signal that has ended the program: whoever started us sees what it would have seen."""
    sys.stdout.flush()
    sys.stderr.flush()
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    import resource

    if number in (signal.SIGQUIT, signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE):
        resource.setrlimit(
            resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1])
        )  # the core is its own
    os.kill(os.getpid(), number)
