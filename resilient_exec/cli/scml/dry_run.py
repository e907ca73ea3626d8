"""``--dry-run``: which worlds would be run, within which limits, with how much memory, and for about how long."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resilient_exec.cli.scml.options import NAME, played
from resilient_exec.cli.scml.screen import without_prints
from resilient_exec.pool.durations import short

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

__all__ = ["plan", "tell"]

_CPU_PER_STEP = {"std": 0.6, "oneshot": 0.15}  # s, of a world of scml's own agents
_WORKER = 230 << 20  # bytes that a worker with negmas and scml holds, before its agents take any
_PER_WORLD = 400_000  # bytes of results on the disk


def tell(arguments: argparse.Namespace, kinds: Sequence[type], options: Mapping[str, Any]) -> int:
    """Create the worlds where nobody sees them, and say what running them would take; the exit status."""
    with tempfile.TemporaryDirectory(prefix="resilient-exec-dry-run-") as folder, without_prints():
        from scml import utils

        made = getattr(utils, f"anac2024_{arguments.track}")(
            list(kinds), **played(arguments), tournament_path=folder, name=NAME, configs_only=True
        )
        from negmas.tournaments import tournaments

        assigned = tournaments.load(Path(made).parent / tournaments.ASSIGNED_CONFIGS_PICKLE_FILE) or []
    found = plan(arguments, assigned, [f"{kind.__module__}.{kind.__name__}" for kind in kinds], options)
    print(json.dumps(found, indent=1) if arguments.json else _text(found))
    return 0


def plan(
    arguments: argparse.Namespace, assigned: Sequence[Any], names: Sequence[str], options: Mapping[str, Any]
) -> dict[str, Any]:
    """What running these worlds would take, as plain values: times in seconds, sizes in bytes."""
    import psutil

    from resilient_exec.adapters.negmas.settings import UNSET
    from resilient_exec.adapters.negmas.worlds.plan import world_timeout

    given = options.get("timeout", UNSET)
    limits = [limit for worlds in assigned if (limit := world_timeout(worlds)) is not None]
    cpus = len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else psutil.cpu_count() or 1
    lanes = max(1, min(options.get("max_workers") or cpus, len(assigned)))
    memory_limit = options.get("memory_limit")
    work = len(assigned) * arguments.steps * _CPU_PER_STEP[arguments.track]
    return {
        "version": 1,
        "track": arguments.track,
        "competitors": list(names),
        "worlds": len(assigned),
        "workers": lanes,
        "cpus": cpus,
        "timeout": max(limits, default=None) if given is UNSET else given,
        "total_timeout": arguments.total_timeout,
        "memory_limit": memory_limit,
        "memory_needed": lanes * _WORKER,
        "memory_at_most": None if memory_limit is None else lanes * memory_limit,
        "memory_free": psutil.virtual_memory().available,
        "disk": len(assigned) * _PER_WORLD,
        "estimate": work / min(lanes, cpus),
    }


def _text(found: Mapping[str, Any]) -> str:
    mib = 2**20
    limit, total = found["timeout"], found["total_timeout"]
    memory = f"{found['memory_needed'] / mib:.0f} MiB for the workers, and what the agents take on top"
    if found["memory_limit"] is not None:
        each = f"{found['memory_limit'] / mib:.0f} MiB each"
        memory = f"at most {found['memory_at_most'] / mib:.0f} MiB ({each}, --memory-limit)"
    lines = [
        f"worlds:     {found['worlds']} of the track {found['track']}, among {len(found['competitors'])} competitors:",
        *(f"            {name}" for name in found["competitors"]),
        f"workers:    {found['workers']} ({found['cpus']} CPUs)",
        f"limits:     {_time(limit)} for an attempt at a world (--timeout), {_time(total)} for all (--total-timeout)",
        f"memory:     {memory}; {found['memory_free'] / mib:.0f} MiB are free",
        f"disk:       about {found['disk'] / 1e6:.0f} MB",
        f"estimate:   about {short(found['estimate'])}, if the agents are as fast as scml's own",
        "Nothing was run (--dry-run).",
    ]
    return "\n".join(lines)


def _time(seconds: float | None) -> str:
    return "none" if seconds is None else short(seconds)
