"""Files of a head's parts for the 3D view: a pack and a texture for each."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_edt

import faceverse as fv

from .view_files import file_url, part_pack

_LARGEST_PX = 512
_QUALITY = 88


def of_head(result: fv.FitResult, shared: Path, own: Path) -> dict[str, dict[str, str]]:
    """URLs of the packs and textures of a head's parts: {slot: {"mesh", "texture"}}; files that exist stay.

    Args:
        shared: folder for what belongs to the library of parts, which all visitors see.
        own: folder of the visitor, for textures that were made for this head.
    """
    library = {} if result.model.parts is None else result.model.parts.parts
    return {slot: _urls(part, library.get(part.name), shared, own) for slot, part in result.parts.items()}


def of_model(model: fv.FaceModel, shared: Path) -> dict[str, dict[str, str]]:
    """The same of the parts that heads of a model have where nothing else is chosen, see `of_head`."""
    chosen = {} if model.parts is None else model.parts.choose(model.random(0).styles)
    return {slot: _urls(part, part, shared, shared) for slot, part in chosen.items()}


def _urls(part: fv.Part, stored: fv.Part | None, shared: Path, own: Path) -> dict[str, str]:
    texture = part.material.texture
    is_shared = stored is not None and texture is stored.material.texture
    pack = part_pack(part)
    mesh = shared / f"part-{_digest(pack)}.bin"
    if not mesh.exists():
        _write(mesh, pack)
    picture = (shared if is_shared else own) / f"part-{_digest(texture.tobytes())}.webp"
    if not picture.exists():
        content = io.BytesIO()
        texture_picture(texture, part.material.alpha_mode).save(content, "WEBP", quality=_QUALITY, method=2)
        _write(picture, content.getvalue())
    return {"mesh": file_url(mesh), "texture": file_url(picture)}


def texture_picture(texture: np.ndarray, alpha_mode: str) -> Image.Image:
    """A texture for the browser: at most 512 pixels a side, and transparent texels have the colour of the closest
    opaque one, because filtering mixes their colours.

    Args:
        texture: (H, W, 4) uint8.
        alpha_mode: as in `Material`; an opaque texture loses its alpha.
    """
    picture = Image.fromarray(texture)
    picture.thumbnail((_LARGEST_PX, _LARGEST_PX), Image.Resampling.BOX)
    texture = np.array(picture)
    is_empty = texture[..., 3] == 0
    if is_empty.any() and not is_empty.all():
        row, column = distance_transform_edt(is_empty, return_distances=False, return_indices=True)
        texture[..., :3] = texture[row, column, :3]
    return Image.fromarray(texture[..., :3] if alpha_mode == "OPAQUE" else texture)


def _write(path: Path, content: bytes) -> None:
    """Write a file atomically: other visitors may look for it at the same time."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as partial:
        partial.write(content)
    os.replace(partial.name, path)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=12).hexdigest()
