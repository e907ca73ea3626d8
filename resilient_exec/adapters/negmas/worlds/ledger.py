"""What is told of each world set: when it ran, how its attempts failed, whose code was running, what it printed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from resilient_exec.adapters import places
from resilient_exec.adapters.negmas.report import attempts, audience
from resilient_exec.adapters.negmas.report.progress import Running
from resilient_exec.adapters.negmas.worlds import task as worldset
from resilient_exec.adapters.worker_output import WorkerOutput

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from resilient_exec import ResilientFuture
    from resilient_exec.adapters.negmas.blame.conduct import Conduct
    from resilient_exec.adapters.negmas.report.report import Recorder
    from resilient_exec.adapters.negmas.report.task_report import TaskReport
    from resilient_exec.adapters.negmas.settings import Settings
    from resilient_exec.adapters.negmas.worlds.plan import WorldSet
    from resilient_exec.model.events import Event

__all__ = ["Ledger", "ended", "worker_output"]


def ended(by: str, total_timeout: float | None) -> str:
    """Why what was planned is not run, by what has ended the tournament."""
    if by == "total_timeout":
        return f"total_timeout ({total_timeout} s) was over"
    return f"the tournament was ended by {'Ctrl-C' if by == 'KeyboardInterrupt' else by}"


def worker_output(chosen: Settings) -> WorkerOutput:
    """For what workers print: nothing of it is forwarded where worlds print into files, but when ``both`` is said."""
    forward = chosen.output_limit > 0 and chosen.output != "file"
    out, err = (1, 2) if forward else (None, None)
    return WorkerOutput(chosen.output_limit, stdout=out, stderr=err, without_escapes=chosen.output == "both")


class Ledger:
    """Keeps the records of one tournament's world sets.

    Args:
        recorder: of its reports.
        conduct: of its competitors.
        chosen: its settings.
    """

    def __init__(self, recorder: Recorder, conduct: Conduct, chosen: Settings) -> None:
        self._recorder, self._conduct, self._chosen = recorder, conduct, chosen
        self._clock = attempts.Clock()
        self._output: WorkerOutput | None = None
        self._left_out: dict[Path, int] = {}  # bytes of what a world printed, by file

    # -- what worlds print

    def output_to(self, output: WorkerOutput) -> None:
        """Let this cap the files of worlds from now on."""
        self._output = output

    @property
    def prints(self) -> worldset.Prints:
        """Where what a world prints goes."""
        if self._chosen.output == "forward":
            return worldset.Prints.ON
        return worldset.Prints.INTO_FILE if self._chosen.output_limit else worldset.Prints.NOWHERE

    def _close_file(self, world_set: WorldSet, attempt: int) -> int:
        if self._output is None or self.prints is not worldset.Prints.INTO_FILE:
            return 0
        path = world_set.folder / places.FOLDER / places.output_name(attempt)
        left_out = self._left_out.get(path, 0) + self._output.kept(path)
        self._left_out[path] = left_out
        return left_out

    # -- while it runs

    def hear(self, event: Event) -> None:
        """Note when an event happened; called on the pool's thread."""
        self._clock.hear(event.at)

    def begins(self, world_set: WorldSet, event: Event) -> None:
        """Record that an attempt at a world set has begun."""
        if self._output is not None and self.prints is worldset.Prints.INTO_FILE:
            path = world_set.folder / places.FOLDER / places.output_name(event.attempt)
            self._output.keep(path, forward=self._chosen.output == "both")
        name = world_set.folder.name
        pid = event.detail.get("pid")
        running = Running(name, world_set.competitors, event.attempt, time.time(), pid)
        self._recorder.progress.begins(running)

    def tell_progress(self) -> None:
        """Tell the listener how far the tournament is, and write it into the folder."""
        self._recorder.progress.write()
        listener = audience.current()
        if listener is not None:
            listener.progress(self._recorder.progress)

    # -- what became of it

    def scored(self, world_set: WorldSet, future: ResilientFuture[Any], played: worldset.Played) -> TaskReport:
        """Return the report of a world set that has a score."""
        left_out = self._close_file(world_set, future.attempts)
        fields = self.attempts(world_set, future)
        printed = played.printed + left_out
        return world_set.report(history=attempts.history(future.story), printed=printed, **fields)

    def failed(self, world_set: WorldSet, future: ResilientFuture[Any], error: BaseException) -> TaskReport:
        """Return the report of a world set that has failed for good."""
        told = attempts.failure(error, future.story, future.dossier.attempts)
        return world_set.report(status="failed", **self.attempts(world_set, future), **told)

    def interrupted(self, world_set: WorldSet, future: ResilientFuture[Any], why: str) -> TaskReport:
        """Return the report of a world set that was running when the tournament was ended."""
        history = attempts.history(future.story)
        return world_set.report(status="interrupted", reason=why, history=history, **self.attempts(world_set, future))

    def attempts(self, world_set: WorldSet, future: ResilientFuture[Any]) -> Mapping[str, Any]:
        """The fields about the attempts so far; who was on stage in failed ones is taken down, each once."""
        told = future.dossier.attempts
        stage = self._conduct.record_failed_attempts(world_set, future.key, told)
        for attempt in told:
            if attempt.outcome:
                self._close_file(world_set, attempt.number)
        return {
            "attempts": future.attempts,
            "on_stage": stage,
            **attempts.evidence(self._clock, told, world_set.folder),
        }
