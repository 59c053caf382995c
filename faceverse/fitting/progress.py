"""Progress of a fit: the callback's type, and each stage's share of the running time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

STAGE_SHARE = {"detection": 0.06, "landmarks": 0.12, "photometric": 0.62, "texture": 0.20}  # without detail
DETAIL_STARTS, DETAIL_ENDS = 0.35, 0.9  # where there is a detail stage

Progress = Callable[[str, float, np.ndarray | None], None]
"""Called with (stage, fraction done of the whole, preview (H, W, 3) uint8 or None)."""


def with_detail_share(progress: Progress, detailed: bool) -> Progress:
    """Rescale the fractions that a progress callback receives so that they leave an interval for the detail stage.

    Args:
        progress: receives the rescaled fractions.
        detailed: whether there is a detail stage; without it `progress` is returned as it is.
    """
    if not detailed:
        return progress
    before = 1 - STAGE_SHARE["texture"]

    def scaled(stage: str, fraction: float, preview: np.ndarray | None) -> None:
        if stage == "texture":
            fraction = DETAIL_ENDS + (1 - DETAIL_ENDS) * (fraction - before) / (1 - before)
        elif stage == "detail":
            fraction = DETAIL_STARTS + (DETAIL_ENDS - DETAIL_STARTS) * fraction
        else:
            fraction = DETAIL_STARTS * fraction / before
        progress(stage, fraction, preview)

    return scaled
