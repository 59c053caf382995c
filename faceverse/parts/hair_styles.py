"""Hair styles by name: which meshes take the two slots of hair, and how their shape is changed.

Several styles share one mesh, see `with_styles`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from .part import HAIR_SLOTS, PartLibrary

_CURLS = 0.8  # wave from which a style is curly


@dataclass(frozen=True)
class HairStyle:
    """A hair style.

    Args:
        scalp: style of the short hairs on the scalp, None for none.
        mesh: of the strands, a name in the file of hair; None for none.
        shape: numbers of `faceverse.parts.hair.Hair` by name, which change the mesh before those of a person do.
        rarity: by how much better, 0..1, the hair of a photograph must agree with it than with a usual style.
    """

    scalp: str | None = None
    mesh: str | None = None
    shape: Mapping[str, float] = field(default_factory=dict)
    rarity: float = 0.0

    @property
    def is_curly(self) -> bool:
        """Whether the hair has no common direction."""
        return self.mesh is not None and (self.mesh.startswith("afro") or self.shape.get("wave", 0) >= _CURLS)


_MADE = (
    "afro01", "bob01", "bob02", "braid01", "ponytail01", "short01", "short02", "short03", "short04", "slick_back",
    "bun", "top_bun",
)  # fmt: skip

_RARITIES = {
    "afro01": 0.11, "bob01": 0.04, "braid01": 0.06, "ponytail01": 0.06, "short03": 0.02, "slick_back": 0.05,
    "bun": 0.05, "top_bun": 0.06,
}  # fmt: skip

HAIR_STYLES: Mapping[str, HairStyle] = {
    "bald": HairStyle(),
    "buzz": HairStyle("full"),
    "buzz_high": HairStyle("high"),
    "buzz_receding": HairStyle("receding"),
    "buzz_fade": HairStyle("fade"),
    "horseshoe": HairStyle("horseshoe"),
    **{name: HairStyle("full", name, rarity=_RARITIES.get(name, 0.0)) for name in _MADE},
    "long01": HairStyle("full", "long01", {"length": 0.6, "volume_sides": 0.75, "volume_back": 0.55}, rarity=0.02),
    "afro_short": HairStyle("full", "afro01", {"length": 0.45}, rarity=0.11),
    "afro_large": HairStyle(
        "full", "afro01", {"volume_top": 1.9, "volume_sides": 2.2, "volume_back": 1.9}, rarity=0.13
    ),
    "crop": HairStyle("full", "short01", {"length": 0.55}),
    "quiff": HairStyle("full", "short01", {"volume_top": 2.0, "volume_sides": 0.6, "volume_back": 0.8}, rarity=0.03),
    "undercut": HairStyle(
        "fade", "short03", {"volume_sides": 0.4, "volume_back": 0.5, "volume_top": 1.3}, rarity=0.02
    ),
    "side_part": HairStyle("full", "short03", {"length": 0.6}, rarity=0.02),
    "brushed": HairStyle("full", "short02", {"length": 0.6, "volume_sides": 0.7, "volume_back": 0.7}),
    "messy": HairStyle("full", "short02", {"wave": 0.35, "volume_top": 1.3, "volume_sides": 1.1}, rarity=0.05),
    "mop": HairStyle(
        "full", "short02", {"wave": 0.6, "volume_top": 1.7, "volume_sides": 1.7, "volume_back": 1.5}, rarity=0.08
    ),
    "flat": HairStyle("full", "short04", {"volume_top": 0.7, "volume_sides": 0.7}),
    "swept_back": HairStyle("full", "short04", {"volume_top": 1.9, "volume_sides": 0.8}),
    "bob_short": HairStyle("full", "bob02", {"length": 0.75, "volume_sides": 0.9}),
    "bob_long": HairStyle("full", "bob02", {"length": 1.5, "volume_sides": 0.7, "volume_back": 0.6}),
    "bob_wavy": HairStyle("full", "bob02", {"wave": 0.55, "volume_sides": 1.1}, rarity=0.01),
    "bob_curly": HairStyle(
        "full", "bob02", {"wave": 1.0, "volume_top": 1.3, "volume_sides": 1.35, "length": 1.1}, rarity=0.03
    ),
    "straight": HairStyle("full", "bob02", {"length": 1.9, "volume_sides": 0.65, "volume_back": 0.5}),
    "shoulder": HairStyle("full", "long01", {"length": 0.40, "volume_sides": 0.65, "volume_back": 0.5}, rarity=0.02),
    "shoulder_wavy": HairStyle(
        "full", "long01", {"length": 0.42, "volume_sides": 0.75, "volume_back": 0.6, "wave": 0.5}, rarity=0.02
    ),
    "long_wavy": HairStyle(
        "full", "long01", {"length": 0.6, "volume_sides": 0.8, "volume_back": 0.6, "wave": 0.5}, rarity=0.02
    ),
    "long_curly": HairStyle(
        "full",
        "long01",
        {"length": 0.55, "wave": 1.0, "volume_top": 1.3, "volume_sides": 1.0, "volume_back": 0.8},
        rarity=0.03,
    ),
    "waist": HairStyle("full", "long01", {"volume_sides": 0.75, "volume_back": 0.55}, rarity=0.02),
    "ponytail_short": HairStyle("full", "ponytail01", {"length": 0.6}, rarity=0.06),
    "ponytail_wavy": HairStyle("full", "ponytail01", {"wave": 0.6}, rarity=0.07),
}
"""Hair styles by name: names with digits are those of MakeHuman's meshes."""
BALD = "bald"
"""The style without hair."""


def hair_slots(name: str) -> dict[str, str]:
    """Slots and part styles of a hair style, a part of `FaceParams.styles`: none for `BALD`.

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


def hair_style_of(styles: Mapping[str, str]) -> str:
    """Name of the hair style of a head.

    Args:
        styles: of its parts by slot.
    """
    slots = {slot: styles[slot] for slot in HAIR_SLOTS if slot in styles}
    return next((name for name in HAIR_STYLES if hair_slots(name) == slots), BALD)
