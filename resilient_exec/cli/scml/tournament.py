"""``resilient-exec scml std`` and ``oneshot``: a tournament among named competitors, its ranking, its failures."""

from __future__ import annotations

import contextlib
import importlib
import json
import shlex
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resilient_exec.adapters import signals
from resilient_exec.cli import doctor
from resilient_exec.cli.parsing import CommandError
from resilient_exec.cli.pool_options import given_by_environment, variables
from resilient_exec.cli.scml import competitors, dry_run, saved, summary
from resilient_exec.cli.scml.options import (
    NAME,
    TRACKS,
    add_options,
    apply_preset,
    check_settings,
    check_steps,
    installed,
    played,
)
from resilient_exec.cli.scml.screen import Screen
from resilient_exec.cli.scml.words import in_command_line_words
from resilient_exec.cli.tables import width_of
from resilient_exec.pool.durations import short

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from resilient_exec.adapters.negmas import Report

__all__ = ["add_parsers", "run"]

SOME_WORLDS_MISSING = 3  # exit status
_OUTPUT_LIMIT = 1 << 20  # bytes of what a world prints
_OF_ONE_RUN = {"RESILIENT_EXEC_TAKE_OVER", "RESILIENT_EXEC_RETRY_FAILED", "RESILIENT_EXEC_OUTPUT"}  # not kept


def add_parsers(tracks: argparse._SubParsersAction[Any]) -> None:
    """Add ``std`` and ``oneshot``."""
    for track in TRACKS:
        add_options(tracks, track).set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run or resume a tournament; the exit status."""
    if arguments.retry_failed and not arguments.resume:
        raise CommandError("--retry-failed goes with --resume: in a new tournament nothing has failed yet")
    apply_preset(arguments)
    check_settings(arguments)
    doctor.say_what_is_bad(arguments.workers, Path(arguments.output) if arguments.output else None)
    with signals.as_interrupts():
        try:
            return Tournament(arguments).run()
        except KeyboardInterrupt as error:
            return signals.status_of(error)


class Tournament:
    """One call of the command."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.track: str = arguments.track
        # What was given by the environment is an option of this tournament like one of the command line.
        self.given = {**given_by_environment(), **variables(arguments)}
        self.variables = dict(self.given)
        self.screen = Screen(is_quiet=arguments.quiet, on_folder=self._keep_options)
        self.refused: Exception | None = None

    def run(self) -> int:
        """The exit status."""
        arguments = self.arguments
        # Workers import competitors by name, with this path: a participant's own file lies here, as for `python -m`.
        sys.path.insert(0, str(Path.cwd()))
        try:
            if arguments.resume:
                return self._play(self._resuming())
            check_steps(self.track, arguments.steps)
            names = [competitors.parse(text) for text in self._names()]
            output = self._new_folder()
            self.screen.say("importing negmas and scml ...")
            kinds = self._competitors(names)
            if arguments.dry_run:
                return dry_run.tell(arguments, kinds, self._options())
            return self._play(self._starting(kinds, output))
        finally:
            sys.path.pop(0)

    def _names(self) -> list[str]:
        named: list[str] = self.arguments.competitors
        return named or ([] if self.arguments.league else list(TRACKS[self.track]))

    def _new_folder(self) -> Path:
        name = self.arguments.output or f"scml-{self.track}-{time.strftime('%Y%m%d-%H%M%S')}"
        output = Path(name).absolute()
        if any(output.glob(f"{NAME}*")):
            raise CommandError(
                f"{name} holds a tournament already; go on with it by: {self._command_to_resume(name)}; or name "
                "another --output"
            )
        return output

    def _command_to_resume(self, output: str) -> str:
        return shlex.join(["resilient-exec", "scml", self.track, "--resume", "--output", output])

    # -- who plays

    def _competitors(self, names: list[competitors.Named]) -> list[type]:
        arguments = self.arguments
        with self.screen.alone(verbose=self.arguments.verbose):
            own = [one for one in names if one.module]
            options = self._options()
            limits = {"start_timeout": options.get("start_timeout", 120.0), "memory_limit": options.get("memory_limit")}
            with ThreadPoolExecutor(1) as aside, installed():
                looking = aside.submit(competitors.look, own, **limits)
                importlib.import_module("scml.utils")  # seconds, in which the workers import it, too
                looks = looking.result()
            competitors.refuse(looks)
            kinds = competitors.classes_of(names, self.track)
            if arguments.league:
                kinds += [kind for kind in _league(arguments.league, self.track) if kind not in kinds]
        if len(kinds) < 2:
            raise CommandError(f"a tournament needs two competitors or more; got {len(kinds)}")
        if arguments.per_world > len(kinds):
            raise CommandError(f"--per-world is {arguments.per_world}, but there are only {len(kinds)} competitors")
        return kinds

    def _options(self) -> dict[str, Any]:
        """The options of the adapter."""
        from resilient_exec.adapters.negmas import settings

        options = settings.from_environment(self.variables)
        arguments = self.arguments
        limit = options.get("output_limit", _OUTPUT_LIMIT) if arguments.output_limit is None else arguments.output_limit
        options |= {"output": "both" if arguments.verbose else "file", "output_limit": limit}
        return options | {"retry_failed": not arguments.resume or arguments.retry_failed}

    # -- how it is begun, and gone on with

    def _starting(self, kinds: list[type], output: Path) -> Callable[[], Any]:
        from scml import utils

        from resilient_exec.adapters.negmas.worlds.seeding import reseed

        arguments = self.arguments
        output.mkdir(parents=True, exist_ok=True)
        self.screen.say(f"{len(kinds)} competitors; creating the worlds in {output} ...")
        seed = self._options().get("seed")

        def start() -> Any:
            if seed is not None:
                reseed(seed)  # so that the same tournament is created from the same seed
            return getattr(utils, f"anac2024_{self.track}")(
                kinds,
                **played(arguments),
                tournament_path=output,
                name=NAME,
                total_timeout=arguments.total_timeout,
                parallelism="resilient",
                verbose=arguments.verbose,
            )

        return start

    def _resuming(self) -> Callable[[], Any]:
        arguments = self.arguments
        if not arguments.output:
            raise CommandError("--resume needs --output: the folder of the tournament to go on with")
        output = Path(arguments.output).absolute()
        found = sorted(path.parent for path in output.glob("*/params.json"))
        if (output / "assigned_configs.json").is_file():  # the tournament's own folder, not the one around it
            found = [output]
        if not found:
            raise CommandError(
                f"there is no tournament in {arguments.output} to go on with (no */params.json); if it was interrupted "
                "while it was created, remove the folder and start anew"
            )
        folder = found[-1]
        kept = saved.load(folder)
        self.variables, changed = saved.merged(kept.get("variables", {}), self.given)
        total_timeout = arguments.total_timeout or kept.get("total_timeout")
        options = " ".join(saved.as_flags(self.variables)) or "none"
        self.screen.say(f"going on with {folder}, with its options: {options}")
        for one in changed if kept else ():
            self.screen.say(f"other than at its begin: {one}")
        self.screen.say("importing negmas and scml ...")
        with self.screen.alone(verbose=self.arguments.verbose), installed():
            from negmas.tournaments import evaluate_tournament, run_tournament
            from scml import utils

            generator = _generator(folder, self.track, utils)
        del arguments

        def go_on() -> Any:
            how = {"parallelism": "resilient", "verbose": self.arguments.verbose}
            run_tournament(folder, world_generator=generator, total_timeout=total_timeout, **how)
            return evaluate_tournament(folder, metric=utils.truncated_mean, verbose=self.arguments.verbose)

        return go_on

    def _keep_options(self, folder: Path) -> None:
        kept = {name: value for name, value in self.variables.items() if name not in _OF_ONE_RUN}
        saved.save(folder, self.track, kept, self.arguments.total_timeout)
        if (latest := self.screen.latest) is not None:
            limit = f", each within {short(latest.limit)}" if latest.limit else ""
            self.screen.say(f"{latest.planned - latest.settled} worlds to run on {latest.lanes} workers{limit}")

    # -- running it, and telling what came of it

    def _play(self, play: Callable[[], Any]) -> int:
        from resilient_exec.adapters import negmas as adapter
        from resilient_exec.adapters.negmas.report import audience

        before = adapter.last_report()
        results, interrupted = None, None
        try:
            with (
                self.screen.alone(verbose=self.arguments.verbose),
                adapter.options(**self._options()),
                audience.telling(self.screen),
            ):
                results = play()
        except adapter.CheckFailed as error:
            raise CommandError(in_command_line_words(str(error))) from error
        except KeyboardInterrupt as error:
            interrupted = error
        except Exception as error:
            report = adapter.last_report()
            if report is before and isinstance(error, ValueError):
                raise CommandError(in_command_line_words(str(error))) from error
            # With nothing scored negmas has nothing to evaluate; all else is told as it is.
            if report is before or report is None or report.scored:
                raise
        report = adapter.last_report()
        return self._tell(results, None if report is before else report, interrupted)

    def _tell(self, results: Any, report: Report | None, interrupted: KeyboardInterrupt | None) -> int:
        self.screen.ended()
        if interrupted is not None and report is not None and report.scored and report.folder is not None:
            results = self._evaluated_so_far(report.folder)
        scores = summary.ranking(results)
        status = 0 if report is None or not report.missing else SOME_WORLDS_MISSING
        status = signals.status_of(interrupted) if interrupted is not None else status
        if report is not None or interrupted is None:
            self._print(scores, report, status)
        if interrupted is not None:
            self._say_how_to_go_on(report, interrupted)
        elif report is not None and any(task.status != "failed" for task in report.missing):
            self.screen.say(f"go on with: {self._command_to_resume(self._output(report))}")
        return status

    def _evaluated_so_far(self, folder: str) -> Any:
        """What negmas makes of the worlds that are scored; ``None``: it cannot."""
        from negmas.tournaments import evaluate_tournament
        from scml.utils import truncated_mean

        with contextlib.suppress(Exception), self.screen.alone(verbose=self.arguments.verbose):
            return evaluate_tournament(folder, metric=truncated_mean, verbose=False)
        return None

    def _print(self, scores: list[tuple[str, float]], report: Report | None, status: int) -> None:
        if self.arguments.json:
            print(json.dumps(summary.as_json(scores, report, status), indent=1, default=str))
        else:
            print(in_command_line_words(summary.summary(scores, report, width_of(sys.stdout))), end="")
        sys.stdout.flush()

    def _output(self, report: Report) -> str:
        if self.arguments.output:
            return str(self.arguments.output)
        folder = Path(report.folder or ".").parent
        return str(folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder)

    def _say_how_to_go_on(self, report: Report | None, interrupted: KeyboardInterrupt) -> None:
        what = str(interrupted) if isinstance(interrupted, signals.Terminated) else "interrupted"
        if report is None:
            print(f"resilient-exec: {what} before the first world", file=sys.stderr)
            return
        go_on = self._command_to_resume(self._output(report))
        print(f"resilient-exec: {what}; go on with: {go_on}", file=sys.stderr)


def _generator(folder: Path, track: str, utils: Any) -> Any:
    """The generator to go on with; ``None``: the folder knows it.

    Raises:
        CommandError: the folder holds a tournament of another track.
    """
    from resilient_exec.adapters.negmas.worlds import provenance

    stored = json.loads((folder / "params.json").read_text(encoding="utf-8")).get("world_generator_name")
    other = next((name for name in TRACKS if name != track and f"_{name}_" in f"{stored}"), None)
    if other is not None:
        raise CommandError(
            f"the tournament in {folder} is one of the {other} track (its generator is {stored}): "
            f"go on with it by resilient-exec scml {other} --resume"
        )
    # Before it could be noted the program was killed; scml 0.7 alone would lack the year, and every world be lost.
    is_noted = "world_generator" in provenance.of_folder(folder)
    return None if is_noted else getattr(utils, f"anac2024_{track}_world_generator")


def _league(year: int, track: str) -> list[type]:
    try:
        from scml_agents import get_agents
    except ModuleNotFoundError as error:
        raise CommandError(f"--league needs the package scml-agents ({error}): pip install scml-agents") from error
    agents: list[type] = list(get_agents(year, track=track, as_class=True))
    if not agents:
        raise CommandError(f"scml-agents knows no {track} agents of {year}")
    return agents
