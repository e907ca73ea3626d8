"""What workers print: forwarded as far as somebody reads, capped on disk, blocking nobody."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from resilient_exec.adapters.worker_output import WorkerOutput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 30.0  # s


def worker(output: WorkerOutput, code: str) -> subprocess.Popen[bytes]:
    """A process that prints into ``output``'s folder, as a worker does after its initializer."""
    start = f"from resilient_exec.adapters.worker_output import redirect_output\nredirect_output({output.folder!r})\n"
    return subprocess.Popen([sys.executable, "-c", start + code], stdout=subprocess.DEVNULL)


def until(condition: Callable[[], object]) -> None:
    """Wait until ``condition()`` holds, or fail."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def descriptors() -> int:
    """How many descriptors are open."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe: reading end, writing end; the test closes what it wants to close."""
    reading, writing = os.pipe()
    yield reading, writing
    for descriptor in (reading, writing):
        try:
            os.close(descriptor)
        except OSError:
            continue


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A file that stands for the parent's stdout or stderr: its descriptor and its path."""
    path = tmp_path / "sink"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    yield descriptor, path
    os.close(descriptor)


def test_stdout_and_stderr_arrive_where_they_belong(tmp_path: Path) -> None:
    """Python's print, C-level writes to the descriptor, and a child's output."""
    code = (
        "import os, sys\n"
        "print('printed')\n"
        "os.write(1, b'written\\n')\n"
        "os.system('echo child')\n"
        "print('oops', file=sys.stderr)\n"
    )
    out, err = (os.open(tmp_path / name, os.O_WRONLY | os.O_CREAT) for name in ("out", "err"))
    with WorkerOutput(stdout=out, stderr=err) as output:
        assert worker(output, code).wait(PATIENCE) == 0
    for descriptor in (out, err):
        os.close(descriptor)

    assert (tmp_path / "out").read_bytes() == b"printed\nwritten\nchild\n"
    assert (tmp_path / "err").read_bytes() == b"oops\n"


def test_lines_of_two_workers_are_not_torn(sink: tuple[int, Path]) -> None:
    """Each line is written in two halves, with a moment in between."""
    code = (
        "import os, sys\n"
        "mark = sys.argv[0] and str(os.getpid())\n"
        "for i in range(300):\n"
        "    os.write(1, mark.encode() + b'<')\n"
        "    os.write(1, str(i).encode() + b'>' + mark.encode() + b'\\n')\n"
    )
    with WorkerOutput(stdout=sink[0]) as output:
        workers = [worker(output, code) for _ in range(2)]
        for process in workers:
            process.wait(PATIENCE)

    lines = sink[1].read_text().splitlines()
    expected = sorted(f"{w.pid}<{i}>{w.pid}" for w in workers for i in range(300))
    assert sorted(lines) == expected


def test_a_line_without_an_end_arrives_while_its_writer_waits(sink: tuple[int, Path]) -> None:
    """A progress bar prints no newline."""
    with WorkerOutput(stdout=sink[0]) as output:
        process = worker(output, "import sys, time\nprint('50 %', end='', flush=True)\ntime.sleep(60)\n")
        until(lambda: sink[1].read_text() == "50 %")
        process.kill()
        process.wait()


def test_the_last_words_of_a_killed_worker_arrive(sink: tuple[int, Path]) -> None:
    """Nothing stays in the buffers of a process that is gone."""
    with WorkerOutput(stdout=sink[0]) as output:
        process = worker(output, "import os, signal\nprint('last words')\nos.kill(os.getpid(), signal.SIGKILL)\n")
        process.wait(PATIENCE)

    assert sink[1].read_text() == "last words\n"


def test_a_pipe_that_nobody_reads_stops_neither_the_worker_nor_the_end(pipe: tuple[int, int]) -> None:
    """The worker prints 8 MiB into a pipe that takes 64 KiB."""
    with WorkerOutput(stdout=pipe[1]) as output:
        process = worker(output, "for _ in range(8192): print('x' * 1023)\n")
        assert process.wait(PATIENCE) == 0
    # Leaving the block is the proof: it would hang if the forwarder did.
    assert not Path(output.folder).exists()


def test_the_mode_of_the_parents_own_descriptor_is_left_alone(pipe: tuple[int, int]) -> None:
    """A print() of the parent itself must not meet a non-blocking pipe."""
    with WorkerOutput(stdout=pipe[1]):
        assert os.get_blocking(pipe[1])


def test_a_slow_reader_gets_everything(pipe: tuple[int, int]) -> None:
    """2 MiB through a pipe of 64 KiB, complete and in order, the end included."""
    received = bytearray()

    def read() -> None:
        while data := os.read(pipe[0], 4096):
            received.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    with WorkerOutput(stdout=pipe[1]) as output:
        worker(output, "for i in range(2**17): print(f'{i:015}')\n").wait(PATIENCE)
    os.close(pipe[1])
    reader.join(PATIENCE)

    assert bytes(received) == b"".join(b"%015d\n" % i for i in range(2**17))


def test_a_reader_that_goes_away_harms_nobody(pipe: tuple[int, int]) -> None:
    """Like ``| head``."""
    os.close(pipe[0])
    with WorkerOutput(stdout=pipe[1]) as output:
        assert worker(output, "for _ in range(1000): print('x' * 1000)\n").wait(PATIENCE) == 0


def test_a_flood_stays_under_the_cap_and_is_owned_up_to(pipe: tuple[int, int], sink: tuple[int, Path]) -> None:
    """Nobody reads stdout; what was dropped is said on stderr, with the worker's pid."""
    limit = 2**20
    with WorkerOutput(limit, stdout=pipe[1], stderr=sink[0]) as output:
        process = worker(output, "import time\nwhile True:\n    print('x' * 1000)\n    time.sleep(0.0001)\n")
        file = Path(output.folder) / f"{process.pid}.out"
        until(lambda: file.exists() and file.stat().st_size > limit // 2)
        until(lambda: "dropped" in sink[1].read_text())
        until(lambda: file.stat().st_size < limit // 2)
        process.kill()
        process.wait()

    assert f"worker {process.pid}: prints faster than it is read; over 1 MiB, stdout is dropped" in sink[1].read_text()
    assert "MiB of stdout were dropped" in sink[1].read_text()


def test_a_file_that_was_read_is_cut_at_the_cap_without_loss(sink: tuple[int, Path]) -> None:
    """The cap bounds the disk; it is not a limit on what a worker may print."""
    code = (
        "import os, time\n"
        "own, written = os.readlink('/proc/self/fd/1'), 0\n"
        "for i in range(64):\n"
        "    print(f'{i:015}\\n' * 512, end='', flush=True)\n"
        "    written += 16 * 512\n"
        f"    while os.path.getsize({str(sink[1])!r}) < written: time.sleep(0.001)\n"
        "assert os.path.getsize(own) < 2**17, os.path.getsize(own)\n"
    )
    with WorkerOutput(2**16, stdout=sink[0], stderr=None) as output:
        assert worker(output, code).wait(PATIENCE) == 0

    assert sink[1].read_text() == "".join(f"{i:015}\n" * 512 for i in range(64))


def test_files_of_dead_workers_are_removed_once_read(sink: tuple[int, Path]) -> None:
    """A pool that restarts workers for days must not collect files."""
    with WorkerOutput(stdout=sink[0]) as output:
        worker(output, "print('short life')\n").wait(PATIENCE)
        until(lambda: not list(Path(output.folder).iterdir()))

    assert sink[1].read_text() == "short life\n"


def test_no_trace_is_left() -> None:
    """No folder, no thread, no descriptor."""
    before = descriptors()
    with WorkerOutput() as output:
        worker(output, "print('to the real stdout')\n").wait(PATIENCE)

    assert not Path(output.folder).exists()
    assert not [thread for thread in threading.enumerate() if thread.name == "resilient-exec-output"]
    assert descriptors() == before
    assert output.folder.startswith(tempfile.gettempdir())


def test_a_parent_without_a_console_forwards_nothing(tmp_path: Path) -> None:
    """Descriptor numbers that are closed."""
    closed = os.open(tmp_path / "closed", os.O_WRONLY | os.O_CREAT)
    os.close(closed)
    with WorkerOutput(stdout=closed, stderr=closed) as output:
        assert worker(output, "print('unheard')\n").wait(PATIENCE) == 0
