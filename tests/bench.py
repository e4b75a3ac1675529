"""`make bench`: speed against the usual alternative, both measured in this run; prints ratios, asserts nothing.

python tests/bench.py [DATA]    DATA: a folder of .mat files; default the phantom
"""

import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import psutil
from PIL import Image

from braintumor.dataset import PERCENTILES, find_slices, open_data, open_prepared, prepare

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
    print(f"prepare {count} slices at {SIZE} px: plain h5py loop {plain:.1f} s, ours {ours:.1f} s")
    print(f"  ratio {plain / ours:.2f} (expected 1.7 on 2 cores and 3,064 slices; medians of three turns)")
    print(f"  peak memory {memory.peak / 2**20:,.0f} MB, all processes; opening the set {opening * 1000:.0f} ms")


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

    from braintumor import pipeline

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
    print(f"augment image and mask at {SIZE} px: Keras' separate layers {usual:.0f} slices/s, one warp {ours:.0f}")
    print(f"  ratio {ours / usual:.2f} (expected 3; medians of three turns)")


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

    from braintumor.files import ROOT
    from braintumor.parameters import notebook_parameters

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


def random_batches(size, masks, batch=16):
    """Endless batches of noise: for the speed of a network it does not matter what it sees."""
    random = np.random.default_rng(0)
    images = random.random((batch, size, size, 1), "float32")
    targets = (images > 0.95).astype("float32") if masks else random.integers(3, size=batch)
    while True:
        yield images, targets


def bench_networks(data):
    """Training speed of the published network against the original study's at its own size, and where the time goes."""
    import keras

    from braintumor import models

    rates = {}
    for name, model, masks in (
        ("original CNN at 512 px", models.cnn(512), False),
        ("original U-Net of 16 filters at 512 px", models.unet(512, 16), True),
    ):
        model.compile("adam", "binary_crossentropy" if masks else "sparse_categorical_crossentropy")
        rates[name] = step_rate(model, random_batches(512, masks, 8), batch=8, steps=3)
    for precision in ("float32", "mixed_bfloat16"):
        made = published(data, precision)
        rates[f"published network in {precision}"] = step_rate(made["model"], made["batches"](0))
    keras.config.set_dtype_policy("float32")
    for name, value in rates.items():
        print(f"train the {name}: {value:.1f} slices/s")
    both = 1 / (1 / rates["original CNN at 512 px"] + 1 / rates["original U-Net of 16 filters at 512 px"])
    print(f"  ratio {value / both:.1f} to the original pair, both tasks of a slice for both")
    bench_parts(made, value)


def bench_parts(made, trained):
    """Where a training step's time goes, and how near its arithmetic comes to the processor's rate."""
    import tensorflow as tf
    from keras import layers

    model, stream = made["model"], iter(made["batches"](0))
    images, targets = next(stream)
    forward = tf.function(lambda x: model(x, training=True))
    forward(images)
    parts = {
        "loading and augmentation": 16 / rate(made["batches"](0), count=1600),
        "forward": statistics.median(seconds(lambda: forward(images)) for _ in range(8)),
    }
    step = 16 / trained
    parts["backward and update"] = step - sum(parts.values())
    for name, value in parts.items():
        print(f"  {name}: {value * 1000:.0f} ms of a step of 16 slices, {value / step:.0%}")
    rows = made["parts"].validation[:256]
    answering = made["model"]
    plain = (made["images"][rows] / 255).astype("float32")[..., None]
    answering.predict_on_batch(plain[:64])
    took = seconds(lambda: [answering.predict_on_batch(plain[at : at + 64]) for at in range(0, len(rows), 64)])
    print(f"  evaluation: {len(rows) / took:.0f} slices/s")
    multiplied = 0
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            multiplied += np.prod(layer.kernel.shape) * np.prod(layer.output.shape[1:3])
    done = 3 * 2 * multiplied * trained / 1e9  # a backward pass is two forward passes
    for dtype in ("float32", "bfloat16"):
        square = tf.cast(tf.random.stateless_normal((2048, 2048), (1, 2)), dtype)
        multiply = tf.function(tf.matmul)
        multiply(square, square)
        took = statistics.median(seconds(lambda: multiply(square, square)) for _ in range(8))  # noqa: B023
        peak = 2 * 2048**3 / took / 1e9
        print(f"  {done:.0f} GFLOPS in training; matrices of {dtype} multiply at {peak:.0f}: {done / peak:.0%} of that")


def bench_goal(data, accuracy=0.8, dice=0.6, most=40):
    """Seconds of training to a score on validation patients: the published network against the original pair at 128 px.

    Both with notebook 08's training; an epoch is judged as it ends, and judging is not counted. Up to an hour.
    """
    import keras

    from braintumor import metrics, pipeline

    for network in ("residual", "original"):
        made = published(data, "float32" if network == "original" else "mixed_bfloat16", network, crop_to=128)
        keras.utils.set_random_seed(1)
        rows, reached, spent = made["parts"].validation, {}, 0
        labels, masks = made["index"]["label"].to_numpy()[rows] - 1, made["masks"][rows].astype(bool)
        stream = iter(made["batches"](0))
        for epoch in range(1, most + 1):
            spent += seconds(lambda: [made["model"].train_on_batch(*next(stream)) for _ in range(made["steps"])])  # noqa: B023
            answer = made["model"].predict(pipeline.as_input(made["images"][rows]), verbose=0)
            right = (answer["classify"].argmax(axis=1) == labels).mean()
            overlap = np.mean(
                [metrics.dice(*pair) for pair in zip(masks, answer["segment"][..., 0] >= 0.5, strict=True)]
            )
            print(f"  {network}, epoch {epoch}: {spent:.0f} s, accuracy {right:.3f}, Dice {overlap:.3f}", flush=True)
            for name, score, goal in (("accuracy", right, accuracy), ("Dice", overlap, dice)):
                if score >= goal:
                    reached.setdefault(f"{name} {goal}", f"{spent:.0f} s, epoch {epoch}")
            if len(reached) == 2:
                break
        goals = [f"accuracy {accuracy}", f"Dice {dice}"]
        print(f"{network} to", "; ".join(f"{goal}: {reached.get(goal, f'not in {most} epochs')}" for goal in goals))
    keras.config.set_dtype_policy("float32")


def bench_predict(directory):
    """An answer of the five published networks with all that `braintumor predict` says, against Keras' own predict."""
    import keras

    from braintumor import images, inference
    from braintumor.dataset import scaled
    from braintumor.files import ROOT
    from braintumor.pipeline import as_input
    from braintumor.splits import FOLDS

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
    print(f"ask five networks: {started:.1f} s to start; an image {ours:.2f} s, Keras' predict in a loop {alone:.2f} s")
    print(f"  ratio {alone / ours:.1f} (medians of 11, in turns; Keras' loop gives no Grad-CAM and no doubts)")
    print(f"  {len(paths)} images: {batch:.1f} images/s, their five networks loaded anew")


if __name__ == "__main__":
    data = sys.argv[1] if len(sys.argv) > 1 else "phantom"
    prepared = open_data(data, SIZE)
    bench_prepare(prepared.about["source"])
    from braintumor import training  # not above: the processes that prepare slices need no TensorFlow

    training.start(1)  # as each notebook does; the number of threads can be set only before TensorFlow works
    bench_augmentation(prepared)
    bench_predict(prepared.about["source"])
    bench_networks(data)
    bench_goal(data)
