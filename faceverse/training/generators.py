"""Train the detail generators: `python -m faceverse train detail` and `train expression`.

The loop around `generator_step`: samples, checkpoints, a log, image sheets and distances to held-out data. The state
of a run lies in its work folder, and an interrupted run resumes from its last checkpoint.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..detail.stylegan import ConditionalGenerator
from ..errors import ParameterError, WeightsError
from ..io.files import write_atomically
from ..messages import reason_of
from ..model.face_model import FaceModel
from . import expression_wrinkles, scans
from .detail_data import DetailData, Sample, draw_data, reduced
from .generator_plans import GeneratorPlan, detail_plan, expression_plan
from .generator_step import Losses, Settings, Training
from .patch_distance import PatchDistance, diversity, patch_distance

SAMPLES = 2000
CHECKPOINT_MINUTES = 5.0
REPORT_MINUTES = 15.0
LOG_STEPS = 25  # averaged in one row of the log
MEASURED = 32  # held-out samples for evaluation, half of them for the noise floor
SHEET_PEOPLE, PANE = 4, 256
_AT_ONCE = 4  # full images per batch
FACE_MAP_MM = 297.0  # side of the maps on the face
_SHADE = 1.2  # grey level (0..1) of a slope of 45 degrees
_COLUMNS = ("step", "minutes", *(loss.name for loss in fields(Losses)), "distance", "ratio", "diversity", "noise")


# -- samples ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class SyntheticDetail:
    """Number -> sample of the detail generator: synthetic skin of a random person.

    Args:
        model: provides surface and population.
        seed: same seed and number, same sample.
        size: of the images, 32 to 512; maps are drawn at 512 and reduced.
    """

    model: FaceModel
    seed: int
    size: int = scans.IMAGE_SIZE

    def __call__(self, number: int) -> Sample:
        return _reduced(scans.training_sample(self.model, _skin(self.model), number, self.seed), self.size)


@dataclass(frozen=True)
class SyntheticWrinkles:
    """Number -> sample of the expression generator: wrinkles of a random expression on a random person.

    Args:
        model: provides surface and expressions.
        seed: same seed and number, same sample.
        size: of conditions and images, 32 to 256; maps are drawn at 256 and reduced.
    """

    model: FaceModel
    seed: int
    size: int = expression_wrinkles.WRINKLE_SIZE

    def __call__(self, number: int) -> Sample:
        return _reduced(
            expression_wrinkles.training_sample(self.model, _wrinkles(self.model), number, self.seed), self.size
        )


@lru_cache(1)
def _skin(model: FaceModel) -> scans.DetailSurface:
    return scans.DetailSurface.of(model)


@lru_cache(1)
def _wrinkles(model: FaceModel) -> expression_wrinkles.WrinkleSurface:
    return expression_wrinkles.WrinkleSurface.of(model)


def _reduced(sample: Sample, size: int) -> Sample:
    """Area averages; the condition is at most as large as the image."""

    def smaller(maps: np.ndarray) -> np.ndarray:
        return reduced(torch.from_numpy(np.asarray(maps, np.float32))[None], min(size, maps.shape[-1]))[0].numpy()

    mask = None if sample.mask is None else smaller(sample.mask[None])[0] > 0.5
    return Sample(smaller(sample.condition), smaller(sample.image), sample.z, mask, sample.known)


# -- measuring --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Figures:
    """Metrics of generated maps against held-out data, all at full size.

    Args:
        distance: patch distance between maps generated for half of the held-out samples and the other half.
        floor: patch distance between the two halves.
        ratio: distance / floor, of the means over groups and levels.
        diversity: of maps generated for many heads, relative to the data's.
        noise: standard deviation due to noise alone, in standard deviations of the data.
    """

    distance: PatchDistance
    floor: PatchDistance
    ratio: float
    diversity: float
    noise: float


@torch.no_grad()
def made(generator: ConditionalGenerator, condition: Tensor, z: Tensor, seed: int) -> Tensor:
    """Synthesise full images (N, C, S, S) from conditions (N, K, T, T) and z (N, D), with seeded noise."""
    parts = []
    for first in range(0, len(z), _AT_ONCE):
        rows = slice(first, first + _AT_ONCE)
        noise = generator.make_noise(seed + first, len(z[rows]))
        parts.append(generator.synthesis(generator.mapping(z[rows]), condition[rows], noise))
    return torch.cat(parts)


def figures(generator: ConditionalGenerator, data: DetailData, plan: GeneratorPlan, count: int = MEASURED) -> Figures:
    """Evaluate a generator on held-out data.

    Args:
        count: number of samples, at most as many as are held out.
    """
    numbers = np.array(data.held_out)
    half = min(count, len(numbers)) // 2
    ours, theirs = data.batch(numbers[:half]), data.batch(numbers[half : 2 * half])
    drawn = torch.randn(ours.z.shape, generator=torch.Generator().manual_seed(1))
    z = torch.where(ours.known[:, None], ours.z, drawn)
    maps = made(generator, ours.condition, z, seed=0) * ours.window_seen
    distance = patch_distance(maps, theirs.window, plan.groups, data.region)
    floor = patch_distance(ours.window, theirs.window, plan.groups, data.region)
    two = slice(0, 2)
    again = made(generator, ours.condition[two], z[two], seed=1000) * ours.window_seen[two]
    # The difference of two independent draws has twice the variance of one.
    noise = ((again - maps[two]) / data.spread).square().mean() / (2 * data.region.mean())
    return Figures(
        distance,
        floor,
        distance.mean / max(floor.mean, 1e-9),
        diversity(maps, data.spread, data.region) / max(diversity(ours.window, data.spread, data.region), 1e-9),
        float(noise.sqrt()),
    )


def finished(generator: ConditionalGenerator, info: dict) -> tuple[dict[str, Tensor], dict]:
    """Compact a trained generator for its file: state in float16 without constant or seeded buffers (blur kernels and
    noise maps, see `generator_from_state`); `info` is passed on."""
    state = {
        name: value.detach().half()
        for name, value in generator.state_dict().items()
        if not (name.startswith("noises.") or name.endswith(".kernel"))
    }
    return state, info


# -- sheets -----------------------------------------------------------------------------------------------------------
def sheet(generator: ConditionalGenerator, data: DetailData, plan: GeneratorPlan) -> Image.Image:
    """Image sheet with two rows for each of some held-out samples: the whole map and its centre at full size.

    Columns: the condition's first three channels; the data; the generator with the data's z; with other noise; with two
    other z. Each map is shown as shaded displacement beside its albedo.
    """
    numbers = np.array(data.held_out)[:SHEET_PEOPLE]
    batch = data.batch(numbers)
    drawn = torch.randn(2, *batch.z.shape, generator=torch.Generator().manual_seed(2))
    own = torch.where(batch.known[:, None], batch.z, drawn[0])
    given = [(own, 0), (own, 500), (drawn[0], 0), (drawn[1], 0)]
    pictures = [batch.window, *(made(generator, batch.condition, z, seed) for z, seed in given)]
    rows = []
    for person in range(len(numbers)):
        looks = [_condition_look(batch.condition[person], plan.shape.size)]
        for maps in pictures:
            looks += [_look(maps[person], data.spread, plan, group) for group in reversed(plan.groups)]
        rows += [torch.cat([part(look) for look in looks], dim=2) for part in (_whole, _middle)]
    return Image.fromarray((255 * torch.cat(rows, dim=1)).byte().permute(1, 2, 0).numpy())


def _condition_look(condition: Tensor, size: int) -> Tensor:
    first = 0.5 + 0.25 * condition[None, :3]
    first = F.pad(first, (0, 0, 0, 0, 0, 3 - first.shape[1]))
    return F.interpolate(first, size=(size, size))[0].clamp(0, 1)


def _look(maps: Tensor, spread: Tensor, plan: GeneratorPlan, group: str) -> Tensor:
    """(3, S, S) in 0..1 from maps (C, S, S): slopes for displacement, else normalised values."""
    channels = list(plan.groups[group])
    if group != "displacement":
        return (0.5 + 0.15 * maps[channels] / spread[channels]).clamp(0, 1)
    height_mm = (maps[channels] * torch.tensor(scans.CODE.band_scales_mm).view(-1, 1, 1)).sum(0)
    slope = (height_mm[1:] - height_mm[:-1]) * maps.shape[-1] / FACE_MAP_MM
    return (0.5 + _SHADE * F.pad(slope, (0, 0, 0, 1))).clamp(0, 1).expand(3, -1, -1)


def _whole(look: Tensor) -> Tensor:
    return F.interpolate(look[None], size=(PANE, PANE), mode="area")[0]


def _middle(look: Tensor) -> Tensor:
    side = min(PANE, look.shape[-1])
    start = (look.shape[-1] - side) // 2
    cut = look[:, start : start + side, start : start + side]
    return F.interpolate(cut[None], size=(PANE, PANE))[0]


# -- the loop ---------------------------------------------------------------------------------------------------------
class Run:
    """A training run with its work folder: `state.pt`, `log.csv`, `sheet_000000.png` by step.

    Args:
        training: the networks.
        work: the folder.
        resume: continue from its checkpoint, if there is one.
        progress: receives lines of text.
    Raises:
        ParameterError: the checkpoint belongs to another run.
        WeightsError: the folder cannot be created, or its checkpoint cannot be read.
    """

    def __init__(self, training: Training, work: Path, resume: bool, progress: Callable[[str], None]):
        self.training, self.work, self.progress = training, Path(work), progress
        self.rows: list[dict] = []
        self.figures: Figures | None = None
        try:
            self.work.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise WeightsError("folder.not_made", folder=self.work, reason=reason_of(problem)) from problem
        if resume and self._state_path.is_file():
            self._resume()

    @property
    def _state_path(self) -> Path:
        return self.work / "state.pt"

    @property
    def _log_path(self) -> Path:
        return self.work / "log.csv"

    def _resume(self) -> None:
        try:
            state = torch.load(self._state_path, weights_only=True)
            rows = list(csv.DictReader(self._log_path.open())) if self._log_path.is_file() else []
        except (OSError, RuntimeError, ValueError, EOFError) as problem:
            raise WeightsError("training.checkpoint", path=self._state_path, reason=reason_of(problem)) from problem
        self.training.load(state)
        self.rows = [row for row in rows if int(row["step"]) <= self.training.steps]
        self.progress(f"goes on from step {self.training.steps}, {self.training.seconds / 60:.1f} min")

    def go(self, minutes: float | None, steps: int | None, report_minutes: float = REPORT_MINUTES) -> None:
        """Train until the total minutes or steps are reached, then write a report and a checkpoint.

        With `steps`, the phases of the run depend on the step count and the same seed gives the same numbers; with
        `minutes`, they depend on time.
        """
        training, passed, since = self.training, [], time.monotonic()
        saved = reported = before = training.seconds
        while (share := _progress(training, minutes, steps)) < 1:
            passed.append(training.step(share))
            training.seconds = before + time.monotonic() - since
            report = training.seconds - reported > 60 * report_minutes
            if len(passed) == LOG_STEPS or report:
                self._note(passed, report)
                passed = []
            if report or training.seconds - saved > 60 * CHECKPOINT_MINUTES:
                saved = training.seconds
                reported = saved if report else reported
                self._save()
        self._note(passed, report=True)
        self._save()

    def _note(self, passed: list[Losses], report: bool) -> None:
        """Append a row to the log for the steps since the last row."""
        training = self.training
        row = {"step": training.steps, "minutes": round(training.seconds / 60, 2)}
        for loss in fields(Losses):
            values = [value for step in passed if (value := getattr(step, loss.name)) == value]
            row[loss.name] = f"{np.mean(values):.4f}" if values else ""
        if report:
            generator = training.result()
            self.figures = found = figures(generator, training.data, training.plan)
            row |= {"distance": f"{found.distance.mean:.4f}", "ratio": f"{found.ratio:.3f}"}
            row |= {"diversity": f"{found.diversity:.3f}", "noise": f"{found.noise:.3f}"}
            picture = io.BytesIO()
            sheet(generator, training.data, training.plan).save(picture, "PNG")
            write_atomically(self.work / f"sheet_{training.steps:06d}.png", picture.getvalue(), WeightsError)
        self.rows.append(row)
        self.progress(", ".join(f"{name} {value}" for name, value in row.items() if value != ""))

    def _save(self) -> None:
        content = io.BytesIO()
        torch.save(self.training.state(), content)
        write_atomically(self._state_path, content.getvalue(), WeightsError)
        text = io.StringIO()
        writer = csv.DictWriter(text, _COLUMNS)
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(self._log_path, text.getvalue().encode(), WeightsError)


def _progress(training: Training, minutes: float | None, steps: int | None) -> float:
    by_time = 0.0 if minutes is None else training.seconds / (60 * minutes)
    return max(by_time, 0.0 if steps is None else training.steps / steps)


@dataclass(frozen=True)
class Budget:
    """Limits and resources of a training run.

    Args:
        minutes: total training time over all sessions, without the drawing of samples; None: until `steps`.
        steps: total number over all sessions; None: until `minutes`.
        samples: for training and evaluation.
        threads: of torch; None: one per core.
        workers: processes that draw samples.
        report_minutes: between evaluations with image sheets.
        resume: continue from the work folder's checkpoint.
    Raises:
        ParameterError: neither minutes nor steps, or one that is not positive.
    """

    minutes: float | None = None
    steps: int | None = None
    samples: int = SAMPLES
    threads: int | None = None
    workers: int = 2
    report_minutes: float = REPORT_MINUTES
    resume: bool = True

    def __post_init__(self):
        given = [value for value in (self.minutes, self.steps) if value is not None]
        if not given or any(not value > 0 for value in given):
            raise ParameterError("training.budget", minutes=self.minutes, steps=self.steps)


def train_generator(
    plan: GeneratorPlan,
    sample: Callable[[int], Sample],
    work: str | Path,
    budget: Budget,
    *,
    settings: Settings | None = None,
    seed: int = 0,
    made_for: str = "",
    progress: Callable[[str], None] = print,
) -> tuple[dict[str, Tensor], dict]:
    """Draw samples, train a generator on them, and evaluate it.

    Args:
        plan: architecture.
        sample: number -> `Sample` of the plan's sizes, see `detail_data.draw_data`.
        work: folder for samples, checkpoints, log and sheets.
        seed: of the training; with `budget.steps`, same seed and versions, same weights.
        made_for: identifies what the samples depend on, see `detail_data.draw_data`.
    Returns:
        As `finished`; the information holds seed, steps, samples, settings and metrics.
    Raises:
        ParameterError: the work folder belongs to another run, or samples have other sizes.
        WeightsError: the work folder cannot be written or read.
    """
    settings, work = Settings() if settings is None else settings, Path(work)
    data = draw_data(
        sample, plan.shape, work / "samples", budget.samples,
        made_for=made_for, workers=budget.workers, progress=progress,
    )  # fmt: skip
    with threads(budget.threads):
        run = Run(Training(plan, settings, data, seed), work, budget.resume, progress)
        run.go(budget.minutes, budget.steps, budget.report_minutes)
    return finished(run.training.result(), _info(run, made_for))


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Context in which torch uses this number of threads; None: unchanged."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def train_detail(
    model: FaceModel, work: str | Path, budget: Budget, *, plan: GeneratorPlan | None = None, seed: int = 0, **options
) -> tuple[dict[str, Tensor], dict]:
    """Train the detail generator on synthetic skin.

    Args:
        model: whose UV layout and population it is for.
        plan: by default `detail_plan()`.
        seed: of samples and training.
        work, budget, options: and the result, as in `train_generator`.
    """
    plan = detail_plan() if plan is None else plan
    source = SyntheticDetail(model, seed, plan.shape.size)
    return train_generator(plan, source, work, budget, seed=seed, made_for=samples_made_for(model, seed), **options)


def train_expression(
    model: FaceModel, work: str | Path, budget: Budget, *, plan: GeneratorPlan | None = None, seed: int = 0, **options
) -> tuple[dict[str, Tensor], dict]:
    """Train the expression generator on synthetic wrinkles; arguments as in `train_detail`, with `expression_plan()` by
    default."""
    plan = expression_plan() if plan is None else plan
    source = SyntheticWrinkles(model, seed, plan.shape.size)
    return train_generator(plan, source, work, budget, seed=seed, made_for=samples_made_for(model, seed), **options)


def samples_made_for(model: FaceModel, seed: int) -> str:
    return f"model {model.info.get('sha256', model.name)}, seed {seed}"


def _info(run: Run, made_for: str) -> dict:
    training, found = run.training, run.figures
    return {
        "kind": training.plan.kind,
        "seed": training.seed,
        "steps": training.steps,
        "minutes": round(training.seconds / 60, 1),
        "samples": len(training.data),
        "samples_made_for": made_for,
        "settings": asdict(training.settings),
        "torch": str(torch.__version__),
        "figures": {
            "patch_distance": round(found.distance.mean, 4),
            "floor": round(found.floor.mean, 4),
            "ratio": round(found.ratio, 3),
            "diversity": round(found.diversity, 3),
            "noise": round(found.noise, 3),
        },
    }
