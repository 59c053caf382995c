"""Seed files of tracks, heads, models, weights, scans and requests: as small as their formats allow."""

from __future__ import annotations

import base64
import io
import json
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from pathlib import Path

import numpy as np
import torch

import faceverse as fv
from faceverse.detail.displacement_regressor import DisplacementRegressor
from faceverse.detail.file import save_detail
from faceverse.detail.module import DetailModule, DisplacementCode
from faceverse.detail.stylegan import ConditionalGenerator
from faceverse.fitting.parameter_regressor import STORED_NAMES, ParameterRegressor
from faceverse.official import coefficients_from_params, npy_bytes
from faceverse.parts.binding import BINDING_KINDS, bind
from faceverse.parts.file import write_parts
from faceverse.parts.part import Material, Part, PartLibrary
from faceverse.tracking import expression_regressor
from faceverse.tracking.journal import Journal, record_type
from faceverse.tracking.person import PersonBias, TrackedPerson
from faceverse.weights import convert_model

from .pictures import HEIGHT, WIDTH, Seed, encoded, picture, videos

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))  # for the small models of the tests


@cache
def toy_model() -> fv.FaceModel:
    """The small head of the tests."""
    import toy

    return toy.toy_model()


def _written(write: Callable[[Path], object], name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


# -- heads and tracks -------------------------------------------------------------------------------------------------
@cache
def head() -> fv.FitResult:
    """A head without a photograph."""
    return fv.head(toy_model().random(3), toy_model(), texture_size=16)


def results() -> list[Seed]:
    """Heads as `export` writes them: a plain one, and one with landmarks, stages, displacement and detail."""
    full = head().replace(
        displacement=np.linspace(-1e-3, 1e-3, 256, dtype=np.float32).reshape(16, 16),
        landmarks_px=np.linspace(0, 100, 956, dtype=np.float32).reshape(478, 2),
        stages=(fv.Stage("landmarks", 0.5, 3, {"landmarks": 1.0}, 2.0, 1.0, (2.0, 1.0)),),
        blendshape_scores={"jawOpen": 0.5},
        warnings=(fv.Message("quality.turned", degrees=50.5),),
    )
    drawn = full.params.replace(
        detail={"z": np.ones(16, np.float32), "residual_displacement": np.ones(5000, np.float32)}
    )
    heads = (head(), full, full.replace(params=drawn))
    return [{"head.json": _written(lambda path, one=one: fv.export(one, path), "head.json")} for one in heads]


@cache
def _track() -> fv.Track:
    person, count = head(), 5
    draw = np.random.default_rng(0)
    return fv.Track(
        model=toy_model(),
        identity=person.params,
        camera=person.camera,
        times_s=np.arange(count) / 30,
        rotation=np.repeat(person.params.rotation[None], count, axis=0),
        translation=np.repeat(person.params.translation[None], count, axis=0),
        expression=draw.uniform(0, 1, (count, len(toy_model().expression_names))).astype(np.float32),
        light=np.repeat(person.params.light[None], count, axis=0),
        confidence=np.ones(count, np.float32),
        expression_names=toy_model().expression_names,
        warnings=(fv.Message("quality.turned", degrees=50.5),),
    )


def tracks(kind: str) -> list[Seed]:
    """Tracks as `Track.save` writes them: "csv", "json" or "npz"."""
    return [{f"track.{kind}": _written(_track().save, f"track.{kind}")}]


def live_link() -> list[Seed]:
    """A table of the Live Link Face app."""
    weights = [name[0].upper() + name[1:] for name in toy_model().expression_names]
    lines = [",".join(["Timecode", "BlendShapeCount", *weights, "HeadYaw", "HeadPitch", "HeadRoll", "LeftEyeYaw"])]
    for row in range(5):
        numbers = np.random.default_rng(row).uniform(0, 1, len(weights) + 4).round(6)
        lines.append(",".join([f"10:59:59:{row + 10}.250", "61", *map(str, numbers)]))
    return [{"take.csv": "\n".join(lines).encode() + b"\n"}]


def journals() -> list[Seed]:
    """Journals of interrupted runs, with and without what is known of the person's neutral face."""
    track = _track()
    bias = PersonBias(np.array([0.0, 10.0]), np.zeros((2, 478, 2)))
    known = TrackedPerson(track.identity, track.camera, np.zeros(1500, np.float32), bias, (), np.zeros(52))
    frames = np.zeros(len(track), record_type(len(track.expression_names)))
    frames["seconds"] = track.times_s
    for name in ("confidence", "rotation", "translation", "expression", "light"):
        frames[name] = getattr(track, name)

    def write(path: Path, person: TrackedPerson) -> None:
        journal = Journal(path, {"source": "clip.mp4"})
        journal.open(person, None)
        for frame in frames:
            journal.add(frame)
        journal.close()

    people = (TrackedPerson(track.identity, track.camera), known)
    return [{"run.fvtrack": _written(lambda path, p=person: write(path, p), "run.fvtrack")} for person in people]


def stored_coefficients() -> list[Seed]:
    """Coefficients of the original code for the official model `official_model`."""
    model, made = official_model(), []
    for version_4 in (False, True):
        vector = coefficients_from_params(model, model.neutral())
        made.append(npy_bytes({"coeffs": vector}) if version_4 else _npy(vector[None]))
    return [{"coefficients.npy": content} for content in made]


@cache
def official_model() -> fv.FaceModel:
    """A small model in the official layout of version 2."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "official.npy"
        path.write_bytes(official_models()[2]["base.npy"])
        return fv.load_model(path)


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


# -- models and weights -----------------------------------------------------------------------------------------------
def models() -> list[Seed]:
    """Open models: on a quad mesh, and the arrays that `convert_model` writes."""
    import toy

    quads = _written(toy.toy_file().write, "model.safetensors")
    arrays = _written(lambda path: convert_model(toy_model(), path), "model.safetensors")
    return [{"model.safetensors": quads}, {"model.safetensors": arrays}]


def official_models() -> list[Seed]:
    """Official base files of versions 0 to 4, with fewer vertices than the real ones."""
    import official_files

    return [{"base.npy": npy_bytes(official_files.official(version))} for version in range(5)]


def part_libraries() -> list[Seed]:
    """Teeth, eyes and lashes: the same few triangles in each way of binding, with one texture."""
    model = toy_model()
    faces = model.faces[:8]
    corners = np.unique(faces)
    triangle, weights = np.repeat(faces[:1], len(corners), axis=0), np.full((len(corners), 3), 1 / 3)
    material, parts = Material(np.full((4, 4, 4), 200, np.uint8)), {}
    for slot, kind in zip(("teeth_upper", "eye_left", "lashes"), BINDING_KINDS):
        binding = bind(model.mean_vertices[corners], model.mean_vertices, triangle, weights, kind)
        uv, uv_faces = model.data.uv[corners].astype(np.float32), np.searchsorted(corners, faces)
        parts[f"{slot}/base"] = Part(f"{slot}/base", binding, uv_faces, uv, uv_faces, material)
    library = PartLibrary(parts, model.topology, {"licence": "CC0-1.0"})
    return [{"parts.safetensors": _written(lambda path: write_parts(library, path), "parts.safetensors")}]


def _generator(image_channels: int) -> ConditionalGenerator:
    torch.manual_seed(image_channels)
    return ConditionalGenerator(
        8, style_dim=4, mapping_layers=1, image_channels=image_channels, condition_channels=6, channels={4: 2, 8: 2}
    )


def detail_modules() -> list[Seed]:
    """Files of `save_detail`: generators with their code; all parts."""
    code = DisplacementCode(factors=("age",))
    small = DetailModule(
        detail=_generator(6), expression=_generator(3), code=code, name="small", info={"licence": "CC0"}
    )
    regressor = DetailModule(regressor=DisplacementRegressor(1), code=code, name="small")
    name, made = "detail.safetensors", []
    for module in (small, regressor):
        made.append({name: _written(lambda path, module=module: save_detail(module, path, compact=True), name)})
    return made


def checkpoints() -> list[Seed]:
    """Training checkpoints of generators, as zip archives and in the older format of torch."""
    state, zipped, older = _generator(6).state_dict(), io.BytesIO(), io.BytesIO()
    torch.save({"g_ema": state, "iter": 3, "note": "text"}, zipped)
    # The older format numbers storages by their addresses: with one storage, there is one number to be replaced.
    whole = torch.cat([value.reshape(-1) for value in state.values()])
    parts = whole.split([value.numel() for value in state.values()])
    shared = {key: part.view(value.shape) for (key, value), part in zip(state.items(), parts, strict=True)}
    torch.save({"g_ema": shared, "iter": 3}, older, _use_new_zipfile_serialization=False)
    content = re.sub(rb"X[\x0a-\x14]\x00\x00\x00\d{10,20}", b"X\x01\x00\x00\x007", older.getvalue())
    return [{"generator.pt": content} for content in (zipped.getvalue(), content)]


def detail_layouts() -> list[Seed]:
    """The official UV layout of a detail module."""
    draw, side, vertices, faces = np.random.default_rng(5), 1024, 40, 60
    mask = np.zeros((side, side), np.uint8)
    mask[100:900, 100:900] = 1
    raw = {
        "uv": draw.integers(0, side, (vertices, 2)),
        "uvmask": mask,
        "tri": draw.integers(0, vertices, (faces, 3)),
        "point_buf": draw.integers(0, faces, (vertices, 8)),
        "keypoints": draw.integers(0, vertices, 66),
    }
    return [{"layout.npy": npy_bytes(raw)}]


_DTYPES = {"float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32"}


def safetensors_bytes(arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> bytes:
    """A .safetensors file: the length of its header, the header as JSON, the arrays."""
    header: dict[str, object] = {"__metadata__": metadata}
    at = 0
    for name, array in arrays.items():
        header[name] = {
            "dtype": _DTYPES[str(array.dtype)],
            "shape": array.shape,
            "data_offsets": [at, at + array.nbytes],
        }
        at += array.nbytes
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(array.tobytes() for array in arrays.values())


MODEL_SHA256 = "0" * 64
_POINTS, _SCORES, _POSE = 478, 51, 14


def parameter_regressors() -> list[Seed]:
    """Weights of the parameter regressor of a model with the hash MODEL_SHA256."""
    model = toy_model()
    K, H, P = 3, 4, _POSE + _SCORES  # as the docstring of `ParameterRegressor` names them
    N, E = len(model.neutral().identity), len(model.expression_names)
    shapes = {
        "template": (_POINTS, 3), "points_mean": (3 * _POINTS,), "components": (3 * _POINTS, K), "other_mean": (P,),
        "other_deviation": (P,), "hidden": (K + P, H), "hidden_bias": (H,), "output": (H, N + E),
        "output_bias": (N + E,), "direct": (K + P, N + E), "mirrored_points": (_POINTS,), "mirrored_scores": (_SCORES,),
        "mirrored_expression": (E,), "mirrored_identity": (N, N), "mirrored_offset": (N,), "yaw_deg": (2,),
        "covariance": (2, N, N), "expression_sigma": (2, E), "unit_m": (1,), "turned_deg": (2,),
        "bias": (2, _POINTS, 2), "error_modes": (2, 2, _POINTS, 2), "sigma": (2, _POINTS),
    }  # fmt: skip
    arrays = _random_arrays(shapes, [field.name for field in fields(ParameterRegressor)])
    stored = {STORED_NAMES.get(name, name): array for name, array in arrays.items()}
    metadata = {"format": "faceverse-start", "version": "1", "model_sha256": MODEL_SHA256}
    return [{"open_parameter_regressor.safetensors": safetensors_bytes(stored, metadata)}]


def expression_regressors() -> list[Seed]:
    """Weights of the expression regressor of a model with the hash MODEL_SHA256."""
    K, R, H, P = 3, 2, 4, _POSE + _SCORES
    E, C = len(toy_model().expression_names), K + R + 2 * _POSE + 2 * _SCORES
    shapes = {
        "template": (_POINTS, 3), "components": (3 * _POINTS, K), "neutral_points_mean": (3 * _POINTS,),
        "neutral_components": (3 * _POINTS, R), "neutral_inputs_mean": (3 * _POINTS + P,), "mean": (C,),
        "deviation": (C,), "hidden": (C, H), "hidden_bias": (H,), "output": (H, E), "output_bias": (E,),
        "direct": (C, E), "mirrored_points": (_POINTS,), "mirrored_scores": (_SCORES,), "mirrored_expression": (E,),
        "yaw_deg": (2,), "sigma": (2, E),
    }  # fmt: skip
    kind = expression_regressor.ExpressionRegressor
    arrays = _random_arrays(shapes, [field.name for field in fields(kind)])
    stored = {expression_regressor.STORED_NAMES.get(name, name): array for name, array in arrays.items()}
    metadata = {"format": "faceverse-movement", "version": "1", "model_sha256": MODEL_SHA256}
    return [{"open_expression_regressor.safetensors": safetensors_bytes(stored, metadata)}]


def _random_arrays(shapes: dict[str, tuple[int, ...]], names: list[str]) -> dict[str, np.ndarray]:
    """Arrays by name; those named mirrored_ are permutations, yaw and deviations are positive and ascend."""
    draw = np.random.default_rng(1)
    made = {}
    for name in names:
        shape = shapes[name]
        if name.startswith("mirrored_") and len(shape) == 1 and name != "mirrored_offset":
            made[name] = np.arange(shape[0])[::-1].copy()
        elif name.endswith("_deg"):
            made[name] = np.arange(shape[0], dtype=np.float32) * 20
        else:
            made[name] = draw.uniform(0.5, 1.0, shape).astype(np.float32)
    return made


# -- scans ------------------------------------------------------------------------------------------------------------
def scans(kind: str) -> list[Seed]:
    """Meshes and point clouds: "obj", "ply", "stl", "off", "glb", "gltf" or "xyz"."""
    import trimesh

    ball = trimesh.creation.icosphere(subdivisions=1, radius=100)
    colors = np.random.default_rng(0).integers(0, 256, (len(ball.vertices), 3), dtype=np.uint8)
    mesh = trimesh.Trimesh(ball.vertices, ball.faces, vertex_colors=colors, process=False)
    points = trimesh.PointCloud(ball.vertices, colors=colors)
    if kind == "obj":
        return [_textured_obj(), {"ball.obj": mesh.export(file_type="obj").encode()}]
    if kind == "ply":
        made = [mesh.export(file_type="ply", encoding=name) for name in ("ascii", "binary")]
        made.append(points.export(file_type="ply"))
    elif kind == "stl":
        made = [mesh.export(file_type="stl"), mesh.export(file_type="stl_ascii").encode()]
    elif kind == "off":
        made = [mesh.export(file_type="off").encode()]
    elif kind == "glb":
        made = [mesh.export(file_type="glb"), _textured().export(file_type="glb")]
    elif kind == "gltf":
        return [_embedded_gltf()]
    else:
        rows = np.concatenate([ball.vertices, colors], axis=1).round(4)
        made = ["\n".join(" ".join(map(str, row)) for row in table).encode() for table in (rows[:, :3], rows)]
    return [{f"ball.{kind}": content} for content in made]


def _textured():
    import trimesh
    from PIL import Image

    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float)
    visual = trimesh.visual.TextureVisuals(uv=square[:, :2], image=Image.fromarray(picture()))
    return trimesh.Trimesh(square, [[0, 1, 2], [0, 2, 3]], visual=visual, process=False)


def _textured_obj() -> Seed:
    lines = ["mtllib a.mtl", "usemtl skin", "v 0 0 0", "v 1 0 0", "v 1 1 0", "v 0 1 0", "vt 0 0", "vt 1 0", "vt 1 1",
             "vt 0 1", "vn 0 0 1", "f 1/1/1 2/2/1 3/3/1", "f -4/-4/-1 -2/-2/-1 -1/-1/-1"]  # fmt: skip
    files = {"a.obj": "\n".join(lines).encode(), "a.mtl": b"newmtl skin\nKd 0.8 0.8 0.8\nmap_Kd a.png\n"}
    return files | {"a.png": encoded(picture(), "PNG")}


def _embedded_gltf() -> Seed:
    """A glTF whose buffers are in the JSON."""
    files = _textured().export(file_type="gltf")
    document = json.loads(files["model.gltf"])
    for entry in [*document["buffers"], *document.get("images", ())]:
        if entry.get("uri") in files:
            content = base64.b64encode(files[entry["uri"]]).decode()
            entry["uri"] = f"data:application/octet-stream;base64,{content}"
    return {"a.gltf": json.dumps(document).encode()}


def recordings() -> list[Seed]:
    """RGB-D frames: two depth maps with poses and colours; one in floating point without."""
    depth = np.full((HEIGHT, WIDTH), 500, np.uint16)
    depth[:, : WIDTH // 2] += np.arange(HEIGHT, dtype=np.uint16)[:, None]
    lens = {"fx": 60.0, "fy": 60.0, "cx": WIDTH / 2, "cy": HEIGHT / 2}
    frames = [{"depth": f"{k}.png", "color": "c.png", "camera_to_world": np.eye(4).tolist()} for k in range(2)]
    both = {"a.rgbd.json": json.dumps(lens | {"depth_unit_m": 0.001, "frames": frames}).encode()}
    both |= {f"{k}.png": encoded(depth, "PNG") for k in range(2)} | {"c.png": encoded(picture(), "PNG")}
    one = json.dumps(lens | {"depth_unit_m": 1, "frames": [{"depth": "d.npy"}]}).encode()
    return [both, {"b.rgbd.json": one, "d.npy": _npy(depth / np.float32(1000))}]


# -- requests ---------------------------------------------------------------------------------------------------------
def uploads() -> list[Seed]:
    """Videos in the formats that browsers record."""
    return [*videos("mp4"), *videos("webm")]


def page_states() -> list[Seed]:
    """The state of the page's sliders."""
    state = {
        "expression": {"jawOpen": 0.5}, "attributes": {"age": 10}, "skin": 3, "strength": 1.0,
        "pose": {"yaw": 10, "pitch": 0, "roll": 0}, "light": {"yaw": 10, "pitch": 5},
        "mix": {"identity": 0.5, "expression": 0, "albedo": 0, "detail": 0},
    }  # fmt: skip
    return [{"state.json": json.dumps(state).encode()}]


def edits() -> list[Seed]:
    """Arguments of `edit`, as the HTTP interface takes them."""
    first = {"age": 20, "gender": 0.1, "expression": {"jawOpen": 0.5, "smile": 0.3}, "rotation": [10, 0, 0]}
    second = {"age_years": 40, "targets": {"gender": 0.5}, "expression": "smile", "light": {"yaw": 30, "warmth": 0.2}}
    return [{"edits.json": json.dumps(one).encode()} for one in (first, second)]


def renderings() -> list[Seed]:
    """Arguments of `render`, as the HTTP interface takes them."""
    return [{"render.json": json.dumps({"size": 16, "mode": "color", "rotation": [10, 0, 0]}).encode()}]


def arrays() -> list[Seed]:
    """Descriptions of arrays that are given to `read_image`."""
    kinds = (
        ("uint8", [HEIGHT, WIDTH, 3], 0, 255),
        ("float32", [HEIGHT, WIDTH], 0, 1),
        ("uint16", [HEIGHT, WIDTH, 4], 0, 9),
    )
    return [{"array.json": json.dumps(dict(zip(("dtype", "shape", "low", "high"), kind))).encode()} for kind in kinds]
