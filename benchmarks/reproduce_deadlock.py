"""Shows that tournaments of stock negmas hang (CPython gh-115634), and that they end with resilient_exec.

The cause
    negmas 0.11.0 to 0.15.0 passes `max_tasks_per_child=10` to the standard library's `ProcessPoolExecutor`. A worker
    exits after ten tasks, and the pool decides by a semaphore that counts idle workers whether to replace it. Each
    finished task increments that semaphore, and each `submit()` decrements it. A tournament submits all its work first
    and then waits. So when the first worker exits, the semaphore is far above zero: the pool assumes that an idle
    worker exists and starts none. The same happens with the other workers. Then no worker is left, and `as_completed()`
    without a timeout never returns. With n workers exactly 10 * n tasks are done.

What is run, each in a child process of its own, on two workers
    `cartesian_tournament`: 3 negotiators, 8 scenarios, 144 negotiations; stock stops at 20.
    `anac2024_std`: 4 competitors, 3 configurations, 36 worlds; stock stops at 20.
    Then the same two calls with `resilient_exec.adapters.negmas` installed: 144 and 36.

How the hang is proved
    A timeout is no proof, since it does not distinguish slow from stuck. Two observers look twice a second. A thread
    inside the child reads the futures, the pool's own table of workers, and the stack of the main thread. This process
    reads from outside, in /proc, which processes of that run are alive (each has a mark in its environment). HANG is
    printed when all of this has held without interruption for `--hold` seconds:
      - the number of futures that are done has not changed, and futures are pending;
      - no process of the run is alive but the child and its resource tracker, and the pool's table is empty;
      - the main thread is inside `concurrent.futures.as_completed`, called without a timeout;
      - the thread inside still reports, so the child is neither stopped nor without CPU time.
    Any other run is reported as ended, failed, or still running at `--limit`.

Usage
    python benchmarks/reproduce_deadlock.py                      everything; five minutes or so on two cores
    python benchmarks/reproduce_deadlock.py --only cartesian     one of the two tournaments (the other: worlds)
    --python PATH   use this Python (default: this one, python3.12, 3.11, 3.13 on PATH, those of pyenv)
    --env DIR       where the virtual environment is (default: the user's cache folder); --fresh remakes it
    --hold 10       seconds for which the proof must hold;  --limit 900   seconds that a run may take in all
    --json FILE     writes the table and the evidence as JSON

    Needs Linux, Python 3.11 or newer and, the first time, the package index. The environment has negmas 0.11.3,
    scml 0.7.7, pandas older than 3, and resilient_exec from the checkout that contains this file.

Exit status: 0 all was observed as expected; 1 it was not; 2 no affected Python, or the installation failed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _environments as environments

if TYPE_CHECKING:
    import subprocess

CHECKOUT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ("negmas==0.11.3", "scml==0.7.7", "pandas<3")
PLANNED = {"cartesian": 144, "worlds": 36}
NAMES = {"cartesian": "cartesian_tournament", "worlds": "anac2024_std"}
WORKERS = 2
TASKS_PER_WORKER = 10  # negmas' MAX_TASKS_PER_CHILD
TICK = 0.5
COLUMNS = "call through workers planned done errors seconds alive pending verdict"


# --- inside the child: the calls -----------------------------------------------------------------------------------


def run_cartesian() -> int:
    """Run 3 x 3 negotiators in 8 scenarios, in both roles; return the number of negotiations in the result."""
    negmas = importlib.import_module("negmas")
    cartesian = importlib.import_module("negmas.tournaments.neg.simple.cartesian")
    issues = [negmas.make_issue(10, "price"), negmas.make_issue(5, "quantity")]
    scenarios = []
    for _ in range(8):
        ufuns = tuple(negmas.LinearAdditiveUtilityFunction.random(issues=issues, reserved_value=0.0) for _ in range(2))
        scenarios.append(negmas.Scenario(outcome_space=negmas.make_os(issues), ufuns=ufuns))
    results = cartesian.cartesian_tournament(
        competitors=[negmas.BoulwareTBNegotiator, negmas.ConcederTBNegotiator, negmas.LinearTBNegotiator],
        scenarios=scenarios,
        n_steps=20,
        njobs=WORKERS,
        path=None,
        verbosity=0,
    )
    return len(results.details)


def run_worlds(parallelism: str) -> int:
    """Run 36 worlds of the ANAC 2024 SCML standard league; return the number of worlds that have scores."""
    std = importlib.import_module("scml.std")
    results = importlib.import_module("scml.utils").anac2024_std(
        competitors=[std.GreedyStdAgent, std.GreedySyncAgent, std.RandomStdAgent, std.SyncRandomStdAgent],
        n_configs=3,
        n_runs_per_world=1,
        n_competitors_per_world=2,
        n_steps=5,
        tournament_path=Path.cwd() / "tournament",
        parallelism=parallelism,
    )
    return int(results.scores["run_id"].nunique())


def two_workers(executor: str) -> str:
    """The value of `parallelism=` that asks for two workers on a machine with more cores.

    Both compute the number of workers as `int(fraction * cores)`; half a worker is added against rounding errors. Stock
    counts all cores, resilient_exec only those that this process may use, and it starts no more workers than these.
    """
    if executor == "stock":
        return f"parallel:{(WORKERS + 0.5) / (os.cpu_count() or 1)}"
    cores = importlib.import_module("loky").cpu_count()
    return f"resilient:{(WORKERS + 0.5) / cores}" if cores > WORKERS else "resilient"


# --- inside the child: the observer --------------------------------------------------------------------------------


class InsideObserver(threading.Thread):
    """Writes the state of this process's pools and main thread to a file, twice a second.

    It must not change what it observes: it keeps references to futures and pools, only reads, and takes no lock.
    """

    def __init__(self, file: Path) -> None:
        super().__init__(name="observer", daemon=True)
        self.file = file
        self.futures: list[Future[Any]] = []
        self.pools: list[ProcessPoolExecutor] = []
        self.parent = os.getppid()
        self.begun = time.monotonic()

    def collect(self) -> None:
        """Wrap `ProcessPoolExecutor.submit`, so that all futures are known."""
        submit = ProcessPoolExecutor.submit

        def recording_submit(pool: ProcessPoolExecutor, /, *args: Any, **kwargs: Any) -> Future[Any]:
            future: Future[Any] = submit(pool, *args, **kwargs)
            self.futures.append(future)
            if pool not in self.pools:
                self.pools.append(pool)
            return future

        ProcessPoolExecutor.submit = recording_submit  # type: ignore[assignment,method-assign]

    def run(self) -> None:
        """Report until the process ends; if the parent is gone, remove the files and kill this process group."""
        while os.getppid() == self.parent:
            environments.write_json(self.file, self.observe())
            time.sleep(TICK)
        shutil.rmtree(self.file.parent, ignore_errors=True)
        os.killpg(0, signal.SIGKILL)

    def observe(self) -> dict[str, Any]:
        """One observation."""
        frames = [frame for frame, _ in traceback.walk_stack(sys._current_frames()[threading.main_thread().ident or 0])]
        waiting = [frame.f_locals.get("timeout", 0) for frame in frames if frame.f_code is as_completed.__code__]
        ended = [future for future in self.futures if future.done() and not future.cancelled()]
        return {
            "at": time.monotonic(),
            "begun": self.begun,
            "planned": len(self.futures),
            "done": len(ended),
            "errors": sum(future.exception() is not None for future in ended),
            "running": sum(future.running() for future in self.futures),
            "waiting": sum(not future.done() and not future.running() for future in self.futures),
            "max_workers": sum(getattr(pool, "_max_workers", 0) for pool in self.pools),
            "pool_table": [pid for pool in self.pools for pid in list(getattr(pool, "_processes", None) or {})],
            "waits_for_ever": waiting == [None],
            "stack": [f"{f.f_globals.get('__name__')}:{f.f_lineno} {f.f_code.co_name}" for f in reversed(frames[:6])],
        }


def child_main(call: str, executor: str, folder: Path) -> None:
    """Make one call under observation, in the process that the other half of this file started."""
    adapter = importlib.import_module("resilient_exec.adapters.negmas") if executor == "resilient" else None
    if adapter:
        adapter.install(negotiations=True)
    observer = InsideObserver(folder / "status.json")
    observer.collect()
    observer.start()
    result = run_cartesian() if call == "cartesian" else run_worlds(two_workers(executor))
    outcome = observer.observe() | {"result": result}
    if adapter:
        # Only the report shows which negotiations have failed for good, since these have a record, too.
        report = adapter.last_report()
        outcome |= {"planned": report.planned, "max_workers": report.workers, "errors": len(report.missing)}
    environments.write_json(folder / "outcome.json", outcome)


# --- outside -----------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """One line of the table, and the evidence for it."""

    call: str
    executor: str
    workers: int = 0
    planned: int = 0
    done: int = 0
    seconds: float = 0.0
    workers_alive: int = 0
    pending: int = 0
    errors: int = 0
    verdict: str = "not run"
    expected: bool = False
    evidence: list[str] = field(default_factory=list)

    def judge(self) -> None:
        """Set `expected`: whether the run ended as described under "The cause" above."""
        if self.executor == "stock":
            right = self.verdict.startswith("HANG") and self.done == TASKS_PER_WORKER * self.workers
        else:
            right = self.verdict == "ended" and self.done == self.planned
        self.expected = right and self.planned == PLANNED[self.call] and not self.errors


@dataclass
class HangProof:
    """Decides from both observers' reports whether a hang is proved: all conditions must hold for `hold` seconds."""

    hold: float
    done: int = -1
    progress_at: float = 0.0
    since: float | None = None
    ticks: int = 0

    def add(self, status: dict[str, Any], workers: list[int], now: float) -> bool:
        """Add one observation; returns True once the hang is proved."""
        if status["done"] != self.done:
            self.done, self.progress_at, self.since, self.ticks = status["done"], status["at"], None, 0
        stuck = (
            status["planned"] > status["done"]
            and not workers
            and not status["pool_table"]
            and status["waits_for_ever"]
            and now - status["at"] < 6 * TICK
        )
        if not stuck:
            self.since, self.ticks = None, 0
            return False
        self.since = self.since or now
        self.ticks += 1
        # The second condition fails if the machine was suspended in between, so that nothing was observed.
        return now - self.since >= self.hold and self.ticks * TICK * 2 >= self.hold


def run_observed(call: str, executor: str, python: Path, args: argparse.Namespace) -> Run:
    """Make one call in a child, and observe it until it ends or hangs; then end its processes and remove its files."""
    run = Run(call, executor, planned=PLANNED[call])
    folder = Path(tempfile.mkdtemp(prefix="resilient-exec-deadlock-"))
    # What negmas would write to the user's home, and temporary files of what is killed, go to the run's folder.
    places = {"DEFAULT_PATH": "config.json", "LOG_BASE": "logs", "TOURNAMENTS_BASE": "tournaments"}
    variables = {"TMPDIR": str(folder)} | {f"NEGMAS_{name}": str(folder / place) for name, place in places.items()}
    command = [str(python), str(Path(__file__).resolve()), "--child", call, executor, str(folder)]
    child = environments.start_marked(command, folder, folder.name, variables)
    try:
        follow(run, child, folder, args)
        # After a regular exit the helper processes end soon; those that do not are killed and reported.
        patience = time.monotonic() + 5
        while run.verdict == "ended" and environments.processes_of(folder.name) and time.monotonic() < patience:
            time.sleep(0.1)
    finally:
        left = environments.end_processes(folder.name)
        child.wait()
        shutil.rmtree(folder, ignore_errors=True)
    if left and run.verdict == "ended":
        run.verdict = f"ended, but left {left} processes behind"
    run.pending = run.planned - run.done
    run.judge()
    return run


def follow(run: Run, child: subprocess.Popen[bytes], folder: Path, args: argparse.Namespace) -> None:
    """Fill in the run from both observers' reports, until the child ends, the hang is proved, or the limit is over."""
    proof = HangProof(args.hold)
    end = time.monotonic() + args.limit
    while child.poll() is None:
        alive, status = environments.processes_of(folder.name), environments.read_json(folder / "status.json")
        workers = [pid for pid, command in alive.items() if pid != child.pid and "resource_tracker" not in command]
        run.workers_alive = len(workers)
        if status:
            copy_status(run, status)
            if proof.add(status, workers, time.monotonic()):
                run.seconds = max(0.0, proof.progress_at - status["begun"])
                run.verdict = f"HANG proved (held {args.hold:.0f} s)"
                run.evidence = hang_evidence(status, alive, child.pid, proof)
                return
        if time.monotonic() > end:
            run.verdict = f"neither ended nor proved to hang in {args.limit:.0f} s"
            run.evidence = status.get("stack", [])
            return
        time.sleep(TICK)
    record_end(run, child.returncode, folder)


def copy_status(run: Run, status: dict[str, Any]) -> None:
    """Copy the inside observer's status. It sees nothing of a resilient pool, of which the report comes at the end."""
    run.seconds = status["at"] - status["begun"]
    if status["planned"]:
        run.planned, run.done, run.workers = status["planned"], status["done"], status["max_workers"]
        run.errors = status["errors"]


def record_end(run: Run, code: int, folder: Path) -> None:
    """Fill in the run of a child that ended by itself."""
    run.workers_alive = 0
    outcome = environments.read_json(folder / "outcome.json")
    if code == 0 and outcome:
        copy_status(run, outcome)
        run.done, run.verdict = outcome["result"], "ended"
    else:
        run.verdict = f"failed (exit status {code})"
        run.evidence = (folder / "output.txt").read_text(errors="replace").splitlines()[-20:]


def hang_evidence(status: dict[str, Any], alive: dict[int, str], child: int, proof: HangProof) -> list[str]:
    """The last observation before the verdict, as text."""
    others = [command for pid, command in alive.items() if pid != child]
    return [
        f"done: {status['done']} of {status['planned']}, unchanged in {proof.ticks} observations in a row",
        f"pending: {status['running']} called running, {status['waiting']} waiting",
        f"pool of {status['max_workers']} workers; its table of workers: {status['pool_table'] or 'empty'}",
        f"alive beside the process itself: {others or 'nothing'}",
        "main thread: " + " > ".join(status["stack"]),
    ]


def print_table(runs: list[Run]) -> None:
    """Print the table, then the evidence."""
    rows = [[*COLUMNS.split(), ""]]
    for run in runs:
        counts = [run.workers, run.planned, run.done, run.errors, f"{run.seconds:.1f}", run.workers_alive, run.pending]
        verdict = [run.verdict, "as expected" if run.expected else "NOT EXPECTED"]
        rows.append([NAMES[run.call], run.executor, *map(str, counts), *verdict])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print("(seconds: until the end or the last progress; alive: workers, at the end)")
    for run in runs:
        if run.evidence:
            print(f"\n{NAMES[run.call]}, {run.executor}:", *run.evidence, sep="\n  ")


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", help="the affected Python to use")
    parser.add_argument("--env", type=Path, help="folder of the virtual environment")
    parser.add_argument("--fresh", action="store_true", help="make the environment anew")
    parser.add_argument("--only", choices=sorted(PLANNED), help="run one of the two tournaments")
    parser.add_argument("--hold", type=float, default=10.0, help="seconds for which the proof must hold")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds that one run may take")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    args = parser.parse_args(argv)
    if args.hold <= 0 or args.limit <= args.hold:
        parser.error(f"--hold {args.hold} and --limit {args.limit}: needed is 0 < hold < limit")
    return args


def main(argv: list[str]) -> int:
    """Set up the environment, run everything, print the table; see the top of this file for the exit status."""
    args = parse(argv)
    # Raised as an exception, so that the processes and files of the present run are removed.
    signal.signal(signal.SIGTERM, lambda signum, _: sys.exit(128 + signum))
    if not Path("/proc/self/environ").exists():
        print("the outside observer reads /proc: this needs Linux", file=sys.stderr)
        return 2
    try:
        interpreter, python = environments.find_environment(
            args.python, REQUIREMENTS, CHECKOUT, args.env, fresh=args.fresh
        )
    except environments.SetupError as problem:
        print(problem, file=sys.stderr)
        return 2
    runs = []
    for executor in ("stock", "resilient"):
        for call in [args.only] if args.only else PLANNED:
            print(f"running {NAMES[call]} through {executor} ...", flush=True)
            runs.append(run_observed(call, executor, python, args))
            print(f"  {runs[-1].done} of {runs[-1].planned}: {runs[-1].verdict}", flush=True)
    print(f"\nPython {interpreter.version}, {', '.join(REQUIREMENTS)}")
    print_table(runs)
    if args.json:
        environments.write_json(args.json, {"python": asdict(interpreter), "runs": [asdict(run) for run in runs]})
    return 0 if all(run.expected for run in runs) else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child_main(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
    else:
        sys.exit(main(sys.argv[1:]))
