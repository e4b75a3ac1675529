"""Notebook parameters that are checked before anything is computed.

papermill only warns of a parameter that a notebook does not know, and takes any type. Here the annotated assignments
of the parameters cell are the declaration (`fold: int = 1`, `protocol: Literal["official", "slice"] = ...`).
"""

import ast
from typing import Literal, get_args, get_origin

from braintumor.errors import ParameterError


def check_parameters(namespace):
    """Check a notebook's parameters; call it as `check_parameters(globals())` right after the parameters cell.

    Returns the declared parameters as a dict. Raises ParameterError naming each parameter that papermill injected and
    the notebook does not declare, and each value whose type, or choice, is not the declared one.
    """
    declared = namespace.get("__annotations__", {})
    # papermill writes what it was given into a cell of its own, which begins so
    injected = [cell for cell in namespace.get("In", []) if cell.startswith("# Parameters\n")]
    faults = [
        f"{name}: this notebook has no such parameter; it has {', '.join(declared)}"
        for name in _assigned(injected[-1] if injected else "")
        if name not in declared
    ]
    values = {name: namespace[name] for name in declared}
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
    if declared is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
    else:
        fits = type(value) is declared
    return None if fits else f"is {value!r} ({type(value).__name__}); expected {declared.__name__}"
