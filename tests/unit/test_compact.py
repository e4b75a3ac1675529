import numpy as np
import pytest

from braintumor.models.compact import build_compact

pytestmark = pytest.mark.usefixtures("deterministic")


def test_compact_has_the_same_parameters_at_every_size():
    networks = [build_compact(image_size) for image_size in (64, 80)]
    assert [network.count_params() for network in networks] == [292_691] * 2
    images = np.random.default_rng(0).random((4, 80, 80, 1))
    probabilities = networks[1].predict(images, verbose=0)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(4), abs=1e-6)


def test_small_slices_are_an_error():
    with pytest.raises(ValueError, match="image_size"):
        build_compact(63)
