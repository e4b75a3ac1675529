"""Out-of-distribution (OOD) scores: whether an image resembles the training slices.

Each score is divided by its threshold, the 99th percentile on the fold's validation
slices: over 1 is OOD. Up to 4% of validation slices exceed at least one threshold, and
somewhat more of the held-out slices.
"""

import numpy as np
from scipy import ndimage

OOD_SCORES = {
    "reconstruction": "it does not look like an upright contrast-enhanced T1 slice",
    "orientation": "the head is not upright: it may be rotated or upside down",
    "features": "its features are unlike those of the training slices",
    "mask": "the expected Dice is low: the tumor is faint, or there is none",
}
THUMBNAIL_SIZE = 16  # pixels per side of the head, input of two of the scores
# 5th percentile of 400 training slices; 82% of them are below it when 16 pixels of 256
# are removed from the edge of the head
MIN_SKULL_DEPTH = 0.21


def compute_ood_scores(reference, features, expected_dice, thumbnail):
    """Compute the OOD scores (..., 4) of slices, as multiples of their thresholds.

    - reconstruction: distance of the thumbnail (..., 256) from its projection onto the
      main components of the training thumbnails;
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
    logit = (logit + reference["orientation_bias_1"])[..., 0]
    delta = features.astype(float) - reference["features_mean"]
    squared = np.sum(delta @ reference["features_precision"] * delta, axis=-1)
    scores = [
        np.linalg.norm(residual, axis=-1),
        np.logaddexp(0, logit),
        np.sqrt(np.maximum(squared, 0)),
        1 - expected_dice,
    ]
    return np.stack(scores, axis=-1) / reference["thresholds"]


def measure_skull_depth(gray):
    """Measure the dark layer of the skull between bright scalp and brain.

    Rays run from the center of the head upward and sideward. On each, the depth is
    1 - minimum / (lower of the maxima on both sides), near the outer edge.

    Parameters
    ----------
    gray : uint8 array (256, 256), as from `preprocess_slice`

    Returns
    -------
    float, the lower quartile over rays: below MIN_SKULL_DEPTH the skull seems to be
        stripped; NaN if no head is found
    """
    smooth = ndimage.gaussian_filter(gray.astype(np.float32), 0.7)
    angles = np.deg2rad(np.arange(180, 361, 4))
    directions = np.stack([np.sin(angles), np.cos(angles)])[..., None]
    is_head = smooth > 20
    if not is_head.any():
        return np.nan
    center = np.reshape(ndimage.center_of_mass(is_head), (2, 1, 1))
    points = center + np.arange(128) * directions
    rays = ndimage.map_coordinates(smooth, points, order=1)
    edges = 127 - (rays[:, ::-1] > 20).argmax(axis=1)[:, None]
    layers = np.take_along_axis(rays, (edges - np.arange(30)).clip(0), axis=1)
    outer = np.maximum.accumulate(layers, axis=1)
    inner = np.maximum.accumulate(layers[:, ::-1], axis=1)[:, ::-1]
    depths = 1 - layers / np.minimum(outer, inner).clip(1)
    return float(np.percentile(depths.max(axis=1), 25))
