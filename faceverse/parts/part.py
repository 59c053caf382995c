"""Parts and their materials, and the library of parts that ships with the open model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from ..errors import ParameterError
from ..graphics.alpha_texture import AlphaMode, AlphaTexture, shared_texture
from ..messages import Message
from .binding import Binding

SLOTS = (
    "teeth_upper", "teeth_lower", "tongue", "eye_left", "eye_right", "cornea_left", "cornea_right", "tear_line",
    "lashes", "brows", "beard", "scalp", "hair",
)  # fmt: skip
"""Places that one part each can take, in the order in which they are drawn and written."""

MOUTH_SLOTS = frozenset(("teeth_upper", "teeth_lower", "tongue"))
"""Parts inside the mouth, which are lit through its opening."""
HAIR_SLOTS = ("scalp", "hair")
"""Short hairs on the scalp, and the strands above them."""
STRAND_SLOTS = (*HAIR_SLOTS, "beard")
"""Parts that are lit as volumes of hair."""
EYE_SLOTS = ("eye_left", "eye_right", "cornea_left", "cornea_right")
"""Parts in the shadow of the lids."""

DEFAULT_STYLES: Mapping[str, str] = MappingProxyType(
    {"teeth_upper": "base", "teeth_lower": "base", "tongue": "base", "eye_left": "natural", "eye_right": "natural",
     "cornea_left": "base", "cornea_right": "base", "tear_line": "base", "lashes": "01"}
)  # fmt: skip
"""Parts of a head for which nothing else is chosen: slot -> style. Brows are in the texture of the skin."""

REPLACED_REGIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"eyeball_left": ("eye_left",), "eyeball_right": ("eye_right",), "teeth": ("teeth_upper", "teeth_lower"),
     "tongue": ("tongue",)}
)  # fmt: skip
"""Regions of a model that parts in all of these slots replace."""

EYEBALLS: Mapping[str, str] = MappingProxyType({"eye_left": "eyeball_left", "eye_right": "eyeball_right"})
"""Slots of the eyes, and the region of the eyeball that each replaces."""

IRIS_UV = 0.22
"""Radius of the iris in the textures of eyes, in units of their side."""


@dataclass(frozen=True)
class Material:
    """Surface of a part, in the terms of glTF 2.0's metallic-roughness material; nothing here is metal.

    Attributes:
        texture: (H, W, 4) uint8, sRGB and alpha, row 0 at the top.
        roughness: 0 mirror .. 1 matte.
        alpha_mode: "OPAQUE" ignores the alpha, "MASK" cuts where it is below `alpha_cutoff`, "BLEND" mixes.
        alpha_cutoff: 0..1.
    """

    texture: np.ndarray
    roughness: float = 0.5
    alpha_mode: AlphaMode = "OPAQUE"
    alpha_cutoff: float = 0.5

    @property
    def prepared(self) -> AlphaTexture:
        """The texture in linear light at all sizes, ready to be drawn; made once, because heads share it."""
        return shared_texture(self.texture, self.alpha_mode, self.alpha_cutoff)


@dataclass(frozen=True)
class Part:
    """A mesh with a material that follows a model.

    Attributes:
        name: in the library, such as "teeth_upper/base".
        binding: how its P vertices follow the model.
        faces: (F, 3) int64 triangles, counter-clockwise from outside.
        uv: (U, 2) float32, origin at the top left.
        uv_faces: (F, 3) int64 indices into `uv`.
        material: its surface.
        shape: of a hair style: numbers of `faceverse.parts.hair.Hair` by name that change the mesh as made.
    """

    name: str
    binding: Binding
    faces: np.ndarray
    uv: np.ndarray
    uv_faces: np.ndarray
    material: Material
    shape: Mapping[str, float] = field(default_factory=dict)

    @property
    def slot(self) -> str:
        """The place that the part takes, of `SLOTS`."""
        return self.name.partition("/")[0]

    @property
    def style(self) -> str:
        """The name among the parts for the same slot."""
        return self.name.partition("/")[2]

    @property
    def iris_uv(self) -> float | None:
        """Radius of the iris around the middle of an eye's texture, in units of its side; None for other parts."""
        return IRIS_UV if self.slot in EYEBALLS else None


@dataclass(frozen=True)
class PartLibrary:
    """Parts by name.

    Attributes:
        parts: name -> part.
        topology: hash of the coarse mesh of the models that they fit, see `FaceModel.topology`.
        info: sources, licences and hashes.
    """

    parts: Mapping[str, Part]
    topology: str
    info: dict

    def styles(self, slot: str) -> tuple[str, ...]:
        """Names of the parts for a slot, sorted.

        Raises:
            ParameterError: no such slot.
        """
        if slot not in SLOTS:
            raise ParameterError("parts.slot", slot=repr(slot), known=", ".join(SLOTS))
        return tuple(sorted(part.style for part in self.parts.values() if part.slot == slot))

    def choose(self, styles: Mapping[str, str]) -> dict[str, Part]:
        """The parts of these styles by slot, in the order of `SLOTS`.

        Args:
            styles: slot -> style; slots that are missing stay empty.
        Raises:
            ParameterError: no such slot or style.
        """
        unknown = next((slot for slot in styles if slot not in SLOTS), None)
        if unknown is not None:
            self.styles(unknown)
        return {slot: self.get(slot, styles[slot]) for slot in SLOTS if slot in styles}

    def get(self, slot: str, style: str) -> Part:
        """The part of this style for a slot.

        Raises:
            ParameterError: no such slot or style.
        """
        styles = self.styles(slot)
        if style not in styles:
            raise ParameterError("parts.style", slot=slot, style=repr(style), known=", ".join(styles))
        return self.parts[f"{slot}/{style}"]


def merged(libraries: Sequence[PartLibrary]) -> PartLibrary:
    """One library with the parts of several, at least one, for the same mesh."""
    if len(libraries) == 1:
        return libraries[0]
    parts = {name: part for library in libraries for name, part in library.parts.items()}
    info = {key: value for library in reversed(libraries) for key, value in library.info.items()}
    return PartLibrary(parts, libraries[0].topology, info)


def styles_of_file(entry: Any, library: PartLibrary | None) -> dict[str, str]:
    """Styles of a head as a file holds them.

    Args:
        entry: slot -> style; None for a file from before heads had parts: the default ones.
        library: of the head's model; None accepts any names.

    Raises:
        ValueError: not a dictionary of names, or unknown ones.
    """
    if entry is None:
        return dict(DEFAULT_STYLES)
    if not isinstance(entry, dict) or not all(isinstance(name, str) for name in (*entry, *entry.values())):
        raise ValueError(Message("parts.styles_entry", found=str(entry)[:200]))
    if library is not None:
        try:
            library.choose(entry)
        except ParameterError as error:
            raise ValueError(error.message) from error
    return entry
