"""What the parsers of all subcommands have in common: the order of arguments, their types, examples in the help."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from resilient_exec.pool.durations import seconds_in
from resilient_exec.pool.options import LONGEST, size

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CommandError", "Parser", "memory", "new_parser", "not_negative", "output_limit", "seconds", "whole"]


class CommandError(Exception):
    """The command cannot be carried out as it was given; the text says why, and the remedy."""


class Parser(argparse.ArgumentParser):
    """A parser that takes options before, between and behind the other arguments.

    ``argparse`` alone gives all positional arguments of a kind to the first group of them that it meets:
    ``A --configs 1 B`` would lose ``B``.
    """

    is_intermixed = False
    """Whether options may stand between positional arguments; a parser with subcommands cannot have it so."""
    _within = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As in ``argparse``; called for a subcommand's parser by the parser above it."""
        if not self.is_intermixed or self._within:
            return super().parse_known_args(args, namespace)
        self._within = True  # the call below comes back here for each half of its work
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._within = False


def new_parser(
    commands: argparse._SubParsersAction[Any],
    name: str,
    *,
    title: str,
    description: str,
    examples: Sequence[str],
    usage: str,
) -> Parser:
    """A subcommand's parser, with examples below its options.

    Args:
        commands: where it is added.
        name: of the subcommand.
        title: one line, for the list of subcommands.
        description: what it does, above its options, in lines of at most 80 characters.
        examples: whole command lines.
        usage: what follows the subcommand's name, in short.
    """
    shown = "\n".join(f"  {line}" for line in examples)
    parser: Parser = commands.add_parser(
        name,
        help=title,
        usage=f"{commands._prog_prefix} {name} {usage}",
        description=description,
        epilog=f"examples:\n{shown}" if examples else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    return parser


def whole(text: str) -> int:
    """A whole number, 1 or more."""
    return _at_least(1, text)


def not_negative(text: str) -> int:
    """A whole number, 0 or more."""
    return _at_least(0, text)


def _at_least(least: int, text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(f"must be a whole number, {least} or more; got {text}")
    return number


def seconds(text: str) -> float:
    """A length of time, more than 0 and finite, in seconds: ``90``, ``5m``, ``1h``."""
    try:
        number = seconds_in(text)
    except ValueError:
        number = 0.0
    if not 0 < number < LONGEST:
        raise argparse.ArgumentTypeError(f"must be a length of time, such as 90 (seconds), 5m or 1h; got {text}")
    return number


def memory(text: str) -> int:
    """A size in bytes: ``2GiB``."""
    try:
        number = size("it", text)
    except ValueError:
        number = None
    if number is None:
        raise argparse.ArgumentTypeError(f"must be a size of at least 1 MiB, such as 500MB or 2GiB; got {text}")
    return number


def output_limit(text: str) -> int:
    """A size in bytes, which may be 0: ``16MiB``."""
    if text.strip().isdecimal():
        return int(text)
    return memory(text)
