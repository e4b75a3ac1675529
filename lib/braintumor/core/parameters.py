"""Notebook parameters, validated before anything is computed.

papermill accepts any name and type. Here the annotated assignments of the parameters
cell are the declaration: ``fold: int = 1`` or ``folds: list[Literal[1, 2]] = [1]``.
"""

import ast
from typing import Annotated, Literal, get_args, get_origin

import nbformat
import pydantic

from braintumor.core.errors import ParameterError
from braintumor.core.files import ROOT


def check_parameters(namespace):
    """Validate the parameters of the running notebook and return them as a dict.

    Call ``check_parameters(globals())`` directly after the parameters cell. Raises
    ParameterError for invalid values and for names in papermill's injected cell that
    the notebook does not declare.
    """
    declared = namespace.get("__annotations__", {})
    names = set(declared)
    for cell in namespace.get("In", []):
        if cell.startswith("# Parameters\n"):  # injected by papermill
            statements = ast.parse(cell).body
            names |= {node.targets[0].id for node in statements}
    return _validate(declared, {name: namespace[name] for name in sorted(names)})


def notebook_parameters(notebook, overrides):
    """Validate parameters of a notebook without running it.

    Parameters
    ----------
    notebook : str
        Path below ``notebooks/`` without suffix, such as ``labs/02_classify``.
    overrides : dict
        Values that replace the notebook's defaults.

    Returns
    -------
    dict
        All parameters of the notebook.
    """
    cells = nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", 4).cells
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    namespace = {}
    exec(tagged[0].source, namespace)
    declared = namespace["__annotations__"]
    return _validate(declared, {name: namespace[name] for name in declared} | overrides)


def _validate(declared, values):
    config = pydantic.ConfigDict(extra="forbid", strict=True, protected_namespaces=())
    fields = {name: (_with_constraints(kind), ...) for name, kind in declared.items()}
    model = pydantic.create_model("Parameters", __config__=config, **fields)
    try:
        return model(**values).model_dump()
    except pydantic.ValidationError as error:
        messages = [_describe(problem, declared) for problem in error.errors()]
        raise ParameterError("; ".join(messages)) from None


def _with_constraints(kind):
    """Make choices strict in type and lists unique; a list of choices is not empty."""
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        check = pydantic.BeforeValidator(lambda value: _check_choice(value, choices))
        return Annotated[kind, check]
    if get_origin(kind) is list:
        item = get_args(kind)[0]
        length = pydantic.Field(min_length=int(get_origin(item) is Literal))
        unique = pydantic.AfterValidator(_check_unique)
        return Annotated[list[_with_constraints(item)], unique, length]
    return kind


def _check_choice(value, choices):
    # pydantic alone takes True and 1.0 for the choice 1
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        raise ValueError(f"expected one of {', '.join(map(repr, choices))}")
    return value


def _check_unique(values):
    if len(set(values)) < len(values):
        raise ValueError("expected no value twice")
    return values


def _describe(problem, declared):
    name, value = problem["loc"][0], problem["input"]
    if problem["type"] == "extra_forbidden":
        return f"{name}: unknown parameter, expected one of {', '.join(declared)}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{name}: got {value!r}, {message.replace('Input should be', 'expected')}"
