"""Give every figshare slice its plane: axial, coronal, sagittal or unknown.

    python tools/planes.py --images SLICES --index index.csv --out lib/braintumor/data/figshare.csv

figshare does not say in which plane a slice was cut, so it is read off the picture. SLICES holds the 3,064
slices upright as N.jpg; index.csv has the columns file, pid and label.

Method. A slice is scaled to 64 x 64 pixels and described by its histogram of oriented gradients (8
orientations, 8 x 8 pixels a cell, 2 x 2 cells a block), which hardly depends on brightness. A multinomial
logistic regression on the standardised descriptors learns the plane from the training slices of
planes_seen.csv, labelled by eye. In a five-fold cross-validation each patient's slices are held out together;
the threshold is the smallest of 0.50, 0.55, ... at which 99 % of the held-out slices that reach it are right.
A slice whose highest probability is below it is unknown. Patients are not smoothed over: most have slices in
several planes.

Slices looked at (by one reader, an AI model that sees images, not a radiologist; every one could be told).
Test: 150 of the 3,064 by numpy.random.default_rng(20240501).choice, labelled before any prediction was made.
Training: 300 of the rest, drawn by seed, one of each of the 230 patients left and 70 more spread over the
classes; then the 60 of the remainder of which a first fit was least sure, so the cross-validation leans
to the hard ones.

In the table the training rows carry the eye's label; all others, the test rows among them, carry the method's
own, so the test's figures describe the rows nobody looked at. Limits: most patients of test slices have
training slices too, so for new patients only the cross-validation speaks. An oblique cut counts as the
nearest plane. Every slice looked at was upright and every sagittal one faced left: one turned otherwise may
be misread.

Checked afterwards, with the answers known and without changing anything: in the order of the file numbers,
which the method does not see, the planes form only 26 unbroken runs; the slices on both sides of every
change, and the 40 least sure slices not looked at before, are all right.
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

from braintumor.core.files import atomic

SEEN = Path(__file__).with_name("planes_seen.csv")
PLANES = np.array(["axial", "coronal", "sagittal"])  # in the order of the classifier's classes
RIGHT = 0.99  # share of the confident held-out slices that must be right


def descriptor(path):
    """Return the histogram of oriented gradients of one slice."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("L").resize((64, 64), Image.Resampling.BOX), float)
    pixels = np.clip(pixels / np.percentile(pixels, 99), 0, 1)
    return hog(pixels, orientations=8, pixels_per_cell=(8, 8), cells_per_block=(2, 2))


def choose_threshold(probability, plane):
    """Return the smallest threshold at which RIGHT of the slices that reach it are right."""
    confidence, right = probability.max(1), PLANES[probability.argmax(1)] == plane
    for threshold in np.arange(50, 100, 5) / 100:
        sure = confidence >= threshold
        if sure.any() and right[sure].mean() >= RIGHT:
            return threshold
    raise SystemExit(f"no threshold makes {RIGHT:.0%} of the confident slices right: label more slices")


def decide(probability, threshold):
    """Return the plane of each row of `probability`, unknown below the threshold."""
    return np.where(probability.max(1) >= threshold, PLANES[probability.argmax(1)], "unknown")


def report(name, plane, said):
    """Print how often `said` is right, and the confusion matrix."""
    known = said != "unknown"
    right = (said == plane)[known]
    print(f"\n{name}: {len(said)} slices, {(~known).sum()} unknown")
    print(f"of the other {len(right)}, {right.sum()} are right ({right.mean():.1%})")
    print(pd.crosstab(pd.Series(plane, name="by eye"), pd.Series(said, name="method")))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="folder of the upright slices, N.jpg")
    parser.add_argument("--index", type=Path, required=True, help="table with the columns file, pid, label")
    parser.add_argument("--out", type=Path, required=True, help="table to write: file,pid,label,plane")
    args = parser.parse_args()

    table = pd.read_csv(args.index, dtype=str)[["file", "pid", "label"]].set_index("file")
    seen = pd.read_csv(SEEN, dtype=str).set_index("file")
    train, test = (seen.index[seen.role == role] for role in ("train", "test"))
    features = [descriptor(args.images / f"{file}.jpg") for file in table.index]
    features = pd.DataFrame(features, index=table.index)

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    plane = seen.plane[train].to_numpy()
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    held_out = cross_val_predict(
        model, features.loc[train], plane, groups=table.pid[train], cv=folds, method="predict_proba"
    )
    threshold = choose_threshold(held_out, plane)
    print(f"threshold {threshold:.2f}")
    report("cross-validation by patient, no threshold", plane, decide(held_out, 0))
    report("cross-validation by patient, threshold", plane, decide(held_out, threshold))

    model.fit(features.loc[train], plane)
    table["plane"] = decide(model.predict_proba(features), threshold)
    report("test", seen.plane[test].to_numpy(), table.plane[test].to_numpy())
    table.loc[train, "plane"] = plane
    print(f"\n{table.plane.value_counts().to_string()}")
    with atomic(args.out) as temporary:
        table.reset_index().to_csv(temporary, index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
