"""Cross-validation splits and their audit for leakage."""

import math
import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from braintumor.core.errors import DatasetError, LeakageError, ParameterError
from braintumor.data.labels import LABELS

FOLDS = (1, 2, 3, 4, 5)
GROUP_COLUMNS = {  # of the protocols: slices of one group are in one fold
    "official": "pid",  # the dataset's folds (cvind)
    "family": "family",  # identifiers that differ in a last letter stay together
    "slice": None,  # at random, as in the original study: patients leak
    "source": "pid",  # the dataset's folds, trained without the source "MR"
}


@dataclass(frozen=True)
class Split:
    """Row positions of the three parts, as ascending int arrays."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def parts(self):
        """Return a dict from the name to the row positions of each part."""
        return dict(vars(self))


def patient_family(pid):
    """Return `pid` without a last letter, as MR040240 of MR040240B."""
    return re.sub(r"(?<=^MR\d{6})[A-Z]$", "", pid)


def patient_source(pid):
    """Infer the source of a patient, "MR" or "digits", from the kind of identifier."""
    return "MR" if pid.startswith("MR") else "digits"


def _split_rows(table, column, n_parts, seed):
    """Yield (other rows, part) of each part; groups of `column` stay whole."""
    from sklearn.model_selection import KFold, StratifiedGroupKFold  # takes a second

    if column is None:
        return KFold(n_parts, shuffle=True, random_state=seed).split(table)
    n_groups = table.groupby("label")[column].nunique()
    if n_groups.min() < n_parts:
        got = f"{LABELS[n_groups.idxmin()]}: got {n_groups.min()} patients"
        raise DatasetError(f"{got}, expected {n_parts} or more. Add patients.")
    splitter = StratifiedGroupKFold(n_parts, shuffle=True, random_state=seed)
    return splitter.split(table, table["label"], table[column])


def assign_folds(index, protocol, seed=0):
    """Return the fold (1 to 5) of each row of `index` as an int array."""
    if protocol in ("official", "source"):
        return index["fold"].to_numpy()
    folds = np.zeros(len(index), int)
    parts = _split_rows(index, GROUP_COLUMNS[protocol], len(FOLDS), seed)
    for fold, (_, rows) in enumerate(parts, 1):
        folds[rows] = fold
    return folds


def make_split(index, protocol, fold, seed=0, validation=0.15):
    """Split an index for testing on one fold.

    Parameters
    ----------
    index : DataFrame with pid, family, label and fold, a row per slice
    protocol : "official", "family", "slice" or "source", see `GROUP_COLUMNS`
    fold : int, 1 to 5, the test fold
    seed : int, of the folds that are not given and of the validation part
    validation : float, share of the groups of the other folds for validation

    Returns
    -------
    Split

    Raises
    ------
    LeakageError
        If a patient or family would be in two parts.
    DatasetError
        If there are too few patients or slices.
    """
    from sklearn.model_selection import train_test_split

    folds = assign_folds(index, protocol, seed)
    if fold not in folds:
        raise ParameterError(f"fold: got {fold}, expected one of {np.unique(folds)}")
    is_trained = folds != fold
    if protocol == "source":
        is_trained &= index["pid"].map(patient_source).ne("MR").to_numpy()
    test, rest = np.flatnonzero(folds == fold), np.flatnonzero(is_trained)
    table, column = index.iloc[rest], GROUP_COLUMNS[protocol]
    shared = set(table[column]) & set(index[column].iloc[test]) if column else ()
    if shared:
        problem = f"got {', '.join(sorted(shared)[:5])} in fold {fold} and another"
        expected = f"every {column} in one fold. Correct the folds"
        raise LeakageError(f"{protocol} folds: {problem}, expected {expected}.")
    if column is None:
        labels = table["label"]
        n_min = math.floor((labels.nunique() - 1) / validation) + 1  # rounded up
        if len(rest) < n_min or labels.value_counts().min() < 2:
            got = f"{len(rest)} slices outside fold {fold}"
            expected = f"{n_min} or more, 2 or more of each label. Add slices"
            raise DatasetError(f"slice folds: got {got}, expected {expected}.")
        train, validation = train_test_split(
            rest, test_size=validation, stratify=labels, random_state=seed
        )
        return Split(np.sort(train), np.sort(validation), test)
    n_rarest = table.groupby("label")[column].nunique().min()
    n_parts = max(2, min(round(1 / validation), n_rarest))  # fewer in a small set
    train, validation = next(_split_rows(table, column, n_parts, seed))
    return Split(rest[train], rest[validation], test)


def audit_leakage(index, split):
    """Count patients and families in both the test part and another part.

    Returns
    -------
    DataFrame : rows pid and family; columns n_shared (groups), n_test_slices and
        test_fraction (of the test slices, which belong to a shared group)
    """
    rest = index.iloc[np.concatenate([split.train, split.validation])]
    test = index[["pid", "family"]].iloc[split.test]
    is_shared = test.apply(lambda column: column.isin(rest[column.name]))
    columns = dict(n_shared=test[is_shared].nunique(), n_test_slices=is_shared.sum())
    table = pd.DataFrame(columns | dict(test_fraction=is_shared.mean()))
    return table.rename_axis("group")
