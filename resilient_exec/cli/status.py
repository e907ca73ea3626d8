"""``resilient-exec status FOLDER``: how a tournament stands, or how it ended, from its files alone."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resilient_exec.adapters import places
from resilient_exec.adapters.claims import holder_of
from resilient_exec.adapters.estimate import seconds_left
from resilient_exec.cli.parsing import CommandError, new_parser
from resilient_exec.cli.tables import fit_names, paragraph, width_of
from resilient_exec.pool.durations import short

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

__all__ = ["add_parser", "run", "state_of"]

VERSION = 1  # of the JSON
_RUNNING_SHOWN = 8


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the subcommand."""
    command = new_parser(
        commands,
        "status",
        title="the state of a tournament, from the files in its folder",
        usage="[--json] FOLDER",
        description=(
            "Tell whether a tournament runs, has ended or was killed, how far it is, and what\n"
            "has no score, from the files in its folder alone; nothing is changed.  Exit\n"
            "status: 0 if it runs or all its worlds are scored, 3 if not, 2: no tournament."
        ),
        examples=("resilient-exec status night", "watch resilient-exec status night"),
    )
    command.add_argument("folder", metavar="FOLDER", help="of the tournament: what --output named, or one below it")
    command.add_argument("--json", action="store_true", help="as JSON")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Tell it; the exit status."""
    found = [state_of(folder, time.time()) for folder in _tournaments(Path(arguments.folder))]
    if arguments.json:
        print(json.dumps(found[0] if len(found) == 1 else found, indent=1))
    else:
        print("\n\n".join("\n".join(_lines(one, arguments.folder, width_of(sys.stdout))) for one in found))
    return 0 if all(one["state"] == "running" or one["scored"] == one["planned"] for one in found) else 3


def _tournaments(given: Path) -> list[Path]:
    """The folders of the tournaments in that folder, or that folder itself."""
    for folders in ([given], sorted(path.parent for path in given.glob("*/params.json"))):
        if found := [folder for folder in folders if (folder / "params.json").exists() or _has_ours(folder)]:
            return found
    if given.is_dir() and (made := [path for path in sorted(given.iterdir()) if path.is_dir()]):
        raise CommandError(f"{given} holds no tournament whose worlds have been made (its folders: {made[0].name} ...)")
    raise CommandError(f"{given} is no folder of a tournament: it has no params.json, nor has a folder in it")


def _has_ours(folder: Path) -> bool:
    # A negotiation tournament has no params.json of this kind.
    return any(places.to_read(folder, name).exists() for name in ("report.json", "progress.json"))


def state_of(folder: Path, now: float) -> dict[str, Any]:
    """Return what the files in the folder say, as plain values.

    Args:
        folder: of the tournament.
        now: ``time.time``.
    """
    progress, report, holder = _read(folder, "progress.json"), _read(folder, "report.json"), holder_of(folder)
    is_newer = progress.get("begun", 0) > _written(folder)
    if holder is not None:
        state = "running"
    elif report and not is_newer:
        ended_by = report.get("ended_by")
        state = f"ended by {'Ctrl-C' if ended_by == 'KeyboardInterrupt' else ended_by}" if ended_by else "ended"
    else:
        state = "killed" if progress else "not begun"
    counts = dict(progress.get("counts", {})) if holder is not None or is_newer else _counts(report)
    found = {
        "version": VERSION,
        "folder": str(folder),
        "state": state,
        "planned": progress.get("planned")
        or report.get("planned")
        or _int(_read_json(folder / "params.json").get("n_worlds")),
        "scored": _scored_in(folder, counts),
        "lost": sum(counts.get(status, 0) for status in ("failed", "interrupted", "not run")),
        "failed": counts.get("failed", 0),
        "begun": progress.get("begun"),
        "updated": progress.get("updated"),
        "holder": holder,
        "failures": report.get("failures", []) if holder is None and not is_newer else [],
    }
    if state == "running":
        found |= _running(progress, now)
    return found


def _read(folder: Path, name: str) -> dict[str, Any]:
    return _read_json(places.to_read(folder, name))


def _read_json(path: Path) -> dict[str, Any]:
    """The object in the file; an empty one where there is none, or it was cut short."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_bytes())
        return found if isinstance(found, dict) else {}
    return {}


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0


def _scored_in(folder: Path, counts: Mapping[str, int]) -> int:
    """World sets with results: whatever anybody has counted, these are what is there."""
    results = sum(1 for _ in folder.glob("*/results.json"))
    return results or counts.get("scored", 0) + counts.get("scored before", 0)


def _seconds_left(progress: Mapping[str, Any], now: float) -> float | None:
    running = [max(0.0, now - one["since"]) for one in progress.get("running", [])]
    waiting = progress.get("planned", 0) - sum(progress.get("counts", {}).values()) - len(running)
    took, lanes = progress.get("took", []), progress.get("lanes") or 1
    return seconds_left(max(0, waiting), running, took, lanes, progress.get("limit"))


def _written(folder: Path) -> float:
    path = places.to_read(folder, "report.json")
    return path.stat().st_mtime if path.exists() else 0.0


def _counts(report: Mapping[str, Any]) -> dict[str, int]:
    counts = report.get("counts", {})
    return {
        "scored": counts.get("scored", 0),
        **{name.replace("_", " "): n for name, n in counts.items() if name in _LOST},
    }


_LOST = ("failed", "interrupted", "not_run")


def _running(progress: Mapping[str, Any], now: float) -> dict[str, Any]:
    running = [
        {
            **{key: one.get(key) for key in ("name", "competitors", "attempt", "pid")},
            "for": max(0.0, now - one["since"]),
        }
        for one in progress.get("running", [])
    ]
    return {
        "lanes": progress.get("lanes"),
        "running": sorted(running, key=lambda one: -one["for"]),
        "seconds_left": _seconds_left(progress, now),
    }


def _lines(found: Mapping[str, Any], given: str, width: int | None) -> list[str]:
    holder = found["holder"]
    head = f"{found['folder']}: {found['state']}"
    if holder is not None:
        head += f" (process {holder.get('pid')} on {holder.get('host')}, since {holder.get('since')})"
    lines = [head, f"{found['scored']} of {found['planned']} scored" + _lost(found)]
    if found["state"] == "running":
        left = found["seconds_left"]
        lanes = f" on {found['lanes']} workers" if found["lanes"] else ""
        lines.append(
            f"{len(found['running'])} running{lanes}" + ("" if left is None else f", about {short(left)} left")
        )
        for one in found["running"][:_RUNNING_SHOWN]:
            again = f", attempt {one['attempt']}" if (one["attempt"] or 1) > 1 else ""
            names = ", ".join(fit_names(one["competitors"], 0))
            lines += paragraph(
                f"  {short(one['for'])}{again}: {names} ({one['name']}, process {one['pid']})", width, "    "
            )
    for one in found["failures"]:
        lines += paragraph(f"  {one}", width, "    ")
    if found["state"] == "killed":
        lines.append("It was killed: its program is gone and has left no report.")
    return lines + _how_to_go_on(found, given)


def _how_to_go_on(found: Mapping[str, Any], given: str) -> list[str]:
    track = str(_read(Path(found["folder"]), "command.json").get("track", ""))
    if not track or found["state"] == "running" or found["scored"] >= found["planned"]:
        return []
    output = given if Path(given).absolute() != Path(found["folder"]).absolute() else str(Path(given).parent)
    command = shlex.join(["resilient-exec", "scml", track, "--resume", "--output", output])
    if found["state"] == "ended" and found["scored"] + found["failed"] >= found["planned"]:
        return [f"run what failed again with: {command} --retry-failed"]
    return [f"go on with: {command}"]


def _lost(found: Mapping[str, Any]) -> str:
    return f", {found['lost']} without a score" if found["lost"] else ""
