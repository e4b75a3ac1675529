"""Notebook parameters, validated by the annotations of the parameters cell."""

import ast
from typing import Annotated, Literal, get_args, get_origin

import pydantic

from braintumor.core.errors import ParameterError, describe_problem
from braintumor.core.files import ROOT

Fraction = Annotated[float, pydantic.Field(ge=0, lt=1)]
HeadSize = Annotated[int, pydantic.Field(ge=0, le=1024, multiple_of=16)]
ImageSize = Annotated[int, pydantic.Field(ge=64, le=1024, multiple_of=16)]
Seed = Annotated[int, pydantic.Field(ge=0, lt=2**31)]
Threads = Annotated[int, pydantic.Field(ge=0, le=256)]


def check_parameters(namespace):
    """Validate the parameters of a running notebook, given its globals()."""
    declared = namespace.get("__annotations__", {})
    names = set(declared)
    for cell in namespace.get("In", []):
        if cell.startswith("# Parameters\n"):  # injected by papermill
            names |= {node.targets[0].id for node in ast.parse(cell).body}
    return _validate(declared, {name: namespace[name] for name in sorted(names)})


def notebook_parameters(notebook, overrides):
    """Return the validated parameters of a notebook, as "labs/02_classify"."""
    import nbformat  # not in a notebook, which starts faster without

    cells = nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", 4).cells
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    namespace = {}
    exec(tagged[0].source, namespace)
    declared = namespace["__annotations__"]
    return _validate(declared, {name: namespace[name] for name in declared} | overrides)


def _validate(declared, values):
    config = pydantic.ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=()
    )
    fields = {name: (_with_constraints(kind), ...) for name, kind in declared.items()}
    model = pydantic.create_model("Parameters", __config__=config, **fields)
    try:
        return model(**values).model_dump()
    except pydantic.ValidationError as error:
        problems = "; ".join(map(describe_problem, error.errors()))
        known = ", ".join(declared)
        raise ParameterError(f"{problems}. The parameters are {known}.") from None


def _with_constraints(kind):
    """Make lists unique; a list of choices is not empty."""
    if get_origin(kind) is not list:
        return kind
    length = pydantic.Field(min_length=int(get_origin(get_args(kind)[0]) is Literal))
    return Annotated[kind, pydantic.AfterValidator(_check_unique), length]


def _check_unique(values):
    if len(set(values)) < len(values):
        raise ValueError(f"got {values}, expected no value twice")
    return values
