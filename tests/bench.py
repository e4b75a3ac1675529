"""`make bench`: speed against the usual alternative, both measured in this run; prints ratios, asserts nothing.

python tests/bench.py [DATA]    DATA: a folder of .mat files; default the phantom
"""

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
    return ours


def bench_training(prepared, augmented):
    from braintumor import models, pipeline

    images, masks = prepared.images[:256], prepared.masks[:256]
    labels = prepared.index["label"].to_numpy()[:256] - 1
    tasks = (
        ("compact classifier", models.compact(SIZE), labels, "sparse_categorical_crossentropy"),
        ("original CNN", models.cnn(SIZE), labels, "sparse_categorical_crossentropy"),
        ("U-Net of 16 filters", models.unet(SIZE, 16), masks, "binary_crossentropy"),
    )
    for name, model, targets, loss in tasks:
        model.compile("adam", loss)
        steps = pipeline.steps(len(images), 16)

        def epoch(model=model, targets=targets, steps=steps):
            batches = pipeline.training_batches(images, targets, 16, 1, 1, {})
            model.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0)

        epoch()
        trained = len(images) / seconds(epoch)
        print(
            f"train the {name} at {SIZE} px: {trained:.0f} slices/s; augmentation: {augmented / trained:.0f} times that"
        )


if __name__ == "__main__":
    data = sys.argv[1] if len(sys.argv) > 1 else "phantom"
    prepared = open_data(data, SIZE)
    bench_prepare(prepared.about["source"])
    bench_training(prepared, bench_augmentation(prepared))
