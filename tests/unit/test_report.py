"""Reports of predictions: dictionary, table row, overlays, HTML page, file names."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from samples import make_prediction

from braintumor.inference import report
from braintumor.inference.formats import InputImage
from braintumor.inference.ood import OOD_SCORES

PIXELS = np.add.outer(np.arange(40), np.arange(48)).astype(np.uint8)


@pytest.fixture
def prediction():
    return make_prediction(InputImage("slice.png", PIXELS, spacing_mm=(0.5, 0.5)))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"image": InputImage("a", PIXELS, warnings=("color",))}, "color"),
        ({"image": InputImage("a", PIXELS, spacing_mm=(0.5, 1.0))}, "not square"),
        ({"n_models_trained_on_patient": 4}, "4 of the networks were trained"),
        ({"ood_scores": dict.fromkeys(OOD_SCORES, 2.0)}, "not look like"),
        ({"ood_scores": dict.fromkeys(OOD_SCORES, np.nan)}, "not look like"),
    ],
)
def test_unreliable_prediction_has_a_warning_everywhere(prediction, changes, expected):
    prediction = replace(prediction, **changes)
    (warning, *_) = prediction.warnings
    assert expected in warning
    assert f"WARNING: {warning}" in report.format_row(report.to_dict(prediction))
    page = report.render_report(prediction)
    assert page.index("This prediction is unreliable") < page.index("Predicted class")


def test_dictionary_is_json_and_has_no_area_or_box_without_them(prediction):
    image = replace(prediction.image, label=1)
    result = json.loads(json.dumps(report.to_dict(replace(prediction, image=image))))
    assert result["predicted_class"] == "glioma"
    assert result["true_class"] == "meningioma"
    assert result["probabilities"]["pituitary tumor"] == pytest.approx(0.2)
    assert result["probability_std"] == pytest.approx(0.02)
    assert (result["area_pixels"], result["area_mm2"]) == (42, 10.5)
    assert result["box"] == [4, 5, 10, 12]
    assert result["networks"] == ["without-1", "without-2"]
    assert result["warnings"] == []
    row = report.format_row(result)  # of a table, under its header
    for name, value in (("probability", "0.700"), ("    mm2", "10"), ("box", "[4,")):
        start = report.HEADER.index(name)
        assert row[start : start + len(name)].strip() == value
    empty = np.zeros(PIXELS.shape, bool)
    prediction = make_prediction(InputImage("slice.png", PIXELS), mask=empty)
    result = report.to_dict(prediction)
    assert (result["area_pixels"], result["area_mm2"], result["box"]) == (0, None, None)
    assert "empty mask" in report.format_row(result)
    assert "the mask is empty" in report.render_report(prediction)


def test_files_have_the_shape_of_the_image_and_unique_names(prediction, tmp_path):
    overlay = report.mask_overlay(prediction)
    assert overlay.shape == report.gradcam_overlay(prediction).shape == (40, 48, 3)
    assert (overlay[20, 20] == report.gray_image(prediction)[20, 20]).all()
    assert (overlay[4, 5] == (0x56, 0xB4, 0xE9)).all()  # opaque outline
    report.write_report(prediction, tmp_path, "a")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"a.mask.png", "a.overlay.png", "a.html"}
    mask = np.asarray(Image.open(tmp_path / "a.mask.png"))
    assert ((mask == 255) == prediction.mask).all()
    names = ("a/1.png", "b/1.png", "1.png-2", "1.dcm", "脑" * 83 + ".mat")
    stems = list(report.unique_stems([Path(name) for name in names]).values())
    assert stems[:4] == ["1.png", "1.png-2", "1.png-2-2", "1.dcm"]
    assert len(stems[4].encode()) < 200


def test_page_needs_no_other_file_and_escapes_names(prediction):
    image = replace(prediction.image, name="<script>x</script>.png")
    changes = {"networks": ("without-3",), "mask_agreement": None}
    single = replace(prediction, image=image, **changes)
    page = report.render_report(single)
    for text in ("without-3", "&lt;script&gt;", report.NOTICE):
        assert text in page
    assert "<script>" not in page
    sources = re.findall(r"(?:src|href)=\"([^\"]+)", page)
    assert len(sources) == 3
    assert all(source.startswith("data:image/png;base64,") for source in sources)
