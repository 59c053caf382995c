"""Pictures and plots of a fit, for the tabs below the 3D view."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from PIL import Image

import faceverse as fv

from .heads import delete_older, serial_numbers

PICTURE_PX = 640
_DISPLACEMENT_RANGE_MM = 0.4


@dataclass(frozen=True)
class Pictures:
    """Files of the pictures of a fit.

    Args:
        photo: the photograph; None without one.
        overlay: the head over the photograph, of the same size; None without a photograph.
        stages: stages of the fit, by name as in `faceverse.stage_pictures`.
        maps: texture maps, by name as in `maps_of`.
    """

    photo: Path | None
    overlay: Path | None
    stages: dict[str, Path]
    maps: dict[str, Path]


def of_fit(result: fv.FitResult, photo_rgb: np.ndarray | None, folder: Path) -> Pictures:
    """Render and write the pictures of a fit, cropped to the head.

    Args:
        photo_rgb: (H, W, 3) uint8 of the photograph, or None for a head that was loaded from a file.
    """
    if photo_rgb is None:
        smooth = result.replace(normal_map=None)
        stages = {"base": fv.render(smooth, size=PICTURE_PX, mode="clay").rgb}
        if result.normal_map is not None:
            stages["detail"] = fv.render(result, size=PICTURE_PX, mode="clay").rgb
        stages["final"] = fv.render(result, size=PICTURE_PX).rgb
    else:
        stages = fv.stage_pictures(photo_rgb, result, PICTURE_PX)
    files = {name: _write(folder, f"stage-{name}", picture) for name, picture in stages.items()}
    maps = {name: _write(folder, f"map-{name}", picture) for name, picture in maps_of(result).items()}
    return Pictures(files.get("photo"), files["final"] if "photo" in files else None, files, maps)


def turntable(result: fv.FitResult, folder: Path) -> Path:
    """Turntable of the head, for browsers without WebGL."""
    return _write(folder, "sides", fv.turntable(result, size=320, yaws_deg=(-90, -45, 0, 45, 90)))


def maps_of(result: fv.FitResult) -> dict[str, np.ndarray]:
    """Texture maps, (H, W, 3) uint8 by name: texture, texture without detail, normal map, displacement (mid-grey is the
    base surface, white and black are 0.4 mm above and below), and confidence: how well the photograph shows a texel."""
    maps = {"texture": result.texture}
    if result.normal_map is not None:
        maps["smooth"] = fv.edit(result, detail=0).texture
        maps["normal"] = result.normal_map
    if result.displacement is not None:
        grey = np.clip(result.displacement / _DISPLACEMENT_RANGE_MM * 127.5 + 127.5, 0, 255).astype(np.uint8)
        maps["displacement"] = np.repeat(grey[..., None], 3, axis=2)
    maps["confidence"] = np.repeat(result.texture_confidence[..., None], 3, axis=2)
    return maps


def _write(folder: Path, name: str, picture: np.ndarray) -> Path:
    path = folder / f"{name}-{next(serial_numbers)}.webp"
    Image.fromarray(picture).save(path, quality=88)
    delete_older(folder, f"{name}-*.webp", {path})
    return path


# -- plots -----------------------------------------------------------------------------------------------------------
def loss_figure(result: fv.FitResult, labels: dict[str, str]) -> go.Figure:
    """Plot the loss of every iterative stage over its steps, relative to its initial value.

    Args:
        labels: of the axes: "step", "loss".
    """
    figure = go.Figure()
    for stage in result.stages:
        history = np.asarray(stage.history, dtype=float)
        if len(history) > 1 and history[0] > 0:
            share = history / history[0]
            figure.add_scatter(x=np.arange(len(share)), y=share, name=stage.name, mode="lines+markers")
    figure.update_layout(
        template="plotly_white", height=340, margin={"l": 50, "r": 20, "t": 20, "b": 40},
        xaxis_title=labels["step"], yaxis_title=labels["loss"], legend={"orientation": "h", "y": 1.12},
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", font={"color": "#7b8494"},
    )  # fmt: skip
    figure.update_xaxes(gridcolor="rgba(128,128,128,0.25)", zerolinecolor="rgba(128,128,128,0.4)")
    figure.update_yaxes(gridcolor="rgba(128,128,128,0.25)", zerolinecolor="rgba(128,128,128,0.4)", rangemode="tozero")
    return figure
