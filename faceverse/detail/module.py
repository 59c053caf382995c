"""Detail beyond a linear model: generators that refine albedo and geometry maps, and the mesh that is read off them.

Modules come in two kinds. Official ones keep the conventions of their files (see `faceverse.official`): geometry maps
hold positions in the units and axes of the base model that the generators were trained with, albedo maps run from -1 to
1. Open ones carry a `DisplacementCode`: they make displacements and changes of albedo, and `faceverse.skin_detail` uses them.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import asdict, dataclass, field

import numpy as np

from ..errors import ParameterError
from ..messages import Message
from .reader import DisplacementReader
from .stylegan import ConditionalGenerator

CHANNELS = {"detail": (6, 6), "expression": (6, 3)}
"""Condition and image channels of the generators of a `DetailModule`."""

STORED = {"noise": (1 / 16, np.int8), "relief": (1e-3, np.int16), "displacement": (1e-4, np.int16)}
"""Steps in which files keep these arrays, millimetres but for noise: far below what a picture shows."""
_DIGEST_BYTES = 8


@dataclass(frozen=True)
class DisplacementCode:
    """What the pictures and random vectors of open generators mean.

    Args:
        factors: names of the first entries of z, unit normals each; the others have no name.
        age: (years at which the factor "age" is zero, years to a unit).
        albedo_scale: change of the logarithm of albedo to a unit of a picture's first three channels.
        band_scales_mm: displacement to a unit of the coarse, the medium and the fine channel.
        strain_scale: strain to a unit of the expression generator's last three condition maps.
        layout: which texture layout they were trained in, see `skin_detail.layout_digest`; empty: any.
    """

    factors: tuple[str, ...] = ()
    age: tuple[float, float] = (45.0, 16.0)
    albedo_scale: float = 0.35
    band_scales_mm: tuple[float, float, float] = (0.25, 0.10, 0.05)
    strain_scale: float = 0.125
    layout: str = ""


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
            linear expression's offsets, and these offsets, 3 + 3 channels; an open one makes what the expression adds
            to the displacement, in three bands, from the displacement's bands and the strain of the skin.
        layout: the mesh that is read off the maps; official modules only.
        code: open modules only.
        reader: open modules only; where fits of the detail start.
        name: for messages and results.
        info: where the parts came from; anything that JSON can hold.
    Raises:
        ParameterError: a generator of other channels, or parts of different sizes.
    """

    detail: ConditionalGenerator | None = None
    expression: ConditionalGenerator | None = None
    layout: DetailLayout | None = None
    code: DisplacementCode | None = None
    reader: DisplacementReader | None = None
    name: str = "unnamed"
    info: dict = field(default_factory=dict)

    def __post_init__(self):
        for kind, channels in CHANNELS.items():
            generator = getattr(self, kind)
            if generator is not None and (generator.condition_channels, generator.image_channels) != channels:
                raise ParameterError(
                    "detail.channels",
                    kind=kind,
                    inputs=channels[0],
                    outputs=channels[1],
                    found_inputs=generator.condition_channels,
                    found_outputs=generator.image_channels,
                )
        if self.code is not None:
            return  # displacements of any sizes can be added
        sizes = {kind: getattr(self, kind).size for kind in CHANNELS if getattr(self, kind) is not None}
        if self.layout is not None:
            sizes["layout"] = len(self.layout.mask)
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"{part} {size}" for part, size in sizes.items())
            raise ParameterError("detail.part_sizes", sizes=listed)

    @functools.cached_property
    def digest(self) -> str:
        """16 hexadecimal digits that tell modules apart which make different detail of the same latents."""
        found = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        if self.code is not None:
            found.update(json.dumps(asdict(self.code), sort_keys=True).encode())
        for kind in CHANNELS:
            generator = getattr(self, kind)
            for name, values in sorted(generator.state_dict().items()) if generator is not None else ():
                if not name.startswith("noises."):  # heads bring their own noise
                    found.update(f"{kind}.{name}{list(values.shape)}".encode())
                    found.update(values.float().contiguous().numpy(force=True).tobytes())
        return found.hexdigest()

    def is_same(self, other: DetailModule | None) -> bool:
        """Whether latents mean the same in both."""
        return self is other or (other is not None and self.digest == other.digest)


def whole_steps(values: np.ndarray, what: str) -> tuple[np.ndarray, float]:
    """Values as whole numbers of steps, and the step: that of `STORED`, doubled until the largest value fits.

    Raises:
        ValueError: a value is not finite.
    """
    step, kind = STORED[what]
    values = np.asarray(values, np.float64)
    largest, limit = float(np.abs(values).max(initial=0.0)), np.iinfo(kind).max
    if not np.isfinite(largest):
        raise ValueError(Message("value.not_finite", what=what))
    while np.round(largest / step) > limit:
        step *= 2
    return np.round(values / step).astype(kind), step


def of_steps(whole: np.ndarray, step: float) -> np.ndarray:
    """The float32 values of whole numbers of steps."""
    return whole.astype(np.float32) * np.float32(step)
