"""Validate the arguments of `edit` that choose beards and brows, and convert them to parameters."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from .edit_hair import hair_color
from .errors import ParameterError
from .messages import Message
from .model.face_model import FaceParams
from .parts.beard import Beard
from .parts.beard_styles import BEARD_STYLES, SHAVED, with_beard_style
from .parts.part import PartLibrary

KEEP_BEARD = "keep"
"""Value of `edit(beard=)` that changes nothing: None takes the beard off."""
NO_BROWS = "painted"
"""Style of brows that are painted in the texture of the skin only."""


def with_facial_hair(params: FaceParams, library: PartLibrary | None, given: Mapping[str, Any]) -> FaceParams:
    """Parameters with other beards and brows.

    Args:
        params: of the head.
        library: parts of its model.
        given: arguments of `edit` by name: beard, beard_length, beard_color, beard_density, brows, brow_color; None
            leaves what the head has, but a beard of None takes it off. Another style than that of a photograph's
            beard is as made.

    Raises:
        ParameterError: an unknown style or colour, a number out of its range, or a model without such parts.
    """
    given = dict(given)
    style = given.pop("beard", KEEP_BEARD)
    given = {name: value for name, value in given.items() if value is not None}
    styles, beard = params.styles, params.beard
    if style != KEEP_BEARD:
        name = SHAVED if style is None else style
        _check(name, BEARD_STYLES, "beard")
        if name in BEARD_STYLES and BEARD_STYLES[name] is not None:
            _require(library, "beard")
        styles = with_beard_style(styles, name)
        if beard.in_skin and styles.get("beard") != params.styles.get("beard"):
            beard = Beard(beard.color, beard.grey, density=beard.density, brow_color=beard.brow_color)
    if (name := given.get("brows")) is not None:
        known = () if library is None else library.styles("brows")
        _check(name, (NO_BROWS, *known), "brows")
        styles = {slot: style for slot, style in styles.items() if slot != "brows"}
        styles = styles if name == NO_BROWS else styles | {"brows": name}
    changes = {
        name: given[key] for key, name in (("beard_length", "length"), ("beard_density", "density")) if key in given
    }
    for key, name in (("beard_color", "color"), ("brow_color", "brow_color")):
        if key in given:
            changes[name] = None if given[key] == "hair" else hair_color(given[key])
    if "color" in changes:
        changes["in_skin"] = False  # what the skin shows has another colour
    return params.replace(styles=styles, beard=beard.replace(**changes))


def _check(name: Any, known: Sequence[str] | Mapping[str, Any], slot: str) -> None:
    if not isinstance(name, str) or name not in known:
        close = difflib.get_close_matches(str(name), known, n=3)
        if close:
            raise ParameterError("styles.similar", slot=slot, name=repr(name), close=" or ".join(map(repr, close)))
        listed = ", ".join(known) or Message("word.none")
        raise ParameterError("styles.unknown", slot=slot, name=repr(name), known=listed)


def _require(library: PartLibrary | None, slot: str) -> None:
    if library is None or not library.styles(slot):
        raise ParameterError("styles.missing", slot=slot)
