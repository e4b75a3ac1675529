"""Anatomy of the phantom: an analytic head with one tumor, rendered on any plane.

Coordinates are in cm: x to the right of the image, y to the nose, z to the crown, with
the origin between the hemispheres. Intensities are relative to white matter = 1.
Distances are signed, negative inside a body. All shapes are analytic; nothing is copied
or learned from a real image. `phantom_anatomy.csv` lists the ellipsoids; a body off the
midline is mirrored, and later bodies cover earlier ones.
"""

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

MENINGIOMA, GLIOMA, PITUITARY = 1, 2, 3
PLANE_AXES = {  # two directions on the screen, right and down, and the field's center
    "axial": ((1, 0, 0), (0, -1, 0), (0, 0.3, 0)),
    "coronal": ((1, 0, 0), (0, 0, -1), (0, 0, -1.9)),
    "sagittal": ((0, -1, 0), (0, 0, -1), (0, 0.8, -1.9)),
}
TISSUE = dict(air=0.03, bone=0.14, csf=0.36, eye=0.4, muscle=0.8, white=1.0, deep=0.92)
TISSUE |= dict(marrow=1.5, gland=1.7, vessel=1.9, orbit=1.9, fat=2.6)
OUTSIDE = 9  # cm, the distance from the tumor where it is not computed


def as_column(vector, points):
    """Reshape a vector (3,) to broadcast over points (3, ...)."""
    return np.float32(vector).reshape((3,) + (1,) * (points.ndim - 1))


def ellipsoid(points, center, radii):
    """Return the approximate signed distance in cm, exact for spheres."""
    radii = as_column(radii, points)
    q = (points - as_column(center, points)) / radii
    k = np.sqrt((q * q).sum(0))
    q /= radii
    return k * (k - 1) / (np.sqrt((q * q).sum(0)) + 1e-6)


def smooth_union(a, b, width):
    """Return the signed distance of two bodies, their crease filled over `width` cm."""
    h = np.clip(0.5 + (a - b) / (2 * width), 0, 1)
    return b * h + a * (1 - h) - width * h * (1 - h)


def upsample(values, n):
    """Resize (..., m, m) to (..., n, n) linearly; the outer edges keep their place."""
    m = values.shape[-1]
    position = np.clip((np.arange(n) + 0.5) * m / n - 0.5, 0, m - 1)
    low = np.minimum(position.astype(int), m - 2)
    share = (position - low).astype(np.float32)
    below, above = values[..., low, :], values[..., low + 1, :]
    values = below * (1 - share)[:, None] + above * share[:, None]
    return values[..., low] * (1 - share) + values[..., low + 1] * share


class Noise:
    """A smooth random field: mean 0, standard deviation 1, period five wavelengths."""

    def __init__(self, rng):
        grid = rng.standard_normal((64, 64, 64), dtype=np.float32)
        grid = ndimage.gaussian_filter(grid, 1.5, mode="wrap")
        self.grid = grid / grid.std()

    def __call__(self, points, wavelength, shift=0.0):
        position = points * np.float32(13.3 / wavelength) + np.float32(shift)
        return ndimage.map_coordinates(
            self.grid, position, order=1, mode="grid-wrap", output=np.float32
        )


@dataclass
class SlicePlane:
    """A plane through the head, sampled at `shape` (rows, columns) points.

    `center` in cm, unit vectors `right` and `down` (3,), `spacing` of the points in cm.
    """

    center: np.ndarray
    right: np.ndarray
    down: np.ndarray
    spacing: float
    shape: tuple

    @classmethod
    def through(cls, point, plane, fov, size, rotation=None, shift=0):
        """Return the axial, coronal or sagittal plane through `point`.

        `fov` is the side in cm of size x size pixels; `rotation` tilts the plane, and
        `shift` in cm moves the patient in the field of view.
        """
        right, down, center = (np.array(vector, float) for vector in PLANE_AXES[plane])
        if rotation is not None:
            right, down = rotation.apply([right, down])
        center = center + shift
        normal = np.cross(right, down)
        center -= normal * ((center - point) @ normal)
        return cls(center, right, down, fov / size, (size, size))

    def move(self, offset):
        """Return the parallel plane `offset` cm further along the normal."""
        center = self.center + offset * np.cross(self.right, self.down)
        return replace(self, center=center)

    def resample(self, size):
        """Return the same square field of view with size x size samples."""
        spacing = self.spacing * self.shape[0] / size
        return replace(self, spacing=spacing, shape=(size, size))

    def points(self):
        """Return the positions in cm, float32 (3, rows, columns)."""
        v, u = (
            ((np.arange(n) - (n - 1) / 2) * self.spacing).astype(np.float32)
            for n in self.shape
        )
        vectors = np.float32([self.center, self.right, self.down])
        center, right, down = vectors[..., None, None]
        return center + down * v[:, None] + right * u

    def crop(self, rows, columns):
        """Return the part of the plane in two slices of its rows and columns."""
        v = (rows.start + rows.stop - self.shape[0]) / 2 * self.spacing
        u = (columns.start + columns.stop - self.shape[1]) / 2 * self.spacing
        center = self.center + v * self.down + u * self.right
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        return replace(self, center=center, shape=shape)

    def window(self, center, radius):
        """Return the rows and columns within a ball, None if the plane misses it."""
        offset = np.asarray(center) - self.center
        if abs(offset @ np.cross(self.right, self.down)) > radius:
            return None
        position = np.array([offset @ self.down, offset @ self.right]) / self.spacing
        position += (np.array(self.shape) - 1) / 2
        reach = radius / self.spacing
        low = np.clip(np.floor(position - reach), 0, self.shape).astype(int)
        high = np.clip(np.ceil(position + reach) + 1, 0, self.shape).astype(int)
        return slice(low[0], high[0]), slice(low[1], high[1])


class Canvas:
    """The image of one head on one plane, painted from the outside in."""

    def __init__(self, head, plane, points):
        self.plane, self.points = plane, points
        self.lobes, self.skin = head.lobes(points), head.surface(points)
        self.brain = self.lobes.min(0)
        self.texture = head.noise(points, 2.2, head.shifts[3])
        self.fine = head.noise(points, 0.9, head.shifts[4])
        self.image = np.full_like(self.brain, TISSUE["air"])

    def paint(self, distance, intensity, part=...):
        """Cover a body; at its edge a pixel takes the share that lies inside."""
        alpha = np.clip(0.5 - distance / self.plane.spacing, 0, 1)
        self.image[part] += alpha * (intensity - self.image[part])

    def paint_bodies(self, bodies, limit):
        """Paint ellipsoids as far as they lie within the body of distance `limit`."""
        for tissue, center, radii in bodies:
            part = self.plane.window(center, max(radii) + 1.0)  # warps move under 1 cm
            if part is not None:
                distance = ellipsoid(self.points[:, *part], center, radii)
                self.paint(np.maximum(distance, limit[part]), TISSUE[tissue], part)


class Head:
    """The anatomy of one patient, the same in every scan."""

    def __init__(self, rng):
        self.noise = Noise(rng)
        self.scale = rng.uniform(0.94, 1.05, 3)
        self.ventricles = rng.uniform(0.75, 1.4)
        self.sulci = rng.uniform(0.03, 0.09)  # half width in cm, grows with age
        self.gray = rng.uniform(0.7, 0.86)
        self.scalp = rng.uniform(0.35, 0.7)
        self.shifts = rng.uniform(0, 64, 12)
        self.bodies = {"face": [], "deep": []}
        with Path(__file__).with_name("phantom_anatomy.csv").open() as file:
            for row in csv.DictReader(file):
                self._add_bodies(rng, row)

    def _add_bodies(self, rng, row):
        center = np.array([float(row[name]) for name in "xyz"])
        radii = np.array([float(row[f"radius_{name}"]) for name in "xyz"])
        growth = self.ventricles if row["tissue"] == "csf" else 1
        for side in (1, -1) if center[0] else (1,):
            c = (center * (side, 1, 1) + rng.normal(0, 0.05, 3)) * self.scale
            r = radii * rng.uniform(0.88, 1.12, 3) * growth
            self.bodies[row["group"]].append((row["tissue"], c, r))

    def lobes(self, points):
        """Return the distances (4, ...): cerebrum, temporal lobes, cerebellum, stem."""
        q = points / as_column(self.scale, points)
        mirrored = np.stack([np.abs(q[0]), q[1], q[2]])
        cerebrum = ellipsoid(q, (0, -0.2, 0.6), (6.6, 8.4, 6.5))
        cerebrum = np.maximum(cerebrum, -1.7 - 0.12 * q[1] - q[2])  # flat skull base
        temporal = ellipsoid(mirrored, (3.9, 1.0, -1.7), (2.5, 3.9, 2.3))
        cerebellum = ellipsoid(mirrored, (1.5, -4.2, -3.4), (3.4, 3.1, 2.6))
        cord = np.maximum(np.hypot(q[0], q[1] + 1.9) - 0.7, q[2] + 3.5)
        stem = np.minimum(ellipsoid(q, (0, -0.8, -2.6), (1.5, 1.3, 2.0)), cord)
        return np.stack([cerebrum, temporal, cerebellum, stem])

    def surface(self, points):
        """Return the signed distance of the skin."""
        q = points / as_column(self.scale, points)
        mirrored = np.stack([np.abs(q[0]), q[1], q[2]])
        skin = ellipsoid(q, (0, -0.2, 0.5), np.add((7.15, 8.95, 7.15), self.scalp))
        face = ellipsoid(q, (0, 3.2, -6), (6.8, 6.5, 8.5))
        nose = ellipsoid(q, (0, 9.7, -4.6), (1.1, 1.6, 1.9))
        neck = np.hypot(q[0], q[1] + 1.2 - 0.25 * (q[2] + 6))
        neck = neck - 6.2 + 0.35 * np.clip(q[2] + 6, 0, 9)
        neck = np.maximum(neck, q[2] + 3.5)
        ear = ellipsoid(mirrored, (7.7, -1.2, -3.6), (0.5, 1.3, 2.2))
        for part in (face, nose, neck, ear):
            skin = smooth_union(skin, part, 1.4)
        return skin

    def render(self, plane, tumor):
        """Return the image and the signed distance from the tumor, float32 (n, n).

        `plane` is square. The tumor's mask is distance < 0.
        """
        rows, columns, bend = self._bend(plane, tumor)
        cropped = plane.crop(rows, columns)
        points = cropped.points()
        canvas = Canvas(self, cropped, points + bend)
        self._paint_skull(canvas)
        self._paint_brain(canvas)
        self._paint_midline(canvas)
        distance = np.full_like(canvas.brain, OUTSIDE)
        part = cropped.window(tumor.center, 2.2 * tumor.radius + 1.5)
        if part is not None:
            distance[part] = tumor.signed_distance(self, points[:, *part])
            tumor.render(canvas, part, points[:, *part], distance[part])
        image = np.full(plane.shape, TISSUE["air"], np.float32)
        whole = np.full(plane.shape, OUTSIDE, np.float32)
        image[rows, columns], whole[rows, columns] = canvas.image, distance
        return image, whole

    def _bend(self, plane, tumor):
        """Rows and columns of the head, and its displacements (3, rows, columns).

        Slow waves keep the anatomy from being all ellipses. The tumor pushes the tissue
        around it, not the skull. A quarter of the resolution is enough for both.
        """
        n = plane.shape[0]
        ratio = n / (n // 4)
        points = plane.resample(n // 4).points()
        near = self.surface(points) < 1
        rows, columns = (
            slice(int(found[0] * ratio), min(int((found[-1] + 1) * ratio) + 1, n))
            for found in (np.flatnonzero(near.any(1)), np.flatnonzero(near.any(0)))
        )
        waves = [self.noise(points, 10, shift) for shift in self.shifts[:3]]
        away = points - np.float32(tumor.center)[:, None, None]
        push = tumor.push * np.exp(-(away**2).sum(0) / (1.8 * tumor.radius) ** 2)
        inside = np.clip(-self.lobes(points).min(0) / 2, 0, 1)
        bend = 0.16 * np.stack(waves) - away * push * inside
        return rows, columns, upsample(bend, n)[:, rows, columns]

    def _paint_skull(self, canvas):
        points, paint, texture = canvas.points, canvas.paint, canvas.texture
        x, y, z = points
        brain, skin = canvas.brain, canvas.skin
        paint(skin, 0.55 * TISSUE["fat"])
        paint(skin + 0.12, TISSUE["fat"] + 0.1 * texture)
        stretch = np.float32([1, 0.7, 0.4])[:, None, None]  # muscle fibers hang down
        strands = self.noise(points * stretch, 2.4, self.shifts[6])
        soft = (
            TISSUE["muscle"] + 0.35 * np.clip(texture, -0.8, 1.5) + 0.08 * canvas.fine
        )
        paint(
            skin + 0.1 + self.scalp, soft + np.clip(0.7 - 3 * np.abs(strands), 0, 0.7)
        )
        bone = np.maximum(brain - 0.7, skin + self.scalp)
        paint(bone, TISSUE["bone"])
        marrow = np.abs(brain - 0.48) - 0.07 - 0.04 * texture
        paint(np.maximum(marrow, bone + 0.1), TISSUE["muscle"])
        spine = np.maximum(np.hypot(x, y - 0.2) - 1.1, z + 6.6)
        vertebrae = np.sin(z * 2.6 + self.shifts[5]) > -0.75
        paint(spine, 0.4 + 0.7 * vertebrae)
        paint(brain - 0.2, 0.8 * TISSUE["csf"])
        canvas.paint_bodies(self.bodies["face"], skin + 0.3)

    def _paint_brain(self, canvas):
        x, y, z = canvas.points
        paint, lobes, brain = canvas.paint, canvas.lobes, canvas.brain
        paint(brain, self._brain_tissue(canvas))
        sylvian = np.abs(lobes[1]) - 0.08 - 0.05 * canvas.texture
        sylvian = np.maximum(sylvian, np.maximum(lobes[0], 2.4 - np.abs(x)))
        fluid = TISSUE["csf"] + 0.2 * np.clip(canvas.fine, 0, 2)
        paint(np.maximum(sylvian, -0.5 - z), fluid)
        tentorium = np.maximum(np.maximum(lobes[0], brain), y + 1.5)
        paint(np.maximum(np.abs(lobes[2]) - 0.1, tentorium), TISSUE["csf"])
        paint(np.maximum(np.abs(lobes[2]) - 0.04, tentorium), 1.2)
        canvas.paint_bodies(self.bodies["deep"], brain)

    def _paint_midline(self, canvas):
        x, y, z = canvas.points
        paint, brain = canvas.paint, canvas.brain
        callosum = np.hypot((y + 0.3) / 3.3, (z - 1.2) / 1.9)
        callosum = np.maximum(np.abs(callosum - 1) * 2.2 - 0.25, np.abs(x) - 1.0)
        paint(np.maximum(callosum, 1.2 - z), 1.1)
        fissure = np.maximum(canvas.lobes[0], 3.3 - np.hypot(0.62 * (y + 0.3), z - 0.3))
        paint(np.maximum(np.abs(x) - self.sulci, fissure), TISSUE["csf"])
        falx = np.maximum(np.abs(x) - 0.03, fissure)
        paint(falx, 0.7 * TISSUE["vessel"])
        dura = np.maximum(np.abs(brain - 0.1) - 0.04, -z - 1)
        paint(dura, 0.8 + 0.3 * canvas.texture)
        sinus = np.hypot(x, brain - 0.05) - 0.022 * (9 - y)  # wider to the back
        paint(np.maximum(sinus, -z), TISSUE["vessel"])

    def _brain_tissue(self, canvas):
        """Intensities of gray and white matter, sulci, vessels and cerebellar folia."""
        lobes, texture, fine = canvas.lobes, canvas.texture, canvas.fine
        depth = -canvas.brain
        # about the distance in cm from the nearest sulcus
        sulcus_distance = np.abs(self.noise(canvas.points, 3.0, self.shifts[7])) * 0.48
        reach = 1.6 + 0.4 * texture - depth
        white = np.minimum(sulcus_distance + np.maximum(-reach, 0), depth)
        white = np.clip((white - 0.2) / 0.2, 0, 1)
        tissue = self.gray + (TISSUE["white"] - self.gray) * white
        tissue = tissue + 0.012 * fine + 0.015 * texture
        sulcus = self.sulci * np.clip(reach, 0, 1.4) - sulcus_distance
        sulcus = np.clip(sulcus / 0.07 + 0.5, 0, 1) * np.clip(2 * reach, 0, 1)
        veins = 1.3 * np.clip(fine - 0.8, 0, 1)
        tissue += sulcus * (TISSUE["csf"] + veins - tissue)
        folia = np.sin(lobes[2] * 12 + 2 * texture) * 0.05 + 0.9
        stem_or_cerebrum = np.where(lobes[3] < -0.05, 0.97, tissue)
        return np.where(lobes[2] < lobes[0], folia, stem_or_cerebrum)
