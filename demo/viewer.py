"""Files of the 3D view, as `assets/viewer.js` reads them.

A pack is a little-endian uint32 with the length of a JSON header, the header {"values": ..., "arrays": {name: {type,
start, length}}}, and the arrays, each aligned to four bytes. The model's pack (mesh, texture coordinates, expressions)
is the same for every head, so a browser loads it once; a head's pack holds only its neutral vertices and how large each
expression is on it.
"""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import numpy as np

import faceverse as fv

_NEGLIGIBLE_M = 2e-5  # offsets below a fiftieth of a millimetre are left out
_OFFSET_STEPS = 32767


def model_pack(model: fv.FaceModel) -> bytes:
    """Mesh and expressions of a model; offsets are int16 in units of `offsetScale` metres."""
    pairs, corner = np.unique(
        np.stack([model.faces.reshape(-1), model.uv_faces.reshape(-1)], axis=1), axis=0, return_inverse=True
    )
    start, vertices, offsets, scales = [0], [], [], []
    for mode in model.expression_modes:
        moved = np.flatnonzero(np.abs(mode).max(axis=1) > _NEGLIGIBLE_M)
        scale = float(np.abs(mode).max()) / _OFFSET_STEPS or 1.0
        vertices.append(moved)
        offsets.append(np.round(mode[moved] / scale).astype(np.int16))
        scales.append(scale)
        start.append(start[-1] + len(moved))
    return _pack(
        {"names": list(model.expression_names), "vertexCount": len(model.mean_vertices)},
        {
            "faces": _index(model.faces),
            "cornerFaces": _index(corner),
            "vertexOfCorner": _index(pairs[:, 0]),
            "uv": model.uv[pairs[:, 1]].astype(np.float32),
            "offsetStart": np.array(start, dtype=np.uint32),
            "offsetVertex": _index(np.concatenate(vertices)),
            "offset": np.concatenate(offsets),
            "offsetScale": np.array(scales, dtype=np.float32),
        },
    )


def head_pack(result: fv.FitResult) -> bytes:
    """Neutral vertices of a head, the size of each expression on it, and the point that the camera looks at."""
    vertices = result.neutral_vertices.astype(np.float32)
    gain = result.model.gain_of(result.params.identity)
    center = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    return _pack({"center": center.tolist()}, {"neutral": vertices, "gain": gain})


def file_address(path: Path) -> str:
    """Where the browser finds a file, relative to the page."""
    return f"gradio_api/file={quote(path.as_posix())}"


def _index(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1).astype(np.uint16 if values.max(initial=0) < 65536 else np.uint32)


def _pack(values: dict, arrays: dict[str, np.ndarray]) -> bytes:
    entries, chunks, position = {}, [], 0
    for name, array in arrays.items():
        content = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        entries[name] = {"type": array.dtype.name, "start": position, "length": array.size}
        content += bytes(-len(content) % 4)
        chunks.append(content)
        position += len(content)
    header = json.dumps({"values": values, "arrays": entries}).encode()
    header += b" " * (-len(header) % 4)
    return b"".join([np.array(len(header), dtype="<u4").tobytes(), header, *chunks])
