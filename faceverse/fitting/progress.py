"""The stages of a fit, and how its progress is reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Progress = Callable[[str, float, np.ndarray | None], None]
"""Called with (stage, fraction done of the whole, preview (H, W, 3) uint8 or None)."""


@dataclass(frozen=True)
class FitStage:
    """A stage of `fit`. Its name in `FIT_STAGES` is `Stage.name` in the result and what `on_progress` is called with.

    Attributes:
        key: the name as an identifier, for catalogs of messages.
        share: of the time of a fit without detail, 0..1; the detail stages get their time by `with_detail_share`.
    """

    key: str
    share: float = 0.0


FIT_STAGES: dict[str, FitStage] = {
    "detection": FitStage("detection", 0.04),
    "segmentation": FitStage("segmentation", 0.10),
    "landmarks": FitStage("landmarks", 0.10),
    "photometric coarse": FitStage("photometric_coarse", 0.25),
    "photometric fine": FitStage("photometric_fine", 0.24),
    "alignment": FitStage("alignment", 0.01),
    "hair": FitStage("hair", 0.10),
    "detail": FitStage("detail"),
    "expression detail": FitStage("expression_detail"),
    "texture": FitStage("texture", 0.16),
}
"""Stages of a fit by name, in their order."""
DETAIL_STARTS, DETAIL_ENDS = 0.35, 0.9  # fraction of the whole, where there is a detail stage


def with_detail_share(progress: Progress, detailed: bool) -> Progress:
    """Rescale the fractions that a progress callback receives so that they leave an interval for the detail stage.

    Args:
        progress: receives the rescaled fractions.
        detailed: whether there is a detail stage; without it `progress` is returned as it is.
    """
    if not detailed:
        return progress
    before = 1 - FIT_STAGES["texture"].share

    def scaled(stage: str, fraction: float, preview: np.ndarray | None) -> None:
        if stage == "texture":
            fraction = DETAIL_ENDS + (1 - DETAIL_ENDS) * (fraction - before) / (1 - before)
        elif stage == "detail":
            fraction = DETAIL_STARTS + (DETAIL_ENDS - DETAIL_STARTS) * fraction
        else:
            fraction = DETAIL_STARTS * fraction / before
        progress(stage, fraction, preview)

    return scaled
