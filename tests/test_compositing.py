"""Compositing and textures with alpha: exact colours on toy scenes, areas of masks near and far, no bleeding."""

import math

import numpy as np
import pytest
import torch
from test_layers import sheets, soup

from faceverse.errors import ParameterError
from faceverse.graphics import compositing
from faceverse.graphics.alpha_texture import AlphaTexture
from faceverse.graphics.compositing import composite, composite_layers
from faceverse.graphics.layers import barycentric_derivatives, interpolate_layers, rasterize_layers

QUAD_UV = torch.tensor([[0.0, 0], [0, 1], [1, 1], [1, 0]], dtype=torch.float64)
COLOURS = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]], dtype=torch.float64)


def flat(order, alphas):
    """Shades square k of `sheets` with colour and alpha number order[k]."""

    def shade(layers):
        kind = torch.tensor(order)[layers.triangle // 2]
        return COLOURS[kind].t(), torch.tensor(alphas, dtype=torch.float64)[kind]

    return shade


def grey(value=0.5, shape=(1, 6, 6)):
    return torch.full((3, *shape), value, dtype=torch.float64)


def over(layers, background):
    """The definition: colours and alphas from near to far over a colour."""
    for colour, alpha in reversed(layers):
        background = alpha * colour + (1 - alpha) * background
    return background


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_sheets_blend_alike_in_both_orders_of_the_mesh(order):
    vertices, faces = sheets(*((0.5, 0.7)[k] for k in order))
    picture = composite_layers(vertices, faces, flat(order, (0.25, 0.5)), grey())
    # 0.25 red, 0.75 * 0.5 green, 0.75 * 0.5 * 0.5 of the grey behind.
    expected = torch.tensor([0.25 + 0.1875, 0.375 + 0.1875, 0.1875], dtype=torch.float64)
    torch.testing.assert_close(picture, expected[:, None, None, None].expand(3, 1, 6, 6))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
def test_three_sheets_blend_alike_in_every_order(order):
    alphas = (0.3, 0.6, 0.9)
    vertices, faces = sheets(*((0.5, 0.6, 0.7)[k] for k in order))
    picture = composite_layers(vertices, faces, flat(order, alphas), grey(), layers=1)
    expected = over([(COLOURS[k], alphas[k]) for k in range(3)], torch.full((3,), 0.5, dtype=torch.float64))
    torch.testing.assert_close(picture, expected[:, None, None, None].expand(3, 1, 6, 6))


def test_sheets_that_pass_through_each_other_change_places():
    vertices, faces = sheets((1 / 2.5, 1 / 2.5, 1 / 1.5, 1 / 1.5), 0.5)
    picture = composite_layers(vertices, faces, flat((0, 1), (0.25, 0.5)), grey())
    ends = [(COLOURS[0], 0.25), (COLOURS[1], 0.5)]
    left, right = (over(order, torch.full((3,), 0.5, dtype=torch.float64)) for order in (ends, ends[::-1]))
    torch.testing.assert_close(picture[:, 0, :, :3], left[:, None, None].expand(3, 6, 3))
    torch.testing.assert_close(picture[:, 0, :, 3:], right[:, None, None].expand(3, 6, 3))
    assert (left - right).abs().max() > 0.1


def test_an_opaque_surface_between_the_sheets_hides_those_behind():
    vertices, faces = sheets(0.5, 0.7)
    depth = torch.full((1, 6, 6), 0.6, dtype=torch.float64)
    depth[..., :2] = 0.4
    picture = composite_layers(vertices, faces, flat((0, 1), (0.25, 0.5)), grey(), in_front_of=depth)
    assert torch.equal(picture[..., :2], grey()[..., :2])
    front = torch.tensor([0.625, 0.375, 0.375], dtype=torch.float64)[:, None, None, None]
    torch.testing.assert_close(picture[..., 2:], front.expand(3, 1, 6, 4))


@pytest.mark.parametrize("layers", [1, 3, 8, 50])
@pytest.mark.parametrize("surface", [False, True])
@pytest.mark.parametrize("max_hits", [compositing.MAX_HITS, 100])
def test_more_layers_than_the_first_pass_holds_are_exact(monkeypatch, layers, surface, max_hits):
    monkeypatch.setattr(compositing, "MAX_HITS", max_hits)
    vertices, faces = soup(6, torch.float64)
    generator = torch.Generator().manual_seed(1)
    colours = torch.rand(3, len(faces), generator=generator, dtype=torch.float64)
    alphas = 0.3 * torch.rand(len(faces), generator=generator, dtype=torch.float64)
    depth = 0.4 * torch.rand(2, 20, 24, generator=generator) if surface else None
    background = torch.rand(3, 2, 20, 24, generator=generator, dtype=torch.float64)

    def shade(hits):
        assert len(hits.pixel) < max_hits + 50
        return colours[:, hits.triangle], alphas[hits.triangle]

    picture = composite_layers(vertices, faces, shade, background, in_front_of=depth, layers=layers)
    whole = rasterize_layers(vertices, faces, (20, 24), layers=50, in_front_of=depth, backend="naive")
    assert whole.hits.max() > 8
    expected = background.reshape(3, -1).clone()
    for pixel in whole.covered.tolist():
        seen = whole.triangle[whole.pixel == pixel].tolist()
        expected[:, pixel] = over([(colours[:, f], alphas[f]) for f in seen], background.reshape(3, -1)[:, pixel])
    torch.testing.assert_close(picture.reshape(3, -1), expected, atol=1e-12, rtol=0)
    assert not torch.equal(picture, background)


def test_hidden_layers_are_never_shaded():
    vertices, faces = sheets(*(0.5 + 0.01 * k for k in range(20)))
    shaded = []

    def shade(layers):
        shaded.extend(layers.layer.tolist())
        return grey().reshape(3, -1)[:, layers.pixel], (layers.layer == 1).double()

    assert torch.equal(composite_layers(vertices, faces, shade, grey(0.1), layers=2), grey())
    assert len(shaded) == 2 * 36 and max(shaded) == 1


def test_extra_channels_give_coverage_and_depth():
    vertices, faces = sheets(0.5, 0.7)

    def shade(layers):
        return torch.stack((torch.ones_like(layers.depth), layers.depth)), torch.full_like(layers.depth, 0.5)

    coverage, depth = composite_layers(vertices, faces, shade, torch.zeros(2, 1, 6, 6, dtype=torch.float64))
    torch.testing.assert_close(coverage, torch.full((1, 6, 6), 0.75, dtype=torch.float64))
    torch.testing.assert_close(depth / coverage, torch.full((1, 6, 6), (0.25 + 0.175) / 0.75, dtype=torch.float64))


def test_nothing_in_front_leaves_the_background():
    vertices, faces = sheets(0.5)
    for hidden in (vertices * torch.tensor([1.0, 1, -1], dtype=torch.float64), vertices + 100):
        assert torch.equal(composite_layers(hidden, faces, flat((0,), (0.5,)), grey()), grey())
    assert torch.equal(composite_layers(vertices, faces[:0], flat((0,), (0.5,)), grey()), grey())


def test_gradients_of_colours_alphas_and_background():
    vertices, faces = sheets(0.5, 0.6, 0.7)
    layers = rasterize_layers(vertices, faces, (2, 2))
    colours, alphas = torch.rand(3, 12, dtype=torch.float64), 0.1 + 0.8 * torch.rand(12, dtype=torch.float64)
    inputs = [colours, alphas, torch.rand(3, 1, 2, 2, dtype=torch.float64)]
    assert torch.autograd.gradcheck(lambda *x: composite(layers, *x), [value.requires_grad_() for value in inputs])


# ------------------------------------------------------------------------------------------------------------ textures


def disk(size, radius=0.3, colour=(200, 120, 40), outside=(255, 0, 255), soft=0.0):
    """A disk of a colour around the middle of a texture; transparent texels have a colour of their own."""
    axis = (np.arange(size) + 0.5) / size - 0.5
    distance = np.hypot(*np.meshgrid(axis, axis))
    alpha = np.clip((radius - distance) / max(soft, 1e-9) + 0.5, 0, 1)
    pixels = np.empty((size, size, 4), np.uint8)
    pixels[..., :3] = np.where(alpha[..., None] > 0, colour, outside)
    pixels[..., 3] = np.rint(255 * alpha)
    return pixels


def photograph(texture, size, square_px, supersample=1, sharpen=False, background=0.0):
    """Picture and coverage (4, size, size) of a square of a texture, its side `square_px` pixels, off the grid."""
    low = (size - square_px) / 2 + 0.137
    x, y = torch.tensor([0.0, 0, 1, 1]) * square_px + low, torch.tensor([0.0, 1, 1, 0]) * square_px + low + 0.211
    vertices = torch.stack((x * supersample, y * supersample, torch.full((4,), 0.5)), 1)[None].double()
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])

    def shade(layers):
        change = barycentric_derivatives(layers, vertices, faces)
        uv, along_x, along_y = (
            interpolate_layers(layers, QUAD_UV[None], faces, weights) for weights in (layers.weights, *change)
        )
        colour, alpha = texture.sampled(uv, (along_x, along_y), sharpen)
        return torch.cat((colour, torch.ones_like(alpha)[None])), alpha

    picture = torch.full((4, 1, size * supersample, size * supersample), background, dtype=torch.float64)
    picture[3] = 0
    picture = composite_layers(vertices, faces, shade, picture)
    return torch.nn.functional.avg_pool2d(picture[:, 0], supersample)


def linear(byte):
    value = byte / 255
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


@pytest.mark.parametrize("square_px", [200.0, 64.0, 20.0, 6.0, 2.5])
@pytest.mark.parametrize("supersample", [1, 2, 4])
@pytest.mark.parametrize("mode", ["MASK", "BLEND"])
def test_area_of_a_disk_near_and_far(mode, square_px, supersample):
    texture = AlphaTexture.of(disk(64), mode)
    picture = photograph(texture, 256 if square_px > 100 else 80, square_px, supersample)
    area = math.pi * (0.3 * square_px) ** 2
    assert float(picture[3].sum()) == pytest.approx(area, rel=0.02 if square_px > 3 else 0.15)


@pytest.mark.parametrize("mode", ["MASK", "BLEND"])
def test_lashes_thinner_than_a_pixel_neither_vanish_nor_thicken(mode):
    pixels = np.zeros((256, 256, 4), np.uint8)
    pixels[..., :3] = (255, 255, 255)
    pixels[:, 8::16] = pixels[:, 9::16] = (40, 30, 20, 255)  # an eighth of the texture
    texture = AlphaTexture.of(pixels, mode)
    for square_px in (200.0, 60.0, 20.0, 8.0):
        picture = photograph(texture, 256 if square_px > 100 else 80, square_px)
        assert float(picture[3].sum()) == pytest.approx(square_px**2 / 8, rel=0.06)
        inside = picture[3] > 1e-3
        red = (picture[0] / picture[3])[inside]
        torch.testing.assert_close(red, torch.full_like(red, linear(40)))
    if mode == "MASK":  # 2 of 8 texels pass; an average of 64 texels, 0.125, would not
        assert picture[3].max() < 0.5 and (picture[3] > 0.1).sum() >= 36


def test_mask_is_all_or_nothing_where_magnified_and_cut_at_the_cutoff_everywhere():
    texture = AlphaTexture.of(disk(16, soft=0.2), "MASK")
    assert set(photograph(texture, 80, 64.0)[3].unique().tolist()) == {0.0, 1.0}
    # Alpha falls from 1 to 0 between the radii 0.2 and 0.4: the cutoff decides where it is cut.
    for cutoff, radius in ((0.25, 0.35), (0.5, 0.3), (0.75, 0.25)):
        for square_px in (70.0, 20.0, 6.0):
            picture = photograph(AlphaTexture.of(disk(64, soft=0.2), "MASK", cutoff), 80, square_px)
            assert float(picture[3].sum()) == pytest.approx(math.pi * (radius * square_px) ** 2, rel=0.03)


def test_sharpened_border_is_one_pixel_wide_and_nearer_to_the_truth():
    texture = AlphaTexture.of(disk(32, soft=0.2), "MASK")
    truth = photograph(texture, 80, 70.0, supersample=8)[3]
    plain, graded = (photograph(texture, 80, 70.0, sharpen=sharpen)[3] for sharpen in (False, True))
    partial = (graded > 0) & (graded < 1)
    assert 0.5 * 2 * math.pi * 21 < partial.sum() < 2 * 2 * math.pi * 21
    assert (graded - truth).abs().sum() < 0.4 * (plain - truth).abs().sum()
    assert float(graded.sum()) == pytest.approx(float(truth.sum()), rel=0.01)


@pytest.mark.parametrize("mode", ["MASK", "BLEND"])
@pytest.mark.parametrize("square_px", [150.0, 64.0, 17.0, 3.0])
@pytest.mark.parametrize("sharpen", [False, True])
def test_colour_of_transparent_texels_never_shows(mode, square_px, sharpen):
    texture = AlphaTexture.of(disk(64, soft=0.05), mode)
    picture = photograph(texture, 160 if square_px > 100 else 80, square_px, sharpen=sharpen)
    inside = picture[3] > 1e-4
    assert inside.sum() > 4
    for channel, byte in enumerate((200, 120, 40)):
        straight = (picture[channel] / picture[3])[inside]
        torch.testing.assert_close(straight, torch.full_like(straight, linear(byte)), atol=1e-4, rtol=1e-3)


def test_opaque_mode_ignores_alpha_and_three_channels_are_opaque():
    pixels = disk(16)
    for given in ((pixels,), (pixels[..., :3], "BLEND"), (pixels, "MASK", 0)):
        texture = AlphaTexture.of(*given)
        picture = photograph(texture, 40, 30.0)
        assert float(picture[3].sum()) == pytest.approx(900, abs=1)
        assert float(picture[1, 6, 6]) == pytest.approx(0) and float(picture[2, 6, 6]) == pytest.approx(1)
        assert float(picture[0, 20, 20]) == pytest.approx(linear(200), rel=1e-4)


def test_blending_is_in_linear_light():
    white = np.full((4, 4, 4), 255, np.uint8)
    white[..., 3] = 51  # 0.2
    picture = photograph(AlphaTexture.of(white, "BLEND"), 20, 16.0, background=0.5)
    torch.testing.assert_close(picture[:3, 10, 10], torch.full((3,), 0.2 + 0.8 * 0.5).double(), atol=1e-6, rtol=0)


def test_level_follows_the_longer_side_of_the_footprint():
    # Stripes of 1 texel along u: seen at 4 texels a pixel they are grey, in the direction across them and along them.
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[:, ::2] = 255
    pixels[..., 3] = 255
    texture = AlphaTexture.of(pixels)
    uv = torch.rand(2, 50, dtype=torch.float64) * 0.8 + 0.1
    step, none = torch.tensor([[4 / 64], [0]]).double().expand(2, 50), torch.zeros(2, 50, dtype=torch.float64)
    grey_level, _ = texture.sampled(uv, (step, none))
    torch.testing.assert_close(grey_level, torch.full((3, 50), 0.5).double(), atol=1e-6, rtol=0)
    assert texture.sampled(uv, (none, none))[0].std() > 0.2
    sizes = [tuple(level.shape) for level in AlphaTexture.of(disk(20)[:, :7], "MASK").levels]
    assert sizes == [(4, 20, 7), (4, 10, 3), (4, 5, 1), (4, 2, 1), (4, 1, 1)]


@pytest.mark.parametrize("size", [(20, 7), (33, 64), (1, 1), (1, 5)])
def test_every_level_covers_the_same_area(size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 4), dtype=np.uint8)
    for mode, share in (("BLEND", pixels[..., 3].mean() / 255), ("MASK", None)):
        means = [float(level[3].mean()) for level in AlphaTexture.of(pixels, mode).levels][mode == "MASK" :]
        share = means[0] if share is None and means else share
        assert means == pytest.approx([share] * len(means), rel=0.08)


def test_wrong_arguments_are_named():
    pixels = disk(8)
    cases = [
        ((pixels[..., 0],), "shape \\(8, 8\\) and dtype uint8"),
        ((pixels[..., :2],), "shape \\(8, 8, 2\\)"),
        ((pixels[:0],), "shape \\(0, 8, 4\\)"),
        ((pixels / 255,), "dtype float64"),
        ((pixels, "blend"), "alpha_mode is 'blend'; use one of 'OPAQUE', 'MASK', 'BLEND'"),
        ((pixels, "MASK", -0.1), "alpha_cutoff is -0.1"),
        ((pixels, "MASK", math.nan), "alpha_cutoff is nan"),
    ]
    for arguments, message in cases:
        with pytest.raises(ParameterError, match=message):
            AlphaTexture.of(*arguments)
    vertices, faces = sheets(0.5)
    layers = rasterize_layers(vertices, faces, (6, 6))
    good = torch.rand(3, 36), torch.rand(36), torch.rand(3, 1, 6, 6)
    assert composite(layers, *good).shape == (3, 1, 6, 6)
    for k, bad in ((0, torch.rand(3, 35)), (0, torch.rand(2, 36)), (1, torch.rand(1, 36)), (2, torch.rand(3, 6, 6))):
        with pytest.raises(ParameterError, match="have shapes .* expected"):
            composite(layers, *good[:k], bad, *good[k + 1 :])
