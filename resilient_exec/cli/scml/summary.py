"""What the organiser reads at the end: the ranking, what was lost and why, the health of each, where it lies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resilient_exec.adapters.text import plain
from resilient_exec.cli.tables import Column, fit_names, paragraph, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from resilient_exec.adapters.negmas import Report
    from resilient_exec.adapters.negmas.blame.health import Health

__all__ = ["as_json", "ranking", "summary"]

_MIB = 2**20
_FAILURES_SHOWN = 20
JSON_VERSION = 1


def ranking(results: Any) -> list[tuple[str, float]]:
    """Competitors and their scores, the best first, from what negmas has made of the results; empty: nothing."""
    totals = getattr(results, "total_scores", None)
    if totals is None or not len(totals):
        return []
    totals = totals.sort_values("score", ascending=False)
    return [
        (str(agent).rpartition(":")[2], float(score))
        for agent, score in zip(totals["agent_type"], totals["score"], strict=True)
    ]


def as_json(scores: Sequence[tuple[str, float]], report: Report | None, status: int) -> dict[str, Any]:
    """The same as plain values: ``{"version", "exit_status", "ranking", "report"}``."""
    covered = report.coverage if report is not None else {}
    rows = []
    for rank, (name, score) in enumerate(scores, start=1):
        row: dict[str, Any] = {"rank": rank, "competitor": name, "score": score}
        rows.append(
            row | ({"scored": covered[name].scored, "planned": covered[name].planned} if name in covered else {})
        )
    for name, one in covered.items():
        if name not in {name for name, _ in scores}:
            rows.append({"rank": None, "competitor": name, "score": None, "scored": one.scored, "planned": one.planned})
    told = report.to_dict() if report is not None else None
    return {"version": JSON_VERSION, "exit_status": status, "ranking": rows, "report": told}


def summary(scores: Sequence[tuple[str, float]], report: Report | None, width: int | None) -> str:
    """Return the ranking, the coverage and the failures as text.

    Args:
        scores: the ranking.
        report: of the tournament.
        width: of the terminal; ``None``: a pipe or a file, where nothing is cut.
    """
    parts = [_ranking(scores, report, width)]
    if report is not None:
        parts += [
            _worlds(report, width, ranked=bool(scores)),
            _failures(report, width),
            _health(report.health, report, width),
        ]
        parts += [_verified(report, width), _remarks(report, width), _places(report)]
    return "\n".join("\n".join(lines) + "\n" for lines in parts if lines)


def _ranking(scores: Sequence[tuple[str, float]], report: Report | None, width: int | None) -> list[str]:
    if not scores:
        how_many = f"{report.scored} of {report.planned} worlds are" if report is not None else "no world is"
        return [f"No ranking: {how_many} scored."]
    covered = report.coverage if report is not None else {}
    ranked = [name for name, _ in scores]
    without = [name for name in covered if name not in ranked]
    names = ranked + without
    columns = [
        Column(
            "rank", [*(str(rank) for rank in range(1, len(scores) + 1)), *("-" for _ in without)], 9, is_needed=True
        ),
        Column("score", [*(f"{score:.4f}" for _, score in scores), *("-" for _ in without)], 9, is_needed=True),
    ]
    if covered:
        columns.append(_worlds_of(names, covered))
    title = "Ranking so far" if report is not None and report.ended_by else "Ranking"
    return [title, *table(columns, "competitor", names, width)]


def _worlds_of(names: Iterable[str], covered: Any) -> Column:
    """Return in how many of its worlds each was scored: the same column in all tables."""
    cells = [f"{covered[name].scored}/{covered[name].planned}" if name in covered else "?" for name in names]
    return Column("worlds\nscored", cells, 9, is_needed=True)


def _worlds(report: Report, width: int | None, *, ranked: bool) -> list[str]:
    if not ranked:
        return []
    counts = [f"{report.scored} of {report.planned} {report.kind} scored"]
    counts += [f"{report.scored_before} of them before"] if report.scored_before else []
    again = sum(task.is_scored for task in report.retried)
    counts += [f"{again} of them in a further attempt"] if again else []
    lines = paragraph(", ".join(counts) + ".", width)
    shares = {one.share for one in report.coverage.values()}
    if report.missing and report.scored:
        words = (
            "Beware: the ranking is biased: competitors were scored in different shares of their worlds."
            if len(shares) > 1
            else "Beware: the ranking rests on fewer worlds than planned."
        )
        lines += paragraph(words, width)
    return lines


def _failures(report: Report, width: int | None) -> list[str]:
    found = report.failures
    if not found:
        return []
    competitors = [one.competitor for one in found if one.competitor]
    shown = dict(zip(competitors, fit_names(competitors, 0), strict=True))
    lines = ["Without a score"]
    for one in found[:_FAILURES_SHOWN]:
        lines += paragraph(f"  {plain(one.words(shown.get(one.competitor, ''), report.kind))}", width, "    ")
    if len(found) > _FAILURES_SHOWN:
        lines.append(f"  and {len(found) - _FAILURES_SHOWN} other kinds of failures")
    return lines


def _health(rows: Sequence[Health], report: Report, width: int | None) -> list[str]:
    if all(row == type(row)(row.competitor, row.worlds, row.scored) for row in rows):
        return []  # nobody was measured, and nothing is to be said
    rows = sorted(rows, key=lambda row: (-row.spoiled, row.competitor))
    names = [row.competitor for row in rows]
    counts: list[tuple[str, list[int], int]] = [
        ("worlds\nspoiled", [row.spoiled for row in rows], 8),
        ("raised", [row.exceptions + row.ended_worlds for row in rows], 7),
        ("hangs", [row.hangs for row in rows], 7),
        ("crashes", [row.crashes for row in rows], 7),
        ("memory\nkills", [row.memory_kills for row in rows], 7),
        ("slow\nsteps", [row.slow_steps for row in rows], 6),
    ]
    columns = [_worlds_of(names, report.coverage)]
    columns += [Column(head, [str(count) for count in cells], weight) for head, cells, weight in counts]
    for head, cells, weight in (
        ("CPU ms/step\nmedian", [1000 * row.cpu_median for row in rows], 5),
        ("95 %", [1000 * row.cpu_p95 for row in rows], 2),
        ("worst", [1000 * row.cpu_worst for row in rows], 3),
    ):
        columns.append(
            Column(head, [_number(cell) if row.steps else "-" for cell, row in zip(cells, rows, strict=True)], weight)
        )
    slowest = [_seconds(row.wall_worst) if row.steps else "-" for row in rows]
    columns.append(Column("longest\nstep s", slowest, 4))
    peaks = [f"{row.peak_memory / _MIB:.0f}" if row.peak_memory else "-" for row in rows]
    columns.append(Column("peak\nMiB", peaks, 5))
    lines = ["Health", *table(columns, "competitor", names, width)]
    out = [row.competitor for row in rows if row.disqualified]
    return lines + (paragraph(f"Disqualified: {', '.join(fit_names(out, 0))}", width, "  ") if out else [])


def _number(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _seconds(value: float) -> str:
    return f"{value:.1f}"


def _verified(report: Report, width: int | None) -> list[str]:
    if not report.verified:
        return []
    again = len(report.verified)
    if not report.unsteady:
        return paragraph(f"{again} of {again} worlds that were run twice had the same scores.", width)
    lines = paragraph(f"{len(report.unsteady)} of {again} worlds that were run twice had other scores:", width)
    for one in report.unsteady:
        lines += paragraph(f"  {plain(str(one))}", width, "    ")
    return lines


def _remarks(report: Report, width: int | None) -> list[str]:
    return paragraph(f"Beware: {report.blind}", width) if report.blind else []


def _places(report: Report) -> list[str]:
    if report.folder is None:
        return []
    lines = [f"Results: {report.folder}"]
    if report.failures:
        lines.append(f"The evidence about each world without a score: {report.file}")
    noisy = [task for task in report.tasks if task.log]
    if noisy:
        most = max(noisy, key=lambda task: task.printed or 0)
        some = f"{len(noisy)} {'worlds' if len(noisy) > 1 else 'world'} printed"
        lines.append(f"{some}; the most: {most.log} ({_size(most.printed)})" if most.printed else f"{some}: {most.log}")
    return lines


def _size(size: int | None) -> str:
    number = size or 0
    return f"{number / _MIB:.1f} MiB" if number >= _MIB / 10 else f"{number / 1024:.1f} KiB"
