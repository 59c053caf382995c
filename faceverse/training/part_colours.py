"""Vertex colours of eyes, teeth and gums, tongue and mouth cavity; they do not vary with skin tone."""

from __future__ import annotations

import numpy as np

from .skin_fields import smoothstep

PART_COLOURS = {  # linear RGB
    "sclera": (0.56, 0.51, 0.485),
    "iris": (0.09, 0.045, 0.02),  # as `FaceParams.iris`, which is painted over it
    "limbus": (0.035, 0.022, 0.015),
    "pupil": (0.006, 0.006, 0.006),
    "tooth": (0.62, 0.57, 0.48),
    "gum": (0.40, 0.155, 0.145),
    "tongue": (0.34, 0.125, 0.115),
    "mouth_inside": (0.16, 0.045, 0.040),
    "eye_sockets": (0.26, 0.12, 0.10),
}
PUPIL_DEG, IRIS_DEG = 8.5, 25.0  # as in `faceverse.model.skin_texture`
GUM_FROM, GUM_FULL = 0.48, 0.66  # share of the height of a row of teeth, from the biting edge
ROW_NEIGHBOURS = 0.005  # metres along the row within which its edges are sought
THROAT_DEPTH = (0.004, 0.050)  # metres behind the front teeth over which the mouth darkens
THROAT_SHADE = 0.10


def fixed_colours(
    regions: dict[str, np.ndarray], vertices: np.ndarray, upper_teeth: np.ndarray, lower_teeth: np.ndarray
) -> np.ndarray:
    """Linear RGB (V, 3) of a head (V, 3) with regions (V,) bool and the two rows of teeth (V,) bool; grey on skin,
    where it is unused."""
    colours = np.full((len(vertices), 3), 0.5)
    for name in ("eye_sockets", "tongue", "mouth_inside"):
        colours[regions[name]] = PART_COLOURS[name]
    inside = regions["tongue"] | regions["mouth_inside"]
    for row, root in ((upper_teeth, 1.0), (lower_teeth, -1.0)):
        share = height_share(vertices[row])
        share = share if root > 0 else 1 - share
        gum = smoothstep((share - GUM_FROM) / (GUM_FULL - GUM_FROM))[:, None]
        colours[row] = (1 - gum) * PART_COLOURS["tooth"] + gum * PART_COLOURS["gum"]
        inside = inside | row
    if inside.any():
        front = (
            vertices[upper_teeth | lower_teeth, 2].max() if (upper_teeth | lower_teeth).any() else vertices[:, 2].max()
        )
        colours[inside] *= throat_shade(front - vertices[inside, 2])[:, None]
    for side in ("left", "right"):
        ball = regions[f"eyeball_{side}"]
        colours[ball] = eyeball_colours(vertices[ball], vertices[ball].mean(0), np.array([0.0, 0.0, 1.0]))
    return colours


def throat_shade(depth: np.ndarray) -> np.ndarray:
    """Factor (K,) on the linear colour of what is `depth` (K,) metres behind the front teeth."""
    share = smoothstep((depth - THROAT_DEPTH[0]) / (THROAT_DEPTH[1] - THROAT_DEPTH[0]))
    return 1 - (1 - THROAT_SHADE) * share


def height_share(row: np.ndarray) -> np.ndarray:
    """Relative height (K,) in a row of teeth (K, 3), 0 at the lower edge .. 1 at the upper, following the arch."""
    apart = np.linalg.norm(row[:, None, (0, 2)] - row[None, :, (0, 2)], axis=-1)
    beside = apart < ROW_NEIGHBOURS
    heights = np.broadcast_to(row[None, :, 1], beside.shape)
    low, high = np.where(beside, heights, np.inf).min(1), np.where(beside, heights, -np.inf).max(1)
    return (row[:, 1] - low) / np.maximum(high - low, 1e-6)


def eyeball_colours(vertices: np.ndarray, centre: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Linear RGB (K, 3) of eyeball vertices (K, 3): pupil, iris, limbal ring and sclera by the angle to the gaze axis;
    the sclera reddens laterally because of vessels."""
    direction = vertices - centre
    cosine = direction @ axis / np.linalg.norm(direction, axis=1)
    degrees = np.degrees(np.arccos(np.clip(cosine, -1, 1)))[:, None]
    colour = {k: np.array(v) for k, v in PART_COLOURS.items()}
    pupil = smoothstep((PUPIL_DEG + 1 - degrees) / 2)
    limbus = np.exp(-0.5 * ((degrees - IRIS_DEG + 1.5) / 1.8) ** 2)
    white = smoothstep((degrees - IRIS_DEG + 1) / 2)
    vessels = 1 - np.clip((degrees - 35) / 60, 0, 1) * np.array([0.05, 0.22, 0.22])
    eye = (1 - white) * colour["iris"] + white * colour["sclera"] * vessels
    eye = eye + 0.75 * limbus * (colour["limbus"] - eye)
    return eye + pupil * (colour["pupil"] - eye)
