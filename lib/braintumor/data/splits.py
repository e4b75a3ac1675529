"""Who is trained on, who is validated on, who is tested on; and who stands on two sides.

Three protocols, from the strictest to the one that most papers on this dataset use:

family    identifiers that differ by a last letter only (MR040240, MR040240B) stay together, in five folds
official  the dataset's own five folds (cvind), which keep an identifier's slices together
slice     slices at random, as in the original study: patients stand on both sides

and, by name, the original study's own random splits.

scikit-learn is imported where it is needed: it takes a second, and the processes that only read slices do without.
"""

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from braintumor.core.errors import DatasetError, LeakageError, ParameterError

PROTOCOLS = ("official", "family", "slice")
FOLDS = (1, 2, 3, 4, 5)
EXPORTED = 3000  # the original study's export stopped after this file
ORIGINAL = {  # its slices for training, validation and test
    "single": (2184, 458, 358),
    "ensemble": (2400, 299, 301),
}


@dataclass(frozen=True)
class Split:
    """Row positions (int arrays, ascending) of the three parts of one fold."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def parts(self):
        """Name and row positions of each part."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def family(pid):
    """The identifier without a last letter: MR040240B and MR040240 are the family MR040240.

    Whether a family is one person is not documented; 18 of them hold 42 of the dataset's 67 MR identifiers.
    """
    return re.sub(r"(?<=^MR\d{6})[A-Z]$", "", pid)


def grouped_folds(labels, groups, seed):
    """Fold (1 to 5) of each row, whole groups together, balanced by class: int array.

    Raises DatasetError if a class has fewer than five groups: then some fold would lack it.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    labels, groups = np.asarray(labels), np.asarray(groups)
    for label in np.unique(labels):
        if (count := len(set(groups[labels == label]))) < len(FOLDS):
            raise DatasetError(f"label {label} has {count} patients or families; 5 folds need at least 5")
    folds = np.zeros(len(labels), int)
    splitter = StratifiedGroupKFold(len(FOLDS), shuffle=True, random_state=seed)
    for fold, (_, test) in zip(FOLDS, splitter.split(labels, labels, groups), strict=True):
        folds[test] = fold
    return folds


def folds(index, protocol, seed=0):
    """Fold (1 to 5) of each row of `index` under `protocol`: int array."""
    from sklearn.model_selection import KFold

    if protocol == "official":
        return index["fold"].to_numpy()
    if protocol == "family":
        return grouped_folds(index["label"], index["family"], seed)
    if protocol == "slice":
        assigned = np.zeros(len(index), int)
        for fold, (_, test) in zip(FOLDS, KFold(len(FOLDS), shuffle=True, random_state=seed).split(index), strict=True):
            assigned[test] = fold
        return assigned
    raise ParameterError(f"protocol {protocol!r}: expected one of {', '.join(PROTOCOLS)}")


def split(index, protocol, fold, seed=0, validation=0.15):
    """Split for testing on `fold`; about `validation` of the rest, balanced by class, chooses settings and epochs.

    Validation is made of whole patients (official) or families (family), never of the test fold; by slice it is
    slices. Raises LeakageError if a patient, or a family, would stand on two sides where the protocol
    promises otherwise, ParameterError for a fold that is not there, DatasetError for too few patients.
    """
    from sklearn.model_selection import StratifiedGroupKFold, train_test_split

    assigned = folds(index, protocol, seed)
    if fold not in assigned:
        raise ParameterError(f"fold {fold}: expected one of {sorted(set(assigned.tolist()))}")
    test, rest = np.flatnonzero(assigned == fold), np.flatnonzero(assigned != fold)
    labels = index["label"].to_numpy()[rest]
    if protocol == "slice":
        train, held_out = train_test_split(rest, test_size=validation, stratify=labels, random_state=seed)
    else:
        groups = index["pid" if protocol == "official" else "family"].to_numpy()[rest]
        # a small set has fewer patients than 1 / validation: then one of the patients of its rarest class validates
        rarest = min(len(set(groups[labels == label])) for label in set(labels))
        if rarest < 2:
            raise DatasetError(
                f"fold {fold}: a class has {rarest} patient to train on; expected 2, one of them to validate"
            )
        parts = StratifiedGroupKFold(min(round(1 / validation), rarest), shuffle=True, random_state=seed)
        kept, held = next(parts.split(rest, labels, groups))
        train, held_out = rest[kept], rest[held]
    made = Split(np.sort(train), np.sort(held_out), test)
    if protocol != "slice":
        _refuse_leakage(index, made, "pid" if protocol == "official" else "family", protocol)
    return made


def original(index, name, seed, exported=EXPORTED):
    """The original study's split of slices at random: Split.

    `name` is "single" (its single CNN: 2,184 slices to train, 458 to validate, the other 358 to test) or "ensemble"
    (2,400 to train, 301 to test, the other 299 to validate). Files after number `exported` are left out, as
    in its export; None takes all. Where that leaves other than 3,000 slices, the proportions are the same.
    Its random numbers are not known: `seed` draws a split of the same sizes, both names from one shuffled row, so that
    the test slices of "ensemble" are among those of "single", and none of them trains the other. Raises ParameterError
    for another name, DatasetError for under ten slices.
    """
    if name not in ORIGINAL:
        raise ParameterError(f"split {name!r}: expected one of {', '.join(ORIGINAL)}")
    rows = np.arange(len(index)) if exported is None else np.flatnonzero(index["file"] <= exported)
    if len(rows) < 10:
        raise DatasetError(f"{len(rows)} slices to split; expected 10 or more")
    train, _, test = (round(count * len(rows) / EXPORTED) for count in ORIGINAL[name])
    rows = np.random.default_rng(seed).permutation(rows)
    parts = rows[:train], rows[train : len(rows) - test], rows[len(rows) - test :]
    return Split(*map(np.sort, parts))


def _refuse_leakage(index, made, column, protocol):
    seen = {name: set(index[column].iloc[rows]) for name, rows in made.parts().items()}
    for one, other in (("train", "test"), ("validation", "test"), ("train", "validation")):
        if shared := sorted(seen[one] & seen[other]):
            raise LeakageError(
                f"{protocol} folds: {column} {', '.join(shared[:5])} stands in both {one} and {other}; "
                "expected every patient on one side"
            )


def audit(index, made):
    """Count who stands on two sides of a Split: one row for pid and one for family.

    Columns: both_sides (how many stand in the test part and in training or validation), test_slices (how many test
    slices are theirs) and share (of all test slices).
    """
    rows = []
    for column in ("pid", "family"):
        values = index[column].to_numpy()
        seen = set(values[made.train]) | set(values[made.validation])
        leaked = np.isin(values[made.test], list(seen))
        both = set(values[made.test][leaked])
        rows.append({"of": column, "both_sides": len(both), "test_slices": leaked.sum(), "share": leaked.mean()})
    return pd.DataFrame(rows).set_index("of")
