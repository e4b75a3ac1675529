"""Errors that users can act on."""

import textwrap


class DatasetError(ValueError):
    """Data are not as expected; the message names file, field and remedy."""

    def __init__(self, message):
        super().__init__(printable(message))


class AmbiguousSliceError(DatasetError):
    """A file holds `n_slices` slices and none was chosen."""

    def __init__(self, message, n_slices=None):
        super().__init__(message)
        self.n_slices = n_slices


class LeakageError(ValueError):
    """A patient is in two parts of a split that must keep it together."""


class ParameterError(ValueError):
    """A parameter is unknown, of the wrong type, or out of range."""


def require(condition, what, got, expected, remedy):
    """Raise DatasetError in the usual form unless `condition` holds."""
    if not condition:
        raise DatasetError(f"{what}: got {got}, expected {expected}. {remedy}.")


def printable(text):
    """Escape control characters and line ends of `text`."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def shorten(error):
    """Return the message of `error` on one line of at most 200 characters."""
    return textwrap.shorten(str(error), 200, placeholder=" ...")


def describe_problem(problem, names=None):
    """Return an item of pydantic's ``errors()`` as text; `names` renames fields."""
    field, text = problem["loc"][0], problem["msg"].removeprefix("Value error, ")
    if problem["type"] not in ("missing", "value_error"):
        text = text.replace("Input should be", "expected")
        text = f"got {shorten(repr(problem['input']))}, {text}"
    return f"{(names or {}).get(field, field)}: {text}"
