"""Detail beyond a linear model: generators that refine albedo and geometry maps, and the mesh that is read off them.

Everything here is in the conventions of the files it came from (see `faceverse.official`): geometry maps hold positions
in the units and axes of the base model that the generators were trained with, albedo maps run from -1 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .errors import ParameterError
from .stylegan import ConditionalGenerator

CHANNELS = {"detail": (6, 6), "expression": (6, 3)}
"""Condition and image channels of the generators of a `DetailModule`."""


@dataclass(frozen=True, eq=False)
class DetailLayout:
    """The mesh in a square map of S x S texels: each of its K vertices is one texel.

    Args:
        uv_texels: (K, 2) int64, column and row of each vertex.
        mask: (S, S) float32, 1 where the maps are part of the face.
        faces: (F, 3) int64 indices of vertices, in the winding of the base model's file.
        point_faces: (K, 8) int64, faces around each vertex (some twice where there are fewer); its normal is the mean
            of theirs.
        keypoints: (66,) int64 vertices, in the order of the base model's 66 landmarks.
    """

    uv_texels: np.ndarray
    mask: np.ndarray
    faces: np.ndarray
    point_faces: np.ndarray
    keypoints: np.ndarray


@dataclass(frozen=True, eq=False)
class DetailModule:
    """What `load_detail` found; parts that were not given are None.

    Args:
        detail: makes albedo and geometry maps, 3 + 3 channels, from those of the linear model without expression.
        expression: makes the geometry map of the expressive face, 3 channels, from the detailed geometry with the
            linear expression's offsets, and these offsets, 3 + 3 channels.
        layout: the mesh that is read off the maps.
        name: for messages and results.
        info: where the parts came from; anything that JSON can hold.
    Raises:
        ParameterError: a generator of other channels, or parts of different sizes.
    """

    detail: ConditionalGenerator | None = None
    expression: ConditionalGenerator | None = None
    layout: DetailLayout | None = None
    name: str = "unnamed"
    info: dict = field(default_factory=dict)

    def __post_init__(self):
        for kind, channels in CHANNELS.items():
            generator = getattr(self, kind)
            if generator is not None and (generator.condition_channels, generator.image_channels) != channels:
                raise ParameterError(
                    f"the {kind} generator must turn {channels[0]} channels into {channels[1]}, this one turns "
                    f"{generator.condition_channels} into {generator.image_channels}"
                )
        sizes = {kind: getattr(self, kind).size for kind in CHANNELS if getattr(self, kind) is not None}
        if self.layout is not None:
            sizes["layout"] = len(self.layout.mask)
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"{part} {size}" for part, size in sizes.items())
            raise ParameterError(f"the parts of a detail module must have one size in texels, these have: {listed}")
