"""The errors that a reader of the study can act on."""


class DatasetError(ValueError):
    """Something in the data is not as published: the message names file, field, and what was expected."""


class LeakageError(ValueError):
    """A patient, or a family of identifiers, stands on two sides of a split that promises otherwise."""


class ParameterError(ValueError):
    """A notebook or profile parameter is unknown, of the wrong type, or out of range."""


class BusyError(OSError):
    """Another process is at work on the same files: the message names it, and what it does."""


class FullDiskError(OSError):
    """There is no room left on a disk: the message names the folder, and what to do."""
