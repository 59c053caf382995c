"""One training step of a detail generator; the loop around it is in `generators`.

Two discriminators see what is cheap to synthesise: the whole image at low resolution, and a window at full resolution.
Their loss is the non-saturating logistic loss with R1 regularisation (Karras et al. 2020). Before and beside it, a
texture loss teaches pores. Where the latent z of a sample is known, the expectation over noise of the synthesised image
must match the sample: creases are a function of z, pores are not.

Differences from StyleGAN2: no adaptive augmentation, because samples are synthetic and unlimited; no path length
regularisation, because latents are fitted only near the mean, with a prior; no mirroring, see `detail_data`. Letters
as there.
"""

from __future__ import annotations

import copy
import json
import re
from dataclasses import asdict, dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..detail.stylegan import ConditionalGenerator
from ..errors import FaceVerseError, ParameterError
from .detail_data import DetailBatch, DetailData, area_average, condition_window
from .discriminator import Discriminator, gradient_penalty
from .generator_plans import GeneratorPlan
from .texture_loss import texture_loss

_LARGEST_GRADIENT, _NORM_DECAY = (
    2.0,
    0.05,
)  # clipping of each parameter's gradient norm relative to its running mean, decay
_SPECTRUM_WEIGHTS = 0.5, 1.0  # of whole images and windows, relative to the plain texture loss
_PORE_RESOLUTION, _LITTLE_NOISE = 128, 0.05  # first resolution of pores, and initial noise weight of the coarser layers
_LARGEST_GAIN = 3.0  # bound of the spatial noise gains
_DIVERGED = 20.0  # times the loss of zeros
_GAMMA_PACE, _GAMMA_RANGE = 0.05, (0.01, 1e4)  # adaptation rate of R1's weight per step and unit of the loss; bounds


# -- settings ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class TrainingSettings:
    """Hyperparameters of the training.

    Args:
        batch: N.
        rate: learning rate of Adam.
        warm_up_rate: initial learning rate of the generator, decayed geometrically to `rate` during the warm-up.
        mapping_rate: multiplier for the mapping network, which otherwise learns a hundred times slower than the
            rest: too slow for runs of some thousand steps in which z has known meanings.
        place_rate: multiplier for the learned position maps, each number of which serves one position only.
        noise_rate: multiplier for the noise weights and gains.
        warm_up: share of the run in which the rates decay.
        adversarial: share of the run after which the discriminators take part. The other losses need no second
            network: within an hour they achieve more than a discriminator would.
        matching: weight of the matching loss at the start and at the end of the adversarial phase.
        texture: weight of the texture loss.
        spectrum: share of the run after which textures are also compared band by band.
        fresh: share of samples whose z is resampled, so that the whole latent space is trained.
        low_pass: texels over which a window is averaged before matching; 1 prevents pores at fixed positions.
        first_contrast: initial contrast of the images relative to StyleGAN2's.
        first_noise: initial weight of the noise at the resolutions of pores and hairs; coarser noise starts near 0.
        gamma: initial weight of R1. It is adapted to the discriminators: one that is nearly always right provides no
            useful gradient, and the right weight depends on sizes, data and the state of the generator.
        critic: target of the discriminator loss for this adaptation; 1.39 is chance, 0 is perfect discrimination.
        penalty_every: steps between R1 evaluations, per discriminator (lazy regularisation).
        average: half-life of the exponential moving average of the generator, in samples.
        bfloat16: run convolutions in bfloat16: hardly faster on a CPU, where memory bandwidth dominates.
    """

    batch: int = 8
    rate: float = 2e-3
    warm_up_rate: float = 1e-2
    mapping_rate: float = 50.0
    place_rate: float = 5.0
    noise_rate: float = 1.0
    warm_up: float = 0.4
    adversarial: float = 0.75
    matching: tuple[float, float] = (10.0, 5.0)
    texture: float = 3.0
    spectrum: float = 0.5
    fresh: float = 0.25
    low_pass: int = 1
    first_contrast: float = 0.1
    first_noise: float = 0.4
    gamma: float = 50.0
    critic: float = 0.9
    penalty_every: int = 16
    average: float = 5000.0
    bfloat16: bool = False


@dataclass
class StepLosses:
    """Loss values of one step; NaN where a term is not evaluated."""

    critic: float = float("nan")
    adversarial: float = float("nan")
    matching: float = float("nan")
    texture: float = float("nan")
    penalty: float = float("nan")


# -- one step ---------------------------------------------------------------------------------------------------------
class GeneratorTrainer:
    """Networks, optimisers and step counter. The random numbers of a step depend on seed and step number only.

    Args:
        plan: architecture.
        settings: hyperparameters.
        data: training data.
        seed: of weights, order, z and noise.
    """

    def __init__(self, plan: GeneratorPlan, settings: TrainingSettings, data: DetailData, seed: int = 0):
        self.plan, self.settings, self.data, self.seed = plan, settings, data, seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.generator, self.critics = plan.generator(), plan.critics()
        with torch.no_grad():
            # The images of a fresh generator are strong noise, which a short run would first have to unlearn.
            for name, weight in self.generator.named_parameters():
                if name.startswith("to_rgb") and name.endswith("conv.weight"):
                    weight.mul_(settings.first_contrast)
                # At weight zero the expected gradient vanishes: noise would be discovered late and by chance.
                if name.endswith("noise.weight"):
                    weight.fill_(settings.first_noise if _side(name) >= _PORE_RESOLUTION else _LITTLE_NOISE)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        lazy = settings.penalty_every / (settings.penalty_every + 1)
        kinds: dict[str, list[torch.nn.Parameter]] = {"style": [], "places": [], "noise": [], "other": []}
        for name, part in self.generator.named_parameters():
            kind = name.partition(".")[0].replace("noise_gains", "noise")
            kind = "noise" if name.endswith("noise.weight") else kind
            kinds.get(kind, kinds["other"]).append(part)
        groups = [{"params": parts} for parts in kinds.values()]
        self.optimizer = torch.optim.Adam(groups, settings.rate, betas=(0.5, 0.99))
        # R1 uses extra optimiser steps, hence the correction (Karras et al. 2020, appendix B).
        self.critic_optimizer = torch.optim.Adam(
            self.critics.parameters(), settings.rate * lazy, betas=(0.0, 0.99**lazy)
        )
        self.steps, self.seconds = 0, 0.0
        self.gradient_norms = torch.zeros(len(list(self.generator.parameters())))  # running mean of the gradient norms
        self.gamma = [settings.gamma] * len(self.critics)
        region = torch.from_numpy(data.region)[None, None].float()
        self._region = region / region.mean()

    def step(self, progress: float) -> StepLosses:
        """Perform one step of all networks.

        Args:
            progress: 0..1, finished share of the run.
        """
        settings, rng = self.settings, np.random.default_rng([self.seed, self.steps])
        # Each sample twice, with the same z and independent noise, see `_matching`.
        half = rng.choice(self.data.training, settings.batch // 2, replace=False)
        numbers = np.concatenate([half, half])
        corner = self.random_corner(rng)
        batch = self.data.batch(numbers, corner, self.plan.window)
        fresh = torch.from_numpy(rng.random(settings.batch // 2) < settings.fresh).repeat(2)
        known = batch.known & ~fresh
        drawn = torch.Generator().manual_seed(int(rng.integers(2**62)))
        partly_known = batch.known | (batch.z != 0).any(1)
        own = known[:, None] | (partly_known[:, None] & (torch.arange(batch.z.shape[1]) < self.plan.tied))
        z = torch.where(own, batch.z, torch.randn(batch.z[: len(half)].shape, generator=drawn).repeat(2, 1))
        pictures = self._pictures(batch, z, drawn, corner)
        losses = StepLosses()
        self._set_rate(progress)
        adversarial = progress >= settings.adversarial
        conditions = self._conditions(batch, corner)
        data = [found / self.data.spread for found in (batch.whole, batch.window)]
        if adversarial:
            losses.critic = self._critic_step(pictures, data, conditions)
            losses.penalty = self._penalty_step(data, conditions)
        loss = torch.zeros(())
        if adversarial:
            loss = self._adversarial(pictures, conditions)
            losses.adversarial = float(loss.detach())
        if known.any():
            matching = self._matching(pictures, data, known)
            losses.matching = float(matching.detach())
            loss = loss + self._matching_weight(progress) * matching
        if settings.texture:
            texture = texture_loss(pictures[1], data[1], known, drawn)
            if progress >= settings.spectrum:
                parts = zip(_SPECTRUM_WEIGHTS, pictures, data)
                banded = (w * texture_loss(made, real, known, drawn, in_bands=True) for w, made, real in parts)
                texture = texture + cast(Tensor, sum(banded))
            losses.texture = float(texture.detach())
            loss = loss + settings.texture * texture
        if loss.requires_grad:
            self._descend(loss)
        self.steps += 1
        self._update_average()
        found = [value for value in (losses.matching, losses.texture) if value == value]
        if not np.isfinite(found).all() or max(np.abs(found), default=0.0) > _DIVERGED:
            raise FaceVerseError("training.diverged", steps=self.steps)
        return losses

    def _descend(self, loss: Tensor) -> None:
        """Update the generator, with each parameter's gradient norm clipped relative to its running mean.

        Without clipping, Adam would take a step of several times its rate after a spike, from which the learned
        position maps do not recover.
        """
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for number, parameter in enumerate(self.generator.parameters()):
            if parameter.grad is None:
                continue
            size, usual_norm = float(parameter.grad.norm()), float(self.gradient_norms[number])
            if usual_norm and size > _LARGEST_GRADIENT * usual_norm:
                parameter.grad.mul_(_LARGEST_GRADIENT * usual_norm / size)
                size = _LARGEST_GRADIENT * usual_norm
            self.gradient_norms[number] = usual_norm + _NORM_DECAY * (size - usual_norm) if usual_norm else size
        self.optimizer.step()
        with torch.no_grad():
            for gains in self.generator.noise_gains.values():
                gains.clamp_(-_LARGEST_GAIN, _LARGEST_GAIN)

    def random_corner(self, rng: np.random.Generator) -> tuple[int, int]:
        """Random corner of a window whose centre lies inside the bounding box of the detail."""
        shape, side = self.plan.shape, self.plan.window
        # The window must be aligned with the texels of the reduced image and of the condition.
        grid = max(shape.size // shape.whole, shape.size // shape.condition_size)
        top, left, bottom, right = self.data.box
        corner = []
        for low, high in ((top, bottom), (left, right)):
            low, high = (min(max(edge, 0), shape.size - side) for edge in (low - side // 4, high - 3 * side // 4))
            corner.append(grid * int(rng.integers(low // grid, max(high, low) // grid + 1)))
        return corner[0], corner[1]

    def _precision(self):
        return torch.autocast("cpu", torch.bfloat16, enabled=self.settings.bfloat16)

    def _pictures(self, batch: DetailBatch, z: Tensor, drawn: torch.Generator, corner: tuple[int, int]) -> list[Tensor]:
        """Synthesised whole image and window, in standard deviations of the data."""
        noise = [torch.randn(len(z), 1, side, side, generator=drawn) for side in self.generator.noise_sizes]
        latents, shape = self.generator.mapping(z), self.plan.shape
        with self._precision():
            whole, window = self.generator.window_synthesis(
                latents, batch.condition, noise, whole=shape.whole, corner=corner, side=self.plan.window
            )
        # Unobserved parts of a scan are zero in the data; they are zeroed here too, so that both are comparable.
        return [whole.float() * batch.whole_seen, window.float() * batch.window_seen]

    def _conditions(self, batch: DetailBatch, corner: tuple[int, int]) -> list[Tensor]:
        shape = self.plan.shape
        whole = batch.condition
        if shape.whole > shape.condition_size:
            whole = condition_window(whole, shape.whole, (0, 0), shape.whole)
        return [
            area_average(whole, shape.whole),
            condition_window(batch.condition, shape.size, corner, self.plan.window),
        ]

    def _critic_step(self, pictures: list[Tensor], data: list[Tensor], conditions: list[Tensor]) -> float:
        self.critics.requires_grad_(True)
        losses: list[Tensor] = []
        with self._precision():
            for critic, drawn, real, condition in zip(self.critics, pictures, data, conditions):
                logits = critic(drawn.detach(), condition), -critic(real, condition)
                losses.append(cast(Tensor, sum(F.softplus(logit).mean() for logit in logits)))
        _descend(self.critic_optimizer, cast(Tensor, sum(losses)))
        found = [float(loss.detach()) for loss in losses]
        for number, loss in enumerate(found):
            gamma = self.gamma[number] * np.exp(_GAMMA_PACE * (self.settings.critic - loss))
            self.gamma[number] = float(np.clip(gamma, *_GAMMA_RANGE))
        return sum(found) / len(found)

    def _penalty_step(self, data: list[Tensor], conditions: list[Tensor]) -> float:
        """R1 of one discriminator at a time: they alternate so that steps take equally long."""
        every = self.settings.penalty_every
        turn = {0: 0, every // 2: 1}.get(self.steps % every)
        if turn is None:
            return float("nan")
        penalty = gradient_penalty(cast(Discriminator, self.critics[turn]), data[turn], conditions[turn])
        _descend(self.critic_optimizer, 0.5 * self.gamma[turn] * every * penalty)
        return float(penalty.detach())

    def _adversarial(self, pictures: list[Tensor], conditions: list[Tensor]) -> Tensor:
        self.critics.requires_grad_(False)
        with self._precision():
            logits = [critic(*given) for critic, *given in zip(self.critics, pictures, conditions)]
        return cast(Tensor, sum(F.softplus(-logit).mean() for logit in logits))

    def _matching(self, pictures: list[Tensor], data: list[Tensor], known: Tensor) -> Tensor:
        """Squared error of the noise-averaged synthesis, in standard deviations of the data.

        The product of the errors of two images with independent noise has the squared error of their mean as its
        expectation: pores from noise are free, pores at fixed positions are penalised.
        """
        whole, window = (made - real for made, real in zip(pictures, data))
        averaged = F.avg_pool2d(window, min(self.settings.low_pass, window.shape[-1]))
        half = len(whole) // 2
        chosen = known[:half]
        parts = [_product(maps[:half][chosen], maps[half:][chosen]) for maps in (whole, averaged)]
        return (parts[0] * self._region).mean() + parts[1].mean()

    def _matching_weight(self, progress: float) -> float:
        """Weight that decays geometrically during the adversarial phase."""
        first, last = self.settings.matching
        share = (progress - self.settings.adversarial) / max(1 - self.settings.adversarial, 1e-6)
        return first * (last / first) ** min(max(share, 0.0), 1.0)

    def result(self) -> ConditionalGenerator:
        """The averaged generator, in the units of the data."""
        return scaled_to_units(self.average, self.data.spread)

    def _set_rate(self, progress: float) -> None:
        settings = self.settings
        share = min(progress / settings.warm_up, 1.0) if settings.warm_up > 0 else 1.0
        rate = settings.warm_up_rate * (settings.rate / settings.warm_up_rate) ** share
        factors = settings.mapping_rate, settings.place_rate, settings.noise_rate, 1.0
        for group, factor in zip(self.optimizer.param_groups, factors):
            group["lr"] = rate * factor

    def _update_average(self) -> None:
        """Update the moving average of the generator; its half-life is shorter at the start."""
        seen = self.steps * self.settings.batch
        half_life = min(self.settings.average, 0.1 * seen)
        share = 1 - 0.5 ** (self.settings.batch / half_life)
        ours: list[Tensor] = list(self.average.parameters())
        theirs: list[Tensor] = list(self.generator.parameters())
        with torch.no_grad():
            torch._foreach_lerp_(ours, theirs, share)

    # -- state ----------------------------------------------------------------------------------------------------
    def state(self) -> dict:
        """Everything that a run needs to resume exactly."""
        parts = ("generator", "critics", "average", "optimizer", "critic_optimizer")
        state = {name: getattr(self, name).state_dict() for name in parts}
        return {
            **state,
            "steps": self.steps,
            "seconds": self.seconds,
            "gamma": self.gamma,
            "usual": self.gradient_norms,
            "made_for": self._made_for(),
        }

    def load(self, state: dict) -> None:
        """Restore `state()`.

        Raises:
            ParameterError: the plan, settings or seed differ.
        """
        if state["made_for"] != self._made_for():
            raise ParameterError("training.other_run")
        for name in ("generator", "critics", "average", "optimizer", "critic_optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.steps, self.seconds, self.gamma = state["steps"], state["seconds"], list(state["gamma"])
        self.gradient_norms = state["usual"].clone()

    def _made_for(self) -> str:
        return json.dumps([asdict(self.plan), asdict(self.settings), self.seed, len(self.data)], sort_keys=True)


def scaled_to_units(generator: ConditionalGenerator, spread: Tensor) -> ConditionalGenerator:
    """Copy of a generator whose outputs are multiplied by a factor (C, 1, 1) per channel.

    Generators are trained in standard deviations of the data, so that all channels learn equally fast.
    """
    scaled = copy.deepcopy(generator)
    with torch.no_grad():
        for name, value in scaled.named_parameters():
            if re.fullmatch(r"to_rgb(1|s\.\d+)\.(conv\.weight|bias)", name):
                value.mul_(spread[None] if name.endswith("bias") else spread[None, ..., None])
    return scaled


def _product(one: Tensor, other: Tensor) -> Tensor:
    """Half the product of two errors, linear for large errors like Huber's loss.

    The denominator must not depend on whether the errors agree: else noise alone could lower the loss without bound.
    """
    size = (0.5 * (one.square() + other.square())).sqrt().detach().clamp_min(1)
    return 0.5 * one * other / size


def _side(name: str) -> int:
    """Resolution of the layer with a noise weight: "conv1.noise.weight" 4, "convs.3.noise.weight" 16."""
    layer = name.split(".")[1]
    return 8 << int(layer) // 2 if layer.isdecimal() else 4


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
