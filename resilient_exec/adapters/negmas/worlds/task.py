"""In the worker: one world set, run by negmas' own ``_run_worlds``, with no stale markers before and after it."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from resilient_exec.adapters import places
from resilient_exec.adapters.negmas import travel
from resilient_exec.adapters.negmas.blame import entries, history
from resilient_exec.adapters.negmas.blame.growth import Growth
from resilient_exec.adapters.negmas.blame.notes import own_types
from resilient_exec.adapters.negmas.worlds import limited_calls, markers, results, seeding
from resilient_exec.adapters.task_output import flush_output, printing_to
from resilient_exec.adapters.worker_output import redirect_output
from resilient_exec.worker.context import task_context

if TYPE_CHECKING:
    from pathlib import Path

    from resilient_exec.adapters.negmas.blame.stage import Measured

__all__ = ["Played", "Prints", "Refused", "prepare", "run_world_set"]


class Prints(Enum):
    """Where what a world prints goes."""

    ON = "on"  # to the worker's stdout, which is forwarded to the program's
    INTO_FILE = "into file"  # in the folder of its world set
    NOWHERE = "nowhere"


@dataclass(frozen=True)
class Played:
    """The world set was run: what negmas' ``_run_worlds`` returned, what each agent took, and the bytes printed."""

    result: Any
    measured: list[Measured] = field(default_factory=list)
    printed: int = 0


@dataclass(frozen=True)
class Refused:
    """The world set was not run, for this reason."""

    reason: str


_shared: dict[str, Any] = {}


def prepare(output_folder: str, packed: bytes) -> None:
    """Initializer of a worker: where its output goes, and what all world sets share."""
    redirect_output(output_folder)
    _shared.update(travel.unpack(packed))


def run_world_set(
    worlds: list[dict[str, Any]],
    *,
    tournament: str,
    seed: int | None,
    max_attempts: float,
    verbose: bool,
    prints: Prints = Prints.ON,
) -> Any:
    """Run the worlds of one set and save their results; a :class:`Played`, or :class:`Refused`.

    Args:
        worlds: the set's configurations.
        tournament: its name.
        seed: what negmas wants this task seeded with; ``None``: nothing.
        max_attempts: how often the set may be started, over all runs of the tournament.
        verbose: as in negmas.
        prints: where what it prints goes.

    Returns:
        :class:`Played`, or :class:`Refused` where another process runs the set.
    """
    folder = markers.set_folder(worlds)
    _show_in_ps(folder.name)
    if prints is Prints.ON:
        before = _printed()
        done = _run(worlds, folder, tournament=tournament, seed=seed, max_attempts=max_attempts, verbose=verbose)
        return replace(done, printed=max(0, _printed() - before)) if isinstance(done, Played) else done
    name = places.output_name(task_context().attempt)
    with printing_to(folder / places.FOLDER / name if prints is Prints.INTO_FILE else None) as printed:
        done = _run(worlds, folder, tournament=tournament, seed=seed, max_attempts=max_attempts, verbose=verbose)
        return replace(done, printed=printed()) if isinstance(done, Played) else done


def _run(worlds: list[dict[str, Any]], folder: Path, *, seed: int | None, **how: Any) -> Any:
    negmas = _tournaments()
    standing = markers.clear_markers(folder, dead=task_context().previous_pids)
    if standing:
        return Refused(running_elsewhere(standing))
    # An attempt before this one may have saved everything and died before its result reached the parent.
    is_finished = results.read(negmas, folder) is not None
    if not is_finished:
        (folder / negmas.RESULTS_FILE).unlink(missing_ok=True)
        markers.clear_leftovers(worlds)
    if seed is not None:
        seeding.reseed(seed)
    try:
        with (
            contextlib.ExitStack() as stack,
            entries.watch([kind for kind in own_types(worlds) if isinstance(kind, str)]) as watch,
            limited_calls.handed_over(),
        ):
            watch.growth = stack.enter_context(contextlib.closing(_growth(folder)))
            result = negmas._run_worlds(
                worlds,
                _shared["world_generator"],
                _shared["score_calculator"],
                _shared["world_progress_callback"],
                False,  # dry_run
                True,  # save_world_stats
                False,  # override_ran_worlds: negmas never looks at it
                1,  # save_progress_every
                folder / "attempts",
                how["max_attempts"],
                how["verbose"],
            )
            # Nothing was played again: what the first attempt measured counts.
            measured = history.load_measured(folder) if is_finished else watch.measured()
        if result[2] is None:
            return Refused("negmas refused to run it: another process took it up at the same moment")
        if not is_finished:
            history.save_measured(folder, measured)
            results.save(negmas, how["tournament"], result)
    finally:
        # negmas leaves it when a world raises, and would then refuse that world for ever.
        markers.clear_own_marker(folder)
    return Played(result, measured)


def _growth(folder: Path) -> Growth:
    folder.mkdir(parents=True, exist_ok=True)
    return Growth(folder, task_context().attempt)


def _show_in_ps(name: str) -> None:
    """Tell by the process's title what it runs, where setproctitle is installed."""
    with contextlib.suppress(ImportError):
        from setproctitle import setproctitle

        setproctitle(f"resilient-exec world {name}")


def _printed() -> int:
    """Bytes in the files that this worker's output goes to (:mod:`resilient_exec.adapters.worker_output`)."""
    flush_output()
    size = 0
    for fd in (1, 2):
        with contextlib.suppress(OSError):
            size += os.fstat(fd).st_size
    return size


def running_elsewhere(standing: list[markers.Marker]) -> str:
    """Why a world with markers that stand is not run."""
    who = ", ".join(map(str, standing))
    return f"{who} is running it, by the marker in {standing[0].path.parent}; if that is not so, remove the marker"


def _tournaments() -> Any:
    from negmas.tournaments import tournaments  # seconds; and a broken negmas is the task's failure

    return tournaments
