"""From image files to answers: the published networks, as Python, on the command line and as a page."""

import json
import re
from pathlib import Path

import keras
import nibabel
import numpy as np
import pydicom
import pytest
import tensorflow as tf
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from test_images import NAMES

from braintumor import cli
from braintumor.core.errors import DatasetError
from braintumor.core.files import ROOT
from braintumor.data import formats as images
from braintumor.data.phantom import write_phantom
from braintumor.data.prepared import LABELS, scaled
from braintumor.evaluation import metrics
from braintumor.evaluation import scores as evaluate
from braintumor.inference import ood, report
from braintumor.inference import predictor as inference
from braintumor.training.augmentation import as_input

pytestmark = pytest.mark.usefixtures("deterministic")
REAL = ROOT.parent / "shared/data/figshare-1512427"


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    """Slices drawn at 256 pixels, in figshare's layout."""
    return write_phantom(tmp_path_factory.mktemp("drawn") / "set", patients=15, size=256, progress=False, workers=1)


@pytest.fixture(scope="module")
def one(slices):
    return images.read(slices / "1.mat")


@pytest.fixture(scope="module")
def networks():
    return inference.Networks()


def test_answer_holds_all_that_is_asked_for(networks, one):
    (answer,) = networks.predict([one])
    assert answer.folds == (1, 2, 3, 4, 5) and answer.label in LABELS
    assert answer.probabilities.sum() == pytest.approx(1, abs=1e-5) and (answer.spread >= 0).all()
    assert answer.mask.shape == answer.grad_cam.shape == one.pixels.shape and answer.mask.dtype == bool
    assert answer.grad_cam.min() >= 0 and answer.grad_cam.max() == pytest.approx(1)
    top, left, bottom, right = answer.box
    assert answer.mask[top:bottom, left:right].sum() == answer.mask.sum() == report.facts(answer)["area_pixels"]
    assert answer.mask[top].any() and answer.mask[bottom - 1].any()
    assert answer.area_mm2 == pytest.approx(answer.mask.sum() * 0.98**2)
    assert 0 <= answer.agreement <= 1 and set(answer.ood) == set(ood.SCORES)


def test_answers_do_not_depend_on_their_company(networks, slices):
    several = [images.read(slices / f"{n}.mat") for n in (1, 2, 3)]
    together, alone = networks.predict(several), [networks.predict([one])[0] for one in several]
    for answer, other in zip(together, alone, strict=True):
        assert answer.probabilities == pytest.approx(other.probabilities, abs=1e-4)
        assert metrics.dice(answer.mask, other.mask) > 0.99


def test_image_that_is_not_square_gets_a_mask_of_its_own_shape(networks, one):
    wide = images.Image("wide", one.pixels[30:230])
    (answer,) = networks.predict([wide])
    assert answer.mask.shape == answer.grad_cam.shape == (200, 256) and answer.area_mm2 is None
    assert report.overlay(answer).shape == (200, 256, 3)


def same_slice(folder, pixels):
    """One slice (side, side) of 12 bits as each kind of file; the 8 bits of PNG are enough."""
    small = (pixels / pixels.max() * 255).astype(np.uint8)
    deep = (pixels / pixels.max() * 4000).astype(np.uint16)
    Image.fromarray(small).save(folder / "one.png")
    Image.fromarray(deep).save(folder / "one.tif")
    np.save(folder / "one.npy", deep)
    affine = np.diag([-0.49, -0.49, 6, 1])  # stored as scanners do: to the patient's left, and to the back
    nibabel.Nifti1Image(deep.T[..., None].astype(np.int16), affine).to_filename(folder / "one.nii.gz")
    found = pydicom.Dataset()
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID, found.file_meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, MRImageStorage
    found.file_meta.MediaStorageSOPInstanceUID = found.SOPInstanceUID = generate_uid()
    found.SOPClassUID, found.Modality, found.PixelSpacing = MRImageStorage, "MR", [0.49, 0.49]
    found.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    found.Rows, found.Columns = deep.shape
    found.SamplesPerPixel, found.PhotometricInterpretation, found.PixelRepresentation = 1, "MONOCHROME2", 0
    found.BitsAllocated = found.BitsStored = 16
    found.HighBit, found.PixelData = 15, deep.tobytes()
    found.save_as(folder / "one.dcm", enforce_file_format=True)
    return [folder / f"one.{suffix}" for suffix in ("png", "tif", "npy", "nii.gz", "dcm")]


def test_every_kind_of_file_gets_the_same_answer(networks, slices, tmp_path):
    known = images.read(slices / "1.mat")
    answers = networks.predict([known, *map(images.read, same_slice(tmp_path, known.pixels))])
    for answer in answers[1:]:
        assert answer.label == answers[0].label and metrics.dice(answer.mask, answers[0].mask) > 0.98
    spacing = {answer.image.name: answer.image.spacing_mm for answer in answers}
    assert spacing["one.png"] is None
    assert spacing["one.dcm"] == pytest.approx((0.49, 0.49)) and spacing["one.nii.gz"] == pytest.approx((0.49, 0.49))


def test_grad_cam_is_that_of_gradients(networks, one):
    """By gradients, as Selvaraju et al. define it, for each class of one network."""
    network = keras.models.load_model(ROOT / "models/fold-1.keras", compile=False).get_layer("residual")
    opened = inference._opened(network)
    view = np.random.default_rng(0).random((2, *network.input_shape[1:]), "float32")
    maps = next(layer for layer in network.layers if isinstance(layer, keras.layers.GlobalMaxPooling2D)).input
    dense = next(layer for layer in network.layers if isinstance(layer, keras.layers.Dense))
    inner = keras.Model(network.input, [maps, dense.input])
    said = opened(view)["grad_cam"].numpy()
    for label in range(3):
        with tf.GradientTape() as tape:
            seen, _ = inner(view)
            tape.watch(seen)
            pooled = tf.concat([tf.reduce_max(seen, (1, 2)), tf.reduce_mean(seen, (1, 2))], axis=1)
            logit = tf.matmul(pooled, dense.kernel)[:, label]
        weights = tf.reduce_mean(tape.gradient(logit, seen), axis=(1, 2), keepdims=True)
        cam = tf.nn.relu(tf.reduce_sum(weights * seen, axis=-1)).numpy()
        assert cam * seen.shape[1] * seen.shape[2] == pytest.approx(said[..., label], rel=1e-3, abs=1e-4)


def test_foreign_images_are_told_with_a_reason(networks, one):
    random = np.random.default_rng(0)
    noise = images.Image("noise", random.integers(0, 255, (256, 256)))
    inverted = images.Image("inverted", one.pixels.max() - one.pixels)
    photo = images.Image("photo", one.pixels, color=True)
    for answer in networks.predict([noise, inverted, photo]):
        assert answer.doubts and "DOUBT: " in report.line(answer)
        assert "Do not believe this answer" in report.page(answer)
    assert networks.predict([photo])[0].doubts[0].startswith("it is a color image")


def test_missing_network_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(inference, "ROOT", tmp_path)
    with pytest.raises(DatasetError, match="fold-2.keras: is not there; `git checkout models` brings"):
        inference.Networks((2,))


def test_network_of_other_weights_than_its_reference_is_refused(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    for name in ("fold-2.keras", "fold-2.npz"):
        (tmp_path / "models" / name).write_bytes((ROOT / "models" / name.replace("2.keras", "1.keras")).read_bytes())
    monkeypatch.setattr(inference, "ROOT", tmp_path)
    with pytest.raises(DatasetError, match="fold-2.npz: belongs to another fold-2.keras"):
        inference.Networks((2,))


def test_one_network_alone_answers_as_it_is_published(one):
    """Notebook 08's own model of class and mask, which the published scores were made with."""
    published = keras.models.load_model(ROOT / "models/fold-1.keras", compile=False)
    side = published.input_shape[1]
    slices = as_input(np.stack([scaled(one.pixels, side), np.random.default_rng(0).integers(0, 255, (side, side))]))
    ours, theirs = inference.ensemble([published], inference.ZOOMS)(slices), published(slices)
    assert np.allclose(np.mean(ours["classify"], axis=(1, 2)), theirs["classify"], atol=1e-5)
    assert np.allclose(ours["segment"], theirs["segment"][..., 0], atol=1e-5)
    (answer,) = inference.Networks((1,)).predict([one])
    assert answer.agreement is None and "the network of fold 1" in report.page(answer)


def test_answer_about_a_known_patient_says_who_learned_from_it(networks, one):
    patient, fold = next(iter(inference._folds().items()))
    known = images.Image("known.mat", one.pixels, patient=patient)
    doubt = "4 of the networks learned from this patient; ask with --held-out"
    assert doubt in networks.predict([known])[0].doubts and inference.fold_of(patient) == fold
    assert doubt not in networks.predict([one])[0].doubts


def test_distribution_is_learned_and_what_is_far_from_it_is_out():
    random = np.random.default_rng(0)

    def drawn(count, picture=0.0, features=0.0, dice=0.9):
        mixing = np.random.default_rng(1).normal(size=(10, 256))
        below = np.repeat(np.arange(16) >= 8, 16)  # the lower half is brighter
        return {
            "picture": below
            + random.normal(size=(count, 10)) @ mixing * 0.1
            + random.normal(0, 0.1 + picture, (count, 256)),
            "features": random.normal(features, size=(count, 256)),
            "expected_dice": dice + random.uniform(-0.05, 0.05, count),
        }

    learned = drawn(800)
    reference = ood.fit({name: learned[name] for name in ("picture", "features")}, drawn(400))
    same = ood.scores(reference, **drawn(400))
    assert same.shape == (400, 4) and (same > 1).mean() < 0.05
    for n, other in ((0, {"picture": 1.0}), (2, {"features": 3.0}), (3, {"dice": 0.3})):
        assert (ood.scores(reference, **drawn(50, **other)) > 1).mean(axis=0).round(1).tolist()[n] == 1
    upright = drawn(50)
    for turned in (lambda p: p[:, ::-1], lambda p: np.rot90(p, 1, (1, 2)), lambda p: np.rot90(p, -1, (1, 2))):
        pictures = turned(upright["picture"].reshape(-1, 16, 16)).reshape(-1, 256)
        assert (ood.scores(reference, **upright | {"picture": pictures})[:, 1] > 1).mean() > 0.9
    mirrored = upright["picture"].reshape(-1, 16, 16)[..., ::-1].reshape(-1, 256)
    assert (ood.scores(reference, **upright | {"picture": mirrored})[:, 1] > 1).mean() < 0.1


@pytest.mark.skipif(not REAL.exists(), reason="the real slices are not here")
def test_held_out_answers_are_the_published_ones(tmp_path):
    import subprocess
    import sys

    files = [1, 900, 1500, 2000, 3000]
    command = [sys.executable, REAL / "make_mats.py", tmp_path / "set", "--files", ",".join(map(str, files))]
    subprocess.run(command, check=True, capture_output=True)
    tables = {task: evaluate.gather(inference.PUBLISHED, task)[0].set_index("file") for task in ("classify", "segment")}
    paths = [tmp_path / f"set/{n}.mat" for n in files]
    for path, answer in inference.answers(paths, held_out=True):
        row, drawn = (tables[task].loc[int(path.stem)] for task in ("classify", "segment"))
        assert answer.folds == (row["fold"],)
        assert answer.probabilities == pytest.approx(row[metrics.PROBABILITIES].to_numpy(float), abs=2e-4)
        assert metrics.dice(answer.image.mask, answer.mask) == pytest.approx(drawn["dice"], abs=2e-3)


def test_command_prints_a_table_and_writes_what_was_drawn(slices, tmp_path, capsys):
    out = tmp_path / "new"
    assert cli.main(["predict", str(slices / "1.mat"), str(slices / "2.mat"), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert report.NOTICE in said.err and len(said.out.strip().splitlines()) == 3
    assert sorted(path.name for path in out.iterdir()) == [
        f"{n}.mat.{kind}" for n in (1, 2) for kind in ("html", "mask.png", "overlay.png")
    ]
    mask = np.asarray(Image.open(out / "1.mat.mask.png"))
    assert mask.shape == (256, 256) and set(np.unique(mask)) <= {0, 255}


def test_command_goes_on_after_a_file_that_it_cannot_read(slices, tmp_path, capsys):
    (tmp_path / "letter.png").write_text("Dear doctor")
    asked = [str(tmp_path / "letter.png"), str(slices / "1.mat"), str(slices / "1.mat")]
    assert cli.main(["predict", *asked, "--json"]) == 1
    said = capsys.readouterr()
    (line,) = said.out.strip().splitlines()
    assert json.loads(line)["path"] == str(slices / "1.mat") and "letter.png" in said.err


def test_command_takes_a_folder_of_more_than_a_batch(slices, tmp_path, capsys):
    for n in range(18):
        (tmp_path / f"{n}.mat").write_bytes((slices / "1.mat").read_bytes())
    assert cli.main(["predict", str(tmp_path), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.strip().splitlines()]
    assert [line["image"] for line in lines] == [f"{n}.mat" for n in range(18)]
    assert {line["dataset_says"] for line in lines} == {LABELS[images.read(slices / "1.mat").label]}


def test_command_takes_files_of_any_name(slices, tmp_path, capsys):
    long = "脑" * 83 + ".mat"  # 253 bytes
    names = [f"{name}.mat" for name in NAMES] + [long]
    for name in names:
        (tmp_path / name).write_bytes((slices / "1.mat").read_bytes())
    out = tmp_path.with_name("answers")
    asked = [str(tmp_path / name) for name in names]
    assert cli.main(["predict", *asked, "--out", str(out)]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 1 + len(names) and all(line.isprintable() for line in lines)
    assert len(list(out.iterdir())) == 3 * len(names)
    assert cli.main(["predict", *asked, "--json"]) == 0
    assert [json.loads(line)["path"] for line in capsys.readouterr().out.strip().splitlines()] == asked


def test_slice_that_no_network_is_known_to_have_held_out_is_refused(slices, capsys):
    assert cli.main(["predict", "--held-out", str(slices / "1.mat")]) == 1
    assert "1.mat: names no patient of the dataset" in capsys.readouterr().err


def test_pictures_are_not_written_among_the_images(slices, capsys):
    assert cli.main(["predict", str(slices), "--out", str(slices / "answers")]) == 1
    assert "lies in a folder of images" in capsys.readouterr().err and not (slices / "answers").exists()


def test_folder_that_cannot_be_written_is_told_before_anything_is_asked(slices, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main(["predict", str(slices / "1.mat"), "--out", str(tmp_path / "file/answers")]) == 1
    assert "Not a directory" in capsys.readouterr().err


def test_page_asks_no_other_host_and_escapes_names(networks, one):
    strange = images.Image("<script>x</script>.png", one.pixels)
    page = report.page(networks.predict([strange])[0])
    assert "<script>" not in page and "&lt;script&gt;" in page and report.NOTICE in page
    addresses = re.findall(r"(?:src|href)=[\'\"]?([^\'\" >]+)", page)
    assert len(addresses) == 3 and all(address.startswith("data:image/png;base64,") for address in addresses)


def test_what_is_written_of_files_of_one_name_does_not_collide():
    paths = [Path(name) for name in ("a/1.png", "b/1.png", "1.png-2", "1.dcm")]
    assert list(report.stems(paths).values()) == ["1.png", "1.png-2", "1.png-2-2", "1.dcm"]
