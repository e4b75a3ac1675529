"""Anatomy of the phantom: an analytic head, rendered with a tumor on any plane.

Points are float32 (3, n) in cm: x to the right of the image, y to the nose, z to the
crown. Bodies are mirrored ellipsoids; their signed distances are negative inside.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage

PLANE_AXES = {  # two directions on the screen, right and down, and the field's center
    "axial": ((1, 0, 0), (0, -1, 0), (0, 0.3, 0)),
    "coronal": ((1, 0, 0), (0, 0, -1), (0, 0, -1.9)),
    "sagittal": ((0, -1, 0), (0, 0, -1), (0, 0.8, -1.9)),
}
TISSUE = dict(air=0.03, bone=0.14, csf=0.36, eye=0.4, muscle=0.8, white=1.0, deep=0.92)
TISSUE |= dict(vessel=1.8, orbit=1.9, fat=2.6)


def ellipsoid(points, center, radii):
    """Return the approximate signed distance (n,) in cm, exact for spheres."""
    center, radii = np.float32(center)[:, None], np.float32(radii)[:, None]
    q = (points - center) / radii
    k = np.sqrt((q * q).sum(0))
    q /= radii
    return k * (k - 1) / (np.sqrt((q * q).sum(0)) + 1e-6)


@dataclass
class SlicePlane:
    """A square of `fov` cm along two unit vectors, sampled at size x size points."""

    center: np.ndarray
    right: np.ndarray
    down: np.ndarray
    fov: float
    size: int

    @classmethod
    def through(cls, point, plane, fov, size, rotation=None, shift=0):
        """Return a plane of PLANE_AXES through `point`, tilted and shifted (in cm)."""
        right, down, center = np.array(PLANE_AXES[plane], float)
        if rotation is not None:
            right, down = rotation.apply([right, down])
        view = cls(center + shift, right, down, fov, size)
        return view.move((point - view.center) @ np.cross(right, down))

    def move(self, offset):
        """Return the parallel plane `offset` cm further along the normal."""
        normal = np.cross(self.right, self.down)
        return replace(self, center=self.center + offset * normal)

    def points(self):
        """Return the positions in cm, row by row, float32 (3, size * size)."""
        steps = ((np.arange(self.size) + 0.5) / self.size - 0.5) * self.fov
        rows = self.center[:, None] + self.down[:, None] * steps
        points = rows[:, :, None] + self.right[:, None, None] * steps
        return points.reshape(3, -1).astype(np.float32)


class Head:
    """The anatomy of one patient, the same in every scan."""

    def __init__(self, rng):
        grid = rng.standard_normal((64, 64, 64), dtype=np.float32)
        grid = ndimage.gaussian_filter(grid, 1.5, mode="wrap")
        self._noise_grid = grid / grid.std()
        self.scale = rng.uniform(0.94, 1.05, 3)
        self.sulci = rng.uniform(0.03, 0.09)  # half width in cm, grows with age
        self.gray = rng.uniform(0.7, 0.86)
        self.scalp = rng.uniform(0.35, 0.7)
        self.phases = rng.uniform(0, 2 * np.pi, (3, 1)).astype(np.float32)
        ventricles = rng.uniform(0.75, 1.4)
        self.bodies = {"skin": [], "brain": [], "face": [], "deep": []}
        table = pd.read_csv(Path(__file__).with_name("phantom_anatomy.csv"))
        for group, tissue, *shape, _ in table.itertuples(index=False):
            center, radii = np.split(np.array(shape), 2)
            if group in ("face", "deep"):
                radii *= rng.uniform(0.88, 1.12, 3)
            if tissue == "csf":
                radii *= ventricles
            self.bodies[group].append((TISSUE[tissue], center, radii))

    def noise(self, points, wavelength):
        """Return a smooth random field (n,), mean 0, standard deviation 1."""
        position = points * np.float32(13.3 / wavelength)
        options = dict(order=1, mode="grid-wrap", output=np.float32)
        return ndimage.map_coordinates(self._noise_grid, position, **options)

    def normalize(self, points):
        """Map positions to those in the average head, without waves and scale."""
        waves = np.sin(0.6 * points[[1, 2, 0]] - 0.4 * points[[2, 0, 1]] + self.phases)
        return (points + 0.17 * waves) / np.float32(self.scale)[:, None]

    def distances(self, group, points):
        """Return the distances of normalized points from the bodies of a group."""
        mirrored = np.concatenate([np.abs(points[:1]), points[1:]])
        return [ellipsoid(mirrored, *shape) for _, *shape in self.bodies[group]]

    def lobes(self, points):
        """Return distances (5, n): cerebrum, temporal lobe, cerebellum, stem, cord."""
        lobes = np.stack(self.distances("brain", points))
        lobes[0] = np.maximum(lobes[0], -1.7 - 0.12 * points[1] - points[2])  # is flat
        return lobes

    def render(self, plane, tumor):
        """Return image and distance from the tumor (mask < 0), float32 (size, size)."""
        canvas = Canvas(self, plane)
        canvas.paint_skull()
        canvas.paint_brain()
        distance = tumor.signed_distance(self, plane.points())
        tumor.paint(canvas, distance)
        shape = (plane.size, plane.size)
        return canvas.image.reshape(shape), distance.reshape(shape)


class Canvas:
    """The image of a head on a plane, painted from the outside in."""

    def __init__(self, head, plane):
        self.head, self.spacing = head, plane.fov / plane.size
        self.points = head.normalize(plane.points())
        self.lobes = head.lobes(self.points)
        self.brain = self.lobes.min(0)
        self.texture = head.noise(self.points, 2.2)
        self.image = np.full_like(self.brain, TISSUE["air"])

    def paint(self, distance, intensity):
        """Cover a body; at its edge a pixel takes the share that lies inside."""
        share = np.clip(0.5 - distance / self.spacing, 0, 1)
        self.image += share * (intensity - self.image)

    def _paint_bodies(self, group, limit):
        """Paint ellipsoids as far as they lie within the body of distance `limit`."""
        distances = self.head.distances(group, self.points)
        for distance, body in zip(distances, self.head.bodies[group], strict=True):
            self.paint(np.maximum(distance, limit), body[0])

    def paint_skull(self):
        """Paint scalp, muscles, bone, fluid and the organs of the face."""
        parts = np.stack(self.head.distances("skin", self.points))
        skin = -0.4 * np.logaddexp.reduce(parts / -0.4)  # union with filled creases
        self.paint(skin, TISSUE["fat"])
        below = skin + self.head.scalp
        self.paint(below, TISSUE["muscle"] + 0.4 * np.clip(self.texture, -0.8, 1.5))
        self.paint(np.maximum(self.brain - 0.7, below), TISSUE["bone"])
        self.paint(self.brain - 0.2, 0.8 * TISSUE["csf"])
        self._paint_bodies("face", skin + 0.3)

    def paint_brain(self):
        """Paint brain tissue, fissures, ventricles, dura and the sagittal sinus."""
        x, y, z = self.points
        cerebrum, _, cerebellum = self.lobes[:3]
        self.paint(self.brain, self._brain_tissue())
        self.paint(np.maximum(np.abs(cerebellum) - 0.1, cerebrum), TISSUE["csf"])
        self._paint_bodies("deep", self.brain)
        depth = np.hypot(0.62 * (y + 0.3), z - 0.3)
        fissure = np.maximum(np.abs(x) - self.head.sulci, 3.3 - depth)
        self.paint(np.maximum(fissure, cerebrum), TISSUE["csf"])
        dura = np.maximum(np.abs(self.brain - 0.1) - 0.04, -z - 1)
        self.paint(dura, 0.8 + 0.3 * self.texture)
        sinus = np.hypot(x, self.brain - 0.05) - 0.022 * (9 - y)  # wider to the back
        self.paint(np.maximum(sinus, -z), TISSUE["vessel"])

    def _brain_tissue(self):
        """Return the intensities of gray and white matter and of sulci."""
        gray, depth = self.head.gray, -self.brain
        sulcus = 0.48 * np.abs(self.head.noise(self.points, 3.0))  # distance, roughly
        reach = 1.6 + 0.4 * self.texture - depth  # of the sulci below this point
        white = np.minimum(sulcus + np.maximum(-reach, 0), depth)
        white = np.clip((white - 0.2) / 0.2, 0, 1)
        tissue = gray + (TISSUE["white"] - gray) * white
        fluid = np.clip((self.head.sulci - sulcus) / 0.07 + 0.5, 0, 1)
        fluid *= np.clip(reach, 0, 1)
        tissue += 0.02 * self.texture + fluid * (TISSUE["csf"] - tissue)
        return np.where(self.lobes[3:].min(0) < 0, 0.97, tissue)  # stem and cord
