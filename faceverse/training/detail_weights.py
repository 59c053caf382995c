"""Train and write the files of the open detail module: `python -m faceverse train detail` and `train expression`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..detail.file import save_detail
from ..detail.latents import layout_digest
from ..detail.module import DetailModule, DisplacementCode
from ..detail.stylegan import generator_from_state
from ..errors import ParameterError
from ..model.face_model import FaceModel
from . import scan_detail
from .detail_data import SHARD, DetailSample, draw_data
from .displacement_regressor import train_displacement_regressor
from .generator_plans import detail_plan
from .generators import (
    SyntheticDetail,
    TrainingBudget,
    samples_made_for,
    torch_threads,
    train_expression,
    train_generator,
)
from .synthetic_skin import CODE, DetailSurface

LICENCE = "CC0-1.0"
SOURCES = (
    "synthetic skin drawn by faceverse.training.synthetic_skin and .expression_wrinkles on heads of the open model"
)


def displacement_code(model: FaceModel) -> DisplacementCode:
    """Meaning of the latents and channels of generators trained here."""
    return replace(CODE, layout=layout_digest(model))


def make_detail_file(
    model: FaceModel,
    path: str | Path,
    work: str | Path,
    budget: TrainingBudget,
    *,
    seed: int = 0,
    scans: str | Path | None = None,
    progress: Callable[[str], None] = print,
) -> Path:
    """Train the detail generator and write it.

    Args:
        model: whose UV layout and population it is for.
        path: the new .safetensors file.
        work: folder for samples and checkpoints; an interrupted run resumes from there.
        budget: of the training.
        seed: of samples and training.
        scans: folder of real scans to learn from instead of synthetic ones, see `scan_detail`.
    Raises:
        ParameterError: too few scans, or as in `train_generator`.
        WeightsError: a folder cannot be written.
    """
    source = _source(model, Path(work), budget, seed, scans, progress)
    state, info = train_generator(
        detail_plan(), source.sample, work, source.budget, seed=seed, made_for=source.made_for, progress=progress
    )
    module = DetailModule(
        detail=generator_from_state(state, str(path)),
        code=displacement_code(model),
        name="open",
        info={"licence": LICENCE, "sources": source.description, "detail": info},
    )
    return save_detail(module, path, compact=True)


def make_reader_file(
    model: FaceModel,
    path: str | Path,
    work: str | Path,
    budget: TrainingBudget,
    *,
    seed: int = 0,
    scans: str | Path | None = None,
    progress: Callable[[str], None] = print,
) -> Path:
    """Train the network that estimates skin displacement from photographs and write it.

    It is trained on the samples of the detail generator. Arguments as in `make_detail_file`, whose work folder
    provides the samples.
    """
    source = _source(model, Path(work), budget, seed, scans, progress)
    shape, code, budget = detail_plan().shape, displacement_code(model), source.budget
    data = draw_data(
        source.sample, shape, Path(work) / "samples", budget.samples,
        made_for=source.made_for, workers=budget.workers, progress=progress,
    )  # fmt: skip
    with torch_threads(budget.threads):
        network, info = train_displacement_regressor(
            model, code, data, minutes=budget.minutes, steps=budget.steps, seed=seed, progress=progress
        )
    info = {"licence": LICENCE, "sources": source.description, "reader": info}
    return save_detail(DetailModule(regressor=network, code=code, name="open", info=info), path, compact=True)


def make_expression_file(
    model: FaceModel,
    path: str | Path,
    work: str | Path,
    budget: TrainingBudget,
    *,
    seed: int = 0,
    progress: Callable[[str], None] = print,
) -> Path:
    """Train the expression generator and write it; arguments as in `make_detail_file`."""
    state, info = train_expression(model, work, budget, seed=seed, progress=progress)
    module = DetailModule(
        expression=generator_from_state(state, str(path)),
        code=displacement_code(model),
        name="open",
        info={"licence": LICENCE, "sources": SOURCES, "expression": info},
    )
    return save_detail(module, path, compact=True)


@dataclass(frozen=True)
class _Source:
    """Training data: number -> sample, what the samples depend on, a description, and the budget with their count."""

    sample: Callable[[int], DetailSample]
    made_for: str
    description: str
    budget: TrainingBudget


def _source(model, work: Path, budget: TrainingBudget, seed: int, scans, progress: Callable[[str], None]) -> _Source:
    if scans is None:
        sample = SyntheticDetail(model, seed, detail_plan().shape.size)
        return _Source(sample, samples_made_for(model, seed), SOURCES, budget)
    samples = _scan_samples(model, Path(scans), work, progress)
    budget = replace(budget, samples=max(2 * SHARD, len(samples)), workers=0)
    made_for = f"scans of {len(samples)} people"
    return _Source(lambda number: samples[number % len(samples)], made_for, f"registered {made_for}", budget)


def _scan_samples(model: FaceModel, folder: Path, work: Path, progress: Callable[[str], None]) -> list[DetailSample]:
    """Training samples from a folder of scans; of their latents only age and sex are known."""
    with torch.no_grad():
        found = scan_detail.scans_from_registered(
            folder, work / "registered", model, DetailSurface.of(model), report=progress
        )
        samples = [scan_detail.scan_sample(model, one) for one in found]
    if not samples:
        raise ParameterError("scan.none_usable", folder=folder)
    return samples
