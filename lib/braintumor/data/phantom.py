"""A synthetic dataset in figshare's file layout: analytic heads with a tumor."""

from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
from skimage.draw import polygon2mask
from skimage.filters import gaussian
from skimage.measure import approximate_polygon, find_contours

from braintumor.core.files import atomic_directory, write_json
from braintumor.data.figshare import write_cvind, write_mat
from braintumor.data.folder import map_slices
from braintumor.data.labels import PHANTOM_VERSION
from braintumor.data.phantom_anatomy import PLANE_AXES, Head, ellipsoid, slice_points

MENINGIOMA, GLIOMA, PITUITARY = CLASSES = 1, 2, 3
SHARES = 0.35, 0.38, 0.27  # of the classes in figshare's patients
TUMORS = {  # ranges of radius in cm, intensity, roughness; distance in cm to the dura
    MENINGIOMA: ((1.5, 2.7), (2.3, 3.0), (0.05, 0.05), -0.15),  # has a broad base on it
    GLIOMA: ((1.8, 3.0), (1.6, 2.1), (0.12, 0.22), 0.1),
    PITUITARY: ((1.1, 1.7), (1.9, 2.4), (0.05, 0.05), -np.inf),
}


class Tumor:
    """The tumor of one patient."""

    def __init__(self, label, head, rng):
        self.label = label
        *ranges, self.margin = TUMORS[label]
        radius, self.intensity, self.roughness = rng.uniform(*np.transpose(ranges))
        self.radii = radius * rng.uniform(0.85, 1.2, 3)
        self.edema = rng.uniform(0.9, 2.2)  # cm, of gliomas
        if label == PITUITARY:  # it grows out of the sella, upward
            self.radii[2] *= 1.2
            sella = 0, 2.1, 0.6 * self.radii[2] - 2.75
            self.center = rng.normal(sella, 0.12) * head.scale
            return
        sites = rng.uniform((-6, -8, -0.5), (6, 8, 7), (999, 3)).T
        low, high = (1.4, 3.0) if label == GLIOMA else (0.3, 1.0)  # cm
        depths = -head.brain_distance(sites)
        is_valid = (depths > low) & (depths < high) & (np.abs(sites[0]) > 1)
        self.center = sites[:, np.argmax(is_valid)]

    def signed_distance(self, head, points):
        """Return the approximate distance (n,) in cm of points from the surface."""
        away = points - np.float32(self.center)[:, None]
        # noise over directions keeps a ragged tumor in one piece
        direction = away / (np.linalg.norm(away, axis=0) + 1e-3)
        rough = self.radii.mean() * self.roughness * head.noise(direction, 1.6)
        distance = ellipsoid(away, np.zeros(3), self.radii) - rough
        return np.maximum(distance, head.brain_distance(points) + self.margin)

    def layers(self, head, points):
        """Yield edema, tumor and core as distance (n,) and intensity."""
        texture, distance = head.noise(points, 2.2), self.signed_distance(head, points)
        if self.label == GLIOMA:
            edema = distance - self.edema * (0.6 + 0.4 * texture)
            yield np.maximum(edema, head.brain_distance(points) + 0.3), 0.68
        yield distance, self.intensity * (1 + 0.05 * texture)
        if self.label == GLIOMA:  # its core is dead
            rim = 0.6 * np.clip(1 + 0.5 * texture, 0.4, 1.6)  # cm
            yield distance + rim, 0.45 + 0.25 * texture


def _acquire(image, points, scanner, rng):
    """Return int16 (size, size); `scanner` generates the settings of all slices."""
    blur, gamma = scanner.uniform((0.3, 0.85), (0.7, 1.15))
    image = gaussian(np.maximum(image, 0), blur * len(image) / 256) ** gamma
    image *= np.exp(np.tensordot(scanner.normal(0, 0.015, 3), points, 1))  # bias
    image *= np.clip(1.1 + (points[2] + 9) * 0.2, 0.1, 1)  # weak below the head
    noise = rng.normal(0, scanner.uniform(0.02, 0.06), (2, *image.shape))
    image = np.hypot(image + noise[0], noise[1])
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
    gliomas = index[labels == GLIOMA]
    for pair in range(min(3, len(gliomas) // 5)):  # one person, two identifiers
        first, second = gliomas[2 * pair : 2 * pair + 2]
        cohort.loc[[first, second], "pid"] = f"MR{990001 + pair}", f"MR{990001 + pair}B"
        cohort.loc[second, "anatomy"] = first
    return cohort


def _trace_border(distance):
    """Return the longest contour, float64 (points, 2) x y from 1, and its mask."""
    contour = max(find_contours(distance, 0), key=len)
    contour = np.round(approximate_polygon(contour, 0.3)[:-1], 2)  # as if by hand
    return contour[:, ::-1] + 1, polygon2mask(distance.shape, contour)


def _sample_offsets(normal, head, tumor, n_slices, rng):
    """Return offsets in cm along `normal` of slices, evenly in the tumor's volume."""
    away = rng.uniform(-1.5, 1.5, (3, 4000)) * tumor.radii.max()
    distance = tumor.signed_distance(head, away + tumor.center[:, None])
    return np.quantile(normal @ away[:, distance < 0], np.linspace(0.1, 0.9, n_slices))


def _write_patient(patient, directory, seed, size):
    """Write the slices of one patient; return the (file, plane) of each."""
    rng = np.random.default_rng([seed, 1, patient.anatomy])
    head = Head(rng)
    tumor = Tumor(patient.label, head, rng)
    rng = np.random.default_rng([seed, 2, patient.Index])
    if patient.anatomy != patient.Index:
        tumor.radii *= 1.15  # a later scan of the same person
    fov, side = rng.uniform(23.5, 26), size // 2 if patient.Index % 15 == 14 else size
    files = np.arange(patient.n_slices) + patient.first_file
    planes, rows = rng.permutation(list(PLANE_AXES))[:2], []
    for plane, part in zip(planes, np.array_split(files, 2), strict=True):
        normal = np.cross(*PLANE_AXES[plane][:2])
        offsets = _sample_offsets(normal, head, tumor, len(part), rng)
        for file, offset in zip(part, offsets, strict=True):
            points = slice_points(plane, tumor.center, fov, side, offset)
            image, distance = head.render(points, tumor)
            distance -= rng.normal(0.02, 0.04)  # manual outlines vary
            border, mask = _trace_border(distance)
            scanner = np.random.default_rng([seed, 3, patient.Index])
            image = _acquire(image, points, scanner, rng)
            path = directory / f"{file}.mat"
            write_mat(path, image, mask, patient.label, patient.pid, border)
            rows.append((file, plane))
    return rows


def write_phantom(directory, n_patients=60, seed=0, size=256, n_jobs=-1):
    """Write a phantom dataset; the same seed gives the same bytes for any `n_jobs`.

    It has 15 patients or more, of `size` pixels per side or, every 15th, of half.
    """
    directory = Path(directory)
    if directory.exists() and any(directory.iterdir()):
        raise FileExistsError(f"{directory}: got files in it, expected a new folder.")
    cohort = _sample_cohort(n_patients, seed)
    with atomic_directory(directory) as temporary:
        write = partial(_write_patient, directory=temporary, seed=seed, size=size)
        rows = map_slices(write, list(cohort.itertuples()), "phantom", n_jobs)
        planes = pd.DataFrame(chain(*rows), columns=["file", "plane"])
        planes.to_csv(temporary / "planes.csv", index=False, lineterminator="\n")
        write_cvind(temporary / "cvind.mat", cohort.fold.repeat(cohort.n_slices))
        info = dict(generator=PHANTOM_VERSION, seed=seed, size=size)
        write_json(temporary / "phantom.json", info)
    return directory
