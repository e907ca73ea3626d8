"""Runs a tournament of 756 short worlds with resilient_exec and with stock negmas, which this project was started for.

What is run, each time in a process of its own
    `anac2024_std` with seven competitors (three of the LitaAgents of scml-agents, four of scml's own agents), two in
    a world, 5 steps: 42 worlds for each of `--configs`; `--full` is 18 of them, 756 worlds. Stock is
    `parallelism="parallel"`, ours is "resilient". scml-agents is installed without its dependencies, which are several
    GB with PyTorch and TensorFlow and are not used by the LitaAgents.
      old        negmas 0.11.3, scml 0.7.7: stock, which hangs after 10 worlds per worker, and ours. Stock is ended when
                 no world has ended for `--standstill` s.
      clean      negmas 0.16.0, scml 0.8.4: stock, ours, and ours with `fresh_process=False` ("reused") run the very
                 same worlds (`_calm.py`) at the same time, each with as many workers as half of the CPUs, so that
                 changes of the machine's speed affect all; `--rounds` times.
      sabotaged  the same versions: in one of twenty worlds an agent kills its process by SIGKILL, exits, hangs or
                 raises KeyboardInterrupt. A hang takes `--timeout` s here, and in stock the limit that a world
                 declares (900 s).

Printed for each run: worlds scored and planned, wall time, CPU time of all processes, and their peak memory in total
(proportional set size); for `clean` the ratios of ours to stock.

Usage
    python3 benchmarks/tournament.py                    # small: 42 worlds
    python3 benchmarks/tournament.py --full --parts old # 756 worlds on the old versions, some 20 minutes on 2 cores

Exit status: 0 if ours scored all worlds that were not sabotaged, 1 if not, 2 if an environment could not be made.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _environments as environments
from _tournament_program import SEED

if TYPE_CHECKING:
    import subprocess

CHECKOUT = Path(__file__).resolve().parent.parent
PROGRAM = Path(__file__).resolve().with_name("_tournament_program.py")
OLD = ("negmas==0.11.3", "scml==0.7.7", "pandas<3", "rich>=13")
NEW = ("negmas==0.16.0", "scml==0.8.4", "rich>=13")
BARE = ("scml-agents==0.5.2",)  # unlike older versions, it imports only the agents that are used
PARTS = {"old": OLD, "clean": NEW, "sabotaged": NEW}
WORLDS_PER_CONFIG = 42  # 7 competitors: 21 pairs, each in both orders
FULL = 18
THROUGH = ("stock", "ours", "reused")
DECLARED = 900.0  # s: `time_limit` of SCML's worlds


@dataclass
class Run:
    """One tournament."""

    part: str
    through: str
    planned: int
    sabotaged: int = 0
    peak: int = 0  # bytes
    outcome: dict[str, Any] = field(default_factory=dict)
    words: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether all worlds that were not sabotaged have a score."""
        return bool(self.outcome.get("scored", 0) >= self.planned - self.sabotaged)

    def __str__(self) -> str:
        if not self.outcome:
            return f"{self.part:10} {self.through:10} {self.words}"
        outcome = self.outcome
        return (
            f"{self.part:10} {self.through:10} {outcome['scored']:5} of {self.planned:<5}{self.sabotaged:4} sabotaged"
            f"{outcome['seconds']:9.1f} s{outcome['cpu']:9.1f} CPU s{self.peak / 2**20:9.0f} MiB"
        )


def held_by(mark: str) -> int:
    """Bytes that all processes of a run hold in total, with each shared page counted once."""
    total = 0
    for pid in environments.processes_of(mark):
        with contextlib.suppress(OSError, StopIteration, ValueError):  # the process has just ended
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += int(next(line for line in lines if line.startswith("Pss:")).split()[1]) * 1024
    return total


def run_one(part: str, through: str, python: Path, args: argparse.Namespace) -> Run:
    """Run one tournament in a process of its own; then end all its processes and remove its files."""
    run = Run(part, through, args.configs * WORLDS_PER_CONFIG)
    folder = Path(tempfile.mkdtemp(prefix="resilient-exec-tournament-"))
    places = {"DEFAULT_PATH": "config.json", "LOG_BASE": "logs", "TOURNAMENTS_BASE": "tournaments"}
    variables = {"TMPDIR": str(folder)} | {f"NEGMAS_{name}": str(folder / place) for name, place in places.items()}
    variables |= {"PYTHONHASHSEED": "0", "NEGMAS_RAND_SEED": str(SEED)}
    if part == "sabotaged":
        variables["RESILIENT_EXEC_TOURNAMENT_SABOTAGED"] = "1"
    parallelism = ("parallel" if through == "stock" else "resilient") + (":0.5" if part == "clean" else "")
    if through == "reused":
        variables["RESILIENT_EXEC_FRESH_PROCESS"] = "0"
    call = [parallelism, str(args.configs), str(args.timeout), str(folder)]
    child = environments.start_marked(
        [str(python), "-W", "ignore", str(PROGRAM), *call], folder, folder.name, variables
    )
    try:
        follow(run, child, folder, args)
    finally:
        environments.end_processes(folder.name)
        child.wait()
        shutil.rmtree(folder, ignore_errors=True)
    print(run, flush=True)
    return run


def follow(run: Run, child: subprocess.Popen[bytes], folder: Path, args: argparse.Namespace) -> None:
    """Wait until the child ends, or no world has ended for a long time; measure its memory meanwhile."""
    since = time.monotonic()
    end, ended = since + args.limit, 0
    patience = args.standstill if run.part == "old" else DECLARED + args.standstill  # stock ends a hang after DECLARED
    while child.poll() is None and time.monotonic() < end and time.monotonic() - since < patience:
        run.peak = max(run.peak, held_by(folder.name))
        before, ended = ended, worlds_ended(folder)
        if ended != before:
            since = time.monotonic()
        time.sleep(1.0)
    run.outcome = environments.read_json(folder / "outcome.json")
    if run.part == "sabotaged":
        run.sabotaged = sum(is_sabotaged(name) for name in world_names(folder))
    if not run.outcome:
        how = f"exit status {child.returncode}" if child.poll() is not None else "not finished"
        quiet = time.monotonic() - since
        run.words = (
            f"{worlds_ended(folder)} of {run.planned} worlds have results; {how}; the last one {quiet:.0f} s ago; "
            f"{len(environments.processes_of(folder.name))} processes are left"
        )


def worlds_ended(folder: Path) -> int:
    """How many worlds have results."""
    return sum(1 for _ in (folder / "tournament").glob("*/*/results.json"))


def world_names(folder: Path) -> list[str]:
    """The names of all worlds of the tournament."""
    (file,) = (folder / "tournament").glob("*/assigned_configs.json")
    return [world["world_params"]["name"] for world_set in json.loads(file.read_text()) for world in world_set]


def is_sabotaged(name: str) -> bool:
    """Whether the world is sabotaged, by the rule of `_tournament_agents.py`, which cannot be imported without scml."""
    return zlib.crc32(name.encode()) % 20 == 0


def _same_worlds(some: dict[str, list[float]], others: dict[str, list[float]]) -> int:
    """How many worlds have the same scores in both; the time of creation at the begin of their names is ignored."""
    some, others = ({name.partition("-")[2]: scores for name, scores in each.items()} for each in (some, others))
    return sum(scores == others.get(name) for name, scores in some.items())


def run_part(part: str, python: Path, args: argparse.Namespace) -> list[Run]:
    """Run all tournaments of a part, and print their comparison."""
    if part != "clean":
        return [run_one(part, through, python, args) for through in args.who or THROUGH[:2]]
    runs: list[Run] = []
    with ThreadPoolExecutor() as at_once:
        for _ in range(args.rounds):
            runs += at_once.map(lambda through: run_one(part, through, python, args), args.who or THROUGH)
    compare(runs)
    return runs


def compare(runs: list[Run]) -> None:
    """Print the ratios of ours, and of ours with reused workers, to stock."""
    by = {through: [run for run in runs if run.through == through] for through in THROUGH}
    for through in THROUGH[1:]:
        pairs = [pair for pair in zip(by["stock"], by[through], strict=False) if all(run.outcome for run in pair)]
        if pairs:
            same = [_same_worlds(stock.outcome["scores"], ours.outcome["scores"]) for stock, ours in pairs]
            ratios = {
                "wall time": [ours.outcome["seconds"] / stock.outcome["seconds"] for stock, ours in pairs],
                "CPU time": [ours.outcome["cpu"] / stock.outcome["cpu"] for stock, ours in pairs],
                "peak memory": [ours.peak / stock.peak for stock, ours in pairs],
            }
            medians = ", ".join(f"{name} {statistics.median(each):.3f}" for name, each in ratios.items())
            print(
                f"{through} / stock, medians of {len(pairs)}: {medians}; worlds with the same scores: {same}",
                flush=True,
            )


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--configs", type=int, default=1, metavar="N", help="42 worlds for each (default: %(default)s)")
    parser.add_argument("--full", action="store_true", help=f"--configs {FULL}: 756 worlds")
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="of part clean (default: %(default)s)")
    parser.add_argument(
        "--timeout", type=float, default=60, metavar="S", help="of a world, here (default: %(default)s)"
    )
    parser.add_argument(
        "--standstill", type=float, default=180, metavar="S", help="without a new result, to end a run (%(default)s)"
    )
    parser.add_argument("--who", nargs="+", choices=THROUGH, help="default: all that the part has")
    parser.add_argument("--limit", type=float, default=7200, metavar="S", help="for one run (default: %(default)s)")
    parser.add_argument("--fresh", action="store_true", help="make the environments anew")
    args = parser.parse_args(argv)
    if args.full:
        args.configs = FULL
    return args


def main(argv: list[str]) -> int:
    """Run the parts; see the top of this file for the exit status."""
    args = parse(argv)
    runs = []
    for part in args.parts:
        try:
            python = environments.make_environment(
                environments.Interpreter(sys.executable, ".".join(map(str, sys.version_info[:3])), "not probed"),
                PARTS[part],
                CHECKOUT,
                fresh=args.fresh,
                name=f"tournament-{'old' if part == 'old' else 'new'}",
                bare=BARE,
            )
        except environments.SetupError as problem:
            print(problem)
            return 2
        runs += run_part(part, python, args)
    return 0 if all(run.is_complete for run in runs if run.through != "stock") else 1


if __name__ == "__main__":
    os.environ.pop("RESILIENT_EXEC_TOURNAMENT_SABOTAGED", None)
    sys.exit(main(sys.argv[1:]))
