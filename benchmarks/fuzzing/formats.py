"""Every format that is read: its seed files, its mutations, and a function that reads a file and checks what it got."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
import torch

import faceverse as fv
from faceverse.detail.file import load_detail
from faceverse.fitting.parameter_regressor import load_parameter_regressor
from faceverse.parts.file import read_parts
from faceverse.tracking.expression_regressor import load_expression_regressor
from faceverse.tracking.frames import checked, open_source
from faceverse.training.scan_files import load_frames
from faceverse.weights import WEIGHTS_VARIABLE

from . import containers, data, mutations, pictures
from .mutations import Mutation
from .pictures import Seed

MOST_FRAMES = 64


@dataclass(frozen=True)
class Format:
    """A kind of file, or of request.

    Args:
        name: for tables and `--case`.
        seeds: make valid files; called once.
        read: reads the file with this path, and raises `WrongValueError` for a result that must not be.
        mutations: of the file that is read; the files beside it are mutated as bytes.
    """

    name: str
    seeds: Callable[[], list[Seed]]
    read: Callable[[Path], object]
    mutations: Sequence[Mutation] = mutations.BINARY


class WrongValueError(Exception):
    """A file was accepted although its content makes no sense."""


def case_files(kind: Format, seeds: list[Seed], seed: int, index: int) -> Seed:
    """The files of a case, the one to be read first; the first cases are the seed files themselves.

    A case depends on the format's name, the seed and the index alone.
    """
    if index < len(seeds):
        return seeds[index]
    rng = Random(f"{kind.name}:{seed}:{index}")
    files = dict(rng.choice(seeds))
    main = next(iter(files))
    chosen = main if rng.random() < 0.75 else rng.choice(list(files))
    others = [next(iter(other.values())) for other in seeds] if chosen == main else []
    chosen_mutations = kind.mutations if chosen == main else _by_suffix(chosen)
    files[chosen] = mutations.mutated(files[chosen], rng, others, chosen_mutations)
    return files


def _by_suffix(name: str) -> Sequence[Mutation]:
    known = {".png": containers.PNG, ".mtl": mutations.TEXT, ".npy": containers.NPY}
    return known.get(Path(name).suffix, mutations.BINARY)


# -- checks of what was read ------------------------------------------------------------------------------------------
def _expect(fine: bool, what: str) -> None:
    if not fine:
        raise WrongValueError(what)


def _finite(what: str, *arrays) -> None:
    for array in arrays:
        _expect(array is None or bool(np.isfinite(array).all()), f"{what}: not finite")


def _check_photo(photo: fv.Photo) -> None:
    rgb = photo.rgb
    _expect(rgb.dtype == np.uint8 and rgb.ndim == 3 and rgb.shape[2] == 3 and min(rgb.shape[:2]) >= 1, "pixels")
    _expect(max(rgb.shape) <= 4096 and 0 < photo.scale <= 1, "size")
    _expect(photo.focal_px is None or 0 < photo.focal_px < 1e7, f"focal length {photo.focal_px}")


def _check_head(head: fv.FitResult) -> None:
    _finite("head", head.vertices, head.neutral_vertices, head.albedo, head.displacement, head.camera.focal_px)
    _expect(head.texture.dtype == np.uint8 and head.texture.ndim == 3, "texture")
    _expect(head.camera.focal_px > 0 and min(head.camera.image_size) > 0, "camera")


# -- readers ----------------------------------------------------------------------------------------------------------
def read_photograph(path: Path) -> None:
    _check_photo(fv.read_image(path))


def read_array(path: Path) -> None:
    text = _request(path)
    try:
        shape = [int(side) for side in text["shape"]]
        if math.prod(map(abs, shape)) > 1e6:
            raise ValueError("too large")
        with np.errstate(all="ignore"):
            array = np.linspace(float(text["low"]), float(text["high"]), int(np.prod(shape, dtype=np.int64)))
            array = array.astype(text["dtype"]).reshape(shape)
    except (ValueError, TypeError, KeyError, OverflowError, IndexError, MemoryError, SyntaxError) as error:
        raise fv.ParameterError(f"the test cannot make such an array ({type(error).__name__})") from error
    _check_photo(fv.read_image(array))


def read_video(path: Path) -> None:
    frames, total = open_source(path, 30.0)
    _expect(total is None or 0 < total < 2**31, f"{total} frames")
    try:
        for seconds, rgb in islice(checked(frames), MOST_FRAMES):
            _expect(np.isfinite(seconds) and min(rgb.shape[:2]) > 0, "frame")
    finally:
        frames.close()


def read_upload(path: Path) -> None:
    from demo import words  # noqa: F401, because its import makes the page's messages known
    from demo.tracking_jobs import claim

    folder = path.parent / "session"
    folder.mkdir()
    video = claim(path, folder, show_s=60)
    _expect(video.path.is_file() and (video.frames is None or video.frames > 0), f"{video.frames} frames")


def read_webcam_frame(path: Path) -> None:
    from demo import words  # noqa: F401, because its import makes the page's messages known
    from demo.webcam import MAX_FRAME_PX, decode_frame

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a server's log is no place where a visitor looks
        rgb = decode_frame(path.read_bytes())
    _expect(rgb.dtype == np.uint8 and rgb.ndim == 3 and 0 < max(rgb.shape) <= MAX_FRAME_PX, "frame")


def read_folder(path: Path) -> None:
    read_video(path.parent)


def read_track(path: Path) -> None:
    track = fv.load_track(path, data.toy_model())
    motion = (track.rotation, track.translation, track.expression, track.light, track.confidence)
    _finite("track", track.times_s, *motion, track.identity.identity, track.identity.albedo, track.camera.focal_px)
    _expect(
        all(len(values) == len(track) > 0 for values in motion) and bool((np.diff(track.times_s) > 0).all()), "times"
    )
    _finite("head of a track", _vertices(track.params(0)))
    _expect(track.camera.focal_px > 0 and min(track.camera.image_size) > 0, "camera")


def _vertices(params: fv.FaceParams) -> np.ndarray:
    identity, expression = (torch.from_numpy(values)[None] for values in (params.identity, params.expression))
    return data.toy_model().vertices(identity, expression).numpy()


def read_result(path: Path) -> None:
    _check_head(fv.load_result(path, data.toy_model()))


def read_coefficients(path: Path) -> None:
    _check_head(fv.load_result(path, data.official_model()))


def read_model(path: Path) -> None:
    model = fv.load_model(path)
    params = model.neutral()
    with np.errstate(over="ignore"):  # bases of float16 may be huge
        head = fv.head(params, model, texture_size=16)
    _finite("model", head.vertices, head.albedo)
    _expect(len(model.expression_names) == len(params.expression), "expressions")


def read_part_library(path: Path) -> None:
    for part in read_parts(path).parts.values():
        _finite("part", part.uv, part.binding.offset, part.material.roughness, part.material.alpha_cutoff)
        _expect(part.material.texture.shape[2] == 4 and part.style in read_parts(path).styles(part.slot), "part")


def read_detail(path: Path) -> None:
    module = load_detail(path)
    for network in (module.detail, module.expression, module.regressor):
        if network is not None:
            _expect(all(bool(value.isfinite().all()) for value in network.state_dict().values()), "weights")


def _with_hash() -> fv.FaceModel:
    model = data.toy_model()
    model.info["sha256"] = data.MODEL_SHA256
    return model


def read_parameter_regressor(path: Path) -> None:
    os.environ[WEIGHTS_VARIABLE] = str(path.parent)
    try:
        network = load_parameter_regressor(_with_hash())
    finally:
        del os.environ[WEIGHTS_VARIABLE]
    if network is None:
        return
    inputs = np.zeros((1, network.template.size + len(network.other_mean)), np.float32)
    with np.errstate(all="ignore"):  # weights are finite, and may be anything else
        results = network.evaluate(inputs), *network.errors_at(10.0), *network.errors_at(-10.0)
    _expect(results[0].shape[1] == len(data.toy_model().expression_names) + len(network.mirrored_offset), "shapes")


def read_expression_regressor(path: Path) -> None:
    os.environ[WEIGHTS_VARIABLE] = str(path.parent)
    try:
        network = load_expression_regressor(_with_hash())
    finally:
        del os.environ[WEIGHTS_VARIABLE]
    if network is None:
        return
    neutral = network.neutral_inputs_mean
    with np.errstate(all="ignore"):
        weights = network.evaluate(neutral[None], network.mirrored(neutral)[None])
    _expect(weights.shape == (1, len(data.toy_model().expression_names)), "shapes")


def read_scan(path: Path) -> None:
    for scan in load_frames(path):
        _finite("scan", scan.vertices)
        _expect(len(scan.vertices) > 0, "no points")
        if scan.faces is not None:
            _expect(scan.faces.min() >= 0 and scan.faces.max() < len(scan.vertices), "triangles")
        if scan.has_color:
            corners = np.arange(len(scan.vertices))[:, None]
            _finite("colours", scan.color_at(corners, np.ones(corners.shape)))


def read_page_state(path: Path) -> None:
    from demo import words  # noqa: F401, because its import makes the page's messages known
    from demo.edit_state import EditState

    state = EditState.from_json(_request(path), data.toy_model())
    _finite("state", list(state.expression.values()), list(state.attributes.values()), state.strength)
    json.dumps(state.to_json(), allow_nan=False)


def read_edits(path: Path) -> None:
    request = _request(path)
    if not isinstance(request, dict) or {"detail_from", "result"} & set(request):  # refused by the endpoint itself
        raise fv.ParameterError("api.edits")
    _check_head(fv.edit(data.head(), **request))


def read_rendering(path: Path) -> None:
    request = _request(path)
    if not isinstance(request, dict) or set(request) != {"size", "mode", "rotation"}:
        raise fv.ParameterError("the request has other arguments")
    size, mode, rotation = (request[name] for name in ("size", "mode", "rotation"))
    if isinstance(size, (int, float)) and not abs(size) <= 2048:  # the endpoint's own limit
        raise fv.ParameterError("the picture would be too large")
    picture = fv.render(data.head(), size, mode, rotation=rotation)
    _expect(picture.rgb.dtype == np.uint8 and picture.rgb.ndim == 3, "picture")


def _request(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # the web server refuses such a request
        raise fv.ParameterError(f"the request is no JSON ({type(error).__name__})") from error


# -- the table --------------------------------------------------------------------------------------------------------
_OF_PHOTOGRAPHS = dict.fromkeys(pictures.PHOTOGRAPHS, mutations.BINARY) | {
    "png": containers.PNG, "jpeg": containers.JPEG, "tiff": containers.TIFF, "avif": containers.MEDIA,
    "heif": containers.MEDIA, "ppm": (*mutations.BINARY, *mutations.TEXT),
}  # fmt: skip
_OF_VIDEOS = {"mp4": containers.MEDIA, "mov": containers.MEDIA}
_OF_SCANS = {
    "obj": mutations.TEXT, "off": mutations.TEXT, "xyz": mutations.TEXT, "gltf": mutations.JSON, "glb": containers.GLB,
    "ply": (*mutations.BINARY, *mutations.TEXT), "stl": (*mutations.BINARY, *mutations.TEXT),
}  # fmt: skip

FORMATS: dict[str, Format] = {
    kind.name: kind
    for kind in (
        *(Format(name, partial(pictures.photographs, name), read_photograph, mutations_of)
          for name, mutations_of in _OF_PHOTOGRAPHS.items()),
        Format("array", data.arrays, read_array, mutations.JSON),
        *(Format(name, partial(pictures.videos, name), read_video, _OF_VIDEOS.get(name, mutations.BINARY))
          for name in pictures.VIDEOS),
        Format("folder", pictures.folder_of_pictures, read_folder, containers.PNG),
        Format("track-csv", partial(data.tracks, "csv"), read_track, mutations.TEXT),
        Format("live-link", data.live_link, read_track, mutations.TEXT),
        Format("track-json", partial(data.tracks, "json"), read_track, mutations.JSON),
        Format("track-npz", partial(data.tracks, "npz"), read_track, containers.ZIP),
        Format("journal", data.journals, read_track, containers.JOURNAL),
        Format("result", data.results, read_result, containers.RESULT),
        Format("coefficients", data.stored_coefficients, read_coefficients, (*containers.NPY, *containers.PICKLE)),
        Format("model", data.models, read_model, containers.SAFETENSORS),
        Format("official", data.official_models, read_model, containers.PICKLE),
        Format("detail", data.detail_modules, read_detail, containers.SAFETENSORS),
        Format("checkpoint", data.checkpoints, read_detail, (*containers.ZIP, *containers.PICKLE)),
        Format("layout", data.detail_layouts, read_detail, containers.PICKLE),
        Format("parts", data.part_libraries, read_part_library, containers.SAFETENSORS),
        Format("parameters", data.parameter_regressors, read_parameter_regressor, containers.SAFETENSORS),
        Format("expressions", data.expression_regressors, read_expression_regressor, containers.SAFETENSORS),
        *(Format(name, partial(data.scans, name), read_scan, kinds) for name, kinds in _OF_SCANS.items()),
        Format("rgbd", data.recordings, read_scan, mutations.JSON),
        Format("upload", data.uploads, read_upload, containers.MEDIA),
        Format("webcam", partial(pictures.photographs, "jpeg"), read_webcam_frame, containers.JPEG),
        Format("page-state", data.page_states, read_page_state, (*mutations.JSON, containers.change_arguments)),
        Format("edits", data.edits, read_edits, (*mutations.JSON, *(containers.change_arguments,) * 6)),
        Format("rendering", data.renderings, read_rendering, (*mutations.JSON, *(containers.change_arguments,) * 6)),
    )
}  # fmt: skip
