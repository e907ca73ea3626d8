"""Who was on stage: whose code a world was running, as it is written into the worker's register and read from it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["BEFORE", "LONGEST_TYPE", "NOBODY", "NOT_THEIRS", "OnStage", "head", "own_types", "read"]

NOBODY = "on stage: nobody"
"""Noted when an agent has returned to the world: what happens then is none of its doing."""
NOT_THEIRS = ("negmas.", "scml.")
"""What the modules' names begin with in which there is no code of a competitor's own."""
LONGEST_TYPE = 240  # characters: with the agent's id it stays within a note, whatever the alphabet
_LONGEST = 60
_NOTE = re.compile(
    r"on stage: (?P<competitor>.+?), agent (?P<agent>.*), in (?P<method>\S*), step (?P<step>-?\d+)", re.DOTALL
)
BEFORE = -1  # the step, while the world is being made


@dataclass(frozen=True)
class OnStage:
    """Whose code was running.

    Attributes:
        competitor: the agent's own type, also where an adapter or a controller hides it.
        agent: its id in the world; ``""`` while it is being made, or where only its stack was found.
        method: what of it was called.
        step: of the world; -1 while the world was being made, ``None`` where only a stack was found.
        known_by: ``stack`` (its frame is the innermost one of a competitor's) or ``register`` (noted by the worker).
        attempt: the number of the attempt that failed.
        fault: how: ``raised died timed_out out_of_memory not_sent``.
    """

    competitor: str
    agent: str = ""
    method: str = ""
    step: int | None = None
    known_by: Literal["stack", "register"] = "register"
    attempt: int = 0
    fault: str = ""

    def note(self) -> str:
        """As it is noted; :func:`read` reads it."""
        return f"{head(self.competitor, self.agent, self.method)}{BEFORE if self.step is None else self.step}"

    def __str__(self) -> str:
        who = f"{self.competitor} (agent {self.agent})" if self.agent else self.competitor
        where = f" in {self.method}" if self.method else ""
        when = "" if self.step is None else f" at step {self.step}" if self.step >= 0 else " before the first step"
        return f"{who}{where}{when}, by the {self.known_by}"


def head(competitor: str, agent: str, method: str) -> str:
    """A note up to the number of the step."""
    method = re.sub(r"\s", "?", method)[:_LONGEST]
    return f"on stage: {competitor[:LONGEST_TYPE]}, agent {agent[:_LONGEST]}, in {method}, step "


def read(note: str) -> OnStage | None:
    """Who was on stage by the note; ``None``: nobody, or the note says something else."""
    found = _NOTE.fullmatch(note)
    if found is None:
        return None
    return OnStage(found["competitor"], found["agent"], found["method"], int(found["step"]))


def own_types(worlds: list[dict[str, Any]], *, fillers: bool = True) -> list[Any]:
    """Types of the agents in the worlds: where an adapter hides one, its own.

    Args:
        worlds: their configurations.
        fillers: also of agents that only fill a world (``is_default``).
    """
    types: list[Any] = []
    for world in worlds:
        kinds = world.get("agent_types", ())
        params = world.get("agent_params") or [{}] * len(kinds)
        fills = world.get("is_default") or [False] * len(kinds)
        for kind, param, is_filler in zip(kinds, params, fills, strict=False):
            if fillers or not is_filler:
                # An agent of the one-shot kind is hidden in an adapter; its own type is a parameter of that.
                types.append((param or {}).get("controller_type", kind))
    return types
