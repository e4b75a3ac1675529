"""The published networks asked about images: class, mask, uncertainty, Grad-CAM, and whether to believe it.

Apart from `evaluation.masks`, which training reaches: what is written here makes no trained fold stale.
"""

import hashlib
from dataclasses import dataclass
from functools import cache

import keras
import numpy as np
from keras import layers, ops
from PIL import Image
from tqdm import tqdm

from braintumor.core.errors import DatasetError, in_short
from braintumor.core.files import ROOT
from braintumor.data import formats as images
from braintumor.data.prepared import LABELS, scaled
from braintumor.data.splits import FOLDS
from braintumor.evaluation import metrics
from braintumor.evaluation.masks import PUBLISHED, dice_mask, load_network
from braintumor.evaluation.scores import gather
from braintumor.inference import ood
from braintumor.models.original import cut_out, grown, head_box, put_back
from braintumor.training.augmentation import as_input

ZOOMS = (0.8, 1.0, 1.2)  # of one network's mask, as in notebook 08


@dataclass(frozen=True)
class Answer:
    """What the published networks say of one image.

    `folds` are those that the networks held out. `probabilities` (3,) is the mean over networks and views (the slice,
    its mirror image), `spread` (3,) their standard deviation. `mask` (rows, columns) bool: something is always drawn,
    tumor or not. `grad_cam` (rows, columns) float32 up to 1, of the called class. `agreement` is the mean Dice of each
    network's own mask with the mask of all, None of one network. `ood` is {score: value} of `ood.SCORES`, the mean over
    networks; over 1 is out of distribution. `learned` is how many of the networks learned from this patient.
    """

    image: images.Image
    folds: tuple
    probabilities: np.ndarray
    spread: np.ndarray
    mask: np.ndarray
    grad_cam: np.ndarray
    agreement: float | None
    ood: dict
    learned: int = 0

    @property
    def label(self):
        """The called class, 1 to 3."""
        return int(self.probabilities.argmax()) + 1

    @property
    def box(self):
        """(top, left, bottom, right) of the mask in pixels, the last two exclusive; None of an empty mask."""
        if not self.mask.any():
            return None
        rows, columns = (np.flatnonzero(self.mask.any(axis=axis)) for axis in (1, 0))
        return tuple(int(n) for n in (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1))

    @property
    def area_mm2(self):
        """The mask's area; None where the image does not say how far its pixels are apart."""
        spacing = self.image.spacing_mm
        return None if spacing is None else float(self.mask.sum() * spacing[0] * spacing[1])

    @property
    def doubts(self):
        """Why it should not be believed, in words: empty where nothing speaks against it."""
        found = [ood.SCORES[name] for name, score in self.ood.items() if not score <= 1]  # not a number is a doubt too
        if self.image.color:
            found.insert(0, "it is a color image; MR slices are gray")
        spacing = self.image.spacing_mm
        if spacing and max(spacing) > 1.1 * min(spacing):
            found.append(f"its pixels are not square: {spacing[0]:.2f} mm high, {spacing[1]:.2f} mm wide")
        if self.learned:
            found.append(f"{self.learned} of the networks learned from this patient; ask with --held-out")
        return found


class Networks:
    """The published networks of some folds, loaded once, to be asked about any number of images.

    Raises DatasetError if a network, or what tells images that are foreign to it, is missing or of another network.
    """

    def __init__(self, folds=FOLDS, folder="models"):
        self.folds, self.references, members = tuple(folds), [], []
        for fold in folds:
            network, reference = (ROOT / folder / f"fold-{fold}{suffix}" for suffix in (".keras", ".npz"))
            for path in (network, reference):
                if not path.exists():
                    raise DatasetError(f"{path}: is not there; `git checkout {folder}` brings the published ones back")
            try:
                with np.load(reference, allow_pickle=False) as file:
                    self.references.append(dict(file))
                belongs_to = str(self.references[-1]["network"])
            except Exception as error:  # NumPy answers a damaged file with half a dozen exception types
                raise DatasetError(
                    f"{reference}: cannot be read as arrays of numbers ({in_short(error)}); `git checkout {folder}` "
                    "brings the published one back"
                ) from None
            if belongs_to != sha256(network):
                raise DatasetError(f"{reference}: belongs to another {network.name}; make both by publish_models.py")
            members.append(load_network(network))
        # a mask of one network is made as the published scores were; several are views enough
        self.model = ensemble(members, ZOOMS if len(members) == 1 else (1.0,))

    def predict(self, asked):
        """Answers, in the order of `asked`, a list of `images.Image`."""
        side = self.model.input_shape[1]
        said = self.model.predict_on_batch(as_input(np.stack([scaled(one.square, side) for one in asked])))
        return [self._answer(one, {name: value[n] for name, value in said.items()}) for n, one in enumerate(asked)]

    def _answer(self, image, said):
        views, size = said["classify"].reshape(-1, len(LABELS)), max(image.pixels.shape)
        own = [dice_mask(one, len(one)) for one in said["own"]]
        of_all = dice_mask(said["own"].mean(axis=0), said["own"].shape[1])
        expected = [expected_dice(*pair) for pair in zip(said["own"], own, strict=True)]
        found = [
            ood.scores(reference, said["picture"][None], features[None], np.array([dice]))[0]
            for reference, features, dice in zip(self.references, said["features"], expected, strict=True)
        ]
        probabilities = views.mean(axis=0)
        grad_cam = Image.fromarray(said["grad_cam"][..., probabilities.argmax()])
        grad_cam = image.cropped(np.asarray(grad_cam.resize((size, size), Image.BILINEAR)))
        fold = fold_of(image.patient)
        return Answer(
            image,
            self.folds,
            probabilities,
            views.std(axis=0),
            image.cropped(dice_mask(said["segment"], size)),
            grad_cam / max(grad_cam.max(), 1e-9),
            float(np.mean([metrics.dice(of_all, one) for one in own])) if len(own) > 1 else None,
            dict(zip(ood.SCORES, np.mean(found, axis=0).round(3).tolist(), strict=True)),
            0 if fold is None else sum(other != fold for other in self.folds),
        )


def answers(paths, slice_number=None, held_out=False, batch=16):
    """Ask the published networks about image files: yields (path, Answer) in order, with a progress bar.

    For a file that cannot be read, or not be asked about, a DatasetError comes in the answer's place. With `held_out`
    each of figshare's slices is asked of the one network that never saw its patient; other files have none.
    Raises DatasetError if a network is missing.
    """
    paths, loaded = list(dict.fromkeys(paths)), {}
    with tqdm(total=len(paths), unit=" images", disable=len(paths) == 1) as bar:
        for at in range(0, len(paths), batch):
            found = {path: _read(path, slice_number, held_out) for path in paths[at : at + batch]}
            given = {}
            for folds in dict.fromkeys(folds for _, folds in found.values() if folds):
                if folds not in loaded:
                    loaded[folds] = Networks(folds)
                group = {path: image for path, (image, asked) in found.items() if asked == folds}
                given |= zip(group, loaded[folds].predict(list(group.values())), strict=True)
            for path, (image, _) in found.items():
                bar.update()
                yield path, given.get(path, image)


def _read(path, slice_number, held_out):
    """(Image, the folds to ask), or (DatasetError, None)."""
    try:
        image = images.read(path, slice_number)
    except DatasetError as error:
        return error, None
    fold = fold_of(image.patient)
    if held_out and fold is None:
        return DatasetError(
            f"{path}: names no patient of the dataset, so no network is known to have held it out; give figshare's own "
            ".mat file, or leave out --held-out"
        ), None
    return image, (fold,) if held_out else FOLDS


def fold_of(patient):
    """The fold that held out one of the dataset's patient identifiers in the published run; None of any other."""
    return _folds().get(patient)


@cache
def _folds():
    table, _ = gather(PUBLISHED, "classify")
    return dict(zip(table["pid"], table["fold"], strict=True))


def ensemble(members, zooms):
    """Published networks as one Keras model: slices (n, side, side, 1) in [0, 1] to all that an answer needs.

    `classify` (n, members, 2, 3), of the slice and its mirror image; `segment` (n, side, side), the mean of all;
    `own` (n, members, 128, 128), each network's map of the head alone; `features` (n, members, 256); `picture`
    (n, 256), the head at 16 x 16 pixels; `grad_cam` (n, side, side, 3), the mean of all for each class.
    """
    side, nets = members[0].input_shape[1], [_opened(member.get_layer("residual")) for member in members]
    image = layers.Input((side, side, 1))
    head, cut = head_box(image), nets[0].input_shape[1]
    said, maps, cams = {"classify": [], "own": [], "features": []}, [], []
    for zoom in zooms:
        box = grown(head, zoom)
        view = cut_out(image, box, cut)
        both = [(net(view), net(ops.flip(view, 2))) for net in nets]
        masks = [layers.Average()([one["segment"], ops.flip(other["segment"], 2)]) for one, other in both]
        maps.append(put_back(_mean(masks), box, side)[..., 0])
        if zoom == 1.0:
            said["classify"] = [ops.stack([one["classify"], other["classify"]], axis=1) for one, other in both]
            said["own"], said["features"] = [mask[..., 0] for mask in masks], [one["features"] for one, _ in both]
            cams = [cam for one, other in both for cam in (one["grad_cam"], ops.flip(other["grad_cam"], 2))]
            picture = layers.Flatten()(layers.AveragePooling2D(cut // 16)(view))
    answers = {name: ops.stack(values, axis=1) for name, values in said.items()}
    cam = put_back(ops.image.resize(_mean(cams), (cut, cut)), head, side)
    return keras.Model(image, answers | {"segment": _mean(maps), "picture": picture, "grad_cam": cam})


def _mean(tensors):
    return layers.Average()(tensors) if len(tensors) > 1 else tensors[0]


def _opened(net):
    """A network of notebook 08 that also says what its class was read from: `features` (256,), `grad_cam` (8, 8, 3).

    Grad-CAM (Selvaraju et al. 2017) of each class: the coarsest maps, weighted by their gradients' means, and 0 where
    that is negative. The class is linear in each map's greatest and mean response, so the mean gradient is known
    without a backward pass: both of the map's weights, added, but for a factor.
    """

    def layer(kind):
        return next(one for one in net.layers if isinstance(one, kind))

    maps, dense = layer(layers.GlobalMaxPooling2D).input, layer(layers.Dense)
    weights = dense.get_weights()[0].reshape(2, maps.shape[-1], len(LABELS)).sum(axis=0)
    cam = layers.Dense(len(LABELS), activation="relu", use_bias=False, name="grad_cam")
    answers = {**net.output, "features": layer(layers.Dropout).input, "grad_cam": cam(maps)}
    cam.set_weights([weights])
    return keras.Model(net.input, answers)


def expected_dice(probability, mask):
    """The Dice of `mask` with a tumor that is as probable as `probability` says, both (side, side); 0 if all are 0."""
    return float(2 * probability[mask].sum() / max(mask.sum() + probability.sum(), 1e-9))


def sha256(path):
    """Hexadecimal SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
