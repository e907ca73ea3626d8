"""The health of the competitors of a tournament, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from resilient_exec.adapters.negmas.blame.health import Health

__all__ = ["table"]

_MIB = 2**20


def table(rows: Iterable[Health]) -> Any:
    """Of all competitors, those first that have spoiled most."""
    from rich.markup import escape
    from rich.table import Table

    shown = Table(
        *(
            "competitor",
            "worlds",
            "exceptions",
            "hangs",
            "crashes",
            "memory kills",
            "CPU ms/step (median, 95 %, worst)",
        ),
        *("slow steps", "peak MiB", "spoiled"),
        title="Health",
    )
    for row in sorted(rows, key=lambda row: (-row.spoiled, row.competitor)):
        cpu = " ".join(f"{1000 * seconds:.1f}" for seconds in (row.cpu_median, row.cpu_p95, row.cpu_worst))
        shown.add_row(
            escape(row.competitor.rpartition(".")[2]) + (" (disqualified)" if row.disqualified else ""),
            f"{row.scored}/{row.worlds}",
            *map(str, (row.exceptions + row.ended_worlds, row.hangs, row.crashes, row.memory_kills)),
            cpu if row.steps else "-",
            str(row.slow_steps),
            f"{row.peak_memory / _MIB:.0f}" if row.peak_memory else "-",
            " ".join([str(row.spoiled), *(f"{fault}={count}" for fault, count in row.spoiled_by.items())]),
        )
    return shown
