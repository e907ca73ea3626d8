"""``parallelism="resilient"`` for the tournaments of negmas and scml: import this package, and it works.

::

    import resilient_exec.adapters.negmas
    from scml.utils import anac2024_std

    results = anac2024_std(competitors=..., parallelism="resilient")      # or "resilient:0.5": half of the CPUs

World tournaments (``tournament``, ``run_tournament``, every ``anac20XX_*``) then end whatever their agents do: a
world that hangs is killed at its limit, a worker that dies costs one attempt of one world, and a world that fails
for good is named, with its competitors and the reason, on stderr, in ``resilient-report.json`` beside the results,
and by :func:`last_report`.  Other values of ``parallelism=`` do what they did.

* :func:`options`: limits, retries, number of workers; :mod:`.settings` has the list, and the environment's names.
* ``install(negotiations=True)``: the process pool of ``cartesian_tournament`` goes through ours, too.
* :func:`uninstall`: everything as it was.

Things to know: ``tournament_progress_callback`` is called in this process, in the order of completion;
``world_progress_callback`` runs in the worker, where the world is.  Competitors, generators and callbacks of
``__main__`` and of notebooks travel by value.  What workers print arrives on this process's stdout and stderr as
far as somebody reads it.

The modules: :mod:`.installation` (how it gets into negmas), :mod:`.settings`, :mod:`.checks` and :mod:`.folder_lock`
(what is looked at before the first world), :mod:`.travel` (how ``__main__`` gets to the worker), :mod:`.preloading`
(what workers find imported).  The folders: :mod:`.worlds` (world tournaments: ``runner`` in the parent, ``task`` in the
worker), :mod:`.negotiations` (the same for negotiation tournaments), :mod:`.blame` (who was on stage when a world
failed, and how each competitor did), :mod:`.report` (what is told at the end).
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
