"""The options of a tournament, kept in its folder, so that going on with it does as the beginning did."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from resilient_exec.adapters import places

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["FILE_NAME", "as_flags", "load", "merged", "save"]

FILE_NAME = "command.json"
VERSION = 1
_SWITCHES = {"FRESH_PROCESS", "PRELOAD", "TAKE_OVER", "RETRY_FAILED"}


def save(folder: Path, track: str, variables: Mapping[str, str], total_timeout: float | None) -> None:
    """Keep them.

    Args:
        folder: of the tournament.
        track: of it.
        variables: the options as variables of the environment, those that were given.
        total_timeout: seconds.
    """
    plain = {"version": VERSION, "track": track, "total_timeout": total_timeout, "variables": dict(variables)}
    with contextlib.suppress(OSError):  # a full disk is somebody else's to tell
        places.replace(folder, FILE_NAME, json.dumps(plain, indent=1) + "\n")


def load(folder: Path) -> dict[str, Any]:
    """Return the options that were kept; none where another program began the tournament."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(places.to_read(folder, FILE_NAME).read_bytes())
        if isinstance(found, dict) and isinstance(found.get("variables"), dict):
            return found
    return {}


def as_flags(variables: Mapping[str, str]) -> list[str]:
    """Variables as they are written on the command line."""
    words = []
    for name, value in variables.items():
        flag = f"--{name.removeprefix('RESILIENT_EXEC_').lower().replace('_', '-')}"
        if name.removeprefix("RESILIENT_EXEC_") in _SWITCHES:
            words.append(flag if value in {"1", "yes", "true"} else f"--no-{flag.removeprefix('--')}")
        else:
            words.append(f"{flag} {value.removesuffix('.0')}")
    return words


def merged(kept: Mapping[str, str], given: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The options to go on with, and in words those that are other ones now.

    Args:
        kept: from the beginning, as variables.
        given: now; they win.
    """
    changed = []
    for name, value in given.items():
        if kept.get(name) != value:
            before = f"it was {kept[name]}" if name in kept else "it was not given"
            changed.append(f"{as_flags({name: value})[0]} ({before})")
    return {**kept, **given}, changed
