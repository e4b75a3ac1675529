"""Measure speed against the usual alternative, both in one run (`make bench`).

    python tools/bench.py [DATA]    DATA: a folder of slices; default the phantom

Prints ratios, asserts nothing. On the whole dataset it writes bench.csv and bench.json.
The machine should do nothing else. About 40 minutes.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from PIL import Image
from results import save_results

from braintumor.core.files import ROOT
from braintumor.data.folder import find_slices
from braintumor.data.prepared import open_data, prepare_data
from braintumor.data.preprocessing import PERCENTILES, preprocess_slice

IMAGE_SIZE = 128
N_DATASET = 3064  # slices


def measure_seconds(call):
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def compare_medians(calls, n_repeats=3):
    """Return the median seconds of each call; in turns, as machines change speed."""
    seconds = [[measure_seconds(call) for call in calls] for _ in range(n_repeats)]
    return [statistics.median(times) for times in zip(*seconds, strict=True)]


def make_row(what, unit, usual_way, usual, ours, ratio):
    """Make, and print, a row of the table."""
    row = {"what": what, "unit": unit, "usual way": usual_way, "usual": usual}
    row |= {"ours": ours, "times as fast": ratio}
    print(row, flush=True)
    return row


def compare(what, unit, usual_way, usual, ours):
    ratio = usual / ours if unit == "s" else ours / usual
    texts = f"{usual:,.2f}", f"{ours:,.2f}", f"{ratio:.1f}"
    return make_row(what, unit, usual_way, *texts)


def prepare_in_a_loop(directory):
    """Prepare slices in the usual way: one process, one slice after the other."""
    images, masks = [], []
    for source in find_slices(directory):
        with h5py.File(source.path) as mat:
            image, mask = mat["cjdata/image"][()].T, mat["cjdata/tumorMask"][()].T
        low, high = np.percentile(image, PERCENTILES)
        shape = (IMAGE_SIZE, IMAGE_SIZE)
        image = Image.fromarray(image.astype(np.float32)).resize(shape, Image.BOX)
        image = np.clip((np.asarray(image) - low) / (high - low), 0, 1)
        images.append((image * 255).astype(np.uint8))
        mask = Image.fromarray(mask.astype(np.float32)).resize(shape, Image.BOX)
        masks.append(np.asarray(mask) >= 0.5)
    return np.stack(images), np.stack(masks)


def bench_preparation(directory):
    n_slices = len(find_slices(directory))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "prepared"
        ours = lambda: prepare_data(directory, out, IMAGE_SIZE)  # noqa: E731
        usual, ours = compare_medians([lambda: prepare_in_a_loop(directory), ours])
    what = f"prepare {n_slices:,} slices at {IMAGE_SIZE} pixels"
    return compare(what, "s", "h5py in one loop, one process", usual, ours)


def load_parameters():
    """Load the parameters of each published network: {name: dict}."""
    from braintumor.inference.predictor import PUBLISHED, network_name

    paths = (ROOT / PUBLISHED).rglob("classify/fold-*/run.json")
    records = [json.loads(path.read_text()) for path in paths]
    # an ensemble has no network of its own
    parameters = [r["parameters"] for r in records if "networks" not in r]
    return {network_name(p): p for p in parameters}


def bench_inference(directory):
    """Compare `braintumor predict` with the same networks and views in Keras."""
    from functools import partial

    from braintumor.inference.formats import read_image
    from braintumor.inference.predictor import Predictor, find_networks, predict_files
    from braintumor.models.joint import build_from_parameters, load_onnx_weights
    from braintumor.models.tta import predict_views

    paths = [source.path for source in find_slices(directory)][:200]
    started = time.perf_counter()
    predictor, networks = Predictor(find_networks()), []
    predictor.predict(read_image(paths[0]))
    start = time.perf_counter() - started
    parameters = load_parameters()
    for path in find_networks():
        networks.append(build_from_parameters(parameters[path.stem]))
        load_onnx_weights(networks[-1], path)

    def predict_in_a_loop(path):
        image = preprocess_slice(read_image(path).square_pixels, 256)
        x = image[None] / np.float32(255)
        for network in networks:
            predict = partial(network.predict, verbose=0)
            predict_views(predict, x, network.input_shape[1])

    predict_in_a_loop(paths[0])
    usual, ours = compare_medians(
        [
            lambda: [predict_in_a_loop(path) for path in paths[1:12]],
            lambda: [predictor.predict(read_image(path)) for path in paths[1:12]],
        ]
    )
    rate = len(paths) / measure_seconds(lambda: list(predict_files(paths)))
    record = {"s to start": round(start, 1), "images/s in a batch": round(rate, 1)}
    way = "Keras' predict, the same views, without Grad-CAM and OOD scores"
    what = f"predict on an image with {len(networks)} networks"
    row = compare(what, "s", way, usual / 11, ours / 11)
    return row, {"inference": record | {"networks": len(networks)}}


def main(data):
    prepared = open_data(data, IMAGE_SIZE)
    source = prepared.info["source"]
    rows = [bench_preparation(source)]
    # not above: the processes that prepare slices need no Keras
    import bench_training

    from braintumor.training.loop import configure_backend
    from braintumor.training.provenance import collect_environment

    configure_backend(seed=1)
    row, record = bench_inference(source)
    rows.append(row)
    for bench in (bench_training.bench_networks, bench_training.bench_time_to_score):
        new_rows, new_record = bench(data)
        rows, record = rows + new_rows, record | new_record
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    if prepared.info["slices"] == N_DATASET:
        save_results("bench", table, record | collect_environment(threads=0))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "phantom")
