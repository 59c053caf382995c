"""The detail stages of a fit: latents and noise of the detail generator, then of the expression's, from a photograph.

As in the paper (Wang et al. 2022, section 4.3) both are found by gradient, first the latents and noise maps of the
detail generator, then those of the expression generator; what is compared is the skin in texture space (see
`skin_view`). The start is what a small network reads off the same maps. A tenth of the skin is held out of all steps:
what does not explain it better than before is not kept. A `Stage` of the detail has errors of that skin as `before` (at
that start) and `after`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

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

MIN_TEXEL_SHARE = 0.02  # share of the map that has to show skin
COARSEST_PHOTO_TEXELS = 3.0  # of 512: blur of the photograph from which it shows no detail at all
SIGMA = 0.06  # of the skin's logarithm of colour that no detail explains
OUTLIER = 4.0  # sigmas beyond which a texel counts no more
CORRELATED_TEXELS = 6.0  # neighbouring texels of a photograph tell the same
DISPLACEMENT_STRENGTHS = (1.5, 1.0, 0.5)
DEPTHS = (0.75, 0.5, 0.25)
DISPLACEMENT_RANGE_MM = (-0.8, 0.3)  # skin has wrinkles, and no ridges: what looks like one is a reflection or a hair
NOISE_FROM = 16  # side of the smallest noise maps that are fitted


@dataclass(frozen=True)
class OptimizationPlan:
    """How a part of a stage goes: steps, how fast latents and noise maps move (Adam), and by what the generator's
    resolution is divided."""

    steps: int
    latent_rate: float
    noise_rate: float = 0.0
    reduced: int = 1


# At half the resolution a step costs a third.
DETAIL = (OptimizationPlan(14, 0.05, 0.15, reduced=2), OptimizationPlan(5, 0.02, 0.10))
EXPRESSION = OptimizationPlan(6, 0.06)


@dataclass(frozen=True)
class FittedDetail:
    """Latents for `FaceParams.detail`, and what was done for them.

    Args:
        latents: see `skin_detail`.
        displacement: (S, S) mm, with the wrinkles of the expression.
        albedo_log: (S, S, 3).
        stages: of the fit.
        from_photo: whether the photograph had a say; else the detail is what somebody of that age and sex could have.
    """

    latents: dict[str, np.ndarray]
    displacement: np.ndarray
    albedo_log: np.ndarray
    stages: tuple[Stage, ...]
    from_photo: bool


def select_detail_module(detail: bool | DetailModule, model: FaceModel) -> DetailModule | None:
    """The module that a fit uses; see `faceverse.fit`.

    Raises:
        ParameterError: a module that cannot be used on this model, or something else.
    """
    if isinstance(detail, DetailModule):
        return check_open(detail, model)
    if not isinstance(detail, (bool, np.bool_)):
        raise ParameterError("fit.detail_type", detail=repr(detail))
    if not detail or not has_open_detail():
        return None
    module = load_detail()
    return module if module.code.layout in ("", layout_digest(model)) else None


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
    """Detail of the skin in a photograph.

    Args:
        photo: (H, W, 3) uint8 sRGB.
        params: the fitted head.
        camera: of the photograph.
        module: an open one.
        seed: of what the photograph does not show.
        on_step: called with the share done.
    Raises:
        ParameterError: not an open module, or not such a seed.
    """
    fitting = _DetailFit(module, model, params, random_detail(module, model, params, seed))
    view = observe_skin(photo, model, params, camera, module.detail.size)
    coarse = view.blur_texels * 512 / module.detail.size > COARSEST_PHOTO_TEXELS
    if coarse or float((view.weight > 0.5).float().mean()) < MIN_TEXEL_SHARE:
        return fitting.result((), False)

    def observe(side: int) -> SkinObservation:
        return view if side == module.detail.size else observe_skin(photo, model, params, camera, side)

    stages = [fitting.fit_detail(view, observe, lambda share: on_step(0.8 * share))]
    if fitting.has_wrinkles:
        stages.append(fitting.fit_expression(view, observe, lambda share: on_step(0.8 + 0.2 * share)))
    return fitting.result(tuple(stages), True)


@dataclass(frozen=True)
class _Prediction:
    """Latents (1, L, D), and displacement (S, S) mm with the wrinkles of the expression."""

    latents: Tensor
    displacement: Tensor


class _DetailFit:
    """One fit: the present latents and what they make."""

    def __init__(self, module: DetailModule, model: FaceModel, params: FaceParams, latents: dict[str, np.ndarray]):
        self.module, self.model, self.params, self.latents = module, model, params, latents
        size = module.detail.size
        self.mask = torch.from_numpy(displacement_weight(model, size))
        condition = torch.from_numpy(condition_maps(model, params, module.detail.condition_size))[None]
        with torch.no_grad():
            self.parts = module.detail.encode(condition)
        self.has_wrinkles = module.expression is not None and bool(params.expression.any())
        self.noise = module.detail.make_noise(int(latents["noise_seed"]))
        self.wrinkles = self.displacement = torch.zeros(size, size)
        self.depth = 1.0
        if self.has_wrinkles:
            # What anybody's skin does in this expression must not be taken for this person's at rest.
            with torch.no_grad():
                rest = self.make(torch.from_numpy(latents["w"])[None], self.noise)[1].numpy()
            self.wrinkles = torch.from_numpy(wrinkles(module, model, params.replace(detail=latents), rest))

    # -- detail
    def make(self, w: Tensor, noise: list[Tensor], size: int | None = None) -> tuple[Tensor, Tensor]:
        """Change of albedo (3, S, S) and displacement (S, S) mm at rest, of the full size or a smaller one."""
        picture = self.module.detail.synthesis(w, self.parts, noise, until=size)
        albedo_log, displacement = read_picture(self.module.code, picture)
        mask = self.mask if size is None else resized(self.mask, size)
        return albedo_log[0] * mask, displacement[0] * mask

    def fit_detail(self, view: SkinObservation, observe: Callable[[int], SkinObservation], on_step: Callable[[float], None]) -> Stage:
        """Latents, noise and displacement.

        Args:
            view: in the full size.
            observe: side -> the same view in maps of that side.
        """
        started = time.perf_counter()
        reading = self.read(view, view.residual)
        start = torch.from_numpy(self.latents["w"])[None] if reading is None else reading.latents
        w, noise = start, _suppress_observed_noise(self.noise, view)
        before = self._keep_if_better(view, w, noise, math.inf)
        history, terms, steps = (), {}, sum(plan.steps for plan in DETAIL)
        for plan in DETAIL:
            seen = observe(self.module.detail.size // plan.reduced)
            done, part = len(history) / steps, plan.steps / steps

            def report(share: float, done: float = done, part: float = part) -> None:
                on_step(done + part * share)

            w, noise, losses, terms = self._optimize_plan(plan, w, noise, seen, report)
            history += losses
        after = self._keep_if_better(view, w, noise, before)
        if reading is not None:
            after = self._add_displacement(view, reading, after)
        after = self._set_depth(view, after)
        return Stage("detail", time.perf_counter() - started, steps, terms, before, after, history)

    @torch.no_grad()
    def _keep_if_better(self, view: SkinObservation, w: Tensor, noise: list[Tensor], before: float) -> float:
        """Takes latents and noise where they explain held-out skin better; the error then."""
        albedo_log, made = self.make(w, noise)
        error = view.error(view.predicted(albedo_log, made + self.wrinkles))
        if error >= before:
            return before
        random = self.module.detail.make_noise(int(self.latents["noise_seed"]))
        added = quantised_noise(torch.cat([(a - b).flatten() for a, b in zip(noise, random)]))
        self.latents = self.latents | {"w": w[0].numpy(), "noise": added.numpy()}
        self.noise = noise_maps(self.module.detail, self.latents)
        return error

    def _optimize_plan(
        self, plan: OptimizationPlan, w: Tensor, noise: list[Tensor], view: SkinObservation, on_step
    ) -> tuple[Tensor, list[Tensor], tuple[float, ...], dict[str, float]]:
        """Latents and noise after the steps of a plan, the losses, and the last one's terms."""
        size = view.weight.shape[-1]
        start, w = noise, w.clone().requires_grad_()
        deltas = [torch.zeros_like(n).requires_grad_(NOISE_FROM <= n.shape[-1] <= size) for n in start]
        free = [delta for delta in deltas if delta.requires_grad]
        prior, wrinkles = _LatentPrior.of(self.module.detail), resized(self.wrinkles, size)

        def loss_of() -> tuple[Tensor, dict[str, float]]:
            now = [a + b for a, b in zip(start, deltas)]
            albedo_log, displacement = self.make(w, now, size)
            data = _data_loss(view, view.predicted(albedo_log, displacement + wrinkles))
            moved = 0.5 * sum(values.square().sum() for values in free)
            terms = {"photometric": data, "latent": prior(w), "noise": moved}
            return sum(terms.values()), {name: value.item() for name, value in terms.items()}

        groups = [{"params": [w], "lr": plan.latent_rate}, {"params": free, "lr": plan.noise_rate}]
        history, terms = _optimize(plan.steps, groups, loss_of, on_step)
        return w.detach(), [(a + b).detach() for a, b in zip(start, deltas)], history, terms

    @torch.no_grad()
    def read(self, view: SkinObservation, residual: Tensor) -> _Prediction | None:
        """What the module's reader sees in a residual (3, S, S) of the view; None without a reader."""
        reader, code = self.module.regressor, self.module.code
        if reader is None:
            return None
        given = residual, view.weight[None], shade_sensitivity(view.frame, view.light)
        bands, z = reader(*(maps[None] for maps in given))
        for name, value in known_factors(code, self.model, self.params).items():
            z[0, code.factors.index(name)] = value
        return _Prediction(self.module.detail.mapping(z), read_bands(code, bands)[0] * self.mask)

    @torch.no_grad()
    def _add_displacement(self, view: SkinObservation, reading: _Prediction, before: float) -> float:
        """What the reader sees in the photograph and not in what is made of it so far, as strong as explains held-out
        skin best, if it does so at all; the error then.

        The reader is sure of little: creases along the light it cannot see at all. It errs in the same way about what
        the generator made, so that the difference of both readings takes nothing away that the photograph is silent of.
        """
        albedo_log, made = self.make(torch.from_numpy(self.latents["w"])[None], self.noise)
        made = made + self.wrinkles
        again = self.read(view, view.predicted(albedo_log, made))
        missing = (reading.displacement - again.displacement) * inner_weight(view.weight) * self.mask
        best = before
        for strength in DISPLACEMENT_STRENGTHS:
            added = quantised_residual((strength * missing).clamp(*DISPLACEMENT_RANGE_MM))
            error = view.error(view.predicted(albedo_log, made + added))
            if error < best:
                best, self.displacement = error, added
        if best < before:
            self.latents = self.latents | {"residual_displacement": self.displacement.flatten().numpy()}
        return best

    @torch.no_grad()
    def _set_depth(self, view: SkinObservation, before: float) -> float:
        """How deep all of it is, as held-out skin says: a photograph that is silent of wrinkles gets shallow ones.

        Age is a guess, and what it stands for is on everybody's face unless something speaks against it.
        """
        albedo_log, made = self.make(torch.from_numpy(self.latents["w"])[None], self.noise)
        made, best = made + self.displacement, before
        for depth in DEPTHS:
            error = view.error(view.predicted(albedo_log, depth * made + self.wrinkles))
            if error < best:
                best, self.depth = error, depth
        if best < before:
            self.latents = self.latents | {"depth": np.float32(self.depth)}
        return best

    # -- expression
    def fit_expression(
        self, view: SkinObservation, observe: Callable[[int], SkinObservation], on_step: Callable[[float], None]
    ) -> Stage:
        """Latents of the wrinkles; arguments as in `fit_detail`."""
        started = time.perf_counter()
        generator, size = self.module.expression, len(self.mask)
        side = min(generator.size, size)
        with torch.no_grad():
            albedo_log, rest = self.make(torch.from_numpy(self.latents["w"])[None], self.noise)
            rest = self.depth * (rest + self.displacement)
            condition, gate = wrinkle_condition(self.module, self.model, self.params, rest.numpy())
            parts = generator.encode(condition)
        noise = generator.make_noise(int(self.latents["expression_seed"]))
        w = torch.from_numpy(self.latents["expression_w"])[None].requires_grad_()
        prior = _LatentPrior.of(generator)
        small, small_albedo, small_rest = observe(side), resized(albedo_log, side), resized(rest, side)

        def made(side: int) -> Tensor:
            added = read_bands(self.module.code, generator.synthesis(w, parts, noise)) * gate
            return resized(added[0], side)

        def loss_of() -> tuple[Tensor, dict[str, float]]:
            data = _data_loss(small, small.predicted(small_albedo, small_rest + made(side)))
            terms = {"photometric": data, "latent": prior(w)}
            return sum(terms.values()), {name: value.item() for name, value in terms.items()}

        before = view.error(view.predicted(albedo_log, rest + self.wrinkles))
        history, terms = _optimize(EXPRESSION.steps, [{"params": [w], "lr": EXPRESSION.latent_rate}], loss_of, on_step)
        after = before
        with torch.no_grad():
            kinds = (torch.from_numpy(self.latents["expression_w"]), self.wrinkles), (w.detach()[0], made(size))
            for latents, added in kinds:
                for depth in (1.0, *DEPTHS):
                    error = view.error(view.predicted(albedo_log, rest + depth * added))
                    if error < after:
                        after, found = error, {"expression_w": latents.numpy(), "wrinkle_depth": np.float32(depth)}
                        self.latents = self.latents | found
        seconds = time.perf_counter() - started
        return Stage("expression detail", seconds, EXPRESSION.steps, terms, before, after, history)

    def result(self, stages: tuple[Stage, ...], from_photo: bool) -> FittedDetail:
        maps = maps_of(self.module, self.model, self.params.replace(detail=self.latents))
        return FittedDetail(self.latents, maps.displacement, maps.albedo_log, stages, from_photo)


def _optimize(steps: int, groups: list[dict], loss_of, on_step) -> tuple[tuple[float, ...], dict[str, float]]:
    """Adam with rates that fall to nothing; the loss before each step, and the last one's terms."""
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
    """Robust squares of what is left of the photograph, in sigmas, over the independent texels that steps look at."""
    left = ((view.residual - predicted) / SIGMA).square()
    robust = OUTLIER**2 * (1 - torch.exp(-left / (2 * OUTLIER**2)))
    return (robust.mean(0) * view.fitted).sum() / (CORRELATED_TEXELS * (view.weight.shape[-1] / 512) ** 2)


@dataclass(frozen=True)
class _LatentPrior:
    """Normal distribution of a row of latents, from the mapping network: mean (D,), whitening (D, D)."""

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
        """Half the squared distance of the rows' mean, and of each row from it."""
        mean = latents.mean(1, keepdim=True)
        distance = (mean - self.mean) @ self.whitening
        spread = (latents - mean) @ self.whitening
        return 0.5 * (distance.square().sum() + 0.5 * spread.square().sum())


def _observed_share(view: SkinObservation, size: int) -> Tensor:
    """(size, size) 0..1, how far the photograph says what the noise of that size should be."""
    seen = resized(view.weight, size).clamp(0, 1)
    finest = view.blur_texels * size / view.weight.shape[-1]
    return seen * float(np.clip(2 - finest, 0, 1))


def _suppress_observed_noise(noise: list[Tensor], view: SkinObservation) -> list[Tensor]:
    """Noise maps without the random part where a photograph is going to say what is there."""
    return [n * (1 - _observed_share(view, n.shape[-1])) if n.shape[-1] >= NOISE_FROM else n for n in noise]
