"""The generator against a slow oracle, its gradients, its states, and the numbers of the original code."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from faceverse.detail.stylegan import ConditionalGenerator, generator_from_state, official_channels
from faceverse.errors import ParameterError, WeightsError

REFERENCE = Path(__file__).parents[2] / "shared" / "reference"
CHANNELS = {4: 3, 8: 4, 16: 2, 32: 3}


def tiny(size=16, dtype=torch.float64, channels=CHANNELS, **options):
    """A small generator in which no weight has a special value."""
    sizes = {"style_dim": 5, "mapping_layers": 2, "image_channels": 2, "condition_channels": 3} | options
    generator = ConditionalGenerator(size, channels=channels, **sizes)
    with torch.no_grad():
        for name, value in generator.named_parameters():
            if name.endswith(("bias", "noise.weight")):
                value += 0.3 * torch.randn_like(value)
    return generator.to(dtype)


def inputs_for(generator, count=1, seed=1):
    draw = torch.Generator().manual_seed(seed)
    like = generator.input.input
    z = torch.randn(count, generator.style_dim, generator=draw).to(like)
    shape = (count, generator.condition_channels, generator.size, generator.size)
    return z, torch.randn(shape, generator=draw).to(like), generator.make_noise(seed, count)


# ----------------------------------------------------------------------------------------------------- a slow oracle


def filtered(image, kernel, *, up=1, down=1, before, after):
    """Insert zeros, pad, convolve, keep every `down`-th: one output pixel after the other."""
    sides = [up * length + before + after for length in image.shape]
    padded = np.zeros(sides)
    padded[before : sides[0] - after, before : sides[1] - after][::up, ::up] = image
    rows, columns = ((side - len(kernel)) // down + 1 for side in sides)
    result = np.zeros((rows, columns))
    for row in range(rows):
        for column in range(columns):
            window = padded[row * down :, column * down :][: len(kernel), : len(kernel)]
            result[row, column] = (window * kernel[::-1, ::-1]).sum()
    return result


def convolved(maps, weight, stride=1, padding=0):
    """maps (I, H, W), weight (O, I, K, K): weight by weight."""
    outputs, inputs, width, _ = weight.shape
    padded = np.pad(maps, ((0, 0), (padding, padding), (padding, padding)))
    rows, columns = ((side - width) // stride + 1 for side in padded.shape[1:])
    result = np.zeros((outputs, rows, columns))
    for o, i, a, b in np.ndindex(weight.shape):
        patch = padded[i, a : a + stride * (rows - 1) + 1 : stride, b : b + stride * (columns - 1) + 1 : stride]
        result[o] += weight[o, i, a, b] * patch
    return result


def spread(maps, weight):
    """Transposed convolution of stride 2: each pixel of maps (I, H, W) paints weight (O, I, K, K), two apart."""
    outputs, inputs, width, _ = weight.shape
    rows, columns = (2 * (side - 1) + width for side in maps.shape[1:])
    result = np.zeros((outputs, rows, columns))
    for i, row, column in np.ndindex(maps.shape):
        result[:, 2 * row : 2 * row + width, 2 * column : 2 * column + width] += weight[:, i] * maps[i, row, column]
    return result


class Oracle:
    """One picture, straight from the papers' formulas, on the arrays of a state dict."""

    def __init__(self, generator):
        self.state = {key: value.numpy() for key, value in generator.state_dict().items()}
        self.levels = int(np.log2(generator.size))
        taps = np.array([1, 3, 3, 1]) / 8
        self.blur = np.outer(taps, taps)

    def __getitem__(self, key):
        return self.state[key]

    def activated(self, maps, bias):
        maps = maps + bias.reshape(-1, *[1] * (maps.ndim - 1))
        return np.sqrt(2) * np.where(maps > 0, maps, 0.2 * maps)

    def latent(self, z):
        latent = z / np.sqrt((z**2).mean() + 1e-8)
        for layer in range(1, 3):
            weight = self[f"style.{layer}.weight"]
            latent = 0.01 / np.sqrt(weight.shape[1]) * weight @ latent
            latent = self.activated(latent, 0.01 * self[f"style.{layer}.bias"])
        return latent

    def style(self, name, latent):
        weight = self[f"{name}.modulation.weight"]
        return weight @ latent / np.sqrt(weight.shape[1]) + self[f"{name}.modulation.bias"]

    def modulated(self, name, latent, demodulate=True):
        weight = self[f"{name}.weight"][0]
        weight = weight / np.sqrt(weight[0].size) * self.style(name, latent)[None, :, None, None]
        norms = np.sqrt((weight**2).sum((1, 2, 3), keepdims=True) + 1e-8)
        return weight / norms if demodulate else weight

    def styled(self, name, maps, latent, noise):
        weight = self.modulated(f"{name}.conv", latent)
        if f"{name}.conv.blur.kernel" in self.state:
            maps = [filtered(image, 4 * self.blur, before=1, after=1) for image in spread(maps, weight)]
        else:
            maps = convolved(maps, weight, padding=1)
        return self.activated(np.array(maps) + self[f"{name}.noise.weight"] * noise[0], self[f"{name}.activate.bias"])

    def image(self, name, maps, latent, image=None):
        added = convolved(maps, self.modulated(f"{name}.conv", latent, demodulate=False)) + self[f"{name}.bias"][0]
        if image is None:
            return added
        return added + [filtered(channel, 4 * self.blur, up=2, before=2, after=1) for channel in image]

    def plain(self, name, maps, stride=1, padding=0):
        weight = self[f"{name}.weight"]
        return convolved(maps, weight / np.sqrt(weight[0].size), stride, padding)

    def features(self, condition):
        maps = self.activated(self.plain("cond_convs1.0", condition, padding=1), self["cond_convs1.1.bias"])
        found = {}
        for block in range(self.levels - 3):
            name = f"cond_convs.{block}"
            inner = self.activated(self.plain(f"{name}.conv1.0", maps, padding=1), self[f"{name}.conv1.1.bias"])
            inner = np.array([filtered(image, self.blur, before=2, after=2) for image in inner])
            inner = self.activated(self.plain(f"{name}.conv2.1", inner, stride=2), self[f"{name}.conv2.2.bias"])
            skip = np.array([filtered(image, self.blur, before=1, after=1) for image in maps])
            maps = (inner + self.plain(f"{name}.skip.1", skip, stride=2)) / np.sqrt(2)
            found[maps.shape[1]] = f"comb_convs.{block}", maps
        return found

    def __call__(self, latents, condition, noise):
        features = self.features(condition)
        maps = self.styled("conv1", self["input.input"][0], latents[0], noise[0])
        image = self.image("to_rgb1", maps, latents[1])
        for step in range(self.levels - 2):
            if step > 0:
                name, feature = features[maps.shape[1]]
                maps = self.plain(f"{name}.0", np.concatenate([maps, feature]), padding=1)
                maps = self.activated(maps, self[f"{name}.1.bias"])
            for layer in (2 * step, 2 * step + 1):
                maps = self.styled(f"convs.{layer}", maps, latents[layer + 1], noise[layer + 1])
            image = self.image(f"to_rgbs.{step}", maps, latents[2 * step + 3], image)
        return image


@pytest.mark.parametrize(("size", "count"), [(8, 2), (16, 2), (32, 1)])
def test_pictures_are_those_of_the_formulas(size, count):
    generator = tiny(size)
    z, condition, noise = inputs_for(generator, count)
    image, latents = generator(z, condition, noise)
    latents = latents + 0.1 * torch.randn(latents.shape, dtype=latents.dtype)  # another one for each layer
    varied = generator.synthesis(latents, condition, noise)
    oracle = Oracle(generator)
    for sample in range(count):
        maps = [values[sample].numpy() for values in noise]
        expected_latent = oracle.latent(z[sample].numpy())
        same = [expected_latent] * generator.latent_count
        expected = oracle(same, condition[sample].numpy(), maps)
        np.testing.assert_allclose(image[sample].detach(), expected, rtol=1e-9, atol=1e-9)
        expected = oracle(latents[sample].detach().numpy(), condition[sample].numpy(), maps)
        np.testing.assert_allclose(varied[sample].detach(), expected, rtol=1e-9, atol=1e-9)


# ------------------------------------------------------------------------------------------------------- its parts


def test_shapes_and_number_types():
    for dtype in (torch.float32, torch.float64):
        generator = tiny(32, dtype, image_channels=6)
        z, condition, _ = inputs_for(generator, 3)
        image, latents = generator(z, condition)
        assert image.shape == (3, 6, 32, 32) and image.dtype == dtype
        assert latents.shape == (3, 8, 5) and latents.dtype == dtype
        assert (latents == latents[:, :1]).all()
    with torch.device("meta"):  # shapes alone: nothing is computed
        generator = ConditionalGenerator(1024, image_channels=6)
        image, latents = generator(torch.empty(2, 512), torch.empty(1, 6, 1024, 1024))
    assert image.shape == (2, 6, 1024, 1024) and latents.shape == (2, 18, 512)


def test_a_batch_is_its_samples():
    generator = tiny(32, torch.float32)
    z, condition, noise = inputs_for(generator, 3)
    together, _ = generator(z, condition, noise)
    for i in range(3):
        alone, _ = generator(z[i : i + 1], condition[i : i + 1], [values[i : i + 1] for values in noise])
        torch.testing.assert_close(together[i], alone[0], rtol=1e-4, atol=1e-4)


def test_one_condition_and_one_noise_serve_a_batch():
    generator = tiny(16)
    z, condition, noise = inputs_for(generator, 2)
    condition, noise = condition[:1], [values[:1] for values in noise]
    image, latents = generator(z, condition, noise)
    repeated = [values.repeat(2, 1, 1, 1) for values in noise]
    torch.testing.assert_close(image, generator(z, condition.repeat(2, 1, 1, 1), repeated)[0])
    features = generator.encode(condition)
    torch.testing.assert_close(generator.synthesis(latents, features, noise), image)


def test_everything_given_changes_the_picture():
    generator = tiny(32)
    z, condition, noise = inputs_for(generator)
    image, latents = generator(z, condition, noise)
    assert not torch.allclose(generator(2 * z + 1, condition, noise)[0], image)
    assert not torch.allclose(generator(z, condition + 1, noise)[0], image)
    for layer in range(len(noise)):
        other = [values + 1.0 * (i == layer) for i, values in enumerate(noise)]
        assert not torch.allclose(generator(z, condition, other)[0], image), layer
    for layer in range(generator.latent_count):
        other = latents.detach().clone()
        other[:, layer] += 1
        assert not torch.allclose(generator.synthesis(other, condition, noise), image), layer


def test_without_noise_the_stored_maps_are_used():
    generator = tiny(16)
    z, condition, noise = inputs_for(generator)
    first, second = generator(z, condition)[0], generator(z, condition)[0]
    assert torch.equal(first, second)
    assert not torch.allclose(generator(z, condition, noise)[0], first)
    stored = [getattr(generator.noises, f"noise_{i}") for i in range(5)]
    assert torch.equal(generator(z, condition, stored)[0], first)


def test_noise_is_drawn_from_its_seed():
    generator = tiny(32, torch.float32)
    noise = generator.make_noise(7, count=2)
    sizes = [4, 8, 8, 16, 16, 32, 32]
    assert [tuple(values.shape) for values in noise] == [(2, 1, size, size) for size in sizes]
    torch.manual_seed(5)  # the common random state has no part in it
    assert all(torch.equal(a, b) for a, b in zip(noise, generator.make_noise(7, count=2)))
    assert not torch.equal(noise[0], generator.make_noise(8, count=2)[0])
    draw = torch.Generator().manual_seed(3)
    for values in generator.make_noise(3):
        assert torch.equal(values, torch.randn(values.shape, generator=draw))


def test_mean_latent_is_taken_after_the_mapping():
    generator = tiny(16, torch.float64, style_dim=4)
    mean = generator.mean_latent(count=3000, seed=1)
    assert mean.shape == (1, generator.latent_count, 4)
    z = torch.randn(200_000, 4, dtype=torch.float64)
    expected = generator.mapping(z).detach()[:, 0].mean(dim=0)
    spread_of_one = generator.mapping(z).detach()[:, 0].std(dim=0)
    assert ((mean[0, 0] - expected).abs() < 5 * spread_of_one / 3000**0.5).all()
    assert torch.equal(mean, generator.mean_latent(count=3000, seed=1))
    assert not torch.equal(mean, generator.mean_latent(count=3000, seed=2))
    of_the_mean = generator.mapping(z.mean(dim=0, keepdim=True)).detach()[0, 0]
    assert (of_the_mean - expected).abs().max() > 0.5 * spread_of_one.max()


def test_gradients():
    generator = tiny(16, channels={4: 2, 8: 2, 16: 2}, style_dim=3)
    z, condition, noise = (values for values in inputs_for(generator))
    values = [value.requires_grad_() for value in (z, condition, *noise)]

    def picture(z, condition, *noise):
        return generator(z, condition, noise)[0]

    assert torch.autograd.gradcheck(picture, values, fast_mode=True)
    assert torch.autograd.gradgradcheck(picture, values, fast_mode=True)
    latents = generator.mapping(z.detach()).detach().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda latents: generator.synthesis(latents, condition, noise), latents, fast_mode=True
    )


def test_gradients_of_weights_in_a_batch_are_the_sum_of_its_samples():
    generator = tiny(16)
    z, condition, noise = inputs_for(generator, 2)
    parameters = dict(generator.named_parameters())
    direction = torch.randn(2, 2, 16, 16, dtype=torch.float64)

    def gradients(rows):
        image, _ = generator(z[rows], condition[rows], [values[rows] for values in noise])
        return torch.autograd.grad((image * direction[rows]).sum(), list(parameters.values()))

    together = gradients(slice(0, 2))
    for name, both, first, second in zip(parameters, together, gradients([0]), gradients([1])):
        torch.testing.assert_close(both, first + second, msg=name)
        assert both.abs().max() > 0, name


def test_inputs_are_not_changed():
    generator = tiny(16)
    z, condition, noise = inputs_for(generator)
    before = [value.clone() for value in (z, condition, *noise, *generator.state_dict().values())]
    latents = generator.mapping(z)
    features = generator.encode(condition)
    kept = [part.clone() for part in features]
    generator.synthesis(latents, features, noise)
    after = (z, condition, *noise, *generator.state_dict().values())
    assert all(torch.equal(a, b) for a, b in zip(before, after))
    assert all(torch.equal(a, b) for a, b in zip(kept, features))


def test_training_starts_from_unit_weights():
    generator = ConditionalGenerator(16, style_dim=64, channels={4: 64, 8: 64, 16: 32})
    for name, value in generator.named_parameters():
        if name.endswith("modulation.bias"):
            assert (value == 1).all(), name
        elif name.endswith(("bias", "noise.weight")):
            assert (value == 0).all(), name
        elif value.numel() > 1000:
            unit = 100 if name.startswith("style.") else 1
            assert value.std().item() == pytest.approx(unit, rel=0.15), name
    z = torch.randn(500, 64)
    assert generator.mapping(z)[:, 0].square().mean().item() == pytest.approx(1, rel=0.5)


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 4}, "size must be a power of two from 8"),
        ({"size": 24}, "size must be a power of two from 8"),
        ({"size": 16.0}, "size must be a power of two from 8"),
        ({"size": 2**20}, "size must be a power of two from 8 to 8192"),
        ({"size": 16, "style_dim": 0}, "style_dim must be a whole number from 1, got 0"),
        ({"size": 16, "mapping_layers": 1.5}, "mapping_layers must be a whole number from 1, got 1.5"),
        ({"size": 16, "channels": {4: 8, 8: 8}}, "a width from 1 for each resolution, not for 16"),
        ({"size": 16, "channels": {4: 8, 8: 0, 16: 8}}, "a width from 1 for each resolution, not for 8"),
    ],
)
def test_wrong_sizes_are_named(arguments, message):
    with pytest.raises(ParameterError, match=message):
        ConditionalGenerator(**arguments)


def test_wrong_tensors_are_named():
    generator = tiny(16, torch.float32)
    z, condition, noise = inputs_for(generator, 2)
    for arguments, message in [
        ((z[0], condition), r"z must be a tensor \(N, 5\), got \(5,\)"),
        (([z], condition), r"z must be a tensor \(N, 5\), got list"),
        ((z[:0], condition), r"z must be a tensor \(N, 5\), got \(0, 5\)"),
        ((z.double(), condition), r"z is torch.float64 on cpu, the generator is torch.float32 on cpu"),
        ((z, condition[:, :2]), r"condition must be a tensor \(N, 3, 16, 16\), got \(2, 2, 16, 16\)"),
        ((z, condition[..., 0]), r"condition must be a tensor"),
        ((z, condition.repeat(2, 1, 1, 1)), "condition has a batch of 4, the latents have one of 2"),
        ((z, condition, noise[1:]), "noise must be 5 maps, one per layer, got 4"),
        ((z, condition, noise[::-1]), r"noise\[0\] must be a tensor \(N, 1, 4, 4\), got \(2, 1, 16, 16\)"),
        ((z[:1], condition[:1], noise), r"noise\[0\] has a batch of 2, the latents have one of 1"),
    ]:
        with pytest.raises(ParameterError, match=message):
            generator(*arguments)
    with pytest.raises(ParameterError, match=r"latents must be a tensor \(N, 6, 5\), got \(2, 5\)"):
        generator.synthesis(z, condition)
    with pytest.raises(ParameterError, match="maps or what encode returned, got 0 tensors"):
        generator.synthesis(generator.mapping(z), ())


# ---------------------------------------------------------------------------------------------------------- states


@pytest.mark.parametrize("size", [8, 16, 32])
def test_a_generator_is_read_off_its_state(size):
    generator = tiny(size, torch.float32, mapping_layers=3, image_channels=4, condition_channels=1)
    found = generator_from_state(generator.state_dict(), "toy")
    for key in ("size", "style_dim", "image_channels", "condition_channels", "channels", "latent_count"):
        assert getattr(found, key) == getattr(generator, key), key
    inputs = inputs_for(generator)
    assert torch.equal(found(*inputs)[0], generator(*inputs)[0])
    with torch.no_grad():
        found.input.input += 1  # a copy, not the tensors of the state
    assert not torch.equal(found.input.input, generator.input.input)


def test_kernels_and_noise_may_be_left_out():
    generator = tiny(16, torch.float32)
    state = {key: value for key, value in generator.state_dict().items() if not key.endswith(".kernel")}
    inputs = inputs_for(generator)
    assert torch.equal(generator_from_state(state, "toy")(*inputs)[0], generator(*inputs)[0])
    state = {key: value for key, value in state.items() if not key.startswith("noises.")}
    torch.manual_seed(1)
    first = generator_from_state(state, "toy")
    torch.manual_seed(2)
    second = generator_from_state(state, "toy")
    assert torch.equal(first(*inputs)[0], generator(*inputs)[0])
    assert torch.equal(first(*inputs[:2])[0], second(*inputs[:2])[0])
    assert first.noises.noise_4.std() > 0.5


def test_number_types_of_states():
    generator = tiny(8, torch.float32)
    half = {key: value.half() for key, value in generator.state_dict().items()}
    assert generator_from_state(half, "toy").input.input.dtype == torch.float32
    assert generator_from_state(tiny(8).state_dict(), "toy").input.input.dtype == torch.float64


def test_every_missing_misshapen_or_broken_tensor_is_named():
    state = tiny(32, torch.float32, channels={4: 6, 8: 5, 16: 4, 32: 3}).state_dict()
    for key, value in state.items():
        without = {other: kept for other, kept in state.items() if other != key}
        with pytest.raises(WeightsError) as caught:
            generator_from_state(without, "toy.pt")
        assert key in str(caught.value) and "toy.pt" in str(caught.value)
        longer = {**state, key: torch.cat([value, value], dim=-1)}
        with pytest.raises(WeightsError, match=key.replace(".", r"\.") + r" \(shape \("):
            generator_from_state(longer, "toy.pt")
        broken = {**state, key: torch.full_like(value, float("nan"))}
        with pytest.raises(WeightsError, match="not finite"):
            generator_from_state(broken, "toy.pt")


def test_all_that_is_wrong_is_in_one_message():
    state = tiny(16, torch.float32).state_dict()
    del state["conv1.noise.weight"], state["noises.noise_2"]
    state["unknown"] = torch.zeros(1)
    state["style.1.bias"] = torch.zeros(6)
    state["to_rgb1.bias"] = torch.zeros(1, 2, 1, 1, dtype=torch.int64)
    with pytest.raises(WeightsError) as caught:
        generator_from_state(state, "toy.pt")
    text = str(caught.value)
    assert "missing: conv1.noise.weight, noises.noise_2" in text
    assert "not expected: unknown" in text
    assert "style.1.bias (shape (6,), not (5,))" in text
    assert "to_rgb1.bias (torch.int64" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "no conditional StyleGAN2 generator of a size from 8 to 8192: it holds 0 tensors"),
        ({"fc.weight": torch.zeros(3)}, "it holds 1 tensors, fc.weight"),
        ({"to_rgbs.999.bias": torch.zeros(1)}, "of a size from 8 to 8192"),
        ({"step": 3, 4: torch.zeros(1)}, "no state dict: these entries are no tensors: step, 4"),
    ],
)
def test_states_of_other_networks_are_refused(state, message):
    with pytest.raises(WeightsError, match=message):
        generator_from_state(state, "toy.pt")


def test_a_long_list_is_shortened():
    state = tiny(32, torch.float32).state_dict()
    state |= {f"d_{i}": torch.zeros(1) for i in range(50)}
    with pytest.raises(WeightsError, match="d_7 and 42 more"):
        generator_from_state(state, "toy.pt")


# -------------------------------------------------------------------------------------------- the original's numbers


def reference(name):
    if not (REFERENCE / name).is_file():
        pytest.skip("no folder ../shared/reference with numbers of the original code")
    return REFERENCE / name


def filled(name, shape):
    """The recipe of the reference: each tensor is drawn from its own name."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    if name.endswith("modulation.bias"):
        return 1 + 0.1 * x
    return 0.1 * x if name.endswith(("bias", "noise.weight")) else x


def test_official_widths():
    expected = {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64, 1024: 32}
    assert official_channels(1024) == expected
    assert official_channels(128, multiplier=1) == {4: 512, 8: 512, 16: 512, 32: 512, 64: 256, 128: 128}


@pytest.mark.parametrize(("kind", "channels"), [("detail", 6), ("expression", 3)])
def test_tensors_are_those_of_the_official_checkpoints(kind, channels):
    expected = json.loads(reference(f"generator_{kind}_state.json").read_text())
    with torch.device("meta"):
        state = ConditionalGenerator(1024, image_channels=channels).state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == expected


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["detail", "expression"])
def test_parity_with_the_original(kind):
    shapes = json.loads(reference(f"generator_{kind}_state.json").read_text())
    state = {name: filled(name, shape) for name, shape in shapes.items() if not name.endswith(".kernel")}
    generator = generator_from_state(state, kind)
    with np.load(reference("generator_expected.npz")) as stored:
        expected = dict(stored)
    draw = torch.Generator().manual_seed(int(expected["seed"]))
    z = torch.randn(1, 512, generator=draw)
    condition = 0.3 * torch.randn(1, 6, 1024, 1024, generator=draw)
    sizes = [4] + [2**level for level in range(3, 11) for _ in range(2)]
    noise = [torch.randn(1, 1, size, size, generator=draw) for size in sizes]
    with torch.no_grad():
        image, latents = generator(z, condition, noise)
    found = {
        "samples": image[0][:, expected["rows"]][:, :, expected["cols"]].numpy(),
        "latent": latents[0, 0].numpy(),
        "mean": image[0].mean((1, 2)).numpy(),
        "std": image[0].std((1, 2)).numpy(),
    }
    for key, value in found.items():
        wanted = expected[f"{kind}_{key}"]
        assert np.abs(value - wanted).max() < 1e-5 * np.abs(wanted).max(), key


# ---------------------------------------------------------------------------------------- small conditions and windows
def lively(**options):
    """A generator whose noise and biases matter, as after training."""
    generator = torch.manual_seed(3) and ConditionalGenerator(64, style_dim=8, mapping_layers=2, **options)
    with torch.no_grad():
        for name, values in generator.named_parameters():
            if name.endswith(("noise.weight", ".bias")):
                values.add_(0.3 * torch.randn_like(values))
    return generator.double()


@pytest.mark.parametrize("condition_size", [8, 16, 64])
@pytest.mark.parametrize(("corner", "side"), [((0, 0), 16), ((20, 36), 24), ((40, 40), 24), ((0, 0), 64)])
def test_a_window_is_cut_out_of_the_full_picture(condition_size, corner, side):
    channels = dict.fromkeys((4, 8, 16, 32, 64), 6)
    generator = lively(channels=channels, condition_size=condition_size, places=(8, 16, 32, 64))
    condition = torch.randn(2, 6, condition_size, condition_size, dtype=torch.float64)
    latents = generator.mapping(torch.randn(2, 8, dtype=torch.float64))
    noise = [values.double() for values in generator.make_noise(5)]
    full = generator.synthesis(latents, condition, noise)
    whole, window = generator.window_synthesis(latents, condition, noise, whole=16, corner=corner, side=side)
    assert whole.shape == (2, 3, 16, 16)
    row, column = corner
    torch.testing.assert_close(window, full[:, :, row : row + side, column : column + side])
    torch.testing.assert_close(generator.synthesis(latents, condition, noise, until=16), whole)
    with pytest.raises(ParameterError, match="until must be one of 4, 8, 16, 32, 64, got 24"):
        generator.synthesis(latents, condition, noise, until=24)


NO_WINDOWS = [(64, (0, 0), 16), (16, (2, 0), 16), (16, (52, 0), 16), (16, (0, 0), 6)]


@pytest.mark.parametrize(("whole", "corner", "side"), NO_WINDOWS)
def test_windows_that_do_not_exist_are_refused(whole, corner, side):
    generator = lively(channels=dict.fromkeys((4, 8, 16, 32, 64), 4))
    z = torch.zeros(1, 8, dtype=torch.float64)
    condition = torch.zeros(1, 6, 64, 64, dtype=torch.float64)
    with pytest.raises(ParameterError, match="window starts|whole must be"):
        generator.window_synthesis(generator.mapping(z), condition, whole=whole, corner=corner, side=side)


def test_a_small_condition_is_read_off_the_tensors_and_refused_above_the_size():
    generator = lively(channels=dict.fromkeys((4, 8, 16, 32, 64), 4), condition_size=16, places=(8, 32))
    again = generator_from_state(generator.state_dict(), "small")
    assert again.condition_size == 16 and len(again.comb_convs) == 1 and set(again.places) == {"8", "32"}
    z, condition = torch.randn(1, 8, dtype=torch.float64), torch.randn(1, 6, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(again(z, condition)[0], generator(z, condition)[0])
    with pytest.raises(ParameterError, match="condition_size must be a power of two from 8 to 64"):
        ConditionalGenerator(64, condition_size=128)


def test_places_are_resolutions_of_the_generator():
    with pytest.raises(ParameterError, match="places must be resolutions from 8 to 64, not 128"):
        ConditionalGenerator(64, places=(32, 128))
