"""Error messages of one line, and errors that keep what they know."""

import pickle

import pytest

from braintumor.core.errors import AmbiguousSliceError, DatasetError, shorten


def test_message_is_one_short_line_without_control_characters():
    message = str(DatasetError("a\nb\x1b[31m\u202e.mat: größe 脳"))
    assert message.isprintable() and message.endswith(".mat: größe 脳")
    assert shorten(ValueError("a\n  b")) == "a b"
    assert len(shorten("word " * 100)) <= 200


@pytest.mark.parametrize(
    "error",
    [DatasetError("1.mat"), AmbiguousSliceError("1.tif", 3)],
)
def test_errors_survive_the_way_between_processes(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error) and str(copy) == str(error)
    assert vars(copy) == vars(error)
