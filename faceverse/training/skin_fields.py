"""Masks and coordinates on the head for painting skin: hairline, beard, lips, lids, cheeks, brows, ...

Hairline and beard are defined on the head unrolled about a vertical axis between the ears: `arc` is the angle to the
front times 75 mm, `height` is relative to the eyes and scaled so that the crown is at 110 mm and the chin at -111 mm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

ARC_RADIUS, CROWN, CHIN = 0.075, 0.110, -0.111
# (arc, height) in mm; hair above the line. Forehead, temple, sideburn, around the ear, nape.
HAIRLINE_MM = (
    (0, 63), (18, 64), (34, 61), (48, 51), (57, 40), (64, 30), (71, 19), (77, 4), (81, -14), (86, -20), (96, -18),
    (99, 4), (132, 2), (138, -34), (152, -60), (190, -74), (236, -74),
)  # fmt: skip
# The beard lies between these: base of the nose, around the mouth, over the cheek to the sideburn; and under the jaw.
BEARD_TOP_MM = ((0, -47), (13, -48), (24, -55), (32, -69), (50, -65), (68, -48), (80, -22), (84, -12), (98, -10))
BEARD_BOTTOM_MM = ((0, -122), (28, -121), (52, -113), (74, -96), (92, -70), (98, -56))
BEARD_END = 0.097  # arc in metres: the ear
NOWHERE = 9.0


@dataclass(frozen=True)
class Brows:
    """Eyebrow coordinates on V vertices: `along` (V,) 0 at the nose .. 1 at the temple; `across` (V,) signed distance
    from the brow's centre line, positive above it, in units of its half height."""

    along: np.ndarray
    across: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """(V,) 0..1: the eyebrows of an average person."""
        return np.clip(1.6 - np.abs(self.across), 0, 1)


@dataclass(frozen=True)
class SkinFields:
    """Painting masks on V fine vertices; (V,) in 0..1 unless stated otherwise.

    Args:
        skin: everything but eyes, teeth, tongue, mouth cavity and eye sockets; 0 or 1.
        lips, lid_margin: soft masks.
        upper: the upper of the two lids and lips.
        hairline: metres, positive inside the hair.
        temples, crown, top: where hair recedes.
        beard: metres, positive inside the beard; `moustache` is its densest part.
        nostrils, seam: the nostrils' hollows, and the contact line of the lips.
        orbit, under_eye, cheeks, nose, ears, chin: soft masks.
        brow_smear: region of the source textures' own brows.
        brows: see `Brows`.
    """

    skin: np.ndarray
    lips: np.ndarray
    lid_margin: np.ndarray
    upper: np.ndarray
    hairline: np.ndarray
    temples: np.ndarray
    crown: np.ndarray
    top: np.ndarray
    beard: np.ndarray
    moustache: np.ndarray
    nostrils: np.ndarray
    seam: np.ndarray
    orbit: np.ndarray
    under_eye: np.ndarray
    cheeks: np.ndarray
    nose: np.ndarray
    ears: np.ndarray
    chin: np.ndarray
    brow_smear: np.ndarray
    brows: Brows


def smoothstep(x: float | np.ndarray) -> np.ndarray:
    """Cubic Hermite step: 0 below 0, 1 above 1."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def skin_fields(
    vertices: np.ndarray,
    regions: dict[str, np.ndarray],
    lips: np.ndarray,
    lid_margin: np.ndarray,
    ears: np.ndarray,
    brows: Brows | None = None,
) -> SkinFields:
    """Compute the masks for a head.

    Args:
        vertices: (V, 3) metres, +z out of the face, any origin.
        regions: (V,) bool by name, see `faceverse.training.assembly.REGIONS`.
        lips, lid_margin, ears: (V,) soft masks of the sources.
        brows: None for no eyebrows.
    """
    interior = (
        regions["eyeballs"] | regions["teeth"] | regions["tongue"] | regions["mouth_inside"] | regions["eye_sockets"]
    )
    eyes = np.array([vertices[regions[f"eyeball_{side}"]].mean(0) for side in ("right", "left")])
    v = vertices - eyes.mean(0)
    eyes = eyes - eyes.mean(0)
    head = v[~interior]
    mouth = v[regions["lips"]].mean(0)
    front = v[~interior & (np.abs(v[:, 0]) < 0.01) & (v[:, 1] > mouth[1]) & (v[:, 1] < -0.02)]
    tip = front[front[:, 2].argmax()] * (0, 1, 1)
    beneath = np.abs(head[:, 0]) < 0.012
    chin = head[beneath & (head[:, 2] > mouth[2] - 0.025)][:, 1].min()
    arc, height = unroll(v, v[regions["ears"], 2].mean(), head[:, 1].max(), chin)
    hairline = _distance(arc, height, HAIRLINE_MM)
    beard = np.minimum(-_distance(arc, height, BEARD_TOP_MM), _distance(arc, height, BEARD_BOTTOM_MM))
    beard = np.minimum(beard, BEARD_END - arc)
    inner = cKDTree(v[regions["mouth_inside"]]).query(v)[0] if regions["mouth_inside"].any() else np.full(len(v), 1.0)
    none = np.full(len(v), NOWHERE)

    def near(points: np.ndarray, *radius: float) -> np.ndarray:
        """Gaussian masks around points (P, 3) and their mirror images, radii in metres along x, y, z."""
        offset = (
            np.abs(v[:, None] * (1, 0, 0)) + v[:, None] * (0, 1, 1) - np.abs(points) * (1, 0, 0) - points * (0, 1, 1)
        )
        return np.exp(-0.5 * ((offset / radius) ** 2).sum(-1)).max(1)

    eye = eyes[1:]
    return SkinFields(
        skin=(~interior).astype(np.float64),
        lips=lips * ~interior,
        lid_margin=lid_margin * ~interior,
        upper=smoothstep(0.5 + np.where(height < -0.03, v[:, 1] - mouth[1], v[:, 1] - eye[0, 1]) / 0.004),
        hairline=np.where(interior, -0.1, hairline),
        temples=np.exp(-0.5 * ((arc - 0.040) / 0.013) ** 2) * smoothstep((height - 0.028) / 0.02),
        crown=near(np.array([[0, CROWN - 0.012, tip[2] - 0.155]]), 0.036, 0.030, 0.036),
        top=smoothstep((height - 0.052) / 0.030) * smoothstep((0.150 - arc) / 0.03),
        beard=np.where(interior, -0.1, beard),
        moustache=near(np.array([[0, mouth[1] - 0.008, mouth[2]]]), 0.026, 0.024, 0.030),
        nostrils=near((tip + (0.0092, -0.0062, -0.0115))[None], 0.0034, 0.0024, 0.0032),
        seam=np.exp(-0.5 * (inner / 0.0022) ** 2) * lips * ~interior,
        orbit=near(eye + (0.001, 0.004, 0.012), 0.017, 0.010, 0.014),
        under_eye=near(eye + (-0.004, -0.0165, 0.012), 0.011, 0.0045, 0.012),
        cheeks=near(np.array([[0.040, -0.040, tip[2] - 0.035]]), 0.017, 0.016, 0.022),
        nose=near(tip[None], 0.012, 0.009, 0.012),
        ears=ears * ~interior,
        chin=near(np.array([[0, 0.8 * chin + 0.2 * mouth[1], mouth[2] - 0.006]]), 0.014, 0.012, 0.016),
        brow_smear=near(np.array([[0.034, 0.016, tip[2] - 0.020]]), 0.019, 0.010, 0.030),
        brows=brows or Brows(none, none),
    )


def unroll(v: np.ndarray, axis_z: float, crown: float, chin: float) -> tuple[np.ndarray, np.ndarray]:
    """Arc and height (V,) in metres of points (V, 3) relative to the midpoint between the eyes."""
    arc = ARC_RADIUS * np.abs(np.arctan2(v[:, 0], v[:, 2] - axis_z))
    return arc, np.where(v[:, 1] > 0, v[:, 1] * CROWN / crown, v[:, 1] * CHIN / chin)


def _distance(arc: np.ndarray, height: np.ndarray, line_mm: tuple[tuple[float, float], ...]) -> np.ndarray:
    """Signed distance (V,) in metres to a polyline, positive above it."""
    line = 1e-3 * np.array(line_mm)
    points = np.stack([arc, height], axis=1)
    start, along = line[:-1], np.diff(line, axis=0)
    share = np.clip(((points[:, None] - start) * along).sum(-1) / (along**2).sum(-1), 0, 1)
    distance = np.linalg.norm(points[:, None] - start - share[..., None] * along, axis=-1).min(1)
    return np.where(height > np.interp(arc, line[:, 0], line[:, 1]), distance, -distance)
