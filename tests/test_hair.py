"""Hair styles: parts that follow the skull, colour and shape as a value, and the file that holds them."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

import faceverse as fv
from faceverse.graphics.lighting import srgb_from_linear
from faceverse.parts.hair import MEAN_LUMINANCE, Hair, hair_entry, hair_of_file, mean_colour, tinted, with_hair
from faceverse.parts.hair_clearance import CLEARANCE_M, HeadSurface
from faceverse.parts.hair_shape import CONTROL_POINTS, hair_basis, hair_vertices, mirrored_part
from faceverse.parts.hair_styles import HAIR_STYLES, hair_slots, with_hair_style
from faceverse.result import head_from_params
from faceverse.weights import HAIR_FILE, find_companion_file

MADE = tuple(name for name, style in HAIR_STYLES.items() if style.mesh == name)


def head_with(model, style, hair=None, seed=1, **attributes):
    params = model.random(seed, **attributes)
    params = params.replace(styles=with_hair_style(params.styles, style), hair=hair or Hair())
    return head_from_params(model, params, fv.Camera(900, (128, 128), (256, 256)), texture_size=64)


# --------------------------------------------------------------------------------------------------------------- value


def test_hair_comes_back_from_json_exactly():
    warp = np.random.default_rng(0).normal(0, 0.01, CONTROL_POINTS.shape).astype(np.float32)
    hair = Hair((0.1, 1 / 3, 0.9), (0.5, 0.25, 0.0), 0.2, 0.7, 1.2, 0.8, 1.1, 0.5, 0.3, True, warp)
    assert hair_of_file(json.loads(json.dumps(hair_entry(hair)))) == hair
    assert hair_of_file(json.loads(json.dumps(hair_entry(Hair())))) == Hair() == hair_of_file(None)
    assert hair.replace(length=0.9) != hair


@pytest.mark.parametrize(
    "change, message",
    [
        ({"color": (0.5, 0.5)}, "color of hair is .* three numbers"),
        ({"tip_color": (0.5, 0.5, 2)}, "tip_color of hair is .* three numbers"),
        ({"length": 9.0}, "length of hair is 9.0; expected is a number from 0.2 to 2.0"),
        ({"wave": float("nan")}, "wave of hair is nan"),
        ({"warp": np.zeros((2, 3))}, "warp of hair has the shape"),
        ({"mirrored": 1}, "mirrored is 1"),
    ],
)
def test_wrong_hair_is_refused_in_one_line(change, message):
    with pytest.raises(fv.ParameterError, match=message):
        Hair(**change)
    entry = hair_entry(Hair()) | {key: np.asarray(value).tolist() for key, value in change.items()}
    with pytest.raises(ValueError):
        hair_of_file(entry)


@pytest.mark.parametrize("entry", [[], {"colour": 1}, {"color": None}, {"warp": "x"}])
def test_a_damaged_entry_is_refused(entry):
    with pytest.raises(ValueError):
        hair_of_file(entry)


def test_a_tint_gives_the_mean_colour_that_was_asked_for():
    grey = np.random.default_rng(0).uniform(0.3, 1.7, (64, 64)) * MEAN_LUMINANCE
    level = (srgb_from_linear(torch.from_numpy(grey)).numpy() * 255 + 0.5).astype(np.uint8)
    neutral = np.stack([level] * 3 + [np.full_like(level, 200)], axis=2)
    for rgb in ((0.23, 0.15, 0.10), (0.55, 0.42, 0.25), (0.05, 0.05, 0.05)):
        colour = mean_colour(Hair(rgb))
        texture = tinted(neutral, colour)
        linear = np.where(texture <= 10, texture / 255 / 12.92, ((texture / 255 + 0.055) / 1.055) ** 2.4)
        assert np.abs(linear[..., :3].mean((0, 1)) / colour - 1).max() < 0.04
        assert (texture[..., 3] == 200).all()


@pytest.mark.parametrize("style", ["long01", "bob01", "afro01"])
def test_tips_have_a_colour_of_their_own(model, style):
    head = head_with(model, style, Hair((0.1, 0.1, 0.1), tip_color=(0.9, 0.2, 0.2)))
    part = head.parts["hair"]
    texture, height = part.material.texture, head.part_vertices["hair"][part.faces].mean(1)[:, 1]
    column, row = np.clip(part.uv[part.uv_faces].mean(1) * texture.shape[1::-1], 0, 511).astype(int).T
    redness = texture[row, column, 0].astype(float) - texture[row, column, 2]
    if style != "afro01":
        assert redness[height < np.quantile(height, 0.1)].mean() > 80
        assert redness[height > np.quantile(height, 0.9)].mean() < 30
    plain = head_with(model, style, Hair((0.1, 0.1, 0.1))).parts["hair"].material.texture
    assert np.ptp(plain[..., :3].astype(int), axis=2).max() <= 1 and np.array_equal(plain[..., 3], texture[..., 3])
    assert redness.max() > 100


def test_grey_comes_strand_by_strand(model):
    def spread(grey):
        part = model.parts.get("hair", "short02")
        texture = with_hair({"hair": part}, Hair((0.1, 0.06, 0.04), grey=grey))["hair"].material.texture
        return texture[texture[..., 3] > 200][:, :3].astype(float)

    none, half, all_grey = spread(0), spread(0.5), spread(1)
    assert none.mean() + 20 < half.mean() < all_grey.mean() - 20
    assert half.std() > 1.1 * none.std()


# -------------------------------------------------------------------------------------------------------------- styles


def test_there_is_a_choice_of_styles(model):
    assert len(HAIR_STYLES) >= 24
    made = {style.mesh for style in HAIR_STYLES.values()} - {None}
    assert {f"hair/{mesh}" for mesh in made} <= set(model.parts.parts)
    shapes = [(style.scalp, style.mesh, tuple(sorted(style.shape.items()))) for style in HAIR_STYLES.values()]
    assert len(set(shapes)) == len(shapes)



def test_styles_are_bald_or_hold_parts_that_the_library_has(model):
    assert hair_slots("bald") == {}
    for name in HAIR_STYLES:
        assert set(model.parts.choose(hair_slots(name))) == set(hair_slots(name))
    assert not {"scalp", "hair"} & set(model.neutral().styles)


def test_the_file_is_small_and_tells_where_it_comes_from(model):
    assert find_companion_file(HAIR_FILE).stat().st_size < 10_000_000
    assert "CC0" in model.parts.info["hair_licence"] and len(model.parts.info["hair_sha256"]) == 20


def test_weights_of_control_points_are_smooth_and_add_up_to_one(model):
    part = model.parts.get("hair", "bob02")
    basis = hair_basis(part)
    assert basis.shape == (len(part.binding.triangle), len(CONTROL_POINTS)) and np.abs(basis.sum(1) - 1).max() < 1e-5
    edges = part.faces[:, :2]
    apart = np.linalg.norm(part.binding.made[edges[:, 0]] - part.binding.made[edges[:, 1]], axis=1)
    assert (np.abs(basis[edges[:, 0]] - basis[edges[:, 1]]).sum(1) < 0.002 + 60 * apart).all()


def test_hair_does_not_follow_jaw_and_brows(model):
    still = head_with(model, "long01")
    moving = fv.edit(still, expression={"jawOpen": 1, "browInnerUp": 1})
    assert np.abs(moving.part_vertices["hair"] - still.part_vertices["hair"]).max() < 2e-4


def test_a_mirrored_style_has_its_parting_on_the_other_side(model):
    one = head_with(model, "bob02")
    two = head_with(model, "bob02", Hair(mirrored=True))
    assert np.abs(two.part_vertices["hair"][:, 0].mean() + one.part_vertices["hair"][:, 0].mean()) < 4e-3
    assert abs(one.part_vertices["hair"][:, 0].mean()) > 4e-3
    normals = [np.cross(*np.diff(head.part_vertices["hair"][head.parts["hair"].faces], axis=1).swapaxes(0, 1))
               for head in (one, two)]  # fmt: skip
    outward = [np.einsum("fd,fd->f", n, h.part_vertices["hair"][h.parts["hair"].faces[:, 0]] - (0, 0.02, -0.02)).mean()
               for n, h in zip(normals, (one, two))]  # fmt: skip
    assert outward[0] * outward[1] > 0


def test_hair_is_stored_with_a_head(model, tmp_path):
    head = head_with(model, "short02", Hair((0.6, 0.5, 0.3), length=0.8, mirrored=True))
    fv.export(head, tmp_path / "head.json")
    again = fv.load_result(tmp_path / "head.json")
    assert again.params.hair == head.params.hair and again.params.styles == head.params.styles
    assert np.array_equal(again.part_vertices["hair"], head.part_vertices["hair"])


def test_a_blend_has_the_hair_of_the_nearer_head(model):
    one, two = head_with(model, "short02"), head_with(model, "bob02", Hair((0.8, 0.6, 0.3)), seed=2)
    for share, nearer in ((0.3, one), (0.7, two)):
        mixed = fv.blend(one, two, identity=share)
        assert mixed.params.styles == nearer.params.styles
        assert mixed.params.hair.replace(color=(0, 0, 0)) == nearer.params.hair.replace(color=(0, 0, 0))


def test_every_field_of_hair_is_described():
    text = Hair.__doc__
    assert all(f.name in text for f in fields(Hair))


# --------------------------------------------------------------------------------------------------------------- shape

EXTREMES = (
    Hair(),
    Hair(length=0.2, volume_top=0, volume_sides=0, volume_back=0, fringe=0, wave=1),
    Hair(length=2, volume_top=3, volume_sides=3, volume_back=3, wave=1, mirrored=True),
)


def test_no_hair_enters_the_head(model):
    styles = [name for name, style in HAIR_STYLES.items() if style.mesh]
    for seed in range(20):
        head = head_with(model, styles[0], seed=seed, **({"age": 6 + seed} if seed % 3 == 0 else {}))
        surface = HeadSurface.of(head.neutral_vertices, head.faces, model.regions)
        for style in styles[seed % 3 :: 3]:
            hair = EXTREMES[seed % len(EXTREMES)]
            part = mirrored_part(model.parts.get("hair", style)) if hair.mirrored else model.parts.get("hair", style)
            placed = hair_vertices(part, hair, head.neutral_vertices, surface)
            assert surface.distance(placed).min() > 0.5 * CLEARANCE_M, (seed, style)


def test_hair_that_is_not_kept_out_enters_the_head(model):
    head = head_with(model, "short02", EXTREMES[1])
    part = model.parts.get("hair", "short02")
    surface = HeadSurface.of(head.neutral_vertices, head.faces, model.regions)
    free = hair_vertices(part, head.params.hair, head.neutral_vertices)
    assert surface.distance(free).min() < 0


@pytest.mark.parametrize("style", MADE)
def test_hair_leaves_the_eyes_free(model, style):
    for hair in (Hair(), Hair(mirrored=True, fringe=0.5)):
        head = head_with(model, style, hair, seed=4)
        assert covered_share(head, head.part_vertices["hair"]) == 0
    if style in ("bob01", "bob02", "short03"):
        head = head_with(model, style, Hair(fringe=2), seed=4)
        assert covered_share(head, head.part_vertices["hair"]) > 0.1


def covered_share(head, vertices):
    """Share of the eyeballs' middles and surroundings that hair triangles cover in a view from the front."""
    regions, faces = head.model.regions, head.parts["hair"].faces
    eyes = [head.vertices[regions[f"eyeball_{side}"]].mean(0) for side in ("left", "right")]
    around = np.stack(np.meshgrid(np.linspace(-0.012, 0.012, 7), np.linspace(-0.004, 0.004, 3)), -1).reshape(-1, 2)
    places = np.concatenate([eye[:2] + around for eye in eyes])
    a, b, c = vertices[faces][..., :2].swapaxes(0, 1)
    before = vertices[faces][..., 2].min(1) > eyes[0][2]

    def cross(u, v):
        return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]

    signs = [cross(q - p, places[:, None] - p) > 0 for p, q in ((a, b), (b, c), (c, a))]
    inside = (signs[0] == signs[1]) & (signs[1] == signs[2]) & before
    return inside.any(axis=1).mean()


@pytest.mark.parametrize("style", ["short02", "bob02"])
def test_a_short_fringe_lies_down_on_the_head(model, style):
    neutral = head_with(model, style).neutral_vertices
    surface = HeadSurface.of(neutral, model.faces, model.regions)
    part = model.parts.get("hair", style)
    long, short = (hair_vertices(part, Hair(fringe=fringe), neutral, surface) for fringe in (1.0, 0.5))
    raised = short[:, 1] > long[:, 1] + 0.005
    assert raised.sum() > 20
    # It rises to where the forehead is farther back, and follows it.
    assert (short[raised, 2] < long[raised, 2]).mean() > 0.9
    assert (surface.distance(short[raised]) < surface.distance(long[raised]) + 0.012).mean() > 0.9


def test_shape_parameters_do_what_they_say(model):
    def span(style, **values):
        vertices = head_with(model, style, Hair(**values)).neutral_part_vertices["hair"]
        return vertices.max(0) - vertices.min(0), vertices.min(0), vertices.max(0)

    size, low, high = span("bob02")
    assert span("bob02", length=0.6)[1][1] > low[1] + 0.02 and span("bob02", length=1.5)[1][1] < low[1] - 0.02
    assert span("bob02", volume_top=2)[2][1] > high[1] + 0.004
    assert span("bob02", volume_sides=2)[0][0] > size[0] + 0.01
    assert span("bob02", volume_back=2)[1][2] < low[2] - 0.004
    straight, curly = (head_with(model, "long01", Hair(wave=wave)).neutral_part_vertices["hair"] for wave in (0, 1))
    moved = np.linalg.norm(curly - straight, axis=1)
    assert 0.004 < moved.mean() < 0.02


def test_control_points_move_hair_smoothly(model):
    warp = np.zeros(CONTROL_POINTS.shape, np.float32)
    warp[:, 1] = 0.01
    part, neutral = model.parts.get("hair", "long01"), model.mean_vertices
    still, moved = (hair_vertices(part, hair, neutral) for hair in (Hair(), Hair(warp=warp)))
    assert np.abs(moved - still - (0, 0.01, 0)).max() < 1e-6
    warp[1:] = 0
    moved = hair_vertices(part, Hair(warp=warp), neutral)
    assert 0.002 < np.abs(moved - still).max() < 0.01 and np.abs(moved - still)[still[:, 1] < 0].max() < 1e-3


# ------------------------------------------------------------------------------------------------------------- shading


def test_normals_of_hair_point_out_of_it_and_strands_lie_across_them(model):
    head = head_with(model, "bob02")
    frame, vertices = head.hair_frames["hair"], head.part_vertices["hair"]
    middle = head.vertices[head.parts["hair"].binding.reference].mean(0)
    away = vertices - middle
    above = away[:, 1] > 0
    assert (np.einsum("pd,pd->p", frame.normals, away)[above] > 0).all()
    for vectors in (frame.normals, frame.tangents):
        assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-4
    beside = (np.abs(vertices[:, 1]) < 0.03) & (np.abs(vertices[:, 0]) > 0.07)
    assert np.abs(frame.tangents[beside, 1]).mean() > 0.8  # a bob hangs down at the sides


def test_strands_follow_the_stripes_of_a_texture(model):
    part = model.parts.get("scalp", "full")
    head = head_with(model, "buzz")
    frame = head.hair_frames["scalp"]
    vertices = head.part_vertices["scalp"]
    back = (vertices[:, 2] < -0.05) & (np.abs(vertices[:, 0]) < 0.03) & (vertices[:, 1] < 0.03)
    assert back.sum() > 20 and len(part.binding.triangle) == len(vertices)
    assert np.abs(frame.tangents[back, 1]).mean() > 0.8  # hairs grow down at the back of the head


def test_hair_darkens_the_skin_below_and_its_own_inside(model):
    bald, head = head_with(model, "bald"), head_with(model, "bob02")
    scalp = model.regions["scalp"]
    assert (bald.skin_occlusion[scalp] == 1).all() and head.skin_occlusion[scalp].mean() < 0.9
    chin = np.abs(head.vertices - (0, -0.08, 0.09)).sum(1).argmin()
    assert head.skin_occlusion[chin] > 0.97
    light = head.part_occlusion["hair"]
    depth = np.linalg.norm(head.part_vertices["hair"] - head.part_vertices["hair"].mean(0), axis=1)
    assert light.min() > 0.2 and light.max() == 1 and light[depth > np.quantile(depth, 0.9)].mean() > light.mean()


def test_pictures_show_hair_in_its_colour(model):
    pictures = {}
    for name, colour in (("dark", (0.1, 0.07, 0.05)), ("red", (0.55, 0.22, 0.1))):
        head = head_with(model, "short02", Hair(colour))
        pictures[name] = fv.render(head, 96, "albedo", supersample=1)
    bald = fv.render(head_with(model, "bald"), 96, "albedo", supersample=1)
    changed = np.abs(pictures["dark"].rgb.astype(int) - pictures["red"].rgb).sum(2) > 30
    assert 0.08 < changed.mean() < 0.5
    mean = pictures["red"].rgb[changed].mean(0) / 255
    assert np.abs(mean - (0.55, 0.22, 0.1)).max() < 0.08
    assert pictures["red"].mask.sum() > bald.mask.sum()


# ------------------------------------------------------------------------------------------------------------ training


def test_paintings_lose_colour_light_and_watermark():
    from faceverse.training.hair_texture import clean_alpha, grey_texture

    stripes = np.where(np.arange(64) % 6 < 3, 0.6, 1.4)
    ring = np.linspace(0.1, 0.5, 64)[:, None]  # light that was painted
    painting = np.zeros((64, 64, 4), np.uint8)
    painting[..., :3] = (255 * np.clip(ring * stripes, 0, 1))[..., None] * np.array([1, 0.6, 0.3])
    painting[..., 3] = 255
    uv = np.array([[0, 0], [0.7, 0], [0.7, 1], [0, 1]])
    texture = grey_texture(clean_alpha(painting, uv, np.array([[0, 1, 2], [0, 2, 3]])))
    assert (texture[:, 52:, 3] == 0).all() and (texture[:, :44, 3] == 255).all()
    assert (texture[..., 0] == texture[..., 2]).all()
    level = (texture[..., 0] / 255.0) ** 2.2
    assert abs(level[:, :44].mean() - MEAN_LUMINANCE) < 0.03
    rows, columns = level[4:-4, 4:40].mean(1), level[4:-4, 4:40].mean(0)
    assert rows.max() / rows.min() < 2  # of 20 in the painting
    assert columns.max() / columns.min() > 2


def test_hairs_of_the_scalp_are_painted_inside_the_hair_line_and_alike_each_time():
    from faceverse.training.scalp import Shell, paint_hairs

    u, v = np.meshgrid(np.linspace(0, 1, 9), np.linspace(0, 1, 9))
    uv = np.stack([u, v], axis=-1).reshape(-1, 2)
    nothing = np.zeros((len(uv), 3))
    shell = Shell(nothing, nothing, np.zeros((0, 3), int), uv, {}, np.zeros(len(uv)))
    texture = paint_hairs(shell, np.where(uv[:, 0] < 0.5, 0.05, -0.05))
    size = len(texture)
    alpha = texture[..., 3].astype(float)
    inside, outside = alpha[size // 4 : -size // 4, size // 4 : size // 3], alpha[:, -size // 3 :]
    assert inside.mean() > 120 and outside.max() == 0
    assert np.array_equal(texture, paint_hairs(shell, np.where(uv[:, 0] < 0.5, 0.05, -0.05)))


def test_a_bun_is_closed_and_sits_on_the_head():
    from faceverse.training.hair_pieces import HairMesh, bun, without_tail

    centre, axis = np.array([0, 0.8, -0.05]), np.array([0.0, 0.0, -1.0])
    made = bun(centre, axis, 0.035)
    away = made.vertices - centre
    assert np.abs(away).max() < 0.06 and (away @ axis).max() > 0.03
    assert made.uv.min() > 0 and made.uv.max() < 1 and made.faces.max() == len(made.vertices) - 1
    head = np.array([[0, 0.8, 0], [0.01, 0.8, 0], [0, 0.81, 0]])
    tail = head - (0, 0.3, 0)
    faces = np.array([[0, 1, 2], [3, 4, 5]])
    both = HairMesh(np.concatenate([head, tail]), np.zeros((6, 2)), faces, faces)
    assert np.array_equal(without_tail(both).vertices, head)


def test_split_meshes_keep_their_points_and_become_round():
    from faceverse.training.hair import _split

    angle = np.linspace(0, np.pi, 7)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points = np.concatenate([np.column_stack([ring, np.full(7, z)]) for z in (0.0, 1.0)])
    row = np.arange(6)
    faces = np.concatenate([np.stack([row, row + 1, row + 8], 1), np.stack([row, row + 8, row + 7], 1)])
    normals = points * (1, 1, 0)
    flat, round_ = (_split(points, faces, given)[0] for given in (None, normals))
    assert np.array_equal(flat[:14], points) and np.array_equal(round_[:14], points)
    off = [np.abs(np.linalg.norm(made[:, :2], axis=1) - 1).max() for made in (flat, round_)]
    assert off[1] < 0.5 * off[0]


def test_files_with_other_reference_vertices_are_checked(model, tmp_path):
    from faceverse.parts.file import read_parts, write_parts
    from faceverse.parts.part import PartLibrary

    part = model.parts.get("hair", "short04")
    path = write_parts(PartLibrary({"hair/short04": part}, "mesh", {}), tmp_path / "hair.safetensors")
    again = read_parts(path).parts["hair/short04"].binding
    assert np.array_equal(again.reference, part.binding.reference) and len(again.reference) == len(again.reference_m)
    for wrong in (part.binding.reference[::-1], part.binding.reference + 1):
        broken = replace(part, binding=replace(part.binding, reference=wrong))
        path = write_parts(PartLibrary({"hair/short04": broken}, "mesh", {}), tmp_path / "broken.safetensors")
        with pytest.raises(fv.WeightsError, match="follows vertices that are not in order"):
            read_parts(path)


@pytest.mark.parametrize("style", ["long01", "bob02"])
def test_hair_that_covers_the_ears_stays_outside_of_large_ones(model, style):
    """Seed 3 has ears that stand out."""
    head = head_with(model, style, seed=3, hair=Hair(volume_sides=0.5))
    ears, hair = head.neutral_vertices[model.regions["ears"]], head.neutral_part_vertices["hair"]
    for side in (1, -1):
        ear = ears[side * ears[:, 0] > 0]
        low, high = ear.min(0), ear.max(0)
        middle = (low + high)[1:] / 2
        beside = (np.abs(hair[:, 1:] - middle) < 0.5 * (high - low)[1:]).all(1) & (side * hair[:, 0] > 0.07)
        outside = side * hair[beside, 0] > (side * ear[:, 0]).max()
        assert len(outside) > 20 and outside.mean() > 0.9  # but for the innermost cards
