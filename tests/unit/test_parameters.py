"""Notebook parameters are checked against the notebook's own declaration."""

import math
from typing import Literal

import pytest

from braintumor.core import parameters
from braintumor.core.errors import ParameterError
from braintumor.core.parameters import check_parameters, notebook_parameters

DECLARED = {
    "fold": int,
    "rate": float,
    "augment": bool,
    "data": str,
    "protocol": Literal["official", "family", "slice"],
    "folds": list[Literal[1, 2, 3]],
    "names": list[str],
    "image_size": parameters.ImageSize,
    "threads": parameters.Threads,
    "seed": parameters.Seed,
    "shear": parameters.Fraction,
}
VALUES = (1, 0.5, True, "phantom", "official", [1, 3], [], 64, 0, 1, 0.2)
DEFAULTS = dict(zip(DECLARED, VALUES, strict=True))
BAD_VALUES = {
    "fold": ["3", 3.0, True],
    "rate": ["0.5", False, math.nan, math.inf],
    "augment": [1],
    "data": [None],
    "protocol": ["random", ["official"]],
    "folds": [[], [1, 1], [7], 3],
    "names": [["a", "a"], [1]],
    "image_size": [0, 65, 48, 2048],
    "threads": [-1, 100_000],
    "seed": [-1, 2**32],
    "shear": [-0.1, 1],
}


def namespace(injected="", **values):
    """A notebook's globals() after its parameters cell and papermill's."""
    cells = ["", "fold: int = 1", f"# Parameters\n{injected}", "check()"]
    return {"__annotations__": DECLARED, "In": cells, "pd": 1, **DEFAULTS, **values}


def test_declared_values_are_returned_or_all_problems_in_one_message():
    assert check_parameters(namespace(figure=1)) == DEFAULTS
    assert check_parameters({"In": ["import numpy"]}) == {}
    values = {"fold": 3, "protocol": "slice", "rate": 1, "folds": [2], "names": ["a"]}
    checked = check_parameters(namespace("fold = 3\nrate = 1", **values))
    assert checked == DEFAULTS | values
    values = {"epocs": 3, "fold": "1", "rate": "x", "protocol": "all"}
    injected = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    with pytest.raises(ParameterError) as caught:
        check_parameters(namespace(injected, **values))
    assert all(f"{name}: " in str(caught.value) for name in values)


@pytest.mark.parametrize(
    "name, value", [(name, value) for name in DECLARED for value in BAD_VALUES[name]]
)
def test_invalid_value_is_named(name, value):
    with pytest.raises(ParameterError, match=f"^{name}: ") as caught:
        check_parameters(namespace(**{name: value}))
    correct = set(DECLARED) - {name}
    assert not any(f"{n}: " in str(caught.value) for n in correct)


def test_parameters_of_a_notebook_are_its_defaults_and_the_overrides():
    lab, defaults = "labs/04_joint", notebook_parameters("labs/04_joint", {})
    checked = notebook_parameters(lab, {"fold": 4})
    assert checked == defaults | {"fold": 4} and defaults["protocol"] == "official"
    for name, value in (("epocs", 3), ("epochs", 0), ("protocol", "c")):
        with pytest.raises(ParameterError, match=f"^{name}: "):
            notebook_parameters(lab, {name: value})
