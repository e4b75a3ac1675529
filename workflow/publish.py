"""Publish a run: copy its tables to results/published/, its networks to models/.

    python workflow/publish.py RUN NAME               tables only
    python workflow/publish.py RUN NAME --data DATA   networks and OOD references too

RUN is a folder such as results/full-figshare; its tables go to results/published/NAME,
which report pages read. A published network is an ONNX file; its weights are stored in
float16. Lab 4 rounds them so before it evaluates them, so nothing is lost.
"""

import argparse
import json
import shutil
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
from export_onnx import export_networks
from ood_reference import fit_ood_reference

from braintumor.core.files import ROOT, atomic_write, sha256
from braintumor.data.labels import LABELS
from braintumor.data.prepared import open_data
from braintumor.data.splits import make_split
from braintumor.evaluation.masks import expected_dice, threshold_by_expected_dice
from braintumor.evaluation.metrics import predict_classes
from braintumor.evaluation.scores import format_scores, load_predictions
from braintumor.inference.predictor import (
    OnnxNetwork,
    find_networks,
    held_out_fold,
    make_thumbnails,
    merge_views,
    network_name,
)
from braintumor.models.joint import build_from_parameters
from braintumor.models.tta import predict_views

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


def load_records(published):
    """Load the run.json of each network of a run: {name of the network: record}."""
    paths = sorted(published.rglob("classify/fold-*/run.json"))
    records = [json.loads(path.read_text()) for path in paths]
    single = [record for record in records if "networks" not in record]
    return {network_name(record["parameters"]): record for record in single}


def publish_references(data, published, models):
    """Fit the OOD reference of each network on the slices that it was trained on."""
    for name, record in load_records(published).items():
        parameters = record["parameters"]
        prepared = open_data(data, parameters["image_size"])
        if prepared.info["digest"] != record["data"]["digest"]:
            raise SystemExit(f"{data}: holds other slices than {published} was made of")
        protocol, fold, seed = (parameters[k] for k in ("protocol", "fold", "seed"))
        split = make_split(prepared.index, protocol, fold, seed)
        path = models / f"{name}.onnx"
        network = OnnxNetwork(path)
        parts = (
            predict_ood_inputs(network, prepared.images[rows])
            for rows in (split.train, split.validation)
        )
        with atomic_write(path.with_suffix(".npz")) as target:
            np.savez_compressed(
                target, network=sha256(path), **fit_ood_reference(*parts)
            )
        print(f"{path.with_suffix('.npz')}: written")


def predict_ood_inputs(network, images):
    """Predict what `fit_ood_reference` needs of slices (n, side, side) uint8."""
    x = images / np.float32(255)
    outputs = predict_views(network, x, network.crop_size, zooms=(1.0,))
    maps = [merge_views(views[..., 0]) for views in outputs["segment"]]
    dice = [expected_dice(m, threshold_by_expected_dice(m, len(m))) for m in maps]
    return {
        "thumbnail": make_thumbnails(outputs["crop"]),
        "features": outputs["features"][:, 0],
        "expected_dice": np.array(dice),
    }


def render_card(published, models):
    """Render the model card (Mitchell et al. 2019) of the networks in `models`."""
    table, _ = load_predictions(published, "classify")
    masks, _ = load_predictions(published, "segment")
    is_correct = predict_classes(table) == table["y_true"]
    scores = json.loads((published / "scores.json").read_text())
    shown = {n: scores[task][n] for task, names in CARD_SCORES.items() for n in names}
    paths = find_networks(directory=models)
    records = load_records(published)
    parameters = {name: record["parameters"] for name, record in records.items()}
    template = (ROOT / "workflow" / "model_card.md.j2").read_text()
    return jinja2.Template(template, keep_trailing_newline=True).render(
        run=published.relative_to(ROOT),
        slices=f"{len(table):,}",
        patients=table["pid"].nunique(),
        scores=list(format_scores(shown).itertuples()),
        lowest_recall=LABELS[is_correct.groupby(table["y_true"]).mean().idxmin()],
        lowest_dice=LABELS[masks.groupby("y_true")["dice"].mean().idxmin()],
        files=[describe_network(path, parameters[path.stem]) for path in paths],
    )


def describe_network(path, parameters):
    """Describe a network for the card: a dict."""
    n_parameters = build_from_parameters(parameters).count_params()
    call = '{head_size}, {filters}, air_threshold={air_threshold}, encoder="{network}"'
    return {
        "name": path.name,
        "fold": held_out_fold(path.stem),
        "head_size": parameters["head_size"],
        "encoder": parameters["network"],
        "parameters": f"{n_parameters / 1e6:.2f}",
        "digest": sha256(path)[:16],
        "call": call.format(**parameters),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("name", help="its name below results/published")
    parser.add_argument("--data", help="slices of the run: publish the networks too")
    args = parser.parse_args()
    published, models = publish_tables(args.run, args.name), ROOT / "models"
    publish_experiments(ROOT / "results" / "experiments.csv", published)
    if args.data:
        paths = sorted(args.run.rglob("joint/classify/fold-*/run.json"))
        export_networks(paths, models)
        publish_references(args.data, published, models)
        with atomic_write(models / "README.md") as path:
            path.write_text(render_card(published, models))


if __name__ == "__main__":
    main()
