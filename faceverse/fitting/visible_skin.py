"""Where a photograph shows skin: what hair, hands, glasses and clothes cover must not speak for the skin.

The labels come from `faceverse.segmentation`. Beards stay part of the skin's texture, but say nothing about its shape.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from ..graphics.sampling import sample_planes
from ..segmentation import Segmentation

SHAPE_LABELS = ("face", "neck")
"""Labels of pixels whose shading tells the shape of the face."""
TEXTURE_LABELS = ("face", "neck", "beard")
"""Labels of pixels whose colour belongs to the texture of the skin."""
HAIR_SIGMA = 0.012  # share of the crop: strands are longer and thinner than their labels
_MARGIN = 0.008  # share of the crop by which the border of the skin is blurred: it shows strands and shadows of hair


def visible_skin(
    labels: Segmentation, names: tuple[str, ...], position_px: np.ndarray, outside: float = 1.0
) -> np.ndarray:
    """Share (...) float32 in 0..1 of skin at pixels of a photograph.

    Args:
        labels: of the photograph.
        names: labels that count as skin.
        position_px: (2, ...) x and y.
        outside: value outside the labelled crop.
    """
    mask = labels.mask(*names).astype(np.float32)
    # Skin only where all around is skin: twice the blurred mask, minus one.
    clear = np.clip(2 * gaussian_filter(mask, _MARGIN * len(mask), mode="nearest", truncate=3) - 1, 0, 1)
    return _sampled(clear, labels, position_px, outside)


def away_from_hair(labels: Segmentation, position_px: np.ndarray) -> np.ndarray:
    """Weight (...) float32 in 0..1 of pixels (2, ...) of a photograph by the amount of hair around them: 0 at hair."""
    hair = gaussian_filter(labels.mask("hair").astype(np.float32), HAIR_SIGMA * len(labels.mask("hair")), truncate=3)
    return 1 - _sampled(np.clip(3 * hair, 0, 1), labels, position_px, 0.0)


def _sampled(mask: np.ndarray, labels: Segmentation, position_px: np.ndarray, outside: float) -> np.ndarray:
    """Bilinear lookup of a mask of the labelled crop at pixels (2, ...) of a photograph."""
    low, high = labels.box_px[:2], labels.box_px[2:]
    x, y = ((position_px[k] - low[k]) * (len(mask) / (high[k] - low[k])) - 0.5 for k in (0, 1))
    return sample_planes(mask[None], np.stack([x, y]), outside)[0]
