"""Notebook parameters, validated before anything is computed.

papermill accepts parameters of any name and type. The annotated assignments of the
parameters cell are the declaration: ``fold: int = 1``,
``protocol: Literal["official", "slice"] = "official"`` or
``folds: list[Literal[1, 2]] = [1]``.
"""

import ast
from typing import Annotated, Literal, get_args, get_origin

import nbformat
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
)

from braintumor.core.errors import ParameterError
from braintumor.core.files import ROOT


def check_parameters(namespace):
    """Validate the parameters of the running notebook.

    Call ``check_parameters(globals())`` directly after the parameters cell.

    Returns
    -------
    dict
        The declared parameters.

    Raises
    ------
    ParameterError
        For undeclared names in papermill's injected cell and for invalid values.
    """
    declared = namespace.get("__annotations__", {})
    names = set(declared)
    cells = namespace.get("In", [])
    injected = [cell for cell in cells if cell.startswith("# Parameters\n")]
    if injected:
        names |= _assigned_names(injected[-1])
    return _validate(declared, {name: namespace[name] for name in names})


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
    defaults = {name: namespace[name] for name in declared}
    return _validate(declared, defaults | overrides)


def _assigned_names(cell):
    assignments = [
        node for node in ast.parse(cell).body if isinstance(node, ast.Assign)
    ]
    return {node.targets[0].id for node in assignments}


def _validate(declared, values):
    config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())
    fields = {name: (_with_constraints(kind), ...) for name, kind in declared.items()}
    model = create_model("Parameters", __config__=config, **fields)
    try:
        return model(**values).model_dump()
    except ValidationError as error:
        messages = [_describe(problem, declared) for problem in error.errors()]
        raise ParameterError("; ".join(messages)) from None


def _with_constraints(kind):
    """Make choices strict in type and lists unique; a list of choices is not empty."""
    if get_origin(kind) is Literal:
        types = {type(choice) for choice in get_args(kind)}
        return Annotated[kind, BeforeValidator(lambda value: _strict(value, types))]
    if get_origin(kind) is list:
        item = get_args(kind)[0]
        min_length = int(get_origin(item) is Literal)
        items = list[_with_constraints(item)]
        return Annotated[items, AfterValidator(_unique), Field(min_length=min_length)]
    return kind


def _strict(value, types):
    # pydantic takes True and 1.0 for the choice 1
    return value if type(value) in types else None


def _unique(values):
    if len(set(values)) < len(values):
        raise ValueError("expected no value twice")
    return values


def _describe(problem, declared):
    name, value = problem["loc"][0], problem["input"]
    if problem["type"] == "extra_forbidden":
        return f"{name}: unknown parameter; expected one of {', '.join(declared)}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{name}: got {value!r}; {message.replace('Input should be', 'expected')}"
