"""Results of heads that were turned upright for the fit, in the photographs as they were given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..graphics.camera import quarter_turn_matrix, turned_points
from ..graphics.lighting import rotated_light
from ..result import FitResult, FittedView


def in_given_photos(result: FitResult, quarter_turns: list[int]) -> FitResult:
    """Undo the turns of the photographs: poses, light, cameras and landmarks.

    Args:
        quarter_turns: `FitInput.quarter_turns` of each photograph.
    """
    if not any(quarter_turns):
        return result
    views = tuple(_turned_back(*pair) for pair in zip(result.views, quarter_turns, strict=False))  # one photo: none
    params = result.params
    assert result.landmarks_px is not None and result.projected_landmarks_px is not None  # a fit has both
    own = FittedView(
        source=result.source,
        camera=result.camera,
        rotation=params.rotation,
        translation=params.translation,
        expression=params.expression,
        light=params.light,
        landmarks_px=result.landmarks_px,
        projected_landmarks_px=result.projected_landmarks_px,
    )
    own = _turned_back(own, quarter_turns[0])
    return result.replace(
        params=params.replace(rotation=own.rotation, translation=own.translation, light=own.light),
        camera=own.camera,
        landmarks_px=own.landmarks_px,
        projected_landmarks_px=own.projected_landmarks_px,
        views=views,
    )


def _turned_back(view: FittedView, quarter_turns: int) -> FittedView:
    turns, size = -quarter_turns % 4, view.camera.image_size
    if turns == 0:
        return view
    turn = quarter_turn_matrix(turns)
    return replace(
        view,
        camera=view.camera.quarter_turned(turns),
        rotation=(turn @ view.rotation).astype(np.float32),
        translation=(turn @ view.translation).astype(np.float32),
        light=rotated_light(view.light, turn),
        landmarks_px=turned_points(view.landmarks_px, turns, size),
        projected_landmarks_px=turned_points(view.projected_landmarks_px, turns, size),
    )
