"""Hair styles by name: which meshes take the two slots of hair, and how their shape is changed.

Several styles share one mesh, see `with_styles`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from .part import HAIR_SLOTS, PartLibrary


@dataclass(frozen=True)
class HairStyle:
    """A hair style.

    Args:
        scalp: style of the short hairs on the scalp, None for none.
        mesh: of the strands, a name in the file of hair; None for none.
        shape: numbers of `faceverse.parts.hair.Hair` by name, which change the mesh before those of a person do.
    """

    scalp: str | None = None
    mesh: str | None = None
    shape: Mapping[str, float] = field(default_factory=dict)


HAIR_STYLES: Mapping[str, HairStyle] = {
    "bald": HairStyle(),
    "buzz": HairStyle("full"),
    **{
        name: HairStyle("full", name)
        for name in (
            "afro01", "bob01", "bob02", "braid01", "long01", "ponytail01", "short01", "short02", "short03", "short04"
        )
    },
}  # fmt: skip
"""Hair styles by name."""


def hair_slots(name: str) -> dict[str, str]:
    """Slots and part styles of a hair style, a part of `FaceParams.styles`: none for "bald".

    Args:
        name: of `HAIR_STYLES`.
    """
    style = HAIR_STYLES[name]
    scalp = {} if style.scalp is None else {"scalp": style.scalp}
    return scalp if style.mesh is None else scalp | {"hair": name}


def with_hair_style(styles: Mapping[str, str], name: str) -> dict[str, str]:
    """Styles of the parts of a head by slot, with another hair style.

    Args:
        styles: slot -> style.
        name: of `HAIR_STYLES`.
    """
    return {slot: style for slot, style in styles.items() if slot not in HAIR_SLOTS} | hair_slots(name)


def with_styles(library: PartLibrary) -> PartLibrary:
    """The library with a part for each hair style whose mesh it has: meshes that several styles share are shared."""
    parts = dict(library.parts)
    for name, style in HAIR_STYLES.items():
        mesh = None if style.mesh is None else library.parts.get(f"hair/{style.mesh}")
        if mesh is not None:
            parts[f"hair/{name}"] = replace(mesh, name=f"hair/{name}", shape=dict(style.shape))
    return replace(library, parts=parts)
