"""Predictions of the published networks, by ONNX Runtime."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

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
from braintumor.models.tta import ZOOMS, predict_views

PUBLISHED = "results/published/full"  # the run of the networks in models/
RESTORE = "Restore it (`git checkout models`)"
BATCH_SIZE = 16  # crops
MAPS = "segment", "gradcam"  # outputs with rows and columns
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


class OnnxNetwork:
    """A network in an ONNX file of `export_onnx`, which is called on crops."""

    def __init__(self, path):
        """Load a file; one that is damaged raises DatasetError."""
        options = SessionOptions()
        options.intra_op_num_threads = 1  # the networks run side by side
        with file_errors(path, RESTORE):
            providers = ["CPUExecutionProvider"]
            self.session = InferenceSession(path, options, providers=providers)
        self.crop_size = self.session.get_inputs()[0].shape[-1]

    def __call__(self, crops):
        """Predict crops (n, side, side, 1): {name: (n, ...)}, channels last."""
        inputs = np.moveaxis(crops, -1, 1).astype(np.float32)
        starts = range(0, len(inputs), BATCH_SIZE)  # at once they would need gigabytes
        batches = [inputs[n : n + BATCH_SIZE] for n in starts]
        results = [self.session.run(None, {"image": batch}) for batch in batches]
        names = [output.name for output in self.session.get_outputs()]
        arrays = (np.concatenate(parts) for parts in zip(*results, strict=True))
        outputs = dict(zip(names, arrays, strict=True))
        maps = {name: np.moveaxis(outputs[name], 1, -1) for name in MAPS}
        return outputs | maps


class Ensemble:
    """Networks in ONNX files, which predict the same slices."""

    def __init__(self, paths):
        self.pool = ThreadPoolExecutor()  # a thread per network: same bytes
        self.networks = list(self.pool.map(OnnxNetwork, paths))

    def predict(self, images, zooms=ZOOMS):
        """Predict slices by each network: a list of the outputs of `predict_views`."""

        def predict(network):
            return predict_views(network, images, network.crop_size, zooms=zooms)

        return list(self.pool.map(predict, self.networks))


class Predictor:
    """An Ensemble with the OOD references of its networks."""

    def __init__(self, paths):
        self.names = tuple(path.stem for path in paths)
        self.references = [load_ood_reference(path) for path in paths]
        self.ensemble = Ensemble(paths)

    def predict(self, image):
        """Predict an InputImage; returns a Prediction."""
        x = preprocess_slice(image.square_pixels, IMAGE_SIZE) / np.float32(255)
        outputs = [_first_slice(views) for views in self.ensemble.predict(x[None])]
        classify = np.stack([output["classify"] for output in outputs])
        probabilities = classify.mean(axis=(0, 1))
        maps = np.stack([output["mask"] for output in outputs])
        gradcams = [_paste_gradcam(o, probabilities.argmax()) for o in outputs]
        size = max(image.pixels.shape)
        gradcam = masks.resize_map(np.mean(gradcams, axis=0), size)
        gradcam = image.crop_to_image(gradcam)
        mask = masks.threshold_by_expected_dice(maps.mean(axis=0), size)
        fold = load_held_out_folds().get(image.patient) if image.patient else None
        is_trained = [fold not in (None, held_out_fold(n)) for n in self.names]
        return Prediction(
            image=image,
            networks=self.names,
            probabilities=probabilities,
            probability_std=classify.std(axis=(0, 1)),
            mask=image.crop_to_image(mask),
            gradcam=gradcam / max(gradcam.max(), 1e-9),
            mask_agreement=_measure_agreement(maps) if len(maps) > 1 else None,
            ood_scores=self._score_ood(outputs),
            n_models_trained_on_patient=sum(is_trained),
        )

    def _score_ood(self, outputs):
        """Average the OOD scores of one slice over networks: {score: float}."""
        scores = []
        for reference, output in zip(self.references, outputs, strict=True):
            head = merge_views(output["segment"][..., 0])
            mask = masks.threshold_by_expected_dice(head, len(head))
            dice = masks.expected_dice(head, mask)
            thumbnail, features = make_thumbnails(output["crop"]), output["features"][0]
            scores.append(compute_ood_scores(reference, features, dice, thumbnail))
        scores = np.mean(scores, axis=0).round(3).tolist()
        return dict(zip(OOD_SCORES, scores, strict=True))


def _first_slice(outputs):
    return {name: values[0] for name, values in outputs.items()}


def _paste_gradcam(output, label):
    """Return a network's Grad-CAM of a class: (IMAGE_SIZE, IMAGE_SIZE)."""
    head = masks.resize_map(
        merge_views(output["gradcam"][..., label]), len(output["crop"])
    )
    return paste_back(head[None], output["box"][None], IMAGE_SIZE)[0]


def _measure_agreement(maps):
    """Compute the mean Dice of masks from maps (n, side, side) and from their mean."""
    threshold, size = masks.threshold_by_expected_dice, maps.shape[1]
    mean_mask = threshold(maps.mean(axis=0), size)
    dice = [masks.compute_dice(mean_mask, threshold(m, size)) for m in maps]
    return round(float(np.mean(dice)), 4)


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


def load_ood_reference(network_path):
    """Load the OOD reference beside a network; one of another network is refused."""
    path = network_path.with_suffix(".npz")
    with file_errors(path, RESTORE), np.load(path, allow_pickle=False) as file:
        reference = dict(file)
        is_match = str(reference["network"]) == sha256(network_path)
        what, got = f"SHA-256 of {network_path.name}", "another file"
        require(is_match, what, got, "that of the reference", RESTORE)
        return reference
