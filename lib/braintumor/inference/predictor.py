"""Inference with the published networks: class, mask, uncertainty, Grad-CAM, OOD."""

from dataclasses import dataclass
from functools import cache

import keras
import numpy as np
from keras import layers, ops
from PIL import Image
from tqdm import tqdm

from braintumor.core.errors import DatasetError, require
from braintumor.core.files import ROOT, sha256
from braintumor.data.labels import LABELS
from braintumor.data.preprocessing import preprocess_slice, to_network_input
from braintumor.data.raster import file_errors
from braintumor.data.splits import FOLDS
from braintumor.evaluation.masks import expected_dice, threshold_by_expected_dice
from braintumor.evaluation.metrics import compute_dice
from braintumor.evaluation.scores import load_predictions
from braintumor.inference.formats import InputImage, read_image
from braintumor.inference.ood import OOD_SCORES, THUMBNAIL_SIZE, compute_ood_scores
from braintumor.models import head_crop
from braintumor.models.joint import ZOOMS

PUBLISHED = "results/published/full"  # the run of the networks in models/
RESTORE = "Restore it (`git checkout models`) or train it again"
IMAGE_SIZE = 256  # pixels per side of the slice that the head is cropped from


@dataclass(frozen=True)
class Prediction:
    """Prediction for one image, by the networks that held out `model_folds`."""

    image: InputImage
    model_folds: tuple[int, ...]
    probabilities: np.ndarray  # (3,), mean over networks and views: slice, mirror image
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
        warnings, (height, width) = [], self.image.spacing_mm or (1, 1)
        if self.image.is_color:
            warnings.append("it is a color image; MR slices are gray")
        for name, text in OOD_SCORES.items():
            if not self.ood_scores[name] <= 1:  # NaN is a warning too
                warnings.append(text)
        if max(height, width) > 1.1 * min(height, width):
            warnings.append(f"its pixels are not square: {height:.2f} x {width:.2f} mm")
        if n_models := self.n_models_trained_on_patient:
            text = "networks were trained on this patient; use --held-out"
            warnings.append(f"{n_models} of the {text}")
        return warnings


class Predictor:
    """The published networks of some folds, loaded once, with their OOD references."""

    def __init__(self, folds=FOLDS, directory="models"):
        self.folds = tuple(folds)
        paths = [ROOT / directory / f"fold-{fold}.keras" for fold in self.folds]
        networks = [load_network(path) for path in paths]
        self.references = [_load_ood_reference(path) for path in paths]
        # one network predicts as in its evaluation; several have enough views
        zooms = ZOOMS if len(networks) == 1 else (1.0,)
        self.model = build_prediction_model(networks, IMAGE_SIZE, zooms)

    def predict(self, image):
        """Predict an InputImage; returns a Prediction."""
        size, fold = max(image.pixels.shape), load_held_out_folds().get(image.patient)
        x = preprocess_slice(image.square_pixels, IMAGE_SIZE)
        outputs = self.model.predict_on_batch(to_network_input(x[np.newaxis]))
        outputs = {name: values[0] for name, values in outputs.items()}
        probabilities = outputs["classify"].mean(axis=(0, 1))
        gradcam = Image.fromarray(outputs["gradcam"][..., probabilities.argmax()])
        gradcam = np.asarray(gradcam.resize((size, size), Image.BILINEAR))
        gradcam = image.crop_to_image(gradcam)
        mask = threshold_by_expected_dice(outputs["segment"], size)
        maps = outputs["head_maps"]
        mean_mask = threshold_by_expected_dice(maps.mean(axis=0), maps.shape[1])
        masks = [threshold_by_expected_dice(m, len(m)) for m in maps]
        agreement = np.mean([compute_dice(mean_mask, m) for m in masks])
        dice = [expected_dice(*pair) for pair in zip(maps, masks, strict=True)]
        inputs = zip(self.references, outputs["features"], dice, strict=True)
        scores = [compute_ood_scores(*row, outputs["thumbnail"]) for row in inputs]
        scores = np.mean(scores, axis=0).round(3).tolist()
        return Prediction(
            image=image,
            model_folds=self.folds,
            probabilities=probabilities,
            probability_std=outputs["classify"].std(axis=(0, 1)),
            mask=image.crop_to_image(mask),
            gradcam=gradcam / max(gradcam.max(), 1e-9),
            mask_agreement=round(float(agreement), 4) if len(maps) > 1 else None,
            ood_scores=dict(zip(OOD_SCORES, scores, strict=True)),
            n_models_trained_on_patient=sum(fold not in (None, f) for f in self.folds),
        )


def predict_files(paths, slice_number=None, held_out=False):
    """Yield (path, Prediction) of image files, with a progress bar.

    For a file that cannot be used the second is a DatasetError. With `held_out` a
    figshare slice is predicted only by the network whose training excluded its
    patient; other files cannot be used then.
    """
    load_predictor = cache(Predictor)
    for path in tqdm(paths, unit=" images", disable=len(paths) == 1):
        try:
            image, folds = read_image(path, slice_number), FOLDS
            if held_out:
                folds = (load_held_out_folds().get(image.patient),)
                got, expected = "no patient of the dataset", "a .mat file of figshare"
                require(folds[0], path, got, expected, "Leave out --held-out")
        except DatasetError as error:
            yield path, error
        else:
            yield path, load_predictor(folds).predict(image)


@cache
def load_held_out_folds():
    """Return {patient: the fold whose test set has the patient} of `PUBLISHED`."""
    table, _ = load_predictions(PUBLISHED, "classify")
    return dict(zip(table["pid"], table["fold"].tolist(), strict=True))


def load_network(path):
    """Load a .keras file without compiling it; code in it raises DatasetError."""
    with file_errors(path, RESTORE):
        return keras.models.load_model(path, compile=False, safe_mode=True)


def _load_ood_reference(network_path):
    path = network_path.with_suffix(".npz")
    with file_errors(path, RESTORE):
        with np.load(path, allow_pickle=False) as file:
            reference = dict(file)
        if reference["network"] != sha256(network_path):
            raise ValueError(f"OOD reference of another network than {network_path}")
        return reference


def build_prediction_model(networks, image_size, zooms=(1.0,)):
    """Join networks of `build_joint` into one model with all outputs of a Prediction.

    It takes slices (n, side, side, 1) in [0, 1], with `image_size` as side. Its outputs
    are classify (n, n_networks, 2, 3), of slice and mirror image; segment (n, side,
    side) and, by class, gradcam (n, side, side, 3), means over networks and views, of
    segment over zooms, too; head_maps (n, n_networks, crop_size, crop_size);
    features (n, n_networks, 256); thumbnail (n, 256), the head at 16 x 16 pixels.
    """
    crop_size = networks[0].input_shape[1]
    networks = [_add_outputs(network) for network in networks]
    image = layers.Input((image_size, image_size, 1))
    head, segment = head_crop.head_box(image), []
    for zoom in zooms:
        box = head_crop.scale_box(head, zoom)
        crop = head_crop.crop_and_resize(image, box, crop_size)
        views = [_predict_views(network, crop) for network in networks]
        views = {k: ops.stack([v[k] for v in views], axis=1) for k in views[0]}
        mean_map = ops.mean(views["segment"], axis=1)
        segment.append(head_crop.paste_back(mean_map, box, image_size))
        if zoom == 1.0:
            outputs = views
            thumbnail = ops.average_pool(crop, crop_size // THUMBNAIL_SIZE)
    gradcam = ops.mean(outputs["gradcam"], axis=1)
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
    features = network.get_layer("pooled_features").output
    gradcam = ops.relu(ops.matmul(maps, kernel))
    outputs = network.output | {"features": features, "gradcam": gradcam}
    return keras.Model(network.input, outputs)


def _predict_views(network, crop):
    """Predict a crop of the head and its mirror image; average their maps."""
    original, mirrored = network(crop), network(ops.flip(crop, 2))
    classify = ops.stack([original["classify"], mirrored["classify"]], axis=1)
    outputs = {"classify": classify, "features": original["features"]}
    for name in ("segment", "gradcam"):
        outputs[name] = (original[name] + ops.flip(mirrored[name], 2)) / 2
    return outputs
