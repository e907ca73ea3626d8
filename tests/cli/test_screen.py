"""While it runs: one line that is kept up to date in a terminal, a line every so often elsewhere."""

from __future__ import annotations

import io
import subprocess
import sys
from types import SimpleNamespace

import pytest

pytest.importorskip("negmas")

from resilient_exec.adapters.negmas.report.progress import Progress, Running
from resilient_exec.adapters.negmas.report.task_report import TaskReport
from resilient_exec.cli.scml.saved import as_flags, load, merged, save
from resilient_exec.cli.scml.screen import Screen, progress_line, without_prints
from resilient_exec.cli.scml.words import in_command_line_words


def under_way(tmp_path):
    progress = Progress("worlds", "cup", tmp_path, 20, 2)
    for i in range(6):
        progress.settles(TaskReport(name=f"w{i}", status="failed" if i == 5 else "scored", duration=10.0))
    progress.begins(Running("w7", ("my_agents.Hangs", "scml.x.GreedyOneShotAgent"), 1, 100.0, 7))
    progress.begins(Running("w8", ("my_agents.Fine",), 1, 108.0, 8))
    return progress


def test_the_line_says_done_lost_running_the_longest_and_what_is_left(tmp_path):
    line = progress_line(under_way(tmp_path), 109.0, None)
    assert line == (
        "6 of 20 worlds, 1 without a score, 2 running (longest 9 s: Hangs, GreedyOneShotAgent), about 1 min 09 s left"
    )
    assert len(progress_line(under_way(tmp_path), 109.0, 80)) < 80
    assert progress_line(under_way(tmp_path), 109.0, 80).endswith("about 1 min 09 s left")


@pytest.mark.parametrize("width", range(40, 130, 7))
def test_the_line_never_wraps(width, tmp_path):
    assert len(progress_line(under_way(tmp_path), 109.0, width)) < width


class Terminal(io.StringIO):
    def isatty(self):
        return True


def screen_of(stream, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    now = [0.0]
    return Screen(stream, clock=lambda: now[0]), now


def test_without_a_terminal_there_is_a_whole_line_every_half_minute(tmp_path, monkeypatch):
    stream = io.StringIO()
    screen, now = screen_of(stream, monkeypatch)
    progress = under_way(tmp_path)
    for second in range(100):
        now[0] = float(second)
        screen.progress(progress)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert all(line.startswith("resilient-exec: 6 of 20 worlds, 1 without a score") for line in lines)
    assert "\r" not in stream.getvalue()


def test_in_a_terminal_the_line_is_written_over_and_gone_at_the_end(tmp_path, monkeypatch):
    stream = Terminal()
    screen, now = screen_of(stream, monkeypatch)
    progress = under_way(tmp_path)
    for tenth in range(20):
        now[0] = tenth / 10
        screen.progress(progress)
    screen.say("something that stays")
    screen.ended()
    shown = stream.getvalue()
    assert shown.count("6 of 20") == 3
    assert shown.endswith("resilient-exec: something that stays\n")
    before = shown.rpartition("resilient-exec:")[0]
    assert before.endswith(
        "\r" + " " * (before.rstrip("\r ").__len__() and len(before) - len(before.rstrip("\r ")) - 2) + "\r"
    )


def test_a_quiet_screen_says_nothing(tmp_path):
    stream = io.StringIO()
    screen = Screen(stream, is_quiet=True, clock=lambda: 1e9)
    screen.say("hello")
    screen.progress(under_way(tmp_path))
    assert stream.getvalue() == ""


class Gone(io.StringIO):
    def write(self, _):
        raise BrokenPipeError


def test_a_reader_that_is_gone_ends_nothing(tmp_path):
    screen = Screen(Gone(), clock=iter([0.0, 100.0, 200.0]).__next__)
    screen.say("hello")
    screen.progress(under_way(tmp_path))
    screen.ended()


PRINTS = """
import os, subprocess, sys
from resilient_exec.cli.scml.screen import without_prints
print("before")
with without_prints() as (err, file):
    print("python"); print("python", file=sys.stderr)
    os.write(1, b"descriptor\\n"); os.write(2, b"descriptor\\n")
    subprocess.run(["echo", "child"])
    print("told", file=err)
    assert "child" in file.read_text()
print("after", file.exists())
"""


def test_nothing_that_is_printed_meanwhile_is_seen_but_what_the_command_tells():
    done = subprocess.run([sys.executable, "-c", PRINTS], capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == ("before\nafter False\n", "told\n")


def test_an_exception_passes_and_all_is_as_before(capfd):
    def fails():
        with without_prints():
            print("unseen")
            raise ValueError

    with pytest.raises(ValueError):
        fails()
    print("seen")
    assert capfd.readouterr().out == "seen\n"


def test_options_are_kept_in_the_folder_and_other_ones_win_and_are_told(tmp_path):
    given = {"RESILIENT_EXEC_TIMEOUT": "300.0", "RESILIENT_EXEC_PRELOAD": "0", "RESILIENT_EXEC_SEED": "7"}
    save(tmp_path, "oneshot", given, 3600.0)
    kept = load(tmp_path)
    assert (kept["track"], kept["total_timeout"], kept["variables"]) == ("oneshot", 3600.0, given)
    both, changed = merged(
        kept["variables"], {"RESILIENT_EXEC_WORKERS": "4", "RESILIENT_EXEC_SEED": "7", "RESILIENT_EXEC_TIMEOUT": "60"}
    )
    assert both == {**given, "RESILIENT_EXEC_WORKERS": "4", "RESILIENT_EXEC_TIMEOUT": "60"}
    assert changed == ["--workers 4 (it was not given)", "--timeout 60 (it was 300.0)"]
    assert as_flags(given) == ["--timeout 300", "--no-preload", "--seed 7"]
    assert load(tmp_path / "nowhere") == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("run this again with take_over=True (--take-over)", "run this again with --take-over"),
        (
            "seed=8: the worlds in x that are scored already were run with seed=7",
            "--seed 8: the worlds in x that are scored already were run with --seed 7",
        ),
        (
            "it held 530 MiB, more than its memory_limit of 500 MiB",
            "it held 530 MiB, more than its --memory-limit of 500 MiB",
        ),
        (
            "m.A is disqualified for having spoiled 3 worlds (disqualify_after)",
            "m.A is disqualified for having spoiled 3 worlds (--disqualify-after)",
        ),
        ("total_timeout (8 s) was over", "--total-timeout (8 s) was over"),
        (
            "name another place (tournament_path=, or --output); compact=True writes the least",
            "name another place (--output); --logs none writes the least",
        ),
        ("the agent's own timeout of the negotiation", "the agent's own timeout of the negotiation"),
    ],
)
def test_messages_of_the_library_are_in_the_words_of_the_command_line(text, told):
    assert in_command_line_words(text) == told


def test_the_screen_tells_the_folder_once(tmp_path):
    folders = []
    screen = Screen(io.StringIO(), on_folder=folders.append)
    for _ in range(3):
        screen.progress(
            SimpleNamespace(
                folder=tmp_path,
                planned=0,
                settled=0,
                scored=0,
                running={},
                kind="worlds",
                seconds_left=lambda now: None,
            )
        )
    assert folders == [tmp_path]
