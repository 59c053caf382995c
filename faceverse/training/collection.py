"""Train a model from a folder of scans: `python -m faceverse train base --scans DIR -o MODEL.safetensors`.

Each scan is registered in a separate process and its result is cached beside the output, in MODEL.scans/, so that an
interrupted run resumes. Rejected scans are listed with the reason in MODEL.scans/report.csv.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, fields, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import FaceVerseError, WeightsError
from ..io.archives import read_npz
from ..io.files import write_atomically
from ..messages import reason_of
from ..model.face_model import FaceParams
from ..model.file import content_hash, read_model_file
from ..weights import find_weights, load_model
from .registration import Registration, RegistrationReport, register
from .scan_files import NEUTRAL, ScanError, ScanFile, find_scans, load_frames
from .scan_model import BASE_HEADS, model_from_scans
from .surface_fit import require_igl

ALL = "all"
FEWEST_SCANS = 2
REGISTRATION_VERSION = 3  # cached registrations of older versions are discarded
COLUMNS = ("scan", "identity", "expression", "status", "reason", *(f.name for f in fields(RegistrationReport)))
USED, REJECTED, OTHER = "used", "set aside", "other expression"
_ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}


@dataclass(frozen=True)
class RegistrationOutcome:
    """Result of a scan: its registration, or the reason for its rejection."""

    scan: ScanFile
    registration: Registration | None = None
    reason: str = ""


def train_from_scans(
    folder: str | Path,
    output: str | Path,
    *,
    model: str = "open",
    neutral: str = NEUTRAL,
    jobs: int | None = None,
    modes: int | None = None,
    report: Callable[[str], None] = print,
    on_progress: Callable[[str, float], None] = lambda label, fraction: None,
) -> Path:
    """Register all neutral scans of a folder and train a model from them.

    Call it under `if __name__ == "__main__":`, because it may start processes.

    Args:
        folder: see `find_scans`.
        output: the `.safetensors` file to write; registered heads are cached beside it in `<stem>.scans/`.
        model: the base model, see `faceverse.load_model`.
        neutral: the neutral expression, for scans named identity_expression; "all": every scan is neutral.
        jobs: number of processes; by default one for each core.
        modes: number of identity modes; by default as many as the base model has.
        report: receives a line for each rejected scan, and a summary.
        on_progress: receives the name of the finished scan and the finished share 0..1.

    Raises:
        ScanError: no scans, or too few that can be used.
        WeightsError: no base model, or the output cannot be written.
    """
    require_igl()
    output, base_path = Path(output), find_weights(model)
    if output.exists() and output.samefile(base_path):
        raise WeightsError("training.output_is_base", path=output)
    scans = find_scans(folder)
    chosen = [scan for scan in scans if neutral == ALL or scan.expression in (None, neutral)]
    if not chosen:
        known = ", ".join(sorted({scan.expression for scan in scans if scan.expression is not None}))
        raise ScanError("scan.no_neutral", folder=folder, neutral=repr(neutral), known=known)
    load_model(model)
    work = output.with_name(f"{output.stem}.scans")
    done: dict[str, RegistrationOutcome] = {}
    on_progress("registering", 0.0)
    try:
        for outcome in register_all(chosen, work, base_path, jobs or os.cpu_count() or 1):
            done[outcome.scan.name] = outcome
            if outcome.reason:
                report(f"{outcome.scan.name} is set aside: {outcome.reason}")
            on_progress(outcome.scan.name, len(done) / len(chosen))
    finally:
        _write_report(scans, chosen, done, work)
    registered = [done[scan.name].registration for scan in chosen]
    heads = [head for head in registered if head is not None]
    report(f"{len(heads)} of {len(chosen)} scans registered; figures in {work / 'report.csv'}")
    if len(heads) < FEWEST_SCANS:
        raise ScanError("scan.too_few", usable=len(heads), total=len(chosen), fewest=FEWEST_SCANS)
    base = read_model_file(base_path)
    file = model_from_scans(base, heads, modes)
    info = _info(base.info, heads, content_hash(base_path))
    return replace(file, name=output.stem, info=info).write(output)


def _info(base: dict, heads: list[Registration], sha256: str) -> dict:
    colored = sum(head.albedo is not None for head in heads)
    return {
        "version": base.get("version", ""),
        "licence": f"that of the scans, and of the base model: {base.get('licence', 'not known')}",
        "sources": {"base model": sha256, "scans": len(heads), "scans with colour": colored},
        "base_model_counts_for_heads": BASE_HEADS,
        "mean_distance_mm": round(float(np.mean([head.report.mean_mm for head in heads])), 4),
        "unit": base.get("unit", "metres after loading"),
    }


# -- registering many -------------------------------------------------------------------------------------------------
def register_all(scans: list[ScanFile], work: Path, base: Path, jobs: int) -> Iterator[RegistrationOutcome]:
    """Yield the outcomes as they complete, cached ones first.

    Args:
        work: cache folder for the registered heads, created if missing.
        base: the base model's file.
        jobs: number of processes; with 1 everything runs in this one.
    """
    sha256, waiting = content_hash(base), []
    for scan in scans:
        outcome = load_outcome(scan, work, outcome_key(scan, sha256))
        if outcome is None:
            waiting.append(scan)
        else:
            yield outcome
    task = partial(register_file, work=work, base=base, sha256=sha256)
    if jobs == 1 or len(waiting) < 2:
        for scan in waiting:
            yield _outcome(scan, *task(scan), work, sha256)
        return
    with _single_threaded():
        pool = ProcessPoolExecutor(min(jobs, len(waiting)), get_context("spawn"), _start_worker)
        try:
            futures = {pool.submit(task, scan): scan for scan in waiting}
            for future in as_completed(futures):
                yield _outcome(futures[future], *future.result(), work, sha256)
        except BrokenProcessPool as error:
            raise ScanError("training.process_ended") from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _outcome(scan: ScanFile, finished: bool, reason: str, work: Path, sha256: str) -> RegistrationOutcome:
    return (load_outcome(scan, work, outcome_key(scan, sha256)) if finished else None) or RegistrationOutcome(
        scan, reason=reason
    )


@contextlib.contextmanager
def _single_threaded() -> Iterator[None]:
    """Let processes started inside use one thread each: the cores are shared by scans, not by matrix operations."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(_ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process handles interrupts
    torch.set_num_threads(1)


def register_file(scan: ScanFile, *, work: Path, base: Path, sha256: str) -> tuple[bool, str]:
    """Register one scan and cache the result.

    An unexpected exception is also returned as a reason, but not cached, so that the other scans still complete.

    Returns:
        whether a result was cached, and the reason if the scan is rejected.
    """
    key = outcome_key(scan, sha256)
    try:
        found = register(load_frames(scan.path), load_model(base))
    except FaceVerseError as error:
        _save_arrays(
            work / f"{scan.name}.npz", {"key": np.array(key), "reason": np.array(" ".join(str(error).split()))}
        )
        return True, str(error)
    except Exception as error:
        traceback.print_exc()
        return False, f"fault in the registration ({type(error).__name__}: {error})"
    _save_arrays(work / f"{scan.name}.npz", {"key": np.array(key), **_arrays(found)})
    return True, ""


# -- files ------------------------------------------------------------------------------------------------------------
def outcome_key(scan: ScanFile, sha256: str) -> str:
    """Cache key: it changes with the scan, the base model or the registration method."""
    stat = scan.path.stat()
    text = json.dumps([REGISTRATION_VERSION, sha256, scan.path.name, stat.st_size, stat.st_mtime_ns])
    return hashlib.sha256(text.encode()).hexdigest()


def _save_arrays(path: Path, arrays: dict[str, Any]) -> None:
    content = io.BytesIO()
    np.savez(content, **arrays)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightsError("folder.not_made", folder=path.parent, reason=reason_of(error)) from error
    write_atomically(path, content.getvalue(), WeightsError)


def _arrays(found: Registration) -> dict[str, np.ndarray]:
    arrays = {
        "vertices": found.vertices,
        "displacement": found.displacement,
        "identity": found.params.identity,
        "expression": found.params.expression,
        "matrix": found.matrix,
        "translation": found.translation,
        "weights": found.weights,
        "report": np.array([getattr(found.report, f.name) for f in fields(RegistrationReport)], np.float64),
    }
    return arrays if found.albedo is None else arrays | {"albedo": found.albedo.astype(np.float16)}


def load_outcome(scan: ScanFile, work: Path, key: str) -> RegistrationOutcome | None:
    """Load the cached outcome of a scan; None if there is none or it is out of date."""
    path = work / f"{scan.name}.npz"
    try:
        kept = read_npz(path.read_bytes())
        if str(kept["key"]) != key:
            return None
        if "reason" in kept:
            return RegistrationOutcome(scan, reason=str(kept["reason"]))
        return RegistrationOutcome(scan, _registration(kept))
    except (OSError, ValueError, KeyError):
        return None  # missing or unreadable: registered again


def _registration(kept) -> Registration:
    whole = {"points", "frames"}
    values = zip(fields(RegistrationReport), kept["report"], strict=True)
    numbers: dict[str, Any] = {f.name: int(value) if f.name in whole else float(value) for f, value in values}
    report = RegistrationReport(**numbers)
    return Registration(
        kept["vertices"],
        kept["displacement"],
        FaceParams(kept["identity"], kept["expression"], np.zeros(0, np.float32)),
        kept["matrix"],
        kept["translation"],
        kept["albedo"].astype(np.float32) if "albedo" in kept else None,
        kept["weights"],
        report,
    )


def _write_report(
    scans: list[ScanFile], chosen: list[ScanFile], done: dict[str, RegistrationOutcome], work: Path
) -> None:
    """Write report.csv with a row for each scan of the folder; scans not yet processed have no status."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, restval="")
    writer.writeheader()
    for scan in scans:
        row = {"scan": scan.name, "identity": scan.identity, "expression": scan.expression or ""}
        outcome = done.get(scan.name)
        if scan not in chosen:
            row["status"] = OTHER
        if outcome is not None:
            row |= {"status": REJECTED if outcome.reason else USED, "reason": outcome.reason}
            row |= outcome.registration.report.row() if outcome.registration else {}
        writer.writerow(row)
    if work.is_dir():
        write_atomically(work / "report.csv", text.getvalue().encode("utf-8", "backslashreplace"), WeightsError)
