"""``resilient-exec doctor``: in environments that were made bad on purpose."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

DOCTOR = [sys.executable, "-m", "resilient_exec", "doctor", "--json", "--workers", "4"]


def doctor(folder, *arguments, stdout=None, paths=(), **more):
    environment = {**os.environ, **more.pop("env", {})}
    path = [*map(str, paths), *filter(None, [environment.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(path)
    done = subprocess.run(
        [*DOCTOR, *arguments], cwd=folder, stdout=stdout or subprocess.PIPE, stderr=subprocess.PIPE, timeout=120,
        check=False, env=environment, **more,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr.decode()
    return done


def checks_of(done):
    return {check["name"]: check for check in json.loads(done.stdout)["checks"]}


@pytest.fixture
def fake(tmp_path):
    """A folder with an old negmas and a scml that wants a newer one."""
    folder = tmp_path / "packages"
    for name, version, needs in (
        ("negmas", "0.11.3", ""),
        ("scml", "0.9", "Requires-Dist: negmas>=0.15\n"),
        ("pandas", "3.0", ""),
    ):
        info = folder / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
    tournaments = folder / "negmas" / "tournaments"
    tournaments.mkdir(parents=True)
    (folder / "negmas" / "__init__.py").write_text("raise RuntimeError('the doctor imports nothing')")
    (tournaments / "tournaments.py").write_text("ProcessPoolExecutor\nMAX_TASKS_PER_CHILD = 10\n")
    return folder


def test_an_old_negmas_and_what_does_not_fit_to_it(fake, tmp_path):
    import concurrent.futures.process

    mended = hasattr(concurrent.futures.process._ExecutorManagerThread, "_replace_dead_worker")
    done = doctor(tmp_path, paths=[fake])
    checks = checks_of(done)
    assert checks["negmas"]["level"] == ("ok" if mended else "bad")
    assert "negmas>=0.15" in checks["scml"]["text"]
    assert "pandas<3" in checks["pandas"]["remedy"]
    assert done.returncode == 1


def test_limits_streams_and_threads(tmp_path):
    import resource

    def few_descriptors():
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))

    checks = checks_of(doctor(tmp_path, env={"OMP_NUM_THREADS": "64"}, preexec_fn=few_descriptors))
    assert checks["ulimit"]["level"] == "bad"
    assert checks["BLAS threads"]["level"] == "bad"
    assert checks["stdout"]["text"].startswith("stdout is a pipe")
    with (tmp_path / "out").open("wb") as out:
        doctor(tmp_path, stdout=out)
    told = {check["name"]: check for check in json.loads((tmp_path / "out").read_text())["checks"]}
    assert told["stdout"]["text"] == "stdout is a file"


@pytest.mark.skipif(os.geteuid() == 0 if hasattr(os, "geteuid") else True, reason="root may write everywhere")
def test_a_folder_without_rights(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    assert checks_of(doctor(tmp_path, "--output", str(closed)))[f"disk {closed}"]["level"] == "bad"


def test_competitors_are_imported_in_a_worker(tmp_path):
    (tmp_path / "fine.py").write_text("class Mine: pass")
    (tmp_path / "dies.py").write_text("import os; os._exit(3)")
    (tmp_path / "raises.py").write_text("import no_such_module")
    done = doctor(tmp_path, "fine:Mine", "fine:Other", "dies:Mine", "raises:Mine")
    checks = checks_of(done)
    assert checks["fine:Mine"]["level"] == "ok"
    assert "has no class 'Other'" in checks["fine:Other"]["text"]
    assert "ends its worker" in checks["dies:Mine"]["text"]
    assert "no_such_module" in checks["raises:Mine"]["text"]
    assert done.returncode == 1


def test_lines_for_people_and_wrong_names(tmp_path):
    plain = [*DOCTOR[:4], "--workers", "1"]
    done = subprocess.run(plain, cwd=tmp_path, capture_output=True, timeout=120, check=False, text=True)
    assert all(line.startswith(("ok ", "warn ", "bad ", "      -> ")) for line in done.stdout.splitlines())
    done = subprocess.run([*plain, "Mine"], cwd=tmp_path, capture_output=True, timeout=120, check=False, text=True)
    assert done.returncode == 2
    assert "MODULE:CLASS" in done.stderr
