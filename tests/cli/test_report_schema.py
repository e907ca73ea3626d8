"""``docs/report.schema.json`` describes what is written, all of it, and nothing else."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

pytest.importorskip("negmas")

from test_scml_summary import CASES

from resilient_exec.adapters.negmas.blame.health import Health
from resilient_exec.adapters.negmas.blame.notes import OnStage
from resilient_exec.adapters.negmas.report.report import VERSION
from resilient_exec.adapters.negmas.report.task_report import FailedAttempt, TaskReport, Verified

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "docs" / "report.schema.json").read_text(encoding="utf-8"))
TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "boolean": bool,
    "number": (int, float),
    "null": type(None),
}


def misfits(value, schema, where="report"):
    """Where ``value`` does not fit, by the part of JSON Schema that the file uses."""
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
    if "const" in schema and value != schema["const"]:
        yield f"{where}: {value!r} is not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where}: {value!r} is none of {schema['enum']}"
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(
        isinstance(value, TYPES[kind]) and not (kind != "boolean" and value is True) for kind in kinds
    ):
        yield f"{where}: {value!r} is no {kinds}"
    elif isinstance(value, dict):
        yield from (f"{where}: {name} is missing" for name in schema.get("required", ()) if name not in value)
        others = schema.get("additionalProperties", True)
        for name, one in value.items():
            inner = schema.get("properties", {}).get(name, others)
            if inner is False:
                yield f"{where}: {name} is not described"
            elif isinstance(inner, dict):
                yield from misfits(one, inner, f"{where}.{name}")
    elif isinstance(value, list):
        for i, one in enumerate(value):
            prefix = schema.get("items", {}).get("prefixItems")
            yield from misfits(one, schema.get("items", {}), f"{where}[{i}]")
            for part, inner in zip(one, prefix, strict=False) if prefix else ():
                yield from misfits(part, inner, f"{where}[{i}]")


@pytest.mark.parametrize("case", CASES)
def test_a_report_fits_its_schema(case):
    _, report = CASES[case]()
    written = json.loads(json.dumps(report.to_dict(), default=str))
    assert list(misfits(written, SCHEMA)) == []


def test_all_that_can_be_written_is_described_and_nothing_else():
    kinds = {"task": TaskReport, "attempt": FailedAttempt, "on_stage": OnStage, "verified": Verified, "health": Health}
    for name, kind in kinds.items():
        assert set(SCHEMA["$defs"][name]["properties"]) == {field.name for field in fields(kind)}, name
    assert SCHEMA["properties"]["version"]["const"] == VERSION


def test_what_does_not_fit_is_found():
    _, report = CASES["one_lost"]()
    written = json.loads(json.dumps(report.to_dict(), default=str))
    broken = {**written, "version": 1, "planned": "20", "more": 1}
    del broken["counts"]
    found = list(misfits(broken, SCHEMA))
    assert len(found) == 4
    broken["tasks"][0]["status"] = "lost"
    assert len(list(misfits(broken, SCHEMA))) == 5


def test_the_page_of_the_command_names_every_option():
    from test_help import COMMANDS

    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    for name in ("scml std", "scml oneshot"):
        for action in COMMANDS[name]._actions:
            for option in action.option_strings:
                if option.startswith("--") and not option.startswith("--no-") and option != "--help":
                    assert f"`{option}" in page, f"{option} of {name}"
