"""Messages of the library in the words of the command line: ``--memory-limit`` where it says ``memory_limit``."""

from __future__ import annotations

import re

__all__ = ["in_command_line_words"]

_OPTIONS = (
    "timeout|total_timeout|memory_limit|step_timeout|disqualify_after|start_timeout|seed|verify|take_over|output_limit"
)
_WORDS = (
    (re.compile(r"take_over=True \(--take-over\)"), "--take-over"),
    (re.compile(r"; compact=True writes the least"), "; --logs none writes the least"),
    (re.compile(r"\(tournament_path=, or --output\)"), "(--output)"),
    (re.compile(r"; go on with that, or run all of them again with override_ran_worlds=True"), "; go on with that"),
    (re.compile(r"options\(max_workers=\.\.\.\)"), "--workers"),
    (re.compile(rf"options\((?P<option>{_OPTIONS})=(?P<value>[^)]*)\)"), None),
    (re.compile(rf"\b(?P<option>{_OPTIONS})=(?P<value>[^\s:;,)]+)"), None),
    (re.compile(r"\((?P<option>disqualify_after|max_attempts)\)"), None),
    (re.compile(rf"\bits (?P<option>{_OPTIONS}) of\b"), None),
    (re.compile(r"\btotal_timeout \("), "--total-timeout ("),
)


def in_command_line_words(text: str) -> str:
    """The text with the names of options as they are written on the command line."""
    for pattern, words in _WORDS:
        text = pattern.sub(_flag if words is None else words, text)
    return text


def _flag(found: re.Match[str]) -> str:
    flag = f"--{found['option'].replace('_', '-')}"
    value = found.groupdict().get("value")
    whole = found[0]
    if value is not None:
        return flag if value == "..." else f"{flag} {value}"
    if whole.startswith("("):
        return f"({flag})"
    return f"its {flag} of" if whole.startswith("its ") else flag
