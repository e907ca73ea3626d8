"""Checks before the first world, for problems that would otherwise show after hours, or in every world.

* :func:`check_pandas`: versions of negmas and pandas with which results cannot be combined.
* :func:`check_room`: a disk that has no room for the results; and :func:`is_full`, for a disk that fills up later.
* :func:`unusable`, in a worker, and :func:`refuse_unusable`: competitors that cannot be imported there.
* :func:`check_plots`: plots of a negotiation tournament that cannot be drawn here.
* :func:`check_begun`: a half-done negotiation tournament, of which negmas would count finished negotiations twice.

(:mod:`.folder_lock` has one more: a folder in which another run is at work.)  Each error names the problem and the
remedy.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import subprocess
import sys
import time
from importlib import metadata
from typing import TYPE_CHECKING, Any

from resilient_exec.diagnosis.environment import pandas_objection
from resilient_exec.model.errors import PoolBroken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from resilient_exec.pool.submission import Front

__all__ = [
    "CheckFailed",
    "check_begun",
    "check_pandas",
    "check_plots",
    "check_room",
    "check_types",
    "find_unusable",
    "is_full",
    "pandas_objection",
    "receive_type",
    "refuse_unusable",
    "room_objection",
    "unusable",
]

LEAST_PER_WORLD = 400_000
"""Bytes that a world writes at least (5 steps, few agents, ``compact``); with all logs it may be 35 MB."""

_MOST_PER_WORLD = 35_000_000


class CheckFailed(RuntimeError):
    """The tournament was not started, because it would fail or lose results; the message says why, and the remedy."""


# -- versions


def check_pandas() -> None:
    """Refuse a pair of versions that would fail after the last world.

    Raises:
        CheckFailed: negmas up to 0.14 cannot combine results with pandas 3; the message has the remedy.
    """
    _refuse_if(pandas_objection(version("negmas"), version("pandas")))


def version(package: str) -> str:
    """The installed version of a package; ``"(unknown version)"`` if there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(unknown version)"


def _refuse_if(objection: str | None) -> None:
    if objection is not None:
        raise CheckFailed(objection)


# -- room on the disk


def check_room(folder: Path, worlds: int) -> None:
    """Refuse a tournament if the disk of ``folder`` has no room for the results of that many worlds.

    Raises:
        CheckFailed: even the smallest worlds would not fit; the message has the numbers and the remedy.
    """
    _refuse_if(room_objection(folder, worlds, shutil.disk_usage(folder).free))


def room_objection(folder: Path, worlds: int, free: int) -> str | None:
    """Why ``free`` bytes are too few for that many worlds; ``None``: they are enough."""
    if free >= worlds * LEAST_PER_WORLD:
        return None
    least, most = worlds * LEAST_PER_WORLD, worlds * _MOST_PER_WORLD
    return (
        f"no room on the disk: {worlds} worlds write {_megabytes(least)} at the least (0.4 MB a world; with all logs "
        f"35 MB, together {_megabytes(most)}), and {_megabytes(free)} are free in {folder}. Free some room there, or "
        "name another place (tournament_path=, or --output); compact=True writes the least"
    )


def is_full(error: BaseException | None, folder: Path, lanes: int) -> bool:
    """Whether a world failed because the disk of its results is full, and not another disk that an agent writes to."""
    if not isinstance(error, OSError) or error.errno not in {errno.ENOSPC, errno.EDQUOT}:
        return False
    return error.errno == errno.EDQUOT or shutil.disk_usage(folder).free < lanes * LEAST_PER_WORLD


FULL = "a full disk (free some room, then run the tournament again: what has its results is not run twice)"
"""What has ended a tournament, in its report."""


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"


# -- competitors


def unusable(names: Iterable[str]) -> dict[str, str]:
    """In a worker: which of these types cannot be imported there, and why.

    It uses negmas' own function, by which a world imports them.
    """
    from negmas.helpers import get_class  # seconds, unless the worker has it already

    found = {}
    for name in names:
        try:
            get_class(name)
        except BaseException as error:
            # A module may call sys.exit() when it is imported, which would end each world with that type.
            found[name] = f"{type(error).__name__}: {error}"
    return found


def receive_type(_: type) -> None:
    """In a worker: does nothing.  That it is called shows that the competitor could be unpickled there."""


def find_unusable(names: Sequence[str], ask: Callable[[Sequence[str]], dict[str, str] | str]) -> dict[str, str]:
    """Which of these types cannot be imported in a worker, and why.

    Args:
        names: of the types.
        ask: calls :func:`unusable` in a worker; returns its result, or as a text why it did not return.
    """
    answer = ask(names)
    if not isinstance(answer, str):
        return answer
    found = {}
    for name in names:  # one of the imports ended or stopped its process: ask for each name to find out which
        answer = ask([name])
        found.update({name: answer} if isinstance(answer, str) else answer)
    return found


def check_types(view: Front, names: Sequence[str], lanes: int, deadline: float) -> None:
    """Refuse, before the first world, types that cannot be imported in a worker.

    Args:
        view: of the tournament's pool.
        names: of the types.
        lanes: of the pool.
        deadline: of the tournament, by ``time.perf_counter``.

    Raises:
        CheckFailed: names the types, with the remedy.
        PoolBroken: no worker could be started.
    """
    for _ in range(lanes - 1):
        view.submit(unusable, names)  # only so that all workers start now, at the same time

    def ask(names: Sequence[str]) -> dict[str, str] | str:
        future = view.submit(unusable, names)
        left = deadline - time.perf_counter()
        try:
            error = future.exception(None if math.isinf(left) else max(0.0, left))
        except TimeoutError:
            return {}  # total_timeout is over: no world will be run either
        if isinstance(error, PoolBroken):
            raise error
        answer: dict[str, str] | str = str(error) if error is not None else future.result()
        return answer

    refuse_unusable(find_unusable(names, ask))


def refuse_unusable(why: Mapping[str, str]) -> None:
    """Refuse a tournament with competitors that cannot be imported in a worker.

    Args:
        why: the reason for each of them, by name; empty: there is none.

    Raises:
        CheckFailed: names them, with the remedy.
    """
    if not why:
        return
    named = "; ".join(f"{name}: {_one_line(reason)}" for name, reason in sorted(why.items()))
    raise CheckFailed(
        f"{len(why)} of the tournament's types cannot be imported in a worker process, and each of their worlds or "
        f"negotiations would be lost: {named}. A worker imports a type by its name, with the sys.path that this "
        "program has when it starts the tournament: install its package, or put its folder on PYTHONPATH (or into "
        "sys.path, and leave it there), and correct what fails when its module is imported"
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())


# -- plots of negotiations


def check_plots(asked: Mapping[str, Any]) -> None:
    """Refuse a negotiation tournament that is to save plots which cannot be drawn here.

    One plot is drawn to find out, since what negmas needs for it differs between its versions.

    Args:
        asked: the arguments of ``cartesian_tournament`` by name.

    Raises:
        CheckFailed: the message has the error of the trial plot, and the remedy.
    """
    if not asked.get("path") or not (asked.get("save_scenario_figs") or (asked.get("plot_fraction") or 0) > 0):
        return
    problem = _draw()
    if problem is not None:
        raise CheckFailed(
            f"this tournament is to save plots, and they cannot be drawn here: {problem}. {_remedy(problem)}; or do "
            "without: save_scenario_figs=False and plot_fraction=0 (for anl's tournaments, whose plots cannot be "
            "turned off alone: nologs=True)"
        )


def _remedy(problem: str) -> str:
    if "matplotlib" in problem:
        return f'negmas {version("negmas")} draws with an older matplotlib: pip install "matplotlib<3.9"'
    return "They need a browser: run plotly_get_chrome once where there is a network, or set BROWSER_PATH to a Chrome"


# Run in a process of its own, since a missing browser leaves threads behind, and a download may hang.
_DRAWING = """
import os, sys, tempfile

def draw():
    try:
        from negmas.plots._browser import write_image
    except ImportError:
        from negmas.plots.util import get_cmap
        return get_cmap(2)  # matplotlib 3.9 has removed the function for colour maps that older negmas uses
    import plotly.graph_objects
    with tempfile.TemporaryDirectory() as folder:
        write_image(plotly.graph_objects.Figure(), os.path.join(folder, "plot.png"))

try:
    draw()
except Exception as error:
    sys.exit(" ".join(f"{type(error).__name__}: {error}".split()))
"""
_DRAWING_LIMIT = 300.0  # s; a browser may have to be downloaded first


def _draw() -> str | None:
    """Draw a plot as the installed negmas does; returns the error's text, or ``None`` if it was drawn."""
    command = [sys.executable, "-W", "ignore", "-c", _DRAWING]
    there = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            command,
            env=there,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_DRAWING_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no plot was drawn in {_DRAWING_LIMIT:.0f} s"
    return (done.stderr.strip().splitlines() or ["it died"])[-1] if done.returncode else None


# -- a half-done negotiation tournament


def check_begun(folder: Path, negotiations: Sequence[Mapping[str, Any]] | None = None) -> None:
    """Refuse to run negotiations that already have a result, which negmas would keep in addition to the new one.

    negmas finds finished negotiations by an id, which is a hash over the random ids of utility functions and more.  So
    another process never finds them.

    Args:
        folder: of the tournament.
        negotiations: those to be run, each as the arguments of ``run_negotiation``; ``None``: all.

    Raises:
        CheckFailed: the message has the number of such negotiations, and the remedy.
    """
    done = [path.name for path in (folder / "results").glob("*.json") if _is_record(path)]
    if negotiations is not None:
        begin = {
            "_".join([str(i["s"].outcome_space.name), *i["partner_names"], str(i["rep"]), ""]) for i in negotiations
        }
        done = [name for name in done if name.startswith(tuple(begin))]
    if done:
        raise CheckFailed(
            f"{folder / 'results'} has results of {len(done)} negotiations that negmas does not recognize: it would "
            'run them again, and count them twice. Start again, with path_exists="overwrite", or remove that folder '
            "before going on; then each is run once"
        )


def _is_record(path: Path) -> bool:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):  # incomplete; negmas ignores it, too
        return False
    return isinstance(found, dict) and bool(found)
