"""Who is trained on and tested on: no patient on two sides, unless the protocol is known to let it."""

import numpy as np
import pandas as pd
import pytest

from braintumor.core.errors import DatasetError, LeakageError, ParameterError
from braintumor.core.files import ROOT
from braintumor.data.splits import FOLDS, PROTOCOLS, Split, audit, family, folds, grouped_folds, original, split

FIGSHARE = ROOT.parent / "shared/data/figshare-1512427/index.csv"


def make_index(patients):
    """A table of (pid, label, fold) patients, three to five slices each, as a prepared set's index has it."""
    rows = [row for n, row in enumerate(patients) for _ in range(3 + n % 3)]
    index = pd.DataFrame(rows, columns=["pid", "label", "fold"])
    index.insert(1, "family", index["pid"].map(family))
    return index


@pytest.fixture(scope="module")
def index():
    """60 patients, 20 of each class; official folds that split the families MR000000 and MR000001."""
    patients = [(f"{label}{n:05}", label, n % 5 + 1) for label in (1, 2, 3) for n in range(20 - 4 * (label == 2))]
    relatives = [("MR000000", 2, 1), ("MR000000B", 2, 2), ("MR000001A", 2, 3), ("MR000001C", 2, 4)]
    return make_index(patients + relatives)


def sides(index, made, column):
    """The values of a column in the training, validation and test part."""
    return [set(index[column].iloc[rows]) for rows in made.parts().values()]


@pytest.mark.parametrize(
    "pid, expected",
    [
        ("MR040240", "MR040240"),
        ("MR040240B", "MR040240"),
        ("MR0402401", "MR0402401"),
        ("MR04024B", "MR04024B"),
        ("100360", "100360"),
        ("100360B", "100360B"),
        ("XMR040240B", "XMR040240B"),
    ],
)
def test_family_drops_the_last_letter_of_mr_identifiers_only(pid, expected):
    assert family(pid) == expected


def test_official_folds_are_those_of_the_dataset(index):
    assert np.array_equal(folds(index, "official", seed=3), index["fold"])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_row_is_tested_once_and_the_parts_are_disjoint(index, protocol):
    tested = np.zeros(len(index), int)
    for fold in FOLDS:
        made = split(index, protocol, fold)
        tested[made.test] += 1
        together = np.concatenate(list(made.parts().values()))
        assert np.array_equal(np.sort(together), np.arange(len(index)))
        assert all(np.all(np.diff(rows) > 0) for rows in made.parts().values())
    assert np.all(tested == 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("fold", FOLDS)
def test_every_part_holds_all_classes_and_validation_its_share(index, protocol, fold):
    made = split(index, protocol, fold)
    assert sides(index, made, "label") == [{1, 2, 3}] * 3
    assert 0.08 < len(made.validation) / (len(made.validation) + len(made.train)) < 0.25


@pytest.mark.parametrize("fold", FOLDS)
def test_no_patient_on_two_sides_of_official_folds(index, fold):
    train, validation, test = sides(index, split(index, "official", fold), "pid")
    assert not train & test and not validation & test and not train & validation


@pytest.mark.parametrize("fold", FOLDS)
def test_no_family_on_two_sides_of_family_folds(index, fold):
    made = split(index, "family", fold)
    train, validation, test = sides(index, made, "family")
    assert not train & test and not validation & test and not train & validation
    assert audit(index, made)["both_sides"].tolist() == [0, 0]


def test_audit_counts_families_split_by_the_official_folds(index):
    counted = audit(index, split(index, "official", 1))
    relatives = index["pid"].eq("MR000000").sum()
    assert counted.loc["pid"].tolist() == [0, 0, 0]
    assert counted.loc["family", ["both_sides", "test_slices"]].tolist() == [1, relatives]
    assert counted.loc["family", "share"] == pytest.approx(relatives / index["fold"].eq(1).sum())


def test_slice_protocol_leaks_and_the_audit_counts_it(index):
    made = split(index, "slice", 1)
    train, validation, test = sides(index, made, "pid")
    leaked = (train | validation) & test
    assert len(leaked) > 20
    counted = audit(index, made)
    assert counted.loc["pid", "both_sides"] == len(leaked)
    assert counted.loc["pid", "test_slices"] == index["pid"].iloc[made.test].isin(leaked).sum()


def test_audit_counts_by_hand():
    index = make_index([("MR000000", 2, 1), ("MR000000B", 2, 2), ("1", 1, 1)])  # rows 0-2, 3-6, 7-11
    counted = audit(index, Split(np.array([0, 3, 4]), np.array([1, 7]), np.array([2, 5, 6, 8])))
    assert counted["both_sides"].tolist() == [3, 2]
    assert counted["test_slices"].tolist() == [4, 4]
    counted = audit(index, Split(np.array([3, 4]), np.array([7]), np.array([0, 1, 8, 9])))
    assert counted.loc["pid"].tolist() == [1, 2, 0.5]
    assert counted.loc["family"].tolist() == [2, 4, 1.0]


def test_patient_with_two_official_folds_is_refused_by_name(index):
    rigged = index.copy()
    rigged.loc[rigged["pid"].eq("100003").idxmax(), "fold"] = 5  # its other slices are in fold 4
    for fold in (4, 5):
        with pytest.raises(LeakageError, match="100003"):
            split(rigged, "official", fold)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_same_seed_same_split(index, protocol):
    one, two = (split(index, protocol, 2, seed=7).parts() for _ in range(2))
    assert all(np.array_equal(one[part], two[part]) for part in one)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_another_seed_another_validation(index, protocol):
    one, two = (split(index, protocol, 2, seed).validation.tolist() for seed in (0, 1))
    assert one != two


@pytest.mark.parametrize("protocol", ["family", "slice"])
def test_another_seed_other_folds_where_the_study_makes_them(index, protocol):
    assert not np.array_equal(folds(index, protocol, seed=0), folds(index, protocol, seed=1))


def test_unknown_protocol_is_refused_with_those_there_are(index):
    with pytest.raises(ValueError, match="'random'.*official, family, slice"):
        split(index, "random", 1)


@pytest.mark.parametrize("fold", [0, 6])
def test_unknown_fold_is_refused_with_those_there_are(index, fold):
    with pytest.raises(ValueError, match=rf"fold {fold}.*\[1, 2, 3, 4, 5\]"):
        split(index, "official", fold)


def test_too_few_patients_of_a_class_are_refused():
    few = [(f"{n}", 1, 1) for n in range(5)] + [(f"2{n}", 2, 1) for n in range(4)]
    index = make_index(few)
    with pytest.raises(DatasetError, match="label 2 has 4 patients or families; 5 folds need at least 5"):
        folds(index, "family")


def test_grouped_folds_keep_groups_together_and_classes_balanced(index):
    assigned = grouped_folds(index["label"], index["family"], seed=0)
    assert index.groupby("family").apply(lambda rows: len(set(assigned[rows.index]))).eq(1).all()
    shares = pd.crosstab(assigned, index["label"], normalize="columns")
    assert shares.shape == (5, 3) and shares.min(axis=None) > 0.1 and shares.max(axis=None) < 0.3


# The original study's own splits.


def files(count):
    """An index of so many slices; mixed, for rows are positions and not file numbers."""
    return pd.DataFrame({"file": np.random.default_rng(0).permutation(count) + 1})


def sizes(made):
    return tuple(len(rows) for rows in made.parts().values())


@pytest.mark.parametrize("name, expected", [("single", (2184, 458, 358)), ("ensemble", (2400, 299, 301))])
def test_original_splits_have_the_published_sizes_and_no_file_that_was_not_exported(name, expected):
    index = files(3064)
    made = original(index, name, seed=0)
    assert sizes(made) == expected
    train, validation, test = sides(index, made, "file")
    assert train | validation | test == set(range(1, 3001)) and sum(expected) == 3000  # so they are disjoint


@pytest.mark.parametrize(
    "name, count, expected",
    [
        ("single", 3064, (2231, 467, 366)),
        ("ensemble", 3064, (2451, 306, 307)),
        ("single", 612, (446, 93, 73)),
        ("ensemble", 612, (490, 61, 61)),
    ],
)
def test_original_splits_keep_their_proportions_in_sets_of_other_sizes(name, count, expected):
    made = original(files(count), name, seed=0, exported=None)
    assert sizes(made) == expected
    assert sorted(np.concatenate(list(made.parts().values()))) == list(range(count))


def test_original_split_of_a_small_set_needs_no_limit():
    made, unlimited = (original(files(612), "single", seed=0, **limit) for limit in ({}, {"exported": None}))
    assert all(np.array_equal(made.parts()[part], rows) for part, rows in unlimited.parts().items())


@pytest.mark.parametrize("name", ["single", "ensemble"])
def test_original_split_is_drawn_by_its_seed_with_rows_ascending(name):
    index = files(3064)
    one, same, other = (original(index, name, seed).parts() for seed in (3, 3, 4))
    for part, rows in one.items():
        assert np.array_equal(rows, same[part]) and not np.array_equal(rows, other[part])
        assert np.all(np.diff(rows) > 0)


@pytest.mark.parametrize("count", [3064, 612, 20])
def test_test_slices_of_one_original_split_train_the_other_in_none(count):
    single, ensemble = (original(files(count), name, seed=5) for name in ("single", "ensemble"))
    assert set(ensemble.test) <= set(single.test)
    assert not set(single.test) & set(ensemble.train)


def test_original_split_mixes_the_slices():
    """The first files would be one class and a few patients."""
    index = pd.DataFrame({"file": np.arange(1, 3065)})
    made = original(index, "ensemble", seed=0)
    assert all(1300 < index["file"].iloc[rows].mean() < 1700 for rows in made.parts().values())


@pytest.mark.parametrize("name", ["both", "Single", ""])
def test_unknown_original_split_is_refused_with_those_there_are(name):
    with pytest.raises(ParameterError, match=f"'{name}'.*single, ensemble"):
        original(files(20), name, seed=0)


def test_original_split_of_fewer_than_ten_slices_is_refused():
    assert sum(sizes(original(files(10), "single", seed=0))) == 10
    with pytest.raises(DatasetError, match="9 slices.*10 or more"):
        original(files(9), "single", seed=0)
    with pytest.raises(DatasetError, match="7 slices"):  # the others were not exported
        original(files(20), "single", seed=0, exported=7)


@pytest.mark.skipif(not FIGSHARE.exists(), reason=f"needs figshare's index, {FIGSHARE}")
def test_figshare_folds_families_and_their_leak_are_as_reported():
    index = pd.read_csv(FIGSHARE, dtype={"pid": str})
    index["family"] = index["pid"].map(family)
    members = index.groupby("family")["pid"].nunique()
    assert (members[members > 1].size, members[members > 1].sum()) == (18, 42)
    assert index["pid"].str.startswith("MR").groupby(index["pid"]).any().sum() == 67
    assert index["fold"].value_counts().sort_index().tolist() == [570, 655, 562, 613, 664]
    parted = index.groupby("family")["fold"].nunique().gt(1)
    assert parted.sum() == 15
    audits = [audit(index, split(index, "official", fold)) for fold in FOLDS]
    assert sum(counted.loc["pid", "test_slices"] for counted in audits) == 0
    assert sum(counted.loc["family", "test_slices"] for counted in audits) == 652
    assert sum(audit(index, split(index, "family", fold))["both_sides"].sum() for fold in FOLDS) == 0
