"""The errors that a reader of the study can act on."""


class DatasetError(ValueError):
    """Something in the data is not as published: the message names file, field, and what was expected."""


class ChoiceError(DatasetError):
    """A file holds several slices and none was chosen: `count` says how many."""

    def __init__(self, message, count):
        super().__init__(message)
        self.count = count


class LeakageError(ValueError):
    """A patient, or a family of identifiers, stands on two sides of a split that promises otherwise."""


class ParameterError(ValueError):
    """A notebook or profile parameter is unknown, of the wrong type, or out of range."""
