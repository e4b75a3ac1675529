"""Predictions of the published networks, by ONNX Runtime."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from onnxruntime import InferenceSession, SessionOptions
from tqdm import tqdm

from braintumor.core.errors import DatasetError, require
from braintumor.core.files import ROOT, sha256
from braintumor.data.preprocessing import preprocess_slice
from braintumor.data.raster import file_errors
from braintumor.evaluation import masks
from braintumor.inference.formats import InputImage, read_image
from braintumor.inference.ood import OOD_SCORES, THUMBNAIL_SIZE, compute_ood_scores
from braintumor.models.head_crop import paste_back
from braintumor.models.tta import predict_views

PUBLISHED = "results/published/full"  # the run of the networks in models/
RESTORE = "Restore it (`git checkout models`)"
BATCH_SIZE = 16  # crops
IMAGE_SIZE = 256  # pixels per side of the slice that the head is cropped from


@dataclass(frozen=True)
class Prediction:
    """Prediction for one image by published networks."""

    image: InputImage
    networks: tuple[str, ...]  # their names
    probabilities: np.ndarray  # (3,), mean over networks and views
    probability_std: np.ndarray  # (3,), over networks and views
    mask: np.ndarray  # (rows, columns) of the image, bool
    gradcam: np.ndarray  # of the predicted class, like the mask, maximum 1
    mask_agreement: float | None  # mean Dice of networks with the ensemble, if several
    ood_scores: dict[str, float]  # mean over networks of each of OOD_SCORES
    n_models_trained_on_patient: int = 0

    @property
    def label(self):
        """Predicted class, 1 to 3."""
        return int(self.probabilities.argmax()) + 1

    @property
    def warnings(self):
        """Reasons why the prediction is unreliable, as a list of clauses."""
        warnings = list(self.image.warnings)
        height, width = self.image.spacing_mm or (1, 1)
        for name, text in OOD_SCORES.items():
            if not self.ood_scores[name] <= 1:  # NaN is a warning too
                warnings.append(text)
        if max(height, width) > 1.1 * min(height, width):
            warnings.append(f"its pixels are not square: {height:.2f} x {width:.2f} mm")
        if n_models := self.n_models_trained_on_patient:
            text = "networks were trained on this patient; use --held-out"
            warnings.append(f"{n_models} of the {text}")
        return warnings


def network_name(parameters):
    """Name a network by the fold it held out and a seed above 1: without-2_seed3."""
    seed = parameters["seed"]
    return f"without-{parameters['fold']}" + (f"_seed{seed}" if seed > 1 else "")


def held_out_fold(name):
    """Return the fold that a network never saw, from its `network_name`."""
    return int(re.match(r"without-(\d)", name)[1])


def find_networks(fold=None, directory="models"):
    """List published networks, those that held out a fold or all: sorted paths."""
    paths = sorted((ROOT / directory).glob("without-*.onnx"))
    paths = tuple(p for p in paths if fold in (None, held_out_fold(p.stem)))
    require(paths, directory, "no network", "without-FOLD.onnx", RESTORE)
    return paths


class Ensemble:
    """Networks in ONNX files, which one call runs on the same crops."""

    def __init__(self, paths):
        self.pool = ThreadPoolExecutor()  # a thread per network: same bytes
        self.sessions = list(self.pool.map(load_network, paths))
        self.crop_size = self.sessions[0].get_inputs()[0].shape[-1]

    def __call__(self, crops):
        """Predict crops (n, side, side, 1): {name: (n, ...)}, networks on axis 1.

        "segment" and "gradcam" have the axes side, side and channel, and "segment" is
        the mean over networks; "maps" (n, n_networks, side, side) are those of each.
        """
        results = self.pool.map(partial(_run, crops=crops), self.sessions)
        arrays = [np.stack(values, 1) for values in zip(*results, strict=True)]
        names = [output.name for output in self.sessions[0].get_outputs()]
        outputs = dict(zip(names, arrays, strict=True))
        outputs["maps"] = outputs["segment"][:, :, 0]
        outputs["segment"] = outputs["maps"].mean(axis=1)[..., None]
        outputs["gradcam"] = np.moveaxis(outputs["gradcam"].mean(axis=1), 1, -1)
        return outputs


def _run(session, crops):
    """Run a network on crops in batches: at once they would need gigabytes."""
    inputs = np.moveaxis(crops, -1, 1).astype(np.float32)
    batches = [inputs[n : n + BATCH_SIZE] for n in range(0, len(inputs), BATCH_SIZE)]
    outputs = [session.run(None, {"image": batch}) for batch in batches]
    return [np.concatenate(values) for values in zip(*outputs, strict=True)]


class Predictor:
    """An Ensemble with the OOD references of its networks."""

    def __init__(self, paths):
        self.names = tuple(path.stem for path in paths)
        self.references = [load_ood_reference(path) for path in paths]
        self.ensemble = Ensemble(paths)

    def predict(self, image):
        """Predict an InputImage; returns a Prediction."""
        x = preprocess_slice(image.square_pixels, IMAGE_SIZE) / np.float32(255)
        outputs = predict_views(self.ensemble, x[None], self.ensemble.crop_size)
        outputs = {name: values[0] for name, values in outputs.items()}
        size, classify = max(image.pixels.shape), outputs["classify"]
        probabilities = classify.mean(axis=(0, 1))
        gradcam = merge_views(outputs["gradcam"][..., probabilities.argmax()])
        gradcam = masks.resize_map(gradcam, self.ensemble.crop_size)
        gradcam = paste_back(gradcam[None], outputs["box"][None], IMAGE_SIZE)[0]
        gradcam = image.crop_to_image(masks.resize_map(gradcam, size))
        threshold = masks.threshold_by_expected_dice
        maps = merge_views(outputs["maps"])
        mean_mask = threshold(maps.mean(axis=0), maps.shape[1])
        network_masks = [threshold(m, len(m)) for m in maps]
        agreement = np.mean([masks.compute_dice(mean_mask, m) for m in network_masks])
        fold = load_held_out_folds().get(image.patient) if image.patient else None
        is_trained = [fold not in (None, held_out_fold(n)) for n in self.names]
        return Prediction(
            image=image,
            networks=self.names,
            probabilities=probabilities,
            probability_std=classify.std(axis=(0, 1)),
            mask=image.crop_to_image(threshold(outputs["mask"], size)),
            gradcam=gradcam / max(gradcam.max(), 1e-9),
            mask_agreement=round(float(agreement), 4) if len(maps) > 1 else None,
            ood_scores=self._score_ood(outputs, maps, network_masks),
            n_models_trained_on_patient=sum(is_trained),
        )

    def _score_ood(self, outputs, maps, network_masks):
        thumbnail = make_thumbnails(outputs["crop"])
        dice = map(masks.expected_dice, maps, network_masks)
        inputs = zip(self.references, outputs["features"][0], dice, strict=True)
        scores = [compute_ood_scores(*row, thumbnail) for row in inputs]
        scores = np.mean(scores, axis=0).round(3).tolist()
        return dict(zip(OOD_SCORES, scores, strict=True))


def merge_views(maps):
    """Average maps (2, ..., rows, columns) of the head and of its mirror image."""
    return (maps[0] + maps[1, ..., ::-1]) / 2


def make_thumbnails(crops):
    """Average crops (..., side, side) over blocks: (..., 256)."""
    shape, block = crops.shape[:-2], crops.shape[-1] // THUMBNAIL_SIZE
    blocks = crops.reshape(*shape, THUMBNAIL_SIZE, block, THUMBNAIL_SIZE, block)
    return blocks.mean(axis=(-3, -1)).reshape(*shape, -1)


def predict_files(paths, slice_number=None, held_out=False):
    """Yield (path, Prediction) of image files, with a progress bar.

    For a file that cannot be used the second is a DatasetError. With `held_out` a
    figshare slice is predicted only by the networks whose training excluded its
    patient; other files cannot be used then.
    """
    load_predictor = cache(lambda fold: Predictor(find_networks(fold)))
    for path in tqdm(paths, unit=" images", disable=len(paths) == 1):
        try:
            image, fold = read_image(path, slice_number), None
            if held_out:
                fold = load_held_out_folds().get(image.patient)
                got, expected = "no patient of the dataset", "a .mat file of figshare"
                require(fold, path, got, expected, "Leave out --held-out")
        except DatasetError as error:
            yield path, error
        else:
            yield path, load_predictor(fold).predict(image)


@cache
def load_held_out_folds():
    """Return {patient: the fold whose test set has the patient} of `PUBLISHED`."""
    from braintumor.evaluation.scores import load_predictions  # imports pandas

    table, _ = load_predictions(PUBLISHED, "classify")
    return dict(zip(table["pid"], table["fold"].tolist(), strict=True))


def load_network(path):
    """Load an ONNX file of `export_onnx`; one that is damaged raises DatasetError."""
    options = SessionOptions()
    options.intra_op_num_threads = 1  # the networks run side by side
    with file_errors(path, RESTORE):
        return InferenceSession(path, options, providers=["CPUExecutionProvider"])


def load_ood_reference(network_path):
    """Load the OOD reference beside a network; one of another network is refused."""
    path = network_path.with_suffix(".npz")
    with file_errors(path, RESTORE), np.load(path, allow_pickle=False) as file:
        reference = dict(file)
        is_match = str(reference["network"]) == sha256(network_path)
        what, got = f"SHA-256 of {network_path.name}", "another file"
        require(is_match, what, got, "its own", RESTORE)
        return reference
