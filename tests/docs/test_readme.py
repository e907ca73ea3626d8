"""What the README says can be done is done here, from its own text."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_example_runs_as_it_stands(tmp_path):
    """With a task that does hang, exit and raise, and fewer of them, so that it ends soon."""
    example = next(block for block in blocks("python") if "ResilientPool" in block)
    assert "    ...\n" in example
    sick = "{7: lambda: time.sleep(999), 8: lambda: os._exit(1), 9: lambda: 1 / 0}"
    task = f"    import os, time\n    {sick}.get(seed, int)()\n"
    example = (
        example.replace("    ...\n", task).replace("timeout=60", "timeout=0.5").replace("range(1000)", "range(12)")
    )
    script = tmp_path / "example.py"
    script.write_text(example)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert {int(line.split()[0]) for line in lines if re.match(r"\d+ ", line)} == set(range(12))
    assert "timeout of 0.5 s" in done.stdout
    assert "exited with status 1" in done.stdout
    assert "division by zero" in done.stdout


def test_ci_runs_the_readme_s_own_test_command():
    marked = README.split("<!-- test command -->")[1].split("```")[1].strip()
    assert "\n" not in marked
    assert marked.endswith("-m pytest -q -n 4")
    assert "<!-- test command -->" in (ROOT / ".ci" / "run").read_text()


def test_every_file_that_the_documents_link_to_is_there():
    for document in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_every_command_that_the_readme_names_exists():
    for script in re.findall(r"benchmarks/\w+\.py", README):
        assert (ROOT / script).exists(), script
