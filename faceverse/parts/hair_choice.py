"""Which hair people have: colours by name, grey by age, and random hair that suits a person."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from .hair import Hair
from .hair_styles import HAIR_STYLES, with_hair_style
from .part import HAIR_SLOTS, PartLibrary

HAIR_COLORS: Mapping[str, str] = MappingProxyType(
    {
        "black": "#1b1614", "dark brown": "#35241a", "brown": "#4c3323", "chestnut": "#5f3a24",
        "light brown": "#76543a", "dark blond": "#8f7049", "blond": "#b3925f", "light blond": "#d0b384",
        "platinum": "#e3d7bd", "auburn": "#66301d", "copper": "#a4552a", "red": "#8a3a1f",
        "grey": "#86827d", "silver": "#b3b0ab", "white": "#dedbd5",
        "burgundy": "#561c2a", "pink": "#d486a6", "purple": "#5d3f8a", "blue": "#2f5596", "teal": "#24807f",
        "green": "#44824f",
    }
)  # fmt: skip
"""Colours of hair by name: "#rrggbb", sRGB, its mean. Natural colours first, then dyed ones."""

_GREY_AT, _GREY_OVER = 62.0, 8.0  # years: half of the hairs are grey; steepness of the logistic curve
_NEVER_GREY = 20.0
_ADULT = 16.0
# How often women and men have a style, relative to the others.
_SUITS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "bald": (0.0, 0.4), "buzz": (0.05, 1.0), "buzz_high": (0.0, 0.5), "buzz_receding": (0.0, 0.4),
        "buzz_fade": (0.0, 0.8), "horseshoe": (0.0, 0.4), "afro01": (0.3, 0.3), "afro_short": (0.3, 0.5),
        "afro_large": (0.3, 0.1), "bob01": (1.0, 0.0), "bob02": (1.0, 0.0), "bob_short": (1.0, 0.0),
        "bob_long": (1.0, 0.0), "bob_wavy": (1.0, 0.0), "bob_curly": (0.8, 0.0), "braid01": (0.7, 0.0),
        "ponytail01": (1.0, 0.05), "ponytail_short": (1.0, 0.05), "ponytail_wavy": (0.7, 0.0), "short01": (0.3, 1.0),
        "short02": (0.2, 1.0), "short03": (0.2, 1.0), "short04": (0.2, 1.0), "slick_back": (0.2, 0.6),
        "crop": (0.2, 1.0), "quiff": (0.05, 1.0), "undercut": (0.1, 0.8), "messy": (0.2, 1.0), "mop": (0.1, 0.6),
        "flat": (0.1, 0.7), "bun": (0.8, 0.0), "top_bun": (0.6, 0.1), "long01": (1.2, 0.05), "shoulder": (1.3, 0.05),
        "shoulder_wavy": (1.3, 0.05), "long_wavy": (1.2, 0.03), "long_curly": (1.0, 0.03), "waist": (0.5, 0.0),
        # Much like others, which random heads have.
        "side_part": (0.0, 0.0), "brushed": (0.0, 0.0), "swept_back": (0.0, 0.0), "straight": (0.0, 0.0),
    }
)  # fmt: skip
_OTHER_STYLE = (0.3, 0.3)
_BALDING = ("bald", "buzz_receding", "horseshoe")
_SEX_SLOPE = 0.8  # of the share of men's hair with the estimate of sex, which is uncertain about its middle
# Weights of natural colours for dark and for pale skin.
_NATURAL: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "black": (5.0, 0.7), "dark brown": (3.0, 2.0), "brown": (0.7, 2.5), "chestnut": (0.2, 1.5),
        "light brown": (0.05, 2.0), "dark blond": (0.0, 1.8), "blond": (0.0, 1.2), "light blond": (0.0, 0.5),
        "auburn": (0.05, 0.5), "copper": (0.0, 0.3),
    }
)  # fmt: skip
_CHILDREN_LIGHTER = 0.15  # share by which pale children's hair is nearer to blond
_SPREAD = 0.12  # standard deviation of the logarithm of a colour's brightness
_SHAPE_SPREAD: Mapping[str, float] = MappingProxyType(
    {"length": 0.08, "volume_top": 0.12, "volume_sides": 0.12, "volume_back": 0.12, "fringe": 0.08}
)


def grey_share(years: float) -> float:
    """Share 0..1 of grey hairs at an age, on average.

    Reference: Panhard et al., Greying of the human hair: a worldwide survey, revisiting the '50' rule of thumb, 2012.
    """
    start, now = (1 / (1 + np.exp((_GREY_AT - age) / _GREY_OVER)) for age in (_NEVER_GREY, max(years, _NEVER_GREY)))
    return float((now - start) / (1 - start))


def aged_hair(hair: Hair, before: float, after: float) -> Hair:
    """The hair after years have passed, or before: the same share of the hairs that are not grey yet turn grey.

    Args:
        before, after: ages in years.
    """
    remaining = (1 - grey_share(after)) / max(1 - grey_share(before), 1e-6)
    grey = float(np.clip(1 - (1 - hair.grey) * remaining, 0, 1))
    return hair if grey == hair.grey else hair.replace(grey=grey)


def colour_of_hex(text: str) -> tuple[float, float, float]:
    """sRGB 0..1 of "#rrggbb"."""
    red, green, blue = bytes.fromhex(text.removeprefix("#"))
    return red / 255, green / 255, blue / 255


def available_styles(library: PartLibrary | None) -> tuple[str, ...]:
    """Names of the hair styles whose parts a library has; none without a library or where it has no hair."""
    if library is None or not any(part.slot in HAIR_SLOTS for part in library.parts.values()):
        return ()
    names = []
    for name in HAIR_STYLES:
        slots = with_hair_style({}, name)
        if all(f"{slot}/{style}" in library.parts for slot, style in slots.items()):
            names.append(name)
    return tuple(names)


def random_hair(
    library: PartLibrary | None, generator: np.random.Generator, age: float, gender: float, paleness: float
) -> tuple[dict[str, str], Hair]:
    """Sample the hair of a person: a style that is usual for age and sex, a natural colour, grey by age.

    Args:
        library: of the model.
        generator: of the sample.
        age: years.
        gender: -1 female .. 1 male.
        paleness: 0 dark skin .. 1 pale skin.

    Returns:
        Slots and styles of the hair, as `hair_styles.hair_slots` gives them, and its colour and shape.
    """
    names = available_styles(library)
    male = float(np.clip(0.5 + _SEX_SLOPE * gender, 0, 1))
    weights = np.array([_weight(name, male, age, paleness) for name in names])
    name = "bald"
    if weights.sum() > 0:
        name = str(generator.choice(names, p=weights / weights.sum()))
    colours = {colour: dark + paleness * (pale - dark) for colour, (dark, pale) in _NATURAL.items()}
    share = np.array(list(colours.values()))
    colour = np.array(colour_of_hex(HAIR_COLORS[str(generator.choice(list(colours), p=share / share.sum()))]))
    if age < _ADULT:
        blond = np.array(colour_of_hex(HAIR_COLORS["blond"]))
        colour += _CHILDREN_LIGHTER * paleness * (1 - age / _ADULT) * (blond - colour)
    red, green, blue = np.clip(colour * np.exp(_SPREAD * generator.standard_normal()), 0, 1).tolist()
    grey = float(np.clip(grey_share(age) * generator.uniform(0.4, 1.4), 0, 1))
    shape = {
        name: round(float(np.exp(spread * np.clip(generator.standard_normal(), -2, 2))), 4)
        for name, spread in _SHAPE_SPREAD.items()
    }
    mirrored = bool(generator.random() < 0.5)
    return with_hair_style({}, name), Hair((red, green, blue), grey=grey, mirrored=mirrored).replace(**shape)


def _weight(name: str, male: float, age: float, paleness: float) -> float:
    women, men = _SUITS.get(name, _OTHER_STYLE)
    weight = women + male * (men - women)
    if name in _BALDING:
        return float(weight * np.clip((age - 30) / 30, 0, 1))
    is_afro = (HAIR_STYLES[name].mesh or "").startswith("afro")  # mostly of dark-haired people
    return float(weight * (1.2 - paleness if is_afro else 1.0))
