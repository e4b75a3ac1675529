"""Anatomy of the phantom: an analytic head, rendered with a tumor on any plane.

Points are float32 (3, n) in cm: x to the right of the image, y to the nose, z to the
crown. Bodies are mirrored ellipsoids; their signed distances are negative inside.
"""

from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage

PLANE_AXES = {  # two directions on the screen, right and down, and the field's center
    "axial": ((1, 0, 0), (0, -1, 0), (0, 0.3, 0)),
    "coronal": ((1, 0, 0), (0, 0, -1), (0, 0, -1.9)),
    "sagittal": ((0, -1, 0), (0, 0, -1), (0, 0.8, -1.9)),
}
BODIES = Path(__file__).with_name("phantom_anatomy.csv")
AIR, BONE, FLUID, MUSCLE, WHITE_MATTER, VESSEL, FAT = 0.03, 0.14, 0.36, 0.8, 1, 1.8, 2.6


def ellipsoid(points, center, radii):
    """Return the approximate signed distance (n,) in cm, exact for spheres."""
    scaled = (points - center[:, None]) / radii[:, None]
    norm = np.linalg.norm(scaled, axis=0)
    slope = np.linalg.norm(scaled / radii[:, None], axis=0) + 1e-6
    return norm * (norm - 1) / slope


def slice_points(plane, point, fov, size, offset=0):
    """Return float32 (3, size, size), the positions of a slice of `fov` cm per side.

    It is on a plane of PLANE_AXES, `offset` cm along its normal from `point`.
    """
    *axes, center = np.array(PLANE_AXES[plane], float)
    normal = np.cross(*axes)
    center += ((point - center) @ normal + offset) * normal
    steps = ((np.arange(size) + 0.5) / size - 0.5) * fov
    points = np.tensordot(np.transpose(axes), np.meshgrid(steps, steps), 1)
    return np.float32(center[:, None, None] + points)


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
        self.bodies = {}  # per group an array of intensity, center and radii
        for group, table in pd.read_csv(BODIES).groupby("group", sort=False):
            bodies = table.drop(columns=["group", "structure"]).to_numpy(np.float32)
            if group in ("face", "deep"):
                bodies[:, 4:] *= rng.uniform(0.88, 1.12, (len(bodies), 3))
            self.bodies[group] = bodies

    def noise(self, points, wavelength):
        """Return a smooth random field (n,), mean 0, standard deviation 1."""
        grid, position = self._noise_grid, points * np.float32(13.3 / wavelength)
        return ndimage.map_coordinates(grid, position, order=1, mode="grid-wrap")

    def normalize(self, points):
        """Map positions to those in the average head, without waves and scale."""
        waves = np.sin(0.6 * points[[1, 2, 0]] - 0.4 * points[[2, 0, 1]] + self.phases)
        return (points + 0.17 * waves) / np.float32(self.scale)[:, None]

    def distances(self, group, points):
        """Return distances (n_bodies, n) of normalized points from a group's bodies."""
        mirrored = np.concatenate([np.abs(points[:1]), points[1:]])
        bodies = self.bodies[group]
        return np.stack([ellipsoid(mirrored, b[1:4], b[4:]) for b in bodies])

    def lobes(self, points):
        """Return distances (5, n): cerebrum, temporal lobe, cerebellum, stem, cord."""
        lobes = self.distances("brain", points)
        lobes[0] = np.maximum(lobes[0], -1.7 - 0.12 * points[1] - points[2])  # is flat
        return lobes

    def brain_distance(self, points):
        """Return the distance (n,) in cm of points from the brain."""
        return self.lobes(self.normalize(points)).min(0)

    def render(self, points, tumor):
        """Return a slice and its distances from the tumor (mask < 0), as float32."""
        shape, spacing = points.shape[1:], np.linalg.norm(np.diff(points[:, 0, :2]))
        points = points.reshape(3, -1)
        image = np.full(points.shape[1], AIR, np.float32)
        distance = tumor.signed_distance(self, points)
        layers = chain(self.layers(self.normalize(points)), tumor.layers(self, points))
        for body, intensity in layers:  # at an edge a pixel takes the share inside
            share = np.clip(0.5 - body / spacing, 0, 1)
            image += share * (intensity - image)
        return image.reshape(shape), distance.reshape(shape)

    def layers(self, points):
        """Yield the tissues from the outside in, as distance (n,) and intensity."""
        x, y, z = points
        texture, lobes = self.noise(points, 2.2), self.lobes(points)
        cerebrum, _, cerebellum, *stem_and_cord = lobes
        brain = lobes.min(0)
        skin = self.distances("skin", points)
        skin = -0.4 * np.logaddexp.reduce(skin / -0.4)  # union with filled creases
        below = skin + self.scalp
        yield skin, FAT
        yield below, MUSCLE + 0.4 * np.clip(texture, -0.8, 1.5)
        yield np.maximum(brain - 0.7, below), BONE
        yield brain - 0.2, 0.8 * FLUID
        yield from self._organs("face", points, skin + 0.3)
        sulcus = 0.48 * np.abs(self.noise(points, 3.0))  # distance, roughly
        below_sulci = -1.6 - 0.4 * texture - brain
        cortex = np.minimum(sulcus + np.maximum(below_sulci, 0), -brain)
        yield brain, self.gray
        yield 0.3 - cortex, WHITE_MATTER + 0.02 * texture
        yield np.maximum.reduce([sulcus - self.sulci, below_sulci, brain]), FLUID
        yield np.minimum(*stem_and_cord), 0.97
        yield np.maximum(np.abs(cerebellum) - 0.1, cerebrum), FLUID
        yield from self._organs("deep", points, brain)
        depth = np.hypot(0.62 * (y + 0.3), z - 0.3)
        fissure = np.maximum(np.abs(x) - self.sulci, 3.3 - depth)
        yield np.maximum(fissure, cerebrum), FLUID
        dura = np.abs(brain - 0.1) - 0.04
        yield np.maximum(dura, -z - 1), 0.8 + 0.3 * texture
        sinus = np.hypot(x, brain - 0.05) - 0.022 * (9 - y)  # wider to the back
        yield np.maximum(sinus, -z), VESSEL

    def _organs(self, group, points, limit):
        """Yield a group's bodies as far as they lie within the distance `limit`."""
        distances = np.maximum(self.distances(group, points), limit)
        return zip(distances, self.bodies[group][:, 0], strict=True)
