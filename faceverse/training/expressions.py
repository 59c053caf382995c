"""Build the 52 ARKit blendshapes of the base model on the mean head.

Apple's documentation of ARFaceAnchor.BlendShapeLocation defines the shapes. The source's own shapes are symmetrised,
some are amplified or attenuated, and their creases are smoothed. Eye and lid shapes are constructed on the head's own
eyeballs (see `lids`), and shapes that must keep the lips closed have them closed again.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import scipy.sparse as sparse

from ..graphics.mesh import unique_edges
from ..model.face_model import ARKIT_NAMES
from .assembly import Assembly
from .edge_loops import eye_grids
from .head_regions import mirror_map
from .jaw import MOTIONS, Jaw
from .lids import GAZE_DEG, LID_DEG, Eyelids
from .lips import POSES, LipRig
from .mouth import LIP_OVERLAP_M, MouthCorrector
from .shape_solver import ShapeSolver
from .sources import ShapeSource
from .upper_face import TARGETS, UpperFace

# Mixtures of source shapes (weights by name) that replace shapes which are too weak, too strong or too high.
MIXTURES = {
    "mouthSmile": {"mouthSmile": 0.85, "mouthDimple": 0.40, "mouthUpperUp": 0.10},
    "noseSneer": {"noseSneer": 1.2, "mouthUpperUp": 0.2},
    "cheekPuff": {"cheekPuff": 1.3},
    "mouthStretch": {"mouthStretch": 1.4},
    "mouthDimple": {"mouthDimple": 1.1},
    "mouthFrown": {"mouthFrown": 1.2},
    "mouthLowerDown": {"mouthLowerDown": 1.4},
    "mouthRollUpper": {"mouthRollUpper": 0.75},
    "mouthShrugUpper": {"mouthShrugUpper": 0.8},
}
SMOOTHING = {  # Laplacian smoothing iterations of a shape's offsets, on the face around lids and lips
    "mouthSmile": 12, "cheekPuff": 20, "cheekSquint": 20, "mouthDimple": 20, "mouthLeft": 20, "mouthRight": 20,
    "mouthRollUpper": 25, "mouthRollLower": 15, "mouthStretch": 20, "mouthFrown": 15, "mouthPress": 15,
}  # fmt: skip
SMOOTHING_ELSE = 4
CLOSED = (
    "cheekPuff", "jawForward", "jawLeft", "jawRight", "mouthDimple", "mouthFrown", "mouthLeft", "mouthRight",
    "mouthPress", "mouthPucker", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthStretch",
    "mouthShrugUpper",
)  # fmt: skip
_SIDE_BLEND_M = 0.020  # distance from the median plane over which a one-sided correction fades in


def fit_expressions(source: ShapeSource, mean: np.ndarray, assembly: Assembly) -> np.ndarray:
    """Build the 52 blendshapes (E, Vc, 3) in metres at weight 1, for the mean head (Vc, 3) in the assembly's space.

    They are built on the symmetrised mean head, so that left and right shapes are exact mirror images.
    """
    return _ExpressionBuilder(source, np.asarray(mean, np.float64), assembly).build()


def base_name(name: str) -> str:
    """Name of an expression without its side; jawLeft and mouthLeft name directions and keep their suffix."""
    if name in ("jawLeft", "jawRight", "mouthLeft", "mouthRight"):
        return name
    return name.removesuffix("Left").removesuffix("Right")


class _ExpressionBuilder:
    """Steps of `fit_expressions`."""

    def __init__(self, source: ShapeSource, mean: np.ndarray, assembly: Assembly):
        self.source, self.head, self.assembly = source, source.head, assembly
        self.mirror = mirror_map(self.head.vertices)
        self.mean = 0.5 * (mean + self._mirrored(mean))
        self.mouth = MouthCorrector(self.head)
        self.rig = LipRig(self.head, self.mean)
        self.jaw = Jaw(self.head, self.rig)
        grids = eye_grids(self.head)
        self.lids = {side: Eyelids(self.head, grids[side], self.mean, side) for side in grids}
        self.upper = UpperFace(ShapeSolver(self.head, assembly.topology, self.mean), assembly, grids)
        self.smooth, self.free = averaging(self.head.quads, len(mean)), self._free_to_smooth(grids)
        self.interior = assembly.regions["mouth_inside"][: len(mean)]

    def build(self) -> np.ndarray:
        shapes = {name: self._shape(name) for name in ARKIT_NAMES if not name.endswith("Right")}
        self._set_lips(shapes)
        for name in ("jawLeft", "mouthLeft"):
            shapes[name.replace("Left", "Right")] = self._mirrored(shapes[name])
        result = [shapes[n] if n in shapes else self._mirrored(shapes[n[:-5] + "Left"]) for n in ARKIT_NAMES]
        return np.stack(result).astype(np.float32)

    def _mirrored(self, offsets: np.ndarray) -> np.ndarray:
        return offsets[..., self.mirror, :] * np.array([-1.0, 1.0, 1.0])

    # -- one shape -----------------------------------------------------------------------------------------------------
    def _shape(self, name: str) -> np.ndarray:
        """A central or left-sided expression."""
        base = base_name(name)
        if base in GAZE_DEG or base in LID_DEG or base == "eyeBlink":
            return self._eye(base)
        weights = MIXTURES.get(base, {base: 1.0})
        mixed = sum(weight * self._source(part, name != base) for part, weight in weights.items())
        shape = self._smoothed(cast(np.ndarray, mixed), SMOOTHING.get(base, SMOOTHING_ELSE))
        if base in POSES:
            both = shape if name == base else shape + self._mirrored(shape)
            shape = shape + self.rig.posed(POSES[base], both, name != base)
        if name.startswith(("brow", "eye", "cheekSquint", "nose")):
            shape[self.interior] = 0
        if base in TARGETS:
            shape = self._reached(base, shape, symmetric=name == base)
        if name == "jawOpen":
            shape = self.jaw.opened(shape)
        elif name in MOTIONS:
            shape = self.jaw.closed(name, shape)
        if name == "tongueOut":
            tongue = self.head.part == "tongue"
            shape[tongue] += self.head.vertices[tongue] + self._mouth_shift() - self.mean[tongue]
        for side in ("left", "right") if name == base else ("left",):
            shape = self.lids[side].clear(shape)
        return shape

    def _reached(self, base: str, shape: np.ndarray, *, symmetric: bool) -> np.ndarray:
        """A shape of brows, nose or cheeks with the figures that it should have."""
        target = TARGETS[base]
        shape = target.start * shape
        if any(target.lids_deg):
            shape = shape + self.lids["left"].follow(*target.lids_deg)
        return self.upper.reach(base, shape, symmetric=symmetric)

    def _source(self, base: str, one_sided: bool) -> np.ndarray:
        """Symmetrised source shape (Vc, 3): the mean of left and mirrored right, or of a shape and its mirror image."""
        if one_sided:
            left, right = self.source.expression(f"{base}Left"), self.source.expression(f"{base}Right")
        elif base.endswith("Left"):
            left, right = self.source.expression(base), self.source.expression(base[:-4] + "Right")
        else:
            left = right = self.source.expression(base)
        shape = 0.5 * (left + self._mirrored(right))
        for side in ("left", "right"):
            shape[self.head.part == f"eyeball_{side}"] = 0
        return shape

    def _eye(self, base: str) -> np.ndarray:
        """A constructed expression of the left eye."""
        lids = self.lids["left"]
        if base == "eyeBlink":
            return lids.blink()
        shape = lids.gaze(*GAZE_DEG[base]) if base in GAZE_DEG else np.zeros_like(self.mean)
        return shape + lids.follow(*LID_DEG[base]) if base in LID_DEG else shape

    def _mouth_shift(self) -> np.ndarray:
        """Translation (3,) from the source's lip line to that of the mean head, in the middle."""
        ring = self.mouth.lips.grid.rings[self.mouth.lips.grid.line]
        middle = [ring[0], ring[len(ring) // 2]]
        return (self.mean[middle] - self.head.vertices[middle]).mean(axis=0)

    # -- creases -------------------------------------------------------------------------------------------------------
    def _free_to_smooth(self, grids: dict) -> np.ndarray:
        """Smoothing weight (Vc, 1): 1 on the face, falling to 0 over the rings around lids and lips."""
        free = (self.head.part == "skin").astype(np.float64)
        for grid in (*grids.values(), self.mouth.lips.grid):
            outside = np.clip((np.arange(len(grid.rings)) - grid.line - 3) / 6, 0, 1)
            np.minimum.at(free, grid.rings, np.broadcast_to(outside[:, None], grid.rings.shape))
        return free[:, None]

    def _smoothed(self, offsets: np.ndarray, rounds: int) -> np.ndarray:
        result = offsets.copy()
        for _ in range(rounds):
            result += 0.5 * self.free * (self.smooth @ result - result)
        return result

    # -- lips ----------------------------------------------------------------------------------------------------------
    def _set_lips(self, shapes: dict[str, np.ndarray]) -> None:
        """Correct the lips of mouth, jaw and nose shapes: closed or with their prescribed gap, and with full thickness.

        A correction that depends on both sides together is split between the two one-sided shapes.
        """
        for name in shapes:
            if not base_name(name).startswith(("mouth", "cheekPuff", "jaw", "nose")) or name == "mouthClose":
                continue
            shape = shapes[name]
            if name == base_name(name):
                shapes[name] = self._with_lips(name, self.mean + shape) - self.mean
            else:
                both = self.mean + shape + self._mirrored(shape)
                share = np.clip(0.5 + 0.5 * self.mean[:, :1] / _SIDE_BLEND_M, 0, 1)
                shapes[name] = shape + share * (self._with_lips(base_name(name), both) - both)
        opened = self.mean + shapes["jawOpen"]
        closed = self.mouth.with_gap(opened + self.jaw.closing(shapes["jawOpen"]), -LIP_OVERLAP_M)
        shapes["mouthClose"] = self.mouth.with_thickness(closed) - opened

    def _with_lips(self, base: str, moved: np.ndarray) -> np.ndarray:
        """Correct the gap and thickness of the lips of a head (Vc, 3) that shows an expression."""
        if base in POSES:
            moved = moved + self.rig.cleared(moved)
        if base in CLOSED:
            moved = self.mouth.with_gap(moved, -LIP_OVERLAP_M)
        elif base in POSES:
            moved = self.mouth.with_gap(moved, np.maximum(self.mouth.lips.contact(moved)[1], -LIP_OVERLAP_M))
        moved = self.mouth.with_thickness(moved)
        return self.rig.kept_off_teeth(moved) if base in POSES else moved


def averaging(quads: np.ndarray, count: int) -> sparse.csr_matrix:
    """Averaging operator (Vc, Vc): the mean over each vertex's neighbours."""
    edges = unique_edges(quads)
    links = sparse.coo_matrix((np.ones(2 * len(edges)), np.concatenate([edges, edges[:, ::-1]]).T), (count, count))
    return sparse.diags(1 / np.maximum(np.asarray(links.sum(axis=1)).ravel(), 1)) @ links.tocsr()
