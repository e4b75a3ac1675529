"""A synthetic dataset in figshare's file layout: analytic heads with a tumor."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from scipy import ndimage
from scipy.spatial.transform import Rotation
from skimage.draw import polygon2mask
from skimage.measure import approximate_polygon, find_contours
from tqdm import tqdm

from braintumor.core.errors import ParameterError
from braintumor.core.files import atomic_directory, write_json
from braintumor.data.figshare import write_cvind, write_mat
from braintumor.data.phantom_anatomy import (
    GLIOMA,
    MENINGIOMA,
    PITUITARY,
    PLANE_AXES,
    TISSUE,
    Head,
    SlicePlane,
    ellipsoid,
    smooth_union,
    upsample,
)

GENERATOR = 1  # raise it whenever the same seed gives other bytes
FOLDS = 5
FIGSHARE_PATIENTS = {MENINGIOMA: 82, GLIOMA: 89, PITUITARY: 62}
SLICES_PER_PATIENT = {MENINGIOMA: (8, 9), GLIOMA: (10, 12), PITUITARY: (10, 12)}


class Tumor:
    """The tumor of one patient: `label` 1 meningioma, 2 glioma, 3 pituitary tumor."""

    def __init__(self, label, head, rng):
        self.label = label
        self.noise, self.shifts = head.noise, rng.uniform(0, 64, 4)
        self.radii = rng.uniform(0.85, 1.2, 3)
        self.enhancement = rng.uniform(1.6, 2.3)
        self.is_cystic = rng.random() < 0.05  # of the two solid classes
        self.edema = rng.uniform(0.2, 1.5)  # cm
        grow = {MENINGIOMA: self._meningioma, GLIOMA: self._glioma}
        grow.get(label, self._pituitary)(head, rng)

    def _meningioma(self, head, rng):
        self.radius, self.roughness, self.push = rng.uniform(1.4, 2.7), 0.05, 0.25
        self.enhancement *= 1.25
        self.edema *= rng.random() < 0.4
        site = rng.choice(["convexity", "falx", "base"], p=[0.6, 0.25, 0.15])
        if site == "convexity":
            direction = rng.normal(size=3) + (0, 0, 0.6)
            direction[2] = max(direction[2], -0.1)
        elif site == "falx":
            angle = rng.uniform(0.15, 0.85) * np.pi
            direction = np.array([0, np.cos(angle), np.sin(angle)])
        else:
            direction = np.array([rng.uniform(-4, 4), rng.uniform(1.5, 6.5), -1.9])
        direction /= np.linalg.norm(direction)
        ray = direction[:, None] * np.linspace(1, 12, 400, dtype=np.float32)
        dura = ray[:, np.argmax(head.lobes(ray).min(0) > 0)]
        self.center = dura - direction * self.radius * rng.uniform(0.3, 0.7)
        if site == "falx":
            self.center = dura * rng.uniform(0.65, 0.85)
            self.center[0] = rng.choice([-1, 1]) * self.radius * 0.5

    def _glioma(self, head, rng):
        self.radius, self.roughness = rng.uniform(1.8, 3.1), rng.uniform(0.12, 0.22)
        self.push = 0.2
        spots = rng.uniform((-5.5, -6.5, -3), (5.5, 6.5, 5), (500, 3)).T
        depth = -head.lobes(spots.astype(np.float32)).min(0)
        is_deep = (depth > 1.3) & (depth < 3) & (np.abs(spots[0]) > 1.4)
        self.center = spots[:, is_deep][:, 0]
        self.rim = rng.uniform(0.2, 0.4)  # cm
        self.core = rng.uniform(0.3, 0.5)
        self.edema += 0.7
        self.solid = rng.uniform(-1.4, -0.6)  # how much of the core enhances

    def _pituitary(self, head, rng):
        self.radius, self.roughness, self.push = rng.uniform(1.0, 1.6), 0.06, 0.3
        self.edema, self.enhancement = 0, max(self.enhancement, 1.9)
        sella = np.array([0, 2.1, -2.75 + 0.5 * self.radius])
        self.center = (sella + rng.normal(0, (0.15, 0.1, 0.1))) * head.scale
        self.lobe = rng.uniform((-0.3, -0.2, 0.4), (0.3, 0.2, 1.1)) * self.radius

    def signed_distance(self, head, points):
        """Return the approximate distance in cm from the surface, negative inside."""
        away = points - np.float32(self.center)[:, None, None]
        # noise over directions keeps a ragged tumor in one piece
        direction = away / (np.sqrt((away * away).sum(0)) + 1e-3)
        rough = self.noise(direction, 2.2, self.shifts[0])
        rough = rough + 0.4 * self.noise(direction, 1.0, self.shifts[1])
        distance = ellipsoid(away, (0, 0, 0), self.radii * self.radius)
        if self.label == PITUITARY:  # a second lobe grows out of the sella
            lobe = ellipsoid(away, self.lobe, 0.75 * self.radii * self.radius)
            distance = smooth_union(distance, lobe, 0.3)
        distance -= self.radius * self.roughness * rough
        if self.label == PITUITARY:
            return distance
        # a glioma stays in the brain, a meningioma has a broad base on the dura
        margin = 0.1 if self.label == GLIOMA else -0.15
        return np.maximum(distance, head.lobes(points).min(0) + margin)

    def render(self, canvas, part, points, distance):
        """Paint the tumor and its edema on a part of a canvas."""
        brain = canvas.brain[part]
        texture = self.noise(points, 0.9, self.shifts[2])
        texture = texture + 0.5 * self.noise(points, 0.4, self.shifts[3])
        coarse = self.noise(points, 2.5, self.shifts[1])
        if self.edema:
            extent = self.edema * (1 + 0.5 * coarse)
            edema = np.clip(1 - distance / np.maximum(extent, 0.1), 0, 1)
            edema = edema * (brain < -0.3) * (distance < extent)
            canvas.image[part] *= 1 - 0.3 * np.minimum(1.5 * edema, 1)
        if self.label == GLIOMA:
            rim = self.rim * np.clip(1 + 0.6 * coarse, 0.15, 2)
            canvas.paint(distance, self.enhancement * (1 + 0.12 * texture), part)
            is_solid = texture + coarse < 2 * self.solid
            core = np.where(is_solid, 0.75 * self.enhancement, self.core)
            core = ndimage.gaussian_filter(core + 0.06 * texture, 0.8)
            canvas.paint(distance + rim, core, part)
            return
        if self.label == MENINGIOMA:  # a cleft of fluid separates it from the brain
            cleft = np.maximum(distance - 0.07, brain)
            canvas.paint(cleft, TISSUE["csf"] * 1.5, part)
        solid = self.enhancement * (1 + 0.035 * texture + 0.04 * coarse)
        canvas.paint(distance, solid, part)
        if self.is_cystic:
            canvas.paint(distance + 0.45 * self.radius - 0.1 * texture, 0.6, part)


@dataclass
class Patient:
    """One patient identifier; identifiers of one family share the `anatomy`."""

    index: int
    label: int
    pid: str
    anatomy: int
    fold: int
    files: list  # numbers


class Scanner:
    """The settings of one scan."""

    def __init__(self, rng):
        self.gain = rng.uniform(350, 1100)
        self.noise = rng.uniform(0.02, 0.06)
        self.blur = rng.uniform(0.3, 0.7)
        self.contrast = rng.uniform(0.85, 1.15)
        self.bias = rng.normal(0, 0.12, 3)
        self.fov = rng.uniform(23.5, 26)  # cm

    def acquire(self, image, points, rng, size):
        """Return int16 (size, size): contrast, blur, coil sensitivity, Rician noise."""
        image = np.maximum(image, 0)
        image = ndimage.gaussian_filter(image, self.blur * len(image) / 256)
        image = image**self.contrast
        coil = np.clip(1.1 + (points[2] + 9) * 0.2, 0.1, 1)
        image *= np.exp(np.tensordot(self.bias / 8, points, 1)) * coil
        noise = rng.standard_normal((2, *image.shape), np.float32) * self.noise
        image = np.hypot(image + noise[0], noise[1]) * self.gain
        return np.clip(np.rint(upsample(image, size)), 0, 32767).astype(np.int16)


def _generator(seed, *key):
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _sample_cohort(n_patients, seed):
    """Sample the patients, each class at least once per fold."""
    rng = _generator(seed, 0)
    counts = dict.fromkeys(FIGSHARE_PATIENTS, FOLDS)
    while sum(counts.values()) < n_patients:
        rarest = min(counts, key=lambda label: counts[label] / FIGSHARE_PATIENTS[label])
        counts[rarest] += 1
    pids = iter(rng.choice(np.arange(90000, 120000), n_patients, replace=False))
    n_families = min(3, counts[GLIOMA] // 5)
    cohort, number = [], 1
    for label, count in counts.items():
        folds = (rng.permutation(count) + len(cohort)) % FOLDS + 1
        for i in range(count):
            index, pid, anatomy = len(cohort), str(next(pids)), len(cohort)
            # pairs such as MR990001 and MR990001B, and one more without a partner
            if label == GLIOMA and i <= 2 * n_families:
                pid = f"MR{990001 + i // 2}" + "B" * (i % 2)
                anatomy -= i % 2
            n_slices = rng.integers(*SLICES_PER_PATIENT[label], endpoint=True)
            files = list(range(number, number + n_slices))
            cohort.append(Patient(index, label, pid, anatomy, int(folds[i]), files))
            number += n_slices
    return cohort


def _choose_half_size(cohort):
    """Choose three files of some gliomas, which are written at half the size."""
    gliomas = [patient.files for patient in cohort if patient.label == GLIOMA]
    chosen = gliomas[-max(1, len(cohort) // 20) :]
    return [file for files in chosen for file in files[len(files) // 3 :][:3]]


def _trace_border(distance, size):
    """Return the largest contour, float64 (points, 2) x y from 1, and its mask."""
    scale = size / len(distance)
    border, mask = np.zeros((0, 2)), np.zeros((size, size), np.uint8)
    for contour in find_contours(distance, 0):
        contour = (contour + 0.5) * scale - 0.5
        tolerance = 0.6 * max(size / 512, 0.3)  # pixels, as if clicked by hand
        contour = approximate_polygon(contour, tolerance)[:-1]
        points = np.round(contour[:, ::-1] + 1, 2)
        inside = polygon2mask((size, size), points[:, ::-1] - 1).astype(np.uint8)
        if inside.sum() > mask.sum() or not len(border):
            border, mask = points, inside
    return border, mask


def _write_patient(directory, patient, seed, size, halved):
    """Write the slices of one patient; return the (file, plane) of each."""
    head = Head(_generator(seed, 1, patient.anatomy))
    tumor = Tumor(patient.label, head, _generator(seed, 2, patient.anatomy))
    rng = _generator(seed, 3, patient.index)
    if patient.anatomy != patient.index:
        tumor.radius *= 1.15  # a later scan of the same person
    rotation = Rotation.from_euler("xyz", rng.normal(0, 4, 3), degrees=True)
    scanner = Scanner(rng)
    shift = rng.normal(0, 0.4, 3)
    planes = rng.permutation(list(PLANE_AXES))[: 1 if rng.random() < 0.3 else 2]
    rows = []
    for plane, files in zip(
        planes, np.array_split(patient.files, len(planes)), strict=True
    ):
        view = SlicePlane.through(tumor.center, plane, scanner.fov, 64, rotation, shift)
        offsets = _sample_offsets(view, head, tumor, size, len(files))
        for file, offset in zip(files.tolist(), offsets, strict=True):
            side = size // 2 if file in halved else size
            # scanners are no finer than 256 samples
            sampled = view.resample(max(side // 2, min(side, 256)))
            image, distance = head.render(sampled.move(offset), tumor)
            # manual outlines vary
            border, mask = _trace_border(distance - rng.normal(0.02, 0.04), side)
            image = scanner.acquire(image, sampled.points(), rng, side)
            path = directory / f"{file}.mat"
            write_mat(path, image, mask, patient.label, patient.pid, border)
            rows.append((file, str(plane)))
    return rows


def _sample_offsets(view, head, tumor, size, n_slices):
    """Offsets in cm of parallel planes that show enough of the tumor."""
    pixel_area = view.spacing**2  # cm2
    min_area = max(90 * (size / 512) ** 2, 12) * (view.spacing * 64 / size) ** 2
    offsets = np.linspace(-1.8, 1.8, 41) * tumor.radius
    masks = [tumor.signed_distance(head, view.move(t).points()) < 0 for t in offsets]
    areas = np.array([mask.sum() * pixel_area for mask in masks])
    visible = offsets[areas >= min_area]
    chosen = np.linspace(0.12, 0.88, n_slices) * (len(visible) - 1)
    return [visible[round(k)] for k in chosen]


def write_phantom(
    directory, n_patients=60, seed=0, size=512, progress=True, n_jobs=None
):
    """Write 1.mat ... N.mat, cvind.mat, planes.csv and phantom.json.

    The same arguments give the same bytes, whatever `n_jobs`.

    Parameters
    ----------
    directory : str or Path
        New or empty; it appears only when the dataset is complete.
    n_patients : int
        At least 15, of about ten slices each.
    size : int
        Pixels per side, even, 64 to 1024; a few slices have half of it.
    n_jobs : int, optional
        Processes as in joblib; by default one up to 128 pixels, else one per core.

    Returns
    -------
    Path
    """
    directory = Path(directory)
    _check_arguments(directory, n_patients, seed, size)
    cohort = _sample_cohort(n_patients, seed)
    halved = _choose_half_size(cohort)
    if n_jobs is None:
        n_jobs = 1 if size <= 128 else -1
    bar = dict(desc="phantom", unit="patient", disable=not progress)
    with atomic_directory(directory) as temporary:
        write = delayed(_write_patient)
        jobs = (write(temporary, patient, seed, size, halved) for patient in cohort)
        results = Parallel(n_jobs, return_as="generator")(jobs)
        results = tqdm(results, total=len(cohort), **bar)
        planes = sorted(row for rows in results for row in rows)
        folds = [patient.fold for patient in cohort for _ in patient.files]
        write_cvind(temporary / "cvind.mat", folds)
        lines = [f"{file},{plane}\n" for file, plane in [("file", "plane"), *planes]]
        (temporary / "planes.csv").write_text("".join(lines), newline="")
        info = dict(kind="phantom", generator=GENERATOR, seed=seed, size=size)
        info |= {"patients": n_patients, "slices": len(planes)}
        write_json(temporary / "phantom.json", info)
    return directory


def _check_arguments(directory, n_patients, seed, size):
    limits = {"n_patients": (n_patients, 3 * FOLDS, 2000), "seed": (seed, 0, 2**63)}
    limits["size"] = (size, 64, 1024)
    for name, (value, low, high) in limits.items():
        if type(value) is not int or not low <= value <= high:
            expected = f"a whole number from {low} to {high}"
            raise ParameterError(f"{name}: got {value!r}, expected {expected}.")
    if size % 2:
        raise ParameterError(f"size: got {size}, expected an even number. Add 1.")
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        got = "a file or a folder with files"
        expected = "a new folder. Choose another name"
        raise FileExistsError(f"{directory}: got {got}, expected {expected}.")
