"""Pictures of a head: values against formulas, gradients against differences, views, modes and messages."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion

from faceverse.detail.displacement import TangentFrame, detailed_normals, normal_map
from faceverse.errors import ParameterError
from faceverse.graphics.camera import Camera, default_camera, project, rotation_from_euler_deg, transform
from faceverse.graphics.lighting import ambient_light, linear_from_srgb, srgb_from_linear
from faceverse.model.face_model import FaceModel, Landmarks, ModelData
from faceverse.rendering import drawing
from faceverse.rendering.render import head_box_px, overlay, overview, render, render_head, rotation_matrix, turntable
from faceverse.result import FitResult, with_params

MODES = tuple(drawing.RENDER_MODES)
SKIN = (200, 120, 90)


def make_result(model, texture=SKIN, **params):
    if isinstance(texture, tuple):
        texture = np.tile(np.uint8(texture), (64, 64, 1))
    confidence = np.zeros(texture.shape[:2], np.uint8)
    result = FitResult(model, model.neutral(), default_camera((240, 320)), None, None, None, texture, confidence)
    return with_params(result, model.neutral().replace(**params))


@pytest.fixture
def head(toy_model):
    pose = rotation_from_euler_deg(15, 5, 3).numpy()
    return make_result(toy_model, rotation=pose, translation=np.float32([0.02, -0.01, -0.7]))


def sphere(rows=40, columns=80, radius=0.1):
    """Vertices (V, 3) and faces (F, 3) of a sphere about the origin."""
    polar, around = np.meshgrid(np.linspace(0, np.pi, rows + 1), np.linspace(0, 2 * np.pi, columns + 1), indexing="ij")
    x, z = np.sin(polar) * np.sin(around), np.sin(polar) * np.cos(around)
    vertices = radius * np.stack([x, np.cos(polar), z], axis=-1).reshape(-1, 3)
    corner = (np.arange(rows)[:, None] * (columns + 1) + np.arange(columns)).reshape(-1)
    a, b, c, d = corner, corner + 1, corner + columns + 2, corner + columns + 1
    faces = np.concatenate([np.stack([a, d, c], 1), np.stack([a, c, b], 1)])
    return torch.from_numpy(vertices), torch.from_numpy(faces)


def plane_result(normal_map):
    """A square of 20 cm that faces the camera, its texture upright."""
    vertices = np.float32([[-0.1, 0.1, 0], [0.1, 0.1, 0], [0.1, -0.1, 0], [-0.1, -0.1, 0]])
    faces = np.array([[0, 3, 2], [0, 2, 1]])
    modes = np.zeros((1, 4, 3), np.float32)
    uv = np.float32([[0, 0], [1, 0], [1, 1], [0, 1]])
    landmarks = Landmarks(np.zeros(1, np.int64), np.float32([[1, 0, 0]]), np.ones(1, np.float32))
    grey = np.full((4, 3), 0.5, np.float32)
    data = ModelData(vertices, modes, modes, grey, modes, faces, uv, faces, ("a",), {}, landmarks, landmarks)
    return make_result(FaceModel(data)).replace(normal_map=normal_map)


# ------------------------------------------------------------------------------------------------ differentiable core


def test_sphere_has_the_depth_normals_and_light_of_the_formula():
    vertices, faces = sphere(120, 240)
    camera = Camera(200.0, (32.0, 32.0), (64, 64))
    light = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 9, 3)))
    # Turning a sphere changes nothing in its picture, as long as normals and light are both in camera space.
    pose, translation = rotation_from_euler_deg(40, 20, 10)[None].double(), torch.tensor([[0, 0, -0.6]]).double()
    albedo = torch.full((1, len(vertices), 3), 0.5).double()
    shaded = render_head(vertices[None], albedo, faces, pose, translation, light, camera)
    i, j = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    ray = torch.stack([(j - 32) / 200, (32 - i) / 200, -torch.ones_like(i)], dim=-1).double()
    # Where the ray first meets the sphere |t ray - centre| = 0.1.
    a, b, c = (ray**2).sum(-1), 0.6 * -ray[..., 2], 0.36 - 0.01
    depth = (b - (b**2 - a * c).clamp_min(0).sqrt()) / a
    normal = (ray * depth[..., None] - translation[0]) / 0.1
    inner = (b**2 - a * c) > 0.001
    assert inner.sum() > 2000
    assert bool(shaded.mask[0][inner].all())
    torch.testing.assert_close(shaded.depth[0][inner], depth[inner], atol=1e-4, rtol=0)
    torch.testing.assert_close(shaded.normals_cam[0][inner], normal[inner], atol=2e-2, rtol=0)
    x, y, z = normal[inner].unbind(-1)
    terms = [0 * x + 0.282095, 0.325735 * y, 0.325735 * z, 0.325735 * x, 0.273137 * x * y, 0.273137 * y * z]
    terms += [0.078848 * (3 * z * z - 1), 0.273137 * x * z, 0.1365685 * (x * x - y * y)]
    expected = 0.5 * torch.stack(terms, dim=-1) @ light[0]
    torch.testing.assert_close(shaded.rgb[0][inner], expected, atol=2e-2, rtol=0)


def test_gradients_agree_with_differences(toy_model):
    """Of every argument, at pixels whose triangle the step does not change (the outline has no gradient)."""
    generator = np.random.default_rng(3)
    model, faces = toy_model, torch.from_numpy(toy_model.faces)
    camera = Camera(60.0, (16.0, 16.0), (32, 32))
    weights = torch.from_numpy(generator.normal(size=(2, 32, 32, 3)))
    start = {
        "vertices": torch.from_numpy(np.repeat(model.mean_vertices[None], 2, 0)).double(),
        "albedo": torch.from_numpy(model.mean_albedo)[None].double(),
        "rotation": torch.stack([rotation_from_euler_deg(yaw, 4, 2) for yaw in (0, 20)]).double(),
        "translation": torch.tensor([[0, 0, -0.5], [0.01, 0.02, -0.6]]).double(),
        "light": ambient_light()[None].double() + 0.2 * torch.from_numpy(generator.normal(size=(1, 9, 3))),
    }

    def shade(arguments):
        return render_head(**arguments, faces=faces, camera=camera)

    for name in start:
        direction = torch.from_numpy(generator.normal(size=start[name].shape))
        step = 1e-6 * (0.1 if name == "vertices" else 1)
        ends = [shade({**start, name: start[name] + sign * step * direction}) for sign in (1, -1)]
        moving = {**start, name: start[name].clone().requires_grad_()}
        middle = shade(moving)
        same = (middle.fragments.triangle == ends[0].fragments.triangle) & (
            middle.fragments.triangle == ends[1].fragments.triangle
        )
        assert same.float().mean() > 0.99
        kept = weights * same[..., None]
        (middle.rgb * kept).sum().backward()
        analytic = float((moving[name].grad * direction).sum())
        numeric = float(((ends[0].rgb - ends[1].rgb) * kept).sum()) / (2 * step)
        assert analytic == pytest.approx(numeric, rel=1e-4), name
        assert abs(analytic) > 1e-3, name


def test_a_batch_is_its_members(toy_model):
    vertices = torch.from_numpy(toy_model.mean_vertices)[None] * torch.tensor([1.0, 0.9])[:, None, None]
    albedo, faces = torch.from_numpy(toy_model.mean_albedo)[None], torch.from_numpy(toy_model.faces)
    pose = torch.stack([torch.eye(3), rotation_from_euler_deg(30)])
    translation, light = torch.tensor([[0, 0, -0.6], [0.02, 0, -0.7]]), ambient_light()[None]
    camera = Camera(60.0, (20.0, 16.0), (32, 40))
    both = render_head(vertices, albedo, faces, pose, translation, light, camera)
    assert both.rgb.shape == (2, 32, 40, 3) and both.depth.shape == both.mask.shape == (2, 32, 40)
    for n in range(2):
        rows = slice(n, n + 1)
        one = render_head(vertices[rows], albedo, faces, pose[rows], translation[rows], light, camera)
        torch.testing.assert_close(one.rgb[0], both.rgb[n])
        assert torch.equal(one.mask[0], both.mask[n])


# --------------------------------------------------------------------------------------------------------------- modes


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_draws_the_same_head(head, mode):
    picture = render(head, (96, 128), mode)
    assert picture.rgb.shape == (96, 128, 3) and picture.rgb.dtype == np.uint8
    assert picture.mask.shape == (96, 128) and picture.mask.dtype == bool
    assert picture.depth.shape == (96, 128) and picture.depth.dtype == np.float32
    assert 0.1 < picture.mask.mean() < 0.9
    assert np.array_equal(picture.mask, picture.depth > 0)
    assert 0.5 < picture.depth[picture.mask].min() < picture.depth.max() < 0.9
    assert (picture.rgb[:2] == 255).all()  # air above the head
    inner = binary_erosion(picture.mask, iterations=2)
    assert picture.rgb[inner].std() > (0 if mode in ("color", "albedo") else 10)
    again = render(head, (96, 128), mode)
    assert np.array_equal(picture.rgb, again.rgb) and np.array_equal(picture.depth, again.depth)


def test_modes_differ(head):
    pictures = [render(head, 64, mode).rgb for mode in MODES]
    assert all((a != b).any() for i, a in enumerate(pictures) for b in pictures[:i])


@pytest.mark.parametrize("level", [1.0, 0.5])
def test_flat_texture_in_even_light_has_exactly_its_colour(head, level):
    lit = head.replace(params=head.params.replace(light=ambient_light(level).numpy()))
    expected = (srgb_from_linear(level * linear_from_srgb(torch.tensor(SKIN) / 255)) * 255).round().numpy()
    picture = render(lit, 96, "color")
    inner = binary_erosion(picture.mask, iterations=2)
    assert inner.sum() > 1000
    assert np.abs(picture.rgb[inner] - expected).max() <= (0 if level == 1 else 1)


def test_albedo_mode_ignores_the_light(head):
    dark = head.replace(params=head.params.replace(light=np.zeros((9, 3), np.float32)))
    picture = render(dark, 96, "albedo")
    assert (picture.rgb[binary_erosion(picture.mask, iterations=2)] == SKIN).all()
    inner = binary_erosion(picture.mask, iterations=2)
    assert (render(dark, 96, "color").rgb[inner] == 0).all()


def test_normals_face_the_camera_and_point_outward(head):
    picture = render(head, 128, "normal", rotation=(0, 0, 0))
    inner = binary_erosion(picture.mask, iterations=2)
    normals = picture.rgb.astype(float) / 127.5 - 1
    assert normals[inner][:, 2].min() > -0.05
    assert np.abs(np.linalg.norm(normals[inner], axis=1) - 1).mean() < 0.02
    columns = np.broadcast_to(np.arange(128), (128, 128))[inner]
    assert np.corrcoef(columns, normals[inner][:, 0])[0, 1] > 0.8


def test_near_is_bright_in_depth_mode(head):
    picture = render(head, 96, "depth")
    inner = binary_erosion(picture.mask, iterations=2)
    grey = picture.rgb[inner]
    assert (grey == grey[:, :1]).all()
    assert np.corrcoef(grey[:, 0], picture.depth[inner])[0, 1] < -0.95


def test_uv_mode_shows_the_coordinates(head):
    picture = render(head, 128, "uv", supersample=1, camera=head.camera)
    visible, uv = visible_vertices(head, head.camera)
    red, green = (picture.rgb[visible[:, 1], visible[:, 0], k] / 255 for k in (0, 1))
    plain, dark = np.abs(red - uv[:, 0]) < 0.05, np.abs(red / 0.75 - uv[:, 0]) < 0.05
    assert (plain | dark).mean() > 0.9
    assert np.corrcoef(green, uv[:, 1])[0, 1] > 0.8


def test_wireframe_draws_lines_over_clay(head):
    wire, clay = (render(head, 256, mode, supersample=1).rgb[..., 0].astype(int) for mode in ("wireframe", "clay"))
    inside = binary_erosion(render(head, 256).mask, iterations=8)
    darker = (clay - wire)[inside] > 25
    assert 0.05 < darker.mean() < 0.5


def test_wireframe_shows_the_coarse_mesh(head):
    assert head.model.data.coarse_faces is not None
    no_light = {"coarse_faces": None, "coarse_uv_faces": None, "coarse_vertices": None}
    plain = head.replace(model=FaceModel(dataclasses.replace(head.model.data, **no_light)))
    light, full = (render(h, 256, "wireframe").rgb for h in (head, plain))
    assert full[..., 0].mean() < light[..., 0].mean()  # four times as many triangles, about twice as much line


# ------------------------------------------------------------------------------------------------------------- texture


def visible_vertices(result, camera):
    """Pixels (K, 2) x, y of vertices that are seen well, and their uv (K, 2)."""
    pose, translation = torch.from_numpy(result.params.rotation), torch.from_numpy(result.params.translation)
    points = project(transform(torch.from_numpy(result.vertices), pose, translation), camera).numpy()
    picture = render(result, camera=camera, supersample=1)
    height, width = camera.image_size
    x, y = np.floor(points[:, :2]).astype(int).T
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    x, y, points, uv = x[inside], y[inside], points[inside], result.uv[: len(result.vertices)][inside]
    seen = binary_erosion(picture.mask, iterations=3)[y, x] & (np.abs(picture.depth[y, x] - points[:, 2]) < 0.002)
    assert seen.sum() > 40
    return np.stack([x, y], axis=1)[seen], uv[seen]


@pytest.mark.parametrize("quadrant", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_texture_is_the_right_way_round(head, quadrant):
    texture = np.full((128, 128, 3), 255, np.uint8)
    row, column = quadrant
    texture[64 * row : 64 * row + 64, 64 * column : 64 * column + 64] = (255, 0, 0)
    painted = head.replace(texture=texture)
    # The head turns so that each quadrant comes into sight.
    for yaw in (-60, 60):
        pose = rotation_from_euler_deg(yaw, -20 if row else 20).numpy()
        turned = painted.replace(params=painted.params.replace(rotation=pose))
        visible, uv = visible_vertices(turned, turned.camera)
        clear = (np.abs(uv - 0.5) > 0.06).all(1)
        picture = render(turned, mode="albedo", camera=turned.camera)
        red = picture.rgb[visible[:, 1], visible[:, 0], 1] < 60
        expected = ((uv >= 0.5) == [bool(column), bool(row)]).all(1)
        assert (red == expected)[clear].mean() > 0.95


def test_texture_sides_are_the_heads_sides(head):
    """The half of the texture that holds the eye on +x is seen on the right of a frontal picture."""
    model = head.model
    left_eye = [v for v in model.regions["eyeballs"] if model.mean_vertices[v, 0] > 0]
    texture = np.full((256, 256, 3), 255, np.uint8)
    for u, v in model.uv[left_eye]:
        texture[int(v * 256) - 3 : int(v * 256) + 3, int(u * 256) - 3 : int(u * 256) + 3] = (255, 0, 0)
    picture = render(head.replace(texture=texture), 128, "albedo", rotation=(0, 0, 0))
    red = np.argwhere(picture.rgb[..., 1] < 100)
    assert len(red) > 10 and red[:, 1].min() > 64


def test_fine_texture_is_averaged_in_small_pictures(head):
    checker = (np.indices((1024, 1024)).sum(0) % 2 * 255).astype(np.uint8)
    picture = render(head.replace(texture=np.repeat(checker[..., None], 3, 2)), 64, "albedo", background=(0, 0, 0))
    inner = picture.rgb[binary_erosion(picture.mask, iterations=3)]
    assert np.abs(inner.astype(int) - 188).max() <= 3  # half the light of white, in sRGB


def test_normal_map_bends_the_light():
    """Red tilts towards +u, which is right here; green towards -v, which is up (glTF)."""
    flat = np.full((8, 8, 3), (128, 128, 255), np.uint8)
    right, up = (np.full((8, 8, 3), texel, np.uint8) for texel in ((218, 128, 218), (128, 218, 218)))
    from_right, from_above = np.zeros((2, 9, 3), np.float32)
    from_right[[0, 3]] = from_above[[0, 1]] = 1

    def centre(normal_map, light, mode="color"):
        result = plane_result(normal_map)
        result = result.replace(params=result.params.replace(light=light))
        return int(render(result, 32, mode).rgb[16, 16, 0])

    assert abs(centre(flat, from_right) - centre(None, from_right)) <= 1
    assert centre(right, from_right) > centre(flat, from_right) + 20
    assert centre(up, from_above) > centre(flat, from_above) + 20
    assert abs(centre(up, from_right) - centre(flat, from_right)) <= 1
    assert centre(right, from_right, "clay") < centre(None, from_right, "clay")  # clay's main light is on the left


def test_mode_normal_shows_the_normal_map():
    right = np.full((8, 8, 3), (218, 128, 218), np.uint8)
    tilted = render(plane_result(right), 32, "normal").rgb[16, 16]
    assert np.abs(tilted.astype(int) - (218, 128, 218)).max() <= 2


def test_a_fine_normal_map_is_averaged_before_it_is_looked_up():
    """A head far away: bumps smaller than samples show as the smooth surface, without sparkle."""
    bumps = np.random.default_rng(0).integers(0, 2, (1024, 1024, 1))
    texels = np.where(bumps, np.uint8([218, 128, 218]), np.uint8([38, 128, 218])).astype(np.uint8)
    rough, smooth = (render(plane_result(normals), 40, "clay") for normals in (texels, None))
    inside = binary_erosion(smooth.mask, iterations=2)
    assert inside.sum() > 100
    assert np.abs(rough.rgb[inside].astype(int) - smooth.rgb[inside]).max() <= 8


def test_a_sheared_map_bends_along_the_surface(toy_model):
    """Pictures of a normal map agree with the normals that it was made from, wherever the map is skewed or turned."""
    size = 256
    wave = np.sin(np.arange(size) * 2 * np.pi / 32)
    displacement = (0.6 * (wave[:, None] + wave[None])).astype(np.float32)
    result = make_result(toy_model, translation=np.float32([0, 0, -0.7]))
    bent = normal_map(toy_model, result.vertices, displacement)
    frame = TangentFrame.of(toy_model, result.vertices, size)
    detailed = detailed_normals(frame, torch.from_numpy(displacement))[0].numpy()
    colours = np.round((detailed.transpose(1, 2, 0) * 0.5 + 0.5) * 255).astype(np.uint8)
    # The normals as a texture, read with the same interpolation.
    as_texture = render(result.replace(texture=colours), 200, "albedo", rotation=(0, 0, 0))
    as_normals = render(result.replace(normal_map=bent), 200, "normal", rotation=(0, 0, 0))
    plain = render(result, 200, "normal", rotation=(0, 0, 0))
    inside = binary_erosion(as_texture.mask, iterations=3)
    apart = np.abs(as_normals.rgb[inside].astype(int) - as_texture.rgb[inside])
    bending = np.abs(as_normals.rgb[inside].astype(int) - plain.rgb[inside])
    assert bending.mean() > 5
    assert np.median(apart) <= 3 and apart.mean() < 0.3 * bending.mean()


# --------------------------------------------------------------------------------------------------------------- views


def test_a_cropped_camera_sees_a_part_of_the_picture(head):
    whole = render(head, camera=head.camera)
    part = render(head, camera=head.camera.cropped((130, 60, 210, 130), (70, 80)))
    assert whole.rgb.shape == (240, 320, 3)
    window = (slice(60, 130), slice(130, 210))
    assert whole.mask[window].any() and not whole.mask.all()
    assert np.abs(whole.rgb[window].astype(int) - part.rgb).max() <= 1
    assert (whole.mask[window] == part.mask).mean() > 0.999


def test_large_pictures_are_drawn_in_bands_without_a_trace(head, monkeypatch):
    once = render(head, 100, "clay")
    monkeypatch.setattr(drawing, "_MAX_SAMPLES", 3000)
    bands = render(head, 100, "clay")
    assert np.array_equal(once.mask, bands.mask)
    assert np.abs(once.rgb.astype(int) - bands.rgb).max() <= 1


def test_a_camera_that_looks_elsewhere_sees_background(head):
    away = Camera(200.0, (-900.0, 20.0), (40, 50))
    picture = render(head, camera=away, background=(10, 20, 30))
    assert not picture.mask.any() and (picture.depth == 0).all()
    assert (picture.rgb == (10, 20, 30)).all()
    behind = head.replace(params=head.params.replace(translation=np.float32([0, 0, 0.6])))
    assert not render(behind, 32).mask.any()


def test_the_default_view_holds_the_whole_head(head):
    for size in (96, (64, 128), (128, 64)):
        mask = render(head, size).mask
        assert mask.any() and not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())
    x0, y0, x1, y1 = head_box_px(head)
    assert x1 - x0 == pytest.approx(y1 - y0)
    box = np.argwhere(render(head, camera=head.camera).mask)
    assert y0 < box[:, 0].min() and box[:, 0].max() < y1 and x0 < box[:, 1].min() and box[:, 1].max() < x1


@pytest.mark.parametrize("yaw", [0, 60, 120, 180, -90])
def test_a_turned_head_stays_in_the_picture(head, yaw):
    mask = render(head, 64, rotation=(yaw, 0, 0)).mask
    assert mask.sum() > 500
    assert not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())
    rows = np.flatnonzero(mask.any(1))
    assert abs((rows[0] + rows[-1]) / 2 - 31.5) < 3


def test_rotation_turns_towards_the_named_side(head):
    def nose_column(yaw):
        depth = render(head, 128, rotation=(yaw, 0, 0)).depth
        return np.unravel_index(np.where(depth > 0, depth, 9).argmin(), depth.shape)[1]

    assert nose_column(40) > 70 and nose_column(-40) < 58


def test_rotation_as_degrees_and_as_matrix(head):
    degrees, matrix = (20, -10, 5), rotation_from_euler_deg(20, -10, 5).numpy()
    assert np.array_equal(render(head, 48, rotation=degrees).rgb, render(head, 48, rotation=matrix).rgb)
    fitted = render(head, camera=head.camera, rotation=head.params.rotation).mask
    assert (fitted == render(head, camera=head.camera).mask).mean() > 0.999


@pytest.mark.parametrize("rotation", [(1, 2), "left", (0, 0, np.nan), np.eye(3) * 2, np.diag([1, 1, -1]), None])
def test_not_a_rotation(rotation):
    with pytest.raises(ParameterError, match="rotation must be"):
        rotation_matrix(rotation)


def test_edges_are_smooth_and_backgrounds_blend(head):
    lit = head.replace(params=head.params.replace(light=ambient_light().numpy()))
    hard, soft = (render(lit, 64, background=(0, 0, 255), supersample=s).rgb for s in (1, 4))
    colours = [len(np.unique(rgb.reshape(-1, 3), axis=0)) for rgb in (hard, soft)]
    assert colours[0] == 2 and colours[1] > 8
    assert (soft[0] == (0, 0, 255)).all()


def test_rendering_changes_nothing(head):
    before = [head.vertices.copy(), head.texture.copy(), head.params.light.copy(), head.params.rotation.copy()]
    for mode in MODES:
        render(head, 32, mode, rotation=(30, 0, 0))
    after = [head.vertices, head.texture, head.params.light, head.params.rotation]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


# ---------------------------------------------------------------------------------------------------- with photographs


@pytest.fixture
def photo():
    return np.random.default_rng(1).integers(0, 256, (240, 320, 3), dtype=np.uint8)


def test_overlay_lies_on_the_photograph(head, photo):
    covered = render(head, camera=head.camera)
    result = overlay(photo, head)
    assert result.shape == photo.shape and result.dtype == np.uint8
    inner, outer = binary_erosion(covered.mask, iterations=2), binary_erosion(~covered.mask, iterations=2)
    assert np.array_equal(result[outer], photo[outer])
    assert np.abs(result[inner].astype(int) - covered.rgb[inner]).max() <= 1
    assert np.array_equal(overlay(photo, head, alpha=0), photo)
    half = overlay(photo, head, alpha=0.5)[inner].astype(int)
    low, high = (f(photo, result)[inner].astype(int) for f in (np.minimum, np.maximum))
    assert (half >= low - 1).all() and (half <= high + 1).all()


def test_overlay_of_a_large_photograph_is_reduced(head, photo):
    large = np.repeat(np.repeat(photo, 5, 0), 5, 1)
    result = overlay(large, head)
    assert result.shape == (768, 1024, 3)
    small = overlay(photo, head)
    rows = np.flatnonzero((overlay(large, head, "albedo")[:, :, 0] == SKIN[0]).mean(1) > 0.2) / 768
    small_rows = np.flatnonzero((overlay(photo, head, "albedo")[:, :, 0] == SKIN[0]).mean(1) > 0.2) / 240
    assert small.shape == (240, 320, 3)
    assert abs(rows.min() - small_rows.min()) < 0.02 and abs(rows.max() - small_rows.max()) < 0.02


def test_overview_shows_four_squares(head):
    photo = np.zeros((240, 320, 3), np.uint8)
    photo[:, :160], photo[:, 160:] = (0, 90, 0), (0, 0, 90)
    result = overview(photo, head, 100)
    assert result.shape == (100, 400, 3) and result.dtype == np.uint8
    crop, over, clay, texture = np.split(result, 4, axis=1)
    x0, _, x1, _ = head_box_px(head)
    split = int((160 - x0) / (x1 - x0) * 100)
    assert tuple(crop[50, split - 3]) == (0, 90, 0) and tuple(crop[50, split + 3]) == (0, 0, 90)
    mask = render(head, 100).mask
    assert np.array_equal(over[binary_erosion(~mask, iterations=2)], crop[binary_erosion(~mask, iterations=2)])
    assert np.array_equal(clay, render(head, 100, "clay").rgb)
    assert (texture == SKIN).all()


def test_overview_of_a_head_that_leaves_the_photograph(head):
    aside = head.replace(params=head.params.replace(translation=np.float32([-0.25, 0.1, -0.6])))
    assert head_box_px(aside)[0] < 0
    crop = overview(np.zeros((240, 320, 3), np.uint8), aside, 64)[:, :64]
    assert (crop[:, 0] == 255).all() and (crop[40, 60] == 0).all()


def test_turntable_is_a_row_of_renderings(head):
    sheet = turntable(head, 48, (-30, 30), "clay")
    assert sheet.shape == (48, 96, 3)
    assert np.array_equal(sheet[:, 48:], render(head, 48, "clay", rotation=(30, 0, 0)).rgb)


# -------------------------------------------------------------------------------------------------------------- errors


def test_unknown_mode_suggests_one(head):
    with pytest.raises(ParameterError, match="there is no mode 'colour'; did you mean 'color'.*wireframe"):
        render(head, 32, "colour")
    with pytest.raises(ParameterError, match=r"there is no mode \['color'\]"):
        render(head, 32, ["color"])


@pytest.mark.parametrize("size", [0, -5, 8193, (100, 0), (1, 2, 3), "big", 10.5, True, None, float("nan")])
def test_silly_sizes(head, size):
    with pytest.raises(ParameterError, match="size must be"):
        render(head, size)


@pytest.mark.parametrize("background", [(1, 2), "white", (0, 0, 300), (0, 0, np.nan)])
def test_silly_backgrounds(head, background):
    with pytest.raises(ParameterError, match="background must be"):
        render(head, 32, background=background)


@pytest.mark.parametrize("supersample", [0, 5, 1.5, True])
def test_silly_supersampling(head, supersample):
    with pytest.raises(ParameterError, match="supersample must be"):
        render(head, 32, supersample=supersample)


def test_photographs_that_do_not_belong_to_the_head(head, photo):
    with pytest.raises(ParameterError, match="fitted to a picture of 320 x 240"):
        overlay(photo[:200], head)
    with pytest.raises(ParameterError, match=r"\(H, W, 3\) uint8"):
        overview(photo / 255, head)
    for alpha in (-0.1, 1.5, "half", np.nan):
        with pytest.raises(ParameterError, match="alpha must be"):
            overlay(photo, head, alpha=alpha)
