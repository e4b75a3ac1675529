"""Training speed of the published network and of the original study's, for bench.py."""

import itertools
import statistics
from types import SimpleNamespace

import keras
import numpy as np
import yaml
from bench import IMAGE_SIZE, compare, make_row, measure_seconds

from braintumor.core.files import ROOT
from braintumor.data.prepared import open_data
from braintumor.data.preprocessing import to_network_input
from braintumor.data.splits import make_split
from braintumor.evaluation.masks import compute_dice
from braintumor.models.head_crop import crop_head
from braintumor.models.joint import build_joint, per_slice_loss
from braintumor.models.original import build_cnn, build_unet
from braintumor.training.batches import steps_per_epoch, training_batches

BATCH_SIZE = 16
CLASSES, MASKS = "sparse_categorical_crossentropy", "binary_crossentropy"
PAIR = f"the original pair at {IMAGE_SIZE} pixels"


def build_training(
    data, network="residual", precision="float32", rate=0.002, epochs=20
):
    """Build a network of lab 4 with fold 1 of the data: model, batches, validation."""
    prepared = open_data(data, 256)
    images, masks = crop_head(prepared.images, prepared.masks, IMAGE_SIZE)
    split = make_split(prepared.index, "official", 1)
    targets = {"classify": prepared.index["label"].to_numpy() - 1, "segment": masks}
    keras.utils.set_random_seed(1)
    keras.config.set_dtype_policy(precision)
    if network == "residual":
        model = build_joint(IMAGE_SIZE)
    else:
        image = keras.layers.Input((IMAGE_SIZE, IMAGE_SIZE, 1))
        outputs = build_cnn(IMAGE_SIZE)(image), build_unet(IMAGE_SIZE)(image)
        model = keras.Model(image, dict(zip(targets, outputs, strict=True)))
    keras.config.set_dtype_policy("float32")
    steps = steps_per_epoch(len(split.train), BATCH_SIZE)
    schedule = keras.optimizers.schedules.CosineDecay(
        1e-5, steps * (epochs - 1), warmup_target=rate, warmup_steps=steps
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.01)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    model.compile(optimizer, {"classify": CLASSES, "segment": per_slice_loss})
    train = {task: target[split.train] for task, target in targets.items()}
    batches = training_batches(images[split.train], train, BATCH_SIZE, 1, {})
    validation = to_network_input(images[split.validation])
    y_true = {task: target[split.validation] for task, target in targets.items()}
    data = {"x": validation, "y_true": y_true}
    return SimpleNamespace(model=model, batches=batches, steps=steps, **data)


def measure_step(model, batches, n_steps=12):
    """Return the median seconds of a training step, after four to warm up."""
    step = lambda: model.train_on_batch(*next(batches))  # noqa: E731
    return statistics.median([measure_seconds(step) for _ in range(4 + n_steps)][4:])


def bench_networks(data):
    """Compare training speed with the original study's two networks."""
    rates, rows, rng = {}, [], np.random.default_rng(0)
    for size, batch_size, n_steps in ((512, 8, 3), (IMAGE_SIZE, BATCH_SIZE, 12)):
        builders = {"CNN": (build_cnn, CLASSES), "U-Net": (build_unet, MASKS)}
        for name, (build, loss) in builders.items():
            model = build(size)
            model.compile("adam", loss)
            x = rng.random((batch_size, size, size, 1), "float32")
            y = x > 0.95 if loss == MASKS else rng.integers(3, size=batch_size)
            batches = itertools.repeat((x, y))  # speed does not depend on the images
            step = measure_step(model, batches, n_steps)
            rates[f"original {name} at {size} pixels"] = batch_size / step
    for precision in ("float32", "mixed_bfloat16"):
        training = build_training(data, precision=precision)
        step = measure_step(training.model, training.batches)
        rates[f"published network in {precision}"] = ours = BATCH_SIZE / step
    for size in (512, IMAGE_SIZE):
        pair = [rates[f"original {name} at {size} pixels"] for name in ("CNN", "U-Net")]
        usual = 1 / sum(1 / rate for rate in pair)
        way = f"the original CNN, then its U-Net, at {size} pixels"
        rows.append(compare("train both tasks", "slices/s", way, usual, ours))
    rounded = {name: round(rate, 1) for name, rate in rates.items()}
    return rows, {"training, slices/s": rounded} | profile_step(training, step)


def profile_step(training, step):
    """Return where the time of a training step goes, and the arithmetic rate."""
    model, times = training.model, {}
    loading = measure_seconds(lambda: [next(training.batches) for _ in range(100)])
    times["loading and augmentation"] = loading / 100
    x, _ = next(training.batches)
    model.predict_on_batch(x)
    forward = [measure_seconds(lambda: model.predict_on_batch(x)) for _ in range(8)]
    times["forward"] = statistics.median(forward)
    times["backward and update"] = step - sum(times.values())
    convolutions = [n for n in model.layers if isinstance(n, keras.layers.Conv2D)]
    sizes = [(n.kernel.shape, n.output.shape[1:3]) for n in convolutions]
    operations = 2 * sum(np.prod(kernel) * np.prod(size) for kernel, size in sizes)
    # a backward pass is two forward passes
    rates = {"training": round(3 * operations * BATCH_SIZE / step / 1e9)}
    for dtype in ("float32", "bfloat16"):
        square = keras.ops.cast(keras.random.normal((2048, 2048), seed=1), dtype)
        multiply = lambda: np.asarray(keras.ops.matmul(square, square)[0, :1])  # noqa: B023, E731
        multiply()
        seconds = statistics.median(measure_seconds(multiply) for _ in range(8))
        rates[f"product of {dtype} matrices"] = round(2 * 2048**3 / seconds / 1e9)
    rounded = {name: round(seconds * 1000) for name, seconds in times.items()}
    return {"a step of 16 slices, ms": rounded, "GFLOPS": rates}


def bench_time_to_score(data, accuracy=0.85, dice=0.7):
    """Compare the seconds of training to a score on the validation patients of fold 1.

    Settings of the ablations; the learning rate falls to 0 at the end. Each epoch is
    evaluated as it ends; evaluation is not counted.
    """
    profile = yaml.safe_load((ROOT / "config/ablations.yaml").read_text())
    epochs, goals = profile["joint"]["epochs"], {"accuracy": accuracy, "Dice": dice}
    settings = {
        "residual": (profile["joint"]["precision"], profile["joint"]["learning_rate"]),
        "original": ("float32", profile["variants"]["original"]["learning_rate"]),
    }
    reached, last = {}, {}
    for network, (precision, rate) in settings.items():
        training = build_training(data, network, precision, rate, epochs)
        step = lambda t=training: t.model.train_on_batch(*next(t.batches))  # noqa: E731
        scores, seconds, first = {}, 0, {}
        for _ in range(epochs):
            seconds += sum(measure_seconds(step) for _ in range(training.steps))
            scores = evaluate(training)
            print(network, round(seconds), scores, flush=True)
            for name in [name for name in goals if scores[name] >= goals[name]]:
                first.setdefault(name, (seconds, ""))
        reached[network] = {name: first.get(name, (seconds, "over ")) for name in goals}
        name = "the published network" if network == "residual" else PAIR
        last[name] = scores | {"seconds": round(seconds)}
    rows = []
    for name, goal in goals.items():
        (ours, ours_over), (usual, over) = (r[name] for r in reached.values())
        texts = f"{over}{usual:.0f}", f"{ours_over}{ours:.0f}"
        ratio = "" if ours_over else f"{over}{usual / ours:.1f}"
        what = f"train to {name} {goal} on validation patients"
        rows.append(make_row(what, "s", PAIR, *texts, ratio))
    return rows, {"train to": {"epochs": epochs, "validation patients": last}}


def evaluate(training):
    """Return accuracy and mean Dice at a threshold of one half."""
    outputs, y_true = training.model.predict(training.x, verbose=0), training.y_true
    is_correct = outputs["classify"].argmax(axis=1) == y_true["classify"]
    masks = zip(y_true["segment"] > 0, outputs["segment"][..., 0] >= 0.5, strict=True)
    scores = {"accuracy": is_correct.mean()}
    scores["Dice"] = np.mean([compute_dice(*pair) for pair in masks])
    return {name: round(float(score), 3) for name, score in scores.items()}
