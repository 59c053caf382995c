"""Detail beyond a linear model: generators that refine albedo and geometry maps, and the mesh sampled from these maps.

Modules come in two kinds. Official ones keep the conventions of their files (see `faceverse.official`): geometry maps
hold positions in the units and axes of the base model that the generators were trained with, albedo maps lie in -1..1.
Open ones carry a `DisplacementCode`: they generate displacements and changes of albedo, for `faceverse.detail.latents`.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import asdict, dataclass, field

import numpy as np

from ..errors import ParameterError
from ..messages import Message
from ..result import DetailModuleLike
from .displacement_regressor import DisplacementRegressor
from .stylegan import ConditionalGenerator

CHANNELS = {"detail": (6, 6), "expression": (6, 3)}
"""Condition and image channels of the generators of a `DetailModule`."""

QUANTISATION: dict[str, tuple[float, type[np.signedinteger]]] = {
    "noise": (1 / 16, np.int8),
    "residual_displacement": (1e-3, np.int16),
    "expression_residual": (1e-3, np.int16),
    "displacement": (1e-4, np.int16),
}
"""Step and integer type of these arrays in files; displacements in millimetres, far below what an image shows."""
_DIGEST_BYTES = 8


@dataclass(frozen=True)
class DisplacementCode:
    """Units of the output maps and random vectors of open generators.

    Args:
        factors: names of the first entries of z, standard normal each; the others are unnamed.
        age: (years at which the factor "age" is zero, years per unit).
        albedo_scale: change of log albedo per unit of an output's first three channels.
        band_scales_mm: displacement per unit of the coarse, medium and fine channel.
        strain_scale: strain per unit of the expression generator's last three condition maps.
        layout: digest of the UV layout they were trained in, see `latents.layout_digest`; empty: any.
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
        point_faces: (K, 8) int64, faces around each vertex (repeated where there are fewer); the vertex normal is the
            mean of their normals.
        keypoints: (66,) int64 vertices, in the order of the base model's 66 landmarks.
    """

    uv_texels: np.ndarray
    mask: np.ndarray
    faces: np.ndarray
    point_faces: np.ndarray
    keypoints: np.ndarray


@dataclass(frozen=True, eq=False)
class DetailModule:
    """The networks and the layout of one detail module; absent parts are None.

    Args:
        detail: generates albedo and geometry maps, 3 + 3 channels, from those of the linear model without expression.
        expression: generates the geometry map of the expressive face, 3 channels, from the detailed geometry with the
            linear expression's offsets, and these offsets, 3 + 3 channels; an open one generates the displacement that
            the expression adds, in three bands, from the displacement's bands and the strain of the skin.
        layout: the mesh sampled from the maps; official modules only.
        code: open modules only.
        regressor: open modules only; gives the initial estimate of a detail fit.
        name: for messages and results.
        info: provenance of the parts; anything that JSON can hold.
    Raises:
        ParameterError: a generator with other channels, or parts of different sizes.
    """

    detail: ConditionalGenerator | None = None
    expression: ConditionalGenerator | None = None
    layout: DetailLayout | None = None
    code: DisplacementCode | None = None
    regressor: DisplacementRegressor | None = None
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
            return  # displacements of different sizes are resampled
        sizes = {kind: getattr(self, kind).size for kind in CHANNELS if getattr(self, kind) is not None}
        if self.layout is not None:
            sizes["layout"] = len(self.layout.mask)
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"{part} {size}" for part, size in sizes.items())
            raise ParameterError("detail.part_sizes", sizes=listed)

    @functools.cached_property
    def digest(self) -> str:
        """16 hexadecimal digits that differ between modules which generate different detail from the same latents."""
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        if self.code is not None:
            digest.update(json.dumps(asdict(self.code), sort_keys=True).encode())
        for kind in CHANNELS:
            generator = getattr(self, kind)
            for name, values in sorted(generator.state_dict().items()) if generator is not None else ():
                if not name.startswith("noises."):  # a head's latents include the noise
                    digest.update(f"{kind}.{name}{list(values.shape)}".encode())
                    digest.update(values.float().contiguous().numpy(force=True).tobytes())
        return digest.hexdigest()

    def is_same(self, other: DetailModuleLike | None) -> bool:
        """Whether both generate the same detail from the same latents."""
        return self is other or (other is not None and self.digest == other.digest)


def quantise(values: np.ndarray, what: str) -> tuple[np.ndarray, float]:
    """Quantise values to integers; the step of `QUANTISATION` is doubled until the largest value fits.

    Args:
        values: of any shape.
        what: a key of `QUANTISATION`.

    Returns:
        integers of the same shape; the step.

    Raises:
        ValueError: a value is not finite.
    """
    step, kind = QUANTISATION[what]
    values = np.asarray(values, np.float64)
    largest, limit = float(np.abs(values).max(initial=0.0)), np.iinfo(kind).max
    if not np.isfinite(largest):
        raise ValueError(Message("value.not_finite", what=what))
    while np.round(largest / step) > limit:
        step *= 2
    return np.round(values / step).astype(kind), step


def dequantise(integers: np.ndarray, step: float) -> np.ndarray:
    """Inverse of `quantise` up to rounding, float32."""
    return integers.astype(np.float32) * np.float32(step)
