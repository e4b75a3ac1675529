"""Profiles: what is refused before anything runs, and the jobs of a profile."""

import re

import pytest
import yaml
from samples import write_pairs
from snakemake.exceptions import WorkflowError
from snakemake.utils import validate

from braintumor.core.files import ROOT

PROFILES = sorted(path.stem for path in (ROOT / "config").glob("*.yaml"))


def read_config(name):
    return yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text())


def check_schema(config):
    config = {"profile": "test", "data": "phantom"} | config
    validate(config, str(ROOT / "workflow" / "profile.schema.yaml"))


@pytest.fixture(scope="module")
def list_jobs(make_project, tmp_path_factory):
    """list_jobs(config, data): exit code of a dry run, {rule: jobs}, output."""
    project = make_project(tmp_path_factory.mktemp("profiles"))

    def list_jobs(config, data="phantom"):
        (project.folder / "config/tiny.yaml").write_text(yaml.safe_dump(config))
        project.data = data
        code, output = project.run("--dry-run", "--quiet", "rules")
        return code, dict(re.findall(r"^(\w+) +(\d+)$", output, re.MULTILINE)), output

    return list_jobs


@pytest.mark.parametrize("name", PROFILES)
def test_committed_profile_fits_the_schema(name):
    check_schema(read_config(name))


BAD_PROFILES = [{"fold": [1]}, {"protocol": "patients"}, {"folds": [1, 6]}]
BAD_PROFILES += [{"folds": [1, 1]}, {"seed": "one"}, {"sweep": {"epochs": []}}]
BAD_PROFILES += [{"variants": {"a b": {}}}]


@pytest.mark.parametrize("changes", BAD_PROFILES, ids=str)
def test_profile_outside_the_schema_is_refused(changes):
    (name,) = changes
    with pytest.raises(WorkflowError, match=name):
        check_schema(read_config("quick") | changes)


def test_profile_has_sections_and_either_variants_or_a_sweep():
    both = {"variants": {"a": {}}, "sweep": {"epochs": [1]}}
    for profile in ({"seed": 1}, read_config("quick") | both):
        with pytest.raises(WorkflowError, match="valid"):
            check_schema(profile)


def test_unknown_parameters_and_too_few_folds_are_refused(list_jobs, tmp_path):
    unknown = {"image_sise": 64}
    for section in ({"joint": unknown}, {"variants": {"a": unknown}}):
        code, _, output = list_jobs(read_config("smoke") | section)
        assert code != 0 and "image_sise: " in output
    folder = write_pairs(tmp_path / "few", fold=[n // 2 % 3 + 1 for n in range(30)])
    code, _, output = list_jobs(read_config("smoke"), folder)
    assert code != 0 and f"{folder}: folds: " in output


@pytest.mark.parametrize(
    "name, expected",
    [
        ("leakage", {"train_segmenter": 15, "audit_leakage": 1, "evaluate": 3}),
        ("sweep", {"train_classifier": 8, "evaluate": 4}),
        # networks of one task have no page of scores
        ("ablations", {"train_joint": 9, "train_joint_single": 2, "evaluate": 9}),
    ],
)
def test_profile_lists_its_jobs(list_jobs, name, expected):
    code, jobs, output = list_jobs(read_config(name))
    assert code == 0, output
    assert {rule: int(jobs.get(rule, 0)) for rule in expected} == expected
