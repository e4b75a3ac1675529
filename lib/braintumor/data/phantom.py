"""A synthetic twin of the figshare brain tumor dataset: drawn patients in the published file layout.

A patient is an analytic head in three dimensions (centimetres; x to the right of the image, y to the nose,
z to the crown; the origin between the hemispheres) with one tumor, cut in one or two of the three planes.
Nothing in it was copied or learned from a real image. Intensities are relative to white matter = 1 until
the scanner's scale is applied. Distances are negative inside a body, as usual for signed distances.
"""

import csv
import os
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation
from skimage.draw import polygon2mask
from skimage.measure import approximate_polygon, find_contours
from tqdm import tqdm

from braintumor.core.errors import ParameterError
from braintumor.core.files import atomic, atomic_folder, write_json
from braintumor.core.processes import pool

GENERATOR = 1  # raise it whenever the same seed would give other bytes
FOLDS = 5
MENINGIOMA, GLIOMA, PITUITARY = 1, 2, 3
PUBLISHED_PATIENTS = {MENINGIOMA: 82, GLIOMA: 89, PITUITARY: 62}
SLICES = {MENINGIOMA: (8, 9), GLIOMA: (10, 12), PITUITARY: (10, 12)}  # a patient, for about 708 : 1426 : 930
PLANES = {  # two directions on the screen, right and down, and the middle of the field of view
    "axial": ((1, 0, 0), (0, -1, 0), (0, 0.3, 0)),
    "coronal": ((1, 0, 0), (0, 0, -1), (0, 0, -1.9)),
    "sagittal": ((0, -1, 0), (0, 0, -1), (0, 0.8, -1.9)),
}
USERBLOCK = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Sun Apr 02 2017 HDF5 schema 1.00 ."
USERBLOCK = (USERBLOCK.ljust(116) + b"\0" * 8 + b"\0\2IM").ljust(512, b"\0")

TISSUE = dict(air=0.03, bone=0.14, csf=0.36, eye=0.4, muscle=0.8, white=1.0, deep=0.92)
TISSUE |= dict(marrow=1.5, gland=1.7, vessel=1.9, orbit=1.9, fat=2.6)
# tissue, centre, half axes; a body off the midline has a twin on the other side. Later ones cover earlier.
FACE = [
    ("orbit", (3.0, 6.4, -3.1), (1.9, 2.7, 1.6)),
    ("muscle", (2.5, 5.6, -3.1), (0.3, 2.2, 0.35)),
    ("eye", (3.2, 7.3, -3.1), (1.2, 1.2, 1.2)),
    ("air", (2.7, 6.4, -6.4), (1.3, 1.5, 1.6)),  # maxillary sinus
    ("air", (0.65, 6.0, -4.2), (0.5, 2.4, 1.5)),  # ethmoid cells and nasal cavity
    ("muscle", (0.75, 6.0, -6.3), (0.35, 2.0, 0.5)),  # turbinate
    ("air", (0.8, 8.4, -0.9), (0.8, 0.4, 0.9)),  # frontal sinus
    ("air", (0, 1.9, -7.6), (0.9, 0.7, 2.6)),  # pharynx
    ("marrow", (0, 0.75, -4.3), (1.3, 0.6, 1.7)),  # clivus
    ("air", (0, 2.6, -4.2), (1.3, 1.2, 0.8)),  # sphenoid sinus
    ("bone", (5.2, -1.0, -4.6), (1.5, 1.3, 0.9)),  # petrous bone
    ("vessel", (1.0, 2.0, -2.9), (0.35, 0.8, 0.5)),  # cavernous sinus
    ("air", (1.1, 2.0, -2.8), (0.2, 0.7, 0.2)),  # carotid: fast blood gives no signal
    ("gland", (0, 2.1, -2.75), (0.6, 0.45, 0.3)),
    ("gland", (0, 1.9, -2.2), (0.12, 0.12, 0.6)),  # stalk
]
DEEP = [
    ("deep", (1.1, -0.9, 0.9), (0.8, 1.5, 0.8)),  # thalamus
    ("deep", (2.5, 0.8, 0.6), (0.6, 1.8, 1.0)),  # putamen
    ("csf", (0, 2.0, -1.7), (1.2, 0.9, 0.5)),  # suprasellar cistern
    ("csf", (0, -2.3, -0.2), (1.0, 0.4, 0.4)),  # cistern behind the midbrain
    ("csf", (0, -0.5, 0.3), (0.2, 1.3, 1.0)),  # third ventricle
    ("csf", (0, -2.7, -3.4), (0.7, 0.4, 0.8)),  # fourth ventricle
    ("csf", (0.8, 2.3, 1.6), (0.55, 1.4, 0.8)),  # lateral ventricle: its four parts
    ("csf", (1.0, 0.2, 2.2), (0.7, 2.4, 0.5)),
    ("csf", (2.1, -2.7, 1.3), (0.65, 1.5, 0.9)),
    ("csf", (3.2, -0.8, -1.6), (0.25, 1.4, 0.25)),
    ("vessel", (2.0, -2.9, 1.1), (0.22, 0.6, 0.3)),  # choroid plexus
    ("vessel", (0, -3.1, 0.3), (0.16, 0.9, 0.2)),  # great vein and straight sinus
]


def ellipsoid(p, centre, axes):
    """Approximate signed distance in cm of points `p`, shape (3, ...), of an ellipsoid; exact for spheres."""
    shape = (3,) + (1,) * (p.ndim - 1)
    q = (p - np.float32(centre).reshape(shape)) / np.float32(axes).reshape(shape)
    k = np.sqrt((q * q).sum(0))
    q /= np.float32(axes).reshape(shape)
    return k * (k - 1) / (np.sqrt((q * q).sum(0)) + 1e-6)


def smooth_union(a, b, width):
    """Signed distance of two bodies together, the crease between them filled over `width` cm."""
    h = np.clip(0.5 + (a - b) / (2 * width), 0, 1)
    return b * h + a * (1 - h) - width * h * (1 - h)


def enlarge(values, n):
    """Linear interpolation of (..., m, m) to (..., n, n); the outer edges stay where they are."""
    m = values.shape[-1]
    at = np.clip((np.arange(n) + 0.5) * m / n - 0.5, 0, m - 1)
    low = np.minimum(at.astype(int), m - 2)
    share = (at - low).astype(np.float32)
    values = values[..., low, :] * (1 - share)[:, None] + values[..., low + 1, :] * share[:, None]
    return values[..., low] * (1 - share) + values[..., low + 1] * share


class Noise:
    """A smooth random field over space: mean 0, standard deviation 1, repeating after five wavelengths."""

    def __init__(self, rng):
        grid = rng.standard_normal((64, 64, 64), dtype=np.float32)
        grid = ndimage.gaussian_filter(grid, 1.5, mode="wrap")
        self.grid = grid / grid.std()

    def __call__(self, p, wavelength, shift=0.0):
        at = p * np.float32(13.3 / wavelength) + np.float32(shift)
        return ndimage.map_coordinates(self.grid, at, order=1, mode="grid-wrap", output=np.float32)


@dataclass
class Cut:
    """A plane through the head: samples of `shape` (rows, columns), `px` cm apart, around `middle`."""

    middle: np.ndarray
    right: np.ndarray
    down: np.ndarray
    px: float
    shape: tuple

    def points(self):
        """Positions in cm, float32 (3, rows, columns)."""
        v, u = (((np.arange(n) - (n - 1) / 2) * self.px).astype(np.float32) for n in self.shape)
        middle, right, down = np.float32([self.middle, self.right, self.down])[..., None, None]
        return middle + down * v[:, None] + right * u

    def crop(self, rows, columns):
        """The same plane, reduced to two slices of its rows and columns."""
        v = (rows.start + rows.stop - self.shape[0]) / 2 * self.px
        u = (columns.start + columns.stop - self.shape[1]) / 2 * self.px
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        return Cut(self.middle + v * self.down + u * self.right, self.right, self.down, self.px, shape)

    def window(self, centre, radius):
        """The rows and columns that a ball can reach, or None if the plane misses it."""
        offset = np.asarray(centre) - self.middle
        if abs(offset @ np.cross(self.right, self.down)) > radius:
            return None
        at = np.array([offset @ self.down, offset @ self.right]) / self.px + (np.array(self.shape) - 1) / 2
        low = np.clip(np.floor(at - radius / self.px), 0, self.shape).astype(int)
        high = np.clip(np.ceil(at + radius / self.px) + 1, 0, self.shape).astype(int)
        return slice(low[0], high[0]), slice(low[1], high[1])


class Head:
    """One patient's anatomy: the same from every scan, drawn from `rng`."""

    def __init__(self, rng):
        self.noise = Noise(rng)
        self.scale = rng.uniform(0.94, 1.05, 3)
        self.ventricles = rng.uniform(0.75, 1.4)
        self.sulci = rng.uniform(0.03, 0.09)  # half width in cm: wider with age
        self.grey = rng.uniform(0.7, 0.86)
        self.scalp = rng.uniform(0.35, 0.7)
        self.shifts = rng.uniform(0, 64, 12)
        self.face, self.deep = (list(self._both_sides(rng, table)) for table in (FACE, DEEP))

    def _both_sides(self, rng, table):
        for tissue, centre, axes in table:
            for side in (1, -1) if centre[0] else (1,):
                c = (np.array(centre) * (side, 1, 1) + rng.normal(0, 0.05, 3)) * self.scale
                a = np.array(axes) * rng.uniform(0.88, 1.12, 3)
                yield tissue, c, a * (self.ventricles if tissue == "csf" else 1)

    def lobes(self, p):
        """Signed distances in cm of cerebrum, temporal lobes, posterior fossa and brainstem, (4, ...)."""
        q = p / np.float32(self.scale).reshape((3,) + (1,) * (p.ndim - 1))
        twin = np.stack([np.abs(q[0]), q[1], q[2]])
        cerebrum = ellipsoid(q, (0, -0.2, 0.6), (6.6, 8.4, 6.5))
        cerebrum = np.maximum(cerebrum, -1.7 - 0.12 * q[1] - q[2])  # flat below, on the skull base
        temporal = ellipsoid(twin, (3.9, 1.0, -1.7), (2.5, 3.9, 2.3))
        cerebellum = ellipsoid(twin, (1.5, -4.2, -3.4), (3.4, 3.1, 2.6))
        cord = np.maximum(np.hypot(q[0], q[1] + 1.9) - 0.7, q[2] + 3.5)
        stem = np.minimum(ellipsoid(q, (0, -0.8, -2.6), (1.5, 1.3, 2.0)), cord)
        return np.stack([cerebrum, temporal, cerebellum, stem])

    def surface(self, p):
        """Signed distance in cm of the skin."""
        q = p / np.float32(self.scale)[:, None, None]
        skin = ellipsoid(q, (0, -0.2, 0.5), np.add((7.15, 8.95, 7.15), self.scalp))
        ear = ellipsoid(np.stack([np.abs(q[0]), q[1], q[2]]), (7.7, -1.2, -3.6), (0.5, 1.3, 2.2))
        face = ellipsoid(q, (0, 3.2, -6), (6.8, 6.5, 8.5))
        nose = ellipsoid(q, (0, 9.7, -4.6), (1.1, 1.6, 1.9))
        neck = np.hypot(q[0], q[1] + 1.2 - 0.25 * (q[2] + 6)) - 6.2 + 0.35 * np.clip(q[2] + 6, 0, 9)
        neck = np.maximum(neck, q[2] + 3.5)
        for part in (face, nose, neck, ear):
            skin = smooth_union(skin, part, 1.4)
        return skin

    def draw(self, cut, tumor):
        """Relative intensities (n, n) and the signed distance in cm from the tumor, both float32."""
        shifts, noise, value, n = self.shifts, self.noise, TISSUE, cut.shape[0]
        # Bend space a little, or everything is an ellipse. Slow waves: a quarter of the resolution will do.
        ratio = n / (n // 4)
        coarse = Cut(cut.middle, cut.right, cut.down, cut.px * ratio, (n // 4, n // 4)).points()
        near = self.surface(coarse) < 1  # only this part of the picture needs work
        rows, columns = (
            slice(int(at[0] * ratio), min(int((at[-1] + 1) * ratio) + 1, n))
            for at in (np.flatnonzero(near.any(1)), np.flatnonzero(near.any(0)))
        )
        bend = 0.16 * np.stack([noise(coarse, 10, s) for s in shifts[:3]])
        # A growing tumor pushes the tissue around it, not the skull: sample the anatomy nearer its centre.
        away = coarse - np.float32(tumor.centre)[:, None, None]
        push = tumor.push * np.exp(-(away**2).sum(0) / (1.8 * tumor.radius) ** 2)
        bend -= away * push * np.clip(-self.lobes(coarse).min(0) / 2, 0, 1)
        cut = cut.crop(rows, columns)
        p = cut.points() + enlarge(bend, n)[:, rows, columns]
        lobes, skin = self.lobes(p), self.surface(p)
        brain = lobes.min(0)

        def over(image, d, tissue, part=...):
            alpha = np.clip(0.5 - d / cut.px, 0, 1)  # a pixel's share in the body: no jagged edges
            image[part] += alpha * (tissue - image[part])

        x, y, z = p
        texture, fine = noise(p, 2.2, shifts[3]), noise(p, 0.9, shifts[4])
        image = np.full_like(brain, value["air"])
        over(image, skin, 0.55 * value["fat"])
        over(image, skin + 0.12, value["fat"] + 0.1 * texture)
        strands = noise(p * np.float32([1, 0.7, 0.4])[:, None, None], 2.4, shifts[6])  # muscles hang
        soft = value["muscle"] + 0.35 * np.clip(texture, -0.8, 1.5) + 0.08 * fine
        over(image, skin + 0.1 + self.scalp, soft + np.clip(0.7 - 3 * np.abs(strands), 0, 0.7))
        bone = np.maximum(brain - 0.7, skin + self.scalp)
        over(image, bone, value["bone"])
        over(image, np.maximum(np.abs(brain - 0.48) - 0.07 - 0.04 * texture, bone + 0.1), value["muscle"])
        spine = np.maximum(np.hypot(x, y - 0.2) - 1.1, z + 6.6)
        over(image, spine, 0.4 + 0.7 * (np.sin(z * 2.6 + shifts[5]) > -0.75))  # vertebrae and discs
        over(image, brain - 0.2, 0.8 * value["csf"])
        self._bodies(image, over, cut, p, self.face, skin + 0.3)
        over(image, brain, self._tissue(p, lobes, texture, fine))
        sylvian = np.maximum(np.abs(lobes[1]) - 0.08 - 0.05 * texture, np.maximum(lobes[0], 2.4 - np.abs(x)))
        over(image, np.maximum(sylvian, -0.5 - z), value["csf"] + 0.2 * np.clip(fine, 0, 2))
        tent = np.maximum(np.maximum(lobes[0], brain), y + 1.5)
        over(image, np.maximum(np.abs(lobes[2]) - 0.1, tent), value["csf"])
        over(image, np.maximum(np.abs(lobes[2]) - 0.04, tent), 1.2)  # the tentorium
        self._bodies(image, over, cut, p, self.deep, brain)
        arch = np.abs(np.hypot((y + 0.3) / 3.3, (z - 1.2) / 1.9) - 1) * 2.2 - 0.25  # corpus callosum
        over(image, np.maximum(np.maximum(arch, np.abs(x) - 1.0), 1.2 - z), 1.1)
        fissure = np.maximum(lobes[0], 3.3 - np.hypot(0.62 * (y + 0.3), z - 0.3))
        over(image, np.maximum(np.abs(x) - self.sulci, fissure), value["csf"])
        over(image, np.maximum(np.abs(x) - 0.03, fissure), 0.7 * value["vessel"])  # the falx
        dura = np.maximum(np.abs(brain - 0.1) - 0.04, -z - 1)
        over(image, dura, 0.8 + 0.3 * texture)
        sinus = np.hypot(x, brain - 0.05) - 0.022 * (9 - y)  # superior sagittal: wider to the back
        over(image, np.maximum(sinus, -z), value["vessel"])
        level = np.full_like(brain, 9)
        part = cut.window(tumor.centre, 2.2 * tumor.radius + 1.5)
        if part is not None:
            at = cut.points()[:, *part]
            level[part] = tumor.level(self, at)
            tumor.draw(image[part], over, at, level[part], brain[part])
        whole, far = np.full((2, n, n), [[[value["air"]]], [[9]]], np.float32)
        whole[rows, columns], far[rows, columns] = image, level
        return whole, far

    def _bodies(self, image, over, cut, p, table, limit):
        for tissue, centre, axes in table:
            part = cut.window(centre, max(axes) + 1.0)  # 1 cm: as far as the warps move anything
            if part is not None:
                d = np.maximum(ellipsoid(p[:, *part], centre, axes), limit[part])
                over(image, d, TISSUE[tissue], part)

    def _tissue(self, p, lobes, texture, fine):
        """Grey and white matter, sulci, vessels and the cerebellum's folds: intensities (n, n)."""
        depth = -lobes.min(0)
        fold = np.abs(self.noise(p, 3.0, self.shifts[7])) * 0.48  # about the distance in cm from a sulcus
        reach = 1.6 + 0.4 * texture - depth
        white = np.clip((np.minimum(fold + np.maximum(-reach, 0), depth) - 0.2) / 0.2, 0, 1)
        tissue = self.grey + (TISSUE["white"] - self.grey) * white + 0.012 * fine + 0.015 * texture
        sulcus = np.clip((self.sulci * np.clip(reach, 0, 1.4) - fold) / 0.07 + 0.5, 0, 1)
        sulcus *= np.clip(2 * reach, 0, 1)
        tissue += sulcus * (TISSUE["csf"] + 1.3 * np.clip(fine - 0.8, 0, 1) - tissue)  # a vein fills some
        folia = np.sin(lobes[2] * 12 + 2 * texture) * 0.05 + 0.9
        return np.where(lobes[2] < lobes[0], folia, np.where(lobes[3] < -0.05, 0.97, tissue))


class Tumor:
    """One patient's tumor: where it grows and how it looks, drawn from `rng`."""

    def __init__(self, label, head, rng):
        self.label = label
        self.noise, self.shift = head.noise, rng.uniform(0, 64, 4)
        self.axes = rng.uniform(0.85, 1.2, 3)
        self.bright = rng.uniform(1.6, 2.3)
        self.hollow = rng.random() < 0.05  # a cyst or a dead centre, in the two solid classes
        self.edema = rng.uniform(0.2, 1.5)
        getattr(self, ("_meningioma", "_glioma", "_pituitary")[label - 1])(head, rng)

    def _meningioma(self, head, rng):
        self.radius, self.ragged, self.push = rng.uniform(1.4, 2.7), 0.05, 0.25
        self.bright *= 1.25
        self.edema *= rng.random() < 0.4
        site = rng.choice(["convexity", "falx", "base"], p=[0.6, 0.25, 0.15])
        if site == "convexity":
            away = rng.normal(size=3) + (0, 0, 0.6)
            away[2] = max(away[2], -0.1)
        elif site == "falx":
            angle = rng.uniform(0.15, 0.85) * np.pi
            away = np.array([0, np.cos(angle), np.sin(angle)])
        else:
            away = np.array([rng.uniform(-4, 4), rng.uniform(1.5, 6.5), -1.9])
        away /= np.linalg.norm(away)
        ray = away[:, None] * np.linspace(1, 12, 400, dtype=np.float32)
        edge = ray[:, np.argmax(head.lobes(ray).min(0) > 0)]  # where the ray meets the dura
        self.centre = edge - away * self.radius * rng.uniform(0.3, 0.7)
        if site == "falx":
            self.centre = edge * rng.uniform(0.65, 0.85)
            self.centre[0] = rng.choice([-1, 1]) * self.radius * 0.5

    def _glioma(self, head, rng):
        self.radius, self.ragged, self.push = rng.uniform(1.8, 3.1), rng.uniform(0.12, 0.22), 0.2
        spots = rng.uniform((-5.5, -6.5, -3), (5.5, 6.5, 5), (500, 3)).T
        depth = -head.lobes(spots.astype(np.float32)).min(0)
        spots = spots[:, (depth > 1.3) & (depth < 3) & (np.abs(spots[0]) > 1.4)]
        self.centre = spots[:, 0]
        self.rim = rng.uniform(0.2, 0.4)  # cm
        self.core = rng.uniform(0.3, 0.5)
        self.edema += 0.7
        self.solid = rng.uniform(-1.4, -0.6)  # how much of the inside enhances

    def _pituitary(self, head, rng):
        self.radius, self.ragged, self.push = rng.uniform(1.0, 1.6), 0.06, 0.3
        self.edema, self.bright = 0, max(self.bright, 1.9)
        self.centre = (np.array([0, 2.1, -2.75 + 0.5 * self.radius]) + rng.normal(0, (0.15, 0.1, 0.1))) * head.scale
        self.lobe = rng.uniform((-0.3, -0.2, 0.4), (0.3, 0.2, 1.1)) * self.radius

    def level(self, head, p):
        """Signed distance in cm, roughly, of the points (3, ...) from the tumor's surface."""
        away = p - np.float32(self.centre).reshape((3,) + (1,) * (p.ndim - 1))
        # Noise over directions, not positions: the surface is ragged, yet the tumor in one piece.
        direction = away / (np.sqrt((away * away).sum(0)) + 1e-3)
        rough = self.noise(direction, 2.2, self.shift[0]) + 0.4 * self.noise(direction, 1.0, self.shift[1])
        level = ellipsoid(away, (0, 0, 0), self.axes * self.radius)
        if self.label == PITUITARY:  # two lobes, one out of the sella
            level = smooth_union(level, ellipsoid(away, self.lobe, 0.75 * self.axes * self.radius), 0.3)
        level -= self.radius * self.ragged * rough
        if self.label == PITUITARY:
            return level
        brain = head.lobes(p).min(0)
        if self.label == GLIOMA:
            return np.maximum(level, brain + 0.1)
        return np.maximum(level, brain - 0.15)  # up to the dura, on which it sits with a broad base

    def draw(self, image, over, p, level, brain):
        """Paint the tumor over the relative intensities (n, n), in place."""
        texture = self.noise(p, 0.9, self.shift[2]) + 0.5 * self.noise(p, 0.4, self.shift[3])
        coarse = self.noise(p, 2.5, self.shift[1])
        if self.edema:
            spread = self.edema * (1 + 0.5 * coarse)
            swollen = np.clip(1 - level / np.maximum(spread, 0.1), 0, 1) * (brain < -0.3) * (level < spread)
            image *= 1 - 0.3 * np.minimum(1.5 * swollen, 1)
        if self.label == GLIOMA:
            rim = self.rim * np.clip(1 + 0.6 * coarse, 0.15, 2)
            over(image, level, self.bright * (1 + 0.12 * texture))
            inside = np.where(texture + coarse < 2 * self.solid, 0.75 * self.bright, self.core)
            inside += 0.06 * texture
            over(image, level + rim, ndimage.gaussian_filter(inside, 0.8))
            return
        if self.label == MENINGIOMA:
            over(image, np.maximum(level - 0.07, brain), TISSUE["csf"] * 1.5)  # the cleft to the brain
        over(image, level, self.bright * (1 + 0.035 * texture + 0.04 * coarse))
        if self.hollow:
            over(image, level + 0.45 * self.radius - 0.1 * texture, 0.6)


@dataclass
class Patient:
    """What a worker process needs to draw one patient. A family of identifiers shares its `anatomy`."""

    index: int
    label: int
    pid: str
    anatomy: int
    files: list  # the file numbers


def _generator(seed, *key):
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def slice_count(patients=60, seed=0):
    """How many slices `write_phantom` draws of so many patients."""
    return sum(len(patient.files) for patient in _cohort(patients, seed)[0])


def _cohort(patients, seed):
    """The patients of a set, and the fold 1-5 of each."""
    rng = _generator(seed, 0)
    labels = dict.fromkeys(PUBLISHED_PATIENTS, FOLDS)  # at least one a fold
    while sum(labels.values()) < patients:
        labels[min(labels, key=lambda c: labels[c] / PUBLISHED_PATIENTS[c])] += 1
    digits = iter(rng.choice(np.arange(90000, 120000), patients, replace=False))
    families = min(3, labels[GLIOMA] // 5)
    cohort, folds, number = [], [], 1
    for label, count in labels.items():
        folds.extend((rng.permutation(count) + len(folds)) % FOLDS + 1)
        for i in range(count):
            index, pid, anatomy = len(cohort), str(next(digits)), len(cohort)
            if label == GLIOMA and i <= 2 * families:  # pairs, and one that looks like a family but is alone
                pid = f"MR{990001 + i // 2}" + "B" * (i % 2)
                anatomy -= i % 2
            slices = rng.integers(*SLICES[label], endpoint=True)
            cohort.append(Patient(index, label, pid, anatomy, list(range(number, number + slices))))
            number += slices
    return cohort, [int(fold) for fold in folds]


def _border(level, size):
    """The largest outline of a signed distance (n, n), float64 (k, 2) x y from 1 at `size`, and its mask."""
    scale = size / len(level)
    outlines = find_contours(level, 0)
    if not outlines:
        return np.zeros((0, 2)), np.zeros((size, size), np.uint8)
    masks = []
    for outline in outlines:
        outline = (outline + 0.5) * scale - 0.5
        outline = approximate_polygon(outline, 0.6 * max(size / 512, 0.3))[:-1]  # as if clicked by hand
        border = np.round(outline[:, ::-1] + 1, 2)
        masks.append((border, polygon2mask((size, size), border[:, ::-1] - 1).astype(np.uint8)))
    return max(masks, key=lambda pair: pair[1].sum())


def _draw_patient(directory, patient, seed, size, halved):
    """Write one patient's files; return (file, plane) of each. Runs in a process of its own."""
    head = Head(_generator(seed, 1, patient.anatomy))
    tumor = Tumor(patient.label, head, _generator(seed, 2, patient.anatomy))
    rng = _generator(seed, 3, patient.index)
    tumor.radius *= 1.15 if patient.anatomy != patient.index else 1  # a later scan of the same person
    turn = Rotation.from_euler("xyz", rng.normal(0, 4, 3), degrees=True)
    scanner = dict(scale=rng.uniform(350, 1100), noise=rng.uniform(0.02, 0.06), blur=rng.uniform(0.3, 0.7))
    scanner |= dict(contrast=rng.uniform(0.85, 1.15), bias=rng.normal(0, 0.12, 3), fov=rng.uniform(23.5, 26))
    shift = rng.normal(0, 0.4, 3)
    planes = rng.permutation(list(PLANES))[: 1 if rng.random() < 0.3 else 2]
    written = []
    for plane, files in zip(planes, np.array_split(patient.files, len(planes)), strict=True):
        right, down, middle = (np.array(v, float) for v in PLANES[plane])
        right, down, middle = turn.apply(right), turn.apply(down), middle + shift
        normal = np.cross(right, down)
        middle -= normal * ((middle - tumor.centre) @ normal)  # through the centre of the tumor

        def cut(offset, full, middle=middle, right=right, down=down, normal=normal):
            n = max(full // 2, min(full, 256))  # finer than 256 only for sizes beyond 512: scanners are no finer
            return Cut(middle + offset * normal, right, down, scanner["fov"] / n, (n, n))

        least = max(90 * (size / 512) ** 2, 12) * (scanner["fov"] / size) ** 2  # cm2, some above 60 pixels
        offsets = np.linspace(-1.8, 1.8, 41) * tumor.radius
        areas = [(tumor.level(head, cut(t, 64).points()) < 0).sum() * cut(0, 64).px ** 2 for t in offsets]
        seen = offsets[np.array(areas) >= least]
        chosen = np.linspace(0.12, 0.88, len(files)) * (len(seen) - 1)
        for file, k in zip(files, chosen, strict=True):
            full = size // 2 if file in halved else size
            image, level = head.draw(cut(seen[round(k)], full), tumor)
            border, mask = _border(level - rng.normal(0.02, 0.04), full)  # no hand draws the same line twice
            image = _scan(image, cut(0, full).points(), scanner, rng, full)
            write_slice(directory / f"{file}.mat", image, mask, patient.label, patient.pid, border)
            written.append((int(file), str(plane)))
    return written


def _scan(image, p, scanner, rng, size):
    """Relative intensities (n, n) to int16 (size, size): contrast, blur, coil sensitivity, Rician noise."""
    image = ndimage.gaussian_filter(np.maximum(image, 0), scanner["blur"] * len(image) / 256)
    image = image ** scanner["contrast"]
    image *= np.exp(np.tensordot(scanner["bias"] / 8, p, 1)) * np.clip(1.1 + (p[2] + 9) * 0.2, 0.1, 1)
    noise = rng.standard_normal((2, *image.shape), np.float32) * scanner["noise"]
    image = enlarge(np.hypot(image + noise[0], noise[1]) * scanner["scale"], size)
    return np.clip(np.rint(image), 0, 32767).astype(np.int16)


def _dataset(group, name, value, matlab_class):
    packed = dict(compression="gzip", compression_opts=3, chunks=(64, 64)) if min(value.shape) >= 64 else {}
    dataset = group.create_dataset(name, data=value, **packed)
    dataset.attrs["MATLAB_class"] = np.bytes_(matlab_class)
    if matlab_class in ("char", "logical"):
        dataset.attrs["MATLAB_int_decode"] = np.int32(2 if matlab_class == "char" else 1)


def _stamp(path):
    with open(path, "r+b") as file:
        file.write(USERBLOCK)


def write_slice(path, image, mask, label, pid, border):
    """Write one slice as figshare does: MATLAB 7.3 (HDF5) with a struct `cjdata`, arrays transposed.

    `image` and `mask` are upright (rows, columns), stored as int16 and uint8; `label` is 1, 2 or 3; `pid` a
    string; `border` holds x1 y1 x2 y2 ... in pixels from 1, x to the right and y down, of any shape. Nothing
    is checked, so that tests can write broken files.
    """
    with atomic(path) as temporary:
        with h5py.File(temporary, "w", userblock_size=512) as file:
            group = file.create_group("cjdata")
            group.attrs["MATLAB_class"] = np.bytes_("struct")
            _dataset(group, "PID", np.array([[ord(c)] for c in pid], np.uint16), "char")
            _dataset(group, "image", np.ascontiguousarray(np.asarray(image, np.int16).T), "int16")
            _dataset(group, "label", np.array([[label]], np.float64), "double")
            _dataset(group, "tumorBorder", np.asarray(border, np.float64).reshape(1, -1), "double")
            _dataset(group, "tumorMask", np.ascontiguousarray(np.asarray(mask, np.uint8).T), "logical")
        _stamp(temporary)


def write_cvind(path, folds):
    """Write cvind.mat: `folds`, the fold 1-5 of every file in the order of the numbers, as float64 (1, n)."""
    with atomic(path) as temporary:
        with h5py.File(temporary, "w", userblock_size=512) as file:
            _dataset(file, "cvind", np.asarray(folds, np.float64).reshape(1, -1), "double")
        _stamp(temporary)


def write_phantom(directory, patients=60, seed=0, size=512, progress=True, workers=None):
    """Write a phantom dataset: 1.mat ... N.mat, cvind.mat, planes.csv, phantom.json; return `directory`.

    About ten slices of each of `patients` (15 or more identifiers), `size` x `size` pixels (an even number,
    64-1024), a few at half that size. The same arguments give the same bytes, for any number of `workers`:
    processes, by default one a processor, and none for sizes up to 128, where starting them would take
    longer. A script that calls this with workers needs an `if __name__ == "__main__"` guard.
    The folder appears only when whole; one that holds anything already is refused with FileExistsError.
    """
    for name, value, least, most in [
        ("patients", patients, 3 * FOLDS, 2000),
        ("seed", seed, 0, 2**63),
        ("size", size, 64, 1024),
        ("workers", 1 if workers is None else workers, 1, 1024),
    ]:
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= most:
            raise ParameterError(f"{name} must be a whole number from {least} to {most}, not {value!r}")
    if size % 2:
        raise ParameterError(f"size must be even, since some slices have half of it, not {size}")
    directory = Path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise FileExistsError(f"{directory} is not an empty folder: a phantom is never written over anything else")
    cohort, folds = _cohort(patients, int(seed))
    gliomas = [p for p in cohort if p.label == GLIOMA]
    halved = {file for p in gliomas[-max(1, patients // 20) :] for file in p.files[len(p.files) // 3 :][:3]}
    workers = workers or (1 if size <= 128 else os.cpu_count() or 1)
    with atomic_folder(directory, f"{directory} is being drawn") as temporary:
        jobs = zip(*[(temporary, p, int(seed), size, halved) for p in cohort], strict=True)
        with nullcontext() if workers == 1 else pool(workers) as processes:
            drawn = (map if processes is None else processes.map)(_draw_patient, *jobs)
            bar = tqdm(drawn, "phantom", len(cohort), unit="patient", disable=not progress)
            planes = sorted(row for rows in bar for row in rows)
        write_cvind(temporary / "cvind.mat", [fold for p, fold in zip(cohort, folds, strict=True) for _ in p.files])
        with atomic(temporary / "planes.csv") as path, open(path, "w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([("file", "plane"), *planes])
        about = dict(kind="phantom", generator=GENERATOR, seed=int(seed), patients=int(patients), size=int(size))
        write_json(temporary / "phantom.json", about | {"slices": len(planes)})
        if directory.exists():
            directory.rmdir()  # empty
    return directory
