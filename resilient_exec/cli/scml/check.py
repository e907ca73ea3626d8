"""``resilient-exec scml check``: what would become of an agent in a league, told before it is handed in.

It is imported and made in a worker first, and then plays some small worlds against two of scml's own agents, under the
limits of the league.  Exit status 0: no problem was found; 1: one was.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resilient_exec.adapters import signals
from resilient_exec.cli.parsing import CommandError, new_parser, whole
from resilient_exec.cli.pool_options import add_pool_options, variables
from resilient_exec.cli.scml import competitors, verdict
from resilient_exec.cli.scml.options import check_settings, check_steps, installed
from resilient_exec.cli.scml.probe import probe
from resilient_exec.cli.scml.screen import Screen
from resilient_exec.cli.scml.words import in_command_line_words
from resilient_exec.cli.tables import paragraph, width_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from resilient_exec.adapters.negmas import Report
    from resilient_exec.cli.scml.competitors import Look, Named

__all__ = ["add_parser", "run"]

_OPPONENTS = {"std": ("GreedyStdAgent", "RandomStdAgent"), "oneshot": ("GreedyOneShotAgent", "RandomOneShotAgent")}
_TIMEOUT = 120.0  # s for a world, if none is given
_STEP_TIMEOUT = 2.0  # s of wall time for a step, if none is given
_LONG_IMPORT = 5.0  # s
_OUTPUT_LIMIT = 1 << 20  # bytes of what a world prints that are kept
_NAME = "check"


def add_parser(tracks: argparse._SubParsersAction[Any]) -> None:
    """Add the subcommand."""
    command = new_parser(
        tracks,
        "check",
        usage="[OPTION ...] MODULE:CLASS",
        title="try one agent before it is handed in",
        description=(
            "Import and make one agent in a worker, play some small worlds with it, and tell\n"
            "what would become of it in a league.  Exit status: 0 no problem was found, 1 one\n"
            "was, 2 it could not be tried."
        ),
        examples=(
            "resilient-exec scml check my_agents:Mine",
            "resilient-exec scml check ./my_agents.py:Mine --memory-limit 2GiB",
            "resilient-exec scml check my_agents:Mine --seed 7 --verify 2",
        ),
    )
    command.is_intermixed = True
    command.add_argument("competitors", nargs="*", metavar="AGENT", help="module:Class, or ./file.py:Class")
    command.add_argument(
        "--track", dest="track_of", choices=["std", "oneshot"], help="of the agent, if its bases do not tell"
    )
    played = command.add_argument_group("what is played")
    played.add_argument("--configs", type=whole, default=2, metavar="N", help="different worlds (default: 2)")
    played.add_argument("--steps", type=whole, default=10, metavar="N", help="simulated days (default: 10)")
    add_pool_options(command, without=("--retries", "--disqualify-after", "--take-over"))
    output = command.add_argument_group("output")
    output.add_argument(
        "--output", metavar="DIR", help="keep everything there (default: a new folder, if there is a problem)"
    )
    output.add_argument("--verbose", action="store_true", help="show what the agent prints, too")
    output.add_argument("--quiet", action="store_true", help="no progress: only what is told at the end")
    output.add_argument("--json", action="store_true", help="what is told at the end, as JSON on stdout")
    command.set_defaults(run=run, resume=False)


def run(arguments: argparse.Namespace) -> int:
    """Try the agent; the exit status."""
    check_settings(arguments)
    if len(arguments.competitors) != 1:
        given = " ".join(arguments.competitors)
        raise CommandError(f"scml check takes one agent, as MODULE:CLASS; got {given!r}")
    named = competitors.parse(arguments.competitors[0])
    if arguments.output and Path(arguments.output).exists():
        raise CommandError(f"{arguments.output} exists; name another --output")
    with signals.as_interrupts():
        try:
            return _Check(arguments, named).run()
        except KeyboardInterrupt as error:
            print("resilient-exec: interrupted", file=sys.stderr)
            return signals.status_of(error)


class _Check:
    """One call of the command."""

    def __init__(self, arguments: argparse.Namespace, named: Named) -> None:
        from resilient_exec.adapters.negmas import settings

        self.arguments = arguments
        self.named = named
        self.screen = Screen(is_quiet=arguments.quiet)
        self.options: dict[str, Any] = settings.from_environment()
        self.options |= settings.from_environment(variables(arguments))
        self.timeout: float = self.options.get("timeout") or _TIMEOUT
        self.is_kept = bool(arguments.output)
        self.step_timeout: float = self.options.get("step_timeout") or _STEP_TIMEOUT

    def run(self) -> int:
        """The exit status."""
        sys.path.insert(0, str(Path.cwd()))
        self.screen.say(f"importing {self.named.text} ...")
        with installed():
            found = _probe(self.named, self.options)
        problems = [verdict.Problem(text) for text in found.problems]
        remarks = list(found.remarks)
        row, report = None, None
        if not problems:
            track = self._track(found)
            check_steps(track, self.arguments.steps)
            if found.seconds > _LONG_IMPORT:
                remarks.append(f"its import takes {found.seconds:.1f} s, in each worker")
            with self._folder() as folder:
                report = self._play(track, folder)
                row = next((row for row in report.health if row.competitor == found.name), None)
                problems += verdict.problems_of(found.name, row, report, self.step_timeout, self.timeout)
                self.is_kept = bool(problems or self.arguments.output)
            remarks += [f"its worlds do not follow the seed: {one}" for one in report.unsteady]
            remarks += [report.blind] if report.blind else []
            if self.is_kept:
                remarks.append(f"everything about it is kept in {folder}")
        self._tell(problems, remarks, row, report)
        return 1 if problems else 0

    def _track(self, found: Look) -> str:
        track: str = self.arguments.track_of or found.track
        if track not in _OPPONENTS:
            raise CommandError(f"{found.name} is neither a StdAgent nor a OneShotAgent: say --track std or oneshot")
        return track

    def _play(self, track: str, folder: Path) -> Report:
        from scml import utils

        from resilient_exec.adapters import negmas as adapter
        from resilient_exec.adapters.negmas.report import audience

        arguments, named = self.arguments, self.named
        prints = "both" if arguments.verbose else "file"
        options = {**self.options, "timeout": self.timeout, "step_timeout": self.step_timeout, "retry": 1}
        options |= {"output": prints, "output_limit": self.options.get("output_limit", _OUTPUT_LIMIT)}
        before = adapter.last_report()
        with (
            self.screen.alone(verbose=self.arguments.verbose),
            adapter.options(**options),
            audience.telling(self.screen),
        ):
            agents = importlib.import_module(f"scml.{track}.agents")
            opponents = [getattr(agents, name) for name in _OPPONENTS[track]]
            agent = getattr(importlib.import_module(named.module or f"scml.{track}.agents"), named.name)
            try:
                getattr(utils, f"anac2024_{track}")(
                    [agent, opponents[0] if agent is not opponents[0] else opponents[1]],
                    n_configs=arguments.configs,
                    n_runs_per_world=1,
                    n_steps=arguments.steps,
                    n_competitors_per_world=2,
                    tournament_path=folder,
                    name=_NAME,
                    parallelism="resilient",
                )
            except adapter.CheckFailed as error:
                raise CommandError(in_command_line_words(str(error))) from error
            except Exception:
                report = adapter.last_report()
                if report is before or report is None or report.scored:
                    raise  # else no world has a score, and negmas has nothing to evaluate
        self.screen.ended()
        report = adapter.last_report()
        if report is None or report is before:
            raise RuntimeError("no world was played")
        return report

    @contextlib.contextmanager
    def _folder(self) -> Iterator[Path]:
        """A new folder for the worlds, removed at the end if it is not to be kept."""
        name = self.arguments.output or f"check-{self.named.name}-{time.strftime('%Y%m%d-%H%M%S')}"
        folder = Path(name).absolute()
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise CommandError(
                f"the worlds need a folder, and {folder} cannot be made ({error}): name an --output"
            ) from error
        try:
            yield folder
        finally:
            if not self.is_kept:
                shutil.rmtree(folder, ignore_errors=True)

    def _tell(self, problems: list[verdict.Problem], remarks: list[str], row: Any, report: Report | None) -> None:
        text = self.named.text
        if self.arguments.json:
            print(json.dumps(verdict.as_json(text, problems, remarks, row), indent=1))
            return
        width = width_of(sys.stdout)
        lines = [text]
        if row is not None and report is not None:
            lines += [f"  {title + ':':<18}{value}" for title, value in verdict.figures(row, report)]
        for problem in problems:
            for line in problem.lines():
                is_code = line.startswith(("    ", '  File "', "  Thread", "  Traceback"))
                lines += [line] if is_code or line.startswith("  more: ") else paragraph(line, width, "    ")
        for remark in remarks:
            lines += paragraph(f"remark: {remark}", width, "  ")
        count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
        lines.append(f"FAIL: {count}" if problems else "no problem found")
        print("\n".join(in_command_line_words(line) for line in lines))


def _probe(named: Named, options: dict[str, Any]) -> Look:
    """Import and make it in a worker; what is wrong is in its ``problems``.

    Raises:
        CommandError: there is no such module or class, or it is no agent.
    """
    from resilient_exec import ResilientPool

    if not named.module:
        raise CommandError(f"scml check takes an agent of yours, as MODULE:CLASS; got {named.text!r}")
    limits: dict[str, Any] = {"timeout": options.get("start_timeout", _TIMEOUT), "retry": 1, "output": "discard"}
    with ResilientPool(1, memory_limit=options.get("memory_limit"), **limits) as pool:
        future = pool.submit(probe, named.module, named.name, os.getcwd())
        error = future.exception()
    found = (
        future.result() if error is None else competitors.Look(error=competitors.fate_of_import(named.module, error))
    )
    if error is None and found.error and "importing" not in found.error:
        competitors.refuse({named: found})
    return competitors.Look(problems=(f"cannot be imported: {found.error}",)) if found.error else found
