"""Parameters that papermill injects are checked against the notebook's own declaration."""

import re
from typing import Literal

import pytest

from braintumor.core.errors import ParameterError
from braintumor.core.parameters import check_parameters

DECLARED = {
    "fold": int,
    "rate": float,
    "augment": bool,
    "data": str,
    "protocol": Literal["official", "family", "slice"],
    "filters": Literal[16, 64],
}
DEFAULTS = {"fold": 1, "rate": 0.5, "augment": True, "data": "phantom", "protocol": "official", "filters": 16}


def notebook(injected="", **values):
    """A notebook's globals() after its parameters cell and papermill's."""
    cells = ["fold: int = 1\nrate: float = 0.5", *([f"# Parameters\n{injected}"] if injected else []), "check()"]
    return {"__annotations__": DECLARED, "In": ["", *cells], "pd": object(), **DEFAULTS, **values}


def test_declared_values_are_returned_and_nothing_else():
    assert check_parameters(notebook()) == DEFAULTS


def test_injected_values_that_fit_pass():
    values = check_parameters(notebook('fold = 3\nprotocol = "slice"\n', fold=3, protocol="slice"))
    assert values == DEFAULTS | {"fold": 3, "protocol": "slice"}


def test_whole_number_passes_for_a_float():
    assert check_parameters(notebook(rate=1))["rate"] == 1


@pytest.mark.parametrize(
    "name, value, expected",
    [
        ("fold", "3", "int"),
        ("fold", 3.0, "int"),
        ("fold", True, "int"),
        ("rate", "0.5", "float"),
        ("rate", False, "float"),
        ("augment", 1, "bool"),
        ("data", None, "str"),
        ("protocol", "random", "'official', 'family', 'slice'"),
        ("protocol", ["official"], "'official', 'family', 'slice'"),
        ("filters", 32, "16, 64"),
        ("filters", 16.0, "16, 64"),
    ],
)
def test_value_that_does_not_fit_is_named_with_what_was_expected(name, value, expected):
    with pytest.raises(ParameterError) as caught:
        check_parameters(notebook(**{name: value}))
    message = str(caught.value)
    assert message.startswith(f"{name}: is {value!r}") and f"expected {expected}" in message.replace("one of ", "")
    assert [other for other in DECLARED if f"{other}: " in message] == [name]


def test_true_is_not_taken_for_the_choice_1():
    with pytest.raises(ParameterError, match="fold: is True"):
        check_parameters({"__annotations__": {"fold": Literal[1, 2]}, "fold": True})


def test_unknown_name_is_told_with_the_names_there_are():
    with pytest.raises(ParameterError) as caught:
        check_parameters(notebook("epocs = 3\n", epocs=3))
    assert str(caught.value).startswith("epocs: ")
    assert [name for name in DECLARED if name not in str(caught.value)] == []


def test_all_faults_come_in_one_message():
    injected = 'epocs = 3\nfold = "1"\nrate = "x"\nprotocol = "all"\n'
    with pytest.raises(ParameterError) as caught:
        check_parameters(notebook(injected, epocs=3, fold="1", rate="x", protocol="all"))
    assert re.findall(r"(?:^|; )(\w+): ", str(caught.value)) == ["epocs", "fold", "rate", "protocol"]


def test_names_of_other_cells_are_not_taken_for_parameters():
    values = notebook("fold = 2\n", fold=2, figure=1)
    values["In"].append("figure = 1")
    assert check_parameters(values)["fold"] == 2


def test_notebook_without_parameters_passes():
    assert check_parameters({"In": ["import numpy"]}) == {}


@pytest.mark.parametrize(
    "folds, fault",
    [
        ([1, 3], None),
        ([], "is []; expected a list of at least one value, none twice"),
        ([1, 1], "is [1, 1]; expected a list of at least one value, none twice"),
        (3, "is 3; expected a list of at least one value, none twice"),
        ([1, 7], "is 7; expected one of 1, 2, 3"),
        ([1, True], "is True; expected one of 1, 2, 3"),
    ],
)
def test_list_of_choices_has_each_at_most_once(folds, fault):
    namespace = {"__annotations__": {"folds": list[Literal[1, 2, 3]]}, "In": [], "folds": folds}
    if fault is None:
        assert check_parameters(namespace) == {"folds": folds}
    else:
        with pytest.raises(ParameterError, match=re.escape(f"folds: {fault}")):
            check_parameters(namespace)
