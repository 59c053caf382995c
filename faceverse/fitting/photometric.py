"""Photometric refinement: the differentiable renderer brings the head to look like the photograph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .. import losses
from ..camera import Camera, project, rotation_from_axis_angle, transform
from ..lighting import linear_from_srgb, sh_basis, srgb_from_linear
from ..mesh import vertex_normals
from ..model import FaceModel
from ..rasterize import interpolate
from ..render import render_head
from .prior import expression_prior

CROP_MARGIN = 1.30  # side of the compared square over the larger side of the landmarks' box
# sRGB deviation between rendering and photograph: measured in each fit and kept within these limits. A picture that
# the model can explain is trusted to the last shade, one with hair, make-up and wrinkles only in broad strokes.
SIGMA_LIMITS = (0.010, 0.050)
SIGMA_INTERVAL = 5  # steps between two measurements
# Regions whose look the model does not know (hair, clothes, what shines or is hidden) vote less or not at all.
REGION_VOTE = {"scalp": 0.0, "neck": 0.05, "ears": 0.1, "mouth_inside": 0.0, "teeth": 0.0, "tongue": 0.0,
               "eyeballs": 0.25, "eye_sockets": 0.0}  # fmt: skip

FOREHEAD_VOTE, FOREHEAD_FADE_M = 0.25, 0.025  # where fringes hang, and how far above the brows that begins in full
MOST_COLOURS = 6000  # vertices whose colours give the first albedo; more of them repeat each other


@dataclass(frozen=True)
class FitState:
    """What is being fitted, torch float32, without batch dimension; see FaceParams for shapes."""

    identity: Tensor
    expression: Tensor
    albedo: Tensor
    rotation: Tensor
    translation: Tensor
    light: Tensor


@dataclass(frozen=True)
class Target:
    """The photograph as the photometric stage sees it.

    Args:
        crop: (1, S, S, 3) sRGB in 0..1.
        camera: of the crop.
        landmarks_px: (L, 2) in the crop.
        landmark_weight: (L,) 1 / px in the crop.
        landmark_factor: (2L, K) the detector's habits, see solver.habit_factor.
        expression_prior: (E,) weights to stay close to, from the landmark stage.
        inside: (1, S, S) 1 where the crop shows the photograph, 0 beyond its edge.
    """

    crop: Tensor
    camera: Camera
    landmarks_px: Tensor
    landmark_weight: Tensor
    landmark_factor: Tensor
    expression_prior: Tensor
    inside: Tensor


@dataclass(frozen=True)
class StageSettings:
    """One run of the optimiser.

    Args:
        name: for people.
        size_px: side of the crop that is compared.
        iterations: Adam steps.
        shape_rate, albedo_rate, light_rate: step sizes, in deviations (shape, albedo) and in light.
        photometric: number of independent pixels that the comparison counts as.
        landmarks: weight of the landmark term.
        identity, albedo, expression, light: weights of the priors.
    """

    name: str
    size_px: int
    iterations: int
    shape_rate: float = 0.10
    albedo_rate: float = 0.10
    light_rate: float = 0.04
    photometric: float = 700.0
    landmarks: float = 0.4
    identity: float = 1.0
    albedo: float = 1.0
    expression: float = 1.0
    light: float = 60.0


STAGES = (
    StageSettings("photometric coarse", 96, 40),
    StageSettings("photometric fine", 176, 40, shape_rate=0.06, albedo_rate=0.06, light_rate=0.025),
)
ADAM_BETAS = (0.85, 0.98)


@dataclass(frozen=True)
class Outcome:
    """State after a stage, total loss before and after and its terms with the deviation measured last, and the total
    per iteration with the deviation of that moment (so the history may step where a new one was measured).
    """

    state: FitState
    before: float
    after: float
    terms: dict[str, float]
    history: tuple[float, ...]


def crop_box(landmarks_px: np.ndarray) -> tuple[float, float, float, float]:
    """Square (x0, y0, x1, y1) around the landmarks, with room for the forehead."""
    low, high = landmarks_px.min(0), landmarks_px.max(0)
    centre, side = (low + high) / 2, float((high - low).max()) * CROP_MARGIN
    return tuple(float(x) for x in (*(centre - side / 2), *(centre + side / 2)))


def cut(photo: np.ndarray, box: tuple[float, float, float, float], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Resampled square of a photograph: (size, size, 3) uint8, and (size, size) bool where the picture has pixels."""
    x0, y0, x1, y1 = box
    height, width = photo.shape[:2]
    left, top = max(0, int(np.floor(x0))), max(0, int(np.floor(y0)))
    right, bottom = min(width, int(np.ceil(x1))), min(height, int(np.ceil(y1)))
    part = Image.fromarray(photo[top:bottom, left:right])
    scale = size / (x1 - x0)
    # Shrinking with an area filter first keeps fine texture from turning into noise.
    shrink = min(1.0, scale)
    small = (max(1, round(part.width * shrink)), max(1, round(part.height * shrink)))
    part = part.resize(small, Image.Resampling.BOX) if small != part.size else part
    fx, fy = small[0] / (right - left), small[1] / (bottom - top)
    matrix = ((x1 - x0) / size * fx, 0, (x0 - left) * fx, 0, (y1 - y0) / size * fy, (y0 - top) * fy)
    pixels = part.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    centre = (np.arange(size) + 0.5) / scale
    across = (centre + x0 >= 0) & (centre + x0 < width)
    down = (centre + y0 >= 0) & (centre + y0 < height)
    return np.asarray(pixels), down[:, None] & across[None]


def vertex_votes(model: FaceModel) -> Tensor:
    """(V, 1) how much each vertex' pixels count in the comparison, 0..1."""
    votes = torch.ones(len(model.mean_vertices), 1)
    for name, vote in REGION_VOTE.items():
        if name in model.regions:
            votes[torch.from_numpy(np.asarray(model.regions[name]))] = vote
    brows = model.mean_vertices[model.regions["eyebrows"]] if len(model.regions.get("eyebrows", ())) else None
    if brows is not None:
        above = torch.from_numpy(model.mean_vertices[:, 1] - brows[:, 1].max())
        votes[:, 0] *= 1 - (1 - FOREHEAD_VOTE) * (above / FOREHEAD_FADE_M).clamp(0, 1)
    return votes


def initial_colours(model: FaceModel, state: FitState, target: Target, rounds: int = 3) -> FitState:
    """Light and albedo for a given shape: alternating linear least squares on the visible vertices' colours."""
    vertices = model.vertices(state.identity[None], state.expression[None])[0]
    cam = transform(vertices, state.rotation, state.translation)
    normals = vertex_normals(cam, model.face_index)
    pixels = project(cam, target.camera)
    size = target.camera.image_size[0]
    grid = (pixels[None, :, None, :2] / size * 2 - 1).float()
    picture = torch.cat([linear_from_srgb(target.crop), target.inside[..., None]], dim=-1).permute(0, 3, 1, 2)
    sampled = torch.nn.functional.grid_sample(picture, grid, align_corners=False)[0, :, :, 0].T
    colour, inside = sampled[:, :3], sampled[:, 3]
    weight = vertex_votes(model)[:, 0] * (normals[:, 2].clamp_min(0) > 0.25) * (inside > 0.99)
    chosen = torch.nonzero(weight > 0.5)[:, 0]
    if len(chosen) < 50:
        return state
    chosen = chosen[:: -(-len(chosen) // MOST_COLOURS)]
    colour, basis = colour[chosen], sh_basis(normals[chosen])
    albedo_mean, albedo_modes = model.albedo_mean[chosen], model.albedo_basis[:, chosen]
    light, albedo = state.light.clone(), state.albedo.clone()
    trust = torch.ones(len(chosen), 3)
    for _ in range(rounds):
        skin = (albedo_mean + torch.einsum("a,avc->vc", albedo, albedo_modes)).clamp_min(0.01)
        light = torch.stack([_solve_light(basis * skin[:, c : c + 1], colour[:, c], trust[:, c]) for c in range(3)], -1)
        shade = (basis @ light).clamp_min(0.05)
        albedo = _solve_albedo(albedo_modes, colour / shade - albedo_mean, trust * shade)
        residual = (skin * shade - colour).abs().amax(-1, keepdim=True)
        trust = (1 / (1 + (residual / 0.06) ** 2)).expand(-1, 3)
    return replace(state, light=light, albedo=albedo)


def _solve_light(rows: Tensor, colour: Tensor, trust: Tensor) -> Tensor:
    """Ridge solution (9,) of rows (K, 9) @ light = colour (K,); directional light is damped, the constant is free."""
    damping = 0.004 * len(rows) * torch.tensor([1e-4, 1, 1, 1, 4, 4, 4, 4, 4]) * rows[:, 0].square().mean()
    left = (rows * trust[:, None]).T @ rows + torch.diag(damping)
    return torch.linalg.solve(left, (rows * trust[:, None]).T @ colour)


def _solve_albedo(modes: Tensor, wanted: Tensor, trust: Tensor) -> Tensor:
    """MAP coefficients (A,) with unit prior for modes (A, K, 3) to reproduce wanted (K, 3)."""
    independent = 300.0 / len(wanted)  # neighbouring vertices repeat each other
    precision = independent / 0.05**2
    flat, weight = modes.flatten(1), (trust.reshape(-1) ** 2) * precision
    left = (flat * weight) @ flat.T + torch.eye(len(flat))
    return torch.linalg.solve(left, (flat * weight) @ wanted.reshape(-1))


class PhotometricProblem:
    """Loss of a state against a target, for one stage's settings.

    Args:
        model: usually the light mesh.
        bases: the model on the landmarks of the full mesh.
        target: at the stage's size.
        settings: weights.
    """

    def __init__(self, model: FaceModel, bases, target: Target, settings: StageSettings):
        self.model, self.bases, self.target, self.settings = model, bases, target, settings
        self.votes = vertex_votes(model)[None]
        prior = expression_prior(model)
        self.expression_sigma = torch.from_numpy(prior.refined_sigma.astype(np.float32))
        self.expression_limits = torch.from_numpy(prior.limits.astype(np.float32))
        self.sigma = SIGMA_LIMITS[1]

    def terms(self, state: FitState, measure: bool = False) -> dict[str, Tensor]:
        """Weighted loss terms by name; `measure` first sets the photometric deviation to what is seen at this state."""
        s, t = self.settings, self.target
        vertices = self.model.vertices(state.identity[None], state.expression[None])
        albedo = self.model.albedo(state.albedo[None]).clamp_min(0.005)
        shaded = render_head(
            vertices, albedo, self.model.face_index, state.rotation[None], state.translation[None],
            state.light[None], t.camera,
        )  # fmt: skip
        votes = interpolate(shaded.fragments, self.votes, self.model.face_index)[..., 0].detach() * t.inside
        picture = srgb_from_linear(shaded.rgb)
        if measure:
            seen = losses.residual_sigma(picture.detach(), t.crop, votes)
            self.sigma = float(np.clip(seen, *SIGMA_LIMITS))
        points = self.bases.points(state.identity[None], state.expression[None])
        projected = project(transform(points, state.rotation, state.translation), t.camera)[0, :, :2]
        return {
            "photometric": s.photometric * losses.robust_photometric(picture, t.crop, votes, self.sigma),
            "landmarks": s.landmarks * losses.landmark(projected, t.landmarks_px, t.landmark_weight, t.landmark_factor),
            "identity prior": s.identity * losses.gaussian_prior(state.identity),
            "expression prior": s.expression
            * losses.gaussian_prior(state.expression, t.expression_prior, self.expression_sigma),
            "albedo prior": s.albedo * losses.gaussian_prior(state.albedo),
            "light prior": s.light * losses.light_prior(state.light),
        }


def optimise(
    problem: PhotometricProblem,
    state: FitState,
    curvature: Tensor,
    on_step: Callable[[float], None] = lambda done: None,
) -> Outcome:
    """Runs Adam for the stage's iterations and returns the best state seen.

    Shape and pose are moved along axes that the landmarks determine equally well: pose, identity and expression trade
    off against each other in the picture, and plain gradients crawl along that valley.

    Args:
        curvature: (K, K) Hessian of the landmark stage in turn, shift, identity and expression.
        on_step: called with the fraction done after each step.
    """
    settings = problem.settings
    axes = torch.linalg.inv(torch.linalg.cholesky(curvature.double())).T.float()
    variables = [torch.zeros(len(axes)), state.albedo.clone(), state.light.clone()]
    rates = (settings.shape_rate, settings.albedo_rate, settings.light_rate)
    moments = [(torch.zeros_like(v), torch.zeros_like(v)) for v in variables]
    history, best, best_terms, best_loss = [], state, {}, float("inf")
    for step in range(settings.iterations + 1):
        for variable in variables:
            variable.requires_grad_(True)
        current = _moved(state, axes @ variables[0], *variables[1:], problem.expression_limits)
        measure = step % SIGMA_INTERVAL == 0 and step <= settings.iterations // 2
        terms = problem.terms(current, measure)
        if measure:  # another scale, another loss: what was best before cannot be compared
            best_loss = float("inf")
        loss = sum(terms.values())
        history.append(float(loss.detach()))
        if history[-1] < best_loss:
            best_loss, best = history[-1], _detached(current)
            best_terms = {name: float(value.detach()) for name, value in terms.items()}
        if step == settings.iterations:
            break
        gradients = torch.autograd.grad(loss, variables)
        slower = 1.0 if step < settings.iterations // 2 else 0.4
        variables = [
            adam_step(v.detach(), g, m, step + 1, rate * slower)
            for v, g, m, rate in zip(variables, gradients, moments, rates, strict=True)
        ]
        on_step((step + 1) / settings.iterations)
    with torch.no_grad():
        before = float(sum(problem.terms(state).values()))
    return Outcome(best, before, best_loss, best_terms, tuple(history))


def adam_step(value: Tensor, gradient: Tensor, moments: tuple[Tensor, Tensor], step: int, rate: float) -> Tensor:
    """The next value (Kingma and Ba 2015, algorithm 1); updates the moments in place.

    torch.optim.Adam does the same, but its first use imports the compiler stack, which takes longer than a whole fit.
    """
    first, second = moments
    first.lerp_(gradient, 1 - ADAM_BETAS[0])
    second.lerp_(gradient.square(), 1 - ADAM_BETAS[1])
    mean = first / (1 - ADAM_BETAS[0] ** step)
    deviation = (second / (1 - ADAM_BETAS[1] ** step)).sqrt()
    return value - rate * mean / (deviation + 1e-8)


def _moved(state: FitState, change: Tensor, albedo: Tensor, light: Tensor, limits: Tensor) -> FitState:
    """The state after a change (K,) of turn, shift, identity and expression, whose weights keep to limits (E, 2)."""
    turn, shift, identity, expression = change.split([3, 3, len(state.identity), len(state.expression)])
    return FitState(
        state.identity + identity,
        (state.expression + expression).clamp(limits[:, 0], limits[:, 1]),
        albedo,
        rotation_from_axis_angle(turn) @ state.rotation,
        state.translation + shift,
        light,
    )


def _detached(state: FitState) -> FitState:
    return FitState(*(getattr(state, name).detach().clone() for name in FitState.__dataclass_fields__))
