"""Each how-to is done here as a stranger would do it: its files written into an empty folder, its commands run.

In a page, a ``python`` block whose first line is a comment with a file's name is that file; one with ``# In [1]:`` is
the cell of a notebook; an ``sh`` block is run; the ``text`` block behind either is what it prints, with ``...`` for
what differs from run to run.
"""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HOWTO = Path(__file__).resolve().parents[2] / "docs" / "howto"
PAGES = sorted(path for path in HOWTO.glob("*.md") if path.name != "README.md")
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def blocks(page):
    return re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def environment():
    """A shell's, in which `python` is this one, and nothing of these tests can be imported."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHONPATH", "PYTEST"))}
    root = str(HOWTO.parents[1])
    return ours | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]), "PYTHONPATH": root}


def run(command, folder):
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    return done.stdout, done.stderr


def matches(expected, got):
    return doctest.OutputChecker().check_output(expected, got, FLAGS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_does_what_it_says(page, tmp_path):
    commands, cells, said = 0, [], ("", "")
    for language, text in blocks(page):
        name = re.match(r"# (\S+\.py)\n", text)
        if language == "python" and name:
            (tmp_path / name[1]).write_text(text)
        elif language == "python" and text.startswith("# In ["):
            cells.append(text)
        elif language == "sh":
            said = run(text, tmp_path)
            commands += 1
        elif language == "text" and not cells:
            assert matches(text, said[0]), f"expected:\n{text}\ngot:\n{said[0]}\n{said[1]}"
        else:
            assert cells, f"nobody knows what to do with this block:\n{text}"
    assert commands or cells


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_notebook_s_cells_show_what_is_said(page, tmp_path):
    cells, shown = [], []
    for language, text in blocks(page):
        if language == "python" and text.startswith("# In ["):
            cells.append(text)
        elif language == "text" and cells:
            shown.append(text)
    if not cells:
        assert "In [" not in page.read_text()
        return
    for module in ("nbclient", "nbformat", "ipykernel"):
        pytest.importorskip(module)
    script = tmp_path / "run_notebook.py"
    script.write_text(NOTEBOOK)
    said = run(f"python {script} " + " ".join(f"{cell!r}" for cell in write_cells(tmp_path, cells)), tmp_path)
    outputs = said[0].split("=====\n")[:-1]
    assert len(outputs) == len(shown), said
    for expected, got in zip(shown, outputs, strict=True):
        assert matches(expected, got), f"expected:\n{expected}\ngot:\n{got}\n{said[1]}"


def write_cells(folder, cells):
    paths = [folder / f"cell{number}.txt" for number in range(len(cells))]
    for path, cell in zip(paths, cells, strict=True):
        path.write_text(cell)
    return list(map(str, paths))


# A kernel of its own, as a stranger's notebook has; what each cell shows, as text without its markup.
NOTEBOOK = """
import re, sys
import nbclient, nbformat
from html import unescape

cells = [nbformat.v4.new_code_cell(open(path).read()) for path in sys.argv[1:]]
notebook = nbformat.v4.new_notebook(cells=cells)
nbclient.NotebookClient(notebook, timeout=100, kernel_name="python3").execute()
for cell in notebook.cells:
    for output in cell.outputs:
        html = output.get("data", {}).get("text/html")
        print(output.get("text") or unescape(re.sub("<[^>]*>", "\\n", html or output["data"]["text/plain"])))
    print("=====")
"""


def test_every_page_is_in_the_list():
    listed = re.findall(r"\]\(([^/\s]+\.md)\)", (HOWTO / "README.md").read_text())
    assert sorted(listed) == sorted(page.name for page in PAGES)
