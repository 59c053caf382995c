"""A visitor's head: what the sliders make of it, the files of its 3D view, and those that he takes away."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image

import faceverse as fv

from .changes import Changes, Mix, expression_limits
from .viewer import file_address, head_pack, model_pack, wrinkle_atlas

FORMATS = {"GLB": "glb", "OBJ (zip)": "obj", "PLY": "ply", "STL": "stl", "JSON": "json"}
MESHES = ("standard", "light", "dense")
VIEW_LIGHT = {"yaw": -27.0, "pitch": 32.0, "intensity": 1.0, "warmth": 0.0}  # of the 3D view, until a visitor moves it
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
_FRONTAL = np.array([0.2821, 0.3257, 0.1577])  # harmonics that a surface towards the camera sees, see lighting.py
_BRIGHTNESS_RANGE = (0.8, 1.3)
numbers = count(1)  # no two files of the page have the same name, so that no browser shows an old one


@dataclass(frozen=True)
class Head:
    """What the page remembers of a visitor's head.

    Args:
        fitted: as it came from the photograph.
        rest: the same with a neutral face, which is what edits start from: the browser adds the expression.
        edited: `rest` with the changes that files show.
        person: number of the fit; the 3D view keeps its camera and sliders while this stays the same.
        changes: of the sliders, as far as the server has heard of them.
        donor: the second person, to mix with; donor_name is for the visitor.
        wrinkles: address of the atlas of expression wrinkles, or None.
    """

    fitted: fv.FitResult
    rest: fv.FitResult
    edited: fv.FitResult
    person: int
    changes: Changes = Changes()
    donor: fv.FitResult | None = None
    donor_name: str = ""
    wrinkles: str | None = None

    @classmethod
    def of(cls, fitted: fv.FitResult, person: int) -> Head:
        """The head of a fit, unchanged."""
        rest = fv.edit(fitted, expression=np.zeros_like(fitted.params.expression))
        return cls(fitted, rest, rest, person)

    @property
    def has_detail(self) -> bool:
        """Whether there is a displacement whose strength can be chosen."""
        return self.edited.normal_map is not None


def edit(head: Head, changes: Changes) -> Head:
    """The head with these changes and no others; all of them are relative to the photograph.

    Other skin waits for a head with detail: the base model's stays as it is. Amounts that lead out of the model's range
    are reduced to it.

    Raises:
        ParameterError: an attribute that the model does not have, or a mixture of heads that cannot be mixed.
    """
    if head.changes.on_files == changes.on_files:
        return replace(head, changes=changes)
    result, mix = head.rest, changes.mix
    if head.donor is not None and (mix.identity or mix.albedo or mix.detail):
        result = fv.blend(result, head.donor, identity=mix.identity, expression=0, albedo=mix.albedo, detail=mix.detail)
    wanted = dict(changes.attributes)
    if result.normal_map is not None and changes.skin:
        wanted["detail_seed"] = changes.skin
    edited = fv.edit(result, **wanted) if wanted else result
    return replace(head, edited=edited, changes=changes)


def with_donor(head: Head, donor: fv.FitResult, name: str) -> Head:
    """The head with a second person to mix with, in the shares that the sliders have now."""
    return edit(replace(head, donor=donor, donor_name=name, edited=head.rest, changes=Changes()), head.changes)


def with_person(head: Head, fitted: fv.FitResult) -> Head:
    """The same person fitted anew, such as with the detail that was still missing, and the visitor's changes on it."""
    fresh = replace(Head.of(fitted, head.person), donor=head.donor, donor_name=head.donor_name)
    return edit(fresh, head.changes)


def random_changes(head: Head, present: Changes, region: str | None, keep: tuple[str, ...], seed: int) -> Changes:
    """Other amounts for the attributes of a region, or for all of them and with other skin.

    Args:
        region: one of `faceverse.ATTRIBUTE_REGIONS`, or None for the whole head.
        keep: attributes that stay as they are now; "skin" keeps the skin.

    Raises:
        ParameterError: an unknown region or attribute.
    """
    names = tuple(name for name in keep if name != "skin")
    drawn = fv.random_attributes(head.rest, seed, region=region, keep=names)
    attributes = {name: amount for name, amount in present.attributes.items() if name not in drawn or name in names}
    attributes |= {name: round(float(amount), 3) for name, amount in drawn.items() if name not in names}
    skin = present.skin if region is not None or "skin" in keep else seed
    return replace(present, attributes=attributes, skin=skin)


def mixed_expression(head: Head, share: float) -> dict[str, float]:
    """Expression weights between the head's own and the second person's."""
    own = head.fitted.params.expression
    other = own if head.donor is None else head.donor.params.expression
    return _named(head.fitted, (1 - share) * own + share * other)


def as_shown(head: Head, changes: Changes) -> fv.FitResult:
    """The head as it stands on all sliders; an expression slider that was not moved leaves its weight alone, and a head
    without detail has no strength to choose."""
    head = edit(head, changes)
    start = _expression(head.fitted)
    weights = np.array(head.fitted.params.expression)
    for position, name in enumerate(head.fitted.model.expression_names):
        if abs(changes.expression.get(name, start[name]) - start[name]) > 1e-6:
            weights[position] = changes.expression[name]
    if head.edited is head.rest and np.array_equal(weights, head.fitted.params.expression):
        result, wanted = head.fitted, {}
    else:
        result, wanted = head.edited, {"expression": weights}
    if head.has_detail and changes.strength != 1:
        wanted["detail"] = changes.strength
    if any(changes.pose.values()):
        wanted["rotation"] = tuple(changes.pose.get(name, 0.0) for name in ("yaw", "pitch", "roll"))
    if changes.light and changes.light != VIEW_LIGHT | {"intensity": _brightness(head.fitted)}:
        wanted["light"] = dict(changes.light)
    return fv.edit(result, **wanted) if wanted else result


# -- the 3D view ------------------------------------------------------------------------------------------------------
def model_file(folder: Path) -> Path:
    """The part of the 3D view's data that all heads share, written once."""
    path = folder / f"model-{next(numbers)}.bin"
    path.write_bytes(model_pack(fv.load_model()))
    return path


def view(head: Head, folder: Path, model: Path) -> dict:
    """Value of the 3D view; its files replace those before the last ones, which a browser may be reading still."""
    number = next(numbers)
    mesh = folder / f"head-{number}.bin"
    mesh.write_bytes(head_pack(head.edited))
    texture = _picture_file(folder, "texture", ".jpg", head.edited.texture, quality=92)
    normal = smooth = None
    if head.has_detail:  # without losses, because blocks of JPEG would be seen as displacement
        normal = _picture_file(folder, "normal", ".png", head.edited.normal_map, compress_level=3)
        bare = fv.edit(head.edited, detail=0).texture
        smooth = _picture_file(folder, "smooth", ".jpg", bare, quality=92)
    latest = {"head-*.bin": mesh, "texture-*.jpg": texture, "normal-*.png": normal, "smooth-*.jpg": smooth}
    for pattern, keep in latest.items():
        forget_older(folder, pattern, {keep})
    return {
        "edition": number,
        "person": head.person,
        "model": file_address(model),
        "head": file_address(mesh),
        "texture": file_address(texture),
        "normal": normal and file_address(normal),
        "smooth": smooth and file_address(smooth),
        "wrinkles": head.wrinkles,
        "state": head.changes.on_files,
        "start": start_of(head),
        "limits": _limits(head.rest),
        "estimates": {n: round(float(v), 3) for n, v in head.rest.model.attributes(head.rest.params).items()},
        "donor": {"name": head.donor_name} if head.donor is not None else None,
        "adopt": None,
        "status": None,
    }


def start_of(head: Head) -> dict:
    """The sliders' state for a head as it was fitted."""
    return {
        "expression": _expression(head.fitted),
        "attributes": {},
        "skin": 0,
        "strength": 1.0,
        "pose": {"yaw": 0.0, "pitch": 0.0, "roll": 0.0},
        "light": VIEW_LIGHT | {"intensity": _brightness(head.fitted)},
        "mix": vars(Mix()),
    }


def with_wrinkles(head: Head, folder: Path) -> Head:
    """The head with the wrinkles that its expressions bring, for the 3D view; takes a second or two."""
    if not head.has_detail:
        return replace(head, wrinkles=None)
    fitted = head.fitted.params.expression
    atlas = wrinkle_atlas(fv.edit(head.edited, expression=fitted))
    if atlas is None:
        return replace(head, wrinkles=None)
    path = _picture_file(folder, "wrinkles", ".png", atlas, compress_level=3)
    forget_older(folder, "wrinkles-*.png", {path})
    return replace(head, wrinkles=file_address(path))


# -- files ------------------------------------------------------------------------------------------------------------
def download(head: Head, kind: str, changes: Changes, folder: Path, mesh: str = "standard") -> Path:
    """Writes the head as it stands on the sliders.

    Args:
        kind: glb, obj, ply, stl or json; obj gives a zip with the mesh, its material and its texture.
        mesh: one of MESHES; "dense" has the skin's detail in its geometry, where there is some and the format can.
    """
    result = as_shown(head, changes)
    options = {"light": mesh == "light"}
    if mesh == "dense" and kind in ("obj", "ply", "stl") and result.displacement is not None:
        options["dense"] = True
    if kind != "obj":
        return fv.export(result, folder / f"head.{kind}", **options)
    parts = folder / "obj"
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir()
    fv.export(result, parts / "head.obj", **options)
    path = folder / "head_obj.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in sorted(parts.iterdir()):
            archive.write(part, part.name)
    shutil.rmtree(parts)
    return path


def open_saved(path: Path, person: int) -> Head:
    """A head that was taken away as JSON.

    Raises:
        FaceVerseError: the file is no such head, or of another model.
    """
    return Head.of(fv.load_result(path), person)


def forget_older(folder: Path, pattern: str, keep: set[Path]) -> None:
    """Deletes the files of a pattern but for those, and for the newest of the others: a browser may be reading it."""
    found = sorted(set(folder.glob(pattern)) - keep, key=lambda path: path.stat().st_mtime_ns)
    for old in found[:-1]:
        old.unlink(missing_ok=True)


def _picture_file(folder: Path, name: str, suffix: str, picture: np.ndarray, **options) -> Path:
    """Its file, named after its content, so that a browser that has it does not load it again."""
    digest = hashlib.blake2b(np.ascontiguousarray(picture), digest_size=12).hexdigest()
    path = folder / f"{name}-{digest}{suffix}"
    if path.exists():
        path.touch()
    else:
        Image.fromarray(picture).save(path, **options)
    return path


def _limits(result: fv.FitResult) -> dict[str, list[float]]:
    """Ends of the sliders by name: changes of attributes, and weights of expressions that are not 0..1."""
    weights = {name: pair for name, pair in expression_limits(result.model).items() if pair != (0.0, 1.0)}
    ends = fv.attribute_limits(result) | weights
    return {name: [round(float(end), 3) for end in pair] for name, pair in ends.items()}


def _brightness(result: fv.FitResult) -> float:
    """How bright the photograph's light makes skin that faces the camera, within reason: a texture has no light in it,
    and without this a person photographed in bright light would look darker than in the photograph."""
    constant, towards_camera, third = result.params.light[[0, 2, 6]] @ _LUMINANCE
    shading = _FRONTAL @ (constant, towards_camera, third)
    return round(float(np.clip(shading, *_BRIGHTNESS_RANGE)), 2)


def _expression(result: fv.FitResult) -> dict[str, float]:
    return _named(result, result.params.expression)


def _named(result: fv.FitResult, weights: np.ndarray) -> dict[str, float]:
    return {name: round(float(weight), 4) for name, weight in zip(result.model.expression_names, weights, strict=True)}
