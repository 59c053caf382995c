"""Hair of a fitted head: style and shape from the outline of the hair in the photograph, colour from its pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import binary_erosion

from ..graphics.camera import Camera, project, transform
from ..model.face_model import FaceParams
from ..parts.hair_styles import with_hair_style
from ..result import FitResult
from ..segmentation import Segmentation
from .hair_candidates import Candidates, FittedHair, fit_hair
from .hair_colour import with_seen_colour
from .hair_outline import HairObservation, sectors
from .photometric import crop_photo

CROP_PX = 128  # side of the crop in which outlines are compared
STRAND_PX, LOCK_PX, LEAST_STRANDS_PX = 1.0, 5.0, 150  # in the labelled crop: blur, window, pixels that tell curls
FACE_WEIGHT, BODY_WEIGHT = 2.0, 0.25  # of pixels, see `HairObservation`
BODY_M = -0.14  # height of the chin, from the skull's centre: below it the body hides hair
BALD_SHARE = 0.10  # of the scalp that the photograph shows: less hair than that is none


@dataclass(frozen=True)
class HairView:
    """A photograph of a person and the head that was fitted to it.

    Attributes:
        head: without hair; of any texture.
        photo: (H, W, 3) uint8 sRGB.
        labels: of the photograph.
        camera: in pixels of `photo`.
    """

    head: FitResult
    photo: np.ndarray
    labels: Segmentation
    camera: Camera

    @property
    def box_px(self) -> tuple[float, float, float, float]:
        """The labelled crop."""
        x0, y0, x1, y1 = (float(value) for value in self.labels.box_px)
        return x0, y0, x1, y1


def hair_coherence(luminance: np.ndarray, hair: np.ndarray) -> float:
    """How parallel the strands lie: 1 all alike .. 0 without direction; NaN where too little is seen.

    Reference: the coherence of the structure tensor, Weickert 1999, "Coherence-enhancing diffusion filtering".

    Args:
        luminance: (S, S) of the crop.
        hair: (S, S) bool.
    """
    import cv2

    def blurred(values: np.ndarray, sigma: float) -> np.ndarray:
        return cv2.GaussianBlur(np.float32(values), (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)

    down, across = np.gradient(blurred(luminance, STRAND_PX))
    xx, yy, xy = (blurred(product, LOCK_PX) for product in (across * across, down * down, across * down))
    inner = next((m for n in (8, 3) if (m := binary_erosion(hair, iterations=n)).sum() >= LEAST_STRANDS_PX), None)
    energy = 0.0 if inner is None else float((xx + yy)[inner].sum())
    return float(np.hypot(xx - yy, 2 * xy)[inner].sum()) / energy if energy > 0 else float("nan")


def observe_hair(view: HairView) -> HairObservation:
    """The hair of a photograph and the head that was fitted to it, in a small crop."""
    labels, head = view.labels, view.head
    step = len(labels.labels) // CROP_PX

    def share(values: np.ndarray) -> np.ndarray:
        """(CROP_PX, CROP_PX) means of a map of the labelled crop."""
        values = values[: step * CROP_PX, : step * CROP_PX]
        return values.reshape(CROP_PX, step, CROP_PX, step).mean((1, 3), dtype=np.float32)

    crop, _ = crop_photo(view.photo, view.box_px, len(labels.labels))
    coherence = hair_coherence(crop.mean(2, dtype=np.float32), labels.mask("hair"))
    crop_camera = view.camera.cropped(view.box_px, (CROP_PX, CROP_PX))
    params = head.params

    def in_crop(points: np.ndarray) -> torch.Tensor:
        posed = transform(*(torch.from_numpy(a) for a in (points, params.rotation, params.translation)))
        return project(posed, crop_camera)

    scalp = head.neutral_vertices[head.model.regions["scalp"]]
    centre = (scalp.min(0) + scalp.max(0)) / 2
    middle, chin = in_crop(np.stack([centre, centre + np.array([0, BODY_M, 0], np.float32)]))[:, :2].numpy()
    down = chin - middle
    x, y = np.meshgrid(np.arange(CROP_PX) + 0.5, np.arange(CROP_PX) + 0.5)
    is_low = (x - chin[0]) * down[0] + (y - chin[1]) * down[1] > 0
    body = share(labels.mask("clothes")) + is_low * share(labels.mask("neck"))
    weight = (1 - share(labels.mask("accessory"))) * share(labels.inside)
    weight *= 1 + (BODY_WEIGHT - 1) * body + (FACE_WEIGHT - 1) * share(labels.mask("face"))
    return HairObservation(
        share(labels.mask("hair")) > 0.5, np.where(weight < 0.2, 0, weight), crop_camera, params.rotation,
        params.translation, in_crop(head.vertices), torch.from_numpy(head.faces[head.is_skin]),
        centre, sectors(CROP_PX, middle, -down), coherence,
    )  # fmt: skip


def fitted_hair(views: list[HairView]) -> FaceParams:
    """Parameters of the first head with the hair of the photographs of one person: style, shape and colour.

    Hair is fitted to each photograph; that which agrees best with all of them is taken.
    """
    first = views[0].head
    observations = [observe_hair(view) for view in views]
    # Where no scalp is seen, its share of hair is NaN: what is seen beside the face tells.
    hairy = [
        k for k, view in enumerate(views) if observations[k].hair.any() and not view.labels.scalp_hair < BALD_SHARE
    ]
    if 2 * len(hairy) < len(views):
        return first.params
    found = [fit_hair(observations[k], first.model, first.neutral_vertices) for k in hairy]
    votes = [
        sum(one.agreement if k == own else worn_agreement(observations[own], first, one) for own in hairy)
        for k, one in zip(hairy, found, strict=True)
    ]
    best = int(np.argmax(votes))
    fitted, view, observed = found[best], views[hairy[best]], observations[hairy[best]]
    params = first.params.replace(styles=with_hair_style(first.params.styles, fitted.style), hair=fitted.hair)
    seen, _ = crop_photo(view.photo, view.box_px, CROP_PX)
    return params.replace(hair=with_seen_colour(fitted, observed, seen, view.head))


def worn_agreement(observed: HairObservation, head: FitResult, fitted: FittedHair) -> float:
    """How well hair that was fitted to another photograph agrees with this one."""
    return Candidates(observed, head.model, head.neutral_vertices).candidate(fitted.style, fitted.hair).agreement
