"""World tournaments: what takes the place of negmas' ``_run_parallel``.

One task is one world set.  All decisions about it are made here, in the caller's thread, which alone calls the
progress callback; the worker saves the results (:mod:`.worlds.results`), the pool only says what became of an attempt.

* A world set that has its results is not sent to a worker again: its callback is called, as stock negmas does.
* One whose marker stands (:mod:`.worlds.markers`) is waited for, ``marker_wait`` seconds at most, while others run.
* ``max_attempts`` counts real starts, over all runs of the tournament (stock counts them where they are not written).
* ``total_timeout`` holds while nothing completes, too: what runs is killed, what waits is given up, and negmas
  evaluates what is there.  As in stock, the progress callback is not called for what was given up.
* A callback that raises is reported and costs nothing: the result it was called for is saved all the same.
"""

from __future__ import annotations

import contextlib
import functools
import math
import queue
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resilient_exec import ResilientFuture
from resilient_exec.adapters.negmas import checks, preloading, settings, travel
from resilient_exec.adapters.negmas.blame import entries
from resilient_exec.adapters.negmas.blame.conduct import Conduct
from resilient_exec.adapters.negmas.blame.culprit import FAULTS
from resilient_exec.adapters.negmas.blame.notes import own_types
from resilient_exec.adapters.negmas.report import audience, report
from resilient_exec.adapters.negmas.worlds import failed_before, markers, results, seeding, verification
from resilient_exec.adapters.negmas.worlds import task as worldset
from resilient_exec.adapters.negmas.worlds.ledger import Ledger, ended, worker_output
from resilient_exec.adapters.negmas.worlds.plan import WorldSet, world_sets
from resilient_exec.model.errors import PoolBroken, TaskKilled
from resilient_exec.model.events import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from resilient_exec.adapters.negmas.report.task_report import TaskReport
    from resilient_exec.adapters.worker_output import WorkerOutput
    from resilient_exec.pool.pool import ResilientPool

__all__ = ["run"]

_AHEAD = 64  # world sets submitted before the first of them has settled, besides those that run
_LOOK_EVERY = 1.0  # s between two looks at the markers of living strangers
_TELL_EVERY = 0.5  # s between two moments at which progress is told


def run(negmas: Any, call: Mapping[str, Any], lanes: int) -> None:
    """Run the world sets of a tournament that have no results yet.

    Args:
        negmas: the module ``negmas.tournaments.tournaments``.
        call: the arguments of ``_run_parallel`` by name.
        lanes: how many workers, where the settings give no number.
    """
    chosen = settings.current()
    if chosen.verify and not isinstance(call["world_generator"], seeding.Seeded):
        raise ValueError(
            f"verify={chosen.verify}: without a seed, two runs of a world differ anyway; give one, by options(seed=...)"
        )
    tournament = _Tournament(negmas, call, chosen, chosen.max_workers or lanes)
    try:
        tournament.run()
    except checks.CheckFailed:
        raise  # nothing was run: there is nothing to report
    except BaseException:
        tournament.finish()
        raise
    told = tournament.finish()
    report.warn(told)
    if call["verbose"]:
        _say(f"Finished in {time.perf_counter() - tournament.begin:.1f} s")


def _say(text: str) -> None:
    print(text)  # noqa: T201  where negmas prints, for verbose= and print_exceptions=


@dataclass
class _Tournament:
    negmas: Any
    call: Mapping[str, Any]
    settings: settings.Settings
    lanes: int
    recorder: report.Recorder = field(init=False)

    def __post_init__(self) -> None:
        generator = self.call["world_generator"]
        self.seeded = generator if isinstance(generator, seeding.Seeded) else None
        self.begin = self.looked = time.perf_counter()
        self.n_sets = len(self.call["assigned"])
        self.n_settled = 0
        self.path = Path(self.call["scores_file"]).parent
        self.runnable: deque[WorldSet] = deque()
        self.blocked: list[WorldSet] = []
        self.running: dict[ResilientFuture[Any], WorldSet] = {}
        self.inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()  # of futures
        self.finished: list[WorldSet] = []  # in this run
        self.keys: set[str] = set()
        self.recorder = report.Recorder("worlds", self.call["name"], self.path, self.n_sets, self.lanes)
        self.recorder.unwatched = entries.missing()
        self.conduct = Conduct(
            self._params().get("competitors") or (),
            self.path,
            step_timeout=self.settings.step_timeout,
            disqualify_after=self.settings.disqualify_after,
        )
        self.ledger = Ledger(self.recorder, self.conduct, self.settings)
        self.lost_before: dict[str, TaskReport] = {}
        if not self.settings.retry_failed:
            self.lost_before = failed_before.lost(self.path, self.conduct.lost())
        limit = self.call["total_timeout"]
        self.deadline = self.begin + limit if limit is not None and 0 < limit < math.inf else math.inf

    def finish(self) -> report.Report:
        """Tell what became of it."""
        return self.recorder.finish(self.conduct.finish())

    def run(self) -> None:
        packed = self._pack()
        for world_set in world_sets(self.negmas, self.call["assigned"], self._params().get("competitors") or ()):
            self._sort(world_set)
        if not self.runnable and not self.blocked:
            return
        checks.check_room(self.path, len(self.runnable) + len(self.blocked))
        self.lanes = min(self.lanes, len(self.runnable) + len(self.blocked))
        self._say_what_runs()
        with contextlib.ExitStack() as stack:
            output = stack.enter_context(worker_output(self.settings))
            self.ledger.output_to(output)
            make = functools.partial(self._pool, output, packed)
            pool = make(None if self.seeded is None else self.seeded.environment)
            try:
                self._check_competitors(pool)
                self._drive(pool)
                self._verify(pool, make)
            except BaseException as error:
                self.recorder.ended_by = str(getattr(error, "signal_name", type(error).__name__))
                raise
            finally:
                # After an error, or with the time up, nobody wants what still runs; else nothing does.
                pool.shutdown(wait=True, cancel_futures=True, kill=bool(self.running))
                self._account_for_the_rest()

    # -- before the first world

    def _pack(self) -> bytes:
        names = ("world_generator", "score_calculator", "world_progress_callback")
        shared = {name: self.call[name] for name in names}
        return travel.pack(travel.main_names(self.call["assigned"], self._params()), shared)

    def _params(self) -> dict[str, Any]:
        params: dict[str, Any] = self.negmas.load(self.path / self.negmas.PARAMS_FILE) or {}
        return params

    def _sort(self, world_set: WorldSet) -> None:
        """Decide what is to be done about a world set."""
        if self._was_scored(world_set):
            return
        if (told := self.lost_before.get(world_set.folder.name)) is not None:
            self._call_back(None)
            self._settle(told)
        elif world_set.run_id in self.call["run_ids"] or world_set.attempts_left(self.call["max_attempts"]) < 1:
            self._not_run(world_set, f"it has been started {self.call['max_attempts']} times already (max_attempts)")
        elif standing := markers.clear_markers(world_set.folder, take_over=self.settings.take_over):
            self._block(world_set, worldset.running_elsewhere(standing))
        else:
            self.runnable.append(world_set)

    def _was_scored(self, world_set: WorldSet) -> bool:
        """Whether the world set has its results; if so, it is settled."""
        score = results.read(self.negmas, world_set.folder)
        if score is None:
            return False
        self._call_back(score)
        self._settle(world_set.report(status="scored before"))
        self.conduct.record_scored_before(world_set.folder, world_set.competitors)
        return True

    def _say_what_runs(self) -> None:
        limits = {limit for item in self.runnable if (limit := item.timeout(self.settings)) is not None}
        progress = self.recorder.progress
        progress.lanes, progress.limit = self.lanes, max(limits, default=None)
        self.ledger.tell_progress()
        if self.call["verbose"]:
            within = " to ".join(f"{limit:.0f} s" for limit in sorted({f(limits) for f in (min, max) if limits}))
            _say(
                f"Running {len(self.runnable)} world-sets on {self.lanes} workers. World timeout is "
                f"{within or 'none'} and total-timeout is {self.call['total_timeout']}"
            )

    def _pool(self, output: WorkerOutput, packed: bytes, env: dict[str, str] | None) -> ResilientPool:
        functions = (self.call["world_generator"], self.call["score_calculator"])
        types = {name for item in (*self.runnable, *self.blocked) for name in item.competitors}
        modules = preloading.modules_for(preloading.WORLDS, functions, sorted(types))
        return preloading.pool_for(
            self.settings,
            self.lanes,
            modules,
            initializer=worldset.prepare,
            initargs=(output.folder, packed),
            env=env,
            observers=(*self.settings.observers, self._observe),
        )

    def _check_competitors(self, pool: ResilientPool) -> None:
        """Have all types imported in the workers, where each of their worlds would else fail for want of one."""
        kinds = [kind for item in (*self.runnable, *self.blocked) for kind in own_types(item.worlds)]
        view = pool.options(timeout=self.settings.start_timeout, retry=1, label="import of the competitors")
        checks.check_types(view, sorted(set(report.named(kinds))), self.lanes, self.deadline)

    # -- while worlds run

    def _drive(self, pool: ResilientPool) -> None:
        steps: Any = self._steps(pool)
        if audience.current() is None and hasattr(self.negmas, "track"):  # who listens has something of its own
            steps = self.negmas.track(steps, total=self.n_sets - self.n_settled, description="Simulating ...")
        for _ in steps:
            pass

    def _steps(self, pool: ResilientPool) -> Iterator[None]:
        """Yield after each world set that settles, until all have, or the time is up."""
        while self.runnable or self.blocked or self.running:
            if time.perf_counter() > self.deadline:
                self.recorder.ended_by = "total_timeout"
            if self.recorder.ended_by:
                return
            settled = self.n_settled
            self._submit(pool)
            news = self._wait() if self.running or self.blocked else None  # else all others have been excluded
            if isinstance(news, ResilientFuture):
                self._account_for(news)
            elif isinstance(news, Event):
                self._record_event(news)
            self._look_at_blocked()
            self.ledger.tell_progress()
            for _ in range(self.n_settled - settled):
                yield

    def _verify(self, pool: ResilientPool, make: Callable[[dict[str, str]], ResilientPool]) -> None:
        wanted = self.settings.verify if not self.recorder.ended_by else 0
        again = [(item, item.timeout(self.settings)) for item in self.finished[:wanted]]
        if again and self.seeded is not None:
            other = functools.partial(make, self.seeded.other_environment)
            self.recorder.verified += verification.verify(
                self.negmas, pool, again, self.path, self.deadline, make_other_pool=other
            )

    def _submit(self, pool: ResilientPool) -> None:
        # Who is to be disqualified must not have begun its next world when that is decided.
        ahead = _AHEAD if self.settings.disqualify_after is None else 0
        while self.runnable and len(self.running) < self.lanes + ahead:
            world_set = self.runnable.popleft()
            if reason := self.conduct.reason_to_exclude(world_set.competitors):
                self._not_run(world_set, reason)
                continue
            policy = world_set.policy(self.settings, self.call["max_attempts"])
            view = pool.options(timeout=world_set.timeout(self.settings), retry=policy, key=self._key(world_set))
            future = view.submit(
                worldset.run_world_set,
                world_set.worlds,
                tournament=self.call["name"],
                seed=seeding.negmas_seed(world_set.index),
                max_attempts=self.call["max_attempts"],
                verbose=self.call["verbose"],
                prints=self.ledger.prints,
            )
            self.running[future] = world_set
            future.add_done_callback(self.inbox.put)

    def _key(self, world_set: WorldSet) -> str:
        # negmas does not promise that run ids differ, and a world set that was blocked comes twice; the pool insists.
        key = world_set.run_id if world_set.run_id not in self.keys else f"{world_set.run_id}#{len(self.keys)}"
        self.keys.add(key)
        return key

    def _wait(self) -> Any:
        """A future that is done, or an attempt's begin or failure; ``None``: nothing, for a while."""
        with contextlib.suppress(queue.Empty):
            return self.inbox.get(timeout=max(0.0, min(_TELL_EVERY, self.deadline - time.perf_counter())))
        return None

    def _observe(self, event: Event) -> None:
        self.ledger.hear(event)
        if event.kind == "begun" or event.kind in FAULTS:
            self.inbox.put(event)

    def _account_for(self, future: ResilientFuture[Any]) -> None:
        """Account for a task that has settled."""
        if future not in self.running:
            return  # it was taken back
        error = future.exception()
        if isinstance(error, PoolBroken):
            raise error
        world_set = self.running.pop(future)
        if error is not None:
            self._failed(world_set, future, error)
        elif isinstance(result := future.result(), worldset.Refused):
            self._block(world_set, result.reason)
        else:
            self._scored(world_set, future, result)

    def _scored(self, world_set: WorldSet, future: ResilientFuture[Any], played: worldset.Played) -> None:
        self.finished.append(world_set)
        self._call_back(played.result[2])
        told = self.ledger.scored(world_set, future, played)
        self._settle(told)
        self.conduct.record_settled(world_set.folder.name, told, played.measured)
        if self.call["verbose"]:
            _say(f"{self.n_settled} of {self.n_sets} settled after {time.perf_counter() - self.begin:.1f} s")

    def _record_event(self, event: Event) -> None:
        """An attempt has begun, or failed: that is noted at once, since this program may be killed at any moment."""
        for future, world_set in self.running.items():
            if future.key != event.key:
                continue
            if event.kind == "begun":
                self.ledger.begins(world_set, event)
            else:
                self.ledger.attempts(world_set, future)

    def _failed(self, world_set: WorldSet, future: ResilientFuture[Any], error: BaseException) -> None:
        told = self.ledger.failed(world_set, future, error)
        if self.call["print_exceptions"] and audience.current() is None:
            _say(told.traceback or str(told))
        self._call_back(None)
        self._settle(told)
        self._end_if_full(error)
        if self.conduct.record_settled(world_set.folder.name, told):
            self._take_back_excluded()

    def _take_back_excluded(self) -> None:
        """Somebody is disqualified: world sets with it that have not begun are not run; what runs runs on."""
        for future, world_set in list(self.running.items()):
            reason = self.conduct.reason_to_exclude(world_set.competitors)
            if reason and future.cancel():
                del self.running[future]
                self._not_run(world_set, reason)

    def _end_if_full(self, error: BaseException) -> None:
        """Spend no hours on worlds whose results cannot be kept."""
        if not self.recorder.ended_by and checks.is_full(error, self.path, self.lanes):
            self.recorder.ended_by = checks.FULL

    def _not_run(self, world_set: WorldSet, reason: str) -> None:
        self._call_back(None)
        self._settle(world_set.report(status="not run", reason=reason))

    def _settle(self, told: TaskReport) -> None:
        self.n_settled += 1
        self.recorder.add(told)

    def _call_back(self, score: Any) -> None:
        callback = self.call["tournament_progress_callback"]
        if callback is None:
            return
        try:
            callback(score, self.n_settled, self.n_sets)
        except Exception as error:
            self.recorder.callback_failed(error)

    # -- worlds that somebody else is running

    def _block(self, world_set: WorldSet, reason: str) -> None:
        now = time.perf_counter()
        if world_set.blocked_since is None:
            world_set.blocked_since = now
        if now - world_set.blocked_since < self.settings.marker_wait:
            self.blocked.append(world_set)
        else:
            self._not_run(world_set, reason)

    def _look_at_blocked(self) -> None:
        if not self.blocked or time.perf_counter() - self.looked < _LOOK_EVERY:
            return
        self.looked = time.perf_counter()
        blocked, self.blocked = self.blocked, []
        for world_set in blocked:
            self._sort(world_set)

    # -- after the last one

    def _account_for_the_rest(self) -> None:
        """Keep what came in at the last moment; name what was given up."""
        why = ended(self.recorder.ended_by, self.call["total_timeout"])
        for future, world_set in list(self.running.items()):
            if not future.cancelled() and not isinstance(future.exception(), TaskKilled | PoolBroken):
                self._account_for(future)
            elif future.attempts:
                self._settle(self.ledger.interrupted(world_set, future, why))
            else:
                self._settle(world_set.report(status="not run", reason=why))
        for world_set in [*self.runnable, *self.blocked]:
            self._settle(world_set.report(status="not run", reason=why))
