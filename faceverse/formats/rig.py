"""Skeleton of a head with skin weights: neck, head, jaw, and both eyes.

All joints rest with the axes of head space (see camera.py): +x to the subject's left, +y up, +z forward. A positive
rotation of the jaw about +x opens the mouth, of an eye lowers the gaze; one about +y turns head or eyes to the left.

The jaw's joint is the axis of the motion that `jawOpen` gives the lower teeth. A jaw that opens turns and glides
forwards; both together are a rotation about an axis below the ear, as in people. Its skin weights are the shares of
that rotation which come closest to what `jawOpen` does to each vertex, so that bone and morph target open the same
mouth.

Dimensions: V vertices of a model, P of a part, J joints. Positions are metres.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from scipy.spatial.transform import Rotation

from ..errors import ParameterError
from ..model.data import Landmarks
from ..model.face_model import FaceModel
from ..parts.binding import rigid_motion
from ..parts.part import EYEBALLS, Part
from ..result import FitResult
from .gltf_scene import GltfAnimation
from .gltf_skin import GltfSkin, JointMotion, continuous_rotations

NECK, HEAD, JAW, LEFT_EYE, RIGHT_EYE = range(5)
JOINT_NAMES = ("Neck", "Head", "Jaw", "LeftEye", "RightEye")
"""Names of the joints, those of Mixamo where it has them."""
PARENTS: Mapping[str, str] = MappingProxyType(
    {"Neck": "", "Head": "Neck", "Jaw": "Head", "LeftEye": "Head", "RightEye": "Head"}
)
"""The joint that carries each joint; empty for the root."""
EYE_JOINTS: Mapping[str, int] = MappingProxyType(
    {"eye_left": LEFT_EYE, "eye_right": RIGHT_EYE, "cornea_left": LEFT_EYE, "cornea_right": RIGHT_EYE}
)
"""Slots of parts that turn with an eye."""
NECK_SHARE = 0.5
"""Share of a rotation of the head that its neck takes over in an animation."""

_EYE_LOOKS = ("eyeLookDown", "eyeLookUp", "eyeLookIn", "eyeLookOut")
# All lengths below are in heights of the mean face, from the bridge of the nose to the chin.
_SKULL_BASE = (0.45, -0.45)  # the head's joint: above the chin, of the way to the ears; behind the ears
_THROAT_BEHIND_CHIN = 0.38
_UPWARD = np.array([0.0, 0.887, 0.463])  # from the neck into the head, across the line from throat to nape
_NECK_RAMP = (-0.55, 0.08)  # distances from that line between which the skin goes over from neck to head
_COLLAR = 0.25  # height of the lowest skin, in whose middle the neck's joint is
_EYE_BEHIND_LIDS = 0.12  # centre of an eyeball that the model does not have
_JAW_BELOW_EAR, _JAW_BEHIND_EAR = 0.1, 0.15  # a hinge for jaws that hardly turn
_HINGE_WEIGHT = 0.02  # of that hinge, in radians
_FAR = 0.75  # share of the greatest offset of jawOpen from which a vertex belongs to the bone itself
_LEAST_MOTION_M = 0.002  # motions of the jaw below this say little about its weights
_ROUND = 0.03  # share of the radius by which a vertex may be away from the eyeball to count as a part of it


@dataclass(frozen=True)
class HeadRig:
    """Skeleton and skin weights of a neutral head.

    Attributes:
        pivots: (J, 3) float32, positions of the joints of `JOINT_NAMES` in head space.
        weights: (V, J) float32, shares of the joints in the motion of the model's vertices; each row adds up to 1.
        jaw_open_rad: rotation of the jaw about +x that opens the mouth as `jawOpen` does at weight 1.
        eye_turns: (E, 2, 3) float32 rotation vectors of left and right eye at weight 1 of each expression.
    """

    pivots: np.ndarray
    weights: np.ndarray
    jaw_open_rad: float
    eye_turns: np.ndarray

    def part_weights(self, slot: str, part: Part) -> np.ndarray:
        """(P, J) float32, likewise for the vertices of a part."""
        if slot in EYE_JOINTS:
            return _whole(EYE_JOINTS[slot], len(part.binding.triangle))
        if part.binding.kind == "surface" and slot != "hair":
            corners = self.weights[part.binding.triangle]
            return np.einsum("pk,pkj->pj", part.binding.weights, corners).astype(np.float32)
        heaviest = HEAD if slot == "hair" else int(self.weights[part.binding.reference].mean(0).argmax())
        return _whole(heaviest, len(part.binding.triangle))

    @property
    def skin(self) -> GltfSkin:
        """The skeleton as files hold it."""
        return GltfSkin(JOINT_NAMES, tuple(PARENTS[name] for name in JOINT_NAMES), self.pivots)

    def motions(self, animation: GltfAnimation) -> dict[str, JointMotion]:
        """Motions of the joints, by name, that give an animation's rigid motion to the skull, half of the rotation to
        the neck, and its gaze to the eyes."""
        turn = Rotation.from_quat(animation.rotation)
        neck = Rotation.from_rotvec(NECK_SHARE * turn.as_rotvec())
        # The head's joint goes to turn(pivot) + translation, and hangs at `above` from the turned neck.
        head, above = self.pivots[HEAD].astype(np.float64), (self.pivots[HEAD] - self.pivots[NECK]).astype(np.float64)
        place = turn.apply(head) + animation.translation - neck.apply(above)
        turns = {NECK: neck, HEAD: neck.inv() * turn}
        gaze = np.einsum("ke,esd->skd", animation.weights.astype(np.float64), self.eye_turns)
        turns |= {joint: Rotation.from_rotvec(side) for joint, side in zip((LEFT_EYE, RIGHT_EYE), gaze, strict=True)}
        return {
            JOINT_NAMES[joint]: JointMotion(continuous_rotations(turned.as_quat()), place if joint == NECK else None)
            for joint, turned in turns.items()
        }


def head_rig(result: FitResult) -> HeadRig:
    """The skeleton of a head.

    Raises:
        ParameterError: the head's model has no expression `jawOpen`.
    """
    model, neutral = result.model, result.neutral_vertices
    if "jawOpen" not in model.expression_names:
        raise ParameterError("export.rig_model", name=model.name)
    _, _, size = _measures(model, neutral)
    offsets = model.expression_modes_of(result.params.identity)
    jaw_offset = offsets[model.expression_names.index("jawOpen")]
    angle, hinge = _jaw_motion(result, jaw_offset, size)
    pivots = np.zeros((len(JOINT_NAMES), 3))
    pivots[NECK], pivots[HEAD] = _spine(model, neutral)
    pivots[JAW] = hinge
    pivots[LEFT_EYE], pivots[RIGHT_EYE] = _eye_centres(result, size)
    weights = _skin_weights(result, jaw_offset, angle, hinge)
    return HeadRig(pivots.astype(np.float32), weights, angle, _eye_turns(result, offsets, pivots))


# -- joints -----------------------------------------------------------------------------------------------------------
def _points(landmarks: Landmarks, model: FaceModel, vertices: np.ndarray) -> np.ndarray:
    """Landmarks (L, 3) of a mesh; float64."""
    corners = vertices[model.faces[landmarks.triangle]].astype(np.float64)
    return (corners * landmarks.barycentric[..., None]).sum(1)


def _measures(model: FaceModel, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Chin (3,), middle between the ears (3,) and height of the face."""
    points = _points(model.data.landmarks_68, model, vertices)
    return points[8], points[[0, 16]].mean(0), float(np.linalg.norm(points[27] - points[8]))


def _spine(model: FaceModel, neutral: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Joints (3,) of neck and head."""
    chin, ears, size = _measures(model, neutral)
    middle = float(ears[0])
    above, behind = _SKULL_BASE
    head = np.array([middle, chin[1] + above * (ears[1] - chin[1]), ears[2] + behind * size])
    lowest = neutral[neutral[:, 1] <= neutral[:, 1].min() + _COLLAR * size]
    neck = np.array([middle, lowest[:, 1].mean(), np.mean([lowest[:, 2].min(), lowest[:, 2].mean()])])
    if neck[1] > head[1] - size / 4:  # a mask without a neck
        neck = head - (0, size / 2, 0)
    return neck, head


def _eye_centres(result: FitResult, size: float) -> np.ndarray:
    """Centres (2, 3) of left and right eyeball."""
    points = _points(result.model.data.landmarks_68, result.model, result.neutral_vertices)
    centres = []
    for (slot, region), rows in zip(EYEBALLS.items(), (slice(42, 48), slice(36, 42)), strict=True):
        ball = result.model.regions.get(region, ())
        if slot in result.parts:
            centres.append(eyeball_centre(result, slot))
        elif len(ball):
            centres.append(sphere_centre(result.neutral_vertices[ball]))
        else:
            centres.append(points[rows].mean(0) - (0, 0, _EYE_BEHIND_LIDS * size))
    return np.array(centres)


def eyeball_centre(result: FitResult, slot: str) -> np.ndarray:
    """Centre (3,) float32 of the eyeball in this slot."""
    return sphere_centre(result.neutral_part_vertices[slot][np.unique(result.parts[slot].faces)])


def _jaw_motion(result: FitResult, offset: np.ndarray, size: float) -> tuple[float, np.ndarray]:
    """Angle about +x and point (3,) on the axis of the rotation that `jawOpen` gives the lower jaw.

    Args:
        offset: (V, 3) of jawOpen.
    """
    neutral = result.neutral_vertices
    if "teeth_lower" in result.parts:
        jaw = result.parts["teeth_lower"].binding.reference
    else:
        length = np.linalg.norm(offset, axis=1)
        jaw = np.flatnonzero(length >= _FAR * length.max())
    rotation, translation = rigid_motion(neutral[jaw], (neutral + offset)[jaw])
    angle = float(np.arctan2(rotation[2, 1] - rotation[1, 2], rotation[1, 1] + rotation[2, 2]))
    turn = Rotation.from_rotvec([angle, 0, 0]).as_matrix()
    _, ears, _ = _measures(result.model, neutral)
    hinge = ears - (0, _JAW_BELOW_EAR * size, _JAW_BEHIND_EAR * size)
    # The point that stays: (1 - turn) @ point = translation, across the axis; the hinge decides where nothing turns.
    middle = neutral[jaw].mean(0, dtype=np.float64)
    translation = translation + (rotation - turn) @ middle
    fixed = (np.eye(3) - turn)[1:, 1:]
    left = fixed.T @ fixed + _HINGE_WEIGHT**2 * np.eye(2)
    point = np.linalg.solve(left, fixed.T @ translation[1:] + _HINGE_WEIGHT**2 * hinge[1:])
    return angle, np.array([hinge[0], *point])


def sphere_centre(points: np.ndarray) -> np.ndarray:
    """Centre (3,) float32 of an eyeball, fitted to its vertices (P, 3) without those of iris and cornea."""
    fitting = np.ones(len(points), bool)
    for _ in range(3):
        chosen = points[fitting].astype(np.float64)
        columns = np.column_stack([2 * chosen, np.ones(len(chosen))])
        solution = np.linalg.lstsq(columns, np.square(chosen).sum(1), rcond=None)[0]
        distance = np.linalg.norm(points - solution[:3], axis=1)
        off = np.abs(distance - np.median(distance))
        fitting = off <= max(_ROUND * np.median(distance), np.median(off))
    return solution[:3].astype(np.float32)


def _eye_turns(result: FitResult, offsets: np.ndarray, pivots: np.ndarray) -> np.ndarray:
    """(E, 2, 3) rotation vectors of the eyes at weight 1 of each expression, see `HeadRig`."""
    turns = np.zeros((len(offsets), 2, 3), np.float32)
    for side, (slot, region) in enumerate(EYEBALLS.items()):
        if slot in result.parts:
            ball = result.parts[slot].binding.reference
        else:
            ball = np.asarray(result.model.regions.get(region, np.zeros(0, np.int64)))
        if not len(ball):
            continue
        for row, name in enumerate(result.model.expression_names):
            if name.startswith(_EYE_LOOKS):
                before = result.neutral_vertices[ball]
                turn, _ = rigid_motion(before, before + offsets[row][ball])
                turns[row, side] = Rotation.from_matrix(turn).as_rotvec()
    return turns


# -- weights ----------------------------------------------------------------------------------------------------------
def _skin_weights(result: FitResult, jaw_offset: np.ndarray, angle: float, hinge: np.ndarray) -> np.ndarray:
    """Weights (V, J) of the skin, see `HeadRig`."""
    model, neutral = result.model, result.neutral_vertices.astype(np.float64)
    weights = np.zeros((len(neutral), len(JOINT_NAMES)))
    mean = model.mean_vertices
    chin, _, size = _measures(model, mean)
    distance = (mean - chin + (0, 0, _THROAT_BEHIND_CHIN * size)) @ _UPWARD / size
    low, high = _NECK_RAMP
    share = np.clip((distance - low) / (high - low), 0, 1)
    weights[:, HEAD] = share * share * (3 - 2 * share)
    weights[:, NECK] = 1 - weights[:, HEAD]
    turned = Rotation.from_rotvec([angle, 0, 0]).apply(neutral - hinge) + hinge - neutral
    along = (jaw_offset * turned).sum(1) / (np.square(turned).sum(1) + _LEAST_MOTION_M**2)
    weights[:, JAW] = np.clip(along, 0, 1)
    weights[:, [NECK, HEAD]] *= 1 - weights[:, [JAW]]
    for joint, region in zip((LEFT_EYE, RIGHT_EYE), EYEBALLS.values(), strict=True):
        if len(ball := model.regions.get(region, ())):
            weights[ball] = _whole(joint, len(ball))
    return weights.astype(np.float32)


def _whole(joint: int, count: int) -> np.ndarray:
    """Weights (count, J) of one joint alone."""
    weights = np.zeros((count, len(JOINT_NAMES)), np.float32)
    weights[:, joint] = 1
    return weights
