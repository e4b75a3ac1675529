"""Whether an image is out of the distribution of the slices that a network learned from.

Four scores, each divided by its limit, so that over 1 is out of distribution:

- picture: what is left of the head at 16 x 16 pixels after the main components of the training slices are taken away
  (photos, noise, parts of a head);
- orientation: how sure a small network, which learned training slices from the same ones turned and upside down, is
  that the head is not upright: minus the log of the probability that it is (after Hendrycks et al. 2019);
- features: the Mahalanobis distance of what the classifier reads to the training slices' (Lee et al. 2018, with one
  Gaussian; covariance of Ledoit and Wolf 2004);
- mask: one minus the expected Dice of the mask, which is high where no tumor is seen for sure.

A limit is what one in a hundred of the fold's validation slices exceeds, for one network and one score; so up to four
in a hundred of these are called out of distribution by one score or another, and of held-out slices somewhat more.
"""

import warnings

import numpy as np
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

SCORES = {
    "picture": "it does not look like an upright contrast-enhanced T1 slice of a head",
    "orientation": "the head does not stand upright: it may be turned or upside down",
    "features": "what the network sees in it is unlike what it learned from",
    "mask": "the network is sure of no outline: the tumor is faint, or there is none",
}
COMPONENTS = 60  # of the picture
HIDDEN = 64  # units of the network that knows upright heads
SHARE = 0.01  # of the validation slices that exceed a limit


def fit(learned, validation):
    """What `scores` needs of one network: {name: array}, to be kept as .npz.

    `learned` and `validation` are what the network says of the slices that it learned from and of those that chose its
    epoch: {"picture": (n, 256), "features": (n, 256), "expected_dice": (n,)}; of the first, the last is not used.
    """
    components = PCA(COMPONENTS, random_state=0).fit(learned["picture"])
    covariance = LedoitWolf().fit(learned["features"].astype(float))
    reference = {
        "picture_mean": components.mean_,
        "picture_axes": components.components_,
        "features_mean": covariance.location_,
        "features_precision": covariance.precision_,
    }
    reference = {name: value.astype(np.float32) for name, value in reference.items()}
    reference |= _orientation(learned["picture"])
    found = scores(reference | {"limits": np.ones(len(SCORES))}, **validation)
    return reference | {"limits": np.quantile(found, 1 - SHARE, axis=0)}


def _orientation(pictures):
    """Weights of a network of one hidden layer for the log odds that a picture (n, 256) is turned: float16 arrays."""
    upright = pictures.reshape(-1, 16, 16)
    upright = np.concatenate([upright, upright[..., ::-1]])
    turned = [upright[:, ::-1], np.rot90(upright, 1, (1, 2)), np.rot90(upright, -1, (1, 2))]
    network = MLPClassifier(HIDDEN, alpha=0.1, max_iter=60, random_state=0)
    with warnings.catch_warnings(), threadpool_limits(1):  # its steps are small: threads would wait for each other
        warnings.simplefilter("ignore", ConvergenceWarning)  # the epochs are few on purpose: more learn by heart
        network.fit(np.concatenate([upright, *turned]).reshape(-1, 256), np.repeat([0, 1, 1, 1], len(upright)))
    layers = {"weights": network.coefs_, "bias": network.intercepts_}
    return {f"orientation_{name}_{n}": value[n].astype(np.float16) for name, value in layers.items() for n in (0, 1)}


def scores(reference, picture, features, expected_dice):
    """The scores of some slices, (n, 4) float64, in the order of SCORES, as multiples of their limits."""
    apart = picture.astype(float) - reference["picture_mean"]
    rest = apart - apart @ reference["picture_axes"].T @ reference["picture_axes"]
    away = features.astype(float) - reference["features_mean"]
    squared = np.einsum("ni,ij,nj->n", away, reference["features_precision"], away)
    hidden = np.maximum(picture @ reference["orientation_weights_0"] + reference["orientation_bias_0"], 0)
    turned = (hidden @ reference["orientation_weights_1"] + reference["orientation_bias_1"])[:, 0]
    found = [np.linalg.norm(rest, axis=1), np.logaddexp(0, turned), np.sqrt(np.maximum(squared, 0)), 1 - expected_dice]
    return np.stack(found, axis=1) / reference["limits"]
