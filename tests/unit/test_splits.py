"""No patient is in two parts, unless the protocol is known to allow it."""

import numpy as np
import pandas as pd
import pytest

from braintumor.core.errors import DatasetError, LeakageError, ParameterError
from braintumor.data.splits import (
    FOLDS,
    Split,
    assign_folds,
    audit_leakage,
    make_split,
    patient_family,
    patient_source,
)


def make_index(patients):
    """An index of (pid, label, fold) patients with three to five slices each."""
    rows = [row for n, row in enumerate(patients) for _ in range(3 + n % 3)]
    index = pd.DataFrame(rows, columns=["pid", "label", "fold"])
    return index.assign(family=index["pid"].map(patient_family))


@pytest.fixture(scope="module")
def index():
    """20 patients per class; official folds divide two families."""
    patients = [(f"{k}{n:05}", k, n % 5 + 1) for k in (1, 2, 3) for n in range(20)]
    patients += [("MR000000", 2, 1), ("MR000000B", 2, 2)]
    patients += [("MR000001A", 2, 3), ("MR000001C", 2, 4)]
    return make_index(patients)


def values(index, split, column):
    """Values of a column in the training, validation and test part."""
    return [set(index[column].iloc[rows]) for rows in split.parts().values()]


@pytest.mark.parametrize("protocol", ["official", "family", "slice"])
def test_every_row_is_in_one_part_of_a_seed_and_tested_once(index, protocol):
    tested = []
    for fold in FOLDS:
        split = make_split(index, protocol, fold)
        tested += [*split.test]
        rows = np.concatenate(list(split.parts().values()))
        assert np.array_equal(np.sort(rows), np.arange(len(index)))
        assert all(np.all(np.diff(part) > 0) for part in split.parts().values())
        assert values(index, split, "label") == [{1, 2, 3}] * 3
        assert 0.08 < len(split.validation) / (len(index) - len(split.test)) < 0.25
        if protocol != "slice":
            column = "pid" if protocol == "official" else "family"
            train, validation, test = values(index, split, column)
            assert not train & test and not validation & test and not train & validation
    assert sorted(tested) == list(range(len(index)))
    first, again, other = (make_split(index, protocol, 2, seed) for seed in (7, 7, 8))
    for part, rows in first.parts().items():
        assert np.array_equal(rows, again.parts()[part])
    assert not np.array_equal(first.validation, other.validation)
    assert np.array_equal(first.test, other.test) == (protocol == "official")


def test_source_protocol_trains_without_one_source(index):
    split, official = (make_split(index, name, 1) for name in ("source", "official"))
    assert np.array_equal(split.test, official.test)
    sources = [set(map(patient_source, v)) for v in values(index, split, "pid")]
    assert sources == [{"digits"}, {"digits"}, {"digits", "MR"}]
    assert values(index, split, "label") == [{1, 2, 3}] * 3


def test_families_and_shared_patients_are_counted():
    index = make_index([("MR000000", 2, 1), ("MR000000B", 2, 2), ("1", 1, 1)])
    split = Split(np.array([3, 4]), np.array([7]), np.array([0, 1, 8, 9]))
    audit = audit_leakage(index, split)  # rows 0-2, 3-6, 7-11
    assert audit.loc["pid"].tolist() == [1, 2, 0.5]
    assert audit.loc["family"].tolist() == [2, 4, 1.0]
    assert patient_family("MR040240B") == patient_family("MR040240") == "MR040240"
    for pid in ("MR0402401", "MR04024B", "100360B", "XMR040240B"):
        assert patient_family(pid) == pid


def test_patient_in_two_official_folds_and_unknown_fold_are_named(index):
    broken = index.copy()
    broken.loc[broken["pid"].eq("100003").idxmax(), "fold"] = 5  # the others: 4
    for fold in (4, 5):
        with pytest.raises(LeakageError, match="100003"):
            make_split(broken, "official", fold)
    with pytest.raises(ParameterError, match="fold: got 6"):
        make_split(index, "official", 6)


def test_class_with_too_few_patients_is_refused():
    patients = [(f"1{n}", 1, n % 2 + 1) for n in range(5)]
    patients += [(f"2{n}", 2, n % 2 + 1) for n in range(3)]
    index = make_index(patients)
    with pytest.raises(DatasetError, match="glioma"):
        assign_folds(index, "family")
    with pytest.raises(DatasetError, match="glioma"):
        make_split(index, "official", 1)
    with pytest.raises(DatasetError, match="slice folds"):  # 5 slices to train on
        make_split(index.iloc[::5].reset_index(), "slice", 1)
