"""Skeletons of glTF files: joints, and their influence on the vertices of meshes.

Reference: Khronos Group, "glTF 2.0 Specification" (ISO/IEC 12113:2022), section 3.7.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

INFLUENCES = 4
"""Joints that a vertex of a file can follow."""
_WHOLE = 65535  # weight 1 as an integer


@dataclass(frozen=True)
class GltfSkin:
    """A skeleton whose joints rest with the axes of the scene.

    Args:
        names: of the J joints; the first one is the root.
        parents: names of the joints that carry them; empty for the root.
        pivots: (J, 3) metres, positions in the scene.
    """

    names: tuple[str, ...]
    parents: tuple[str, ...]
    pivots: np.ndarray

    def local(self) -> np.ndarray:
        """(J, 3) positions relative to the parents."""
        place = {name: row for row, name in enumerate(self.names)}
        carried = [self.pivots[place[parent]] if parent else np.zeros(3) for parent in self.parents]
        return self.pivots - np.array(carried)

    def inverse_bind(self) -> np.ndarray:
        """(J, 16) float32, inverse bind matrices column by column."""
        matrices = np.tile(np.eye(4, dtype=np.float32), (len(self.names), 1, 1))
        matrices[:, 3, :3] = -self.pivots
        return matrices.reshape(-1, 16)


@dataclass(frozen=True)
class JointMotion:
    """Motion of one joint in K keyframes.

    Args:
        rotation: (K, 4) unit quaternions x, y, z, w; the dot product of neighbours is positive, so that interpolation
            takes the shorter way.
        translation: (K, 3) metres, position relative to the parent; None where the joint keeps it.
    """

    rotation: np.ndarray
    translation: np.ndarray | None = None


def strongest_influences(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The strongest influences on each vertex, in the form in which a file holds them.

    Args:
        weights: (V, J) shares of the joints, each row with at least one above 0.

    Returns:
        (V, 4) uint8 joints and (V, 4) uint16 weights, strongest first; each row of weights adds up to 65535. Joints
        without weight are 0.
    """
    count = min(INFLUENCES, weights.shape[1])
    order = np.argsort(-weights, axis=1, kind="stable")[:, :count]
    shares = np.take_along_axis(weights, order, axis=1).astype(np.float64)
    stored = np.zeros((len(weights), INFLUENCES), np.int64)
    stored[:, :count] = np.round(shares / shares.sum(axis=1, keepdims=True) * _WHOLE)
    stored[:, 0] += _WHOLE - stored.sum(axis=1)
    joints = np.zeros((len(weights), INFLUENCES), np.uint8)
    joints[:, :count] = order
    return np.where(stored > 0, joints, 0).astype(np.uint8), stored.astype(np.uint16)


def continuous_rotations(quaternions: np.ndarray) -> np.ndarray:
    """The same rotations (K, 4) float32 in quaternions whose neighbours have a positive dot product.

    q and -q are the same rotation, but players interpolate between neighbours of opposite signs the long way round.
    """
    flips = np.cumprod(np.where((quaternions[1:] * quaternions[:-1]).sum(1) < 0, -1, 1))
    return (quaternions * np.concatenate([[1], flips])[:, None]).astype(np.float32)
