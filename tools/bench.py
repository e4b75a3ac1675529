"""`make bench`: speed against the usual alternative, both measured in this run; prints ratios, asserts nothing.

python tools/bench.py [DATA]    DATA: a folder of .mat files; default the phantom

On all 3,064 slices it keeps what it found in results/tested. The machine should do nothing else. Some 40 minutes.
"""

import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import psutil
from PIL import Image
from results import keep

from braintumor.data.prepared import PERCENTILES, find_slices, open_data, open_prepared, prepare

SIZE = 128


def plain_loop(directory):
    """What a first notebook does: one process, h5py, one slice after the other."""
    images, masks = [], []
    for source in find_slices(directory):
        with h5py.File(source.path) as mat:
            image, mask = mat["cjdata/image"][()].T, mat["cjdata/tumorMask"][()].T
        low, high = np.percentile(image, PERCENTILES)
        image = np.asarray(Image.fromarray(image.astype(np.float32)).resize((SIZE, SIZE), Image.BOX))
        images.append((np.clip((image - low) / (high - low), 0, 1) * 255).astype(np.uint8))
        mask = Image.fromarray(mask.astype(np.float32)).resize((SIZE, SIZE), Image.BOX)
        masks.append(np.asarray(mask) >= 0.5)
    return np.stack(images), np.stack(masks)


def compared(what, unit, usual_way, usual, ours, ratio):
    """One row of the table, printed as it is found."""
    print(f"{what}, {unit}: {usual_way} {usual}, ours {ours}; ratio {ratio}", flush=True)
    return {"what": what, "unit": unit, "usual way": usual_way, "usual": usual, "ours": ours, "times as fast": ratio}


def seconds(call):
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


class PeakMemory:
    """Greatest memory of this process and its children together, in bytes, sampled."""

    def __enter__(self):
        self.process, self.peak, self.over = psutil.Process(), 0, threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self):
        while not self.over.wait(0.05):
            children = self.process.children(recursive=True)
            used = sum(one.memory_info().rss for one in [self.process, *children] if one.is_running())
            self.peak = max(self.peak, used)

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def bench_prepare(directory):
    count = len(find_slices(directory))
    plain, ours = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(3):  # in turns: a shared machine's speed drifts
            ours.append(seconds(lambda: prepare(directory, Path(folder) / "set", SIZE, progress=False)))
            plain.append(seconds(lambda: plain_loop(directory)))
        with PeakMemory() as memory:  # in a run of its own: looking costs time
            prepare(directory, Path(folder) / "set", SIZE, progress=False)
        opening = seconds(lambda: open_prepared(Path(folder) / "set"))
    plain, ours = sorted(plain)[1], sorted(ours)[1]
    print(f"peak memory {memory.peak / 2**20:,.0f} MB, all processes; opening the set {opening * 1000:.0f} ms")
    what, usual = f"prepare {count:,} slices at {SIZE} pixels", "h5py in one loop, one process"
    return compared(what, "s", usual, f"{plain:.1f}", f"{ours:.1f}", f"{plain / ours:.1f}")


def rate(batches, count=3200, batch=16):
    """Slices a second, after four warm-up batches."""
    stream = iter(batches)
    for _ in range(4):
        next(stream)
    steps = count // batch
    return steps * batch / seconds(lambda: [next(stream) for _ in range(steps)])


def bench_augmentation(prepared):
    import keras  # in here, so that the processes that prepare slices do not start TensorFlow
    import tensorflow as tf

    from braintumor.training import augmentation as pipeline

    images, masks = tf.constant(prepared.images[:512]), tf.constant(prepared.masks[:512])
    layers = [
        keras.layers.RandomZoom((-0.2, 0.2), (-0.2, 0.2)),
        keras.layers.RandomFlip("horizontal"),
        keras.layers.RandomShear(0.2, 0.2),
    ]

    def separate(image, mask):
        both = {
            "images": tf.cast(image, tf.float32)[..., None] / 255,
            "segmentation_masks": tf.cast(mask, tf.float32)[..., None],
        }
        for layer in layers:
            both = layer(both, training=True)
        return both["images"], both["segmentation_masks"]

    data = tf.data.Dataset.from_tensor_slices((images, masks)).repeat().batch(16)
    rates = {"usual": [], "ours": []}
    for _ in range(3):  # in turns: a shared machine's speed drifts
        rates["usual"].append(rate(data.map(separate, num_parallel_calls=2).prefetch(2)))
        rates["ours"].append(rate(pipeline.training_batches(images, masks, 16, 1000, 1, {})))
    usual, ours = (sorted(values)[1] for values in rates.values())
    what, way = f"augment image and mask at {SIZE} pixels", "Keras' layers for zoom, flip and shear"
    return compared(what, "slices/s", way, f"{usual:,.0f}", f"{ours:,.0f}", f"{ours / usual:.1f}")


def step_rate(model, batches, batch=16, steps=12):
    """Slices a second of training: by the median step, after four warm-up steps.

    Not by the time of fit as a whole: when it ends, TensorFlow waits for a thread that tunes the input's buffers, up to
    as long again as the fit has taken.
    """
    stream, times = iter(batches), []
    for _ in range(4 + steps):
        images, targets = next(stream)
        times.append(seconds(lambda: model.train_on_batch(images, targets)))  # noqa: B023
    return batch / statistics.median(times[4:])


def published(data, precision="mixed_bfloat16", network="residual", **changed):
    """The namespace of notebook 08 after its cells that build and compile the network, with the published settings."""
    import nbformat
    import yaml

    from braintumor.core.files import ROOT
    from braintumor.core.parameters import notebook_parameters

    settings = yaml.safe_load((ROOT / "config/full.yaml").read_text())["both"]
    given = settings | {"data": data, "precision": precision, "network": network, "epochs": 1000} | changed
    namespace = notebook_parameters("08_both", given)
    cells = nbformat.read(ROOT / "notebooks/08_both.ipynb", 4).cells
    for cell in cells:
        if "train" in cell.metadata.get("tags", []):
            exec(cell.source, namespace)
            if "model.compile" in cell.source:
                return namespace
    raise ValueError("notebook 08 compiles no model in a cell tagged train")


def random_batches(size, masks, batch):
    """Endless batches of noise: for the speed of a network it does not matter what it sees."""
    random = np.random.default_rng(0)
    images = random.random((batch, size, size, 1), "float32")
    targets = (images > 0.95).astype("float32") if masks else random.integers(3, size=batch)
    while True:
        yield images, targets


def bench_networks(data):
    """Training speed of the published network against the original study's two; and where the time goes."""
    import keras

    from braintumor.models import original as models

    rates, pair = {}, ("original CNN at {} pixels", "original U-Net at {} pixels")
    for size, batch, steps in ((512, 8, 3), (SIZE, 16, 12)):
        for name, model, masks in zip(pair, (models.cnn(size), models.unet(size, 16)), (False, True), strict=True):
            model.compile("adam", "binary_crossentropy" if masks else "sparse_categorical_crossentropy")
            rates[name.format(size)] = step_rate(model, random_batches(size, masks, batch), batch, steps)
    for precision in ("float32", "mixed_bfloat16"):
        made = published(data, precision)
        rates[f"published network in {precision}"] = ours = step_rate(made["model"], made["batches"](0))
    keras.config.set_dtype_policy("float32")
    rows = []
    for size in (512, SIZE):
        both = 1 / sum(1 / rates[name.format(size)] for name in pair)
        way = f"the original CNN, then its U-Net, at {size} pixels"
        rows.append(compared("train both tasks", "slices/s", way, f"{both:.1f}", f"{ours:.1f}", f"{ours / both:.1f}"))
    return rows, {"training, slices/s": {name: round(one, 1) for name, one in rates.items()}} | parts(made, ours)


def parts(made, trained):
    """Where a training step's time goes, and how near its arithmetic comes to the processor's rate: a dict."""
    import tensorflow as tf
    from keras import layers

    model, stream = made["model"], iter(made["batches"](0))
    images, targets = next(stream)
    forward = tf.function(lambda x: model(x, training=True))
    forward(images)
    spent = {
        "loading and augmentation": 16 / rate(made["batches"](0), count=1600),
        "forward": statistics.median(seconds(lambda: forward(images)) for _ in range(8)),
    }
    step = 16 / trained
    spent["backward and update"] = step - sum(spent.values())
    rows = made["parts"].validation[:256]
    answering = made["model"]
    plain = (made["images"][rows] / 255).astype("float32")[..., None]
    answering.predict_on_batch(plain[:64])
    took = seconds(lambda: [answering.predict_on_batch(plain[at : at + 64]) for at in range(0, len(rows), 64)])
    found = {
        "a step of 16 slices, ms": {name: round(value * 1000) for name, value in spent.items()},
        "evaluation, slices/s": round(len(rows) / took),
    }
    multiplied = 0
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            multiplied += np.prod(layer.kernel.shape) * np.prod(layer.output.shape[1:3])
    found["GFLOPS"] = {"training": round(3 * 2 * multiplied * trained / 1e9)}  # a backward pass is two forward passes
    for dtype in ("float32", "bfloat16"):
        square = tf.cast(tf.random.stateless_normal((2048, 2048), (1, 2)), dtype)
        multiply = tf.function(tf.matmul)
        multiply(square, square)
        took = statistics.median(seconds(lambda: multiply(square, square)) for _ in range(8))  # noqa: B023
        found["GFLOPS"][f"product of {dtype} matrices"] = round(2 * 2048**3 / took / 1e9)
    print(found, flush=True)
    return found


def bench_goal(data, accuracy=0.85, dice=0.7):
    """Seconds of training to a score on validation patients: the published network against the original pair at 128 px.

    Both with notebook 08's training, the epochs of config/trials.yaml and the rates there, which fall to the end; an
    epoch is judged as it ends, and judging is not counted. Returns two rows, and the scores at the end.
    """
    import keras
    import yaml

    from braintumor.core.files import ROOT
    from braintumor.evaluation import metrics
    from braintumor.training import augmentation as pipeline

    trials = yaml.safe_load((ROOT / "config/trials.yaml").read_text())["trials"]
    epochs = trials["baseline"]["epochs"]
    goals, found, last = {"accuracy": accuracy, "Dice": dice}, {}, {}
    contest = ("residual", "baseline", "mixed_bfloat16"), ("original", "original", "float32")
    for network, trial, precision in contest:
        rate = trials[trial]["learning_rate"]
        made = published(data, precision, network, crop_to=SIZE, epochs=epochs, learning_rate=rate)
        keras.utils.set_random_seed(1)
        rows, reached, spent = made["parts"].validation, {}, 0
        labels, masks = made["index"]["label"].to_numpy()[rows] - 1, made["masks"][rows].astype(bool)
        stream = iter(made["batches"](0))
        for epoch in range(1, epochs + 1):
            spent += seconds(lambda: [made["model"].train_on_batch(*next(stream)) for _ in range(made["steps"])])  # noqa: B023
            answer = made["model"].predict(pipeline.as_input(made["images"][rows]), verbose=0)
            right = (answer["classify"].argmax(axis=1) == labels).mean()
            overlap = np.mean(
                [metrics.dice(*pair) for pair in zip(masks, answer["segment"][..., 0] >= 0.5, strict=True)]
            )
            print(f"  {network}, epoch {epoch}: {spent:.0f} s, accuracy {right:.3f}, Dice {overlap:.3f}", flush=True)
            scores = {"accuracy": right, "Dice": overlap}
            for name, score in scores.items():
                if score >= goals[name]:
                    reached.setdefault(name, spent)
        found[network] = {name: (spent, "over ") if name not in reached else (reached[name], "") for name in goals}
        who = "the published network" if network == "residual" else f"the original pair at {SIZE} pixels"
        last[who] = {name: round(float(score), 3) for name, score in scores.items()} | {"seconds": round(spent)}
    keras.config.set_dtype_policy("float32")
    rows = []
    for name, goal in goals.items():
        (ours, ours_over), (usual, usual_over) = found["residual"][name], found["original"][name]
        ratio = "" if ours_over else f"{usual_over}{usual / ours:.1f}"
        what, way = f"train to {name} {goal} on validation patients", f"the original pair at {SIZE} pixels"
        rows.append(compared(what, "s", way, f"{usual_over}{usual:.0f}", f"{ours_over}{ours:.0f}", ratio))
    return rows, {"train to": {"epochs": epochs, "validation patients": last}}


def bench_predict(directory):
    """An answer of the five published networks with all that `braintumor predict` says, against Keras' own predict."""
    import keras

    from braintumor.core.files import ROOT
    from braintumor.data import formats as images
    from braintumor.data.prepared import scaled
    from braintumor.data.splits import FOLDS
    from braintumor.inference import predictor as inference
    from braintumor.training.augmentation import as_input

    paths = [source.path for source in find_slices(directory)][:200]
    began = time.perf_counter()
    networks = inference.Networks()
    networks.predict([images.read(paths[0])])
    started = time.perf_counter() - began
    members = [keras.models.load_model(ROOT / f"models/fold-{fold}.keras", compile=False) for fold in FOLDS]

    def usual(path):
        image = as_input(scaled(images.read(path).square, members[0].input_shape[1])[None])
        return [member.predict(image, verbose=0) for member in members]

    usual(paths[0])
    times = {"usual": [], "ours": []}
    for path in paths[1:12]:  # in turns: a shared machine's speed drifts
        times["ours"].append(seconds(lambda: networks.predict([images.read(path)])))  # noqa: B023
        times["usual"].append(seconds(lambda: usual(path)))  # noqa: B023
    list(inference.answers(paths[:16]))  # a batch of 16 is a graph of its own
    batch = len(paths) / seconds(lambda: list(inference.answers(paths)))
    alone, ours = (statistics.median(values) for values in times.values())
    found = {"asking five networks": {"s to start": round(started, 1), "images/s in a batch": round(batch, 1)}}
    what, way = "ask five networks about an image", "Keras' predict in a loop, without Grad-CAM and doubts"
    return compared(what, "s", way, f"{alone:.2f}", f"{ours:.2f}", f"{alone / ours:.1f}"), found


def main(data):
    prepared = open_data(data, SIZE)
    source = prepared.about["source"]
    rows = [bench_prepare(source)]
    from braintumor.training import loop as training  # not above: the processes that prepare slices need no TensorFlow
    from braintumor.training.provenance import machine
    from braintumor.workflow_engine.execution import is_whole

    training.start(1)  # as each notebook does; the number of threads can be set only before TensorFlow works
    rows.append(bench_augmentation(prepared))
    asked, start = bench_predict(source)
    trained, speed = bench_networks(data)
    reached, last = bench_goal(data)
    rows += [asked, *trained, *reached]
    print(pd.DataFrame(rows).to_string(index=False))
    if is_whole(prepared.about):
        keep("bench", pd.DataFrame(rows), speed | start | last | machine(threads=0))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "phantom")
