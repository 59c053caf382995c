"""Store a `FitResult` as JSON text and restore it on the same face model.

Numbers are float32 in their shortest exact decimal form; pictures are PNG in base64. Large arrays of the detail are
quantised to the steps of `detail.module.QUANTISATION`, displacements to 0.1 micrometre, and compressed; a normal map
that follows from the displacement is recomputed. Neither the photograph nor the folder it came from is stored.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
import zlib
from dataclasses import asdict
from importlib import metadata
from typing import Any

import numpy as np
from PIL import Image

from ..detail.displacement import normal_map
from ..detail.file import has_open_detail, load_detail
from ..detail.module import QUANTISATION, DetailModule, dequantise, quantise
from ..errors import ParameterError, WeightsError
from ..graphics.camera import Camera
from ..io.json_text import parse_json
from ..messages import Message, entries_of, reason_of, with_codes
from ..model.face_model import FaceModel, FaceParams
from ..model.warp import CONTROL_POINTS
from ..parts.beard import beard_entry, beard_of_file
from ..parts.hair import hair_entry, hair_of_file
from ..parts.part import styles_of_file
from ..result import DetailModuleLike, FitResult, FittedView, Stage, with_params

_FORMAT, _VERSION = "faceverse-result", 1
_LARGEST_SIDE_PX = 4096
_VIEW_ARRAYS = ("rotation", "translation", "light", "landmarks_px", "projected_landmarks_px")
_LONGEST_LIST, _LONGEST_LATENTS = 4096, 1 << 24
_FLOAT32 = ("float32_zlib_base64", "<f4")
# Latents in memory -> names in files, as in the first version of the format.
_STORED_LATENTS = {"residual_displacement": "relief", "wrinkle_depth": "fold_depth"}
_LATENTS_OF_STORED = {stored: name for name, stored in _STORED_LATENTS.items()}
_PARAMS = ("identity", "albedo", "rotation", "translation", "light", "iris")


def to_json(result: FitResult) -> str:
    """Serialise a result; the text is about a third larger than its textures are as PNG.

    Raises:
        ParameterError: a parameter is not finite.
    """
    try:
        return _readable(_document(result)) + "\n"
    except ValueError as error:
        raise ParameterError("store.not_finite") from error


def _document(result: FitResult) -> dict:
    params, camera, model = result.params, result.camera, result.model
    follows = _normals_follow(result)
    document = {
        "format": _FORMAT,
        "version": _VERSION,
        "library": library_name(),
        "model": {"name": model.name, "sha256": model.info.get("sha256")},
        "source": _without_folder(result.source),
        "seconds": float(result.seconds),
        "warnings": list(result.warnings),
        "warning_codes": entries_of(result.warnings),
        "camera": _camera_numbers(camera),
        "params": {
            **{name: _numbers(getattr(params, name)) for name in _PARAMS},
            "expression": dict(zip(model.expression_names, _numbers(params.expression))),
            "detail": {
                _STORED_LATENTS.get(name, name): _packed_or_numbers(values, name)
                for name, values in params.detail.items()
            },
            "warp": _numbers(params.warp) if params.warp.any() else None,
            "styles": dict(params.styles),
            "hair": hair_entry(params.hair),
            "beard": beard_entry(params.beard),
        },
        "detail_module": _module_entry(result.detail_module),
        "stages": [_null_for_nan(asdict(stage)) for stage in result.stages],
        "blendshape_scores": _null_for_nan(result.blendshape_scores),
        "landmarks_px": _numbers(result.landmarks_px),
        "projected_landmarks_px": _numbers(result.projected_landmarks_px),
        "texture_png_base64": _encoded_picture(result.texture),
        "texture_confidence_png_base64": _encoded_picture(result.texture_confidence),
        "normal_map_png_base64": None if follows else _encoded_picture(result.normal_map),
        "normal_map_follows": follows,
        "displacement": _displacement_entry(result.displacement),
    }
    if result.views:
        document["views"] = [_view_entry(view, model) for view in result.views]
    return document


def from_json(text: str | bytes, model: FaceModel, name: str) -> FitResult:
    """Restore the result that `to_json` wrote; the model computes vertices and albedo.

    Args:
        model: the face model that the parameters belong to.
        name: of the file, for messages.

    Raises:
        ParameterError: the text is damaged or of another kind.
        WeightsError: the parameters belong to another model.
    """
    try:
        document = parse_json(text, constant=_refuse_constant)
        if not isinstance(document, dict) or document.get("format") != _FORMAT:
            raise ValueError(Message("store.format", format=_FORMAT))
        if document["version"] != _VERSION:
            raise ValueError(Message("store.version", found=repr(document["version"]), expected=_VERSION))
        _check_model(document["model"], model, name)
        return _restored(document, model)
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError, OSError) as error:
        raise ParameterError("store.unreadable", name=name, reason=reason_of(error)) from error


def library_name() -> str:
    """Name and version of this library, for the generator entries of files."""
    try:
        return f"faceverse {metadata.version('faceverse')}"
    except metadata.PackageNotFoundError:
        return "faceverse"


def picture_bytes(pixels: np.ndarray, *, jpeg: bool = False) -> bytes:
    """Encode pixels (H, W) or (H, W, 3) uint8 as PNG, or as JPEG."""
    stream = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if jpeg:
        image.save(stream, format="JPEG", quality=95, subsampling=0)
    else:
        image.save(stream, format="PNG", compress_level=4)
    return stream.getvalue()


# -- writing ----------------------------------------------------------------------------------------------------------
def _numbers(values: np.ndarray | None) -> Any:
    """Nested lists of the shortest decimals that round to the same float32."""
    if values is None:
        return None
    values = np.asarray(values, dtype=np.float32)
    return np.array([float(str(v)) for v in values.reshape(-1)]).reshape(values.shape).tolist()


def _without_folder(source: str) -> str:
    return re.split(r"[\\/]", source)[-1]


def _camera_numbers(camera: Camera) -> dict:
    return {
        "focal_px": float(camera.focal_px),
        "principal_point_px": [float(v) for v in camera.principal_point_px],
        "image_size": [int(v) for v in camera.image_size],
    }


def _view_entry(view: FittedView, model: FaceModel) -> dict:
    return {
        "source": _without_folder(view.source),
        "camera": _camera_numbers(view.camera),
        **{name: _numbers(getattr(view, name)) for name in _VIEW_ARRAYS},
        "expression": dict(zip(model.expression_names, _numbers(view.expression))),
    }


def _null_for_nan(value):
    """Replace NaN and infinity by null: JSON has neither, and the loss of a stage may be NaN."""
    if isinstance(value, dict):
        return {key: _null_for_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_null_for_nan(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def _encoded_picture(pixels: np.ndarray | None) -> str | None:
    return None if pixels is None else base64.b64encode(picture_bytes(pixels)).decode("ascii")


def _module_entry(module: DetailModuleLike | None) -> dict | None:
    return None if module is None else {"name": module.name, "digest": module.digest}


def _displacement_entry(values: np.ndarray | None) -> dict | None:
    return None if values is None else {"shape": list(values.shape), **_stepped(values, "displacement")}


def _packed_or_numbers(values: np.ndarray, name: str) -> dict | list:
    """Short latents as exact numbers; long ones quantised or in half precision."""
    values = np.asarray(values, dtype=np.float32)
    if values.size <= _LONGEST_LIST:
        return _numbers(values)
    if name in QUANTISATION:
        return {"length": values.size, **_stepped(values, name)}
    return {"length": values.size, "float16_zlib_base64": _compressed(values.astype("<f2").tobytes())}


def _stepped(values: np.ndarray, what: str) -> dict:
    """Quantise values and compress them; 16-bit values as differences of neighbours, low bytes before high ones, which
    makes them a quarter smaller."""
    whole, step = quantise(values, what)
    whole = whole.reshape(-1)
    if whole.itemsize == 1:
        return {"step": step, "int8_zlib_base64": _compressed(whole.tobytes())}
    steps = np.diff(whole, prepend=whole.dtype.type(0)).astype("<i2")
    content = steps.view(np.uint8).reshape(-1, 2).T.tobytes()
    return {"step": step, "int16_differences_zlib_base64": _compressed(content)}


def _compressed(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, 9)).decode("ascii")


def _readable(value, depth: int = 0) -> str:
    """JSON with a line for each entry of the outer two levels, and lists of numbers on one line."""
    indent = "  " * (depth + 1)
    if isinstance(value, dict) and value and depth < 2:
        lines = [f"{indent}{json.dumps(key)}: {_readable(item, depth + 1)}" for key, item in value.items()]
        return "{\n" + ",\n".join(lines) + "\n" + indent[2:] + "}"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        lines = [indent + _readable(item, depth + 1) for item in value]
        return "[\n" + ",\n".join(lines) + "\n" + indent[2:] + "]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


# -- reading ----------------------------------------------------------------------------------------------------------
def _refuse_constant(name: str):
    raise ValueError(Message("store.constant", found=name))


def _check_model(wanted: dict, model: FaceModel, name: str) -> None:
    digest = model.info.get("sha256")
    same_file = wanted["sha256"] is None or digest is None or wanted["sha256"] == digest
    if wanted["name"] != model.name or not same_file:
        raise WeightsError(
            "store.other_model",
            name=name,
            wanted=wanted["name"],
            wanted_digest=str(wanted["sha256"])[:12],
            model=model.name,
            digest=str(digest)[:12],
        )


def _restored(document: dict, model: FaceModel) -> FitResult:
    stored = document["params"]
    neutral = model.neutral()
    values: dict[str, Any] = {key: _array(stored[key], getattr(neutral, key).shape, key) for key in _PARAMS}
    values["expression"] = _weights(stored["expression"], model)
    values["detail"] = {
        _LATENTS_OF_STORED.get(key, key): _latents(item, f"detail {key}") for key, item in stored["detail"].items()
    }
    values["warp"] = _optional(stored.get("warp"), _array, (len(CONTROL_POINTS), 3), "warp")
    if values["warp"] is None:
        del values["warp"]
    values["styles"] = styles_of_file(stored.get("styles"), model.parts)
    values["hair"] = hair_of_file(stored.get("hair"))
    values["beard"] = beard_of_file(stored.get("beard"))
    module, missing = _module_of(document.get("detail_module"))
    result = FitResult(
        model=model,
        params=neutral,
        camera=_camera(document["camera"]),
        vertices=model.mean_vertices,
        neutral_vertices=model.mean_vertices,
        albedo=model.mean_albedo,
        texture=_picture(document["texture_png_base64"], "RGB", "texture"),
        texture_confidence=_picture(document["texture_confidence_png_base64"], "L", "texture_confidence"),
        normal_map=_optional(document["normal_map_png_base64"], _picture, "RGB", "normal_map"),
        displacement=_optional(document["displacement"], _displacement),
        landmarks_px=_optional(document["landmarks_px"], _array, (478, 2), "landmarks_px"),
        projected_landmarks_px=_optional(
            document["projected_landmarks_px"],
            _array,
            (len(model.fit_landmarks.triangle), 2),
            "projected_landmarks_px",
        ),
        stages=tuple(_stage(entry) for entry in document["stages"]),
        warnings=tuple(dict.fromkeys([*with_codes(document["warnings"], document.get("warning_codes")), *missing])),
        seconds=float(document["seconds"]),
        source=str(document["source"]),
        blendshape_scores={key: _loss(score) for key, score in document["blendshape_scores"].items()},
        views=tuple(_view(entry, model) for entry in document.get("views", ())),
        detail_module=module,
    )
    result = with_params(result, FaceParams(**values))
    if document.get("normal_map_follows", False):
        if result.displacement is None or len(set(result.displacement.shape)) > 1:
            raise ValueError(Message("store.normals_need_square"))
        result = result.replace(normal_map=normal_map(model, result.vertices, result.displacement))
    return result


def _normals_follow(result: FitResult) -> bool:
    """Whether the normal map can be recomputed from the displacement, and need not be stored."""
    if result.displacement is None or result.normal_map is None or not np.isfinite(result.displacement).all():
        return False
    side = len(result.displacement)
    if result.displacement.shape != (side, side) or result.normal_map.shape[:2] != (side, side):
        return False
    made = normal_map(result.model, result.vertices, result.displacement)
    return int(np.abs(made.astype(int) - result.normal_map).max()) <= 1


def _module_of(entry: dict | str | None) -> tuple[DetailModule | None, list[str]]:
    """The installed detail module if it made this head's detail, else None and a warning: such a head keeps its maps
    but cannot be edited. Files of earlier versions state only the module's name."""
    if entry is None:
        return None, []
    name, digest = (entry, None) if isinstance(entry, str) else (str(entry["name"]), str(entry["digest"]))
    module = load_detail() if has_open_detail() else None
    if module is not None and ((name == module.name) if digest is None else (digest == module.digest)):
        return module, []
    made_with = f"'{name}'" + (f" ({digest[:8]})" if digest else "")
    return None, [Message("detail.other_installed", module=made_with)]


def _latents(item: list | dict, what: str) -> np.ndarray:
    """Inverse of `_packed_or_numbers`, also for files of earlier versions."""
    if not isinstance(item, dict):
        return _array(item, None, what)
    length = int(item["length"])
    if not 0 < length <= _LONGEST_LATENTS:
        raise ValueError(Message("store.latents_length", what=what, found=length, most=_LONGEST_LATENTS))
    return _unpacked(item, length, what)


def _camera(entry: dict) -> Camera:
    x, y = (float(v) for v in entry["principal_point_px"])
    height, width = (int(v) for v in entry["image_size"])
    if not all(map(math.isfinite, (x, y, entry["focal_px"]))):
        raise ValueError(Message("store.camera_not_finite"))
    return Camera(float(entry["focal_px"]), (x, y), (height, width))


def _weights(stored: dict[str, float], model: FaceModel) -> np.ndarray:
    """Expression weights (E,) in the model's order."""
    if set(stored) != set(model.expression_names):
        odd = sorted(set(stored) ^ set(model.expression_names))
        raise ValueError(Message("store.expressions", names=", ".join(odd[:3])))
    names = model.expression_names
    return _array([stored[key] for key in names], (len(names),), "expression")


def _view(entry: dict, model: FaceModel) -> FittedView:
    shapes = ((3, 3), (3,), (9, 3), (478, 2), (len(model.fit_landmarks.triangle), 2))
    return FittedView(
        source=str(entry["source"]),
        camera=_camera(entry["camera"]),
        expression=_weights(entry["expression"], model),
        **{name: _array(entry[name], shape, name) for name, shape in zip(_VIEW_ARRAYS, shapes, strict=True)},
    )


def _optional(value, read, *arguments):
    return None if value is None else read(value, *arguments)


def _array(values: list, shape: tuple[int, ...] | None, what: str) -> np.ndarray:
    """A finite float32 array; checks its shape unless `shape` is None."""
    array = np.array(values, dtype=np.float64)
    if shape is not None and array.shape != shape:
        raise ValueError(Message("store.shape", what=what, expected=shape, shape=array.shape))
    if not (np.abs(array) <= np.finfo(np.float32).max).all():
        raise ValueError(Message("value.not_finite", what=what))
    return array.astype(np.float32)


def _picture(text: str, mode: str, what: str) -> np.ndarray:
    content = base64.b64decode(text, validate=True)
    width, height = (int.from_bytes(content[k : k + 4], "big") for k in (16, 20))  # as the PNG states, before Pillow
    if content[12:16] == b"IHDR" and max(width, height) > _LARGEST_SIDE_PX:
        found = f"{width} x {height}"
        raise ValueError(Message("store.picture", what=what, found=found, mode=mode, most=_LARGEST_SIDE_PX))
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            if image.mode != mode or max(image.size) > _LARGEST_SIDE_PX:
                found = f"{image.mode} of {image.width} x {image.height}"
                raise ValueError(Message("store.picture", what=what, found=found, mode=mode, most=_LARGEST_SIDE_PX))
            return np.array(image)
    except ValueError:
        raise
    except Exception as error:  # a damaged file makes Pillow's readers raise almost anything
        raise ValueError(Message("store.no_png", what=what)) from error


def _displacement(entry: dict) -> np.ndarray:
    height, width = (int(v) for v in entry["shape"])
    if not 0 < height <= _LARGEST_SIDE_PX or not 0 < width <= _LARGEST_SIDE_PX:
        raise ValueError(Message("store.displacement_side", found=max(height, width), most=_LARGEST_SIDE_PX))
    return _unpacked(entry, height * width, "displacement").reshape(height, width)


def _unpacked(entry: dict, length: int, what: str) -> np.ndarray:
    """Decompress (length,) finite float32: quantised values, or the floats of earlier versions."""
    with np.errstate(over="ignore", invalid="ignore"):  # a crafted step may have any value
        if "int8_zlib_base64" in entry:
            whole = np.frombuffer(_unzipped(entry["int8_zlib_base64"], length, what), np.int8)
            values = dequantise(whole, float(entry["step"]))
        elif "int16_differences_zlib_base64" in entry:
            content = _unzipped(entry["int16_differences_zlib_base64"], 2 * length, what)
            steps = np.frombuffer(content, np.uint8).reshape(2, length).T.copy().view("<i2")[:, 0]
            values = dequantise(np.cumsum(steps, dtype=np.int16), float(entry["step"]))
        else:
            key, kind = ("float16_zlib_base64", "<f2") if "float16_zlib_base64" in entry else _FLOAT32
            content = _unzipped(entry[key], length * np.dtype(kind).itemsize, what)
            values = np.frombuffer(content, kind).astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError(Message("store.damaged", what=what))
    return values


def _unzipped(text: str, size: int, what: str) -> bytes:
    try:
        # Never decompress more than announced, whatever a crafted file contains.
        content = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), size + 1)
    except zlib.error as error:
        raise ValueError(Message("store.damaged", what=what)) from error
    if len(content) != size:
        raise ValueError(Message("store.damaged", what=what))
    return content


def _stage(entry: dict) -> Stage:
    return Stage(
        name=str(entry["name"]),
        seconds=float(entry["seconds"]),
        iterations=int(entry["iterations"]),
        loss_terms={key: _loss(value) for key, value in entry["loss_terms"].items()},
        before=_loss(entry["before"]),
        after=_loss(entry["after"]),
        history=tuple(_loss(value) for value in entry["history"]),
    )


def _loss(value: float | None) -> float:
    return math.nan if value is None else float(value)
