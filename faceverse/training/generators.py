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
from pickle import UnpicklingError

import numpy as np
import torch
from torch import Tensor

from ..detail.stylegan import ConditionalGenerator
from ..errors import ParameterError, WeightsError
from ..io.files import write_atomically
from ..messages import reason_of
from ..model.face_model import FaceModel
from . import expression_wrinkles, synthetic_skin
from .detail_data import DetailSample, area_average, draw_data
from .generator_evaluation import GeneratorMetrics, evaluate_generator, image_sheet
from .generator_plans import GeneratorPlan, detail_plan, expression_plan
from .generator_step import GeneratorTrainer, StepLosses, TrainingSettings

SAMPLES = 2000
CHECKPOINT_MINUTES = 5.0
REPORT_MINUTES = 15.0
LOG_STEPS = 25  # averaged in one row of the log
_UNREADABLE = (OSError, RuntimeError, ValueError, EOFError, LookupError, TypeError, csv.Error, UnpicklingError)
_COLUMNS = ("step", "minutes", *(loss.name for loss in fields(StepLosses)), "distance", "ratio", "diversity", "noise")


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
    size: int = synthetic_skin.IMAGE_SIZE

    def __call__(self, number: int) -> DetailSample:
        return _reduced(
            synthetic_skin.training_sample(self.model, _detail_surface(self.model), number, self.seed), self.size
        )


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

    def __call__(self, number: int) -> DetailSample:
        return _reduced(
            expression_wrinkles.training_sample(self.model, _wrinkle_surface(self.model), number, self.seed), self.size
        )


@lru_cache(1)
def _detail_surface(model: FaceModel) -> synthetic_skin.DetailSurface:
    return synthetic_skin.DetailSurface.of(model)


@lru_cache(1)
def _wrinkle_surface(model: FaceModel) -> expression_wrinkles.WrinkleSurface:
    return expression_wrinkles.WrinkleSurface.of(model)


def _reduced(sample: DetailSample, size: int) -> DetailSample:
    """Area averages; the condition is at most as large as the image."""

    def smaller(maps: np.ndarray) -> np.ndarray:
        return area_average(torch.from_numpy(np.asarray(maps, np.float32))[None], min(size, maps.shape[-1]))[0].numpy()

    mask = None if sample.mask is None else smaller(sample.mask[None])[0] > 0.5
    return DetailSample(smaller(sample.condition), smaller(sample.image), sample.z, mask, sample.known)


def compact_state(generator: ConditionalGenerator, info: dict) -> tuple[dict[str, Tensor], dict]:
    """Compact a trained generator for its file: state in float16 without constant or seeded buffers (blur kernels and
    noise maps, see `generator_from_state`); `info` is passed on."""
    state = {
        name: value.detach().half()
        for name, value in generator.state_dict().items()
        if not (name.startswith("noises.") or name.endswith(".kernel"))
    }
    return state, info


# -- the loop ---------------------------------------------------------------------------------------------------------
class TrainingRun:
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

    def __init__(self, training: GeneratorTrainer, work: Path, resume: bool, progress: Callable[[str], None]):
        self.training, self.work, self.progress = training, Path(work), progress
        self.rows: list[dict] = []
        self.figures: GeneratorMetrics | None = None
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
            steps = [int(row["step"]) for row in rows]
        except _UNREADABLE as problem:
            raise WeightsError("training.checkpoint", path=self._state_path, reason=reason_of(problem)) from problem
        self.training.load(state)
        self.rows = [row for row, step in zip(rows, steps, strict=True) if step <= self.training.steps]
        self.progress(f"resumed from step {self.training.steps}, {self.training.seconds / 60:.1f} min")

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
                self._log_row(passed, report)
                passed = []
            if report or training.seconds - saved > 60 * CHECKPOINT_MINUTES:
                saved = training.seconds
                reported = saved if report else reported
                self._save()
        self._log_row(passed, report=True)
        self._save()

    def _log_row(self, passed: list[StepLosses], report: bool) -> None:
        """Append a row to the log for the steps since the last row."""
        training = self.training
        row: dict[str, int | float | str] = {"step": training.steps, "minutes": round(training.seconds / 60, 2)}
        for loss in fields(StepLosses):
            values = [value for step in passed if (value := getattr(step, loss.name)) == value]
            row[loss.name] = f"{np.mean(values):.4f}" if values else ""
        if report:
            generator = training.result()
            self.figures = found = evaluate_generator(generator, training.data, training.plan)
            row |= {"distance": f"{found.distance.mean:.4f}", "ratio": f"{found.ratio:.3f}"}
            row |= {"diversity": f"{found.diversity:.3f}", "noise": f"{found.noise:.3f}"}
            picture = io.BytesIO()
            image_sheet(generator, training.data, training.plan).save(picture, "PNG")
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


def _progress(training: GeneratorTrainer, minutes: float | None, steps: int | None) -> float:
    by_time = 0.0 if minutes is None else training.seconds / (60 * minutes)
    return max(by_time, 0.0 if steps is None else training.steps / steps)


@dataclass(frozen=True)
class TrainingBudget:
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
    sample: Callable[[int], DetailSample],
    work: str | Path,
    budget: TrainingBudget,
    *,
    settings: TrainingSettings | None = None,
    seed: int = 0,
    made_for: str = "",
    progress: Callable[[str], None] = print,
) -> tuple[dict[str, Tensor], dict]:
    """Draw samples, train a generator on them, and evaluate it.

    Args:
        plan: architecture.
        sample: number -> `DetailSample` of the plan's sizes, see `detail_data.draw_data`.
        work: folder for samples, checkpoints, log and sheets.
        seed: of the training; with `budget.steps`, same seed and versions, same weights.
        made_for: identifies what the samples depend on, see `detail_data.draw_data`.
    Returns:
        As `compact_state`; the information holds seed, steps, samples, settings and metrics.
    Raises:
        ParameterError: the work folder belongs to another run, or samples have other sizes.
        WeightsError: the work folder cannot be written or read.
    """
    settings, work = TrainingSettings() if settings is None else settings, Path(work)
    data = draw_data(
        sample, plan.shape, work / "samples", budget.samples,
        made_for=made_for, workers=budget.workers, progress=progress,
    )  # fmt: skip
    with torch_threads(budget.threads):
        run = TrainingRun(GeneratorTrainer(plan, settings, data, seed), work, budget.resume, progress)
        run.go(budget.minutes, budget.steps, budget.report_minutes)
    return compact_state(run.training.result(), _info(run, made_for))


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Context in which torch uses this number of threads; None: unchanged."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def train_detail(
    model: FaceModel,
    work: str | Path,
    budget: TrainingBudget,
    *,
    plan: GeneratorPlan | None = None,
    seed: int = 0,
    **options,
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
    model: FaceModel,
    work: str | Path,
    budget: TrainingBudget,
    *,
    plan: GeneratorPlan | None = None,
    seed: int = 0,
    **options,
) -> tuple[dict[str, Tensor], dict]:
    """Train the expression generator on synthetic wrinkles; arguments as in `train_detail`, with `expression_plan()` by
    default."""
    plan = expression_plan() if plan is None else plan
    source = SyntheticWrinkles(model, seed, plan.shape.size)
    return train_generator(plan, source, work, budget, seed=seed, made_for=samples_made_for(model, seed), **options)


def samples_made_for(model: FaceModel, seed: int) -> str:
    return f"model {model.info.get('sha256', model.name)}, seed {seed}"


def _info(run: TrainingRun, made_for: str) -> dict:
    training, found = run.training, run.figures
    assert found is not None
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
