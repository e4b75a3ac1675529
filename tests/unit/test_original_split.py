"""The splits of the original study, as lab 8 makes them."""

import numpy as np
import pandas as pd
import pytest
from samples import find_cell

from braintumor.data.splits import Split


@pytest.fixture(scope="module")
def make_original_split():
    """The function of the lab."""
    names = {"np": np, "Split": Split}
    exec(find_cell("labs/08_original", "def make_original_split("), names)
    return names["make_original_split"]


def make_files(n):
    """An index of n slices, in another order than their numbers."""
    return pd.DataFrame({"file": np.random.default_rng(0).permutation(n) + 1})


@pytest.mark.parametrize(
    "name, n_exported, expected",
    [
        ("single", 3000, (2184, 458, 358)),
        ("ensemble", 3000, (2400, 299, 301)),
        ("single", None, (2231, 467, 366)),
    ],
)
def test_parts_have_the_published_sizes(
    make_original_split, name, n_exported, expected
):
    index = make_files(3064)
    parts = make_original_split(index, name, 0, n_exported).parts().values()
    assert tuple(map(len, parts)) == expected
    numbers = set(index["file"].iloc[np.concatenate(list(parts))])
    assert numbers == set(range(1, (n_exported or 3064) + 1))


def test_test_slices_of_one_split_do_not_train_the_other(make_original_split):
    for index in (make_files(3064), make_files(20)):
        single = make_original_split(index, "single", 5, 3000)
        ensemble = make_original_split(index, "ensemble", 5, 3000)
        assert set(ensemble.test) <= set(single.test)
        assert not set(single.test) & set(ensemble.train)
