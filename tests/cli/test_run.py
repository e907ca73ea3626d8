"""``resilient-exec run``: compared with plain Python, in everything that the script's user can see.

Seeking the adapter out costs two seconds each time where negmas is installed.  So one script of each kind that negmas
could disturb is run with it, and all of them without it (all of them with it in slow runs).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

PLAIN = [sys.executable]
OURS = [sys.executable, "-m", "resilient_exec", "run", "--workers", "2"]

SCRIPTS = {
    "prints": "import sys; print(sys.argv, __name__, __file__); sys.stdout.buffer.write(b'\\x00\\xff\\r\\n')",
    "exits with 3": "import sys; print('out'); sys.exit(3)",
    "exits with a text": "import sys; sys.exit('no')",
    "exits with nothing": "raise SystemExit",
    "raises": "print('before'); raise ValueError('no')",
    "raises KeyboardInterrupt": "raise KeyboardInterrupt",
    "is killed": "import os; os.kill(os.getpid(), 9)",
    "does not compile": "def :",
    "has an atexit": "import atexit; atexit.register(print, 'bye'); print('hello')",
    "looks at __main__": "import sys; x = 1; print(sys.modules['__main__'].__dict__ is globals(), __spec__)",
    "imports its neighbour": "import neighbour, sys; print(neighbour.name, sys.path[0])",
    "pickles its own class": "import pickle\nclass Mine: pass\nprint(type(pickle.loads(pickle.dumps(Mine()))) is Mine)",
    "spawns": textwrap.dedent("""
        import multiprocessing
        def double(x):
            return 2 * x
        if __name__ == "__main__":
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(pool.map(double, [1, 2]))
        """),
    "has a pool of ours": textwrap.dedent("""
        import functools
        from resilient_exec import ResilientPool
        rate = 0
        def prepare(value):
            global rate
            rate = value
        @functools.lru_cache
        def bill(hours): return rate * hours, __name__
        if __name__ == "__main__":
            with ResilientPool(1, initializer=prepare, initargs=(10,)) as pool:
                print(list(pool.map(bill, range(3))))
        """),
}


# One script that does what those do that could meet something of negmas': its threads, its hooks, its warnings.
WITH_NEGMAS = {
    "prints, pickles, raises, and has an atexit": "\n".join(
        SCRIPTS[name] for name in ("prints", "has an atexit", "pickles its own class", "raises")
    ),
    "raises KeyboardInterrupt": SCRIPTS["raises KeyboardInterrupt"],
    "spawns": SCRIPTS["spawns"],
}
ABSENT = "raise ModuleNotFoundError(\"No module named 'negmas'\", name='negmas')"


def run(command, folder, **kwargs):
    return subprocess.run(command, cwd=folder, capture_output=True, timeout=120, check=False, **kwargs)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "neighbour.py").write_text("name = 'the neighbour'")
    return tmp_path


@pytest.fixture(params=["without negmas", pytest.param("with negmas", marks=pytest.mark.slow)])
def negmas_or_not(request, tmp_path_factory, monkeypatch):
    """The commands of the test find negmas, or do not."""
    if request.param == "without negmas":
        hidden = tmp_path_factory.mktemp("hidden")
        (hidden / "negmas.py").write_text(ABSENT)
        path = [str(hidden), *filter(None, [os.environ.get("PYTHONPATH")])]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))


def check_script(text, folder):
    (folder / "script.py").write_text(text)
    arguments = ["script.py", "--timeout", "x", "-m"]
    plain, ours = run([*PLAIN, *arguments], folder), run([*OURS, *arguments], folder)
    assert (ours.returncode, ours.stdout) == (plain.returncode, plain.stdout)
    assert ours.stderr == plain.stderr


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_ends_and_prints_as_under_plain_python(name, folder, negmas_or_not):
    check_script(SCRIPTS[name], folder)


@pytest.mark.parametrize(
    "name", [next(iter(WITH_NEGMAS)), *(pytest.param(name, marks=pytest.mark.slow) for name in [*WITH_NEGMAS][1:])]
)
def test_a_script_ends_and_prints_as_under_plain_python_where_negmas_is_loaded(name, folder):
    check_script(WITH_NEGMAS[name], folder)


@pytest.mark.parametrize(
    "arguments", [["-m", "package.module", "a", "-b"], ["-m", "package"], ["-m", "nothing"], ["-m", "json"]]
)
def test_a_module_ends_and_prints_as_under_plain_python(arguments, folder, negmas_or_not):
    package = folder / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text("from . import module; import sys; sys.exit(4)")
    (package / "module.py").write_text("import sys; print(sys.argv, __name__, __package__, __spec__.name, sys.path[0])")
    plain, ours = run([*PLAIN, *arguments], folder), run([*OURS, *arguments], folder)
    assert ours.stdout == plain.stdout
    assert (ours.returncode == 0) == (plain.returncode == 0)
    if "package" in arguments[1]:
        assert ours.returncode == plain.returncode


@pytest.mark.parametrize("arguments", [["missing.py"], ["."]])
def test_what_cannot_be_opened_is_said(arguments, folder, negmas_or_not):
    ours = run([*OURS, *arguments], folder)
    assert ours.returncode == 2
    assert arguments[0].encode() in ours.stderr


@pytest.mark.parametrize(
    "option",
    [["--workers", "0"], ["--timeout", "-1"], ["--timeout", "inf"], ["--retries", "-1"], ["--memory-limit", "5"]],
)
def test_a_wrong_option_is_refused_with_its_name_and_value(option, folder):
    (folder / "script.py").write_text("print('ran')")
    ours = run([*PLAIN, "-m", "resilient_exec", "run", *option, "script.py"], folder)
    assert ours.returncode == 2
    assert option[0].encode() in ours.stderr
    assert option[1].encode() in ours.stderr
    assert b"ran" not in ours.stdout


INTERRUPTED = textwrap.dedent("""
    import sys, time
    try:
        print("ready", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        print("first", flush=True)
        if "twice" in sys.argv:
            time.sleep(60)
        sys.exit(5)
""")


def interrupt(command, folder, times):
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        lines = [process.stdout.readline()]
        for _ in range(times):
            os.killpg(process.pid, signal.SIGINT)
            lines.append(process.stdout.readline())
        out, _ = process.communicate(timeout=60)
        return process.returncode, b"".join(lines) + out
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    "times", [1, pytest.param(2, marks=pytest.mark.slow)]
)  # both with negmas: it has numpy, and others that know of signals
def test_ctrl_c_reaches_the_script_as_under_plain_python(times, folder):
    (folder / "script.py").write_text(INTERRUPTED)
    arguments = ["script.py", *(["twice"] if times == 2 else [])]
    plain = interrupt([*PLAIN, *arguments], folder, times)
    ours = interrupt([*OURS, *arguments], folder, times)
    assert ours == plain


TOURNAMENT = textwrap.dedent("""
    import os, sys
    from pathlib import Path
    from negmas.tournaments import tournament
    from scml.utils import anac2024_oneshot
    from scml.oneshot.agents import RandomOneShotAgent, GreedyOneShotAgent

    class Mine(RandomOneShotAgent):
        pass

    def main():
        results = anac2024_oneshot([Mine, GreedyOneShotAgent], n_configs=1, n_runs_per_world=1, n_steps=3,
            min_factories_per_level=1, n_competitors_per_world=2,
            parallelism="parallel", tournament_path=Path("out"), name="t")
        import resilient_exec.adapters.negmas as adapter
        report = adapter.last_report()
        print("REPORT", report.planned, report.scored, report.workers)
        print("TYPES", sorted(results.total_scores["agent_type"]))

    main()
""")


def test_a_script_that_knows_nothing_of_the_pool_runs_its_parallel_tournament_in_it(folder):
    """Not even guarded by __name__ == "__main__", which stock negmas needs, and with a competitor of its own."""
    pytest.importorskip("scml")
    (folder / "script.py").write_text(TOURNAMENT)
    ours = run([*OURS, "script.py"], folder)
    assert ours.returncode == 0, ours.stderr.decode()
    report = next(line.split() for line in ours.stdout.decode().splitlines() if line.startswith("REPORT"))
    assert report[1] == report[2] != "0"
    assert report[3] == "2"
    assert b"__main__.Mine" in ours.stdout
    assert (folder / "out" / "t-stage-0001" / "resilient" / "report.json").exists()
