"""From class probabilities to labels: what is joined to what, and which part of the skin is the face."""

from __future__ import annotations

import numpy as np

from .classes import BACKGROUND, BEARD, CLOTHES, HAIR, SKIN, is_beard
from .zones import Zones, dilate, erode

LABELS = ("background", "hair", "face", "neck", "clothes", "accessory", "beard")
_LABEL = {name: index for index, name in enumerate(LABELS)}
_BRIDGE = 0.04  # in units: hair that is joined to the head by less than twice this is somebody else's
_THIN = 0.06  # in units: parts of a beard of less than twice this are none
_LEAST_SCALP = 0.05  # square units


def clean_labels(probability: np.ndarray, lab: np.ndarray, zones: Zones, unit_px: float) -> tuple[np.ndarray, float]:
    """Labels of a crop and the share of the scalp that has hair.

    Args:
        probability: (5, S, S) of the classes.
        lab: (S, S, 3) CIELAB.
        zones: places in this crop.
        unit_px: length of a unit.

    Returns:
        labels: (S, S) uint8 indices into LABELS.
        scalp_hair: share of the visible scalp with hair, 0..1; NaN without a visible scalp.
    """
    classes = _with_own_hair(probability, zones, unit_px)
    beard = classes == BEARD
    if not is_beard(classes, lab, zones):
        classes[beard] = SKIN
    else:
        # Such as the edge of a collar.
        radius = max(1, round(_THIN * unit_px))
        thick = dilate(erode(beard | zones.oval, radius), radius)
        _give_second_class(classes, probability, beard & ~zones.oval & ~thick)
    classes[_apart_from(zones.oval, classes != BACKGROUND)] = BACKGROUND
    labels = np.full(classes.shape, _LABEL["background"], np.uint8)
    labels[classes == HAIR] = _LABEL["hair"]
    labels[classes == CLOTHES] = _LABEL["clothes"]
    labels[classes == BEARD] = _LABEL["beard"]
    labels[classes == SKIN] = _LABEL["face"]
    labels[(classes == SKIN) & zones.hanging & (zones.oval_distance > 0.03)] = _LABEL["neck"]
    labels[zones.hands & ((classes == SKIN) | (classes == BEARD))] = _LABEL["accessory"]
    scalp = zones.top & (zones.oval_distance > 0.1) & ~zones.hands
    hair, bare = (int((classes[scalp] == one).sum()) for one in (HAIR, SKIN))
    enough = hair + bare > _LEAST_SCALP * unit_px**2
    return labels, hair / (hair + bare) if enough else float("nan")


def _give_second_class(classes: np.ndarray, probability: np.ndarray, chosen: np.ndarray) -> None:
    """Give pixels (S, S) of a beard their second most probable class, in place."""
    rest = probability[:, chosen]
    rest[BEARD] = 0
    classes[chosen] = rest.argmax(axis=0)


def _with_own_hair(probability: np.ndarray, zones: Zones, unit_px: float) -> np.ndarray:
    """Most probable class (S, S), where hair has to be joined to the hair of the head."""
    classes = probability.argmax(axis=0)
    hair = classes == HAIR
    head = ~zones.oval & (zones.skull_distance < 0.2) & ~zones.hanging
    strange = _apart_from(head, hair)
    radius = max(1, round(_BRIDGE * unit_px))
    strange |= hair & dilate(_apart_from(head, erode(hair, radius)), radius + 1) & ~head
    rest = probability.copy()
    rest[HAIR] = 0
    second = rest.argmax(axis=0)
    # Beside and above a head there is no other skin and there are no clothes but a bystander's.
    second[~zones.hanging & ~zones.oval & (zones.skull_distance > 0.3)] = BACKGROUND
    classes[strange] = second[strange]
    return classes


def _apart_from(start: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Parts (H, W) of a mask that do not touch `start`."""
    import cv2

    count, parts = cv2.connectedComponents(mask.astype(np.uint8))
    touched = np.zeros(count, bool)
    touched[parts[start & mask]] = True
    return mask & ~touched[parts]
