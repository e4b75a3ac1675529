"""Fit the reference that the OOD scores of one network need, for publish.py."""

import warnings

import numpy as np
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from braintumor.inference.ood import OOD_SCORES, THUMBNAIL_SIZE, compute_ood_scores


def fit_ood_reference(training, validation):
    """Fit what `compute_ood_scores` needs for one network; returns a dict of arrays.

    `training` and `validation` are dicts of its outputs: "thumbnail" (n, 256),
    "features" (n, n_features) and "expected_dice" (n,).
    """
    pca = PCA(60, random_state=0).fit(training["thumbnail"])
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
    return reference | {"thresholds": np.quantile(scores, 0.99, axis=0)}


def _fit_orientation(thumbnails):
    """Fit an MLP that predicts whether thumbnails (n, 256) are rotated or flipped."""
    upright = thumbnails.reshape(-1, THUMBNAIL_SIZE, THUMBNAIL_SIZE)
    upright = np.concatenate([upright, upright[..., ::-1]])
    rotated = [np.rot90(upright, turns, (1, 2)) for turns in (1, -1)]
    x = np.concatenate([upright, upright[:, ::-1], *rotated]).reshape(-1, 256)
    y = np.repeat([0, 1, 1, 1], len(upright))
    network = MLPClassifier(64, alpha=0.1, max_iter=60, random_state=0)
    # its steps are too small for several threads; few iterations prevent overfitting
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(x, y)
    arrays = {f"orientation_weights_{n}": w for n, w in enumerate(network.coefs_)}
    arrays |= {f"orientation_bias_{n}": b for n, b in enumerate(network.intercepts_)}
    return {name: array.astype(np.float16) for name, array in arrays.items()}
