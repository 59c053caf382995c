"""Makes the files of the open detail module: `python -m faceverse train detail` and `train expression`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from ..detail import DetailModule, ReliefCode
from ..detail_file import save_detail
from ..errors import ParameterError
from ..model import FaceModel
from ..skin_detail import layout_digest
from ..stylegan import generator_from_state
from . import scan_detail
from .detail_data import SHARD, DetailData, Sample
from .generator_step import detail_plan
from .generators import Budget, train_detail, train_expression, train_generator
from .reader import train_reader
from .scans import CODE, DetailSurface

LICENCE = "CC0-1.0"
SOURCES = "synthetic scans drawn by faceverse.training.scans and .folds on heads of the open model"


def relief_code(model: FaceModel) -> ReliefCode:
    """What the numbers of generators trained here mean."""
    return replace(CODE, layout=layout_digest(model))


def make_detail_file(
    model: FaceModel,
    path: str | Path,
    work: str | Path,
    budget: Budget,
    *,
    reader: tuple[float | None, int | None] = (30.0, None),
    seed: int = 0,
    scans: str | Path | None = None,
    progress: Callable[[str], None] = print,
) -> Path:
    """Trains the detail generator and the reader of skin, and writes both to one file.

    Args:
        model: whose texture space and people they are for.
        path: the new .safetensors file.
        work: folder for samples and checkpoints; a run that was broken off goes on there.
        budget: of the generator.
        reader: minutes, or steps, of the reader's training.
        seed: of samples and trainings.
        scans: folder of real scans to learn from instead of synthetic ones, see `scan_detail`.
    Raises:
        ParameterError: too few scans, or as in `train_generator`.
        WeightsError: a folder cannot be written.
    """
    work = Path(work)
    if scans is None:
        state, info = train_detail(model, work, budget, seed=seed, progress=progress)
        sources = SOURCES
    else:
        samples = _scan_samples(model, Path(scans), work, progress)
        budget = replace(budget, samples=max(2 * SHARD, len(samples)), workers=0)
        made_for = f"scans of {len(samples)} people"
        state, info = train_generator(
            detail_plan(), lambda number: samples[number % len(samples)], work, budget,
            seed=seed, made_for=made_for, progress=progress,
        )  # fmt: skip
        sources = f"registered scans of {len(samples)} people"
    code = relief_code(model)
    data = DetailData(work / "samples", detail_plan().shape, -(-info["samples"] // SHARD))
    network, read = train_reader(model, code, data, minutes=reader[0], steps=reader[1], seed=seed, progress=progress)
    module = DetailModule(
        detail=generator_from_state(state, str(path)),
        reader=network,
        code=code,
        name="open",
        info={"licence": LICENCE, "sources": sources, "detail": info, "reader": read},
    )
    return save_detail(module, path, compact=True)


def make_expression_file(
    model: FaceModel,
    path: str | Path,
    work: str | Path,
    budget: Budget,
    *,
    seed: int = 0,
    progress: Callable[[str], None] = print,
) -> Path:
    """Trains the expression generator and writes it; arguments as in `make_detail_file`."""
    state, info = train_expression(model, work, budget, seed=seed, progress=progress)
    module = DetailModule(
        expression=generator_from_state(state, str(path)),
        code=relief_code(model),
        name="open",
        info={"licence": LICENCE, "sources": SOURCES, "expression": info},
    )
    return save_detail(module, path, compact=True)


def _scan_samples(model: FaceModel, folder: Path, work: Path, progress: Callable[[str], None]) -> list[Sample]:
    """What the scans of a folder teach; only age and sex of their random vectors are known."""
    with torch.no_grad():
        found = scan_detail.scans_from_registered(
            folder, work / "registered", model, DetailSurface.of(model), report=progress
        )
        samples = [scan_detail.scan_sample(model, one) for one in found]
    if not samples:
        raise ParameterError(f"{folder} has no scan that could be used; see the lines above for the reasons")
    return samples
