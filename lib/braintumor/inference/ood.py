"""Out-of-distribution (OOD) scores: whether an image resembles the training slices.

Each of the four scores is divided by its threshold, so that a score over 1 is OOD. A
threshold is the 99th percentile on the fold's validation slices, for one network and
one score: up to 4% of validation slices exceed at least one threshold, and somewhat
more of the held-out slices.
"""

import warnings

import numpy as np
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

OOD_SCORES = {
    "reconstruction": "it does not look like an upright contrast-enhanced T1 slice",
    "orientation": "the head is not upright: it may be rotated or upside down",
    "features": "its features are unlike those of the training slices",
    "mask": "the expected Dice is low: the tumor is faint, or there is none",
}
THUMBNAIL_SIZE = 16  # pixels per side of the head, input of two of the scores
N_COMPONENTS = 60  # of the thumbnails
N_HIDDEN = 64  # units of the network for orientation
QUANTILE = 0.99  # of the validation slices, which is the threshold


def fit_ood_reference(training, validation):
    """Fit what `compute_ood_scores` needs for one network; returns a dict of arrays.

    `training` and `validation` are dicts of its outputs: "thumbnail" (n, 256),
    "features" (n, n_features) and "expected_dice" (n,).
    """
    pca = PCA(N_COMPONENTS, random_state=0).fit(training["thumbnail"])
    covariance = LedoitWolf().fit(training["features"].astype(float))
    reference = {
        "pca_mean": pca.mean_,
        "pca_components": pca.components_,
        "features_mean": covariance.location_,
        "features_precision": covariance.precision_,
    }
    reference = {name: value.astype(np.float32) for name, value in reference.items()}
    reference |= _fit_orientation(training["thumbnail"])
    reference["thresholds"] = np.ones(len(OOD_SCORES))
    scores = compute_ood_scores(reference, **validation)
    return reference | {"thresholds": np.quantile(scores, QUANTILE, axis=0)}


def _fit_orientation(thumbnails):
    """Fit an MLP that predicts whether thumbnails (n, 256) are rotated or flipped."""
    upright = thumbnails.reshape(-1, THUMBNAIL_SIZE, THUMBNAIL_SIZE)
    upright = np.concatenate([upright, upright[..., ::-1]])
    rotated = [np.rot90(upright, turns, (1, 2)) for turns in (1, -1)]
    x = np.concatenate([upright, upright[:, ::-1], *rotated]).reshape(-1, 256)
    y = np.repeat([0, 1, 1, 1], len(upright))
    network = MLPClassifier(N_HIDDEN, alpha=0.1, max_iter=60, random_state=0)
    # its steps are too small for several threads; few iterations prevent overfitting
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(x, y)
    layers = enumerate(zip(network.coefs_, network.intercepts_, strict=True))
    parameters = {}
    for n, (weights, bias) in layers:
        parameters[f"orientation_weights_{n}"] = weights.astype(np.float16)
        parameters[f"orientation_bias_{n}"] = bias.astype(np.float16)
    return parameters


def compute_ood_scores(reference, thumbnail, features, expected_dice):
    """Compute the OOD scores (n, 4) of slices, as multiples of their thresholds.

    - reconstruction: distance of the thumbnail from its projection onto the main
      components of the training thumbnails;
    - orientation: minus the log-probability of an upright head (Hendrycks et al. 2019);
    - features: Mahalanobis distance to the training slices (Lee et al. 2018), with one
      Gaussian and the covariance of Ledoit and Wolf (2004);
    - mask: 1 - expected Dice of the predicted mask.
    """
    centered = thumbnail.astype(float) - reference["pca_mean"]
    components = reference["pca_components"]
    residual = centered - centered @ components.T @ components
    hidden = thumbnail @ reference["orientation_weights_0"]
    hidden = np.maximum(hidden + reference["orientation_bias_0"], 0)
    logit = hidden @ reference["orientation_weights_1"]
    logit = (logit + reference["orientation_bias_1"])[:, 0]
    delta = features.astype(float) - reference["features_mean"]
    squared = np.einsum("ni,ij,nj->n", delta, reference["features_precision"], delta)
    scores = [
        np.linalg.norm(residual, axis=1),
        np.logaddexp(0, logit),
        np.sqrt(np.maximum(squared, 0)),
        1 - expected_dice,
    ]
    return np.stack(scores, axis=1) / reference["thresholds"]
