"""Inference with the published networks: class, mask, uncertainty, Grad-CAM, OOD."""

from dataclasses import dataclass
from functools import cache

import keras
import numpy as np
from keras import layers, ops
from PIL import Image
from tqdm import tqdm

from braintumor.core.errors import DatasetError, shorten
from braintumor.core.files import ROOT, sha256
from braintumor.data.labels import LABELS
from braintumor.data.preprocessing import preprocess_slice, to_network_input
from braintumor.data.splits import FOLDS
from braintumor.evaluation.masks import expected_dice, threshold_by_expected_dice
from braintumor.evaluation.metrics import compute_dice
from braintumor.evaluation.scores import load_predictions
from braintumor.inference.formats import InputImage, read_image
from braintumor.inference.ood import OOD_SCORES, THUMBNAIL_SIZE, compute_ood_scores
from braintumor.models import head_crop
from braintumor.models.joint import ZOOMS

PUBLISHED = "results/published/full"  # the run of the networks in models/
IMAGE_SIZE = 256  # pixels per side of the slice that the head is cropped from


@dataclass(frozen=True)
class Prediction:
    """Prediction for one image, by the networks that held out `model_folds`.

    `probabilities` and `probability_std` (3,) are mean and standard deviation over
    networks and views (slice, mirror image); `mask` (bool) and `gradcam` (of the
    predicted class, maximum 1) have the shape of the image. `mask_agreement` is the
    mean Dice of each network's mask with the ensemble's, None for one network.
    `ood_scores` has the mean over networks of each of `OOD_SCORES`.
    """

    image: InputImage
    model_folds: tuple[int, ...]
    probabilities: np.ndarray
    probability_std: np.ndarray
    mask: np.ndarray
    gradcam: np.ndarray
    mask_agreement: float | None
    ood_scores: dict[str, float]
    n_models_trained_on_patient: int = 0

    @property
    def label(self):
        """Predicted class, 1 to 3."""
        return int(self.probabilities.argmax()) + 1

    @property
    def box(self):
        """(top, left, bottom, right) of the mask, ends exclusive; None if empty."""
        if not self.mask.any():
            return None
        rows = np.flatnonzero(self.mask.any(axis=1))
        columns = np.flatnonzero(self.mask.any(axis=0))
        edges = (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1)
        return tuple(map(int, edges))

    @property
    def area_mm2(self):
        """Area of the mask; None if the image has no pixel spacing."""
        spacing = self.image.spacing_mm
        return None if spacing is None else float(self.mask.sum() * np.prod(spacing))

    @property
    def warnings(self):
        """Reasons why the prediction is unreliable, as a list of clauses."""
        warnings, spacing = [], self.image.spacing_mm
        if self.image.is_color:
            warnings.append("it is a color image; MR slices are gray")
        for name, text in OOD_SCORES.items():
            if not self.ood_scores[name] <= 1:  # NaN is a warning too
                warnings.append(text)
        if spacing and max(spacing) > 1.1 * min(spacing):
            height, width = spacing
            warnings.append(f"its pixels are not square: {height:.2f} x {width:.2f} mm")
        if n_models := self.n_models_trained_on_patient:
            text = "networks were trained on this patient; use --held-out"
            warnings.append(f"{n_models} of the {text}")
        return warnings


class Predictor:
    """The published networks of some folds, loaded once.

    Raises DatasetError if a network or its OOD reference is missing, damaged, or of
    another network.
    """

    def __init__(self, folds=FOLDS, directory="models"):
        self.folds = tuple(folds)
        paths = [ROOT / directory / f"fold-{fold}.keras" for fold in self.folds]
        self.references = [_load_ood_reference(path) for path in paths]
        networks = [load_network(path) for path in paths]
        # A single network predicts as in the published evaluation. An ensemble has
        # enough views without zooms.
        zooms = ZOOMS if len(networks) == 1 else (1.0,)
        self.model = build_prediction_model(networks, IMAGE_SIZE, zooms)

    def predict(self, images):
        """Predict a list of InputImage; returns a list of Prediction."""
        slices = [preprocess_slice(image.square_pixels, IMAGE_SIZE) for image in images]
        outputs = self.model.predict_on_batch(to_network_input(np.stack(slices)))
        return [
            self._make_prediction(image, {name: outputs[name][n] for name in outputs})
            for n, image in enumerate(images)
        ]

    def _make_prediction(self, image, outputs):
        size = max(image.pixels.shape)
        probabilities = outputs["classify"].mean(axis=(0, 1))
        gradcam = Image.fromarray(outputs["gradcam"][..., probabilities.argmax()])
        gradcam = np.asarray(gradcam.resize((size, size), Image.BILINEAR))
        gradcam = image.crop_to_image(gradcam)
        maps = outputs["head_maps"]
        masks = [threshold_by_expected_dice(m, len(m)) for m in maps]
        agreement = None
        if len(maps) > 1:
            mean_mask = threshold_by_expected_dice(maps.mean(axis=0), maps.shape[1])
            agreement = float(np.mean([compute_dice(mean_mask, m) for m in masks]))
        dice = [expected_dice(*pair) for pair in zip(maps, masks, strict=True)]
        fold = find_held_out_fold(image.patient)
        return Prediction(
            image=image,
            model_folds=self.folds,
            probabilities=probabilities,
            probability_std=outputs["classify"].std(axis=(0, 1)),
            mask=image.crop_to_image(
                threshold_by_expected_dice(outputs["segment"], size)
            ),
            gradcam=gradcam / max(gradcam.max(), 1e-9),
            mask_agreement=agreement,
            ood_scores=self._score_ood(outputs, np.array(dice)),
            n_models_trained_on_patient=(
                0 if fold is None else sum(other != fold for other in self.folds)
            ),
        )

    def _score_ood(self, outputs, dice):
        scores = [
            compute_ood_scores(
                reference,
                outputs["thumbnail"][None],
                outputs["features"][n : n + 1],
                dice[n : n + 1],
            )
            for n, reference in enumerate(self.references)
        ]
        means = np.concatenate(scores).mean(axis=0).round(3).tolist()
        return dict(zip(OOD_SCORES, means, strict=True))


def predict_files(paths, slice_number=None, held_out=False, batch_size=16):
    """Yield (path, Prediction) of image files, with a progress bar.

    For a file that cannot be used the second is a DatasetError. With `held_out` a
    figshare slice is predicted only by the network whose training excluded its
    patient; other files cannot be used then.
    """
    paths, predictors = list(dict.fromkeys(paths)), {}
    with tqdm(total=len(paths), unit=" images", disable=len(paths) == 1) as bar:
        for start in range(0, len(paths), batch_size):
            results, groups = {}, {}
            for path in paths[start : start + batch_size]:
                try:
                    results[path] = image = read_image(path, slice_number)
                    folds = _held_out_folds(path, image) if held_out else FOLDS
                    groups.setdefault(folds, []).append(path)
                except DatasetError as error:
                    results[path] = error
            for folds, group in groups.items():
                if folds not in predictors:
                    predictors[folds] = Predictor(folds)
                predictions = predictors[folds].predict([results[p] for p in group])
                results |= zip(group, predictions, strict=True)
            for item in results.items():
                bar.update()
                yield item


def _held_out_folds(path, image):
    fold = find_held_out_fold(image.patient)
    if fold is None:
        message = "got no patient of the dataset, expected a .mat file of figshare"
        raise DatasetError(f"{path}: {message}. Leave out --held-out.")
    return (fold,)


def find_held_out_fold(pid):
    """Return the fold whose test set has the patient, or None for other patients."""
    return _patient_folds().get(pid)


@cache
def _patient_folds():
    table, _ = load_predictions(PUBLISHED, "classify")
    return dict(zip(table["pid"], table["fold"].tolist(), strict=True))


def load_network(path):
    """Load a .keras file, without compiling it or running code that it contains.

    Raises DatasetError if the file is missing or damaged, or holds code: a Lambda
    layer, a class or function from elsewhere, a pickle.
    """
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises half a dozen types
        raise DatasetError(
            f"{path}: got no network that loads safely ({shorten(error)}), expected a "
            ".keras file without code. Restore it (`git checkout`) or train it again."
        ) from None


def load_networks(run, task, folds):
    """Load the networks of some folds of a task from a run below the project."""
    directory = ROOT / run / task
    return [load_network(directory / f"fold-{fold}" / "model.keras") for fold in folds]


def _load_ood_reference(network_path):
    path = network_path.with_suffix(".npz")
    try:
        with np.load(path, allow_pickle=False) as file:
            reference = dict(file)
        digest = str(reference["network"])
    except Exception as error:  # NumPy raises half a dozen types
        raise DatasetError(
            f"{path}: got no readable arrays ({shorten(error)}), expected the OOD "
            f"reference of {network_path.name}. Restore it: `git checkout models`."
        ) from None
    if network_path.exists() and digest != sha256(network_path):
        raise DatasetError(
            f"{path}: got the OOD reference of another network, expected that of "
            f"{network_path.name}. Restore both: `git checkout models`."
        )
    return reference


def build_prediction_model(networks, image_size, zooms=(1.0,)):
    """Join networks of `build_joint` into one model with all outputs of a Prediction.

    It takes slices (n, image_size, image_size, 1) in [0, 1]. Its outputs are, by name:
    classify (n, n_networks, 2, 3), for slice and mirror image; segment (n, image_size,
    image_size), mean over networks, views and zooms; head_maps (n, n_networks,
    crop_size, crop_size), each network's map of the head; features (n, n_networks,
    256); thumbnail (n, 256), the head at 16 x 16 pixels; gradcam (n, image_size,
    image_size, 3), mean over networks and views, for each class.
    """
    crop_size = networks[0].input_shape[1]
    networks = [_add_outputs(network) for network in networks]
    image = layers.Input((image_size, image_size, 1))
    head, segment = head_crop.head_box(image), []
    for zoom in zooms:
        box = head_crop.scale_box(head, zoom)
        crop = head_crop.crop_and_resize(image, box, crop_size)
        views = [_predict_views(network, crop) for network in networks]
        mean_map = ops.mean(ops.stack([view["segment"] for view in views]), axis=0)
        segment.append(head_crop.paste_back(mean_map, box, image_size))
        if zoom == 1.0:
            thumbnail = ops.average_pool(crop, crop_size // THUMBNAIL_SIZE)
            outputs = {k: ops.stack([v[k] for v in views], axis=1) for k in views[0]}
    gradcam = ops.mean(outputs.pop("gradcam"), axis=1)
    gradcam = ops.image.resize(gradcam, (crop_size, crop_size))
    outputs |= {
        "head_maps": outputs["segment"][..., 0],
        "segment": ops.mean(ops.stack(segment), axis=0)[..., 0],
        "thumbnail": ops.reshape(thumbnail, (-1, THUMBNAIL_SIZE**2)),
        "gradcam": head_crop.paste_back(gradcam, head, image_size),
    }
    return keras.Model(image, outputs)


def _add_outputs(network):
    """Add the outputs "features" (256,) and "gradcam" (8, 8, 3) to a joint network.

    Grad-CAM (Selvaraju et al. 2017) weights the coarsest feature maps by their mean
    gradients. The logits are linear in each map's maximum and mean, so these gradients
    are the sums of both weights, but for a factor.
    """
    maps = network.get_layer("coarse_features").output
    kernel = network.get_layer("classify").get_weights()[0]
    kernel = kernel.reshape(2, maps.shape[-1], len(LABELS)).sum(axis=0)
    gradcam = layers.Dense(len(LABELS), activation="relu", use_bias=False)
    outputs = {
        **network.output,
        "features": network.get_layer("pooled_features").output,
        "gradcam": gradcam(maps),
    }
    gradcam.set_weights([kernel])
    return keras.Model(network.input, outputs)


def _predict_views(network, crop):
    """Outputs for a crop of the head and its mirror image; maps are averaged."""
    original, mirrored = network(crop), network(ops.flip(crop, 2))
    classify = ops.stack([original["classify"], mirrored["classify"]], axis=1)
    outputs = {"classify": classify, "features": original["features"]}
    for name in ("segment", "gradcam"):
        outputs[name] = (original[name] + ops.flip(mirrored[name], 2)) / 2
    return outputs
