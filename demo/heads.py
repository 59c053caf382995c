"""The head in the 3D view: edits by the sliders, files for the view, downloads."""

from __future__ import annotations

import hashlib
import re
import shutil
import zipfile
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import faceverse as fv

from . import hair_state, part_files, uploads
from .edit_state import BlendWeights, EditState, expression_limits
from .view_files import file_url, head_pack, model_pack, wrinkle_atlas

# Initial light of the 3D view.
VIEW_LIGHT = {name: entry.default for name, entry in fv.LIGHT_PARAMETERS.items()} | {"yaw": -27.0, "pitch": 32.0}
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
_FRONTAL = np.array([0.2821, 0.3257, 0.1577])  # harmonics 0, 2, 6 for a normal towards the camera, see lighting.py
_BRIGHTNESS_RANGE = (0.8, 1.3)
_NEAR = 0.5  # strength of a draw near the fitted person, see `faceverse.random_attributes`
serial_numbers = count(1)  # of files, heads and messages; unique file names keep browser caches correct


@dataclass(frozen=True)
class EditableHead:
    """A fitted head with the edits of its visitor.

    Args:
        fitted: the result of the fit.
        neutral: `fitted` with a neutral expression. Edits start from it, because the browser adds the expression.
        edited: `neutral` with the edits that are baked into files.
        person: serial number of the fit; the 3D view keeps its camera and sliders while this stays the same.
        state: latest slider values that the server received.
        donor: the second person, to blend with.
        donor_name: for the visitor.
        wrinkles: URL of the atlas of expression wrinkles, or None.
    """

    fitted: fv.FitResult
    neutral: fv.FitResult
    edited: fv.FitResult
    person: int
    state: EditState = EditState()
    donor: fv.FitResult | None = None
    donor_name: str = ""
    wrinkles: str | None = None

    @classmethod
    def of(cls, fitted: fv.FitResult, person: int) -> EditableHead:
        """The head of a fit, without edits."""
        neutral = fv.edit(fitted, expression=np.zeros_like(fitted.params.expression))
        return cls(fitted, neutral, neutral, person)

    @property
    def has_detail(self) -> bool:
        """Whether the head has a displacement map."""
        return self.edited.normal_map is not None


def edit(head: EditableHead, state: EditState) -> EditableHead:
    """The head with the edits of a state and no others; all are relative to the photograph.

    A skin seed takes effect only on a head with detail. Amounts beyond the model's range are clamped to it.

    Raises:
        ParameterError: unknown attribute, or heads that cannot be blended.
    """
    if head.state.baked == state.baked:
        return replace(head, state=state)
    return replace(head, edited=_edited(head, state), state=state)


def _edited(head: EditableHead, state: EditState, with_numbers: bool = False) -> fv.FitResult:
    """The neutral head with the edits of a state; the numbers of the hair, which the browser applies, on request."""
    result, mix = head.neutral, state.mix
    if head.donor is not None and (mix.identity or mix.albedo or mix.detail):
        result = fv.blend(result, head.donor, identity=mix.identity, expression=0, albedo=mix.albedo, detail=mix.detail)
    wanted: dict[str, Any] = dict(state.attributes)
    if result.normal_map is not None and state.skin:
        wanted["detail_seed"] = state.skin
    result = hair_state.with_baked_hair(result, state.hair)
    if with_numbers:
        result = hair_state.with_hair_numbers(result, state.hair)
    return fv.edit(result, **wanted) if wanted else result


def with_donor(head: EditableHead, donor: fv.FitResult, name: str) -> EditableHead:
    """The head with another donor, blended by the current shares of the sliders."""
    return edit(replace(head, donor=donor, donor_name=name, edited=head.neutral, state=EditState()), head.state)


def refitted(head: EditableHead, fitted: fv.FitResult) -> EditableHead:
    """The same person with a newer fit, such as the one with detail, and the edits applied to it."""
    fresh = replace(EditableHead.of(fitted, head.person), donor=head.donor, donor_name=head.donor_name)
    return edit(fresh, head.state)


def random_changes(
    head: EditableHead, present: EditState, region: str | None, keep: tuple[str, ...], seed: int, is_wild: bool = False
) -> EditState:
    """Draw the attributes of a region at random, or all attributes and a skin seed.

    Args:
        present: state of all sliders.
        region: one of `faceverse.ATTRIBUTE_REGIONS`, or None for the whole head.
        keep: attributes that keep their present value; "skin" keeps the skin, "hair" the hair.
        seed: of the draw.
        is_wild: anybody, not only people like the fitted one.

    Raises:
        ParameterError: unknown region or attribute.
    """
    names = tuple(name for name in keep if name not in ("skin", "hair"))
    drawn = fv.random_attributes(
        head.neutral, seed, region=region, keep=names, strength=1.0 if is_wild else _NEAR
    )
    attributes = {name: amount for name, amount in present.attributes.items() if name not in drawn or name in names}
    attributes |= {name: round(float(amount), 3) for name, amount in drawn.items() if name not in names}
    skin = present.skin if region is not None or "skin" in keep else seed
    hair = present.hair
    if region is None and "hair" not in keep and hair_state.has_hair(head.neutral.model):
        hair = hair_state.random_state(head.neutral, seed)
    return replace(present, attributes=attributes, skin=skin, hair=hair)


def mixed_expression(head: EditableHead, share: float) -> dict[str, float]:
    """Expression weights interpolated from the fitted head (share 0) to the donor (share 1)."""
    own = head.fitted.params.expression
    other = own if head.donor is None else head.donor.params.expression
    return _weights_by_name(head.fitted, (1 - share) * own + share * other)


def with_state(head: EditableHead, state: EditState) -> fv.FitResult:
    """The head with the values of all sliders applied, including those that only the browser applies otherwise.

    An expression slider that was not moved keeps the exact fitted weight. A head without detail ignores `strength`.
    """
    head = edit(head, state)
    start = _expression(head.fitted)
    weights = np.array(head.fitted.params.expression)
    for position, name in enumerate(head.fitted.model.expression_names):
        if abs(state.expression.get(name, start[name]) - start[name]) > 1e-6:
            weights[position] = state.expression[name]
    wanted: dict[str, Any] = {}
    edited = head.edited
    if hair_state.with_hair_numbers(head.edited, state.hair) is not head.edited:
        edited = _edited(head, state, with_numbers=True)
    if edited is head.neutral and np.array_equal(weights, head.fitted.params.expression):
        result = head.fitted
    else:
        result = edited
        wanted["expression"] = weights
    if head.has_detail and state.strength != 1:
        wanted["detail"] = state.strength
    if any(state.pose.values()):
        wanted["rotation"] = tuple(state.pose.get(name, 0.0) for name in ("yaw", "pitch", "roll"))
    if state.light and state.light != VIEW_LIGHT | {"intensity": _brightness(head.fitted)}:
        wanted["light"] = dict(state.light)
    return fv.edit(result, **wanted) if wanted else result


# -- the 3D view ------------------------------------------------------------------------------------------------------
def model_file(folder: Path) -> Path:
    """Write the pack of the face model, which all heads share."""
    path = folder / f"model-{next(serial_numbers)}.bin"
    path.write_bytes(model_pack(fv.load_model()))
    return path


def model_view(model: Path) -> dict:
    """Value of the 3D view before the first head: the files that all heads share, for the browser to load early."""
    return {"model": file_url(model), "parts": part_files.of_model(fv.load_model(), model.parent)}


def view(head: EditableHead, folder: Path, model: Path) -> dict:
    """Write the files of a head and return the value of the 3D view.

    The previous generation of files stays, because a browser may still be loading it; older ones are deleted.

    Args:
        folder: of the visitor.
        model: the pack of the face model; its folder also holds the files of parts that heads share.
    """
    number = next(serial_numbers)
    mesh = folder / f"head-{number}.bin"
    mesh.write_bytes(head_pack(head.edited))
    texture = _picture_file(folder, "texture", ".jpg", head.edited.texture, quality=92)
    normal = smooth = None
    if head.edited.normal_map is not None:  # lossless: JPEG blocks would show as bumps
        normal = _picture_file(folder, "normal", ".png", head.edited.normal_map, compress_level=3)
        bare = fv.edit(head.edited, detail=0).texture
        smooth = _picture_file(folder, "smooth", ".jpg", bare, quality=92)
    latest = {"head-*.bin": mesh, "texture-*.jpg": texture, "normal-*.png": normal, "smooth-*.jpg": smooth}
    for pattern, keep in latest.items():
        delete_older(folder, pattern, set() if keep is None else {keep})
    return {
        "edition": number,
        "person": head.person,
        "model": file_url(model),
        "head": file_url(mesh),
        "texture": file_url(texture),
        "normal": normal and file_url(normal),
        "smooth": smooth and file_url(smooth),
        "wrinkles": head.wrinkles,
        "parts": part_files.of_head(head.edited, model.parent, folder),
        "hair": hair_state.base_of(head.edited),
        "state": head.state.baked,
        "start": initial_state(head),
        "limits": _limits(head.neutral),
        "estimates": {n: round(float(v), 3) for n, v in head.neutral.model.attributes(head.neutral.params).items()},
        "donor": {"name": head.donor_name} if head.donor is not None else None,
        "adopt": None,
        "status": None,
    }


def initial_state(head: EditableHead) -> dict:
    """Slider values that show the head as it was fitted."""
    return {
        "expression": _expression(head.fitted),
        "attributes": {},
        "skin": 0,
        "strength": 1.0,
        "pose": {"yaw": 0.0, "pitch": 0.0, "roll": 0.0},
        "light": VIEW_LIGHT | {"intensity": _brightness(head.fitted)},
        "mix": vars(BlendWeights()),
        "hair": hair_state.start_of(head.fitted),
    }


def with_wrinkles(head: EditableHead, folder: Path) -> EditableHead:
    """The head with an atlas of expression wrinkles for the 3D view; takes one to two seconds."""
    if not head.has_detail:
        return replace(head, wrinkles=None)
    fitted = head.fitted.params.expression
    atlas = wrinkle_atlas(fv.edit(head.edited, expression=fitted))
    if atlas is None:
        return replace(head, wrinkles=None)
    path = _picture_file(folder, "wrinkles", ".png", atlas, compress_level=3)
    delete_older(folder, "wrinkles-*.png", {path})
    return replace(head, wrinkles=file_url(path))


# -- files ------------------------------------------------------------------------------------------------------------
def download_labels() -> dict[str, str]:
    """Labels of the formats that visitors can download, by suffix."""
    formats = {kind: entry for kind, entry in fv.EXPORT_FORMATS.items() if entry.in_menus}
    return {kind: entry.label + " (zip)" * bool(entry.companions) for kind, entry in formats.items()}


def downloaded_lod(result: fv.FitResult, kind: str, lod: str) -> str:
    """The level of detail that a download of this format has: "standard" where the one asked for is not possible."""
    possible = fv.EXPORT_FORMATS[kind].levels_of_detail
    return lod if lod in possible and (lod != "dense" or result.displacement is not None) else "standard"


def file_stem(head: EditableHead, is_named: bool) -> str:
    """Name of a head's files without suffix: that of its photograph, if the visitor wants it, else "head"."""
    name = re.sub(r"[^\w-]+", "_", Path(head.fitted.source).stem).strip("_")[:60]
    return name if is_named and name else "head"


def download(
    head: EditableHead, kind: str, state: EditState, folder: Path, lod: str = "standard", stem: str = "head"
) -> Path:
    """Write the head with the values of all sliders to a file, in which nothing names its photograph.

    Args:
        kind: a key of `faceverse.EXPORT_FORMATS`; formats of several files, such as obj, give a zip.
        state: values of all sliders.
        folder: where to write.
        lod: one of `faceverse.LEVELS_OF_DETAIL`, see `downloaded_lod`.
        stem: name of the file without suffix.
    """
    result = with_state(head, state)
    result = result.replace(source="", views=tuple(replace(view, source="") for view in result.views))
    lod = downloaded_lod(result, kind, lod)
    if not fv.EXPORT_FORMATS[kind].companions:
        return fv.export(result, folder / f"{stem}.{kind}", lod=lod)
    parts = folder / kind
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir()
    fv.export(result, parts / f"{stem}.{kind}", lod=lod)
    path = folder / f"{stem}_{kind}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in sorted(parts.iterdir()):
            archive.write(part, part.name)
    shutil.rmtree(parts)
    return path


def load(path: Path) -> fv.FitResult:
    """Load a head that a visitor uploaded; exceptions are those of `open_saved`."""
    uploads.check_head(path)
    return fv.load_result(path)


def open_saved(path: Path, person: int) -> EditableHead:
    """Open a head that was downloaded as JSON.

    Raises:
        FaceVerseError: the file holds no head, or a head of another model.
    """
    return EditableHead.of(load(path), person)


def delete_older(folder: Path, pattern: str, keep: set[Path]) -> None:
    """Delete the files of a pattern except `keep` and the newest other one, which a browser may still be loading."""
    found = sorted(set(folder.glob(pattern)) - keep, key=lambda path: path.stat().st_mtime_ns)
    for old in found[:-1]:
        old.unlink(missing_ok=True)


def _picture_file(folder: Path, name: str, suffix: str, picture: np.ndarray, **options) -> Path:
    """Write a picture to a file named by its content, so that browsers load equal pictures only once."""
    digest = hashlib.blake2b(picture.tobytes(), digest_size=12).hexdigest()
    path = folder / f"{name}-{digest}{suffix}"
    if path.exists():
        path.touch()
    else:
        Image.fromarray(picture).save(path, **options)
    return path


def _limits(result: fv.FitResult) -> dict[str, list[float]]:
    """Slider limits by name: changes of attributes, and expression weights whose limits are not 0..1."""
    weights = {name: pair for name, pair in expression_limits(result.model).items() if pair != (0.0, 1.0)}
    ends = fv.attribute_limits(result) | weights
    return {name: [round(float(end), 3) for end in pair] for name, pair in ends.items()}


def _brightness(result: fv.FitResult) -> float:
    """Shading of a surface towards the camera in the light of the photograph, clamped to _BRIGHTNESS_RANGE.

    The texture holds albedo; without this factor, a person photographed in bright light would look darker in the 3D
    view than in the photograph.
    """
    constant, towards_camera, third = result.params.light[[0, 2, 6]] @ _LUMINANCE
    shading = _FRONTAL @ (constant, towards_camera, third)
    return round(float(np.clip(shading, *_BRIGHTNESS_RANGE)), 2)


def _expression(result: fv.FitResult) -> dict[str, float]:
    return _weights_by_name(result, result.params.expression)


def _weights_by_name(result: fv.FitResult, weights: np.ndarray) -> dict[str, float]:
    return {name: round(float(weight), 4) for name, weight in zip(result.model.expression_names, weights, strict=True)}
