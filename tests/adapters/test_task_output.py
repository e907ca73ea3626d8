"""What one task prints: into its own file, capped from outside, without what a terminal would obey."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from resilient_exec.adapters.task_output import TaskFile, printing_to, without_escapes
from resilient_exec.adapters.worker_output import WorkerOutput

PRINTS = """
import os, subprocess, sys
from pathlib import Path
from resilient_exec.adapters.task_output import printing_to
path = Path(sys.argv[1])
print("before")
with printing_to(path if sys.argv[2] == "file" else None) as size:
    print("python")
    os.write(2, b"the descriptor\\n")
    subprocess.run(["echo", "a child"])
    sys.stdout.write("no end of line")
    for what in sys.argv[3:]:
        exec(what)
    kept = size()
print("after", kept)
"""


def run(path, where, *what):
    command = [sys.executable, "-c", PRINTS, str(path), where, *what]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_all_that_is_printed_in_the_block_goes_into_the_file(tmp_path):
    path = tmp_path / "world" / "resilient" / "output.txt"
    done = run(path, "file")
    assert done.stdout == f"before\nafter {path.stat().st_size}\n"
    assert done.stderr == ""
    lines = path.read_text().splitlines()
    assert lines == ["the descriptor", "a child", "pythonno end of line"] or set(lines) >= {"the descriptor", "a child"}


def test_it_may_go_nowhere(tmp_path):
    done = run(tmp_path / "output.txt", "nowhere")
    assert (done.stdout, done.stderr) == ("before\nafter 0\n", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "what", ["os.close(1); os.close(2)", "os.closerange(3, 200)", "sys.stdout = None", "path.unlink()"]
)
def test_whatever_a_task_does_to_its_descriptors_the_next_one_prints(tmp_path, what):
    done = run(tmp_path / "output.txt", "file", what)
    assert done.returncode == 0, done.stderr
    if "sys.stdout" not in what:
        assert "after" in done.stdout


def test_where_nothing_is_printed_no_file_is_left(tmp_path):
    program = "import sys; from pathlib import Path; from resilient_exec.adapters.task_output import printing_to\n"
    program += "with printing_to(Path(sys.argv[1])): pass"
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "output.txt")], check=True, timeout=60)
    assert not list(tmp_path.iterdir())


def test_of_too_much_the_first_half_and_the_end_stay_and_the_rest_is_counted(tmp_path):
    path = tmp_path / "output.txt"
    file = TaskFile(path)
    assert not file.look(1000), "it has not begun"
    written = 0
    with path.open("ab", buffering=0) as out:
        for i in range(300):
            written += out.write(b"line %05d\n" % i)
            file.look(1000)
    dropped = file.finish(1000)
    kept = path.read_text()
    assert kept.startswith("line 00000\n")
    assert "line 00299\n" in kept
    assert kept.count("left out") == 2
    assert len(kept) < 1200
    text = [line for line in kept.splitlines(keepends=True) if line.startswith("line ")]
    assert abs(written - dropped - sum(map(len, text))) < 60, "half a line may stand where it was cut"


def test_nothing_is_said_of_a_file_that_is_short(tmp_path):
    path = tmp_path / "output.txt"
    path.write_text("short\n")
    assert TaskFile(path).finish(1000) == 0
    assert path.read_text() == "short\n"


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        (b"\x1b[31mred\x1b[0m\n", b"red\n"),
        (b"\x1b]0;title\x07text\n", b"text\n"),
        (b"\x1b]8;;http://x\x1b\\link\n", b"link\n"),
        (b"\x1b[2J\x1b[H\x07bell\r\n", b"bell\n"),
        (b"\x1bcreset\x00\x08\n", b"reset\n"),
        ("naïve \u2713\ttab\n".encode(), "naïve \u2713\ttab\n".encode()),
        (b"\x1b]0;never ended\nnext\n", b"\nnext\n"),
    ],
)
def test_what_a_terminal_would_obey_is_left_out(printed, shown):
    assert without_escapes(printed) == shown


def test_a_file_that_is_kept_is_also_forwarded_and_without_escapes(tmp_path):
    read, write = os.pipe()
    path = tmp_path / "output.txt"
    with WorkerOutput(1000, stdout=write, stderr=None, without_escapes=True) as output:
        output.keep(path, forward=True)
        path.write_bytes(b"\x1b[31mone\x1b[0m\ntwo\n")
        assert output.kept(path) == 0
        os.close(write)
    with os.fdopen(read, "rb") as reader:
        assert reader.read() == b"one\ntwo\n"
    assert path.exists()


def test_a_file_that_floods_is_cut_while_the_task_runs(tmp_path):
    path = tmp_path / "output.txt"
    with WorkerOutput(1000, stdout=None, stderr=None) as output:
        output.keep(path)
        with path.open("ab", buffering=0) as out:
            while not path.read_bytes().count(b"something was left out"):
                out.write(b"x" * 99 + b"\n")
        assert output.kept(path) > 0
    assert path.stat().st_size < 100_000
    with printing_to(None):  # it is forgotten: nothing cuts it any more
        path.write_bytes(b"y" * 5000)
    assert output.kept(path) == 0
