"""``parallelism="resilient"`` for the tournaments of negmas and scml; importing this package makes it work.

::

    import resilient_exec.adapters.negmas
    from scml.utils import anac2024_std

    results = anac2024_std(competitors=..., parallelism="resilient")      # or "resilient:0.5": half of the CPUs

World tournaments (``tournament``, ``run_tournament``, every ``anac20XX_*``) then end whatever their agents do.  A
world that hangs is killed at its limit, and a worker that dies costs one attempt of one world.  A world that fails for
good is reported, with its competitors and the reason, on stderr, in ``resilient/report.json`` beside the results, and
by :func:`last_report`.  Other values of ``parallelism=`` work as before.

* :func:`options`: limits, retries, number of workers; :mod:`.settings` lists them, with their environment variables.
* ``install(negotiations=True)``: the negotiations of ``cartesian_tournament`` run on our pool, too.
* :func:`uninstall`: restores negmas.

``tournament_progress_callback`` is called in this process, in the order of completion; ``world_progress_callback``
runs in the worker.  Competitors, generators and callbacks that are defined in ``__main__`` or in a notebook are pickled
by value.  What workers print is copied to this process's stdout and stderr as long as these are read.

The modules: :mod:`.installation` (replaces functions of negmas), :mod:`.compatibility` (whether these fit),
:mod:`.settings`, :mod:`.checks` and :mod:`.folder_lock` (checks before the first world), :mod:`.travel` (how
``__main__`` gets to the worker), :mod:`.preloading` (what workers preload).  The folders: :mod:`.worlds` (world
tournaments: ``runner`` in the parent, ``task`` in the worker), :mod:`.negotiations` (negotiation tournaments),
:mod:`.blame` (who was on stage when a world failed, and the health of each competitor), :mod:`.report` (the report at
the end).
"""

from __future__ import annotations

from resilient_exec.adapters.negmas.checks import CheckFailed
from resilient_exec.adapters.negmas.installation import install, uninstall
from resilient_exec.adapters.negmas.report.report import Report, ResilientWarning, last_report
from resilient_exec.adapters.negmas.report.task_report import TaskReport
from resilient_exec.adapters.negmas.settings import Settings, options

__all__ = [
    "CheckFailed",
    "Report",
    "ResilientWarning",
    "Settings",
    "TaskReport",
    "install",
    "last_report",
    "options",
    "uninstall",
]

install()
