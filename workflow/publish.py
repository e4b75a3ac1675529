"""Publish a run: copy its tables to results/published/, its networks to models/.

    python workflow/publish.py RUN NAME               tables only
    python workflow/publish.py RUN NAME --data DATA   networks and OOD references too

RUN is a folder such as results/full-figshare; its tables go to results/published/NAME,
which report pages read. A published network is a .keras file that Keras loads; only the
type in which its weights are stored changes. Lab 4 rounds the weights to float16 before
it evaluates them, so nothing is lost.
"""

import argparse
import io
import json
import shutil
import zipfile
from pathlib import Path

import h5py
import jinja2
import keras
import numpy as np
import pandas as pd
from ood_reference import fit_ood_reference

from braintumor.core.files import ROOT, atomic_write, sha256
from braintumor.data.labels import LABELS
from braintumor.data.prepared import open_data
from braintumor.data.preprocessing import to_network_input
from braintumor.data.splits import make_split
from braintumor.evaluation.masks import expected_dice, threshold_by_expected_dice
from braintumor.evaluation.metrics import predict_classes
from braintumor.evaluation.scores import format_scores, load_predictions
from braintumor.inference.predictor import build_prediction_model

WEIGHTS = "model.weights.h5"  # Keras' name for them within the archive
CARD_SCORES = {
    "classify": (
        "accuracy by slice",
        "balanced accuracy by patient",
        "expected calibration error",
    ),
    "segment": ("mean Dice", "median Dice", "share of zero overlap"),
}


def publish_tables(run, name):
    """Copy the tables and records of a run; returns the folder they are in."""
    target = ROOT / "results" / "published" / name
    for path in sorted(run.rglob("*.*")):
        parts = path.relative_to(run).parts
        hidden = any(part.startswith(".") for part in parts)
        if path.suffix not in (".csv", ".json") or hidden or "pages" in parts:
            continue
        place = target.joinpath(*(p for p in parts if p not in ("joint", "single")))
        with atomic_write(place) as temporary:
            shutil.copyfile(path, temporary)
    return target


def publish_experiments(path, published):
    """Append the rows of a local experiment log to the published one."""
    log = published / "experiments.csv"
    if path.exists() and log.exists():
        rows = pd.concat([pd.read_csv(log), pd.read_csv(path)]).drop_duplicates()
        with atomic_write(log) as temporary:
            rows.to_csv(temporary, index=False)


def publish_networks(run, models):
    """Copy the joint networks of a run to `models`, with weights in float16."""
    for source in sorted((run / "joint" / "classify").glob("fold-*/model.keras")):
        target = models / f"{source.parent.name}.keras"
        with (
            atomic_write(target) as path,
            zipfile.ZipFile(source) as archive,
            zipfile.ZipFile(path, "w") as out,
        ):
            for item in archive.infolist():
                content = archive.read(item)
                if item.filename == WEIGHTS:
                    content = convert_weights(content)
                item.date_time = (1980, 1, 1, 0, 0, 0)
                item.compress_type = zipfile.ZIP_DEFLATED
                out.writestr(item, content)
        print(f"{target}: {target.stat().st_size / 1e6:.2f} MB")


def convert_weights(weights):
    """Convert the float32 arrays of an HDF5 file (bytes) to float16, compressed."""
    out = io.BytesIO()
    with h5py.File(io.BytesIO(weights)) as source, h5py.File(out, "w") as target:

        def copy(name, item):
            if isinstance(item, h5py.Group):
                copied = target.require_group(name)
            else:
                options = {}
                if item.dtype == "float32" and item.shape:
                    options = {"compression": "gzip", "shuffle": True}
                    options["dtype"] = "float16"
                copied = target.create_dataset(name, data=item[()], **options)
            copied.attrs.update(item.attrs)

        source.visititems(copy)
        target.attrs.update(source.attrs)
    return out.getvalue()


def publish_references(data, published, models):
    """Fit the OOD reference of each network on the slices that it was trained on."""
    for record in load_predictions(published, "classify")[1]:
        parameters = record["parameters"]
        prepared = open_data(data, parameters["image_size"])
        if prepared.info["digest"] != record["data"]["digest"]:
            raise SystemExit(f"{data}: holds other slices than {published} was made of")
        protocol, fold, seed = (parameters[k] for k in ("protocol", "fold", "seed"))
        split = make_split(prepared.index, protocol, fold, seed)
        path = models / f"fold-{fold}.keras"
        network = keras.models.load_model(path, compile=False)
        whole = build_prediction_model([network], parameters["image_size"])
        names = ("thumbnail", "features", "head_maps")
        model = keras.Model(whole.input, {name: whole.output[name] for name in names})
        parts = (
            predict_ood_inputs(model, prepared.images[rows])
            for rows in (split.train, split.validation)
        )
        with atomic_write(path.with_suffix(".npz")) as target:
            np.savez_compressed(
                target, network=sha256(path), **fit_ood_reference(*parts)
            )
        print(f"{path.with_suffix('.npz')}: written")


def predict_ood_inputs(model, images):
    """Predict what `fit_ood_reference` needs of slices (n, side, side) uint8."""
    outputs = model.predict(to_network_input(images), batch_size=16, verbose=0)
    maps = outputs["head_maps"][:, 0]
    dice = [expected_dice(m, threshold_by_expected_dice(m, len(m))) for m in maps]
    return {
        "thumbnail": outputs["thumbnail"],
        "features": outputs["features"][:, 0],
        "expected_dice": np.array(dice),
    }


def render_card(published, models):
    """Render the model card (Mitchell et al. 2019) of the networks in `models`."""
    table, records = load_predictions(published, "classify")
    masks, _ = load_predictions(published, "segment")
    is_correct = predict_classes(table) == table["y_true"]
    scores = json.loads((published / "scores.json").read_text())
    shown = {n: scores[task][n] for task, names in CARD_SCORES.items() for n in names}
    folds = [record["parameters"]["fold"] for record in records]
    paths = {fold: models / f"fold-{fold}.keras" for fold in folds}
    network = keras.models.load_model(paths[folds[0]], compile=False)
    template = (ROOT / "workflow" / "model_card.md.j2").read_text()
    return jinja2.Template(template, keep_trailing_newline=True).render(
        run=published.relative_to(ROOT),
        parameters=f"{network.count_params() / 1e6:.2f}",
        image_size=records[0]["parameters"]["image_size"],
        slices=f"{len(table):,}",
        patients=table["pid"].nunique(),
        scores=list(format_scores(shown).itertuples()),
        lowest_recall=LABELS[is_correct.groupby(table["y_true"]).mean().idxmin()],
        lowest_dice=LABELS[masks.groupby("y_true")["dice"].mean().idxmin()],
        files=[(p.name, fold, sha256(p)[:16]) for fold, p in paths.items()],
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("name", help="its name below results/published")
    parser.add_argument("--data", help="slices of the run: publish the networks too")
    args = parser.parse_args()
    published, models = publish_tables(args.run, args.name), ROOT / "models"
    publish_experiments(ROOT / "results" / "experiments.csv", published)
    if args.data:
        publish_networks(args.run, models)
        publish_references(args.data, published, models)
        with atomic_write(models / "README.md") as path:
            path.write_text(render_card(published, models))


if __name__ == "__main__":
    main()
