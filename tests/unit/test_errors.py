"""Error messages of one line, and errors that keep what they know."""

import pickle

import pytest

from braintumor.core.errors import (
    AmbiguousSliceError,
    DatasetError,
    ProblemCollector,
    printable,
    shorten,
)


def test_message_has_no_control_characters():
    message = str(DatasetError("a\nb\x1b[31m\u202e.mat: größe 脳"))
    assert message.isprintable() and message.endswith(".mat: größe 脳")
    assert printable("plain text") == "plain text"


def test_library_message_is_shortened_to_one_line():
    assert shorten(ValueError("a\n  b")) == "a b"
    assert len(shorten("word " * 100)) <= 200


@pytest.mark.parametrize(
    "error",
    [DatasetError("1.mat", [("1.mat", "label")]), AmbiguousSliceError("1.tif", 3)],
)
def test_errors_survive_the_way_between_processes(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error) and str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_all_problems_of_a_file_are_reported_at_once():
    problems = ProblemCollector("1.mat")
    assert problems.check("label", int, "2") == 2
    problems.raise_problems()
    assert problems.check("label", int, "two") is None
    assert problems.check("size", float, "large") is None
    with pytest.raises(DatasetError, match="1.mat: label: .*1.mat: size: ") as caught:
        problems.raise_problems()
    assert len(caught.value.problems) == 2
