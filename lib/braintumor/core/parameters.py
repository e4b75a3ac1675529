"""Notebook parameters that are checked before anything is computed.

papermill only warns of a parameter that a notebook does not know, and takes any type. Here the annotated assignments
of the parameters cell are the declaration (`fold: int = 1`, `protocol: Literal["official", "slice"] = ...`, or
`folds: list[Literal[1, 2]] = ...`: none twice, and at least one where they are choices).
"""

import ast
from typing import Literal, get_args, get_origin

import nbformat

from braintumor.core.errors import ParameterError
from braintumor.core.files import ROOT


def check_parameters(namespace):
    """Check a notebook's parameters; call it as `check_parameters(globals())` right after the parameters cell.

    Returns the declared parameters as a dict. Raises ParameterError naming each parameter that papermill injected and
    the notebook does not declare, and each value whose type, or choice, is not the declared one.
    """
    # papermill writes what it was given into a cell of its own, which begins so
    injected = [cell for cell in namespace.get("In", []) if cell.startswith("# Parameters\n")]
    given = _assigned(injected[-1] if injected else "")
    return _checked(namespace.get("__annotations__", {}), namespace, given)


def notebook_parameters(notebook, given):
    """All parameters of notebooks/NAME.ipynb as a dict: its defaults, and `given` (a dict) in their place.

    Raises ParameterError as `check_parameters` does, without running the notebook.
    """
    cells = nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", 4).cells
    namespace = {}
    exec(next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])), namespace)
    return _checked(namespace["__annotations__"], namespace | given, given)


def _checked(declared, values, given):
    faults = [
        f"{name}: this notebook has no such parameter; it has {', '.join(declared)}"
        for name in given
        if name not in declared
    ]
    values = {name: values[name] for name in declared}
    faults += [f"{name}: {fault}" for name, value in values.items() if (fault := _misfit(value, declared[name]))]
    if faults:
        raise ParameterError("; ".join(faults))
    return values


def _assigned(cell):
    targets = [target for node in ast.parse(cell).body if isinstance(node, ast.Assign) for target in node.targets]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _misfit(value, declared):
    if get_origin(declared) is Literal:
        choices = get_args(declared)
        fits = any(type(value) is type(choice) and value == choice for choice in choices)  # True == 1 == 1.0
        return None if fits else f"is {value!r}; expected one of {', '.join(map(repr, choices))}"
    if get_origin(declared) is list:
        of = get_args(declared)[0]
        least = 1 if get_origin(of) is Literal else 0
        if type(value) is not list or len(value) < least or len(set(map(repr, value))) < len(value):
            return f"is {value!r}; expected a list{' of at least one value' * least}, none twice"
        return next((fault for one in value if (fault := _misfit(one, of))), None)
    if declared is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
    else:
        fits = type(value) is declared
    return None if fits else f"is {value!r} ({type(value).__name__}); expected {declared.__name__}"
