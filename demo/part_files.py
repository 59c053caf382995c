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

from .view_files import file_url, hair_pack, part_pack

TINTED_SLOTS = ("scalp", "hair")
EYE_SLOTS = ("eye_left", "eye_right")
_SOLID_ALPHA = 128  # the colours of strands' edges contain what was behind them when the texture was made
_LARGEST_PX = 512
_QUALITY = 88


def of_head(result: fv.FitResult, shared: Path, own: Path) -> dict[str, dict[str, str]]:
    """URLs of the packs and textures of a head's parts: {slot: {"mesh", "texture"}}; files that exist stay.

    Args:
        shared: folder for what belongs to the library of parts, which all visitors see.
        own: folder of the visitor, for textures that were made for this head.
    """
    library = {} if result.model.parts is None else result.model.parts.parts
    urls = {}
    for slot, part in result.parts.items():
        stored = library.get(part.name)
        if slot in TINTED_SLOTS and stored is not None:  # the browser gives hair its colour
            mesh = _hair_mesh(result, shared) if slot == "hair" else _mesh(part, shared)
            urls[slot] = {"mesh": mesh, "texture": _texture(stored, shared, _SOLID_ALPHA)}
            continue
        is_shared = stored is not None and part.material.texture is stored.material.texture
        urls[slot] = {"mesh": _mesh(part, shared), "texture": _texture(part, shared if is_shared else own)}
    return urls


def of_model(model: fv.FaceModel, shared: Path) -> dict[str, dict[str, str]]:
    """What all heads of a model have where nothing else is chosen, see `of_head`: eyes have no texture yet."""
    parts = {} if model.parts is None else model.parts.choose(model.neutral().styles)
    return {
        slot: {"mesh": _mesh(part, shared)} | ({} if slot in EYE_SLOTS else {"texture": _texture(part, shared)})
        for slot, part in parts.items()
    }


def _mesh(part: fv.Part, folder: Path) -> str:
    """URL of a part's pack, named by its content."""
    material, binding = part.material, part.binding
    bound = (binding.triangle, binding.weights, binding.offset, binding.reference_m)
    header = f"{binding.kind} {material.roughness} {material.alpha_mode} {material.alpha_cutoff} {part.iris_uv}"
    path = folder / f"part-{_digest(header.encode(), *bound, part.faces, part.uv, part.uv_faces)}.bin"
    if not path.exists():
        _write(path, part_pack(part))
    return file_url(path)


def _hair_mesh(result: fv.FitResult, folder: Path) -> str:
    """URL of the pack of the hair's strands, named by style and parting; light and strands are those on a mean head."""
    part, model = result.parts["hair"], result.model
    stored = part if model.parts is None else model.parts.get("hair", part.style)
    is_mirrored = result.params.hair.mirrored
    digest = _digest(f"{part.name} {is_mirrored} {dict(part.shape)}".encode(), stored.binding.offset, stored.faces)
    path = folder / f"part-{digest}.bin"
    if not path.exists():
        mean = model.neutral().replace(styles={"hair": part.style}, hair=fv.Hair(mirrored=is_mirrored))
        _write(path, hair_pack(fv.head(mean, model, texture_size=8)))
    return file_url(path)


def _texture(part: fv.Part, folder: Path, least_alpha: int = 1) -> str:
    """URL of a part's texture, named by its content; see `texture_picture`."""
    material = part.material
    path = folder / f"part-{_digest(material.alpha_mode.encode(), material.texture)}.webp"
    if not path.exists():
        content = io.BytesIO()
        picture = texture_picture(material.texture, material.alpha_mode, least_alpha)
        picture.save(content, "WEBP", quality=_QUALITY, method=2)
        _write(path, content.getvalue())
    return file_url(path)


def texture_picture(texture: np.ndarray, alpha_mode: str, least_alpha: int = 1) -> Image.Image:
    """A texture for the browser: at most 512 pixels a side, and texels of less alpha than `least_alpha` have the colour
    of the closest other one, because filtering mixes their colours.

    Args:
        texture: (H, W, 4) uint8.
        alpha_mode: as in `Material`; an opaque texture loses its alpha.
    """
    picture = Image.fromarray(texture)
    picture.thumbnail((_LARGEST_PX, _LARGEST_PX), Image.Resampling.BOX)
    texture = np.array(picture)
    is_empty = texture[..., 3] < least_alpha
    if is_empty.any() and not is_empty.all():
        row, column = distance_transform_edt(is_empty, return_distances=False, return_indices=True)
        texture[..., :3] = texture[row, column, :3]
    return Image.fromarray(texture[..., :3] if alpha_mode == "OPAQUE" else texture)


def _write(path: Path, content: bytes) -> None:
    """Write a file atomically: other visitors may look for it at the same time."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as partial:
        partial.write(content)
    os.replace(partial.name, path)


def _digest(*contents: bytes | np.ndarray) -> str:
    found = hashlib.blake2b(digest_size=12)
    for content in contents:
        found.update(content.tobytes() if isinstance(content, np.ndarray) else content)
    return found.hexdigest()
