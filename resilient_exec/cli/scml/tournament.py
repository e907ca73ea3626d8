"""``resilient-exec scml``: a tournament among named competitors, its ranking, and what became of each world."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resilient_exec.cli.parsing import CommandError, new_parser, seconds, whole
from resilient_exec.cli.pool_options import add_pool_options, flags_of, variables
from resilient_exec.cli.scml import health

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from resilient_exec.adapters.negmas import Report

__all__ = ["PRESETS", "add_parsers", "check_settings", "check_steps", "run"]

SOME_WORLDS_MISSING = 3  # exit status
_NAME = "tournament"
_DEFAULT = {
    "std": ("GreedyStdAgent", "RandomStdAgent", "SyncRandomStdAgent"),
    "oneshot": ("GreedyOneShotAgent", "RandomOneShotAgent", "RandDistOneShotAgent"),
}

_LEAST_STEPS = {"std": 5, "oneshot": 3}  # the most products that a world may have


PRESETS = {
    "quick": {"configs": 2, "runs": 1, "steps": 10, "per_world": 2},
    "full": {"configs": 10, "runs": 2, "steps": 50, "per_world": 2},
}
"""What ``--preset`` stands for: minutes on a laptop, or a night."""


def add_parsers(tracks: argparse._SubParsersAction[Any]) -> None:
    """Add ``std`` and ``oneshot``."""
    for track, first in (("std", "GreedyStdAgent"), ("oneshot", "GreedyOneShotAgent")):
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
        output.add_argument("--resume", action="store_true", help="go on with the tournament in --output")
        output.add_argument("--verbose", action="store_true", help="let negmas and the agents print")
        command.set_defaults(run=run)


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


def run(arguments: argparse.Namespace) -> int:
    """Run or resume a tournament; the exit status."""
    apply_preset(arguments)
    check_settings(arguments)
    try:
        return tournament(arguments)
    except KeyboardInterrupt:
        print("\nresilient-exec: interrupted; go on with --resume", file=sys.stderr)
        return 130


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
    with _installed():
        from resilient_exec.adapters.negmas import settings
    given = {**settings.from_environment(), **settings.from_environment(variables(arguments))}
    if given.get("verify") and given.get("seed") is None and not arguments.resume:
        raise CommandError("--verify (RESILIENT_EXEC_VERIFY) compares what a seed has made: give one, such as --seed 7")


@contextlib.contextmanager
def _installed() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise CommandError(f"{error}; install it with: pip install 'resilient-exec[scml]'") from error


def tournament(arguments: argparse.Namespace) -> int:
    """Run or resume the tournament; the exit status."""
    with _installed():
        from scml import utils

        from resilient_exec.adapters import negmas as adapter
        from resilient_exec.adapters.negmas import settings
    # Workers import competitors by name, with this path: a participant's own file lies here, as for `python -m`.
    sys.path.insert(0, str(Path.cwd()))
    try:
        with adapter.options(**settings.from_environment(variables(arguments))):
            results = _resume(arguments, utils) if arguments.resume else _start(arguments, utils)
    except adapter.CheckFailed as error:
        raise CommandError(str(error)) from error
    finally:
        sys.path.pop(0)
    report = adapter.last_report()
    _show(results, report)
    return 0 if report is None or not report.missing else SOME_WORLDS_MISSING


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


def _start(arguments: argparse.Namespace, utils: Any) -> Any:
    from resilient_exec.adapters.negmas.worlds.seeding import reseed

    competitors = _competitors(arguments)
    if len(competitors) < 2:
        raise CommandError(f"a tournament needs two competitors or more; got {len(competitors)}")
    if arguments.per_world > len(competitors):
        raise CommandError(f"--per-world is {arguments.per_world}, but there are only {len(competitors)} competitors")
    check_steps(arguments.track, arguments.steps)
    output = Path(arguments.output or f"scml-{arguments.track}-{time.strftime('%Y%m%d-%H%M%S')}").absolute()
    if any(output.glob(f"{_NAME}*")):
        raise CommandError(f"{output} holds a tournament already; go on with it by --resume, or name another --output")
    output.mkdir(parents=True, exist_ok=True)
    _say(f"{len(competitors)} competitors, results in {output}")
    if arguments.seed is not None:
        reseed(arguments.seed)  # so that the same tournament is created from the same seed
    run = getattr(utils, f"anac2024_{arguments.track}")
    return run(
        competitors,
        n_configs=arguments.configs,
        n_runs_per_world=arguments.runs,
        n_steps=arguments.steps,
        n_competitors_per_world=arguments.per_world,
        tournament_path=output,
        name=_NAME,
        total_timeout=arguments.total_timeout,
        parallelism="resilient",
        verbose=arguments.verbose,
    )


def _resume(arguments: argparse.Namespace, utils: Any) -> Any:
    from negmas.tournaments import evaluate_tournament, run_tournament

    if not arguments.output:
        raise CommandError("--resume needs --output: the folder of the tournament to go on with")
    found = sorted(path.parent for path in Path(arguments.output).absolute().glob("*/params.json"))
    if not found:
        raise CommandError(
            f"there is no tournament in {arguments.output} to go on with (no */params.json); if it was interrupted "
            "while it was created, remove the folder and start anew"
        )
    folder = found[-1]
    _say(f"going on with {folder}")
    try:
        generator = _generator(folder, arguments.track, utils)
        run_tournament(
            folder,
            world_generator=generator,
            total_timeout=arguments.total_timeout,
            parallelism="resilient",
            verbose=arguments.verbose,
        )
    except ValueError as error:
        raise CommandError(str(error)) from error
    return evaluate_tournament(folder, metric=utils.truncated_mean, verbose=arguments.verbose)


def _generator(folder: Path, track: str, utils: Any) -> Any:
    """The generator to go on with; ``None``: the folder knows it.

    Raises:
        CommandError: the folder holds a tournament of another track.
    """
    from resilient_exec.adapters.negmas.worlds import provenance

    stored = json.loads((folder / "params.json").read_text(encoding="utf-8")).get("world_generator_name")
    other = next((name for name in _DEFAULT if name != track and f"_{name}_" in f"{stored}"), None)
    if other is not None:
        raise CommandError(
            f"the tournament in {folder} is one of the {other} track (its generator is {stored}): "
            f"go on with it by resilient-exec scml {other} --resume"
        )
    # Before it could be noted the program was killed; scml 0.7 alone would lack the year, and every world be lost.
    is_noted = "world_generator" in provenance.of_folder(folder)
    return None if is_noted else getattr(utils, f"anac2024_{track}_world_generator")


def _competitors(arguments: argparse.Namespace) -> list[type]:
    names = arguments.competitors or ([] if arguments.league else list(_DEFAULT[arguments.track]))
    agents = [_agent(name, arguments.track) for name in names]
    if arguments.league:
        agents += _league(arguments.league, arguments.track)
    return list(dict.fromkeys(agents))


def _agent(name: str, track: str) -> type:
    module_name, colon, class_name = name.partition(":")
    if not colon:
        module_name, class_name = f"scml.{track}.agents", name
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise CommandError(f"competitor {name!r}: importing {module_name} raised {_text(error)}") from error
    agent = getattr(module, class_name, None)
    if not isinstance(agent, type):
        some = ", ".join(sorted(n for n, v in vars(module).items() if isinstance(v, type) and n.endswith("Agent")))
        raise CommandError(f"competitor {name!r}: {module_name} has no class {class_name!r}; it has: {some or 'none'}")
    return agent


def _league(year: int, track: str) -> list[type]:
    try:
        from scml_agents import get_agents
    except ModuleNotFoundError as error:
        raise CommandError(f"--league needs the scml-agents package ({error}); pip install scml-agents") from error
    agents: list[type] = list(get_agents(year, track=track, as_class=True))
    if not agents:
        raise CommandError(f"scml-agents knows no {track} agents of {year}")
    return agents


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _say(text: str) -> None:
    print(f"resilient-exec: {text}", file=sys.stderr)


def _show(results: Any, report: Report | None) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    covered = report.coverage if report is not None else {}
    table = Table("rank", "competitor", "score", "worlds scored", "planned", title="Ranking")
    for rank, (agent, score) in enumerate(_ranking(results), start=1):
        worlds = (str(covered[agent].scored), str(covered[agent].planned)) if agent in covered else ("?", "?")
        table.add_row(str(rank), agent, f"{score:.4f}", *worlds)
    console.print(table)
    if report is None:
        return
    if report.bias:
        console.print(f"Beware: {report.bias}", markup=False, soft_wrap=True)
    console.print(f"{report.scored} of {report.planned} worlds scored, {len(report.retried)} of them retried")
    if report.verified:
        console.print(f"{len(report.unsteady)} of {len(report.verified)} worlds that were run twice had other scores")
    for one in report.unsteady:
        console.print(f"  {one}", markup=False, soft_wrap=True)
    for task in report.missing:
        console.print(f"  no score: {task.name}: {task.reason.splitlines()[0]}", markup=False, soft_wrap=True)
        console.print(f"            with {', '.join(task.competitors)}", markup=False, soft_wrap=True)
        if task.on_stage:
            console.print(f"            on stage: {task.on_stage[-1]}", markup=False, soft_wrap=True)
    if report.health:
        console.print(health.table(report.health))
    console.print(f"Results: {report.folder}", markup=False, soft_wrap=True)


def _ranking(results: Any) -> Iterable[tuple[str, float]]:
    totals = results.total_scores.sort_values("score", ascending=False)
    for agent, score in zip(totals["agent_type"], totals["score"], strict=True):
        yield str(agent).rpartition(":")[2], float(score)
