"""Cross-validation splits and their audit for leakage.

The protocols, from the strictest to the most common one in papers on this dataset:

family    five folds; identifiers that differ in a last letter stay together
official  the dataset's own five folds (cvind), which group slices by identifier
slice     slices at random, as in the original study: patients leak

scikit-learn is imported on use: it takes a second, and worker processes that read
slices do without.
"""

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from braintumor.core.errors import DatasetError, LeakageError, ParameterError

PROTOCOLS = ("official", "family", "slice")
FOLDS = (1, 2, 3, 4, 5)
GROUP_COLUMNS = {"official": "pid", "family": "family"}
N_EXPORTED = 3000  # the original study's export stopped after this file
ORIGINAL_SPLITS = {  # numbers of training, validation and test slices
    "single": (2184, 458, 358),
    "ensemble": (2400, 299, 301),
}


@dataclass(frozen=True)
class Split:
    """Row positions of the three parts, as ascending int arrays."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def parts(self):
        """Return a dict from the name to the row positions of each part."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def patient_family(pid):
    """Return `pid` without a last letter: MR040240B and MR040240 are one family.

    The dataset does not document whether a family is one person. 18 families hold 42
    of its 67 MR identifiers.
    """
    return re.sub(r"(?<=^MR\d{6})[A-Z]$", "", pid)


def make_grouped_folds(labels, groups, seed):
    """Assign folds 1 to 5, stratified by class, with whole groups in one fold.

    Returns an int array (n,). Raises DatasetError if a class has fewer than 5 groups.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    labels, groups = np.asarray(labels), np.asarray(groups)
    for label in np.unique(labels):
        n_groups = len(set(groups[labels == label]))
        if n_groups < len(FOLDS):
            raise DatasetError(f"label {label}: got {n_groups} patients, expected 5")
    splitter = StratifiedGroupKFold(len(FOLDS), shuffle=True, random_state=seed)
    return _number_folds(splitter.split(labels, labels, groups), len(labels))


def _number_folds(splits, n_rows):
    folds = np.zeros(n_rows, int)
    for fold, (_, test) in zip(FOLDS, splits, strict=True):
        folds[test] = fold
    return folds


def assign_folds(index, protocol, seed=0):
    """Return the fold (1 to 5) of each row of `index` as an int array."""
    from sklearn.model_selection import KFold

    if protocol == "official":
        return index["fold"].to_numpy()
    if protocol == "family":
        return make_grouped_folds(index["label"], index["family"], seed)
    if protocol == "slice":
        splitter = KFold(len(FOLDS), shuffle=True, random_state=seed)
        return _number_folds(splitter.split(index), len(index))
    raise ParameterError(
        f"protocol: got {protocol!r}, expected one of {', '.join(PROTOCOLS)}"
    )


def make_split(index, protocol, fold, seed=0, validation=0.15):
    """Split an index for testing on one fold.

    Parameters
    ----------
    index : DataFrame
        Index of a prepared set; columns pid, family, label, fold.
    protocol : str
        One of PROTOCOLS.
    fold : int
        Test fold.
    seed : int
    validation : float
        Approximate fraction of the other folds for validation, stratified by class,
        in whole patients (official) or families (family).

    Returns
    -------
    Split

    Raises
    ------
    LeakageError
        If a patient or family is in two parts, against the protocol.
    """
    from sklearn.model_selection import train_test_split

    folds = assign_folds(index, protocol, seed)
    if fold not in folds:
        raise ParameterError(
            f"fold: got {fold}, expected one of {sorted(set(folds.tolist()))}"
        )
    test, rest = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
    labels = index["label"].to_numpy()[rest]
    if protocol == "slice":
        parts = train_test_split(
            rest, test_size=validation, stratify=labels, random_state=seed
        )
        return Split(np.sort(parts[0]), np.sort(parts[1]), test)
    groups = index[GROUP_COLUMNS[protocol]].to_numpy()[rest]
    parts = _split_groups(labels, groups, fold, seed, validation)
    split = Split(np.sort(rest[parts[0]]), np.sort(rest[parts[1]]), test)
    _check_leakage(index, split, protocol)
    return split


def _split_groups(labels, groups, fold, seed, validation):
    """Return positions for training and validation, in whole groups."""
    from sklearn.model_selection import StratifiedGroupKFold

    n_rarest = min(len(set(groups[labels == label])) for label in set(labels))
    if n_rarest < 2:
        raise DatasetError(
            f"fold {fold}: a class has {n_rarest} patient to train on, expected 2 or "
            "more. Add patients."
        )
    # in a small set, one patient of the rarest class validates
    n_parts = min(round(1 / validation), n_rarest)
    splitter = StratifiedGroupKFold(n_parts, shuffle=True, random_state=seed)
    return next(splitter.split(labels, labels, groups))


def _check_leakage(index, split, protocol):
    column = GROUP_COLUMNS[protocol]
    groups = {
        part: set(index[column].iloc[rows]) for part, rows in split.parts().items()
    }
    for a, b in (("train", "test"), ("validation", "test"), ("train", "validation")):
        if shared := sorted(groups[a] & groups[b]):
            names = ", ".join(shared[:5])
            raise LeakageError(
                f"{protocol} folds: {column} {names} is in {a} and {b}, expected every "
                f"{column} in one part. Correct the folds."
            )


def make_original_split(index, name, seed, n_exported=N_EXPORTED):
    """Split slices at random in the proportions of the original study.

    Its random numbers are not published. Both splits (`name` is a key of
    ORIGINAL_SPLITS) come from one permutation, so the test slices of "ensemble" are
    among those of "single". Files after `n_exported` are left out; None takes all.
    """
    if name not in ORIGINAL_SPLITS:
        expected = ", ".join(ORIGINAL_SPLITS)
        raise ParameterError(f"split: got {name!r}, expected one of {expected}")
    rows = np.arange(len(index))
    if n_exported is not None:
        rows = np.flatnonzero(index["file"] <= n_exported)
    if len(rows) < 10:
        raise DatasetError(f"split: got {len(rows)} slices, expected 10 or more")
    counts = ORIGINAL_SPLITS[name]
    n_train, _, n_test = (round(count * len(rows) / N_EXPORTED) for count in counts)
    rows = np.random.default_rng(seed).permutation(rows)
    train, validation, test = np.split(rows, [n_train, len(rows) - n_test])
    return Split(np.sort(train), np.sort(validation), np.sort(test))


def audit_leakage(index, split):
    """Count patients and families of the test part that are in another part, too.

    Returns a DataFrame with the rows pid and family and the columns n_shared,
    n_test_slices (their slices in the test part) and test_fraction (of all slices).
    """
    rows = []
    for column in ("pid", "family"):
        values = index[column].to_numpy()
        others = np.concatenate([values[split.train], values[split.validation]])
        is_shared = np.isin(values[split.test], others)
        row = {
            "group": column,
            "n_shared": len(set(values[split.test][is_shared])),
            "n_test_slices": is_shared.sum(),
            "test_fraction": is_shared.mean(),
        }
        rows.append(row)
    return pd.DataFrame(rows).set_index("group")
