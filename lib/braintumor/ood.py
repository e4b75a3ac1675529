"""Whether an image is out of the distribution of the slices that a network learned from.

Three scores, each divided by its limit, so that over 1 is out of distribution:

- picture: what is left of the head at 16 x 16 pixels after the main components of the training slices are taken away
  (photos, noise, parts of a head);
- features: the Mahalanobis distance of what the classifier reads to the training slices' (Lee et al. 2018, with one
  Gaussian; covariance of Ledoit and Wolf 2004);
- mask: one minus the expected Dice of the mask, which is high where no tumor is seen for sure.

A limit is what one in a hundred of the fold's validation slices exceeds, for one network and one score; so up to three
in a hundred slices like these are called out of distribution by one score or another.
"""

import numpy as np
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA

SCORES = {
    "picture": "it does not look like an upright contrast-enhanced T1 slice of a head",
    "features": "what the network sees in it is unlike what it learned from",
    "mask": "the network is sure of no outline: the tumor is faint, or there is none",
}
COMPONENTS = 60  # of the picture
SHARE = 0.01  # of the validation slices that exceed a limit


def fit(learned, validation):
    """What `scores` needs of one network: {name: float64 array}, to be kept as .npz.

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
    found = scores(reference | {"limits": np.ones(len(SCORES))}, **validation)
    return reference | {"limits": np.quantile(found, 1 - SHARE, axis=0)}


def scores(reference, picture, features, expected_dice):
    """The scores of some slices, (n, 3) float64, in the order of SCORES, as multiples of their limits."""
    apart = picture.astype(float) - reference["picture_mean"]
    rest = apart - apart @ reference["picture_axes"].T @ reference["picture_axes"]
    away = features.astype(float) - reference["features_mean"]
    squared = np.einsum("ni,ij,nj->n", away, reference["features_precision"], away)
    found = np.stack([np.linalg.norm(rest, axis=1), np.sqrt(np.maximum(squared, 0)), 1 - expected_dice], axis=1)
    return found / reference["limits"]
