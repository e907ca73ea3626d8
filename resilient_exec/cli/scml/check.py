"""``resilient-exec scml check``: what would become of an agent in a league, told before it is handed in.

It is imported and made in a worker first, where it may do what it likes, and then plays some small worlds against two
of scml's own agents, under the limits of the league.  Exit status 0: all is well; 1: it would not fare well.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resilient_exec.cli.parsing import CommandError, new_parser, whole
from resilient_exec.cli.pool_options import add_pool_options, variables

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from resilient_exec.adapters.negmas import Report, TaskReport
    from resilient_exec.adapters.negmas.blame.health import Health

__all__ = ["Probe", "add_parser", "probe", "run", "verdicts"]

_OPPONENTS = {"std": ("GreedyStdAgent", "RandomStdAgent"), "oneshot": ("GreedyOneShotAgent", "RandomOneShotAgent")}
_TIMEOUT = 120.0  # s, for the import and for a world, where none is given
_MUCH = 10 << 20  # bytes that a world may print
_LONG_IMPORT = 5.0  # s
_MIB = 2**20


def add_parser(tracks: argparse._SubParsersAction[Any]) -> None:
    """Add the subcommand."""
    command = new_parser(
        tracks,
        "check",
        usage="[OPTION ...] MODULE:CLASS",
        title="try one agent before it is handed in",
        description=(
            "Import and make one agent in a worker, play some small worlds with it,\n"
            "and tell what would become of it in a league."
        ),
        examples=(
            "resilient-exec scml check my_agents:Mine",
            "resilient-exec scml check my_agents:Mine --step-timeout 2 --memory-limit 2GiB",
        ),
    )
    command.is_intermixed = True
    command.add_argument("competitors", nargs="*", metavar="AGENT", help="module:Class")
    command.add_argument(
        "--track", dest="track_of", choices=["std", "oneshot"], help="of the agent, if its bases do not tell"
    )
    played = command.add_argument_group("what is played")
    played.add_argument("--configs", type=whole, default=2, metavar="N", help="different worlds (default: 2)")
    played.add_argument("--steps", type=whole, default=10, metavar="N", help="simulated days (default: 10)")
    add_pool_options(command, without=("--retries", "--disqualify-after", "--take-over"))
    command.set_defaults(run=run, resume=False)


@dataclass(frozen=True)
class Probe:
    """What was found out about a class before it plays.

    Attributes:
        name: its full name.
        track: ``std``, ``oneshot``, or ``""`` if its bases do not tell.
        seconds: that its import took.
        problems: why it cannot play.
        remarks: what does no harm here.
    """

    name: str = ""
    track: str = ""
    seconds: float = 0.0
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def probe(module_name: str, class_name: str, folder: str) -> Probe:
    """In a worker: import the class, find it again by its name, make one."""
    import scml.oneshot
    import scml.std  # noqa: F401  it is not the agent's doing that these take seconds

    sys.path.insert(0, folder)
    began = time.perf_counter()
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        return Probe(problems=(f"cannot be imported: {module_name} raises {_text(error)}",))
    seconds = time.perf_counter() - began
    kind: Any = getattr(module, class_name, None)
    if not isinstance(kind, type):
        return Probe(problems=(f"cannot be imported: {module_name} has no class {class_name!r}",))
    name = f"{kind.__module__}.{kind.__name__}"
    found = getattr(sys.modules.get(kind.__module__), kind.__name__, None)
    problems, remarks = [], []
    if found is not kind:
        problems.append(f"is not picklable: {name} is not the class itself; define it under its own name in a module")
    else:
        try:
            pickle.dumps(kind)
        except Exception as error:
            problems.append(f"is not picklable: {_text(error)}")
    try:
        one = kind()
    except Exception as error:
        problems.append(f"cannot be made: {class_name}() raises {_text(error)}")
    else:
        remarks += _keeps(one)
    return Probe(name, _track(kind), seconds, tuple(problems), tuple(remarks))


def _keeps(one: object) -> list[str]:
    from resilient_exec.wire import payload

    try:
        payload.pack_value(one, fresh_locks=False)
    except Exception as error:
        return [f"keeps what cannot be pickled (locks, files); no harm here, but its worlds cannot be saved: {error}"]
    return []


def _track(kind: type) -> str:
    from scml.oneshot import OneShotAgent
    from scml.std import StdAgent

    return "std" if issubclass(kind, StdAgent) else "oneshot" if issubclass(kind, OneShotAgent) else ""


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def run(arguments: argparse.Namespace) -> int:
    """Try the agent; the exit status."""
    from resilient_exec.cli.scml.options import check_settings, check_steps

    check_settings(arguments)

    if len(arguments.competitors) != 1 or ":" not in arguments.competitors[0]:
        raise CommandError("scml check takes one agent, as MODULE:CLASS; got " + repr(" ".join(arguments.competitors)))
    module_name, _, class_name = arguments.competitors[0].partition(":")
    timeout = arguments.timeout or _TIMEOUT
    found = _probe(module_name, class_name, timeout, arguments.memory_limit)
    problems = list(found.problems)
    if not problems:
        track = arguments.track_of or found.track
        if track not in _OPPONENTS:
            raise CommandError(f"{found.name} is neither a StdAgent nor a OneShotAgent: say --track std or oneshot")
        check_steps(track, arguments.steps)
        if found.seconds > _LONG_IMPORT:
            _say(f"remark: its import takes {found.seconds:.1f} s, in each worker")
        report = _play(module_name, class_name, track, timeout, arguments)
        row = next((row for row in report.health if row.competitor == found.name), None)
        problems += verdicts(found.name, row, report, arguments.step_timeout)
        if row is not None:
            _say(_figures(row))
        if report.blind:
            _say(f"remark: {report.blind}")
    for remark in found.remarks:
        _say(f"remark: {remark}")
    for problem in problems:
        _say(f"{arguments.competitors[0]} {problem}")
    _say(f"{arguments.competitors[0]}: {'it would not fare well' if problems else 'fine'}")
    return 1 if problems else 0


def _say(text: str) -> None:
    print(text)


def _probe(module_name: str, class_name: str, timeout: float, memory_limit: int | None) -> Probe:
    from resilient_exec import AttemptError, ResilientPool
    from resilient_exec.model.errors import MemoryLimitExceeded, TaskTimeout

    with ResilientPool(1, output="discard", memory_limit=memory_limit, timeout=timeout, retry=1) as pool:
        error = (future := pool.submit(probe, module_name, class_name, str(Path.cwd()))).exception()
        if error is None:
            found: Probe = future.result()
            return found
    if isinstance(error, TaskTimeout):
        return Probe(problems=(f"hangs: importing and making it took longer than {timeout:g} s",))
    if isinstance(error, MemoryLimitExceeded):
        return Probe(problems=("grows: it is over the memory limit when it is imported and made",))
    if isinstance(error, AttemptError):
        return Probe(problems=(f"dies when it is imported or made: {str(error).partition('; attempt')[0]}",))
    return Probe(problems=(f"cannot be imported: it raises {_text(error)}",))


def _play(module_name: str, class_name: str, track: str, timeout: float, arguments: argparse.Namespace) -> Report:
    from scml import utils

    from resilient_exec.adapters import negmas as adapter
    from resilient_exec.adapters.negmas import settings

    options: dict[str, Any] = settings.from_environment(variables(arguments))
    options |= {"timeout": timeout, "retry": 1, "output_limit": 1 << 30}
    refused = None
    with tempfile.TemporaryDirectory(prefix="resilient-check-") as folder, _quiet(), adapter.options(**options):
        sys.path.insert(0, str(Path.cwd()))  # and in the workers, which begin with this process's
        agents = importlib.import_module(f"scml.{track}.agents")
        opponents = [getattr(agents, name) for name in _OPPONENTS[track]]
        agent = getattr(importlib.import_module(module_name), class_name)
        try:
            getattr(utils, f"anac2024_{track}")(
                [agent, opponents[0] if agent is not opponents[0] else opponents[1]],
                n_configs=arguments.configs,
                n_runs_per_world=1,
                n_steps=arguments.steps,
                n_competitors_per_world=2,
                tournament_path=folder,
                parallelism="resilient",
            )
        except adapter.CheckFailed as error:
            refused = error
        except Exception:  # no world has a score: negmas has nothing to evaluate
            pass
    if refused is not None:
        raise CommandError(str(refused)) from refused
    report = adapter.last_report()
    if report is None:
        raise RuntimeError("no world was played")
    return report


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Let nothing of what the worlds print through: an agent may print gigabytes."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [(fd, os.dup(fd)) for fd in (1, 2)]
    with open(os.devnull, "wb") as nowhere:
        try:
            for fd, _ in kept:
                os.dup2(nowhere.fileno(), fd)
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for fd, copy in kept:
                os.dup2(copy, fd)
                os.close(copy)


def verdicts(name: str, row: Health | None, report: Report, step_timeout: float | None) -> list[str]:
    """What is to be said against it, in plain words."""
    if row is None:
        return ["did not play in any world"]
    lost = [task for task in report.missing if task.status == "failed"]
    said = [_fate(name, task, len(report.tasks)) for task in _one_per_fault(name, lost)]
    if row.exceptions:
        said.append(f"raises: {row.exceptions} exceptions in worlds that went on without its answers")
    if row.slow_steps:
        said.append(
            f"is slow: {row.slow_steps} of {row.steps} steps took longer than {step_timeout:g} s, the longest "
            f"{row.wall_worst:.1f} s"
        )
    printed = max((task.printed or 0 for task in report.tasks), default=0)
    if printed > _MUCH:
        said.append(f"prints: {printed / _MIB:.0f} MiB in one world")
    return said


def _one_per_fault(name: str, lost: list[TaskReport]) -> list[TaskReport]:
    by_fault: dict[str, TaskReport] = {}
    for task in lost:
        last = task.on_stage[-1] if task.on_stage else None
        by_fault.setdefault(last.fault if last is not None and last.competitor == name else "", task)
    return list(by_fault.values())


def _fate(name: str, task: TaskReport, worlds: int) -> str:
    last = task.on_stage[-1] if task.on_stage else None
    why = task.history[-1] if task.history else task.reason.splitlines()[0]
    if last is None or last.competitor != name:
        return f"had a world fail, though it was not seen on stage: {why}"
    words = {"timed_out": "hangs", "died": "dies", "out_of_memory": "grows", "raised": "raises"}
    where = f"in {last.method}" + (f" at step {last.step}" if last.step is not None and last.step >= 0 else "")
    return f"{words.get(last.fault, 'fails')} {where}, in one of {worlds} worlds at least: {why}"


def _figures(row: Health) -> str:
    return (
        f"{row.scored} of {row.worlds} worlds scored; CPU per step {1000 * row.cpu_median:.1f} ms (median), "
        f"{1000 * row.cpu_p95:.1f} ms (95 %), {1000 * row.cpu_worst:.1f} ms (worst); its worker grew by "
        f"{row.grown / _MIB:.0f} MiB, to {row.peak_memory / _MIB:.0f} MiB"
    )
