"""What GitHub is told to do: every command is one of this project, every action has a version, metadata agree."""

import json
import re

import pytest
import yaml

from braintumor.core.files import ROOT

WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.yml"))
TARGETS = re.findall(r"^([a-z./-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)


def steps(workflow):
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_runs_what_is_there(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] and workflow[True]  # YAML takes `on` for true
    for step in steps(workflow):
        if "uses" in step:
            assert re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"])
            continue
        program, first, *_ = step["run"].split()
        known = {"make": TARGETS, "bash": [".ci/run"], ".venv/bin/braintumor": ["data"], "gh": ["release"]}
        assert first in known[program]
        assert program != "bash" or (ROOT / first).exists()


def test_the_book_is_published_by_push_and_weekly_and_only_if_all_is_well():
    workflow = yaml.safe_load((ROOT / ".github/workflows/publish.yml").read_text())
    assert workflow[True]["push"] == {"branches": ["main"]} and workflow[True]["schedule"]
    assert workflow["jobs"]["deploy"]["needs"] == "build"
    assert "bash .ci/run" in [step.get("run") for step in workflow["jobs"]["build"]["steps"]]


def test_archive_and_citation_say_the_same():
    archive = json.loads((ROOT / ".zenodo.json").read_text())
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert archive["title"] == citation["title"] and archive["keywords"] == citation["keywords"]
    assert [one["name"] for one in archive["creators"]] == [one["name"] for one in citation["authors"]]
    assert {one["identifier"] for one in archive["related_identifiers"]} == {
        one["doi"] for one in citation["references"]
    }
