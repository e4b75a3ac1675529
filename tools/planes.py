"""Classify the plane of every figshare slice: axial, coronal, sagittal or unknown.

    python tools/planes.py --images SLICES --index index.csv \\
        --out lib/braintumor/data/figshare.csv

SLICES holds the 3,064 slices upright as N.jpg; index.csv has the columns file, pid
and label. book/data.md has the results and their limits.

Method. A slice is scaled to 64 x 64 pixels and described by its histogram of oriented
gradients, which hardly depends on brightness. A multinomial logistic regression on the
standardized descriptors learns the plane from the training slices of planes_seen.csv.
The confidence threshold is the smallest of 0.50, 0.55, ... at which 99% of the held-out
slices that reach it are correct, in 5-fold cross-validation with patients grouped. A
slice below the threshold is unknown.

Labels (by one reader, an AI model that sees images, not a radiologist). Test: 150 of
the 3,064 slices by numpy.random.default_rng(20240501).choice, labeled before any
prediction was made. Training: 300 of the rest, sampled by seed, one of each of the 230
patients left and 70 more spread over the classes; then the 60 least confident slices of
the remainder after a first fit. In the table, training rows carry the label of the
reader; all others, test rows included, carry the prediction.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from skimage.feature import hog
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from braintumor.core.files import atomic_write

LABELED = Path(__file__).with_name("planes_seen.csv")
PLANES = np.array(["axial", "coronal", "sagittal"])  # the order of the model's classes
TARGET_ACCURACY = 0.99  # of the confident held-out slices


def compute_descriptor(path):
    """Return the histogram of oriented gradients of one slice."""
    with Image.open(path) as image:
        image = image.convert("L").resize((64, 64), Image.Resampling.BOX)
    pixels = np.asarray(image, float)
    pixels = np.clip(pixels / np.percentile(pixels, 99), 0, 1)
    return hog(pixels, orientations=8, pixels_per_cell=(8, 8), cells_per_block=(2, 2))


def choose_threshold(probability, y_true):
    """Return the smallest threshold that reaches the target accuracy."""
    confidence = probability.max(axis=1)
    is_correct = PLANES[probability.argmax(axis=1)] == y_true
    for threshold in np.arange(50, 100, 5) / 100:
        is_confident = confidence >= threshold
        if is_confident.any() and is_correct[is_confident].mean() >= TARGET_ACCURACY:
            return threshold
    raise SystemExit(
        f"threshold: none reaches an accuracy of {TARGET_ACCURACY:.0%}. "
        f"Label more slices in {LABELED.name}."
    )


def predict_planes(probability, threshold):
    """Return the plane of each row of probabilities, unknown below the threshold."""
    planes = PLANES[probability.argmax(axis=1)]
    return np.where(probability.max(axis=1) >= threshold, planes, "unknown")


def print_scores(name, y_true, y_pred):
    """Print the accuracy of the known slices and the confusion matrix."""
    is_correct = (y_pred == y_true)[y_pred != "unknown"]
    n_unknown = len(y_pred) - len(is_correct)
    print(f"\n{name}: {len(y_pred)} slices, {n_unknown} unknown")
    print(f"accuracy of the others: {is_correct.mean():.1%}")
    names = pd.Series(y_true, name="labeled"), pd.Series(y_pred, name="predicted")
    print(pd.crosstab(*names))


def classify_planes(table, images):
    """Return `table`, indexed by file, with the plane of each slice; print scores."""
    labeled = pd.read_csv(LABELED, dtype=str).set_index("file")
    train, test = (labeled.index[labeled["role"] == role] for role in ("train", "test"))
    features = pd.DataFrame(
        [compute_descriptor(images / f"{file}.jpg") for file in table.index],
        index=table.index,
    )
    model = LogisticRegression(C=0.01, max_iter=2000)
    model = make_pipeline(StandardScaler(), model)
    y_train, y_test = (labeled["plane"][rows].to_numpy() for rows in (train, test))
    held_out = cross_val_predict(
        model,
        features.loc[train],
        y_train,
        groups=table["pid"][train],
        cv=StratifiedGroupKFold(5, shuffle=True, random_state=0),
        method="predict_proba",
    )
    threshold = choose_threshold(held_out, y_train)
    print(f"threshold {threshold:.2f}")
    for limit in (0, threshold):
        name = f"cross-validation by patient, threshold {limit:.2f}"
        print_scores(name, y_train, predict_planes(held_out, limit))
    model.fit(features.loc[train], y_train)
    planes = predict_planes(model.predict_proba(features), threshold)
    table = table.assign(plane=planes)
    print_scores("test", y_test, table["plane"][test].to_numpy())
    table.loc[train, "plane"] = y_train
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--images", type=Path, required=True, help="folder of upright slices, N.jpg")
    add("--index", type=Path, required=True, help="CSV: file, pid, label")
    add("--out", type=Path, required=True, help="CSV to write: file,pid,label,plane")
    args = parser.parse_args()
    table = pd.read_csv(args.index, dtype=str)[["file", "pid", "label"]]
    table = classify_planes(table.set_index("file"), args.images)
    print(f"\n{table['plane'].value_counts().to_string()}")
    with atomic_write(args.out) as path:
        table.reset_index().to_csv(path, index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
