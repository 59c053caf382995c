"""Time of the rasterizer on a head-like mesh of about 34,000 triangles, on one core, with each installed backend.

Then the layers of 5,000 transparent cards over it, and their time as a multiple of that of the opaque mesh.

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

from faceverse.graphics._raster_kernel import fill_triangles
from faceverse.graphics.alpha_texture import AlphaTexture
from faceverse.graphics.compositing import composite_layers
from faceverse.graphics.layers import Layers, barycentric_derivatives, interpolate_layers, rasterize_layers
from faceverse.graphics.rasterize import LIMITS, interpolate, rasterize


def head_like_sphere(rows: int, columns: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """An ellipsoid of a head's extent, 0.6 m away, in a photograph of size x size: vertices (1, V, 3), faces (F, 3)."""
    down, around = torch.meshgrid(
        torch.linspace(0, math.pi, rows), torch.linspace(0, 2 * math.pi, columns + 1)[:-1], indexing="ij"
    )
    x, y, z = 0.08 * down.sin() * around.sin(), 0.12 * down.cos(), 0.10 * down.sin() * around.cos()
    vertices_px = on_screen(torch.stack((x, y, z), -1), size)
    corner = torch.arange(rows * columns).reshape(rows, columns)
    a, b = corner[:-1], corner[1:]
    c, d = b.roll(-1, 1), a.roll(-1, 1)
    faces = torch.cat((torch.stack((a, b, c), -1).reshape(-1, 3), torch.stack((a, c, d), -1).reshape(-1, 3)))
    return vertices_px.reshape(1, -1, 3), faces


def on_screen(points: torch.Tensor, size: int) -> torch.Tensor:
    """Points (..., 3) around the middle of the head in metres -> x and y in pixels, depth."""
    x, y, z = points.unbind(-1)
    depth, focal_px = 0.6 - z, 2.2 * size
    return torch.stack((size / 2 + focal_px * x / depth, size / 2 - focal_px * y / depth, depth), -1)


def hair_cards(count: int, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cards of 5 x 24 mm at random places up to a centimetre over the head: vertices, faces, and uv (1, 4 count, 2)."""
    generator = torch.Generator().manual_seed(0)
    around = 2 * math.pi * torch.rand(count, generator=generator)
    height = 1 - 1.3 * torch.rand(count, generator=generator)  # from the crown to below the ears
    outward = torch.stack(((1 - height**2).sqrt() * around.sin(), height, (1 - height**2).sqrt() * around.cos()), -1)
    middle = outward * torch.tensor([0.082, 0.122, 0.102]) * (1 + 0.08 * torch.rand(count, 1, generator=generator))
    aside = torch.linalg.cross(outward, torch.tensor([0.0, 1, 0]).expand_as(outward))
    aside = 0.0025 * torch.nn.functional.normalize(aside, dim=1)
    down = 0.012 * torch.nn.functional.normalize(torch.linalg.cross(aside, outward), dim=1)
    corners = torch.stack([middle + x * aside + y * down for x, y in ((-1, -1), (-1, 1), (1, 1), (1, -1))], 1)
    faces = (4 * torch.arange(count)[:, None, None] + torch.tensor([[0, 1, 2], [0, 2, 3]])).reshape(-1, 3)
    uv = torch.tensor([[0.0, 0], [0, 1], [1, 1], [1, 0]]).repeat(count, 1)
    return on_screen(corners.reshape(1, -1, 3), size), faces, uv[None]


def strand_texture() -> AlphaTexture:
    """64 x 256 texels of strands with soft borders, a third of them opaque."""
    pixels = np.full((256, 64, 4), (90, 60, 40, 0), np.uint8)
    pixels[..., 3] = np.clip(255 * (0.2 + np.sin(np.arange(64) * 2 * math.pi / 8)), 0, 255).astype(np.uint8)
    return AlphaTexture.of(pixels, "BLEND")


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
        fill_triangles(vertices_px.numpy(), faces.numpy(), LIMITS, False, inverse_depth, triangle)

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


def time_layers(vertices_px: torch.Tensor, faces: torch.Tensor, size: int, repeats: int) -> None:
    """Print the time of the layers of 5,000 cards in front of the opaque mesh, and that of the mesh again beside it."""
    opaque = rasterize(vertices_px, faces, (size, size))
    cards, card_faces, uv = hair_cards(5000, size)
    texture = strand_texture()
    found = rasterize_layers(cards, card_faces, (size, size), in_front_of=opaque.depth)

    def shade(layers: Layers) -> tuple[torch.Tensor, torch.Tensor]:
        along_x, along_y = barycentric_derivatives(layers, cards, card_faces)
        at, right, below = (
            interpolate_layers(layers, uv, card_faces, weights) for weights in (layers.weights, along_x, along_y)
        )
        return texture.sampled(at, (right, below))

    background = torch.rand(3, 1, size, size)
    print(f"\n{len(card_faces)} triangles of cards over it: {int(found.hits.sum())} hits in {len(found.covered)} "
          f"pixels, {int(found.hits.max())} at most; {int(found.incomplete.sum())} pixels have more than 8")
    mesh = milliseconds(lambda: rasterize(vertices_px, faces, (size, size)), repeats)
    show("rasterize(), the opaque mesh again", mesh)
    hits = milliseconds(lambda: rasterize_layers(cards, card_faces, (size, size), in_front_of=opaque.depth), repeats)
    show("rasterize_layers(), 8 layers", hits, mesh)
    whole = milliseconds(
        lambda: composite_layers(cards, card_faces, shade, background, in_front_of=opaque.depth), repeats
    )
    show("composite_layers(), all layers, RGBA texture", whole, mesh)


def show(name: str, times: tuple[float, float], reference: tuple[float, float] | None = None) -> None:
    ratio = f"   {times[0] / reference[0]:.1f} x opaque" if reference else ""
    print(f"{name:58s} {times[0]:9.2f} ms   (least {times[1]:.2f}){ratio}")


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

    time_layers(vertices_px, faces, size, repeats)

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
