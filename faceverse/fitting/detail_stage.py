"""Detail stages of a fit: GAN inversion of the detail generator, then of the expression generator, by gradient descent.

As in Wang et al. 2022, section 4.3, latents and noise maps of the detail generator are optimized first, then the
latents of the expression generator. Adam minimises a MAP objective: a robust data term in texture space (see
`skin_observation`), a Gaussian prior on the latents and a unit normal prior on the change of the noise. A small network
(`detail.displacement_regressor`) predicts the initial latents from the same maps. A tenth of the texels is held out as
a validation set: an update is kept only if it lowers the validation error. A `Stage` of the detail reports that error
as `before` (initial estimate) and `after`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from ..detail.displacement import condition_maps, displacement_weight
from ..detail.file import has_open_detail, load_detail
from ..detail.latents import (
    check_open,
    known_factors,
    layout_digest,
    maps_of,
    noise_maps,
    open_parts,
    quantised_noise,
    quantised_residual,
    random_detail,
    read_bands,
    read_picture,
    resized,
    wrinkle_condition,
    wrinkles,
)
from ..detail.module import DetailModule
from ..errors import ParameterError
from ..graphics.camera import Camera
from ..model.face_model import FaceModel, FaceParams
from ..result import Stage
from .progress import Progress
from .skin_observation import SkinObservation, inner_weight, observe_skin, shade_sensitivity

MIN_TEXEL_SHARE = 0.02  # share of the map that has to show skin; below, the detail is random
MAX_BLUR_TEXELS = 3.0  # of 512: standard deviation of the photograph's blur above which it shows no detail
SIGMA = 0.06  # standard deviation of the data term, in logarithms of colour
OUTLIER = 4.0  # scale of the robust (Welsch) loss, in SIGMA: larger residuals are down-weighted as outliers
CORRELATED_TEXELS = 6.0  # texels of 512 per effective sample: residuals of neighbours are correlated
DISPLACEMENT_STRENGTHS = (1.5, 1.0, 0.5)  # factors on the predicted residual displacement that are tried
DEPTHS = (0.75, 0.5, 0.25)  # factors on all displacement that are tried, besides 1
DISPLACEMENT_RANGE_MM = (-0.8, 0.3)  # skin has furrows, not ridges: an apparent ridge is a reflection or a hair
MIN_NOISE_SIZE = 16  # side of the smallest noise maps that are optimized


@dataclass(frozen=True)
class OptimizationPlan:
    """One phase of Adam.

    Args:
        steps: number of steps.
        latent_rate, noise_rate: initial learning rates of latents and noise maps.
        downsampling: factor by which the generator's resolution is divided.
    """

    steps: int
    latent_rate: float
    noise_rate: float = 0.0
    downsampling: int = 1


# At half the resolution a step costs a third.
DETAIL_PLANS = (OptimizationPlan(14, 0.05, 0.15, downsampling=2), OptimizationPlan(5, 0.02, 0.10))
EXPRESSION_PLAN = OptimizationPlan(6, 0.06)


@dataclass(frozen=True)
class FittedDetail:
    """Latents for `FaceParams.detail`, and the maps that they generate.

    Args:
        latents: see `detail.latents`.
        displacement: (S, S) mm, expression wrinkles included.
        albedo_log: (S, S, 3) change of the logarithm of the albedo.
        stages: of the fit, for reports.
        from_photo: whether the detail was fitted to the photograph. False: it is sampled for the person's age and sex
            because the photograph shows too little skin or is too blurred.
    """

    latents: dict[str, np.ndarray]
    displacement: np.ndarray
    albedo_log: np.ndarray
    stages: tuple[Stage, ...]
    from_photo: bool


def select_detail_module(detail: bool | DetailModule, model: FaceModel) -> DetailModule | None:
    """Resolve the argument `detail` of `faceverse.fit` to a module, or to None for no detail.

    Raises:
        ParameterError: a module for another model, or a value of another type.
    """
    if isinstance(detail, DetailModule):
        return check_open(detail, model)
    if not isinstance(detail, (bool, np.bool_)):
        raise ParameterError("fit.detail_type", detail=repr(detail))
    if not detail or not has_open_detail():
        return None
    module = load_detail()
    return module if module.code is not None and module.code.layout in ("", layout_digest(model)) else None


def run_detail_stage(fit_input, params: FaceParams, module: DetailModule | None, seed: int, progress: Progress):
    """`fit_detail_maps` of a `FitInput`, or None without a module."""
    if module is None:
        return None
    progress("detail", 0.0, None)
    photo, model, camera = fit_input.photo.rgb, fit_input.model, fit_input.camera
    return fit_detail_maps(photo, model, params, camera, module, seed, lambda share: progress("detail", share, None))


def fit_detail_maps(
    photo: np.ndarray,
    model: FaceModel,
    params: FaceParams,
    camera: Camera,
    module: DetailModule,
    seed: int = 0,
    on_step: Callable[[float], None] = lambda share: None,
) -> FittedDetail:
    """Fit the skin detail of a head to its photograph.

    Args:
        photo: (H, W, 3) uint8 sRGB.
        model: the face model.
        params: the fitted head.
        camera: of the photograph.
        module: an open detail module.
        seed: of the sampled detail where the photograph shows none.
        on_step: called with the fraction done, 0..1.
    Raises:
        ParameterError: the module is not an open one, or the seed is out of range.
    """
    fitting = _DetailFit(module, model, params, random_detail(module, model, params, seed))
    view = observe_skin(photo, model, params, camera, fitting.generator.size)
    too_blurred = view.blur_texels * 512 / fitting.generator.size > MAX_BLUR_TEXELS
    if too_blurred or float((view.weight > 0.5).float().mean()) < MIN_TEXEL_SHARE:
        return fitting.result((), False)

    def observe(side: int) -> SkinObservation:
        return view if side == fitting.generator.size else observe_skin(photo, model, params, camera, side)

    stages = [fitting.fit_detail(view, observe, lambda share: on_step(0.8 * share))]
    if fitting.has_wrinkles:
        stages.append(fitting.fit_expression(view, observe, lambda share: on_step(0.8 + 0.2 * share)))
    return fitting.result(tuple(stages), True)


@dataclass(frozen=True)
class _Prediction:
    """Output of the module's regressor: latents (1, L, D), and displacement (S, S) mm, expression wrinkles included."""

    latents: Tensor
    displacement: Tensor


class _DetailFit:
    """State of one detail fit: the current latents, and the noise and maps that they define."""

    def __init__(self, module: DetailModule, model: FaceModel, params: FaceParams, latents: dict[str, np.ndarray]):
        self.module, self.model, self.params, self.latents = module, model, params, latents
        self.generator, self.code = open_parts(module)
        size = self.generator.size
        self.mask = torch.from_numpy(displacement_weight(model, size))
        condition = torch.from_numpy(condition_maps(model, params, self.generator.condition_size))[None]
        with torch.no_grad():
            self.parts = self.generator.encode(condition)
        self.has_wrinkles = module.expression is not None and bool(params.expression.any())
        self.noise = self.generator.make_noise(int(latents["noise_seed"]))
        self.wrinkles = self.displacement = torch.zeros(size, size)
        self.depth = 1.0
        if self.has_wrinkles:
            # Typical wrinkles of this expression must not be fitted as neutral detail of this person.
            with torch.no_grad():
                neutral = self.synthesize(torch.from_numpy(latents["w"])[None], self.noise)[1].numpy()
            self.wrinkles = torch.from_numpy(wrinkles(module, model, params.replace(detail=latents), neutral))

    # -- detail
    def synthesize(self, w: Tensor, noise: list[Tensor], size: int | None = None) -> tuple[Tensor, Tensor]:
        """Neutral detail: change of log albedo (3, S, S) and displacement (S, S) mm, at full or reduced size."""
        picture = self.generator.synthesis(w, self.parts, noise, until=size)
        albedo_log, displacement = read_picture(self.code, picture)
        mask = self.mask if size is None else resized(self.mask, size)
        return albedo_log[0] * mask, displacement[0] * mask

    def fit_detail(
        self, view: SkinObservation, observe: Callable[[int], SkinObservation], on_step: Callable[[float], None]
    ) -> Stage:
        """Fit latents, noise and residual displacement of the neutral detail.

        Args:
            view: the observed skin at full size.
            observe: side -> the same observation in maps of that side.
            on_step: called with the fraction done.
        """
        started = time.perf_counter()
        predicted = self.regress(view, view.residual)
        initial = torch.from_numpy(self.latents["w"])[None] if predicted is None else predicted.latents
        w, noise = initial, _suppress_observed_noise(self.noise, view)
        before = self._keep_if_better(view, w, noise, math.inf)
        history: tuple[float, ...] = ()
        terms: dict[str, float] = {}
        steps = sum(plan.steps for plan in DETAIL_PLANS)
        for plan in DETAIL_PLANS:
            resized_view = observe(self.generator.size // plan.downsampling)
            done, part = len(history) / steps, plan.steps / steps

            def report(share: float, done: float = done, part: float = part) -> None:
                on_step(done + part * share)

            w, noise, losses, terms = self._optimize_plan(plan, w, noise, resized_view, report)
            history += losses
        after = self._keep_if_better(view, w, noise, before)
        if predicted is not None:
            after = self._add_displacement(view, predicted, after)
        after = self._set_depth(view, after)
        return Stage("detail", time.perf_counter() - started, steps, terms, before, after, history)

    @torch.no_grad()
    def _keep_if_better(self, view: SkinObservation, w: Tensor, noise: list[Tensor], before: float) -> float:
        """Accept latents and noise if they lower the validation error `before`; return the resulting error."""
        albedo_log, displacement = self.synthesize(w, noise)
        error = view.error(view.predicted(albedo_log, displacement + self.wrinkles))
        if error >= before:
            return before
        random = self.generator.make_noise(int(self.latents["noise_seed"]))
        added = quantised_noise(torch.cat([(a - b).flatten() for a, b in zip(noise, random)]))
        self.latents = self.latents | {"w": w[0].numpy(), "noise": added.numpy()}
        self.noise = noise_maps(self.generator, self.latents)
        return error

    def _optimize_plan(
        self, plan: OptimizationPlan, w: Tensor, noise: list[Tensor], view: SkinObservation, on_step
    ) -> tuple[Tensor, list[Tensor], tuple[float, ...], dict[str, float]]:
        """Run one phase of Adam; return latents, noise, the loss before each step, and the terms of the last loss."""
        size = view.weight.shape[-1]
        initial, w = noise, w.clone().requires_grad_()
        deltas = [torch.zeros_like(n).requires_grad_(MIN_NOISE_SIZE <= n.shape[-1] <= size) for n in initial]
        free = [delta for delta in deltas if delta.requires_grad]
        prior, wrinkles = _LatentPrior.of(self.generator), resized(self.wrinkles, size)

        def loss_of() -> tuple[Tensor, dict[str, float]]:
            current = [a + b for a, b in zip(initial, deltas)]
            albedo_log, displacement = self.synthesize(w, current, size)
            data = _data_loss(view, view.predicted(albedo_log, displacement + wrinkles))
            noise_prior = 0.5 * cast(Tensor, sum(values.square().sum() for values in free))
            terms = {"photometric": data, "latent": prior(w), "noise": noise_prior}
            return cast(Tensor, sum(terms.values())), {name: value.item() for name, value in terms.items()}

        groups = [{"params": [w], "lr": plan.latent_rate}, {"params": free, "lr": plan.noise_rate}]
        history, terms = _optimize(plan.steps, groups, loss_of, on_step)
        return w.detach(), [(a + b).detach() for a, b in zip(initial, deltas)], history, terms

    @torch.no_grad()
    def regress(self, view: SkinObservation, residual: Tensor) -> _Prediction | None:
        """Predict latents and displacement from a residual (3, S, S) with the module's regressor; None without one."""
        regressor, code = self.module.regressor, self.code
        if regressor is None:
            return None
        inputs = residual, view.weight[None], shade_sensitivity(view.frame, view.light)
        bands, z = regressor(*(maps[None] for maps in inputs))
        for name, value in known_factors(code, self.model, self.params).items():
            z[0, code.factors.index(name)] = value
        return _Prediction(self.generator.mapping(z), read_bands(code, bands)[0] * self.mask)

    @torch.no_grad()
    def _add_displacement(self, view: SkinObservation, predicted: _Prediction, before: float) -> float:
        """Add the residual displacement that the regressor predicts, scaled by line search on the validation error.

        The residual is the regressor's prediction from the photograph minus its prediction from the rendering of the
        current detail. The regressor underestimates displacement, and misses creases parallel to the light altogether.
        Its bias is the same for both inputs, so the difference removes no detail that the photograph cannot show.

        Returns:
            The validation error, `before` if no strength lowers it.
        """
        albedo_log, current = self.synthesize(torch.from_numpy(self.latents["w"])[None], self.noise)
        current = current + self.wrinkles
        rendered = self.regress(view, view.predicted(albedo_log, current))
        assert rendered is not None
        missing = (predicted.displacement - rendered.displacement) * inner_weight(view.weight) * self.mask
        best = before
        for strength in DISPLACEMENT_STRENGTHS:
            added = quantised_residual((strength * missing).clamp(*DISPLACEMENT_RANGE_MM))
            error = view.error(view.predicted(albedo_log, current + added))
            if error < best:
                best, self.displacement = error, added
        if best < before:
            self.latents = self.latents | {"residual_displacement": self.displacement.flatten().numpy()}
        return best

    @torch.no_grad()
    def _set_depth(self, view: SkinObservation, before: float) -> float:
        """Scale all displacement by line search on the validation error; return that error.

        The sampled detail contains wrinkles that are typical of the estimated age, which is uncertain. A photograph
        that shows none makes them shallower.
        """
        albedo_log, displacement = self.synthesize(torch.from_numpy(self.latents["w"])[None], self.noise)
        displacement, best = displacement + self.displacement, before
        for depth in DEPTHS:
            error = view.error(view.predicted(albedo_log, depth * displacement + self.wrinkles))
            if error < best:
                best, self.depth = error, depth
        if best < before:
            self.latents = self.latents | {"depth": np.float32(self.depth)}
        return best

    # -- expression
    def fit_expression(
        self, view: SkinObservation, observe: Callable[[int], SkinObservation], on_step: Callable[[float], None]
    ) -> Stage:
        """Fit the latents of the expression wrinkles; arguments as of `fit_detail`."""
        started = time.perf_counter()
        generator, size = self.module.expression, len(self.mask)
        assert generator is not None
        side = min(generator.size, size)
        with torch.no_grad():
            albedo_log, neutral = self.synthesize(torch.from_numpy(self.latents["w"])[None], self.noise)
            neutral = self.depth * (neutral + self.displacement)
            condition, gate = wrinkle_condition(self.module, self.model, self.params, neutral.numpy())
            parts = generator.encode(condition)
        noise = generator.make_noise(int(self.latents["expression_seed"]))
        w = torch.from_numpy(self.latents["expression_w"])[None].requires_grad_()
        prior = _LatentPrior.of(generator)
        small, small_albedo, small_neutral = observe(side), resized(albedo_log, side), resized(neutral, side)

        def wrinkles_at(side: int) -> Tensor:
            added = read_bands(self.code, generator.synthesis(w, parts, noise)) * gate
            return resized(added[0], side)

        def loss_of() -> tuple[Tensor, dict[str, float]]:
            data = _data_loss(small, small.predicted(small_albedo, small_neutral + wrinkles_at(side)))
            terms = {"photometric": data, "latent": prior(w)}
            return cast(Tensor, sum(terms.values())), {name: value.item() for name, value in terms.items()}

        before = view.error(view.predicted(albedo_log, neutral + self.wrinkles))
        history, terms = _optimize(
            EXPRESSION_PLAN.steps, [{"params": [w], "lr": EXPRESSION_PLAN.latent_rate}], loss_of, on_step
        )
        after = before
        with torch.no_grad():
            initial = torch.from_numpy(self.latents["expression_w"]), self.wrinkles
            for latents, added in (initial, (w.detach()[0], wrinkles_at(size))):
                for depth in (1.0, *DEPTHS):
                    error = view.error(view.predicted(albedo_log, neutral + depth * added))
                    if error < after:
                        after = error
                        best = {"expression_w": latents.numpy(), "wrinkle_depth": np.float32(depth)}
                        self.latents = self.latents | best
        seconds = time.perf_counter() - started
        return Stage("expression detail", seconds, EXPRESSION_PLAN.steps, terms, before, after, history)

    def result(self, stages: tuple[Stage, ...], from_photo: bool) -> FittedDetail:
        """The fitted detail with its maps."""
        maps = maps_of(self.module, self.model, self.params.replace(detail=self.latents))
        return FittedDetail(self.latents, maps.displacement, maps.albedo_log, stages, from_photo)


def _optimize(steps: int, groups: list[dict], loss_of, on_step) -> tuple[tuple[float, ...], dict[str, float]]:
    """Adam with cosine-annealed learning rates; return the loss before each step, and the terms of the last loss."""
    optimizer = torch.optim.Adam(groups, betas=(0.8, 0.95))
    rates = [group["lr"] for group in groups]
    history, terms = [], {}
    for step in range(steps):
        for group, rate in zip(optimizer.param_groups, rates):
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.zero_grad()
        loss, terms = loss_of()
        loss.backward()
        optimizer.step()
        history.append(float(loss.detach()))
        on_step((step + 1) / steps)
    return tuple(history), terms


def _data_loss(view: SkinObservation, predicted: Tensor) -> Tensor:
    """Welsch loss of the residuals in units of SIGMA, summed over the effective number of fitted texels.

    Reference: Barron 2019, "A general and adaptive robust loss function" (alpha -> -infinity).
    """
    square = ((view.residual - predicted) / SIGMA).square()
    robust = OUTLIER**2 * (1 - torch.exp(-square / (2 * OUTLIER**2)))
    return (robust.mean(0) * view.fitted).sum() / (CORRELATED_TEXELS * (view.weight.shape[-1] / 512) ** 2)


@dataclass(frozen=True)
class _LatentPrior:
    """Normal distribution of style vectors, from samples of the mapping network: mean (D,), whitening (D, D)."""

    mean: Tensor
    whitening: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, generator) -> _LatentPrior:
        draw = torch.Generator().manual_seed(0)
        rows = generator.style(torch.randn(2048, generator.style_dim, generator=draw))
        values, vectors = torch.linalg.eigh(torch.cov(rows.T))
        return cls(rows.mean(0), vectors / (values + 0.02 * values.max()).sqrt())

    def __call__(self, latents: Tensor) -> Tensor:
        """Half the squared Mahalanobis distance of the mean over layers, plus a quarter of the layers' from it."""
        mean = latents.mean(1, keepdim=True)
        distance = (mean - self.mean) @ self.whitening
        spread = (latents - mean) @ self.whitening
        return 0.5 * (distance.square().sum() + 0.5 * spread.square().sum())


def _observed_share(view: SkinObservation, size: int) -> Tensor:
    """(size, size) 0..1, how well the photograph resolves a noise map of that size: its weight, 0 if too blurred."""
    observed = resized(view.weight, size).clamp(0, 1)
    blur = view.blur_texels * size / view.weight.shape[-1]
    return observed * float(np.clip(2 - blur, 0, 1))


def _suppress_observed_noise(noise: list[Tensor], view: SkinObservation) -> list[Tensor]:
    """Fade the random noise out where the photograph determines it."""
    return [n * (1 - _observed_share(view, n.shape[-1])) if n.shape[-1] >= MIN_NOISE_SIZE else n for n in noise]
