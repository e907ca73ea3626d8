"""What processes hold and do, what the machine has left, and who killed a worker: from real and from fake files."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import psutil
import pytest
from cgroups import small_cgroup  # noqa: F401  (a fixture)
from lane_harness import linux_only, until

from resilient_exec.process import memory
from resilient_exec.process.memory import (
    Activity,
    Machine,
    OomWatch,
    activity,
    machine,
    peak,
    proportional,
    proportional_of,
    resident,
    resident_of,
)
from resilient_exec.process.tree import state

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
NO_LIMIT = 9223372036854771712  # as version 1 writes it
HOWS = [pytest.param("/proc", marks=linux_only), "psutil"]


@contextmanager
def program(code):
    """A child process that runs Python code, which ends at the latest when its standard input does."""
    child = subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield child
    finally:
        child.communicate()


@pytest.fixture
def by(request, monkeypatch):
    """Read as on Linux, or as elsewhere."""
    monkeypatch.setattr(memory, "ON_LINUX", request.param == "/proc")
    return request.param


@pytest.fixture
def gone():
    """The pid of a process that was."""
    with program("") as child:
        child.communicate()
        return child.pid


# -- what processes hold ---------------------------------------------------------------------------------------------

HOLD = f"data = b'x' * {100 * MIB}\nprint(flush=True)\ninput()"
SHARE = f"""
import os
data = b"x" * {100 * MIB}
children = []
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        os.read(0, 1)
        os._exit(0)
    children.append(pid)
print(*children, flush=True)
os.read(0, 1)
for child in children:
    os.waitpid(child, 0)
"""


@pytest.mark.parametrize("by", HOWS, indirect=True)
def test_what_one_process_holds_alone_is_in_both_of_its_sets(by):
    with program(HOLD) as child:
        child.stdout.readline()
        assert 100 * MIB < resident(child.pid) < 150 * MIB
        assert 100 * MIB < proportional(child.pid) <= resident(child.pid) + MIB


@linux_only
def test_pages_shared_by_forked_children_count_once_in_the_sum_of_the_proportional_sets():
    with program(SHARE) as child:
        tree = [child.pid, *map(int, child.stdout.readline().split())]
        assert resident_of(tree) > 400 * MIB
        assert 100 * MIB < proportional_of(tree) < 200 * MIB
        assert proportional(child.pid) < 60 * MIB, "of one of four, a quarter of what is shared"


@linux_only
def test_a_peak_outlasts_what_made_it():
    with program(HOLD.replace("print", "del data\nprint")) as child:
        child.stdout.readline()
        assert resident(child.pid) < 60 * MIB
        assert peak(child.pid) > 100 * MIB


def test_a_peak_that_the_system_does_not_tell_is_zero(monkeypatch):
    monkeypatch.setattr(memory, "ON_LINUX", False)
    monkeypatch.setattr(psutil.Process, "memory_info", lambda _process: SimpleNamespace(rss=1))
    assert peak(os.getpid()) == 0


@pytest.mark.parametrize("by", HOWS, indirect=True)
def test_a_process_that_is_gone_holds_and_does_nothing(by, gone):
    assert (resident(gone), proportional(gone), peak(gone)) == (0, 0, 0)
    assert activity([gone]) == Activity(0, 0)
    assert resident_of([gone, os.getpid()]) > 0
    assert proportional_of([gone, os.getpid()]) > 0


@pytest.mark.parametrize("by", HOWS, indirect=True)
def test_no_processes_hold_and_do_nothing(by):
    assert (resident_of([]), proportional_of([]), activity([])) == (0, 0, Activity(0, 0))


@linux_only
def test_a_zombie_holds_nothing():
    child = subprocess.Popen([sys.executable, "-S", "-c", ""])
    try:
        until(lambda: state(child.pid) == "Z")
        assert (resident(child.pid), proportional(child.pid), peak(child.pid)) == (0, 0, 0)
        assert activity([child.pid]).cpu >= 0, "what it has used is still known"
    finally:
        child.wait()


# -- what processes do -----------------------------------------------------------------------------------------------

IDLE = "print(flush=True)\ninput()"
BUSY = "import os, select\nwhile not select.select([0], [], [], 0)[0]: sum(range(1000))"
COPY = "import os\nos.write(os.open(os.devnull, os.O_WRONLY), b'x' * 1_000_000)\nprint(flush=True)\ninput()"
WAITED = """
import os, time
if os.fork() == 0:
    while time.process_time() < 0.3:
        sum(range(1000))
    os._exit(0)
os.wait()
print(flush=True)
input()
"""


@pytest.mark.parametrize("by", HOWS, indirect=True)
def test_an_idle_process_does_nothing_while_a_busy_one_uses_the_cpu(by):
    with program(IDLE) as idle, program(BUSY) as busy:
        idle.stdout.readline()
        until(lambda: psutil.Process(idle.pid).status() == psutil.STATUS_SLEEPING)
        of_idle, of_both = activity([idle.pid]), activity([idle.pid, busy.pid])
        until(lambda: activity([idle.pid, busy.pid]).cpu > of_both.cpu + 0.2)
        assert activity([idle.pid]) == of_idle


@linux_only
def test_what_is_written_counts_though_no_disk_is_touched():
    with program(COPY) as child:
        child.stdout.readline()
        assert activity([child.pid]).io > 1_000_000


@pytest.mark.parametrize("by", HOWS, indirect=True)
def test_the_cpu_of_a_child_that_was_waited_for_is_its_parents(by):
    with program(WAITED) as child:
        child.stdout.readline()
        assert activity([child.pid]).cpu > 0.2


# -- fake files ------------------------------------------------------------------------------------------------------


class Fake:
    """A /proc, memory cgroups and a kernel log of our own."""

    def __init__(self, root):
        self.root, self.proc, self.kmsg = root, root / "proc", root / "kmsg"
        self.write("proc/meminfo", "MemTotal: 8388608 kB\nMemFree: 1 kB\nMemAvailable: 4194304 kB\n")  # 8 and 4 GiB
        self.write("proc/vmstat", "nr_free_pages 1\noom_kill 5\noom_kill_other 9\n")
        self.write("kmsg", "")
        (self.proc / "self" / "ns").mkdir(parents=True)
        self.namespace(4026531836)

    def write(self, path, text):
        path = self.root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def namespace(self, number):
        link = self.proc / "self" / "ns" / "pid"
        link.unlink(missing_ok=True)
        link.symlink_to(f"pid:[{number}]")

    def place(self, cgroup, mounts):
        """Say where this process is, and what is mounted."""
        self.write("proc/self/cgroup", cgroup)
        self.write("proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/vda rw\n" + mounts)
        memory._find_cgroups.cache_clear()

    def two(self, own="/a/b", root="/", point="two"):
        self.place(f"0::{own}\n", f"24 22 0:21 {root} {self.root}/{point} rw,relatime shared:9 - cgroup2 cgroup2 rw\n")

    def one(self, own="/a/b", root="/"):
        self.place(
            f"5:cpu,cpuacct:/elsewhere\n4:hugetlb,memory:{own}\n1:name=systemd:/x\n0::/\n",
            f"30 22 0:28 / {self.root} ro - tmpfs tmpfs rw\n"
            f"31 30 0:29 / {self.root}/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
            f"32 30 0:30 {root} {self.root}/one rw - cgroup cgroup rw,hugetlb,memory\n"
            f"33 30 0:31 / {self.root}/unified rw - cgroup2 cgroup2 rw\n",
        )

    def group_two(self, path, limit, used, cache=0, high="max", unwritten=0):
        self.write(f"{path}/memory.max", f"{limit}\n")
        self.write(f"{path}/memory.high", f"{high}\n")
        self.write(f"{path}/memory.current", f"{used}\n")
        files = f"inactive_file {cache // 4}\nactive_file {cache // 2}\nslab_reclaimable {cache // 4}\n"
        pending = f"file_dirty {unwritten // 2}\nfile_writeback {unwritten // 2}\n"
        self.write(f"{path}/memory.stat", f"anon 1\ninactive_anon 7\n{pending}{files}shmem 9\n")

    def group_one(self, path, limit, used, cache=0, unwritten=0):
        self.write(f"{path}/memory.limit_in_bytes", f"{limit}\n")
        self.write(f"{path}/memory.usage_in_bytes", f"{used}\n")
        files = f"total_inactive_file {cache // 2}\ntotal_active_file {cache // 2}\n"
        pending = f"total_dirty {unwritten // 2}\ntotal_writeback {unwritten // 2}\n"
        self.write(f"{path}/memory.stat", f"cache 1\ninactive_file 0\nactive_file 5\n{pending}{files}")

    def kills(self, on_machine=None, in_cgroup=None):
        if on_machine is not None:
            self.write("proc/vmstat", f"nr_free_pages 1\noom_kill {on_machine}\n")
        if in_cgroup is not None:
            self.write("two/a/memory.events", f"low 0\noom 9\noom_kill {in_cgroup}\noom_group_kill 0\n")
            self.write("one/a/b/memory.oom_control", f"oom_kill_disable 0\nunder_oom 0\noom_kill {in_cgroup}\n")


@pytest.fixture
def fake(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "ON_LINUX", True)
    monkeypatch.setattr(memory, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "_KMSG", tmp_path / "kmsg")
    yield Fake(tmp_path)
    memory._find_cgroups.cache_clear()


def test_where_the_kernel_tells_no_proportional_set_the_resident_set_stands_for_it(fake):
    fake.write("proc/7/statm", "5000 1000 10 1 0 900 0\n")
    assert proportional(7) == resident(7) == 1000 * os.sysconf("SC_PAGE_SIZE")
    fake.write("proc/7/smaps_rollup", "55-7f ---p 00 00:00 0 [rollup]\nRss: 90 kB\nPss: 70 kB\nPss_Anon: 9 kB\n")
    assert proportional(7) == 70 * KIB


def test_io_that_may_not_be_read_is_zero_and_a_process_name_may_hold_anything(fake):
    fake.write("proc/7/stat", "7 (a) R 1 (b) S 1 1 1 0 -1 4194304 1 2 3 4 100 20 3 4 20 0 1 0 55 1 1\n")
    assert activity([7]) == Activity(127 / os.sysconf("SC_CLK_TCK"), 0)


# -- the machine -----------------------------------------------------------------------------------------------------

HOST = Machine(4 * GIB, 8 * GIB)


def test_without_cgroups_it_is_the_machine_that_counts(fake):
    assert machine() == HOST
    fake.place("garbage\n0:\n:::\n", "more garbage\n1 2 3 - - cgroup2\n")
    assert machine() == HOST


@pytest.mark.parametrize("version", ["one", "two"])
def test_a_limit_of_our_own_cgroup_counts_less_what_is_used_and_plus_the_page_cache(fake, version):
    getattr(fake, version)()
    getattr(fake, f"group_{version}")(f"{version}/a/b", 2 * GIB, GIB + 300 * MIB, cache=100 * MIB)
    assert machine() == Machine(GIB - 200 * MIB, 2 * GIB)


@pytest.mark.parametrize("version", ["one", "two"])
def test_page_cache_that_is_still_to_be_written_is_in_use(fake, version):
    getattr(fake, version)()
    group = getattr(fake, f"group_{version}")
    group(f"{version}/a/b", 2 * GIB, 2 * GIB, cache=100 * MIB, unwritten=60 * MIB)
    assert machine() == Machine(40 * MIB, 2 * GIB)
    group(f"{version}/a/b", 2 * GIB, 2 * GIB, cache=100 * MIB, unwritten=160 * MIB)
    assert machine() == Machine(0, 2 * GIB)


READS_AGAIN = """
import sys
from pathlib import Path
from resilient_exec.process import memory
(Path(sys.argv[1]) / "cgroup.procs").write_text("0")
for _ in range(4):  # a file that was read twice is active
    with open(sys.argv[2], "rb", buffering=0) as file:
        while file.read(1 << 20):
            pass
print(memory.machine().available >> 20)
"""


def test_a_file_that_is_read_again_and_again_takes_no_memory_away(small_cgroup, tmp_path):  # noqa: F811
    data = tmp_path / "data"
    with open(data, "wb") as file:
        file.write(os.urandom(40 * MIB))
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # whose cache it is, who reads it decides
    command = [sys.executable, "-c", READS_AGAIN, str(small_cgroup), str(data)]
    read = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(read.stdout) > 30, "of 64 MiB"


@pytest.mark.parametrize("version", ["one", "two"])
def test_a_limit_of_an_ancestor_counts(fake, version):
    getattr(fake, version)()
    group = getattr(fake, f"group_{version}")
    group(f"{version}/a/b", NO_LIMIT if version == "one" else "max", 1)
    group(f"{version}/a", 3 * GIB, GIB)
    assert machine() == Machine(2 * GIB, 3 * GIB)
    group(version, GIB, 100 * MIB)
    assert machine() == Machine(GIB - 100 * MIB, GIB), "what is mounted may be limited too: it is a container's root"


def test_the_cgroup_with_the_least_left_need_not_be_the_smallest(fake):
    fake.two()
    fake.group_two("two/a/b", GIB, 0)
    fake.group_two("two/a", 2 * GIB, 2 * GIB - 10 * MIB, cache=MIB)
    assert machine() == Machine(11 * MIB, GIB)


def test_a_cgroup_larger_than_the_machine_counts_by_what_it_has_left(fake):
    fake.two()
    fake.group_two("two/a", 16 * GIB, 15 * GIB)
    assert machine() == Machine(GIB, 8 * GIB)


@pytest.mark.parametrize("version", ["one", "two"])
def test_no_limit_is_none(fake, version):
    getattr(fake, version)()
    getattr(fake, f"group_{version}")(f"{version}/a/b", NO_LIMIT if version == "one" else "max", GIB)
    assert machine() == HOST


def test_the_mark_above_which_all_are_throttled_is_a_limit(fake):
    fake.two()
    fake.group_two("two/a/b", 2 * GIB, GIB // 2, high=GIB)
    assert machine() == Machine(GIB // 2, GIB)


def test_a_cgroup_above_its_limit_has_nothing_left(fake):
    fake.two()
    fake.group_two("two/a/b", "max", 2 * GIB, high=GIB)
    assert machine() == Machine(0, GIB)


@pytest.mark.parametrize("broken", ["memory.max", "memory.current"])
@pytest.mark.parametrize("text", [None, "", "no number\n", "-5\n"])
def test_a_cgroup_with_a_broken_file_does_not_count(fake, broken, text):
    fake.two()
    fake.group_two("two/a/b", GIB, MIB)
    fake.write(f"two/a/b/{broken}", text or "")
    if text is None:
        (fake.root / "two/a/b" / broken).unlink()
    assert machine() == HOST


def test_without_statistics_no_page_cache_is_known(fake):
    fake.two()
    fake.group_two("two/a/b", GIB, MIB, cache=MIB)
    (fake.root / "two/a/b/memory.stat").unlink()
    assert machine() == Machine(GIB - MIB, GIB)


@pytest.mark.parametrize("version", ["one", "two"])
def test_a_container_sees_its_own_part_of_the_tree_only(fake, version):
    getattr(fake, version)(own="/docker/c1/a/b", root="/docker/c1")
    getattr(fake, f"group_{version}")(f"{version}/a", GIB, MIB)
    assert machine() == Machine(GIB - MIB, GIB)


def test_a_mount_of_somebody_elses_cgroup_does_not_count(fake):
    for somebody in ("/docker/c1", "/docker/c123", "/docker/c12/inner"):
        fake.two(own="/docker/c12", root=somebody)
        for path in ("two", "two2", "two/2"):
            fake.group_two(path, GIB, MIB)
        assert machine() == HOST


def test_a_mount_point_may_hold_spaces(fake):
    fake.two(own="/", point="with\\040a\\040space")
    fake.group_two("with a space", GIB, MIB)
    assert machine() == Machine(GIB - MIB, GIB)


def test_an_unreadable_machine_is_known_by_its_cgroups_or_not_at_all(fake):
    (fake.proc / "meminfo").unlink()
    assert machine() is None
    fake.one()
    fake.group_one("one/a", NO_LIMIT, MIB)
    assert machine() is None
    fake.two()
    assert machine() is None
    fake.group_two("two/a", GIB, 2 * MIB, cache=MIB)
    assert machine() == Machine(GIB - MIB, GIB)


def test_the_cgroups_are_found_again_after_half_a_minute_and_their_figures_read_each_time(fake, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(memory, "time", SimpleNamespace(monotonic=lambda: now))
    fake.two(own="/a")
    fake.group_two("two/a", 2 * GIB, GIB)
    fake.group_two("two/z", GIB, GIB)
    assert machine() == Machine(GIB, 2 * GIB)
    fake.write("proc/self/cgroup", "0::/z\n")
    fake.group_two("two/a", 2 * GIB, MIB)
    assert machine() == Machine(2 * GIB - MIB, 2 * GIB)
    now += 30
    assert machine() == Machine(0, GIB)


@pytest.mark.parametrize("by", HOWS, indirect=True)
def test_of_the_real_machine_some_is_left(by):
    left = machine()
    assert 0 < left.available <= left.total <= psutil.virtual_memory().total


# -- who killed it ---------------------------------------------------------------------------------------------------

UNKNOWN = "killed from outside; by whom is not known"


def killed(pid, priority=3, seq=1):
    return (
        f"6,{seq},1000,-;python invoked oom-killer: gfp_mask=0xcc0\n SUBSYSTEM=x\n"
        f"{priority},{seq + 1},1001,-;Memory cgroup out of memory: Killed process {pid} (py) total-vm:9kB, UID:0\n"
    )


def test_a_kill_while_the_oom_killer_sleeps_came_from_outside(fake):
    fake.two()
    fake.kills(on_machine=5, in_cgroup=2)
    fake.write("kmsg", killed(77))
    assert OomWatch().verdict(77) == UNKNOWN, "the log speaks of an older process with that pid"


def test_a_victim_that_the_log_names_was_ended_by_the_oom_killer(fake):
    fake.write("kmsg", killed(77) + killed(78))
    watch = OomWatch()
    fake.kills(on_machine=7)
    fake.write("kmsg", killed(1) + killed(77) + killed(79) + "6,9,1002,-;eth0: link is up\n")
    assert watch.verdict(77) == (
        "the kernel's OOM killer ended it (its log says: "
        "Memory cgroup out of memory: Killed process 77 (py) total-vm:9kB, UID:0)"
    )
    assert watch.verdict(79).startswith("the kernel's OOM killer ended it")
    others = f"{UNKNOWN} (the kernel's OOM killer has struck meanwhile, but its log names others)"
    assert watch.verdict(1) == others, "it died before the watch was made, and its pid was used again"
    assert watch.verdict(7) == others, "7 is not 77"


@pytest.mark.parametrize("version", ["one", "two"])
def test_where_the_log_says_nothing_the_counter_of_the_cgroup_makes_it_likely(fake, version):
    fake.kills(in_cgroup=2)
    getattr(fake, version)()
    watch = OomWatch()
    assert watch.verdict(77) == UNKNOWN
    fake.kills(on_machine=6, in_cgroup=3)
    assert watch.verdict(77) == "the kernel's OOM killer has struck once in its cgroup meanwhile: most likely it"
    fake.kills(on_machine=9, in_cgroup=5)
    assert watch.verdict(77) == "the kernel's OOM killer has struck 3 times in its cgroup meanwhile: most likely it"


def test_a_kill_elsewhere_on_the_machine_is_not_blamed_for_it(fake):
    fake.two()
    fake.kills(in_cgroup=2)
    watch = OomWatch()
    fake.kills(on_machine=6)
    assert watch.verdict(77) == UNKNOWN


def test_without_a_counter_of_the_cgroup_that_of_the_machine_makes_it_possible(fake):
    watch = OomWatch()
    fake.kills(on_machine=6)
    assert watch.verdict(77) == "the kernel's OOM killer has struck once on this machine meanwhile: perhaps it"


@pytest.mark.parametrize("text", ["", "garbage\n", "3,x;Killed process 77\n", killed(77, priority=12)])
def test_what_others_write_into_the_log_is_not_believed(fake, text):
    watch = OomWatch()
    fake.kills(on_machine=6)
    fake.write("kmsg", text)
    assert "perhaps" in watch.verdict(77)


def test_a_log_with_the_pids_of_another_namespace_is_not_asked(fake):
    fake.namespace(4026532999)
    watch = OomWatch()
    fake.kills(on_machine=6)
    fake.write("kmsg", killed(77))
    assert "perhaps" in watch.verdict(77)


def test_a_log_that_has_no_end_yet_is_not_waited_for(fake):
    fake.kmsg.unlink()
    os.mkfifo(fake.kmsg)
    writer = os.open(fake.kmsg, os.O_RDWR)
    try:
        os.write(writer, killed(77).encode())
        watch = OomWatch()
        fake.kills(on_machine=6)
        assert "ended it" in watch.verdict(77)
        assert "perhaps" in watch.verdict(77), "it has been read"
    finally:
        os.close(writer)


def test_records_that_are_overwritten_before_they_are_read_are_passed_over(fake, monkeypatch):
    watch = OomWatch()
    fake.kills(on_machine=6)
    records = iter([killed(1).encode(), BrokenPipeError(), BrokenPipeError(), killed(77).encode(), None])

    def read(_size):
        if isinstance(record := next(records), OSError):
            raise record
        return record

    real = open
    log = contextlib.nullcontext(SimpleNamespace(read=read))
    monkeypatch.setattr(
        memory, "open", lambda path, *args, **kw: log if path == fake.kmsg else real(path, *args, **kw), raising=False
    )
    assert "ended it" in watch.verdict(77)


def test_a_watch_that_can_read_nothing_knows_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_PROC", tmp_path / "none")
    monkeypatch.setattr(memory, "_KMSG", tmp_path / "none")
    memory._find_cgroups.cache_clear()
    try:
        assert OomWatch().verdict(77) == UNKNOWN
    finally:
        memory._find_cgroups.cache_clear()


def test_counters_that_vanish_are_not_believed(fake):
    fake.two()
    fake.kills(in_cgroup=2)
    watch = OomWatch()
    (fake.proc / "vmstat").unlink()
    (fake.root / "two/a/memory.events").unlink()
    assert watch.verdict(77) == UNKNOWN


@linux_only
def test_a_real_kill_by_another_process_came_from_outside():
    child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    watch = OomWatch()
    child.kill()
    child.communicate()
    assert watch.verdict(child.pid).startswith(UNKNOWN)


STARVE = """
import os, sys
from pathlib import Path
(Path(sys.argv[1]) / "cgroup.procs").write_text(str(os.getpid()))
from resilient_exec.process.memory import OomWatch, machine
print(machine().total)
watch = OomWatch()
pid = os.fork()
if pid == 0:
    Path("/proc/self/oom_score_adj").write_text("1000")
    hoard = []
    while True:
        hoard.append(b"x" * 1_000_000)
print(os.waitpid(pid, 0)[1])
print(watch.verdict(pid))
print(watch.verdict(os.getpid()))
"""


@linux_only
def test_a_real_oom_kill_is_told_from_the_kernels_own_records(small_cgroup):  # noqa: F811
    command = [sys.executable, "-c", STARVE, str(small_cgroup)]
    total, status, verdict, of_another = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.splitlines()
    assert int(total) == 64 * MIB
    assert int(status) == 9
    assert verdict.startswith("the kernel's OOM killer ")
    first = os.readlink("/proc/self/ns/pid") == memory._FIRST_PID_NAMESPACE
    if first and os.access("/dev/kmsg", os.R_OK):
        assert "ended it (its log says: Memory cgroup out of memory: Killed process " in verdict
        assert of_another.startswith(UNKNOWN)
