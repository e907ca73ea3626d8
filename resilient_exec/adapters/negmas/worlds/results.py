"""The results of one world set on the disk: written by the worker that ran it, read by later attempts and runs.

A world set is finished when its ``results.json`` can be read.  It is written in the worker, in the same attempt as the
world.  So when the program is killed, each world set is either finished or running in a lane, and no results wait in a
queue of the parent to be saved: a kill costs at most one execution for each lane.

An incomplete file does not count.  It is removed before the world set is run again, since negmas' evaluation fails on
an empty one.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read", "save"]


def read(negmas: Any, folder: Path) -> Any:
    """The score of a world set, or ``None`` if it is not finished.

    Args:
        negmas: the module ``negmas.tournaments.tournaments``.
        folder: of the world set.
    """
    path = folder / negmas.RESULTS_FILE
    if not path.exists():
        return None
    try:
        return negmas.score_adapter(negmas.load(path))
    except Exception:  # incomplete, since its writer was killed; negmas would run the world set again, too
        return None


def save(negmas: Any, name: str, result: tuple[Any, ...]) -> None:
    """Write the results of a world set.

    Args:
        negmas: the module ``negmas.tournaments.tournaments``.
        name: of the tournament.
        result: what negmas' ``_run_worlds`` has returned.

    Raises:
        OSError: the disk is full, for example.
    """
    run_id, paths, score, world_stats, type_stats, agent_stats = result
    # No callback is called and nothing is printed here, since the parent does both.
    quiet: dict[str, Any] = {"tournament_progress_callback": None, "verbose": False, "attempts_path": None}
    quiet |= {"_strt": time.perf_counter(), "n_world_configs": 1, "i": 0}
    negmas.save_run_results(run_id, score, world_stats, type_stats, agent_stats, world_paths=paths, name=name, **quiet)
