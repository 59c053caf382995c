"""Photographs that tests draw of heads, with their true labels."""

from dataclasses import replace

import numpy as np

import faceverse as fv
from faceverse.graphics.camera import default_camera
from faceverse.graphics.lighting import ambient_light
from faceverse.parts.beard import Beard
from faceverse.parts.beard_styles import with_beard_style
from faceverse.parts.hair_styles import with_hair_style
from faceverse.result import head_from_params
from faceverse.segmentation import LABELS, Segmentation

SIZE = 512
BACKGROUND = (255, 0, 255)


def bare_head(model):
    """A head without hair and beard before a camera, in even light."""
    params = model.random(3).replace(
        rotation=np.eye(3, dtype=np.float32), translation=np.array([0, 0, -0.7], np.float32),
        light=ambient_light(1.0).numpy(), beard=Beard(),
    )  # fmt: skip
    camera = replace(default_camera((SIZE, SIZE)), focal_px=SIZE * 0.7 / 0.55)
    styles = with_beard_style(with_hair_style(params.styles, "bald"), "shaved")
    return head_from_params(model, params.replace(styles=styles), camera)


def photograph(head, bare, label):
    """A picture of a head and its labels: `label` ("hair" or "beard") is what differs from the bare head."""
    drawn, skin = (fv.render(one, camera=bare.camera, background=BACKGROUND).rgb for one in (head, bare))
    labels = np.full((SIZE, SIZE), LABELS.index("face"), np.uint8)
    labels[np.abs(skin.astype(int) - BACKGROUND).max(2) <= 24] = LABELS.index("background")
    grown = np.abs(drawn.astype(int) - skin).max(2) > 24
    labels[grown] = LABELS.index(label)
    person = (labels != LABELS.index("background")).astype(np.float32)
    hair = grown.astype(np.float32) * (label == "hair")
    box, inside = np.array([0, 0, SIZE, SIZE], np.float64), np.ones((SIZE, SIZE), bool)
    return drawn, Segmentation(labels, person, hair, inside, box, 1.0 if hair.any() else 0.0)
