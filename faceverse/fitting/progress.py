"""The stages of a fit, and how its progress is reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Progress = Callable[[str, float, np.ndarray | None], None]
"""Called with (stage, fraction done of the whole, preview (H, W, 3) uint8 or None)."""


@dataclass(frozen=True)
class FitStage:
    """A stage of `fit`. Its key in `FIT_STAGES` is `Stage.name` in the result and what `on_progress` is called with.

    Attributes:
        activity: what happens, for the person who waits.
        share: of the time of a fit without detail, 0..1; the detail stages get their time by `with_detail_share`.
    """

    activity: str
    share: float = 0.0


FIT_STAGES: dict[str, FitStage] = {
    "detection": FitStage("Looking for the face", 0.06),
    "landmarks": FitStage("Finding the shape of the head", 0.12),
    "photometric coarse": FitStage("Matching skin and light", 0.31),
    "photometric fine": FitStage("Matching the finer features", 0.31),
    "detail": FitStage("Reading the skin"),
    "expression detail": FitStage("Reading the wrinkles of the expression"),
    "texture": FitStage("Taking the colours from the photograph", 0.20),
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
