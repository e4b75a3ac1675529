"""A synthetic dataset in figshare's file layout: analytic heads with a tumor."""

from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial.transform import Rotation
from skimage.draw import polygon2mask
from skimage.filters import gaussian
from skimage.measure import approximate_polygon, find_contours
from skimage.transform import resize

from braintumor.core.errors import ParameterError
from braintumor.core.files import atomic_directory, write_json
from braintumor.data.figshare import write_cvind, write_mat
from braintumor.data.folder import map_slices
from braintumor.data.labels import PHANTOM_VERSION
from braintumor.data.phantom_anatomy import PLANE_AXES, Head, SlicePlane, ellipsoid

MENINGIOMA, GLIOMA, PITUITARY = CLASSES = 1, 2, 3
SHARES = 0.35, 0.38, 0.27  # of the classes in figshare's patients
TUMORS = {  # ranges of radius, depth in the brain (both cm), intensity; share of edema
    MENINGIOMA: ((1.5, 2.7), (0.3, 1.0), (2.3, 3.0), 0.2),
    GLIOMA: ((1.8, 3.0), (1.4, 3.0), (1.6, 2.1), 1),
    PITUITARY: ((1.1, 1.7), None, (1.9, 2.4), 0),
}


class Tumor:
    """The tumor of one patient."""

    def __init__(self, label, head, rng):
        self.label = label
        radius, depth, intensity, share = TUMORS[label]
        self.radii = rng.uniform(*radius) * rng.uniform(0.85, 1.2, 3)  # cm
        self.intensity = rng.uniform(*intensity)
        self.roughness = rng.uniform(0.12, 0.22) if label == GLIOMA else 0.05
        self.edema = rng.uniform(0.9, 2.2) * (rng.random() < share)  # cm
        if label == PITUITARY:  # it grows out of the sella, upward
            self.radii[2] *= 1.2
            sella = 0, 2.1, 0.6 * self.radii[2] - 2.75
            self.center = rng.normal(sella, 0.12) * head.scale
            return
        sites = rng.uniform((-6, -8, -0.5), (6, 8, 7), (999, 3)).T
        depths = -head.lobes(head.normalize(sites)).min(0)
        is_valid = (depths > depth[0]) & (depths < depth[1]) & (np.abs(sites[0]) > 1)
        self.center = sites[:, np.argmax(is_valid)]

    def signed_distance(self, head, points):
        """Return the approximate distance (n,) in cm of points from the surface."""
        away = points - np.float32(self.center)[:, None]
        # noise over directions keeps a ragged tumor in one piece
        direction = away / (np.sqrt((away * away).sum(0)) + 1e-3)
        rough = self.radii.mean() * self.roughness * head.noise(direction, 1.6)
        distance = ellipsoid(away, np.zeros(3), self.radii) - rough
        if self.label == PITUITARY:
            return distance
        # a glioma stays in the brain, a meningioma has a broad base on the dura
        margin = 0.1 if self.label == GLIOMA else -0.15
        return np.maximum(distance, head.lobes(head.normalize(points)).min(0) + margin)

    def paint(self, canvas, distance):
        """Paint the tumor and its edema; `distance` (n,) is from its surface."""
        texture = canvas.texture
        extent = np.maximum(self.edema * (1 + 0.5 * texture), 0.1)
        edema = np.clip(1.5 - 1.5 * distance / extent, 0, 1) * (canvas.brain < -0.3)
        canvas.image *= 1 - 0.3 * edema
        canvas.paint(distance, self.intensity * (1 + 0.05 * texture))
        if self.label == GLIOMA:  # its core is dead
            rim = 0.6 * np.clip(1 + 0.5 * texture, 0.4, 1.6)  # cm
            canvas.paint(distance + rim, 0.45 + 0.25 * texture)


def _acquire(image, plane, scanner, rng, size):
    """Return int16 (size, size); `scanner` generates the settings of all slices."""
    blur = scanner.uniform(0.3, 0.7) * plane.size / 256
    image = gaussian(np.maximum(image, 0), blur) ** scanner.uniform(0.85, 1.15)
    points = plane.points()
    bias = np.exp(scanner.normal(0, 0.015, 3) @ points)
    bias *= np.clip(1.1 + (points[2] + 9) * 0.2, 0.1, 1)  # weak below the head
    noise = rng.normal(0, scanner.uniform(0.02, 0.06), (2, *image.shape))
    image = np.hypot(image * bias.reshape(image.shape) + noise[0], noise[1])
    image = resize(image, (size, size), order=1, mode="edge", anti_aliasing=False)
    return np.rint(scanner.uniform(350, 1100) * image).astype(np.int16)


def _sample_cohort(n_patients, seed):
    """Return a table of patients, sorted by class, each class in every fold."""
    rng = np.random.default_rng([seed, 0])
    labels = rng.choice(CLASSES, n_patients - 15, p=SHARES)
    labels = np.sort(np.append(labels, 5 * CLASSES))
    index = np.arange(n_patients)
    cohort = pd.DataFrame({"label": labels, "anatomy": index, "fold": index % 5 + 1})
    cohort["pid"] = rng.choice(range(90000, 120000), n_patients, False).astype(str)
    cohort["n_slices"] = rng.integers(9, 12, n_patients, endpoint=True)
    cohort["first_file"] = cohort.n_slices.cumsum() - cohort.n_slices + 1
    cohort["n_half_size"] = 3 * (index % 15 == 14)
    gliomas = index[labels == GLIOMA]
    for pair in range(min(3, len(gliomas) // 5)):  # one person, two identifiers
        first, second = gliomas[2 * pair : 2 * pair + 2]
        cohort.loc[[first, second], "pid"] = f"MR{990001 + pair}", f"MR{990001 + pair}B"
        cohort.loc[second, "anatomy"] = first
    return cohort


def _trace_border(distance, size):
    """Return the longest contour, float64 (points, 2) x y from 1, and its mask."""
    contour = max(find_contours(distance, 0), key=len)
    contour = (contour + 0.5) * size / len(distance) - 0.5
    tolerance = 0.6 * max(size / 512, 0.3)  # pixels, as if clicked by hand
    contour = np.round(approximate_polygon(contour, tolerance)[:-1], 2)
    return contour[:, ::-1] + 1, polygon2mask((size, size), contour)


def _sample_offsets(view, head, tumor, n_slices):
    """Return offsets in cm of parallel planes that show enough of the tumor."""
    min_area = max(0.2, 12 * (view.fov / view.size) ** 2)  # cm2, 12 pixels
    offsets = np.linspace(-1.5, 1.5, 41) * tumor.radii.max()
    views = [replace(view, size=48).move(offset) for offset in offsets]
    masks = [tumor.signed_distance(head, view.points()) < 0 for view in views]
    visible = offsets[np.mean(masks, 1) * view.fov**2 >= min_area]
    chosen = np.linspace(0.15, 0.85, n_slices) * (len(visible) - 1)
    return visible[chosen.round().astype(int)]


def _write_patient(patient, directory, seed, size):
    """Write the slices of one patient; return the (file, plane) of each."""
    rng = np.random.default_rng([seed, 1, patient.anatomy])
    head = Head(rng)
    tumor = Tumor(patient.label, head, rng)
    rng = np.random.default_rng([seed, 2, patient.Index])
    if patient.anatomy != patient.Index:
        tumor.radii *= 1.15  # a later scan of the same person
    rotation = Rotation.from_euler("xyz", rng.normal(0, 4, 3), degrees=True)
    fov, shift = rng.uniform(23.5, 26), rng.normal(0, 0.4, 3)  # cm
    files = np.arange(patient.n_slices) + patient.first_file
    planes, rows = rng.permutation(list(PLANE_AXES))[:2], []
    for plane, part in zip(planes, np.array_split(files, 2), strict=True):
        view = SlicePlane.through(tumor.center, plane, fov, size, rotation, shift)
        offsets = _sample_offsets(view, head, tumor, len(part))
        for file, offset in zip(part, offsets, strict=True):
            is_half_size = file < patient.first_file + patient.n_half_size
            side = size // 2 if is_half_size else size
            # scanners are no finer than 256 samples
            sampled = replace(view.move(offset), size=max(side // 2, min(side, 256)))
            image, distance = head.render(sampled, tumor)
            distance -= rng.normal(0.02, 0.04)  # manual outlines vary
            border, mask = _trace_border(distance, side)
            scanner = np.random.default_rng([seed, 3, patient.Index])
            image = _acquire(image, sampled, scanner, rng, side)
            path = directory / f"{file}.mat"
            write_mat(path, image, mask, patient.label, patient.pid, border)
            rows.append((file, plane))
    return rows


def write_phantom(
    directory, n_patients=60, seed=0, size=256, progress=True, n_jobs=None
):
    """Write a phantom dataset; the same seed gives the same bytes for any `n_jobs`."""
    directory = Path(directory)
    limits = {"n_patients": (n_patients, 15, 2000), "seed": (seed, 0, 2**63)}
    for name, (value, low, high) in (limits | {"size": (size, 64, 1024)}).items():
        if type(value) is not int or not low <= value <= high:
            expected = f"a whole number from {low} to {high}"
            raise ParameterError(f"{name}: got {value!r}, expected {expected}.")
    if directory.exists() and any(directory.iterdir()):
        raise FileExistsError(f"{directory}: got files in it, expected a new folder.")
    cohort = _sample_cohort(n_patients, seed)
    patients = list(cohort.itertuples())
    n_jobs = n_jobs or (1 if size <= 128 else -1)
    with atomic_directory(directory) as temporary:
        write = partial(_write_patient, directory=temporary, seed=seed, size=size)
        rows = map_slices(write, patients, n_jobs, "phantom", progress)
        planes = pd.DataFrame(chain(*rows), columns=["file", "plane"])
        planes.to_csv(temporary / "planes.csv", index=False, lineterminator="\n")
        write_cvind(temporary / "cvind.mat", cohort.fold.repeat(cohort.n_slices))
        info = dict(kind="phantom", generator=PHANTOM_VERSION, seed=seed, size=size)
        info |= dict(patients=n_patients, slices=len(planes))
        write_json(temporary / "phantom.json", info)
    return directory
