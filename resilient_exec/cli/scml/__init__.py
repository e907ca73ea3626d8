"""``resilient-exec scml``: tournaments of SCML (``std``, ``oneshot``), and the trial of one agent (``check``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resilient_exec.cli.scml import check, tournament

if TYPE_CHECKING:
    import argparse

__all__ = ["add_parser"]


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the subcommand and its own subcommands."""
    scml = commands.add_parser(
        "scml",
        help="run an SCML tournament among named competitors, or try one agent",
        description="Tournaments of SCML, the supply chain league, and the trial of an agent before it is handed in.",
    )
    tracks = scml.add_subparsers(dest="track", required=True, metavar="{std,oneshot,check}")
    tournament.add_parsers(tracks)
    check.add_parser(tracks)
