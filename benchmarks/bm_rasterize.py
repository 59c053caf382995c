"""Time of the rasterizer on a head-like mesh of about 34,000 triangles, on one core, with each installed backend.

Run: python benchmarks/bm_rasterize.py [--size 256] [--repeats 30]
"""

import argparse
import importlib.util
import math
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from faceverse.graphics import rasterize as rasterizing
from faceverse.graphics._raster_kernel import fill_triangles
from faceverse.graphics.rasterize import interpolate, rasterize


def head_like_sphere(rows: int, columns: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """An ellipsoid of a head's extent, 0.6 m away, in a photograph of size x size: vertices (1, V, 3), faces (F, 3)."""
    down, around = torch.meshgrid(
        torch.linspace(0, math.pi, rows), torch.linspace(0, 2 * math.pi, columns + 1)[:-1], indexing="ij"
    )
    x, y, z = 0.08 * down.sin() * around.sin(), 0.12 * down.cos(), 0.10 * down.sin() * around.cos()
    depth, focal_px = 0.6 - z, 2.2 * size
    vertices_px = torch.stack((size / 2 + focal_px * x / depth, size / 2 - focal_px * y / depth, depth), -1)
    corner = torch.arange(rows * columns).reshape(rows, columns)
    a, b = corner[:-1], corner[1:]
    c, d = b.roll(-1, 1), a.roll(-1, 1)
    faces = torch.cat((torch.stack((a, b, c), -1).reshape(-1, 3), torch.stack((a, c, d), -1).reshape(-1, 3)))
    return vertices_px.reshape(1, -1, 3), faces


def milliseconds(function: Callable[[], object], repeats: int, warm_up: bool = True) -> tuple[float, float]:
    """(median, least) milliseconds of a call, after one call to warm up."""
    if warm_up:
        function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times), min(times)


def time_kernel(vertices_px: torch.Tensor, faces: torch.Tensor, size: int, repeats: int) -> tuple[float, float]:
    """The kernel alone, into buffers that exist already."""
    triangle, inverse_depth = np.empty((1, size, size), np.int64), np.empty((1, size, size))

    def fill() -> None:
        triangle.fill(-1)
        inverse_depth.fill(0)
        limits = rasterizing.NEAR_M, rasterizing.MIN_SHAPE, rasterizing.DEPTH_TIE
        fill_triangles(vertices_px.numpy(), faces.numpy(), *limits, False, inverse_depth, triangle)

    return milliseconds(fill, repeats)


def time_step(vertices_px: torch.Tensor, faces: torch.Tensor, size: int, repeats: int) -> tuple[float, float]:
    """One step of a fit: rasterize, interpolate three attributes, gradients of vertices and attributes."""
    vertices_px = vertices_px.clone().requires_grad_()
    attributes = torch.rand(1, vertices_px.shape[1], 3, requires_grad=True)

    def step() -> None:
        image = interpolate(rasterize(vertices_px, faces, (size, size)), attributes, faces)
        torch.autograd.grad(image.mean(), (vertices_px, attributes))

    return milliseconds(step, repeats)


def time_pytorch3d(vertices_px: torch.Tensor, faces: torch.Tensor, size: int) -> tuple[tuple[float, float], int]:
    """Time of one call of pytorch3d on the CPU, which takes seconds, and the number of pixels where numba differs."""
    rasterize(vertices_px, faces[:1], (size, size), backend="pytorch3d")  # loads it
    answers = [rasterize(vertices_px, faces, (size, size), backend="numba").triangle]

    def call() -> None:
        answers.append(rasterize(vertices_px, faces, (size, size), backend="pytorch3d").triangle)

    times = milliseconds(call, 1, warm_up=False)
    return times, int((answers[0] != answers[1]).sum())


def show(name: str, times: tuple[float, float]) -> None:
    print(f"{name:58s} {times[0]:9.2f} ms   (least {times[1]:.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256, help="side of the square image in pixels (default: 256)")
    parser.add_argument("--repeats", type=int, default=30, help="calls per measurement (default: 30)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    size, repeats = options.size, options.repeats

    vertices_px, faces = head_like_sphere(131, 132, size)
    covered = int(rasterize(vertices_px, faces, (size, size)).mask.sum())
    print(f"{len(faces)} triangles, {size} x {size} pixels, {covered} covered; one core; median of {repeats} calls")
    show("numba kernel alone", time_kernel(vertices_px, faces, size, repeats))
    whole = milliseconds(lambda: rasterize(vertices_px, faces, (size, size)), repeats)
    show("rasterize(), forward", whole)
    culled = milliseconds(lambda: rasterize(vertices_px, faces, (size, size), cull_backfaces=True), repeats)
    show("rasterize(), forward, back faces culled", culled)
    show("rasterize() + interpolate(), forward and backward", time_step(vertices_px, faces, size, repeats))

    small_vertices, small_faces = head_like_sphere(17, 16, size)
    naive = milliseconds(lambda: rasterize(small_vertices, small_faces, (size, size), backend="naive"), 1)
    small = milliseconds(lambda: rasterize(small_vertices, small_faces, (size, size)), repeats)
    print(f"\nnaive reference on {len(small_faces)} triangles at the same image size:")
    show("naive", naive)
    show("numba", small)
    print(f"naive / numba, both measured: {naive[0] / small[0]:.0f}")
    # The naive reference tests every triangle at every pixel, so its time is proportional to their number.
    scaled = naive[0] * len(faces) / len(small_faces)
    print(f"naive / numba on {len(faces)} triangles: about {scaled / whole[0]:.0f} "
          f"(naive not run but scaled by the number of triangles, to {scaled / 1e3:.0f} s)")

    if importlib.util.find_spec("pytorch3d") is None:
        print("\npytorch3d is not installed (docs/backends.md)")
        return
    theirs, different = time_pytorch3d(vertices_px, faces, size)
    print(f"\npytorch3d on the CPU, {len(faces)} triangles, one call:")
    show("pytorch3d", theirs)
    print(f"pytorch3d / numba, both measured: {theirs[0] / whole[0]:.0f}; pixels that differ: {different}")


if __name__ == "__main__":
    main()
