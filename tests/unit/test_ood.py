"""OOD scores: training-like slices are under the thresholds, others over them."""

import numpy as np
import pytest
from ood_reference import fit_ood_reference

from braintumor.inference.ood import (
    MIN_SKULL_DEPTH,
    OOD_SCORES,
    compute_ood_scores,
    measure_skull_depth,
)

MIXING = np.random.default_rng(1).normal(size=(10, 256))


def sample_outputs(rng, n, noise=0.1, features=0.0, dice=0.9):
    """Outputs of a network for n slices whose thumbnails are brighter below."""
    upright = np.repeat(np.arange(16) >= 8, 16)
    thumbnail = upright + rng.normal(size=(n, 10)) @ MIXING * 0.1
    return {
        "thumbnail": thumbnail + rng.normal(0, noise, (n, 256)),
        "features": rng.normal(features, size=(n, 256)),
        "expected_dice": dice + rng.uniform(-0.05, 0.05, n),
    }


@pytest.fixture(scope="module")
def reference():
    rng = np.random.default_rng(0)
    return fit_ood_reference(sample_outputs(rng, 800), sample_outputs(rng, 400))


def share_over(reference, outputs):
    scores = compute_ood_scores(reference, **outputs)
    return dict(zip(OOD_SCORES, (scores > 1).mean(axis=0), strict=True))


def test_slices_unlike_the_training_slices_are_over_the_thresholds(reference):
    outputs = sample_outputs(np.random.default_rng(2), 400)
    assert all(share < 0.05 for share in share_over(reference, outputs).values())
    changes = {"noise": 1.0, "features": 3.0, "dice": 0.3}
    scores = ("reconstruction", "features", "mask")
    for score, (name, value) in zip(scores, changes.items(), strict=True):
        outputs = sample_outputs(np.random.default_rng(2), 50, **{name: value})
        assert share_over(reference, outputs)[score] > 0.95


def test_orientation_score_detects_rotation_but_not_mirror_images(reference):
    outputs = sample_outputs(np.random.default_rng(2), 50)
    mirrored = outputs["thumbnail"].reshape(-1, 16, 16)[..., ::-1]
    for turns in range(4):
        outputs["thumbnail"] = np.rot90(mirrored, turns, (1, 2)).reshape(-1, 256)
        share = share_over(reference, outputs)["orientation"]
        assert share > 0.9 if turns else share < 0.1


def test_head_without_its_skull_is_recognized():
    radius = np.hypot(*np.indices((256, 256)) - 128)
    brain = np.where(radius < 85, 120, 0).astype(np.uint8)
    head = np.where((radius > 95) & (radius < 105), np.uint8(220), brain)
    assert measure_skull_depth(brain) < MIN_SKULL_DEPTH < measure_skull_depth(head)
    assert np.isnan(measure_skull_depth(np.zeros((256, 256), np.uint8)))
