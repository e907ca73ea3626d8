"""``resilient-exec watch``: what the watched program's user sees, compared with the program alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
PLAIN = [sys.executable]
WATCH = [sys.executable, "-m", "resilient_exec", "watch"]
OURS = [*WATCH, "--every", "600", "--stall", "600", "--", sys.executable]

SCRIPTS = {
    "prints": "import sys; print(sys.argv, __name__, __file__); sys.stdout.buffer.write(b'\\x00\\xff\\r\\n')",
    "exits with 3": "import sys; print('out'); sys.exit(3)",
    "exits with a text": "import sys; sys.exit('no')",
    "raises": "print('before'); raise ValueError('no')",
    "raises in a thread": "import threading; t = threading.Thread(target=lambda: 1 / 0, name='t'); t.start(); t.join()",
    "is killed": "import os; os.kill(os.getpid(), 9)",
    "is terminated": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "raises KeyboardInterrupt": "raise KeyboardInterrupt",
    "aborts": "import os; os.abort()",
    "has an atexit": "import atexit; atexit.register(print, 'bye'); print('hello')",
    "reads stdin": "print(input(), input())",
    "looks at its modules": (
        "import sys; print(sorted(sys.modules)); print(sys.path); print(sys.excepthook)\n"
        "print([str(one).partition(' at 0x')[0] for one in sys.meta_path])\n"
        "print(sys.path_importer_cache.keys())"
    ),
    "looks at its threads": (
        "import os, sys, threading\nt = threading.Thread(target=print, args=('x',)); t.start(); t.join()\n"
        "print([thread.name for thread in threading.enumerate()], threading.active_count(), 'faulthandler' in "
        "sys.modules)"
    ),
    "looks at its descriptors": "import os; print(os.open('/dev/null', os.O_RDONLY), os.pipe())",
    "submits after the end": textwrap.dedent("""
        import concurrent.futures
        executor = concurrent.futures.ThreadPoolExecutor(2)
        print([f.result() for f in [executor.submit(abs, -n) for n in range(5)]])
        executor.shutdown()
        executor.submit(abs, 1)
        """),
    "uses process pools": textwrap.dedent("""
        import concurrent.futures, multiprocessing, sys
        if __name__ == "__main__":
            for method in ("fork", "spawn", "forkserver"):
                context = multiprocessing.get_context(method)
                with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
                    print(list(executor.map(abs, [-1, -2])))
                with context.Pool(2) as pool:
                    print(pool.map(abs, [-1, -2]))
        """),
    "forks behind its threads": textwrap.dedent("""
        import concurrent.futures, os, time
        with concurrent.futures.ThreadPoolExecutor(2) as executor:
            print(list(executor.map(abs, range(3))))
        time.sleep(0.05)
        for _ in range(5):
            pid = os.fork()
            if not pid:
                os._exit(0)
            os.waitpid(pid, 0)
        print("forked")
        """),
}


def run(command, folder, **kwargs):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PYTHONPATH"] = str(folder)
    return subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        timeout=120,
        check=False,
        input=b"one\ntwo\n",
        env=environment,
        **kwargs,
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_program_ends_and_prints_as_without_us(name, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPTS[name])
    arguments = ["script.py", "--every", "x", "--"]
    plain, ours = run([*PLAIN, *arguments], tmp_path), run([*OURS, *arguments], tmp_path)
    assert (ours.returncode, ours.stdout) == (plain.returncode, plain.stdout)
    assert ours.stderr == plain.stderr


@pytest.mark.parametrize(
    "text", ["print('own site')", "import sys; sys.own = 1\nraise ValueError('own site')", "import no_such_module"]
)
def test_the_program_keeps_its_own_sitecustomize(text, tmp_path):
    # The watcher is a Python program, too, and would say it a second time.
    inner = textwrap.indent(text, "    ")
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nif 'watch' not in sys.orig_argv:\n{inner}")
    (tmp_path / "script.py").write_text("import sys; print(sys.modules.get('sitecustomize'), hasattr(sys, 'own'))")
    plain, ours = run([*PLAIN, "script.py"], tmp_path), run([*OURS, "script.py"], tmp_path)
    assert (ours.returncode, ours.stdout, ours.stderr) == (plain.returncode, plain.stdout, plain.stderr)


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


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_reaches_the_program_as_without_us(times, tmp_path):
    (tmp_path / "script.py").write_text(INTERRUPTED)
    arguments = ["script.py", *(["twice"] if times == 2 else [])]
    assert interrupt([*OURS, *arguments], tmp_path, times) == interrupt([*PLAIN, *arguments], tmp_path, times)


def test_sigterm_to_the_watcher_is_passed_on(tmp_path):
    (tmp_path / "script.py").write_text(
        "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\nprint('ready', flush=True)\n"
        "while True: time.sleep(0.05)"  # Python loses a signal that comes right before a sleep, until that ends
    )
    process = subprocess.Popen([*OURS, "script.py"], cwd=tmp_path, stdout=subprocess.PIPE)
    with process.stdout:
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        assert process.wait(60) == 7


HANGS = textwrap.dedent("""
    import concurrent.futures, threading
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        executor.submit(threading.Event().wait).result()
""")
COUNTS = textwrap.dedent("""
    import concurrent.futures, time
    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        for future in [executor.submit(time.sleep, 0.2) for _ in range(20)]:
            future.result()
""")


def test_a_stall_ends_the_program_with_75_and_leaves_a_report(tmp_path):
    options = ["--every", "1", "--stall", "0.5", "--exit-on-stall", "--report", "hang.md"]
    (tmp_path / "script.py").write_text(HANGS)
    done = run([*WATCH, *options, "--", sys.executable, "script.py"], tmp_path)
    assert done.returncode == 75
    report = (tmp_path / "hang.md").read_text()
    assert report.startswith("## STALL: ")
    assert "```text" in report
    assert "script.py" in report
    assert b"ending the program" in done.stderr


def test_a_line_is_told_every_few_seconds_and_logged(tmp_path):
    (tmp_path / "script.py").write_text(COUNTS)
    done = run([*WATCH, "--every", "0.3", "--log", "log.jsonl", "--", sys.executable, "script.py"], tmp_path)
    assert done.returncode == 0
    lines = [line for line in done.stderr.decode().splitlines() if line.startswith("watch: ")]
    assert any("ThreadPoolExecutor: " in line and "2 running" in line for line in lines)
    looks = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    pools = [pool for look in looks for pool in look["pools"]]
    assert pools
    assert max(pool["done"] + pool["running"] + pool["pending"] for pool in pools) == 20
    root = looks[0]["processes"][0]
    assert root["what"] == "the program"
    assert root["state"] in "SRD"
    assert root["memory"] > 0


def test_a_program_that_runs_already_is_followed_until_it_ends(tmp_path):
    (tmp_path / "script.py").write_text("import time; time.sleep(2)")
    program = subprocess.Popen([sys.executable, "script.py"], cwd=tmp_path)
    done = run([*WATCH, "--every", "0.5", str(program.pid)], tmp_path)
    assert done.returncode == 0
    assert b"1 process" in done.stderr
    assert program.wait(60) == 0


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["--", "no-such-command"], 127, "no-such-command: there is no such command"),
        (["--", "/etc/passwd"], 126, "cannot be started"),
        ([], 2, "needs what to watch"),
        (["999999999"], 2, "no process 999999999"),
        (["--every", "0", "--", "true"], 2, "--every"),
        (["--log", "/nowhere/at/all", "--", "true"], 2, "--log /nowhere/at/all"),
    ],
)
def test_what_cannot_be_watched_is_said(arguments, status, text, tmp_path):
    done = run([*WATCH, *arguments], tmp_path)
    assert done.returncode == status
    assert text in done.stderr.decode()


def test_nothing_of_ours_stays(tmp_path):
    folder = tmp_path / "temporary"
    folder.mkdir()
    (tmp_path / "script.py").write_text(COUNTS)
    done = subprocess.run(
        [*OURS, "script.py"], cwd=tmp_path, timeout=120, check=False, env={**os.environ, "TMPDIR": str(folder)}
    )
    assert done.returncode == 0
    assert list(folder.iterdir()) == []


def test_a_killed_watcher_takes_its_hooks_along(tmp_path):
    folder = tmp_path / "temporary"
    folder.mkdir()
    (tmp_path / "script.py").write_text(
        "import os, threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "print(os.getpid(), flush=True)\ntime.sleep(60)"
    )
    watcher = subprocess.Popen(
        [*WATCH, "--stall", "1", "--", sys.executable, "script.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    with watcher.stdout:
        pid = int(watcher.stdout.readline())
        try:
            watcher.kill()
            watcher.wait()
            deadline = time.monotonic() + 60
            while len(os.listdir(f"/proc/{pid}/task")) > 2 or list(folder.iterdir()):
                assert time.monotonic() < deadline, "our thread is still there"
                time.sleep(0.05)
            assert not any(
                "resilient-watch" in os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")
            )
        finally:
            os.kill(pid, signal.SIGKILL)
