"""Make models/ from a finished run of notebook 08: its networks with weights of 16 bits, what tells images that are
foreign to them, and their card.

python workflow/publish_models.py DATA [RUN]    DATA: the run's slices; RUN: its folder, default results/full

An archive stays one that keras.models.load_model reads, without running foreign code: only the type in which its
weights are stored changes. They become 32 bits again when it is loaded; since notebook 08 has rounded them to 16 bits
before it scored them, nothing is lost.
"""

import io
import json
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np

from braintumor.core.files import ROOT, atomic
from braintumor.data import splits
from braintumor.data.prepared import LABELS, open_data
from braintumor.evaluation import scores as evaluate
from braintumor.evaluation.masks import dice_mask
from braintumor.inference import ood
from braintumor.inference import predictor as inference
from braintumor.training.augmentation import as_input

WEIGHTS = "model.weights.h5"  # Keras' own name for them within the archive
HEADLINE = {
    "classify": ["accuracy by slice", "balanced accuracy by patient", "expected calibration error"],
    "segment": ["mean Dice", "median Dice", "share without overlap"],
}


def halved(weights):
    """A weights file (bytes of HDF5) with its float32 arrays as float16, compressed: bytes."""
    out = io.BytesIO()
    with h5py.File(io.BytesIO(weights)) as source, h5py.File(out, "w") as target:

        def copy(name, found):
            if isinstance(found, h5py.Group):
                made = target.require_group(name)
            else:
                small = found.dtype == "float32" and found.shape
                options = {"dtype": "float16", "compression": "gzip", "shuffle": True} if small else {}
                made = target.create_dataset(name, data=found[()], **options)
            made.attrs.update(found.attrs)

        source.visititems(copy)
        target.attrs.update(source.attrs)
    return out.getvalue()


def publish(run):
    """Write the networks of the finished folds of `run`, a folder under the project, to models/."""
    for source in sorted((ROOT / Path(run) / "classify").glob("fold-*/model.keras")):
        target = ROOT / "models" / f"{source.parent.name}.keras"
        with atomic(target) as path, zipfile.ZipFile(source) as archive, zipfile.ZipFile(path, "w") as out:
            for item in archive.infolist():
                content = archive.read(item)
                item.date_time, item.compress_type = (1980, 1, 1, 0, 0, 0), zipfile.ZIP_DEFLATED
                out.writestr(item, halved(content) if item.filename == WEIGHTS else content)
        print(f"{target.relative_to(ROOT)}: {target.stat().st_size / 1e6:.2f} MB")


def publish_references(data, run, models="models"):
    """Write what `ood.scores` needs of each network to fold-K.npz, from the slices it learned and validated on."""
    for record in evaluate.gather(run, "classify")[1]:
        given = record["parameters"]
        prepared = open_data(data, given["image_size"])
        if prepared.about["digest"] != record["data"]["digest"]:
            raise SystemExit(f"{data}: holds other slices than {run} was made from")
        parts = splits.split(prepared.index, given["protocol"], given["fold"], given["seed"])
        path = ROOT / models / f"fold-{given['fold']}.keras"
        whole = inference.ensemble([keras.models.load_model(path, compile=False)], (1.0,))
        model = keras.Model(whole.input, {name: whole.output[name] for name in ("picture", "features", "own")})
        learned, validation = (said(model, prepared.images[rows]) for rows in (parts.train, parts.validation))
        with atomic(path.with_suffix(".npz")) as target:
            np.savez_compressed(target, network=inference.sha256(path), **ood.fit(learned, validation))
        print(f"{path.stem}.npz: {path.with_suffix('.npz').stat().st_size / 1e6:.2f} MB")


def said(model, images):
    """What `ood.fit` wants to know of slices (n, side, side) uint8."""
    found = model.predict(as_input(images), batch_size=16, verbose=0)
    expected = [inference.expected_dice(one, dice_mask(one, len(one))) for one in found["own"][:, 0]]
    return {"picture": found["picture"], "features": found["features"][:, 0], "expected_dice": np.array(expected)}


def card(run, models="models"):
    """The model card (Mitchell et al. 2019) of the networks in `models`, with the scores of `run` in scores.json."""
    table, records = evaluate.gather(run, "classify")
    masks, _ = evaluate.gather(run, "segment")
    drawn = masks.groupby("label")["dice"].mean()
    scores = json.loads((ROOT / run / "scores.json").read_text())
    paths = {ROOT / models / f"fold-{record['parameters']['fold']}.keras": record for record in records}
    parameters = keras.models.load_model(next(iter(paths)), compile=False).count_params()
    shown = evaluate.score_table({name: scores[task][name] for task, names in HEADLINE.items() for name in names})
    lines = [f"| {name} | {value} | {interval} |" for name, value, interval in shown.itertuples()]
    files = [
        f"| `{path.name}` | {record['parameters']['fold']} | {record['digest'][:12]} | {inference.sha256(path)[:16]} |"
        for path, record in paths.items()
    ]
    return CARD.format(
        parameters=f"{parameters / 1e6:.2f} million",
        side=records[0]["parameters"]["image_size"],
        slices=f"{len(table):,}",
        patients=table["pid"].nunique(),
        run=run,
        scores="\n".join(lines),
        named=evaluate.class_scores(table)["recall"].idxmin().capitalize(),
        drawn=LABELS[drawn.idxmin()],
        files="\n".join(files),
    )


CARD = """\
# Model card: five networks for brain tumors on MRI slices

Written by `workflow/publish_models.py`; the figures are those of `{run}`.

## What they are

Five networks of one making, one for each of the dataset's official folds: `fold-K.keras` was trained on the patients
of the other four, of whom one in seven only chose the epoch that was kept. Each has {parameters} parameters and takes a
contrast-enhanced T1-weighted MRI slice of the head; it finds the head, answers the slice and its mirror image, and
gives as their mean

- `classify`: the probabilities of meningioma, glioma and pituitary tumor,
- `segment`: for each pixel the probability that it is tumor, the mean also over three squares around the head. The mask
  is cut from it by `braintumor.evaluation.masks.dice_mask`; it always draws something, tumor or not.

`fold-K.npz` belongs to `fold-K.keras`: it tells images that are unlike the slices it learned from
(`braintumor.inference.ood`).
`braintumor predict` asks all five about an image, with one square each. That mean was never scored, and cannot be on
this dataset: up to four of the five learned from any of its patients. The scores below are of single networks, each on
the patients it never saw; `braintumor predict --held-out` answers so.

Notebook `08_both` builds and trains them, and tells why they are as they are. Weights are stored in 16 bits.

```python
import keras
from braintumor.data.prepared import scaled, slice_by_number
from braintumor.training.augmentation import as_input
from braintumor.evaluation.masks import dice_mask

model = keras.models.load_model("models/fold-1.keras", compile=False)
image = slice_by_number("data/figshare", 1).image  # upright, any size and intensities
answer = model.predict(as_input(scaled(image, {side})[None]))
mask = dice_mask(answer["segment"][0, ..., 0], len(image))
```

## What they are for, and what not

For teaching, and to check and repeat this study. **They are not a medical device.** Do not use them for diagnosis: they
name a tumor on every slice, on healthy ones too; they know three kinds of tumor and no other finding; they have seen
slices of one collection that were chosen because a tumor is on them, from two hospitals and no other scanner.

## What they were trained and tested on

The {slices} slices of {patients} patients of Cheng, Jun (2017): brain tumor dataset, figshare, doi
10.6084/m9.figshare.1512427, CC BY 4.0, from an 8-bit JPEG copy of its 16-bit files. Age, sex and ethnicity of the
patients are not recorded, so fairness between groups cannot be told.

## How well they do

Each slice is answered once, by the network that never saw its patient. 95 % intervals by bootstrap over patients.

| score | value | 95 % interval |
| --- | --- | --- |
{scores}

{named} slices are named worst, {drawn} slices drawn worst: the book's pages *The published scores in full*
and *Where it fails* have the scores by class, plane and size, the worst slices by number, and what they have in common.
Some identifiers may be one person's, and the official folds divide most such families. How the same settings do on
folds that keep them together is on the book's page *The published run*.
To see which network may answer a slice without having learned it, look up its patient's fold.

## Files

| file | held-out fold | digest of its run | SHA-256 |
| --- | --- | --- | --- |
{files}

`python workflow/rescore.py DATA` scores them anew and compares. License: CC BY 4.0, The braintumor maintainers;
name the dataset's authors too.
"""


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    data, run = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "results/full"
    publish(run)
    publish_references(data, run)
    with atomic(ROOT / "models" / "README.md") as path:
        path.write_text(card(run))
