"""Training data of the detail generators: drawn in parallel, stored in compact shards, read in windows.

A sample is a function of its number, so that an interrupted run resumes and more samples can be added later.
Letters: N batch, C image channels, K condition channels, S full size, W size of the reduced image, T window.

There is no mirror augmentation: a named factor of z (a deeper crease on one side, say) would then contradict the
picture.
"""

from __future__ import annotations

import io
import json
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ParameterError, WeightsError
from ..io.archives import NPY_ERRORS, check_length
from ..io.files import write_atomically
from ..messages import reason_of
from ..threads import one_thread

SHARD = 16  # samples in one file
HELD_OUT = 0.1  # share of the samples, the last ones: for evaluation, never for training
VERSION = 1  # of the files
_SPREAD_FROM = 64  # number of samples from which the standard deviation is estimated
_LEAST_SPREAD = 1e-3


@dataclass(frozen=True)
class DetailSample:
    """One training pair of a generator: condition and target image.

    Args:
        condition: (K, s, s) float32 condition maps.
        image: (C, S, S) float32, zero where there is no detail.
        z: (D,) float32 the latent that produced it; None if unknown.
        mask: (S, S) bool, where the image is observed; None: everywhere.
        known: whether all of z is known; for a scan only age and sex are.
    """

    condition: np.ndarray
    image: np.ndarray
    z: np.ndarray | None = None
    mask: np.ndarray | None = None
    known: bool = True


@dataclass(frozen=True)
class DataShape:
    """Sizes shared by all samples: sides in texels, counts of channels.

    Args:
        size: S of the images.
        condition_size: s of the condition maps; divides S or is S.
        whole: W of the area-averaged images, divides S.
        image_channels, condition_channels, style_dim: C, K, D.
    """

    size: int
    condition_size: int
    whole: int
    image_channels: int
    condition_channels: int
    style_dim: int

    @property
    def record(self) -> np.dtype:
        """Storage layout of one sample."""
        whole = (self.image_channels, self.whole, self.whole)
        condition = (self.condition_channels, self.condition_size, self.condition_size)
        return np.dtype(
            [
                ("image", np.int8, (self.image_channels, self.size, self.size)),
                ("largest", np.float32, (self.image_channels,)),
                ("whole", np.float16, whole),
                ("condition", np.float16, condition),
                ("z", np.float32, (self.style_dim,)),
                ("known", np.bool_),
                ("seen", np.uint8, (self.size, self.size // 8)),
            ]
        )


@dataclass(frozen=True)
class DetailBatch:
    """A training batch, float32.

    Args:
        condition: (N, K, s, s).
        whole: (N, C, W, W), the area-averaged images.
        window: (N, C, T, T) crop of the full images.
        z: (N, D), zeros where unknown.
        known: (N,) bool, whether all of z is known.
        whole_seen, window_seen: (N, 1, W, W) and (N, 1, T, T), observed share of each texel.
    """

    condition: Tensor
    whole: Tensor
    window: Tensor
    z: Tensor
    known: Tensor
    whole_seen: Tensor
    window_seen: Tensor


# -- bytes ------------------------------------------------------------------------------------------------------------
def to_bytes(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantise (C, S, S) to int8; returns the bytes and the largest magnitude (C,) of each channel.

    The bytes hold square roots: the steps are fine for small values, so that smooth skin shows no terraces by which a
    discriminator could recognise data, and at most 0.8 % of the largest value elsewhere. Zero is exact.
    """
    largest = np.maximum(np.abs(image).max(axis=(1, 2)), 1e-12).astype(np.float32)
    root = np.sqrt(np.abs(image) / largest[:, None, None]) * np.sign(image)
    return np.rint(127 * root).astype(np.int8), largest


def from_bytes(stored: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """Decode the output of `to_bytes`: (..., C, H, W) float32."""
    root = stored.astype(np.float32) / 127
    return root * np.abs(root) * largest[..., None, None]


def area_average(maps: Tensor, size: int) -> Tensor:
    """Area average: (N, C, S, S) -> (N, C, size, size)."""
    return maps if maps.shape[-1] == size else F.avg_pool2d(maps, maps.shape[-1] // size)


def condition_window(condition: Tensor, size: int, corner: tuple[int, int], side: int) -> Tensor:
    """Crop a window of the condition maps (N, K, s, s) enlarged to `size`, without enlarging the rest.

    Args:
        size: of the enlarged maps, a multiple of s.
        corner: row and column of the window's first texel, multiples of size / s.
        side: of the window, a multiple of size / s.
    Returns:
        (N, K, side, side), bilinear.
    """
    scale = size // condition.shape[-1]
    (row, column), inner = (start // scale for start in corner), side // scale
    if scale == 1:
        return condition[..., row : row + side, column : column + side]
    padded = F.pad(condition, (1, 1, 1, 1), mode="replicate")
    cut = padded[..., row : row + inner + 2, column : column + inner + 2]
    enlarged = F.interpolate(cut, scale_factor=scale, mode="bilinear", align_corners=False)
    return enlarged[..., scale:-scale, scale:-scale]


# -- drawing ----------------------------------------------------------------------------------------------------------
def draw_data(
    sample: Callable[[int], DetailSample],
    shape: DataShape,
    folder: str | Path,
    count: int,
    *,
    made_for: str = "",
    workers: int = 2,
    progress: Callable[[str], None] = print,
) -> DetailData:
    """Draw the samples that the folder lacks and open all of them.

    Args:
        sample: number -> `DetailSample`, deterministic; it is pickled for other processes, so a lambda does not work.
        count: number of samples, rounded up to whole files of 16.
        made_for: identifies everything else the samples depend on (seed, model, versions): any text.
        workers: number of processes; 0 draws in this one.
        progress: receives a line per file.
    Raises:
        ParameterError: too few samples, or the folder holds samples of another kind.
        WeightsError: the folder cannot be written, or one of its files is damaged.
    """
    folder, shards = Path(folder), -(-count // SHARD)
    if count < 2 * SHARD:
        raise ParameterError("training.samples_fewest", fewest=2 * SHARD, found=count)
    _claim(folder, {"version": VERSION, "made_for": made_for, **shape.__dict__})
    missing = [number for number in range(shards) if not _path(folder, number).is_file()]
    if missing and workers:
        context = multiprocessing.get_context("spawn")
        count = min(workers, len(missing))
        with ProcessPoolExecutor(count, context, _prepare, (sample, shape, folder)) as pool:
            running = [pool.submit(_draw_prepared, number) for number in missing]
            for done, future in enumerate(as_completed(running), shards - len(missing) + 1):
                future.result()
                progress(f"samples: {SHARD * done} of {SHARD * shards}")
    else:
        for done, number in enumerate(missing, shards - len(missing) + 1):
            _draw_shard(sample, shape, folder, number)
            progress(f"samples: {SHARD * done} of {SHARD * shards}")
    return DetailData(folder, shape, shards)


def _claim(folder: Path, content: dict) -> None:
    """Record what the folder's samples are; raise if it already holds other ones."""
    path = folder / "samples.json"
    if path.is_file():
        try:
            same = json.loads(path.read_bytes()) == content
        except (OSError, ValueError, RecursionError) as problem:
            raise WeightsError("training.damaged_samples", path=path, reason=reason_of(problem)) from problem
        if not same:
            raise ParameterError("training.other_samples", folder=folder)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise WeightsError("folder.not_made", folder=folder, reason=reason_of(problem)) from problem
    write_atomically(path, json.dumps(content, indent=1, sort_keys=True).encode(), WeightsError)


def _path(folder: Path, shard: int) -> Path:
    return folder / f"samples_{shard:05d}.npy"


def _mapped(path: Path) -> np.ndarray:
    """The memory-mapped samples of a shard; the file's length is checked first."""
    try:
        with open(path, "rb") as file:
            check_length(file, path.stat().st_size)
        return np.load(path, mmap_mode="r")
    except (OSError, *NPY_ERRORS) as problem:
        raise WeightsError("training.damaged_samples", path=path, reason=reason_of(problem)) from problem


_prepared: list[tuple[Callable[[int], DetailSample], DataShape, Path]] = []


def _prepare(*given) -> None:
    """Initialise a worker process once: the source of the samples may be large."""
    _prepared[:] = [given]


def _draw_prepared(shard: int) -> None:
    _draw_shard(*_prepared[0], shard)


def _draw_shard(sample: Callable[[int], DetailSample], shape: DataShape, folder: Path, shard: int) -> None:
    """Draw one file of samples; it is written atomically."""
    records = np.zeros(SHARD, shape.record)
    with one_thread():
        for place in range(SHARD):
            records[place] = _stored(sample(shard * SHARD + place), shape)
    content = io.BytesIO()
    np.save(content, records)
    write_atomically(_path(folder, shard), content.getvalue(), WeightsError)


def _stored(sample: DetailSample, shape: DataShape) -> tuple:
    """Convert a sample to a record."""
    expected = {
        "image": (shape.image_channels, shape.size, shape.size),
        "condition": (shape.condition_channels, shape.condition_size, shape.condition_size),
        "z": (shape.style_dim,),
        "mask": (shape.size, shape.size),
    }
    for name, form in expected.items():
        value = getattr(sample, name)
        if value is None and name in ("z", "mask"):
            continue
        if np.shape(value) != form or not np.isfinite(value).all():
            raise ParameterError("training.sample_shape", name=name, expected=form, shape=np.shape(value))
    mask = sample.mask
    seen = np.ones((shape.size, shape.size), bool) if mask is None else np.asarray(mask, bool)
    image = np.asarray(sample.image, np.float32) * seen
    whole = area_average(torch.from_numpy(image)[None], shape.whole)[0].numpy()
    z = np.zeros(shape.style_dim, np.float32) if sample.z is None else sample.z
    known = sample.z is not None and sample.known
    return (*to_bytes(image), whole, sample.condition, z, known, np.packbits(seen, axis=1))


# -- reading ----------------------------------------------------------------------------------------------------------
class DetailData:
    """Memory-mapped samples of a folder; the last tenth is held out.

    Args:
        folder: that `draw_data` filled.
        shape: sizes of the samples.
        shards: files to use, from the first.
    """

    def __init__(self, folder: Path, shape: DataShape, shards: int):
        self.shape = shape
        self._shards = [_mapped(_path(Path(folder), number)) for number in range(shards)]
        self._held_out = max(SHARD, round(HELD_OUT * len(self)))

    def __len__(self) -> int:
        return SHARD * len(self._shards)

    @property
    def training(self) -> range:
        """Numbers of the training samples."""
        return range(len(self) - self._held_out)

    @property
    def held_out(self) -> range:
        """Numbers of the held-out samples."""
        return range(len(self) - self._held_out, len(self))

    def records(self, numbers: np.ndarray) -> list[np.void]:
        """Memory-mapped records."""
        return [self._shards[number // SHARD][number % SHARD] for number in numbers]

    def batch(self, numbers: np.ndarray, corner: tuple[int, int] = (0, 0), side: int | None = None) -> DetailBatch:
        """Read samples by number, with their images cropped to a window.

        Args:
            corner: row and column of the window's first texel.
            side: of the window; None: the whole image.
        """
        side = self.shape.size if side is None else side
        rows, columns = (slice(start, start + side) for start in corner)
        chosen = self.records(numbers)
        windows = [from_bytes(record["image"][:, rows, columns], record["largest"]) for record in chosen]
        unpacked = [np.unpackbits(record["seen"], axis=1) for record in chosen]
        seen = torch.from_numpy(np.stack(unpacked)[:, None].astype(np.float32))

        def stacked(name: str) -> Tensor:
            return torch.from_numpy(np.stack([record[name] for record in chosen]).astype(np.float32))

        return DetailBatch(
            condition=stacked("condition"),
            whole=stacked("whole"),
            window=torch.from_numpy(np.stack(windows)),
            z=stacked("z"),
            known=stacked("known") > 0,
            whole_seen=area_average(seen, self.shape.whole),
            window_seen=seen[..., rows, columns],
        )

    @cached_property
    def region(self) -> np.ndarray:
        """(W, W) bool, where any image has detail: the domain of metrics and losses."""
        first = self.records(np.arange(min(len(self.training), _SPREAD_FROM)))
        return np.any([np.any(record["whole"] != 0, axis=0) for record in first], axis=0)

    @cached_property
    def box(self) -> tuple[int, int, int, int]:
        """First row, first column, end row, end column of the region, in texels of the full size."""
        scale = self.shape.size // self.shape.whole
        rows, columns = (np.flatnonzero(self.region.any(axis)) for axis in (1, 0))
        if not len(rows):
            raise ParameterError("training.samples_empty")
        top, left, bottom, right = (int(scale * e) for e in (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1))
        return top, left, bottom, right

    @cached_property
    def spread(self) -> Tensor:
        """(C, 1, 1) standard deviation of each channel inside the region; networks see channels divided by it."""
        first = self.records(np.arange(min(len(self.training), _SPREAD_FROM)))
        full = np.kron(self.region, np.ones([self.shape.size // self.shape.whole] * 2)).astype(bool)
        square = [np.square(from_bytes(record["image"], record["largest"])[:, full]).mean(1) for record in first]
        deviation = np.sqrt(np.mean(square, axis=0)).clip(_LEAST_SPREAD)
        return torch.from_numpy(deviation.astype(np.float32)).reshape(-1, 1, 1)
