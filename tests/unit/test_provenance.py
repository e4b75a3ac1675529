import keras
import pytest

from braintumor.training.provenance import (
    collect_environment,
    group_by_training,
    short_commit,
)


def test_environment_has_versions_and_resources():
    environment = collect_environment(threads=3)
    assert environment["packages"]["keras"] == keras.__version__
    assert environment["packages"][keras.config.backend()]
    assert environment["threads"] == 3 and environment["processor"]
    assert environment["peak_memory_mb"] > 50
    assert set(environment["git"]) == {"commit", "clean"}
    assert collect_environment(threads=0)["threads"] >= 1


def test_records_of_a_joint_network_are_one_training():
    def make_record(fold, task):
        parameters = {"fold": fold, "task": task}
        facts = {"notebook": "labs/04_joint", "finished": "2026", "seconds": fold}
        return {"parameters": parameters, **facts}

    pairs = [(fold, task) for fold in (1, 2) for task in ("classify", "segment")]
    groups = group_by_training([make_record(*pair) for pair in pairs])
    found = [[record["parameters"]["fold"] for record in group] for group in groups]
    assert found == [[1, 1], [2, 2]]


@pytest.mark.parametrize(
    "commit, is_clean, expected",
    [
        ("0123456789abcdef", True, "0123456789"),
        ("0123456789abcdef", False, "0123456789 and changes"),
        (None, None, "not from git"),
    ],
)
def test_commit_is_shortened(commit, is_clean, expected):
    record = {"git": {"commit": commit, "clean": is_clean}}
    assert short_commit(record) == expected
