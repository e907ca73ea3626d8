"""One negotiation tournament's pool, with its output, its report and what is known of its competitors."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resilient_exec.adapters.negmas import checks, preloading, settings, travel
from resilient_exec.adapters.negmas.blame.conduct import Conduct
from resilient_exec.adapters.negmas.negotiations import seeding as negotiation_seeds
from resilient_exec.adapters.negmas.negotiations.watched import Negotiation, Record, failed_attempts, full_names
from resilient_exec.adapters.negmas.report import attempts, report
from resilient_exec.adapters.negmas.report.task_report import TaskReport
from resilient_exec.adapters.worker_output import WorkerOutput, redirect_output
from resilient_exec.model.errors import AttemptError, NotSendable, PoolBroken
from resilient_exec.pool.pool import ResilientPool

if TYPE_CHECKING:
    from collections.abc import Iterable

    from resilient_exec import ResilientFuture

__all__ = ["Session", "record_of", "shortest_limit"]


def _prepare(output_folder: str) -> None:
    """Initializer of a worker."""
    redirect_output(output_folder)
    travel.name_as_serial_runs_do()


class Session:
    """A pool for one tournament, with its output and its report."""

    def __init__(self, max_workers: int, timeout: float | None, max_tasks: int | None) -> None:
        chosen = settings.current()
        self.timeout = shortest_limit(timeout, chosen.timeout)
        self.lanes = chosen.max_workers or max_workers
        self.seeds = negotiation_seeds.current()
        self._clock = attempts.Clock()
        with ExitStack() as stack:
            output = stack.enter_context(WorkerOutput(chosen.output_limit))
            self.pool = ResilientPool(
                self.lanes,
                timeout=self.timeout,
                start_timeout=chosen.start_timeout,
                memory_limit=chosen.memory_limit,
                retry=chosen.retry,
                max_tasks_per_worker=chosen.max_tasks_per_worker or max_tasks or None,
                initializer=_prepare,
                initargs=(output.folder,),
                preload=preloading.NEGOTIATIONS if chosen.preload else (),
                observers=(*chosen.observers, lambda event: self._clock.hear(event.at)),
                env=self.seeds.environment if self.seeds is not None else None,
            )
            self._stack = stack.pop_all()
        self.recorder: report.Recorder | None = None
        self._conduct: Conduct | None = None
        self._known: set[Any] = set()

    def check(self, competitors: Iterable[Any]) -> None:
        """Refuse, before the first negotiation, competitors that cannot be unpickled in a worker.

        One that cannot be pickled here is not refused, since negmas handles that itself.

        Raises:
            CheckFailed: names the competitors, with the remedy.
            PoolBroken: no worker could be started.
        """
        new = {kind for kind in competitors if isinstance(kind, type) and kind not in self._known}
        self._known |= new
        view = self.pool.options(timeout=settings.current().start_timeout, retry=1, label="import of a competitor")
        asked = {f"{kind.__module__}.{kind.__qualname__}": view.submit(checks.receive_type, kind) for kind in new}
        why = {}
        for name, future in asked.items():
            error = future.exception()
            if isinstance(error, PoolBroken):
                raise error
            if error is not None and not (isinstance(error, NotSendable) and not future.attempts):
                why[name] = str(error) if isinstance(error, AttemptError) else f"{type(error).__name__}: {error}"
        checks.refuse_unusable(why)

    def record_settled(self, future: ResilientFuture[Any], info: dict[str, Any], planned: int) -> BaseException | None:
        """Report a negotiation that has settled; returns its error, or ``None`` if it has a result.

        Raises:
            PoolBroken: no worker could be started.
        """
        error = future.exception()
        if isinstance(error, PoolBroken):
            raise error
        told = future.dossier.attempts
        fields: dict[str, Any] = {"attempts": future.attempts, "history": attempts.history(future.story)}
        fields |= attempts.evidence(self._clock, told)
        if error is not None:
            fields |= {"status": "failed", **attempts.failure(error, future.story, told)}
        self._make_recorder(info, planned)
        one = Negotiation(Path(str(info.get("run_id") or future.key)), full_names(info.get("partners") or ()))
        if self._conduct is not None and one.competitors:
            fields["on_stage"] = failed_attempts(self._conduct, one, future)
        task = self.report_task(info, planned, **fields)
        if self._conduct is not None and one.competitors:
            measured = result.measured if error is None and isinstance(result := future.result(), Record) else ()
            self._conduct.record_settled(one.folder.name, replace(task, competitors=one.competitors), measured)
        return error

    def _make_recorder(self, info: dict[str, Any], planned: int) -> report.Recorder:
        """The report, which is made with the first negotiation, and so are the notes about competitors."""
        if self.recorder is None:
            path = info.get("path")
            folder = Path(path) if path else None
            name = folder.name if folder is not None else "cartesian_tournament"
            self.recorder = report.Recorder("negotiations", name, folder, planned, self.lanes)
            self._conduct = Conduct((), folder, step_timeout=settings.current().step_timeout)
        return self.recorder

    def report_task(self, info: dict[str, Any], planned: int, **fields: Any) -> TaskReport:
        """Add a negotiation to the report; returns what was added."""
        recorder = self._make_recorder(info, planned)
        scenario = getattr(getattr(info.get("s"), "outcome_space", None), "name", None)
        competitors = report.named(info.get("partner_names") or info.get("partners") or ())
        name = str(info.get("run_id", ""))
        worlds = (str(scenario),) if scenario else ()
        task = TaskReport(name=name, worlds=worlds, competitors=competitors, **fields)
        recorder.add(task)
        return task

    def close(self, *, kill: bool, ended_by: str = "") -> None:
        """Shut the pool down and write the report.

        Args:
            kill: whether to kill negotiations that run.
            ended_by: what ended the tournament early: the name of an exception, or ``"total_timeout"``.
        """
        try:
            self.pool.shutdown(wait=True, cancel_futures=kill, kill=kill)
        finally:
            self._stack.close()
            if self.recorder is not None:
                self.recorder.ended_by = ended_by
                told = self.recorder.finish(self._conduct.finish() if self._conduct is not None else ())
        if self.recorder is not None and ended_by in {"", "total_timeout"}:
            report.warn(told)


def shortest_limit(timeout: float | None, given: object) -> float | None:
    """The shorter one of two limits in seconds; ``None`` if neither is a limit."""
    limits = [limit for limit in (timeout, given) if isinstance(limit, int | float) and 0 < limit < math.inf]
    return min(limits, default=None)


def record_of(result: Any) -> Any:
    """The negotiation's own record, of what a worker has returned."""
    return result.record if isinstance(result, Record) else result
