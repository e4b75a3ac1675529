"""Profiles: what is refused before anything runs, and the jobs of a profile."""

import importlib.util

import pytest
import yaml
from snakemake.exceptions import WorkflowError
from snakemake.utils import validate

from braintumor.core.errors import ParameterError
from braintumor.core.files import ROOT

WORKFLOW = ROOT / "workflow"
SPEC = importlib.util.spec_from_file_location("profiles", WORKFLOW / "profiles.py")
profiles = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(profiles)


def make_profile(config):
    config = {"profile": "test", "data": "phantom"} | config
    validate(config, str(WORKFLOW / "profile.schema.yaml"))
    return profiles.Profile(config)


def read_config(name):
    return yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text())


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=str)
def test_committed_profile_is_valid(path):
    profile = make_profile(read_config(path.stem))
    assert profile.targets or "original" in profile.config
    assert "labs/01_explore" in profile.pages


@pytest.mark.parametrize(
    "changes, name",
    [
        ({"fold": [1]}, "fold"),
        ({"protocol": "patients"}, "protocol"),
        ({"folds": [1, 6]}, "folds"),
        ({"folds": [1, 1]}, "folds"),
        ({"seed": "one"}, "seed"),
        ({"sweep": {"epochs": []}}, "sweep"),
        ({"variants": {"a b": {}}}, "variants"),
        ({"variants": {"a": {}}, "sweep": {"epochs": [1]}}, "valid"),
    ],
)
def test_profile_outside_the_schema_is_refused(changes, name):
    with pytest.raises(WorkflowError, match=name):
        make_profile(read_config("quick") | changes)


def test_profile_without_a_section_is_refused():
    with pytest.raises(WorkflowError):
        make_profile({"seed": 1})


@pytest.mark.parametrize(
    "changes, name",
    [
        ({"joint": {"image_sise": 64}}, "image_sise"),
        ({"joint": {"epochs": "many"}}, "epochs"),
        ({"variants": {"a": {"no_such_parameter": 1}}}, "no_such_parameter"),
    ],
)
def test_parameter_that_no_notebook_has_is_refused(changes, name):
    with pytest.raises(ParameterError, match=name):
        make_profile(read_config("quick") | changes)


def test_variant_changes_only_what_its_notebook_declares():
    profile = make_profile(read_config("sweep"))
    assert len(profile.variants) == 4
    run = "results/test-phantom/image_size-96+seed-2"
    parameters = profile.parameters("segment", run, 2)
    assert (parameters["image_size"], parameters["seed"]) == (96, 2)
    assert parameters["results"] == f"{run}/single/segment"


def test_ablation_of_one_task_has_no_page_of_scores():
    profile = make_profile(read_config("ablations"))
    run = "results/test-phantom/class-alone"
    assert profile.tasks(run) == ("classify",)
    assert run not in profile.evaluated
    assert all("/segment/" not in path for path in profile.records(run))
