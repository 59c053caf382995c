"""A conditional StyleGAN2 generator, from a random vector and condition maps to an image.

The synthesis network of Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", with a second
input: residual blocks encode the condition maps, and their features join the synthesis at every resolution from 8 to
half the size. Names and shapes of the tensors are those of the checkpoints of FaceVerse (Wang et al. 2022), which are
those of rosinality's stylegan2-pytorch plus `cond_convs1`, `cond_convs` and `comb_convs`.
Plain torch: any device, float32 or float64, gradients of any order. Dimensions: N batch, S size, D style_dim,
L latents (2 log2 S - 2: one per convolution, and one for the last image), I and O channels in and out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ..errors import ParameterError, WeightsError
from ..messages import Message, joined
from .stylegan_layers import (
    BiasAct,
    Constant,
    EqualConv,
    EqualLinear,
    Join,
    PixelNorm,
    Resample,
    ResBlock,
    StyledConv,
    ToImage,
)

_MAPPING_RATE = 0.01  # learning rate of the mapping network relative to the rest
_LARGEST = 8192
_WINDOW_MARGIN = 4  # coarse pixels around a window; zero padding at its border affects less than three of them
_MISSING_NOISE_SEED = 0
_FRESH_PLACE = 0.05
_LAYOUT = torch.channels_last  # memory format of all maps; a third faster than the default on a CPU


def official_channels(size: int, multiplier: int = 2) -> dict[int, int]:
    """Channels of the official generators by resolution: 512 up to 32, 256 * multiplier at 64, then halving."""
    resolutions = [2**level for level in range(2, int(size).bit_length())]
    return {side: 512 if side <= 32 else max(1, 256 * multiplier * 64 // side) for side in resolutions}


# -- the generator ----------------------------------------------------------------------------------------------------
class ConditionalGenerator(nn.Module):
    """Generate images from random vectors and condition maps: `generator(z, condition)`, or in steps:

        latents = generator.mapping(z)
        features = generator.encode(condition)      # the same for all latents and noise
        image = generator.synthesis(latents, features, noise)

    Initial weights (see `EqualLinear`) are unit normal, noise weights 0, style biases 1.

    Args:
        size: S, side of images in pixels, a power of two from 8.
        style_dim: D, length of z and of a latent.
        mapping_layers: number of layers of the mapping network.
        image_channels: channels of the image.
        condition_channels: channels of the condition maps.
        channels: width of each resolution 4, 8 ... S; None: `official_channels(size)`.
        condition_size: T, side of the condition maps, a power of two from 8 to S; None: S. Small maps suffice for a
            smooth condition, and cost little. Its features join before each upsampling from 8 to T / 2, so that a
            generator with T = 8 ignores it.
        places: resolutions, from 8, at which learned maps are added to the features. They represent structure at fixed
            positions without convolutions, which speeds up training. From the smallest of these resolutions upwards,
            noise is multiplied by learned maps as well. The official generators have none.
    Raises:
        ParameterError: an argument is out of range, or `channels` lacks a resolution.
    """

    def __init__(
        self,
        size: int,
        *,
        style_dim: int = 512,
        mapping_layers: int = 8,
        image_channels: int = 3,
        condition_channels: int = 6,
        channels: Mapping[int, int] | None = None,
        condition_size: int | None = None,
        places: Sequence[int] = (),
    ):
        super().__init__()
        _check_size(size)
        condition_size = size if condition_size is None else condition_size
        _check_size(condition_size, "condition_size", size)
        counts = {"style_dim": style_dim, "image_channels": image_channels, "condition_channels": condition_channels}
        for name, value in {**counts, "mapping_layers": mapping_layers}.items():
            if not isinstance(value, int) or value < 1:
                raise ParameterError("value.whole_from_1", name=name, value=repr(value))
        self.size, self.style_dim, self.channels = size, style_dim, _checked_channels(size, channels)
        self.image_channels, self.condition_channels = image_channels, condition_channels
        self.condition_size = condition_size
        self.noise_sizes = (4, *(side for side in self.channels if side > 4 for _ in range(2)))
        self.latent_count = 2 * (size.bit_length() - 1) - 2

        layers = [EqualLinear(style_dim, style_dim, rate=_MAPPING_RATE, activate=True) for _ in range(mapping_layers)]
        self.style = nn.Sequential(PixelNorm(), *layers)
        widths = list(self.channels.values())
        self._add_synthesis(widths)
        self._add_condition([width for side, width in self.channels.items() if side <= condition_size])
        wrong = [side for side in places if side not in self.channels or side < 8]
        if wrong:
            raise ParameterError("stylegan.places", size=size, found=_listed(wrong))
        maps = {str(side): torch.randn(1, self.channels[side], side, side) * _FRESH_PLACE for side in places}
        self.places = nn.ParameterDict({side: nn.Parameter(values) for side, values in maps.items()})
        sides = [side for side in self.channels if places and side >= min(places)]
        gains = {str(side): nn.Parameter(torch.ones(1, 1, side, side)) for side in sides}
        self.noise_gains = nn.ParameterDict(gains)
        self.noises = nn.Module()
        for layer, side in enumerate(self.noise_sizes):
            self.noises.register_buffer(f"noise_{layer}", torch.randn(1, 1, side, side))

    def _add_synthesis(self, widths: list[int]) -> None:
        self.input = Constant(widths[0])
        self.conv1 = StyledConv(widths[0], widths[0], self.style_dim)
        self.to_rgb1 = ToImage(widths[0], self.image_channels, self.style_dim, upsample=False)
        self.convs, self.to_rgbs = nn.ModuleList(), nn.ModuleList()
        for inputs, outputs in zip(widths, widths[1:]):
            self.convs.append(StyledConv(inputs, outputs, self.style_dim, upsample=True))
            self.convs.append(StyledConv(outputs, outputs, self.style_dim))
            self.to_rgbs.append(ToImage(outputs, self.image_channels, self.style_dim))

    def _add_condition(self, widths: list[int]) -> None:
        conv = EqualConv(self.condition_channels, widths[-1], 3, padding=1)
        self.cond_convs1 = nn.Sequential(conv, BiasAct(widths[-1]))
        downwards = widths[:0:-1]  # from the full size to 8
        pairs = list(zip(downwards, downwards[1:]))
        self.cond_convs = nn.ModuleList(ResBlock(inputs, outputs) for inputs, outputs in pairs)
        self.comb_convs = nn.ModuleList(Join(outputs) for _, outputs in pairs)

    def forward(self, z: Tensor, condition: Tensor, noise: Sequence[Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Generate images and return them with their latents.

        Args:
            z: (N, D), unit normal for typical images.
            condition: (N or 1, condition_channels, T, T).
            noise: one map per layer, (N or 1, 1, 4, 4), then two each of 8, 16 ... S; None: the stored maps.
        Returns:
            image (N, image_channels, S, S); latents (N, L, D).
        Raises:
            ParameterError: a tensor has another shape, number type or device.
        """
        latents = self.mapping(z)
        return self.synthesis(latents, condition, noise), latents

    def mapping(self, z: Tensor) -> Tensor:
        """Map random vectors (N, D) to latents (N, L, D), the same one for all layers."""
        self._check("z", z, (None, self.style_dim))
        return self.style(z)[:, None].repeat(1, self.latent_count, 1)

    def encode(self, condition: Tensor) -> tuple[Tensor, ...]:
        """Encode the condition to the features that `synthesis` joins, from T / 2 down to 8.

        Args:
            condition: (N or 1, condition_channels, T, T).
        """
        self._check("condition", condition, (None, self.condition_channels, *[self.condition_size] * 2))
        maps, parts = self.cond_convs1(condition.contiguous(memory_format=_LAYOUT)), []
        for halve, join in zip(self.cond_convs, self.comb_convs):
            assert isinstance(join, Join)
            maps = halve(maps)
            parts.append(join.part(maps))
        return tuple(parts)

    def synthesis(
        self,
        latents: Tensor,
        condition: Tensor | Sequence[Tensor],
        noise: Sequence[Tensor] | None = None,
        *,
        until: int | None = None,
    ) -> Tensor:
        """Generate an image (N, image_channels, S, S) from latents (N, L, D).

        Args:
            condition, noise: as in `forward`; or the condition's features from `encode`.
            until: a resolution below S, at which to stop and return a smaller image, at a fraction of the cost.
        """
        parts, noise = self._checked_inputs(latents, condition, noise)
        if until is not None and until not in self.channels:
            raise ParameterError("stylegan.until", channels=_listed(self.channels), until=repr(until))
        maps, image = self._start(latents, noise)
        for step in range((until or self.size).bit_length() - 3):
            maps, image = self._doubled(step, maps, image, latents, parts, noise)
        return image

    def window_synthesis(
        self,
        latents: Tensor,
        condition: Tensor | Sequence[Tensor],
        noise: Sequence[Tensor] | None = None,
        *,
        whole: int = 128,
        corner: tuple[int, int] = (0, 0),
        side: int = 128,
    ) -> tuple[Tensor, Tensor]:
        """Generate the whole image at a low resolution and a window of the full one, for fast training.

        Args:
            latents, condition, noise: as in `synthesis`.
            whole: resolution, below S, of the first image: the sum of the layers up to there.
            corner: row and column of the window's first pixel, multiples of S / whole.
            side: of the window, a multiple of S / whole.
        Returns:
            (N, image_channels, whole, whole), and (N, image_channels, side, side), equal to a crop of what
            `synthesis` returns.
        Raises:
            ParameterError: as in `synthesis`, or the window is out of range.
        """
        parts, noise = self._checked_inputs(latents, condition, noise)
        _check_window(self.size, whole, corner, side)
        factor = self.size // whole
        first = [max(0, edge // factor - _WINDOW_MARGIN) for edge in corner]
        last = [min(whole, (edge + side) // factor + _WINDOW_MARGIN) for edge in corner]

        def cut(maps: Tensor) -> Tensor:
            scale = maps.shape[2] // whole
            rows, columns = (slice(a * scale, b * scale) for a, b in zip(first, last))
            return maps[:, :, rows, columns] if scale else maps

        maps, image = self._start(latents, noise)
        steps = whole.bit_length() - 3
        for step in range(steps):
            maps, image = self._doubled(step, maps, image, latents, parts, noise)
        picture, maps, window = image, cut(maps), cut(image)
        places, gains = (
            {side: cut(values) for side, values in maps_of.items() if int(side) > whole}
            for maps_of in (self.places, self.noise_gains)
        )
        parts, noise = tuple(cut(part) for part in parts), [cut(values) for values in noise]
        for step in range(steps, len(self.to_rgbs)):
            maps, window = self._doubled(step, maps, window, latents, parts, noise, (places, gains))
        row, column = (edge - low * factor for edge, low in zip(corner, first))
        return picture, window[:, :, row : row + side, column : column + side]

    def _start(self, latents: Tensor, noise: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Feature maps and image at resolution 4."""
        maps = self.input.input.expand(len(latents), -1, -1, -1).contiguous(memory_format=_LAYOUT)
        maps = self.conv1(maps, latents[:, 0], noise[0])
        return maps, self.to_rgb1(maps, latents[:, 1])

    def _doubled(
        self,
        step: int,
        maps: Tensor,
        image: Tensor,
        latents: Tensor,
        parts: Sequence[Tensor],
        noise: Sequence[Tensor],
        learned: tuple[Mapping[str, Tensor], Mapping[str, Tensor]] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Feature maps and image at twice the resolution; learned: `places` and noise gains, cropped as the maps."""
        places, gains = (self.places, self.noise_gains) if learned is None else learned
        layer, side = 2 * step + 1, str(8 << step)
        noise = noise[layer : layer + 2]
        if side in gains:
            noise = [values * gains[side] for values in noise]
        if 0 < step <= len(parts):
            maps = self.comb_convs[-step](maps, parts[-step])
        maps = self.convs[layer - 1](maps, latents[:, layer], noise[0])
        if side in places:
            maps = maps + places[side]
        maps = self.convs[layer](maps, latents[:, layer + 1], noise[1])
        return maps, self.to_rgbs[step](maps, latents[:, layer + 2], image)

    def make_noise(self, seed: int, count: int = 1) -> list[Tensor]:
        """Unit normal noise maps for `forward`, (count, 1, 4, 4) and so on; the same on every device."""
        generator = torch.Generator().manual_seed(seed)
        like = self.input.input
        return [torch.randn(count, 1, side, side, generator=generator).to(like) for side in self.noise_sizes]

    @torch.no_grad()
    def mean_latent(self, count: int = 4096, seed: int = 0) -> Tensor:
        """Mean (1, L, D) of the latents of `count` random z, for truncation to more typical images:
        `generator.mean_latent().lerp(latents, 0.7)`."""
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(count, self.style_dim, generator=generator).to(self.input.input)
        return self.style(z).mean(dim=0)[None, None].repeat(1, self.latent_count, 1)

    def _check(self, name: str, value: Tensor, shape: tuple[int | None, ...]) -> None:
        """Check shape, dtype and device of a tensor; None in the shape: any length from 1."""
        like = self.input.input
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        fits = len(got) == len(shape) and all(a == b or (b is None and a > 0) for a, b in zip(got, shape))
        if not isinstance(value, Tensor) or not fits:
            expected = ", ".join("N" if side is None else str(side) for side in shape)
            raise ParameterError("stylegan.tensor", name=name, expected=expected, found=got)
        if value.dtype != like.dtype or value.device != like.device:
            raise ParameterError(
                "stylegan.place",
                name=name,
                dtype=value.dtype,
                device=value.device,
                own_dtype=like.dtype,
                own_device=like.device,
            )

    def _checked_inputs(
        self, latents: Tensor, condition: Tensor | Sequence[Tensor], noise: Sequence[Tensor] | None
    ) -> tuple[tuple[Tensor, ...], Sequence[Tensor]]:
        """Features of the condition, and noise maps."""
        self._check("latents", latents, (None, self.latent_count, self.style_dim))
        noise = self._checked_noise(noise, len(latents))
        parts = self.encode(condition) if isinstance(condition, Tensor) else tuple(condition)
        if len(parts) != len(self.comb_convs):
            raise ParameterError("stylegan.condition_count", found=len(parts))
        if any(len(part) not in (1, len(latents)) for part in parts):
            raise ParameterError("stylegan.condition_batch", found=len(parts[0]), expected=len(latents))
        return parts, noise

    def _checked_noise(self, noise: Sequence[Tensor] | None, count: int) -> Sequence[Tensor]:
        if noise is None:
            return list(self.noises.buffers())
        if len(noise) != len(self.noise_sizes):
            raise ParameterError("stylegan.noise_count", expected=len(self.noise_sizes), found=len(noise))
        for layer, (values, side) in enumerate(zip(noise, self.noise_sizes)):
            self._check(f"noise[{layer}]", values, (None, 1, side, side))
            if len(values) not in (1, count):
                raise ParameterError("stylegan.noise_batch", layer=layer, found=len(values), expected=count)
        return noise


def _check_size(size: int, name: str = "size", largest: int = _LARGEST) -> None:
    if not isinstance(size, int) or not 8 <= size <= largest or size & (size - 1):
        raise ParameterError("stylegan.size", name=name, largest=largest, size=repr(size))


def _check_window(size: int, whole: int, corner: tuple[int, int], side: int) -> None:
    _check_size(whole, "whole", size // 2)
    factor = size // whole
    if side < 1 or side % factor or any(edge % factor or not 0 <= edge <= size - side for edge in corner):
        raise ParameterError("stylegan.window", factor=factor, size=size, side=side, corner=tuple(corner))


def _checked_channels(size: int, channels: Mapping[int, int] | None) -> dict[int, int]:
    """Width by resolution, in the order 4, 8 ... size."""
    widths = official_channels(size) if channels is None else channels
    resolutions = list(official_channels(size))
    wrong = [side for side in resolutions if not isinstance(widths.get(side), int) or widths[side] < 1]
    if wrong:
        raise ParameterError("stylegan.channels", resolutions=_listed(wrong))
    return {side: widths[side] for side in resolutions}


# -- from a checkpoint ------------------------------------------------------------------------------------------------
def generator_from_state(state: Mapping[str, Tensor], name: str) -> ConditionalGenerator:
    """Build a generator from its state dict; size and widths are inferred from the shapes of the tensors.

    Blur kernels, which are constant, and noise maps may be missing, all of them; the latter are then drawn from a fixed
    seed. Half precision is converted to float32; the state is copied.

    Args:
        state: tensors by name, see the module's docstring.
        name: of the file or other source of the state, for messages.
    Raises:
        WeightsError: missing, unexpected or misshapen tensors or values, all of them in one message.
    """
    wrong = [key for key, value in state.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if wrong:
        raise WeightsError("stylegan.no_state", name=name, keys=_listed(wrong))
    generator = _empty_generator(state, name)
    expected = generator.state_dict()
    given = set(state)
    for optional in (r".*\.kernel", r"noises\..*"):
        group = {key for key in expected if re.fullmatch(optional, key)}
        given |= set() if group & given else group
    problems = {
        "array.missing": [key for key in expected if key not in given],
        "array.extra": [key for key in state if key not in expected],
        "array.unusable": [
            f"{key} ({why})" for key in expected if key in state and (why := _fault(state[key], expected[key]))
        ],
    }
    if any(problems.values()):
        found = joined(Message(code, keys=_listed(keys)) for code, keys in problems.items() if keys)
        raise WeightsError("stylegan.unfit", name=name, size=generator.size, problems=found)

    double = any(value.dtype == torch.float64 for value in state.values())
    generator = generator.to(torch.float64 if double else torch.float32).to_empty(device="cpu")
    for module in generator.modules():
        if isinstance(module, Resample):
            module.reset()
    for kept, drawn in zip(generator.noises.buffers(), generator.make_noise(_MISSING_NOISE_SEED)):
        kept.copy_(drawn)
    generator.load_state_dict({**generator.state_dict(), **state})
    return generator


def _empty_generator(state: Mapping[str, Tensor], name: str) -> ConditionalGenerator:
    """Create a generator on the meta device, with the size that most of the tensors have."""
    steps = _count(r"to_rgbs\.(\d{1,3})\..*", state)
    if not 0 < steps < _LARGEST.bit_length() - 2:
        raise WeightsError(
            "stylegan.no_generator", name=name, largest=_LARGEST, tensors=len(state), keys=_listed(state, 3)
        )
    channels = {4: _length(state, ("input.input", 1), *_width_axes("conv1", "to_rgb1"))}
    for step in range(steps):
        first = ((f"convs.{2 * step}.conv.weight", 1), (f"convs.{2 * step}.activate.bias", 0))
        channels[8 << step] = _length(state, *first, *_width_axes(f"convs.{2 * step + 1}", f"to_rgbs.{step}"))
    with torch.device("meta"):
        return ConditionalGenerator(
            4 << steps,
            style_dim=_length(state, *((key, 1) for key in state if key.endswith("modulation.weight"))),
            mapping_layers=max(_count(r"style\.(\d{1,3})\..*", state) - 1, 1),
            image_channels=_length(state, *((key, 1) for key in state if re.fullmatch(r"to_rgb(1|s\.\d+)\.bias", key))),
            condition_channels=_length(state, ("cond_convs1.0.weight", 1)),
            channels=channels,
            places=sorted(int(key.split(".")[1]) for key in state if re.fullmatch(r"places\.\d{1,4}", key)),
            condition_size=min(8 << _count(r"cond_convs\.(\d{1,3})\..*", state), 4 << steps),
        )


def _width_axes(conv: str, to_image: str) -> list[tuple[str, int]]:
    """Tensors and axes whose length is the number of channels between two layers."""
    ends = ("conv.weight", 2), ("conv.modulation.bias", 0)
    axes = [(f"{layer}.{end}", axis) for layer in (conv, to_image) for end, axis in ends]
    return [*axes, (f"{conv}.activate.bias", 0)]


def _length(state: Mapping[str, Tensor], *places: tuple[str, int]) -> int:
    """Most common length among axes of tensors; 1 if there are none."""
    lengths = [state[key].shape[axis] for key, axis in places if key in state and state[key].ndim > axis]
    return max(Counter(lengths).most_common(1)[0][0], 1) if lengths else 1


def _count(pattern: str, state: Mapping[str, Tensor]) -> int:
    """One more than the largest index in the keys that match."""
    return max((int(found[1]) + 1 for key in state if (found := re.fullmatch(pattern, key))), default=0)


def _fault(value: Tensor, expected: Tensor) -> str:
    if value.shape != expected.shape:
        return f"shape {tuple(value.shape)}, not {tuple(expected.shape)}"
    if not value.is_floating_point() or value.layout is not torch.strided:
        return f"{value.dtype} in {value.layout}, not dense floating point"
    return "" if value.isfinite().all() else "values that are not finite"


def _listed(items: Iterable[object], limit: int = 8) -> str:
    texts = [str(item) for item in items]
    rest = f" and {len(texts) - limit} more" if len(texts) > limit else ""
    return ", ".join(texts[:limit]) + rest
