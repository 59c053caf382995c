"""Expressions that other programs expect beside ARKit's 52, as combinations of them.

Visemes are the mouths of groups of sounds: the 15 of Oculus' lip sync, which Ready Player Me's avatars, TalkingHead and
most engines know by these names, and the five vowels of VRM. Lips and jaw of a viseme are those of a sound spoken
clearly, so that programs can fade from one to the next and scale them down for quiet speech.

References: Meta, "Viseme Reference" (15 visemes); VRM Consortium, "VRMC_vrm 1.0, expressions" (18 presets).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .presets import EXPRESSION_PRESETS


def _mouth(jaw: float = 0.0, *, smile: float = 0.0, stretch: float = 0.0, upper: float = 0.0, lower: float = 0.0,
           **others: float) -> dict[str, float]:  # fmt: skip
    """Weights of a symmetric mouth; those that are 0 are left out."""
    sides = {"mouthSmile": smile, "mouthStretch": stretch, "mouthUpperUp": upper, "mouthLowerDown": lower}
    sides["mouthPress"] = others.pop("press", 0.0)
    weights = {"jawOpen": jaw, **others}
    weights |= {name + side: weight for name, weight in sides.items() for side in ("Left", "Right")}
    return {name: weight for name, weight in weights.items() if weight}


def _eyes(**weights: float) -> dict[str, float]:
    return {name + side: weight for name, weight in weights.items() for side in ("Left", "Right")}


_OCULUS = {
    "sil": {},
    "PP": _mouth(press=0.5, mouthRollUpper=0.35, mouthRollLower=0.35),
    "FF": _mouth(0.02, upper=0.4, mouthRollLower=0.75, mouthShrugLower=0.4),
    "TH": _mouth(0.2, upper=0.2, lower=0.3, tongueOut=0.55),
    "DD": _mouth(0.13, stretch=0.15, upper=0.2, lower=0.35),
    "kk": _mouth(0.2, stretch=0.15, upper=0.2, lower=0.3),
    "CH": _mouth(0.08, upper=0.25, lower=0.3, mouthFunnel=0.55, mouthPucker=0.2),
    "SS": _mouth(0.03, smile=0.15, stretch=0.3, upper=0.3, lower=0.45),
    "nn": _mouth(0.14, stretch=0.1, upper=0.12, lower=0.2),
    "RR": _mouth(0.15, upper=0.1, lower=0.15, mouthFunnel=0.35, mouthPucker=0.3),
    "aa": _mouth(0.55, upper=0.15, lower=0.2),
    "E": _mouth(0.27, smile=0.25, stretch=0.25, upper=0.2, lower=0.25),
    "I": _mouth(0.13, smile=0.45, stretch=0.3, upper=0.15, lower=0.25),
    "O": _mouth(0.36, mouthFunnel=0.55, mouthPucker=0.25),
    "U": _mouth(0.12, mouthFunnel=0.3, mouthPucker=0.75),
}
_VRM = {
    "happy": EXPRESSION_PRESETS["smile"],
    "angry": EXPRESSION_PRESETS["anger"],
    "sad": EXPRESSION_PRESETS["sadness"],
    "relaxed": _mouth(smile=0.35) | _eyes(eyeBlink=0.25, cheekSquint=0.15),
    "surprised": EXPRESSION_PRESETS["surprise"],
    "aa": _OCULUS["aa"],
    "ih": _OCULUS["I"],
    "ou": _OCULUS["U"],
    "ee": _OCULUS["E"],
    "oh": _OCULUS["O"],
    "blink": _eyes(eyeBlink=1.0),
    "blinkLeft": {"eyeBlinkLeft": 1.0},
    "blinkRight": {"eyeBlinkRight": 1.0},
    "lookUp": _eyes(eyeLookUp=1.0),
    "lookDown": _eyes(eyeLookDown=1.0),
    "lookLeft": {"eyeLookOutLeft": 1.0, "eyeLookInRight": 1.0},
    "lookRight": {"eyeLookInLeft": 1.0, "eyeLookOutRight": 1.0},
    "neutral": {},
}
_TALKINGHEAD = {
    "mouthOpen": _mouth(0.6),
    "mouthSmile": _mouth(smile=0.8),
    "eyesClosed": _eyes(eyeBlink=1.0),
    "eyesLookUp": _eyes(eyeLookUp=1.0),
    "eyesLookDown": _eyes(eyeLookDown=1.0),
}

MORPH_RECIPES: Mapping[str, Mapping[str, Mapping[str, float]]] = MappingProxyType(
    {
        "oculus": MappingProxyType({f"viseme_{name}": MappingProxyType(w) for name, w in _OCULUS.items()}),
        "vrm": MappingProxyType({name: MappingProxyType(dict(w)) for name, w in _VRM.items()}),
        "talkinghead": MappingProxyType({name: MappingProxyType(w) for name, w in _TALKINGHEAD.items()}),
    }
)
"""Sets of further morph targets: name -> weights in 0..1 by ARKit name. Read-only."""

MORPH_SETS = ("arkit", *MORPH_RECIPES)
"""Sets of morph targets that a file can hold; "arkit" is the model's own expressions."""
SIDE_NAMES: Mapping[str, tuple[str, str]] = MappingProxyType({"Left/Right": ("Left", "Right"), "_L/_R": ("_L", "_R")})
"""How names of targets end that belong to one side of the face, those of the subject."""


def sided_name(name: str, sides: str) -> str:
    """A name of the model with the endings of `SIDE_NAMES` for its side."""
    for ending, wanted in zip(SIDE_NAMES["Left/Right"], SIDE_NAMES[sides], strict=True):
        # mouthLeft and jawLeft are motions to the left, not shapes of the left side.
        if name.endswith(ending) and name not in ("jawLeft", "jawRight", "mouthLeft", "mouthRight"):
            return name.removesuffix(ending) + wanted
    return name
