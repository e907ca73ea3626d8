"""Which world sets failed for good in an earlier run of a tournament, and what is known of them."""

from __future__ import annotations

import contextlib
import json
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from resilient_exec.adapters import places
from resilient_exec.adapters.negmas.blame.notes import OnStage
from resilient_exec.adapters.negmas.report import report
from resilient_exec.adapters.negmas.report.task_report import FailedAttempt, TaskReport

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["lost"]

_UNKNOWN = "it failed for good in an earlier run of the tournament"


def lost(folder: Path, by_conduct: Mapping[str, tuple[tuple[str, ...], OnStage | None]]) -> dict[str, TaskReport]:
    """The reports of world sets that failed for good and have no results since, by the name of their folder.

    Args:
        folder: of the tournament.
        by_conduct: the competitors and the culprit of each, as the conduct's file has them, by that name.
    """
    reported = {told.name: told for told in _reported(folder) if told.status == "failed"}
    found = {}
    for place, (competitors, who) in by_conduct.items():
        told = reported.get(place)
        if told is None:  # the program was killed before it wrote its report
            stage = () if who is None else (who,)
            where = str(folder / place)
            told = TaskReport(
                name=place,
                path=where,
                competitors=competitors,
                status="failed",
                reason=_UNKNOWN,
                on_stage=stage,
                attempts=0 if who is None else who.attempt,
            )
        found[place] = told
    return found


def _reported(folder: Path) -> list[TaskReport]:
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        plain = json.loads(places.to_read(folder, report.FILE_NAME).read_bytes())
        return [_task(one) for one in plain["tasks"] if isinstance(one, dict)]
    return []


def _task(plain: Mapping[str, Any]) -> TaskReport:
    known = {field.name for field in fields(TaskReport)}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in plain.items() if name in known
    }
    values["on_stage"] = tuple(OnStage(**one) for one in plain.get("on_stage", ()))
    values["failed_attempts"] = tuple(_attempt(one) for one in plain.get("failed_attempts", ()))
    return TaskReport(**values)


def _attempt(plain: Mapping[str, Any]) -> FailedAttempt:
    known = {field.name for field in fields(FailedAttempt)}
    return FailedAttempt(**{name: value for name, value in plain.items() if name in known})
