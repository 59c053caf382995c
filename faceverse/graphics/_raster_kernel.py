"""Numba kernels of ``faceverse.graphics.rasterize``: visibility and barycentric coordinates at pixel centres."""

import math

import numpy as np

from ..kernels import compile_kernel

TINY = np.nextafter(0.0, 1.0)


@compile_kernel
def insert_layer(value, f, tie, inverse_depth, triangle, start, end):
    """Insert a triangle into elements start..end - 1, behind all that are not farther by ``tie``; the last drops out.

    Returns:
        The least inverse depth of the elements, 0 while there is room: what the next triangle must exceed by ``tie``.
    """
    place, least = start, np.inf
    while place < end and value <= inverse_depth[place] * (1.0 + tie):
        least = min(least, inverse_depth[place])
        place += 1
    while place < end and value > 0:
        inverse_depth[place], value = value, inverse_depth[place]
        triangle[place], f = f, triangle[place]
        least = min(least, inverse_depth[place])
        place += 1
    return least if place == end else 0.0


@compile_kernel
def fill_triangles(vertices_px, faces, limits, cull_backfaces, inverse_depth, triangle, layers=None):
    """Write the index of the nearest triangle, or of several, into every pixel whose centre it covers.

    Edge values are taken relative to the lexicographically smaller end of each edge. Two triangles that share an edge
    then compute exactly opposite numbers for it, and the top-left rule settles the zeros: no hole, no double hit.

    Args:
        vertices_px: (N, V, 3) float: x, y in pixels, depth in metres.
        faces: (F, 3) integers in 0..V-1; not checked here.
        limits: (near, min_shape, tie). near: smallest depth in metres a vertex may have. min_shape: triangles with
            twice their area at most this fraction of their longest edge squared are skipped. tie: relative step in
            inverse depth that a later triangle needs to go before an earlier one.
        cull_backfaces: skip triangles that are clockwise on the screen.
        inverse_depth: (N, H, W) float64 of zeros; receives 1 / depth of the nearest triangle.
        triangle: (N, H, W) int64 of -1; receives the index of that triangle.
        layers: (starts, layer_inverse_depth, layer_triangle) to list several triangles of each pixel from near to far:
            pixel p of the flattened images owns elements starts[p] to starts[p + 1] of the two (P,) arrays, which start
            as zeros. ``inverse_depth`` then bounds the triangles that are listed from below, and is raised where a list
            is full; ``triangle`` starts as zeros and counts the triangles beyond the bound: all of them where
            starts[p] is starts[p + 1]. numba compiles a version of its own for each kind of this argument, so that
            neither costs the other time.
    """
    near, min_shape, tie = limits
    height, width = triangle.shape[1], triangle.shape[2]
    for n in range(vertices_px.shape[0]):
        points, nearest, owner = vertices_px[n], inverse_depth[n], triangle[n]
        for f in range(faces.shape[0]):
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            az, bz, cz = np.float64(points[a, 2]), np.float64(points[b, 2]), np.float64(points[c, 2])
            if not (near < az < np.inf and near < bz < np.inf and near < cz < np.inf):
                continue
            ax, ay = np.float64(points[a, 0]), np.float64(points[a, 1])
            bx, by = np.float64(points[b, 0]), np.float64(points[b, 1])
            cx, cy = np.float64(points[c, 0]), np.float64(points[c, 1])

            # Most triangles of a dense mesh lie between pixel centres: reject them before any arithmetic.
            first_column = math.ceil(max(min(ax, bx, cx) - 0.5, 0.0))
            last_column = math.floor(min(max(ax, bx, cx) - 0.5, width - 1.0))
            if not first_column <= last_column:
                continue
            first_row = math.ceil(max(min(ay, by, cy) - 0.5, 0.0))
            last_row = math.floor(min(max(ay, by, cy) - 0.5, height - 1.0))
            if not first_row <= last_row:
                continue

            area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
            longest = max((bx - ax) ** 2 + (by - ay) ** 2, (cx - bx) ** 2 + (cy - by) ** 2)
            longest = max(longest, (ax - cx) ** 2 + (ay - cy) ** 2)
            if not min_shape * longest < abs(area) < np.inf or (cull_backfaces and area > 0):
                continue
            if area < 0:
                bx, by, bz, cx, cy, cz, area = cx, cy, cz, bx, by, bz, -area

            # Edge i is opposite corner i. Edges that go up (y is down) or exactly right are left and top edges: an edge
            # value of zero is inside for them, and outside for the others.
            dx0, dy0, dx1, dy1, dx2, dy2 = cx - bx, cy - by, ax - cx, ay - cy, bx - ax, by - ay
            least0 = 0.0 if dy0 < 0 or (dy0 == 0 and dx0 > 0) else TINY
            least1 = 0.0 if dy1 < 0 or (dy1 == 0 and dx1 > 0) else TINY
            least2 = 0.0 if dy2 < 0 or (dy2 == 0 and dx2 > 0) else TINY
            x0, y0 = (bx, by) if bx < cx or (bx == cx and by < cy) else (cx, cy)
            x1, y1 = (cx, cy) if cx < ax or (cx == ax and cy < ay) else (ax, ay)
            x2, y2 = (ax, ay) if ax < bx or (ax == bx and ay < by) else (bx, by)
            scale = 1.0 / (area * az * bz * cz)
            weight0, weight1, weight2 = bz * cz * scale, cz * az * scale, az * bz * scale
            for i in range(first_row, last_row + 1):
                y = i + 0.5
                row0, row1, row2 = dx0 * (y - y0), dx1 * (y - y1), dx2 * (y - y2)
                for j in range(first_column, last_column + 1):
                    x = j + 0.5
                    e0, e1, e2 = row0 - dy0 * (x - x0), row1 - dy1 * (x - x1), row2 - dy2 * (x - x2)
                    value = e0 * weight0 + e1 * weight1 + e2 * weight2
                    # One branch instead of four: half of these pixels are misses, which no branch predictor foresees.
                    if (e0 >= least0) & (e1 >= least1) & (e2 >= least2) & (value > nearest[i, j] * (1.0 + tie)):
                        if layers is None:
                            nearest[i, j] = value
                            owner[i, j] = f
                        else:
                            owner[i, j] += 1
                            pixel = (n * height + i) * width + j
                            start, end = layers[0][pixel], layers[0][pixel + 1]
                            if start < end:
                                least = insert_layer(value, f, tie, layers[1], layers[2], start, end)
                                nearest[i, j] = max(nearest[i, j], least)


@compile_kernel
def locate_point(x, y, depth):
    """Perspective-correct weights of three corners at the origin, and the depth there.

    The corners' numbers are tuples, not rows of an array: numba then inlines the call, which costs no time.
    """
    (x0, x1, x2), (y0, y1, y2) = x, y
    area0, area1, area2 = x1 * y2 - y1 * x2, x2 * y0 - y2 * x0, x0 * y1 - y0 * x1
    weight0, weight1, weight2 = area0 / depth[0], area1 / depth[1], area2 / depth[2]
    total = weight0 + weight1 + weight2
    return weight0 / total, weight1 / total, weight2 / total, (area0 + area1 + area2) / total


@compile_kernel
def locate_triangles(vertices_px, faces, triangle, barycentric, depth):
    """Write barycentric coordinates and depth of each pixel centre; the differentiable version is in torch.

    Args:
        vertices_px: (N, V, 3) float: x, y in pixels, depth in metres.
        faces: (F, 3) integers in 0..V-1.
        triangle: (N, H, W) int64 from ``fill_triangles``.
        barycentric: (N, H, W, 3) float, receives perspective-correct weights, 0 where nothing is hit.
        depth: (N, H, W) float, receives metres, 0 where nothing is hit.
    """
    for n in range(triangle.shape[0]):
        for row in range(triangle.shape[1]):
            for column in range(triangle.shape[2]):
                f = triangle[n, row, column]
                if f < 0:
                    barycentric[n, row, column, :] = 0
                    depth[n, row, column] = 0
                    continue
                a, b, c = vertices_px[n, faces[f, 0]], vertices_px[n, faces[f, 1]], vertices_px[n, faces[f, 2]]
                x, y = column + 0.5, row + 0.5
                weight0, weight1, weight2, distance = locate_point(
                    (a[0] - x, b[0] - x, c[0] - x), (a[1] - y, b[1] - y, c[1] - y), (a[2], b[2], c[2])
                )
                barycentric[n, row, column, 0] = weight0
                barycentric[n, row, column, 1] = weight1
                barycentric[n, row, column, 2] = weight2
                depth[n, row, column] = distance


@compile_kernel
def locate_layers(vertices_px, faces, image_size, pixel, triangle, located):
    """`locate_triangles` for triangles in a list.

    Args:
        vertices_px, faces: as there.
        image_size: (height, width).
        pixel: (P,) int64, positions in the flattened (N, H, W) images.
        triangle: (P,) int64.
        located: (4, P) float, receives the three weights, and depth in metres.
    """
    height, width = image_size
    for p in range(len(pixel)):
        row, column = pixel[p] // width % height, pixel[p] % width
        points, f = vertices_px[pixel[p] // (height * width)], triangle[p]
        a, b, c = points[faces[f, 0]], points[faces[f, 1]], points[faces[f, 2]]
        x, y = column + 0.5, row + 0.5
        located[0, p], located[1, p], located[2, p], located[3, p] = locate_point(
            (a[0] - x, b[0] - x, c[0] - x), (a[1] - y, b[1] - y, c[1] - y), (a[2], b[2], c[2])
        )
