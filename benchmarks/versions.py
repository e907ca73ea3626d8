"""Runs small tournaments with each supported pair of negmas and scml, each in an environment of its own.

What is run for each row, every time in a process of its own, on two workers
    `anac2024_std` and `anac2024_oneshot` with two competitors (4 worlds), and `cartesian_tournament` with two
    negotiators (16 negotiations), through `resilient_exec.adapters.negmas`: once clean, and once sabotaged. Sabotaged
    means that in one attempt the worker is killed by SIGKILL, and in another one an agent hangs until its `timeout`.
    There are no retries.

What is expected
    Clean: all are scored. Sabotaged: all but two are scored, and of the two that are reported as missing one died by
    SIGKILL and one timed out. Rows that are to be refused (a negmas that does not work with pandas 3): no world is run,
    and the error says what to install.

Usage
    python3 benchmarks/versions.py                      # all rows; some 20 minutes on 2 cores, the first time
    python3 benchmarks/versions.py --list               # the rows
    python3 benchmarks/versions.py --only 0.11.3 0.16.0-py3.13     # those whose name begins like that

Exit status: 0 if everything is as expected, 1 if anything is not, 2 if an environment could not be made.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import inspect
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import _environments as environments

CHECKOUT = Path(__file__).resolve().parent.parent
PLANNED = {"std": 4, "oneshot": 4, "cartesian": 16}
CONDITIONS = ("clean", "sabotaged")
TIMEOUT = 30  # s for one world; includes the imports of a new worker, on a machine that may be busy
LIMIT = 600.0  # s for one run
SMALL = {"n_configs": 2, "n_runs_per_world": 1, "n_competitors_per_world": 2, "n_steps": 3, "n_processes": 2}


@dataclass(frozen=True)
class Row:
    """One set of versions, and whether it is to be refused."""

    negmas: str
    scml: str
    pandas: str
    python: str
    is_refused: bool = False

    @property
    def name(self) -> str:
        """The name of the row for `--only`."""
        return f"{self.negmas}-pandas3" if self.is_refused else f"{self.negmas}-py{self.python}"

    @property
    def requirements(self) -> tuple[str, ...]:
        """The requirements for pip."""
        return (f"negmas=={self.negmas}", f"scml=={self.scml}", f"pandas{self.pandas}", "rich>=13")


ROWS = (
    *(Row("0.11.3", "0.7.7", "<3", python) for python in ("3.11", "3.12", "3.13")),
    *(Row(negmas, "0.7.7", "<3", "3.12") for negmas in ("0.12.0", "0.13.1", "0.14.0")),
    Row("0.15.7", "0.8.3", ">=3", "3.12"),
    *(Row("0.16.0", "0.8.4", ">=3", python) for python in ("3.11", "3.12", "3.13")),
    Row("0.11.3", "0.7.7", ">=3", "3.12", is_refused=True),
    Row("0.14.0", "0.7.7", ">=3", "3.12", is_refused=True),
)


# --- inside the child ----------------------------------------------------------------------------------------------


def child_main(route: str, folder: Path) -> None:
    """Run one tournament, and write its counts to outcome.json."""
    adapter = importlib.import_module("resilient_exec.adapters.negmas")
    adapter.install(negotiations=True)
    try:
        with adapter.options(max_workers=2, timeout=TIMEOUT, retry=1):
            rows = run_cartesian() if route == "cartesian" else run_worlds(route, folder)
    except adapter.CheckFailed as refusal:
        environments.write_json(folder / "outcome.json", {"refused": str(refusal)})
        return
    report = adapter.last_report()
    outcome = {"planned": report.planned, "scored": report.scored, "rows": rows}
    environments.write_json(folder / "outcome.json", outcome | {"missing": [task.history for task in report.missing]})


def run_worlds(route: str, folder: Path) -> int:
    """Run a world tournament; returns the number of worlds in negmas' own results."""
    agents = importlib.import_module("_version_agents")
    ending = "Std" if route == "std" else ""
    competitors = [getattr(agents, f"{name}{ending}") for name in ("Healthy", "Saboteur")]
    run = getattr(importlib.import_module("scml.utils"), f"anac2024_{route}")
    settings = {**SMALL, "min_factories_per_level": 1, "tournament_path": folder / "tournament"}
    results = run(competitors, parallelism="resilient", **settings)
    return int(results.scores["run_id"].nunique())


def run_cartesian() -> int:
    """Run a negotiation tournament; returns the number of records, including failures."""
    agents = importlib.import_module("_version_agents")
    cartesian = importlib.import_module("negmas.tournaments.neg.simple.cartesian")
    settings: dict[str, Any] = {"n_repetitions": 1, "n_steps": 20, "njobs": 2, "verbosity": 0}
    if "save_scenario_figs" in inspect.signature(cartesian.cartesian_tournament).parameters:
        settings["save_scenario_figs"] = False
    competitors = (agents.HealthyNegotiator, agents.SaboteurNegotiator)
    results = cartesian.cartesian_tournament(competitors, agents.scenarios(2), **settings)
    return len(results.details)


# --- outside -------------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """One tournament."""

    row: Row
    route: str
    condition: str
    outcome: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    problem: str = ""

    def surprise(self) -> str:
        """What is not as expected; "" if everything is."""
        if not self.outcome:
            return self.problem
        if self.row.is_refused or "refused" in self.outcome:
            refusal = self.outcome.get("refused", "it was not refused")
            return "" if self.row.is_refused and 'pip install "pandas<3"' in refusal else refusal
        planned = PLANNED[self.route]
        missing = sorted(map(str, self.outcome["missing"]))
        lost = 2 if self.condition == "sabotaged" else 0
        # A negotiation that failed has a record of negmas' own; a world has none.
        rows = planned if self.route == "cartesian" else planned - lost
        wanted = {"planned": planned, "scored": planned - lost, "rows": rows}
        wrong = [
            f"{key} {self.outcome[key]}, not {value}" for key, value in wanted.items() if self.outcome[key] != value
        ]
        if lost and not (
            len(missing) == lost and "SIGKILL" in missing[0] and f"timed out after {TIMEOUT} s" in missing[1]
        ):
            wrong.append(f"missing for {missing}")
        return "; ".join(wrong)

    def cell(self) -> str:
        """The run in the table: scored of planned, "refused" or "failed"."""
        if "refused" in self.outcome:
            return "refused"
        if not self.outcome:
            return "failed"
        return f"{self.outcome['scored']} of {self.outcome['planned']}"


def run_one(row: Row, route: str, condition: str, python: Path) -> Run:
    """Run one tournament in a process of its own; then end all its processes and remove its files."""
    run = Run(row, route, condition)
    folder = Path(tempfile.mkdtemp(prefix="resilient-exec-versions-"))
    places = {"DEFAULT_PATH": "config.json", "LOG_BASE": "logs", "TOURNAMENTS_BASE": "tournaments"}
    variables = {"TMPDIR": str(folder)} | {f"NEGMAS_{name}": str(folder / place) for name, place in places.items()}
    if condition == "sabotaged":
        variables["RESILIENT_EXEC_VERSIONS_FAULTS"] = str(folder)
    command = [str(python), "-W", "ignore", str(Path(__file__).resolve()), "--child", route, str(folder)]
    begin = time.monotonic()
    child = environments.start_marked(command, folder, folder.name, variables)
    try:
        child.wait(LIMIT)
    except subprocess.TimeoutExpired:
        run.problem = f"not finished after {LIMIT:.0f} s"
    finally:
        run.seconds = time.monotonic() - begin
        environments.end_processes(folder.name)
        child.wait()
        run.outcome = environments.read_json(folder / "outcome.json")
        output = (folder / "output.txt").read_text(errors="replace").strip().splitlines()
        run.problem = run.problem or f"exit status {child.returncode}: {' | '.join(output[-3:])}"
        shutil.rmtree(folder, ignore_errors=True)
    return run


@functools.cache
def interpreter(minor: str) -> environments.Interpreter:
    """A Python of this minor version that can make environments."""
    code = "import ensurepip, venv, sys; print(sys.executable, *sys.version_info[:3])"
    for path in environments.candidates():
        try:
            status, out, _ = environments.run_group([path, "-c", code], 60.0)
        except OSError:
            continue
        executable, *numbers = out.split() if status == 0 else [""]
        if ".".join(numbers[:2]) == minor:
            return environments.Interpreter(executable, ".".join(numbers), "not probed")
    raise environments.SetupError(f"no Python {minor} was found on PATH or below pyenv; choose other rows with --only")


def run_row(row: Row, args: argparse.Namespace) -> list[Run]:
    """All tournaments of a row."""
    python = environments.make_environment(
        interpreter(row.python), row.requirements, CHECKOUT, fresh=args.fresh, name=f"versions-{row.name}"
    )
    routes = ["std"] if row.is_refused else args.routes
    runs = []
    for route in routes:
        for condition in CONDITIONS[:1] if row.is_refused else CONDITIONS:
            run = run_one(row, route, condition, python)
            runs.append(run)
            surprise = run.surprise()
            print(
                f"  {route} {condition}: {run.cell()} ({run.seconds:.0f} s){f': {surprise}' * bool(surprise)}",
                flush=True,
            )
    return runs


def print_table(runs: list[Run]) -> None:
    """Print a line for each row, and what was not as expected."""
    columns = [(route, condition) for route in PLANNED for condition in CONDITIONS]
    lines = [["negmas", "scml", "pandas", "Python", *(f"{route}, {condition}" for route, condition in columns), ""]]
    for row in dict.fromkeys(run.row for run in runs):
        of_row = {(run.route, run.condition): run for run in runs if run.row == row}
        cells = [of_row[column].cell() if column in of_row else "-" for column in columns]
        wrong = any(run.surprise() for run in of_row.values())
        lines.append([row.negmas, row.scml, row.pandas, row.python, *cells, "NOT EXPECTED" if wrong else "as expected"])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for run in runs:
        if surprise := run.surprise():
            print(f"{run.row.name}, {run.route} {run.condition}: {surprise}")


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--list", action="store_true", help="print the names of the rows")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="rows whose name begins like this")
    parser.add_argument("--routes", nargs="+", choices=list(PLANNED), default=list(PLANNED), help="tournaments to run")
    parser.add_argument("--fresh", action="store_true", help="make the environments anew")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    args = parser.parse_args(argv)
    args.rows = [row for row in ROWS if args.only is None or any(row.name.startswith(name) for name in args.only)]
    for name in args.only or ():
        if not any(row.name.startswith(name) for row in ROWS):
            parser.error(f"--only {name}: no row begins like that; there are: {', '.join(row.name for row in ROWS)}")
    return args


def main(argv: list[str]) -> int:
    """Run the rows, print the table; see the top of this file for the exit status."""
    args = parse(argv)
    if args.list:
        print(*(row.name for row in args.rows), sep="\n")
        return 0
    runs, unmade = [], []
    for row in args.rows:
        print(f"{row.name}: {', '.join(row.requirements)}", flush=True)
        try:
            runs += run_row(row, args)
        except environments.SetupError as problem:
            unmade.append(f"{row.name}: {problem}")
            print(unmade[-1], flush=True)
    print()
    if runs:
        print_table(runs)
    for reason in unmade:
        print(f"no environment for {reason}")
    if args.json:
        results = [{"row": run.row.name, "route": run.route, "condition": run.condition, **run.outcome} for run in runs]
        args.json.write_text(json.dumps(results, indent=1))
    return 1 if any(run.surprise() for run in runs) else 2 if unmade else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child_main(sys.argv[2], Path(sys.argv[3]))
    else:
        os.environ.pop("RESILIENT_EXEC_VERSIONS_FAULTS", None)
        sys.exit(main(sys.argv[1:]))
