"""Makes the picture of a run in a terminal, ``docs/terminal.svg``: the command is run, and what it prints is drawn.

    python benchmarks/terminal.py

It plays a small tournament of good and bad agents in a pseudo-terminal of 80 columns (a minute or two), with what the
extra ``scml`` installs.  Of what is printed only the temporary folder is replaced.
"""

from __future__ import annotations

import argparse
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

AGENTS = """
from scml.oneshot.agents import GreedyOneShotAgent


class Fine(GreedyOneShotAgent):
    pass


class Broken(GreedyOneShotAgent):
    def init(self):
        raise ValueError("no such file: weights.npy")


class Leaks(GreedyOneShotAgent):
    hoard = []

    def before_step(self):
        super().before_step()
        self.hoard.append(bytearray(60 << 20))
"""
COMMAND = ["scml", "oneshot", "my_agents:Fine", "my_agents:Leaks", "my_agents:Broken", "GreedyOneShotAgent"]
OPTIONS = ["--configs", "1", "--memory-limit", "500MiB", "--output", "night"]
WIDTH = 80
HOME = "/home/me"


def run(folder: Path) -> str:
    """What the terminal shows when the command has ended."""
    (folder / "my_agents.py").write_text(AGENTS, encoding="utf-8")
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 60, WIDTH, 0, 0))
    command = [sys.executable, "-W", "ignore", "-m", "resilient_exec", *COMMAND, *OPTIONS]
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    process = subprocess.Popen(command, cwd=folder, stdin=its, stdout=its, stderr=its, env=environment)
    os.close(its)
    told = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # nobody has the terminal any more
            break
        if not part:
            break
        told += part
    os.close(ours)
    process.wait()
    return told.decode(errors="replace")


def screen(text: str) -> list[str]:
    """The lines that stay: a line that is written anew replaces what it was."""
    lines = []
    for line in text.replace("\r\n", "\n").split("\n"):
        shown = ""
        for part in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).split("\r"):
            shown = part + shown[len(part) :] if part.strip() else ""
        lines.append(shown.rstrip())
    while lines and not lines[-1]:
        lines.pop()
    return lines


def draw(lines: list[str], target: Path) -> None:
    """Draw the lines as a terminal shows them."""
    from rich.console import Console
    from rich.text import Text

    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    words = f"$ resilient-exec {' '.join(COMMAND)} {' '.join(OPTIONS)}"
    for style, text in [("bold green", words), *(("", line) for line in lines)]:
        for at in range(0, max(1, len(text)), WIDTH):  # as a terminal breaks lines
            console.print(Text(text[at : at + WIDTH], style=style))
    svg = console.export_svg(title="resilient-exec scml")
    # The picture asks nobody for a font: the reader's own fixed-width one does.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL).replace("Fira Code, monospace", "monospace")
    target.write_text(svg, encoding="utf-8")


def main(argv: list[str]) -> int:
    """Run, draw, and tell where the picture is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "docs" / "terminal.svg")
    target = parser.parse_args(argv).output
    with tempfile.TemporaryDirectory() as folder:
        lines = screen(run(Path(folder)).replace(str(Path(folder).resolve()), HOME))
    print("\n".join(lines))
    if not any(line.startswith("Ranking") for line in lines):
        return 1
    draw(lines, target)
    print(f"drawn: {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
