"""The command as its users run it: in a pipe, in a terminal of 80 columns, ended by signals; with bad agents."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from types import SimpleNamespace

import pytest

pytest.importorskip("scml")

COMMAND = [sys.executable, "-W", "ignore", "-P", "-m", "resilient_exec", "scml"]

AGENTS = """
import os, time
from scml.oneshot.agents import GreedyOneShotAgent

class Fine(GreedyOneShotAgent):
    pass

class Broken(GreedyOneShotAgent):
    def init(self):
        raise ValueError("no such file: weights.npy")

class Prints(GreedyOneShotAgent):
    def before_step(self):
        super().before_step()
        for i in range(20_000):
            print("\\x1b[31mPRINTED", i, "x" * 60)

class Leaks(GreedyOneShotAgent):
    hoard = []
    def before_step(self):
        super().before_step()
        self.hoard.append(b"x" * (150 << 20))

class Exits(GreedyOneShotAgent):
    def before_step(self):
        super().before_step()
        os._exit(1)

class Hangs(GreedyOneShotAgent):
    def before_step(self):
        open("hanging", "w").close()
        while True:
            time.sleep(0.05)
"""
SMALL = ["--configs", "1", "--steps", "3", "--retries", "0", "--workers", "2"]


@pytest.fixture
def folder(tmp_path):
    return prepared(tmp_path)


def prepared(folder):
    (folder / "my_agents.py").write_text(AGENTS)
    (folder / "tmp").mkdir()
    return folder


def environment(folder):
    env = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "PYTHONPATH"}}
    return env | {"TMPDIR": str(folder / "tmp")}


def in_pipe(folder, *arguments):
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def in_terminal(folder, *arguments, columns=80):
    """What is shown, with all that was written over, and the exit status."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [*COMMAND, *arguments], cwd=folder, env=environment(folder), stdin=slave, stdout=slave, stderr=slave
    )
    os.close(slave)
    shown = b""
    deadline = time.monotonic() + 240
    try:
        while time.monotonic() < deadline:
            if not select.select([master], [], [], 1.0)[0]:
                continue
            try:
                data = os.read(master, 1 << 16)
            except OSError:  # the last one that had it open has closed it
                break
            if not data:
                break
            shown += data
        return shown.decode().replace("\r\n", "\n"), process.wait(60)
    finally:
        os.close(master)
        process.kill()
        process.wait()


def report_of(folder, output="out"):
    (path,) = (folder / output).glob("*/resilient/report.json")
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A tournament in a terminal, among one that is fine, one that floods its output, and one that exits."""
    folder = prepared(tmp_path_factory.mktemp("terminal"))
    agents = ["my_agents:Fine", "my_agents:Prints", "my_agents:Exits"]
    text, status = in_terminal(folder, "oneshot", *agents, *SMALL, "--output", "out")
    return SimpleNamespace(folder=folder, text=text, status=status)


def test_in_a_terminal_nothing_is_wider_than_it(shown):
    assert shown.status == 3
    for line in shown.text.splitlines():
        for drawn in line.split("\r"):
            assert len(drawn) <= 80 or str(shown.folder) in drawn, "a path is never cut"


def test_in_a_terminal_nothing_of_what_agents_print_is_seen(shown):
    assert "PRINTED" not in shown.text
    assert "\x1b" not in shown.text


def test_in_a_terminal_it_says_at_once_what_it_does_and_how_far_it_is(shown):
    assert shown.text.startswith("resilient-exec: importing negmas and scml ...\n")
    assert "6 worlds to run on 2 workers" in shown.text
    assert " of 6 worlds" in shown.text


def test_in_a_terminal_the_end_is_ranking_failures_health_and_places(shown):
    end = shown.text[shown.text.rindex("Ranking\n") :]
    assert "my_agents.Exits" in end.partition("\n\n")[0], "without a score it stays in the ranking"
    assert "  Exits: 4 worlds, exited with status 1 in before_step\n" in end
    assert "Health\n" in end
    assert f"Results: {shown.folder / 'out' / 'tournament-stage-0001'}\n" in end


def test_what_a_world_printed_lies_in_its_folder_and_is_capped(shown):
    noisy = [task for task in report_of(shown.folder)["tasks"] if task.get("log")]
    assert noisy
    for task in noisy:
        assert task["log"].startswith(task["path"])
        with open(task["log"]) as file:
            assert "PRINTED 0 xxx" in file.read(200)
        assert os.path.getsize(task["log"]) < 2_000_000
    assert not list((shown.folder / "tmp").iterdir()), "no temporary file is left"


def test_when_no_world_is_scored_the_failures_and_the_health_are_told_and_no_traceback(folder):
    done = in_pipe(folder, "oneshot", "my_agents:Broken", "my_agents:Fine", *SMALL, "--output", "out")
    assert done.returncode == 3
    assert done.stdout.startswith("No ranking: 0 of 2 worlds are scored.\n")
    assert "  Broken: 2 worlds, raised ValueError: no such file: weights.npy in init (my_agents.py:10)\n" in done.stdout
    assert "Health\n" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow)]
)
def test_a_signal_ends_it_as_ctrl_c_does(number, status, folder):
    process = subprocess.Popen(
        [*COMMAND, "oneshot", "my_agents:Hangs", "my_agents:Fine", *SMALL, "--output", "out"],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not (folder / "hanging").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == status, err
    name = signal.Signals(number).name
    assert f"2 worlds interrupted: the tournament was ended by {name}" in out
    assert f"resilient-exec: {name}; go on with: resilient-exec scml oneshot --resume --output out\n" in err
    report = report_of(folder)
    assert (report["ended_by"], report["counts"]["interrupted"], report["counts"]["failed"]) == (name, 2, 0)
    assert not list((folder / "out").rglob("lock"))
    assert not list((folder / "tmp").iterdir())
    assert not (folder / "out" / "tournament-stage-0001" / "resilient" / "conduct.jsonl").exists(), "nobody is blamed"


SCRIPT = """
from scml.utils import anac2024_oneshot
from my_agents import Fine, Hangs

if __name__ == "__main__":
    anac2024_oneshot([Fine, Hangs], n_configs=1, n_runs_per_world=1, n_steps=3, n_competitors_per_world=2,
        parallelism="parallel", tournament_path="out", name="t")
"""


@pytest.mark.slow
def test_a_script_dies_by_the_signal_and_leaves_a_report(folder):
    (folder / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-W", "ignore", "-m", "resilient_exec", "run", "script.py"]
    process = subprocess.Popen(command, cwd=folder, env=environment(folder), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (folder / "hanging").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM
    assert report_of(folder)["ended_by"] == "SIGTERM"
    assert not list((folder / "out").rglob("lock"))


BAD = {
    "Leaks": (["--memory-limit", "500MiB"], "out of memory (over 500 MiB) in before_step (my_agents.py:"),
    "Hangs": (["--timeout", "6"], "hung (timed out after 6 s) in before_step (my_agents.py:"),
    "Broken": ([], "raised ValueError: no such file: weights.npy in init (my_agents.py:10)"),
    "Exits": ([], "exited with status 1 in before_step"),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", [in_pipe, in_terminal])
@pytest.mark.parametrize("name", BAD)
def test_each_bad_agent_is_named_with_the_cause_once(name, way, folder):
    limits, words = BAD[name]
    agents = [f"my_agents:{name}", "my_agents:Fine", "GreedyOneShotAgent"]
    done = way(folder, "oneshot", *agents, *SMALL, *limits, "--output", "out")
    text, status = done if isinstance(done, tuple) else (done.stdout, done.returncode)
    assert status == 3
    joined = " ".join(text.split())
    assert joined.count(f"{name}: 4 worlds, {words}") == 1
    assert f"my_agents.{name}" in text.partition("Health")[0], "it stays in the ranking"


@pytest.mark.slow
def test_what_failed_runs_again_only_on_demand(folder):
    agents = ["my_agents:Exits", "my_agents:Fine"]
    first = in_pipe(folder, "oneshot", *agents, *SMALL, "--output", "out")
    resumed = in_pipe(folder, "oneshot", "--resume", "--output", "out")
    again = in_pipe(folder, "oneshot", "--resume", "--retry-failed", "--output", "out")
    assert [done.returncode for done in (first, resumed, again)] == [3, 3, 3]
    starts = len(list((folder / "out").rglob("att_*")))
    assert starts == 4, "2 worlds in the first run, and 2 in the last"
    for done in (first, resumed, again):
        assert "  Exits: 2 worlds, exited with status 1 in before_step\n" in done.stdout


@pytest.mark.slow
def test_a_dry_run_says_what_would_be_run_and_runs_nothing(folder):
    done = in_pipe(
        folder, "oneshot", "my_agents:Fine", "GreedyOneShotAgent", *SMALL, "--timeout", "5m", "--dry-run", "--json"
    )
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert (plan["worlds"], plan["workers"], plan["timeout"]) == (2, 2, 300.0)
    assert plan["competitors"] == ["my_agents.Fine", "scml.oneshot.agents.greedy.GreedyOneShotAgent"]
    assert sorted(path.name for path in folder.iterdir() if path.name != "__pycache__") == ["my_agents.py", "tmp"]
    assert not list((folder / "tmp").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("logs", ["none", "tables", "all"])
def test_json_quiet_and_logs(logs, folder):
    done = in_pipe(
        folder,
        "oneshot",
        "my_agents:Fine",
        "GreedyOneShotAgent",
        *SMALL,
        "--json",
        "--quiet",
        "--logs",
        logs,
        "--output",
        "out",
    )
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told["exit_status"] == 0
    assert [row["rank"] for row in told["ranking"]] == [1, 2]
    assert told["report"]["counts"]["scored"] == 2


@pytest.mark.slow
def test_verbose_shows_what_agents_print_without_escape_sequences(folder):
    text, status = in_terminal(
        folder, "oneshot", "my_agents:Prints", "my_agents:Fine", *SMALL, "--verbose", "--output", "out"
    )
    assert status == 0
    assert "PRINTED 0 xxx" in text
    assert "\x1b[31mPRINTED" not in text, "negmas' own colours are negmas' own"
