"""Named expression presets, and the facial regions that attributes belong to.

The presets are combinations of ARKit's 52 blendshapes. Those of emotions follow the action units (AU) that the Facial
Action Coding System names for them (Ekman, Friesen and Hager 2002, Investigator's Guide): happiness 6 + 12, surprise
1 + 2 + 5 + 26, anger 4 + 5 + 7 + 23, sadness 1 + 4 + 15, disgust 9 + 15 + 16, fear 1 + 2 + 4 + 5 + 7 + 20 + 26,
contempt 12 + 14 on one side. Sides are those of the subject.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType


def _sides(**weights: float) -> dict[str, float]:
    """The same weight on both sides."""
    return {name + side: weight for name, weight in weights.items() for side in ("Left", "Right")}


def _mirrored(weights: Mapping[str, float]) -> dict[str, float]:
    other = {"Left": "Right", "Right": "Left"}
    side = {name: next((s for s in other if name.endswith(s)), "") for name in weights}
    return {name.removesuffix(side[name]) + other.get(side[name], ""): weight for name, weight in weights.items()}


_WINK = {"eyeBlinkLeft": 1.0, "cheekSquintLeft": 0.7, "mouthSmileLeft": 0.7, "browDownLeft": 0.3}
_WINK |= {"mouthSmileRight": 0.35, "browOuterUpRight": 0.3, "browInnerUp": 0.15}

_PRESETS: dict[str, dict[str, float]] = {
    "neutral": {},
    "smile": _sides(mouthSmile=0.75, cheekSquint=0.55, eyeSquint=0.2, mouthDimple=0.2),
    "laugh": {"jawOpen": 0.42}
    | _sides(mouthSmile=0.95, cheekSquint=0.9, eyeSquint=0.45, mouthUpperUp=0.3, mouthLowerDown=0.15, browOuterUp=0.2),
    "surprise": {"browInnerUp": 0.9, "jawOpen": 0.5, "mouthFunnel": 0.2} | _sides(browOuterUp=0.9, eyeWide=0.8),
    "anger": {"jawForward": 0.3, "mouthShrugLower": 0.5, "mouthRollLower": 0.3, "mouthRollUpper": 0.2}
    | _sides(browDown=1.0, eyeWide=0.45, eyeSquint=0.3, noseSneer=0.45, mouthPress=0.8, mouthFrown=0.5),
    "sadness": {"browInnerUp": 1.0, "mouthShrugLower": 0.45}
    | _sides(browDown=0.2, mouthFrown=0.85, eyeSquint=0.15, eyeLookDown=0.25, eyeBlink=0.15),
    "disgust": {"mouthShrugUpper": 0.3}
    | _sides(noseSneer=1.0, mouthUpperUp=0.8, cheekSquint=0.8, eyeSquint=0.75, browDown=0.4, mouthFrown=0.4)
    | _sides(mouthLowerDown=0.2),
    "fear": {"browInnerUp": 1.0, "jawOpen": 0.22}
    | _sides(browOuterUp=0.35, browDown=0.2, eyeWide=1.0, mouthStretch=0.75, mouthLowerDown=0.35, mouthFrown=0.2),
    "contempt": {"mouthSmileLeft": 0.4, "mouthDimpleLeft": 0.7, "mouthPressLeft": 0.4, "noseSneerLeft": 0.3}
    | {"cheekSquintLeft": 0.3, "browOuterUpLeft": 0.4}
    | _sides(eyeBlink=0.2, eyeLookDown=0.15),
    "wink": _WINK,
    "wink_right": _mirrored(_WINK),
    "kiss": {"mouthPucker": 1.0, "mouthFunnel": 0.1, "browInnerUp": 0.3} | _sides(eyeBlink=0.85, browOuterUp=0.2),
    "puff": {"cheekPuff": 1.0, "mouthPucker": 0.45, "browInnerUp": 0.5}
    | _sides(mouthPress=0.3, eyeWide=0.5, browOuterUp=0.6),
    "sleep": {"jawOpen": 0.06} | _sides(eyeBlink=1.0),
    "pout": {"mouthShrugLower": 0.8, "mouthPucker": 0.35, "browInnerUp": 0.35} | _sides(mouthFrown=0.6, browDown=0.35),
    "doubt": {"browOuterUpLeft": 1.0, "browDownRight": 0.7, "mouthLeft": 0.35, "eyeSquintRight": 0.4}
    | {"browInnerUp": 0.15, "mouthShrugLower": 0.2}
    | _sides(mouthFrown=0.2, mouthPress=0.3),
    "tongue": {"tongueOut": 1.0, "jawOpen": 0.4} | _sides(mouthSmile=0.45, cheekSquint=0.4, browOuterUp=0.2),
}

EXPRESSION_PRESETS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {name: MappingProxyType(weights) for name, weights in _PRESETS.items()}
)
"""Expressions by name: weights in 0..1 by ARKit name; the weights left out are 0. Read-only."""

ATTRIBUTE_REGIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "person": ("age", "gender", "weight", "african", "asian", "caucasian"),
        "forehead": ("forehead_height", "forehead_width", "forehead_slope", "temple_width"),
        "brows": ("brow_ridge", "brow_height", "brow_angle"),
        "eyes": ("eye_size", "eye_width", "eye_spacing", "eye_tilt", "eye_depth"),
        "nose": ("nose_width", "nose_length", "nose_protrusion", "nose_hump", "nose_tip_height", "nose_bridge_width"),
        "cheeks": ("cheekbone_width", "cheekbone_prominence", "cheek_fullness"),
        "mouth": ("philtrum_length", "upper_lip_fullness", "lower_lip_fullness")
        + ("lip_protrusion", "mouth_width", "lip_corner_height"),
        "jaw": ("jaw_width", "jaw_angle", "chin_height", "chin_prominence", "chin_width"),
        "ears": ("ear_size", "ear_protrusion"),
        "neck": ("neck_width",),
    }
)
"""The open model's attributes by the part of the head that they change; each appears once. Read-only."""
