"""The studio's JavaScript by itself, under node's test runner, against numbers that the library computes.

The tests are tests/studio/*.test.mjs. This file exports what they compare with into a folder: the packs and pictures
that a browser would get, and vertices, normals, colours and slopes as the library computes them.
"""

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_demo import result_of
from test_demo_tracking import track_of
from test_skin_detail import module_of

import faceverse as fv
from faceverse.graphics.lighting import directed_light, linear_from_srgb
from faceverse.graphics.mesh import tangents, vertex_normals
from faceverse.model.face_model import FaceModel
from faceverse.parts.binding import bind
from faceverse.parts.hair import MEAN_LUMINANCE, RANGES, mean_colour
from faceverse.parts.hair_choice import aged_hair
from faceverse.parts.occlusion import _LID_SHADOWS, _MOUTH_CURVE, INNER_LIPS, LID_EDGES
from faceverse.parts.part import DEFAULT_STYLES, Material, Part

pytest.importorskip("gradio")
view_files = pytest.importorskip("demo.view_files")

FILES = sorted((Path(__file__).parent / "studio").glob("*.test.mjs"))
EXPRESSION = {"jawOpen": 0.7, "mouthSmileLeft": 0.4, "browInnerUp": 1.0}
SMILE = {"mouthSmileLeft": 0.9, "mouthSmileRight": 0.9}


class Exported:
    """A folder of numbers for the tests in JavaScript."""

    def __init__(self, folder):
        self.folder = folder

    def write(self, name, content) -> str:
        """Writes bytes, or an array as float32 (uint8 and uint32 stay); returns the file's name."""
        if not isinstance(content, bytes):
            array = np.ascontiguousarray(content)
            content = (array if array.dtype in (np.uint8, np.uint32) else array.astype("<f4")).tobytes()
        (self.folder / name).write_bytes(content)
        return name


def amounts_within(head, share, seed):
    """Random amounts of all attributes within the model's range."""
    random, values = np.random.default_rng(seed), head.model.attributes(head.params)
    ranges = {a.name: (a.minimum - values[a.name], a.maximum - values[a.name]) for a in head.model.data.attributes}
    return {name: share * random.uniform(min(low, 0), max(high, 0)) for name, (low, high) in ranges.items()}


def blend_example(exported, name, model_file, head, amounts, expression, tolerance):
    """What `fv.edit` makes of a head, for the browser to make the same of its packs."""
    edited = fv.edit(head, **amounts, expression=expression)
    assert set(edited.warnings) == set(head.warnings), "the amounts are within the range"
    colours = (edited.albedo + 0.03) / (head.albedo + 0.03)
    return {
        "name": name,
        "model": model_file,
        "head": exported.write(f"{name}-head.bin", view_files.head_pack(head)),
        "attributes": amounts,
        "expression": expression,
        "tolerance": tolerance,
        "neutral": exported.write(f"{name}-neutral.f32", edited.neutral_vertices),
        "vertices": exported.write(f"{name}-vertices.f32", edited.vertices),
        "gains": exported.write(f"{name}-gains.f32", head.model.gain_of(edited.params.identity)),
        "colours": exported.write(f"{name}-colours.f32", colours),
    }


def surface_frames(exported, model_file, head_file, head, amounts):
    """Normals and tangents of an edited head, by corner; where a texture map is degenerate no tangent is defined."""
    model, edited = head.model, fv.edit(head, **amounts, expression=EXPRESSION)
    pairs, corner = np.unique(
        np.stack([model.faces.reshape(-1), model.uv_faces.reshape(-1)], axis=1), axis=0, return_inverse=True
    )
    corner = corner.reshape(-1, 3)
    torch = pytest.importorskip("torch")
    vertices = torch.from_numpy(np.asarray(edited.vertices, np.float64))
    normals = vertex_normals(vertices, torch.from_numpy(model.faces.astype(np.int64))).numpy()[pairs[:, 0]]
    positions, uv = vertices.numpy()[pairs[:, 0]], model.uv[pairs[:, 1]].astype(float)
    edges = uv[corner[:, 1:]] - uv[corner[:, :1]]
    area = np.abs(edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0])
    usable = np.zeros(len(pairs), np.uint8)
    usable[corner[area > 1e-9]] = 1
    return {
        "model": model_file,
        "head": head_file,
        "attributes": amounts,
        "expression": EXPRESSION,
        "normals": exported.write("normals.f32", normals),
        "tangents": exported.write("tangents.f32", tangents(positions, normals, uv, corner)),
        "usable": exported.write("usable.u8", usable),
    }


def wrinkle_examples(exported, toy_model):
    """Slopes that expressions add to the normal map, of the fitted expression and of each one of the atlas."""
    neutral = fv.edit(result_of(toy_model).replace(detail_module=module_of(toy_model)), detail_seed=5)
    names = list(toy_model.expression_names)
    fitted = fv.edit(neutral, expression={"jawOpen": 0.8, "cheekPuff": 0.6})
    rest = view_files.slopes(fv.edit(neutral, expression=np.zeros(len(names), np.float32)).normal_map)
    own = dict(zip(names, np.asarray(fitted.params.expression, float).tolist()))
    examples = []
    for name, expression in (("own", own), ("smile", view_files.WRINKLES[3]), ("brows", view_files.WRINKLES[1])):
        weights = np.array([expression.get(key, 0.0) for key in names], np.float32)
        slopes = view_files.slopes(fv.edit(fitted, expression=weights).normal_map) - rest
        slopes = view_files.resampled(slopes)
        examples.append(
            {"name": name, "expression": expression, "slopes": exported.write(f"wrinkles-{name}.f32", slopes)}
        )
    return {
        "atlas": exported.write("atlas.u8", view_files.wrinkle_atlas(fitted)),
        "tilePx": view_files.TILE_PX,
        "scale": view_files.WRINKLE_SCALE,
        "names": names,
        "wrinkles": list(view_files.WRINKLES),
        "fitted": own,
        "examples": examples,
    }


def bound_parts(model):
    """A part of each kind on a model's mesh: points near some of its triangles."""
    random, vertices, parts = np.random.default_rng(4), model.mean_vertices, []
    for slot, kind in (("tongue", "surface"), ("teeth_upper", "affine"), ("eye_left", "rigid")):
        triangle = model.faces[random.choice(len(model.faces), 40, replace=False)]
        weights = random.dirichlet((1, 1, 1), 40)
        points = np.einsum("pk,pkd->pd", weights, vertices[triangle]) + random.normal(0, 2e-3, (40, 3))
        faces = np.arange(39).reshape(-1, 3)
        binding = bind(points, vertices, triangle, weights, kind)
        material = Material(np.full((4, 4, 4), 255, np.uint8))
        parts.append(Part(f"{slot}/made", binding, faces, np.float32(random.random((40, 2))), faces, material))
    return parts


def part_example(exported, name, part, head):
    """A part on the neutral head and with its expression, which the browser makes of its pack."""
    used = np.unique(part.faces)
    placed = {"placed": part.binding.place(head.neutral_vertices)}
    placed["followed"] = part.binding.follow(head.vertices, head.neutral_vertices)
    files = {key: exported.write(f"{name}-{key}.f32", points[used]) for key, points in placed.items()}
    return {"name": name, "pack": exported.write(f"{name}.bin", view_files.part_pack(part))} | files


def part_examples(exported, toy_model, model, model_file):
    """Parts of all kinds on two heads, edges of lips and lids, and the faces that parts replace."""
    examples = []
    for key, owner, parts, changes in (
        ("toy", toy_model, bound_parts(toy_model), {}),
        ("open", model, model.parts.choose(DEFAULT_STYLES).values(), {"age": 30, "nose_width": 4}),
    ):
        head = fv.edit(fv.head(owner.random(3), owner), **changes, expression=EXPRESSION | {"eyeBlinkLeft": 0.6})
        examples.append(
            {
                "neutral": exported.write(f"{key}-part-neutral.f32", head.neutral_vertices),
                "vertices": exported.write(f"{key}-part-vertices.f32", head.vertices),
                "parts": [part_example(exported, part.name.replace("/", "-"), part, head) for part in parts],
            }
        )
    landmarks = model.fit_landmarks
    points = (head.vertices[head.faces[landmarks.triangle]] * landmarks.barycentric[..., None]).sum(1)
    openings = {"mouth": INNER_LIPS, **LID_EDGES}
    return {
        "model": model_file,
        "heads": examples,
        "edges": {
            name: [exported.write(f"{name}-{k}.f32", points[list(edge)]) for k, edge in enumerate(pair)]
            for name, pair in openings.items()
        },
        "mouthCurve": _MOUTH_CURVE,
        "lidShadows": _LID_SHADOWS,
        "head": exported.write("part-head.bin", view_files.head_pack(head)),
        "skin": exported.write("part-skin.u32", np.asarray(model.faces[head.is_skin], np.uint32)),
    }


def hair_examples(exported, model):
    """Hair of two styles with every number changed on a child's head, colours, and grey by age."""
    head = fv.edit(fv.head(model.random(3, hair=False), model, texture_size=8), age=-30, expression=EXPRESSION)
    warp = np.random.default_rng(0).normal(0, 0.006, head.params.hair.warp.shape).astype(np.float32)
    shape = {"length": 0.8, "volume_top": 1.3, "volume_sides": 1.1, "volume_back": 0.9, "fringe": 0.6, "wave": 0.4}
    styles = []
    for style in ("short02", "bob01"):
        worn = fv.edit(head, hair=style)
        plain = fv.head(model.neutral().replace(styles=worn.params.styles), model, texture_size=8)
        worn = worn.replace(params=worn.params.replace(hair=fv.Hair(warp=warp, **shape)))
        used = np.unique(worn.parts["hair"].faces)
        neutral = worn.replace(vertices=worn.neutral_vertices)
        files = {
            "pack": view_files.hair_pack(plain),
            "placed": worn.neutral_part_vertices["hair"][used],
            "followed": worn.part_vertices["hair"][used],
            "normals": neutral.hair_frames["hair"].normals[used],
        }
        example = {key: exported.write(f"hair-{style}-{key}", content) for key, content in files.items()}
        example["head"] = exported.write(f"hair-{style}-head.bin", view_files.head_pack(worn))
        styles.append({"name": style} | example)
    hair = fv.Hair((0x8F / 255, 0x70 / 255, 0x49 / 255), grey=0.3)
    return {
        "shape": shape,
        "styles": styles,
        "vertices": exported.write("hair-vertices.f32", head.vertices),
        "faces": exported.write("hair-faces.u32", np.asarray(model.faces, np.uint32)),
        "ranges": {name: list(limits) for name, limits in RANGES.items()},
        "tint": {"color": "#8f7049", "grey": 0.3, "mean": mean_colour(hair).tolist(), "luminance": MEAN_LUMINANCE},
        "grey": [
            {"grey": grey, "before": before, "after": after, "found": aged_hair(fv.Hair(grey=grey), before, after).grey}
            for grey, before, after in ((0.0, 30, 70), (0.4, 70, 40), (0.2, 15, 18), (0.9, 80, 20))
        ],
    }


def texture_example(exported, model_file, model):
    """Ratios of the library's textures before and after an edit, at the vertices of the face, in linear light."""
    torch = pytest.importorskip("torch")
    plain = fv.head(model.random(3), model, texture_size=256)
    older = fv.edit(plain, age=30)
    face = model.regions["face"]
    texels = np.clip((model.uv[face] * 256).astype(int), 0, 255)
    before, after = (
        linear_from_srgb(torch.from_numpy(result.texture[texels[:, 1], texels[:, 0]] / 255.0)).numpy()
        for result in (plain, older)
    )
    return {
        "model": model_file,
        "head": exported.write("plain-head.bin", view_files.head_pack(plain)),
        "attributes": {"age": 30},
        "vertices": exported.write("face.u32", np.asarray(face, np.uint32)),
        "ratios": exported.write("ratios.f32", after / before),
    }


def motion_example(exported, toy_model):
    track = track_of(toy_model)
    return {
        "pack": exported.write("motion.bin", view_files.motion_pack(track)),
        "times": exported.write("motion-times.f32", track.times_s),
        "angles": exported.write("motion-angles.f32", track.euler_deg()),
        "expression": exported.write("motion-expression.f32", track.expression),
        "translation": np.median(track.translation, axis=0).tolist(),
    }


def light_examples():
    """Directions of the library's directed light: band 1 of its harmonics, whose order is y, z, x."""
    examples = []
    for yaw, pitch in ((0.0, 0.0), (60.0, 0.0), (-27.0, 32.0), (150.0, -45.0)):
        y, z, x = directed_light(yaw, pitch).numpy()[1:4, 0]
        direction = np.array([x, y, z]) / np.linalg.norm([x, y, z])
        examples.append({"yaw": yaw, "pitch": pitch, "direction": direction.tolist()})
    return examples


def correctives(model):
    """Corrective shapes of two pairs, one of which EXPRESSION contains."""
    names, random = list(model.expression_names), np.random.default_rng(4)
    jaw, smile, tongue = (names.index(name) for name in ("jawOpen", "mouthSmileLeft", "tongueOut"))
    pairs = [[jaw, smile], [jaw, tongue]]
    modes = 0.01 * random.standard_normal((2, len(model.mean_vertices), 3))
    return {"corrective_pairs": np.array(pairs), "corrective_modes": modes.astype(np.float32)}


@pytest.fixture(scope="module")
def numbers(model, toy_model, tmp_path_factory):
    """The folder with everything that the tests in JavaScript read."""
    exported = Exported(tmp_path_factory.mktemp("numbers"))
    open_file = exported.write("open-model.bin", view_files.model_pack(model))
    toy_file = exported.write("toy-model.bin", view_files.model_pack(toy_model))
    toy_head = result_of(toy_model)
    open_head = fv.edit(fv.head(model.random(3), model), expression=np.zeros(len(model.expression_names), np.float32))
    toy_amounts = amounts_within(toy_head, 0.3, 2)
    examples = [
        blend_example(exported, "toy", toy_file, toy_head, toy_amounts, EXPRESSION, 5e-5),
        blend_example(exported, "age", open_file, open_head, {"age": 25}, EXPRESSION, 1.5e-4),
        blend_example(
            exported, "shape", open_file, open_head, {"gender": -0.4, "nose_width": 4, "chin_height": -6}, SMILE, 1.5e-4
        ),
        blend_example(exported, "all", open_file, open_head, amounts_within(open_head, 0.5, 2), EXPRESSION, 1.5e-4),
    ]
    corrected = FaceModel(replace(toy_model.data, **correctives(toy_model)))
    corrected_file = exported.write("corrected-model.bin", view_files.model_pack(corrected))
    corrected_head = fv.edit(fv.head(corrected.random(1), corrected), expression={"jawOpen": 0.0})
    examples.append(blend_example(exported, "pairs", corrected_file, corrected_head, {}, EXPRESSION, 5e-5))
    content = {
        "blends": examples,
        "frames": surface_frames(exported, toy_file, examples[0]["head"], toy_head, toy_amounts),
        "modes": {
            "model": toy_file,
            "head": examples[0]["head"],
            "modes": exported.write("modes.f32", toy_model.expression_modes),
        },
        "wrinkles": wrinkle_examples(exported, toy_model),
        "texture": texture_example(exported, open_file, model),
        "motion": motion_example(exported, toy_model),
        "lights": light_examples(),
        "parts": part_examples(exported, toy_model, model, open_file),
        "hair": hair_examples(exported, model),
    }
    (exported.folder / "numbers.json").write_text(json.dumps(content))
    return exported.folder


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name.removesuffix(".test.mjs"))
def test_javascript(file, numbers):
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    environment = os.environ | {"FACEVERSE_STUDIO_NUMBERS": str(numbers), "NODE_OPTIONS": ""}
    run = subprocess.run(
        [node, "--test", "--test-reporter=spec", str(file)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    assert "pass 0" not in run.stdout, "the file has tests"
