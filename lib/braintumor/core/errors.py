"""The errors that a reader of the study can act on."""

import textwrap


class DatasetError(ValueError):
    """Something in the data is not as published: the message names file, field, and what was expected.

    It is one line, whatever the names and contents that it quotes: `printable`.
    """

    def __init__(self, message):
        super().__init__(printable(message))


class ChoiceError(DatasetError):
    """A file holds several slices and none was chosen: `count` says how many."""

    def __init__(self, message, count):
        super().__init__(message)
        self.count = count


class LeakageError(ValueError):
    """A patient, or a family of identifiers, stands on two sides of a split that promises otherwise."""


class ParameterError(ValueError):
    """A notebook or profile parameter is unknown, of the wrong type, or out of range."""


class BusyError(OSError):
    """Another process is at work on the same files: the message names it, and what it does."""


class FullDiskError(OSError):
    """There is no room left on a disk: the message names the folder, and what to do."""


def printable(text):
    """`text` with line ends, control characters and the like written as escapes: a name may come from a stranger."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def in_short(error):
    """What a library says of a file, as a part of a sentence: on one line, of at most 200 characters."""
    return textwrap.shorten(str(error), 200, placeholder=" ...")
