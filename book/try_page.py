"""The page that predicts in the browser: its controls, and the scripts that it loads.

Nothing is fetched, so that the page works from a file too: ONNX Runtime and the
networks become scripts of base64 text, which are loaded when a prediction needs them.
"""

import base64
import gzip
import json
from pathlib import Path

import matplotlib
import numpy as np
from docutils import nodes
from docutils.parsers.rst import Directive
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader
from PIL import ImageColor
from sphinx.errors import ConfigError

from braintumor.core.files import ROOT
from braintumor.data.labels import CLASS_COLORS, LABELS
from braintumor.data.prepared import open_data, read_slice_by_number
from braintumor.data.preprocessing import MAX_SIDE, PERCENTILES, preprocess_slice
from braintumor.data.raster import COLOR_TOLERANCE, COLOR_WARNING
from braintumor.evaluation.scores import (
    HEADLINE_METRICS,
    SUMMARY_METRICS,
    format_scores,
    score_with_ci,
)
from braintumor.inference import report
from braintumor.inference.ood import OOD_SCORES, THUMBNAIL_SIZE
from braintumor.inference.predictor import (
    IMAGE_SIZE,
    PUBLISHED,
    find_networks,
    load_ood_reference,
    network_name,
)
from braintumor.models.head_crop import BLOCKS, BRIGHT
from braintumor.models.tta import ZOOMS
from braintumor.training.fold_run import read_table

PAGE = "book/try"
SCRIPTS = ("image.js", "predict.js", "try.js")
BOOK = Path(__file__).parent
ENVIRONMENT = Environment(
    loader=ChoiceLoader([FileSystemLoader(BOOK), PackageLoader("braintumor")]),
    autoescape=True,
    trim_blocks=True,
)
ENVIRONMENT.policies["json.dumps_kwargs"] = {}  # keep the order of the OOD scores
# What the script replaces in the tables of a prediction.
PLACEHOLDER = {
    "probabilities": dict.fromkeys(LABELS.values(), 0),
    "warnings": [" "],
    "probability_std": 0,
    "area_pixels": 0,
    "area_mm2": None,
    "box": None,
    "mask_agreement": None,
    "ood_scores": {},
    "networks": [],
    "true_class": "",
}


def setup(app):
    app.add_directive("try-page", TryPage)
    app.connect("html-page-context", add_assets)
    app.connect("build-finished", write_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class TryPage(Directive):
    """Insert the controls and the place of the prediction."""

    def run(self):
        return [nodes.raw("", render_controls(select_slices()), format="html")]


def add_assets(app, pagename, templatename, context, doctree):
    if pagename == PAGE:
        app.add_css_file("try/try.css")
        for name in SCRIPTS:
            app.add_js_file(f"try/{name}", loading_method="defer")


def write_scripts(app, error):
    if app.builder.name == "html" and not error:
        pack_all(Path(app.outdir) / "_static" / "try")


def render_controls(slices):
    """Render the controls as HTML; `slices` are those of `select_slices`."""
    paths = find_networks()
    magma = matplotlib.colormaps["magma"].colors
    config = {
        "networks": [path.stem for path in paths],
        "classes": list(LABELS.values()),
        "ood_scores": OOD_SCORES,
        "color_warning": COLOR_WARNING,
        "color_tolerance": COLOR_TOLERANCE,
        "max_side": MAX_SIDE,
        "percentiles": PERCENTILES,
        "image_size": IMAGE_SIZE,
        "blocks": BLOCKS,
        "bright": BRIGHT,
        "zooms": ZOOMS,
        "thumbnail_size": THUMBNAIL_SIZE,
        "mask_color": ImageColor.getrgb(report.MASK_COLOR),
        "gradcam_colors": np.rint(np.multiply(magma, 255)).astype(int).tolist(),
    }
    return ENVIRONMENT.get_template("try.html.j2").render(
        notice=report.NOTICE,
        slices=slices,
        config=config,
        network=score_network(paths[0].stem),
        ensemble=load_ensemble_scores(),
        result=PLACEHOLDER,
        colors=CLASS_COLORS,
    )


def select_slices():
    """Select a phantom slice of each class and plane: [{source, alt, label}]."""
    index = open_data("phantom", 128).index
    rows = index.groupby(["label", "plane"], observed=True).first().reset_index()
    slices = []
    for row in rows.itertuples():
        image = read_slice_by_number("phantom", row.file).image
        source = report.encode_png(preprocess_slice(image, len(image)))
        alt = f"Phantom slice {row.file}, {row.plane}"
        slices.append({"source": source, "alt": alt, "label": LABELS[row.label]})
    return slices


def score_network(name):
    """Score a network on its test fold: {fold, n_slices, n_patients, scores}.

    Raises
    ------
    ConfigError
        If its predictions are not published.
    """
    tables = {}
    for path in sorted((ROOT / PUBLISHED).rglob("fold-*/run.json")):
        record = json.loads(path.read_text())
        is_ensemble = "networks" in record
        if not is_ensemble and network_name(record["parameters"]) == name:
            tables[path.parts[-3]] = read_table(path.with_name("predictions.csv"))
    if missing := {"classify", "segment"} - tables.keys():
        tasks = " and ".join(sorted(missing))
        raise ConfigError(f"{PUBLISHED}: has no {tasks} of {name}. Publish the run.")
    scores = {}
    for metric in HEADLINE_METRICS:
        task, function = SUMMARY_METRICS[metric]
        scores[metric] = score_with_ci(tables[task], function)
    table = tables["classify"]
    return {
        "fold": table["fold"].iloc[0],
        "n_slices": len(table),
        "n_patients": table["pid"].nunique(),
        "scores": format_scores(scores).to_dict("index"),
    }


def load_ensemble_scores():
    """Load the out-of-fold scores of the published ensemble, or None without one."""
    record = ROOT / PUBLISHED / "classify" / "fold-1" / "run.json"
    if "networks" not in json.loads(record.read_text()):
        return None
    scores = json.loads((ROOT / PUBLISHED / "scores.json").read_text())
    scores = scores["classify"] | scores["segment"]
    shown = {name: scores[name] for name in HEADLINE_METRICS}
    return format_scores(shown).to_dict("index")


def pack_all(folder):
    """Write ONNX Runtime and each network as a script that try.js loads."""
    source = BOOK / "onnxruntime-web"
    module = compress((source / "ort.wasm.bundle.min.mjs").read_bytes())
    wasm = (source / "ort-wasm-simd-threaded.wasm.gz").read_bytes()
    license_text = (source / "LICENSE").read_text()
    runtime = pack("runtime", {"module": module, "wasm": wasm})
    (folder / "runtime.js").write_text(f"/* {license_text}*/\n{runtime}")
    for path in find_networks():
        reference = load_ood_reference(path)
        reference.pop("network")
        parts = {k: compress(v.astype("<f4").tobytes()) for k, v in reference.items()}
        parts["network"] = compress(path.read_bytes())
        (folder / f"{path.stem}.js").write_text(pack(path.stem, parts))


def compress(content):
    return gzip.compress(content, compresslevel=6, mtime=0)


def pack(name, parts):
    """Return a script that hands gzipped bytes, {key: bytes}, to the page."""
    texts = {key: base64.b64encode(part).decode() for key, part in parts.items()}
    return f"tryPage.receive({json.dumps(name)}, {json.dumps(texts)});\n"
