"""Errors that users can act on."""

import textwrap


class DatasetError(ValueError):
    """Data are not as expected; the message names file, field and remedy.

    `problems` lists (file, problem) where a reader found several.
    """

    def __init__(self, message, problems=()):
        super().__init__(printable(message))
        self.problems = list(problems)


class AmbiguousSliceError(DatasetError):
    """A file holds `n_slices` slices and none was chosen."""

    def __init__(self, message, n_slices=None):
        super().__init__(message)
        self.n_slices = n_slices


class LeakageError(ValueError):
    """A patient is in two parts of a split that must keep it together."""


class ParameterError(ValueError):
    """A parameter is unknown, of the wrong type, or out of range."""


class ProblemCollector:
    """Check all fields of a file (`source`), then report every problem at once."""

    def __init__(self, source):
        self.source = str(source)
        self.problems = []

    def check(self, field, function, *args):
        """Return ``function(*args)``, or None after recording its ValueError."""
        try:
            return function(*args)
        except ValueError as error:
            self.add(field, error)
            return None

    def add(self, field, problem):
        """Record one problem."""
        self.problems.append((self.source, f"{field}: {problem}"))

    def raise_problems(self):
        """Raise a DatasetError that lists all problems, if there are any."""
        if self.problems:
            message = "; ".join(f"{source}: {text}" for source, text in self.problems)
            raise DatasetError(message, self.problems)


def printable(text):
    """Escape control characters and line ends of `text`."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def shorten(error):
    """Return the message of `error` on one line of at most 200 characters."""
    return textwrap.shorten(str(error), 200, placeholder=" ...")
