"""The results of one world set on the disk: written by the worker that ran it, and read by whoever comes later.

A world set is finished when its ``results.json`` can be read.  It is written in the worker, in the same attempt as the
world: when the program is killed, a world set is then either finished or under way in a lane, and none that has ended
waits in a queue of the parent for its results to be saved.  So a kill costs at most one execution for each lane.

A file that was cut short does not count.  It is removed before the world set is run again, since negmas' evaluation
trips over an empty one.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read", "save"]


def read(negmas: Any, folder: Path) -> Any:
    """The score of a world set, or ``None``: it has not been run to its end.

    Args:
        negmas: the module ``negmas.tournaments.tournaments``.
        folder: of the world set.
    """
    path = folder / negmas.RESULTS_FILE
    if not path.exists():
        return None
    try:
        return negmas.score_adapter(negmas.load(path))
    except Exception:  # cut short by a crash: negmas would run it again, and so do we
        return None


def save(negmas: Any, name: str, result: tuple[Any, ...]) -> None:
    """Write the results of a world set.

    Args:
        negmas: as above.
        name: of the tournament.
        result: what negmas' ``_run_worlds`` has returned.
    """
    run_id, paths, score, world_stats, type_stats, agent_stats = result
    # Nobody is called back and nothing is printed here: the parent does both.
    quiet: dict[str, Any] = {"tournament_progress_callback": None, "verbose": False, "attempts_path": None}
    quiet |= {"_strt": time.perf_counter(), "n_world_configs": 1, "i": 0}
    negmas.save_run_results(run_id, score, world_stats, type_stats, agent_stats, world_paths=paths, name=name, **quiet)
