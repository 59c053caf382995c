"""Beard styles by name: where cards of the one mesh of beards are kept, and how long they are.

Places are those of the cards' roots on the mean head, in millimetres: x aside from the middle of the face, y up, z to
the front. Several styles share the mesh and the texture, see `with_beard_styles`.

Dimensions: C cards of a mesh.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from .beard_layout import ROWS, card_faces, card_order, is_undercoat, roots_of
from .part import Part, PartLibrary

Field = Callable[[np.ndarray], np.ndarray]
_CHINSTRAP_MM = ((67, -8, 33), (63, -50, 32), (56, -80, 36), (41, -99, 52), (22, -108, 68), (0, -112, 74))
_MESH = "beard/full"


@dataclass(frozen=True)
class BeardStyle:
    """A beard style.

    Args:
        coverage: share (C,) in 0..1 of the cards that are kept, from places (C, 3) in mm, x >= 0.
        length: factor (C,) of the length of a full beard.
    """

    coverage: Field
    length: Field


def step(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Cubic Hermite step from 0 at `low` to 1 at `high`; the other way round where `low` is greater."""
    t = np.clip((values - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def mirrored_mm(roots: np.ndarray) -> np.ndarray:
    """Places (C, 3) in mm with x >= 0 of roots (C, 3) in metres."""
    return np.stack([np.abs(roots[:, 0]), roots[:, 1], roots[:, 2]], axis=1) * 1e3


def above_mouth(mm: np.ndarray) -> np.ndarray:
    """1 for roots (C,) of the moustache."""
    return step(mm[:, 1], -70, -65) * step(mm[:, 0], 32, 27) * step(mm[:, 2], 66, 72)


def on_chin(mm: np.ndarray) -> np.ndarray:
    """1 for roots (C,) on the chin .. 0 on the cheeks."""
    return step(mm[:, 1], -74, -98) * step(mm[:, 0], 52, 14) * step(mm[:, 2], 15, 50)


def _everywhere(mm: np.ndarray) -> np.ndarray:
    return np.ones(len(mm))


def _circle(mm: np.ndarray) -> np.ndarray:
    aside = step(mm[:, 0], 33, 29) * (1 - step(mm[:, 1], -95, -112) * step(mm[:, 0], 14, 24))
    return np.maximum(above_mouth(mm), aside * step(mm[:, 2], 48, 62) * step(mm[:, 1], -60, -66))


def _chin_only(mm: np.ndarray) -> np.ndarray:
    return step(mm[:, 0], 23, 17) * step(mm[:, 2], 48, 62) * step(mm[:, 1], -76, -80)


def _soul_patch(mm: np.ndarray) -> np.ndarray:
    return step(mm[:, 0], 8, 5) * step(mm[:, 1], -76, -79) * step(mm[:, 1], -96, -90)


def _strap(mm: np.ndarray) -> np.ndarray:
    line = np.array(_CHINSTRAP_MM, np.float64)
    start, along = line[:-1], np.diff(line, axis=0)
    share = np.clip(np.einsum("cld,ld->cl", mm[:, None] - start, along) / np.square(along).sum(1), 0, 1)
    distance = np.linalg.norm(mm[:, None] - start - share[..., None] * along, axis=2).min(axis=1)
    return step(distance, 12, 8.5)


def _chops(mm: np.ndarray) -> np.ndarray:
    return np.maximum(above_mouth(mm), step(mm[:, 0], 20, 27) * step(mm[:, 2], 10, 25))


def _long(mm: np.ndarray) -> np.ndarray:
    return 1.1 + 1.3 * on_chin(mm) - 0.05 * above_mouth(mm)


def _times(factor: float, moustache: float) -> Field:
    return lambda mm: factor + (moustache - factor) * above_mouth(mm)


SHAVED = "shaved"
BEARD_STYLES: Mapping[str, BeardStyle | None] = {
    SHAVED: None,
    "stubble_long": BeardStyle(_everywhere, _times(0.2, 0.3)),
    "moustache": BeardStyle(above_mouth, _times(1.0, 1.1)),
    "goatee": BeardStyle(_circle, _times(0.55, 0.85)),
    "van_dyke": BeardStyle(lambda mm: np.maximum(above_mouth(mm), _chin_only(mm)), _times(0.9, 1.1)),
    "soul_patch": BeardStyle(_soul_patch, _times(0.7, 1.0)),
    "chinstrap": BeardStyle(_strap, _times(0.4, 0.4)),
    "chops": BeardStyle(_chops, _times(0.7, 1.0)),
    "full_short": BeardStyle(_everywhere, _times(0.5, 0.7)),
    "full": BeardStyle(_everywhere, _everywhere),
    "full_long": BeardStyle(_everywhere, _long),
}  # fmt: skip
"""Beard styles by name; None for no beard."""


def with_beard_style(styles: Mapping[str, str], name: str) -> dict[str, str]:
    """Styles of the parts of a head by slot, with another beard.

    Args:
        styles: slot -> style.
        name: of `BEARD_STYLES`.
    """
    rest = {slot: style for slot, style in styles.items() if slot != "beard"}
    return rest if BEARD_STYLES[name] is None else rest | {"beard": name}


def with_beard_styles(library: PartLibrary) -> PartLibrary:
    """The library with a part for each beard style, if it has the mesh of beards."""
    mesh = library.parts.get(_MESH)
    if mesh is None:
        return library
    made = {
        f"beard/{name}": replace(scaled(mesh, style_scale(mesh, name)), name=f"beard/{name}")
        for name, style in BEARD_STYLES.items() if style is not None
    }  # fmt: skip
    return replace(library, parts=dict(library.parts) | made)


def style_scale(mesh: Part, name: str) -> np.ndarray:
    """Factors (C,) of the lengths of the cards of the mesh of beards in a style, 0 for those that it leaves out."""
    style = BEARD_STYLES[name]
    assert style is not None
    place = mirrored_mm(roots_of(mesh))
    share = style.coverage(place)
    return np.where(card_order(len(share)) < share, style.length(place) * (0.5 + 0.5 * share), 0)


def scaled(part: Part, scale: np.ndarray) -> Part:
    """A beard with cards of the coat longer or shorter along their growth, and without those of scale 0.

    Args:
        scale: (C,) factors of the length.
    """
    kept = scale > 0
    if kept.all() and (scale == 1).all():
        return part
    rows = np.repeat(kept, 2 * ROWS)
    binding = part.binding
    offset = binding.offset[rows].reshape(-1, ROWS, 2, 3).astype(np.float64)
    coat = ~is_undercoat(part)[kept]
    offset[coat] = scaled_cards(offset[coat], scale[kept][coat])
    binding = replace(
        binding, triangle=binding.triangle[rows], weights=binding.weights[rows],
        offset=np.float32(offset.reshape(-1, 3)),
    )  # fmt: skip
    faces = card_faces(int(kept.sum()))
    return replace(part, binding=binding, faces=faces, uv=part.uv[rows], uv_faces=faces)


def scaled_cards(corners: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Cards of the coat (C, `ROWS`, 2, 3) that are longer or shorter by factors (C,) about their roots."""
    by_card = factor[:, None, None]
    middle, half = corners.mean(axis=2), 0.5 * (corners[:, :, 1] - corners[:, :, 0])
    root = middle[:, :1]
    # Shorter hairs stand up from the skin, longer ones fall.
    middle = root + (middle - root) * np.concatenate([by_card, by_card, by_card**0.7], axis=2)
    half = half * np.clip(by_card, 0.3, 3) ** 0.4
    return np.stack([middle - half, middle + half], axis=2)
