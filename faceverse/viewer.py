"""Show heads in notebooks: an interactive mesh where the notebook supports it, a picture elsewhere."""

from __future__ import annotations

import base64
import io

import numpy as np
import torch
from PIL import Image

from .detail.displacement import sample_bilinear
from .errors import ParameterError
from .graphics.lighting import srgb_from_linear
from .rendering.render import render
from .result import FitResult

PLOTLY = "application/vnd.plotly.v1+json"  # shown by JupyterLab and VS Code where the package plotly is installed
MODES = ("color", "albedo", "clay")  # of `RENDER_MODES`, those that vertex colours can show
CLAY = "#c8c4be"
STEP_M = 1e-4  # of the positions in the notebook: a tenth of a millimetre
LIGHTING = {"ambient": 0.55, "diffuse": 0.6, "specular": 0.05, "roughness": 0.9, "fresnel": 0.05}
EYE, UP, CENTRE = {"x": 0.45, "y": 0.1, "z": 1.6}, {"x": 0, "y": 1, "z": 0}, {"x": 0, "y": 0, "z": 0}


class MeshViewer:
    """Display a head as the value of a notebook's cell.

    The notebook stores two versions: the coarse mesh (`FaceModel.coarse`) as a plotly figure, which can be rotated, and
    a picture by `faceverse.render`, which static notebook viewers show. Nothing is fetched, and creating them does not
    need plotly.

    Args:
        result: the head.
        mode: "color" (the texture), "albedo" (the model's own colours) or "clay".
        size: pixels of the picture and of the figure.
    Raises:
        ParameterError: unknown mode, or an invalid size.
    """

    def __init__(self, result: FitResult, mode: str = "color", size: int = 400):
        if mode not in MODES:
            raise ParameterError("viewer.mode", mode=repr(mode), known=", ".join(MODES))
        self.result, self.mode, self.size = result, mode, size
        self._picture = render(result, size, mode).rgb

    @property
    def picture(self) -> np.ndarray:
        """(size, size, 3) uint8, the head in its fitted pose."""
        return self._picture

    def figure(self) -> dict:
        """The head as plotly's JSON, for `plotly.graph_objects.Figure(viewer.figure())`; lengths in 0.1 mm."""
        coarse = self.result.model.coarse
        keep = slice(None) if coarse is self.result.model else self.result.model.data.coarse_vertices
        points = np.round(self.result.vertices[keep] / STEP_M)
        indices = "u2" if len(points) <= 1 << 16 else "u4"
        mesh = {
            "type": "mesh3d",
            **{axis: _packed(points[:, k], "i2") for k, axis in enumerate("xyz")},
            **{corner: _packed(coarse.faces[:, k], indices) for k, corner in enumerate("ijk")},
            "lighting": LIGHTING,
            "lightposition": {"x": 2000, "y": 4000, "z": 8000},
            "hoverinfo": "skip",
        }
        if self.mode == "clay":
            mesh["color"] = CLAY
        else:
            mesh["vertexcolor"] = [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in self._colors(keep)]
        no_axis = {"visible": False, "showspikes": False}
        scene = {"aspectmode": "data", "dragmode": "orbit", "camera": {"eye": EYE, "up": UP, "center": CENTRE}}
        scene |= {f"{axis}axis": no_axis for axis in "xyz"}
        margin = dict.fromkeys("lrtb", 0)
        layout = {"width": self.size, "height": self.size, "margin": margin, "scene": scene, "paper_bgcolor": "white"}
        return {"data": [mesh], "layout": layout}

    def _colors(self, keep) -> np.ndarray:
        """(V, 3) uint8 sRGB of the coarse mesh's vertices."""
        model, result = self.result.model, self.result
        if self.mode == "albedo":
            encoded = srgb_from_linear(torch.from_numpy(np.ascontiguousarray(result.albedo[keep]))).numpy()
            return np.round(255 * encoded).astype(np.uint8)
        corner = np.zeros(len(result.vertices), np.int64)
        corner[model.faces.reshape(-1)] = model.uv_faces.reshape(-1)
        colours = sample_bilinear(result.texture.astype(np.float32), model.uv[corner[keep]])
        return np.round(colours).clip(0, 255).astype(np.uint8)

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        stream = io.BytesIO()
        Image.fromarray(self._picture).save(stream, format="PNG", optimize=True)
        bundle = {
            PLOTLY: self.figure(),
            "image/png": base64.b64encode(stream.getvalue()).decode("ascii"),
            "text/plain": f"a head of the model '{self.result.model.name}', {self.mode}",
        }
        wanted = set(bundle if include is None else include) - set(exclude or ())
        return {kind: value for kind, value in bundle.items() if kind in wanted}


def show(*pictures: np.ndarray) -> None:
    """Show pictures side by side below a notebook's cell; the notebook stores them as one JPEG.

    Args:
        pictures: (H, W, 3) or (H, W) uint8, all of the same height and number of channels.
    """
    from IPython.display import display

    display(Image.fromarray(np.hstack(pictures)), include=["image/jpeg"])


def _packed(values: np.ndarray, kind: str) -> dict:
    """Numbers as plotly's typed array: base64 of little-endian bytes."""
    raw = np.ascontiguousarray(values, f"<{kind}").tobytes()
    return {"dtype": kind, "bdata": base64.b64encode(raw).decode("ascii")}
