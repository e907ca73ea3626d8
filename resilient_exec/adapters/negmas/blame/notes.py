"""Notes in the worker's register about who is on stage, that is, whose code a world is running."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["BEFORE", "LONGEST_TYPE", "NOBODY", "NOT_THEIRS", "OnStage", "note_prefix", "own_types", "parse_note"]

NOBODY = "on stage: nobody"
"""Noted when an agent has returned to the world."""
NOT_THEIRS = ("negmas.", "scml.")
"""Prefixes of the names of modules that contain no code of competitors."""
LONGEST_TYPE = 240  # characters of a type's name, so that a note has room for it in any alphabet, with the agent's id
_LONGEST = 60
_NOTE = re.compile(
    r"on stage: (?P<competitor>.+?), agent (?P<agent>.*), in (?P<method>\S*), step (?P<step>-?\d+)", re.DOTALL
)
BEFORE = -1  # the step's number while the world is being made


@dataclass(frozen=True)
class OnStage:
    """Whose code was running.

    Attributes:
        competitor: full name of the agent's own type, not that of an adapter or a controller around it.
        agent: its id in the world; ``""`` while it is being made, or if it is known by the stack alone.
        method: the method of the agent that was called.
        step: of the world; -1 while the world was being made, ``None`` if it is known by the stack alone.
        known_by: ``stack`` (the innermost frame of a competitor is one of its) ``register`` (noted by the worker),
            or ``growth`` (its code has taken the memory that ran out, whoever was running at the end).
        attempt: the number of the attempt that failed.
        fault: the outcome of the attempt: ``raised died timed_out out_of_memory not_sent``.
        place: file and line of its innermost frame, such as ``my_agents.py:41``; ``""`` if there is no stack.
    """

    competitor: str
    agent: str = ""
    method: str = ""
    step: int | None = None
    known_by: Literal["stack", "register", "growth"] = "register"
    attempt: int = 0
    fault: str = ""
    place: str = ""

    def note(self) -> str:
        """The text of the note; :func:`parse_note` is the inverse."""
        return f"{note_prefix(self.competitor, self.agent, self.method)}{BEFORE if self.step is None else self.step}"

    def __str__(self) -> str:
        who = f"{self.competitor} (agent {self.agent})" if self.agent else self.competitor
        where = f" in {self.method}" if self.method else ""
        when = "" if self.step is None else f" at step {self.step}" if self.step >= 0 else " before the first step"
        place = f" ({self.place})" if self.place else ""
        return f"{who}{where}{place}{when}, by the {self.known_by}"


def note_prefix(competitor: str, agent: str, method: str) -> str:
    """The text of a note, up to the number of the step, which follows it."""
    method = re.sub(r"\s", "?", method)[:_LONGEST]
    return f"on stage: {competitor[:LONGEST_TYPE]}, agent {agent[:_LONGEST]}, in {method}, step "


def parse_note(note: str) -> OnStage | None:
    """Who was on stage, from the text of a note; ``None``: nobody, or the note is of another kind."""
    found = _NOTE.fullmatch(note)
    if found is None:
        return None
    return OnStage(found["competitor"], found["agent"], found["method"], int(found["step"]))


def own_types(worlds: list[dict[str, Any]], *, fillers: bool = True) -> list[Any]:
    """The agents' own types in the worlds, with the type of the agent in place of an adapter's.

    Args:
        worlds: their configurations.
        fillers: whether to include agents that only fill a world (``is_default``).
    """
    types: list[Any] = []
    for world in worlds:
        kinds = world.get("agent_types", ())
        params = world.get("agent_params") or [{}] * len(kinds)
        fills = world.get("is_default") or [False] * len(kinds)
        for kind, param, is_filler in zip(kinds, params, fills, strict=False):
            if fillers or not is_filler:
                # A one-shot agent is wrapped in an adapter, of which the agent's own type is a parameter.
                types.append((param or {}).get("controller_type", kind))
    return types
