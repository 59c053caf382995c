# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 2. From a head to a picture: pose, camera, light, triangles
#
# [![Open in
# Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/)
#
# (In Colab run first, with the address of this repository: `!git clone ADDRESS faceverse` and
# `%pip install -q "./faceverse[notebooks]"`.)
#
# A fit asks "which head, seen how and lit how, would look like this photograph?" To answer it, we must be able to make
# the picture of any head. This notebook makes one from nothing: turn, project, light, fill triangles. In the end we
# ask how the picture changes when the head does, because that is all that a fit needs to know.
#
# **You will**
#
# 1. turn a head and project it by hand,
# 2. see why selfies have big noses, in numbers,
# 3. build light from nine simple patterns,
# 4. fill triangles pixel by pixel, with perspective and depth,
# 5. find out where gradients come from, and where they are missing.
#
# **You need** NumPy, a little linear algebra (a rotation matrix) and the idea of a derivative.
# [01_base_model](01_base_model.ipynb) comes before: it explains where the heads come from.

# %% [markdown]
# ## 1. Set-up

# %%
import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # more threads only wait for each other here

import matplotlib.pyplot as plt
import numpy as np
import torch

import faceverse as fv
from faceverse.graphics.camera import project, rotation_from_euler_deg, transform
from faceverse.graphics.lighting import directed_light, sh_basis, shading, srgb_from_linear
from faceverse.graphics.rasterize import interpolate, rasterize
from faceverse.rendering.render import render_head
from faceverse.viewer import show

FAST = os.environ.get("FACEVERSE_FAST") == "1"  # shorter loops, for the tests

# %%
plt.rcParams.update({"figure.figsize": (6, 3), "figure.dpi": 90, "figure.facecolor": "white"})


model = fv.load_model()
person = fv.head(model.random(12), model)
print(f"{len(person.vertices)} vertices, {len(person.faces)} triangles")

# %% [markdown]
# ## 2. Pose
#
# A head lies in *head space*: metres, x to the person's left, y up, z out of the face. The camera has a space of its
# own: it sits at the origin and looks along **-z**; x is right in the picture, y is up. A pose brings one into the
# other:
#
# $$\mathbf{p}_{cam} = \mathbf{R} \, \mathbf{p} + \mathbf{t}$$
#
# * $\mathbf{p}$, (3,), metres: a vertex in head space; $\mathbf{p}_{cam}$, (3,), metres: the same in camera space,
# * $\mathbf{R}$, (3, 3), no unit: a rotation matrix (its columns have length 1 and are at right angles),
# * $\mathbf{t}$, (3,), metres: where the head's origin lies; (0, 0, -0.6) is 60 cm in front of the camera.
#
# A rotation has nine numbers but only three freedoms: *yaw* turns the face sideways, *pitch* looks up and down, *roll*
# tilts the head. Yaw by an angle $\psi$ keeps y and mixes x with z:
#
# $$\mathbf{R}_{yaw} = \begin{pmatrix} \cos\psi & 0 & \sin\psi \\ 0 & 1 & 0 \\ -\sin\psi & 0 & \cos\psi \end{pmatrix}$$

# %%
psi = np.radians(30)
R_yaw = np.array([[np.cos(psi), 0, np.sin(psi)], [0, 1, 0], [-np.sin(psi), 0, np.cos(psi)]])
assert np.allclose(R_yaw @ R_yaw.T, np.eye(3))
assert np.allclose(R_yaw, rotation_from_euler_deg(yaw_deg=30).numpy(), atol=1e-6)
print(R_yaw.round(3))
camera = fv.Camera(focal_px=470, principal_point_px=(120, 98), image_size=(240, 240))
angles = {"yaw 30°": (30, 0, 0), "pitch 20°": (0, 20, 0), "roll 20°": (0, 0, 20)}
show(*(fv.render(person, mode="clay", camera=camera, rotation=angle).rgb for angle in ((0, 0, 0), *angles.values())))

# %% [markdown]
# From the left: straight, yaw, pitch, roll. The order matters when they are combined: rotations do not commute.

# %%
pitch = rotation_from_euler_deg(pitch_deg=40).numpy()
yaw = rotation_from_euler_deg(yaw_deg=40).numpy()
print(f"largest difference of the two products: {np.abs(yaw @ pitch - pitch @ yaw).max():.2f}")
show(*(fv.render(person, mode="clay", camera=camera, rotation=R).rgb for R in (yaw @ pitch, pitch @ yaw)))
assert np.abs(yaw @ pitch - pitch @ yaw).max() > 0.1

# %% [markdown]
# ## 3. A pinhole camera
#
# All light goes through one point, the camera's centre, and falls on a plane behind it. By similar triangles, what is
# twice as far away is half as large:
#
# $$u = c_x + f \, \frac{x}{d}, \qquad v = c_y - f \, \frac{y}{d}, \qquad d = -z$$
#
# * $(x, y, z)$, metres: a point in camera space; $d$, metres: its **depth**,
# * $(u, v)$, pixels: where it falls, to the right and down from the top left corner,
# * $f$, pixels: the **focal length**; $(c_x, c_y)$, pixels: the *principal point*, where the camera looks at.
#
# (The minus in $v$ is there because pictures count rows downwards.) Division by $d$ is the only thing in it that is not
# linear, and the whole of perspective.

# %%
R, t = np.asarray(person.params.rotation), np.asarray(person.params.translation)
points_cam = person.vertices @ R.T + t  # the vertices are rows, hence the transposed matrix
depth = -points_cam[:, 2]
cx, cy = camera.principal_point_px
u = cx + camera.focal_px * points_cam[:, 0] / depth
v = cy - camera.focal_px * points_cam[:, 1] / depth
library = project(torch.from_numpy(points_cam), camera).numpy()
print(f"largest difference from the library: {np.abs(np.stack([u, v, depth], axis=1) - library).max():.1e}")
assert np.allclose(np.stack([u, v, depth], axis=1), library, atol=1e-3)

# %% [markdown]
# Each vertex as a dot, beside a proper rendering by the same camera:

# %%
dots = np.full((240, 240, 3), 255, np.uint8)
dots[v.astype(int).clip(0, 239), u.astype(int).clip(0, 239)] = (40, 90, 160)
show(dots, fv.render(person, camera=camera).rgb)

# %% [markdown]
# ### 3.1 Why selfies have big noses
#
# An arm is short. At 25 cm the nose is some 3 cm nearer than the eyes and 10 cm nearer than the ears; that is a large
# part of the distance, and nothing at 2 m. We photograph the same person from both distances, and zoom (that is, choose
# $f$) so that the eyes are equally far apart in the picture.

# %%
eye_plane = person.vertices[model.regions["eyeballs"], 2].mean()
pictures, ratios = [], {}
corners, weights = model.faces[model.landmarks_478.triangle], model.landmarks_478.barycentric[..., None]
wings = (person.vertices[corners] * weights).sum(axis=1)[[129, 358]]  # two landmarks on the wings of the nose
ears = person.vertices[model.regions["ears"]]
for metres in (0.25, 0.5, 1.0, 2.0, 100.0):
    zoom = fv.Camera(800 * metres, (120, 110), (240, 240))
    t = np.float32([0, 0, -metres - eye_plane])  # the eyes are at this distance
    nose_px, ears_px = (np.ptp(zoom.focal_px * p[:, 0] / -(p[:, 2] + t[2])) for p in (wings, ears))
    ratios[metres] = nose_px / ears_px
    print(f"{metres:6.2f} m: nose {nose_px:5.1f} px, ears {ears_px:5.1f} px apart, ratio {ratios[metres]:.3f}")
    posed = person.replace(params=person.params.replace(translation=t))
    pictures.append(fv.render(posed, camera=zoom).rgb)
show(*pictures[:4])
bigger = ratios[0.25] / ratios[2.0]
print(f"nose over ears, 25 cm against 2 m: {bigger - 1:+.0%}")
assert 1.2 < bigger < 2 and ratios[0.25] > ratios[0.5] > ratios[1.0] > ratios[2.0]

# %% [markdown]
# From the left 0.25, 0.5, 1 and 2 m, the same head. The eyes keep their distance; what is nearer than they, the nose,
# is larger in the left pictures, and what is farther, ears and neck, is smaller. Nothing is wrong with the lens: a wide
# angle only makes it *possible* to go near. Perspective depends on the distance alone.
#
# For a fit this is a danger: a near camera and a wide face look alike. If the photograph does not say its focal length
# (in its EXIF data), distance and shape must be guessed together, and errors of one become errors of the other. Here is
# how fast the effect goes away:

# %%
metres = np.geomspace(0.2, 4, 60)
nose = np.ptp(wings[:, 0] / (metres[:, None] + eye_plane - wings[:, 2]), axis=1)
ear = np.ptp(ears[:, 0] / (metres[:, None] + eye_plane - ears[:, 2]), axis=1)
plt.semilogx(metres, 100 * (nose / ear / ratios[100.0] - 1))
plt.minorticks_off()
plt.xticks([0.25, 0.5, 1, 2, 4], ["0.25", "0.5", "1", "2", "4"])
plt.xlabel("distance in m")
plt.ylabel("nose too large by %")
plt.grid(alpha=0.3)
plt.show()

# %% [markdown]
# ## 4. Light
#
# Skin is treated as a **diffuse** surface: a point gives back the same light in all directions, so it does not matter
# where we look from. What matters is the *normal* $\mathbf{n}$, (3,), length 1: the direction in which the surface
# faces. The colour at a point then is
#
# $$\text{colour} = \text{albedo} \cdot s(\mathbf{n})$$
#
# with the **shading** $s$: how much light arrives there, in red, green and blue. A single distant lamp of strength 1 in
# the direction $\mathbf{l}$ (length 1) gives $s = \max(0, \mathbf{n} \cdot \mathbf{l})$, *Lambert's law*: light from
# aside is spread over a larger area, and from behind there is none.
#
# ### 4.1 Nine patterns
#
# Real light comes from everywhere. But $s$ is a function on the sphere of directions, and a very smooth one; so it can
# be written as a sum of a few smooth patterns. Those of choice are the *spherical harmonics*, the sphere's sines and
# cosines. With nine of them,
#
# $$s(\mathbf{n}) = \sum_{k=1}^{9} \ell_k \, h_k(\mathbf{n})$$
#
# * $h_k(\mathbf{n})$, numbers: patterns that are, up to constants,
#   $1;\; n_y, n_z, n_x;\; n_x n_y,\, n_y n_z,\, 3 n_z^2 - 1,\, n_x n_z,\, n_x^2 - n_y^2$,
# * $\ell_k$, (3,): the strength of each, in red, green and blue. All of them, (9, 3), are the **light** of a
#   photograph.
#
# Here they are on a sphere and on the head (red is positive, blue negative):

# %%
y, x = np.mgrid[1:-1:96j, -1:1:96j]
inside = x**2 + y**2 < 1
sphere = np.stack([x, y, np.sqrt(np.clip(1 - x**2 - y**2, 0, None))], axis=-1)
small = fv.Camera(205, (48, 41), (96, 96))
on_head = render_head(
    torch.from_numpy(person.vertices)[None], torch.ones(1, len(person.vertices), 3), model.tensor("faces"),
    torch.eye(3)[None], torch.tensor([[0, 0, -0.6]]), directed_light()[None], small,
)  # fmt: skip
normals = np.stack([sphere, on_head.normals_cam[0].numpy()])  # (2, 96, 96, 3): for each pixel the normal seen there
masks = np.stack([inside, on_head.mask[0].numpy()])
patterns = sh_basis(torch.from_numpy(normals).float()).numpy() * masks[..., None]
print("patterns:", patterns.shape, " (sphere and head, rows, columns, the nine)")

# %%
titles = ("1", "y", "z", "x", "xy", "yz", "3z²-1", "xz", "x²-y²")
figure, axes = plt.subplots(2, 9, figsize=(9, 2.4))
for k, title in enumerate(titles):
    for row in (0, 1):
        axes[row, k].imshow(patterns[row, ..., k], vmin=-0.4, vmax=0.4, cmap="RdBu_r")
        axes[row, k].axis("off")
    axes[0, k].set_title(title, fontsize=9)
plt.subplots_adjust(wspace=0.05, hspace=0.05)
plt.show()

# %% [markdown]
# The first is light from everywhere, the next three say "brighter above", "brighter in front", "brighter on the right";
# the last five are finer. By adding and taking away, every soft light can be mixed. One light, built up: the first
# pattern alone, then with the next three, then all nine.

# %%
light = directed_light(yaw=50, pitch=30)
print("strengths (red):", light[:, 0].numpy().round(2))
steps = []
for kept in (1, 4, 9):
    partial = light.clone()
    partial[kept:] = 0
    steps.append(fv.render(fv.edit(person, light=partial.numpy()), mode="color", camera=camera).rgb)
show(*steps)

# %% [markdown]
# ### 4.2 Why nine are enough
#
# A lamp is a point in the sky: no nine smooth patterns can describe it. Its *shading* they can, because Lambert's law
# averages the sky over half a sphere, and averaging removes what is fine. In the language of harmonics: the shading's
# strength in the patterns of *order* $l$ (order 0 has one pattern, order 1 three, order 2 five) is the sky's, times a
# factor $A_l$:
#
# $$A_l = 2\pi \int_{-1}^{1} \max(0, c) \, P_l(c) \, dc$$
#
# where $c$ is the cosine of the angle to the lamp and $P_l$ the Legendre polynomial of order $l$ ($P_0 = 1$, $P_1 = c$,
# $P_2 = (3c^2 - 1)/2$ and so on). Let us integrate:

# %%
c = np.linspace(-1, 1, 200001)
legendre = [np.polynomial.legendre.Legendre.basis(order)(c) for order in range(7)]
A = [2 * np.pi * 2 * np.mean(np.maximum(0, c) * P) for P in legendre]  # the interval has length 2
print("A_l / pi:", [f"{a / np.pi:.4f}" for a in A])
assert np.allclose(np.array(A[:3]) / np.pi, (1, 2 / 3, 1 / 4), atol=1e-4) and abs(A[3]) < 1e-4 and abs(A[4]) < 0.2

# %% [markdown]
# 1, 2/3, 1/4, 0, and then hardly anything: the orders 0 to 2, nine patterns, have nearly all. (The patterns $h_k$ of
# this library have the factor $A_l / \pi$ built in, so that a white surface in light of strength 1 from everywhere
# has shading 1.) The sum up to order $L$, against Lambert's law:

# %%
angle = np.degrees(np.arccos(c))
plt.plot(angle, np.maximum(0, c), "k", linewidth=2, label="Lambert")
error = {}
for last in (0, 1, 2):
    series = sum((2 * order + 1) / (4 * np.pi) * A[order] * legendre[order] for order in range(last + 1))
    error[last] = np.sqrt(np.mean((series - np.maximum(0, c)) ** 2))
    plt.plot(angle, series, label=f"up to order {last}")
plt.xlabel("angle between normal and lamp in degrees")
plt.ylabel("shading")
plt.legend()
plt.grid(alpha=0.3)
plt.show()
print("root mean square error over the sphere:", {f"order {k}": f"{e:.3f}" for k, e in error.items()})
assert error[2] < 0.06 < error[1] < error[0]

# %% [markdown]
# Where the curve ends on the right, it is not quite zero, and around 120° it even is negative: a surface cannot be
# darker than black, so pictures clip that. What nine patterns cannot do at all: cast shadows (of the nose on the cheek)
# and shine. A photograph with hard shadows will mislead a fit that knows only this.
#
# ### 4.3 Light that moves
#
# The light of this library lives in camera space: when the head turns, the light stays where it is. First the lamp goes
# from the left of the picture to the right, then the head turns under a lamp that stays.

# %%
camera = fv.Camera(390, (100, 82), (200, 200))
lamps = [fv.edit(person, light={"yaw": yaw, "pitch": 15}) for yaw in (-80, -40, 0, 40, 80)]
show(*(fv.render(head, camera=camera).rgb for head in lamps))
show(*(fv.render(lamps[0], camera=camera, rotation=(yaw, 0, 0)).rgb for yaw in (-60, -30, 0, 30, 60)))

# %%
lit = render_head(
    torch.from_numpy(person.vertices)[None], torch.from_numpy(person.albedo)[None], model.tensor("faces"),
    torch.eye(3)[None], torch.tensor([[0, 0, -0.6]]), directed_light(yaw=-80, pitch=15)[None], camera,
)  # fmt: skip
face = model.regions["face"]
s = shading(lit.vertex_normals_cam[0, face], directed_light(yaw=-80, pitch=15)).mean(dim=1).numpy()
on_right = person.vertices[face, 0] < 0  # the person's right is the left of the picture, where the lamp is
print(f"mean shading: {s[on_right].mean():.2f} on the lamp's side, {s[~on_right].mean():.2f} on the other")
assert s[on_right].mean() > 1.3 * s[~on_right].mean()

# %% [markdown]
# ## 5. Filling a triangle
#
# We know where three corners fall. Which pixels does the triangle cover? Take the *edge function* of the edge from
# corner $\mathbf{a}$ to corner $\mathbf{b}$ (pixels) at a pixel centre $\mathbf{q}$:
#
# $$E_{ab}(\mathbf{q}) = (b_x - a_x)(q_y - a_y) - (b_y - a_y)(q_x - a_x)$$
#
# Twice the signed area of the triangle $\mathbf{a}\mathbf{b}\mathbf{q}$, in square pixels: positive on one side of the
# edge, negative on the other. A pixel is inside where all three edge functions have the same sign. The centre of the
# pixel in row $i$ and column $j$ is $(j + 0.5, i + 0.5)$.

# %%
H, W = 180, 240
corner_px = np.array([[27.0, 150.0], [210.0, 126.0], [93.0, 18.0]])  # x and y of the three corners
q_x, q_y = np.meshgrid(np.arange(W) + 0.5, np.arange(H) + 0.5)
edges = []
for a, b in ((1, 2), (2, 0), (0, 1)):  # the edge opposite to corner 0, 1, 2
    (ax, ay), (bx, by) = corner_px[a], corner_px[b]
    edges.append((bx - ax) * (q_y - ay) - (by - ay) * (q_x - ax))
edges = np.stack(edges)
covered = (edges > 0).all(axis=0) | (edges < 0).all(axis=0)
sides = [np.where(edge > 0, 210, 110).astype(np.uint8) for edge in edges]
show(*(np.pad(side, ((0, 0), (0, 8)), constant_values=255) for side in sides), (255 * ~covered).astype(np.uint8))
print(f"{covered.sum()} pixels; the exact area is {abs(edges.sum(axis=0)[0, 0]) / 2:.0f} square pixels")
assert abs(covered.sum() - abs(edges.sum(axis=0)[0, 0]) / 2) < 40

# %% [markdown]
# ### 5.1 Where in the triangle
#
# Divided by their sum, the same three numbers are the **barycentric coordinates** $w_0, w_1, w_2$ of the pixel: 1 at
# their own corner, 0 on the opposite edge, sum 1. Any quantity known at the corners can be mixed with them:

# %%
w = edges / edges.sum(axis=0)
assert np.allclose(w.sum(axis=0), 1) and (w[:, covered] >= 0).all()
rainbow = np.where(covered[..., None], 255 * w.transpose(1, 2, 0), 255).astype(np.uint8)
show(rainbow)

# %% [markdown]
# ### 5.2 Perspective
#
# There is a catch: the middle between two corners *in the picture* is not the middle between them *in space*, because
# the farther half looks shorter. What is linear in the picture is one over the depth, $1/d$, and any quantity divided
# by $d$. So the right weights are
#
# $$\lambda_i = \frac{w_i / d_i}{\sum_j w_j / d_j}, \qquad \frac{1}{d} = \sum_i \frac{w_i}{d_i}$$
#
# with $d_i$, metres, the depths of the corners. Let the right corner be four times as far away as the others, and paint
# stripes that are equally wide in space: without the correction, and with it.

# %%
d = np.array([0.5, 2.0, 0.5])
inverse = np.einsum("k,khw->hw", 1 / d, w)
lam = w / d[:, None, None] / inverse
stripes = [np.where((10 * weight[1]).astype(int) % 2 == 0, 60, 200) for weight in (w, lam)]
show(*(np.where(covered, stripe, 255).astype(np.uint8) for stripe in stripes))

# %% [markdown]
# In the second picture the stripes become narrower with distance, as they must. Now the same triangle with the
# library's `rasterize`, which does this for all triangles of a head at once:

# %%
vertices_px = torch.from_numpy(np.column_stack([corner_px, d]))[None]
fragments = rasterize(vertices_px, torch.tensor([[0, 1, 2]]), (H, W))
mask = fragments.mask[0].numpy()
both = mask & covered
weight_error = np.abs(fragments.barycentric[0].numpy()[both].T - lam[:, both]).max()
depth_error = np.abs(fragments.depth[0].numpy()[both] - 1 / inverse[both]).max()
print(f"covered: {mask.sum()} and {covered.sum()} pixels, {(mask != covered).sum()} different")
print(f"largest difference: weights {weight_error:.1e}, depth {depth_error:.1e} m")
assert (mask != covered).sum() <= 3 and weight_error < 1e-9 and depth_error < 1e-9

# %% [markdown]
# ### 5.3 Which triangle is in front
#
# Several triangles may cover a pixel; the nearest is visible. So for each pixel we keep the smallest depth so far, the
# *depth buffer*. Two triangles that go through each other:

# %%
second_px = np.array([[15.0, 45.0], [225.0, 60.0], [135.0, 172.0]])
second_d = np.array([1.5, 0.5, 0.7])
depth_buffer, seen = np.full((H, W), np.inf), np.full((H, W), -1)
for number, (p, dd) in enumerate(((corner_px, d), (second_px, second_d))):
    cross = [(p[b, 0] - p[a, 0]) * (q_y - p[a, 1]) - (p[b, 1] - p[a, 1]) * (q_x - p[a, 0])
             for a, b in ((1, 2), (2, 0), (0, 1))]  # fmt: skip
    bary = np.stack(cross) / np.sum(cross, axis=0)
    here = 1 / np.einsum("k,khw->hw", 1 / dd, bary)
    nearer = (bary > 0).all(axis=0) & (here < depth_buffer)
    depth_buffer[nearer], seen[nearer] = here[nearer], number
palette = np.array([[70, 120, 200], [230, 140, 60], [255, 255, 255]], np.uint8)
shown_depth = np.where(seen >= 0, 255 * (1.6 - depth_buffer.clip(0, 1.6)) / 1.2, 0).clip(0, 255).astype(np.uint8)
show(palette[seen], np.repeat(shown_depth[..., None], 3, axis=2))

# %%
all_px = torch.from_numpy(np.column_stack([np.vstack([corner_px, second_px]), np.concatenate([d, second_d])]))[None]
by_library = rasterize(all_px, torch.tensor([[0, 1, 2], [3, 4, 5]]), (H, W)).triangle[0].numpy()
print(f"{(by_library != seen).sum()} of {(seen >= 0).sum()} pixels show another triangle than the library's")
assert (by_library != seen).sum() <= 6

# %% [markdown]
# On the left the visible triangle, on the right the depth buffer (near is bright).
#
# ### 5.4 All together
#
# Now a whole head: project, rasterize, mix the corners' colours (albedo times shading) over each triangle, encode for
# the screen.

# %%
vertices_cam = transform(torch.from_numpy(person.vertices), torch.eye(3), torch.tensor([0, 0, -0.6]))
fragments = rasterize(project(vertices_cam, camera)[None], model.tensor("faces"), camera.image_size)
vertex_colour = torch.from_numpy(person.albedo) * shading(lit.vertex_normals_cam[0], directed_light(yaw=-40, pitch=15))
linear = interpolate(fragments, vertex_colour[None], model.tensor("faces"))[0]
picture = (255 * srgb_from_linear(linear)).numpy().astype(np.uint8)
picture[~fragments.mask[0].numpy()] = 255
x, y = project(vertices_cam[model.regions["eyeball_left"]], camera)[:, :2].mean(dim=0).tolist()
eye = camera.cropped((x - 12, y - 12, x + 12, y + 12), (200, 200))
near = rasterize(project(vertices_cam, eye)[None], model.tensor("faces"), (200, 200))
weights_seen = (255 * near.barycentric[0]).numpy().astype(np.uint8)
show(picture, weights_seen, fv.render(lamps[1], camera=camera).rgb)
difference = np.abs(picture.astype(int) - fv.render(lamps[1], camera=camera).rgb)[fragments.mask[0].numpy()]
print(f"{len(np.unique(fragments.triangle.numpy())) - 1} of {len(model.faces)} triangles are seen", end="; ")
print(f"median difference of the two pictures {np.median(difference):.0f} of 255")
assert np.median(difference) <= 3

# %% [markdown]
# Left ours; in the middle its triangles around one eye, enlarged, with their barycentric coordinates as red, green and
# blue; right `fv.render`, which smooths edges by taking more samples per pixel and uses a texture in place of colours
# at vertices.
#
# `fv.MeshViewer` gives all of this to the graphics card, so that you can turn the head:

# %%
fv.MeshViewer(lamps[1])

# %% [markdown]
# ## 6. Where gradients come from
#
# A fit needs derivatives: if the nose grew, how would the picture change? Projection, light and mixing are smooth
# formulas, so PyTorch can differentiate them (*autograd*). To check a derivative, compare it with a *finite
# difference*: move the input a little to both sides and look.
#
# ### 6.1 A vertex
#
# How many pixels does the tip of the nose move per degree of yaw?

# %%
tip = int(np.argmax(person.vertices[:, 2] * (np.abs(person.vertices[:, 0]) < 0.01)))
nose_tip = torch.from_numpy(person.vertices[tip]).double()


def tip_u(degrees):
    """Column in pixels of the tip of the nose."""
    a, zero, one = torch.deg2rad(degrees), torch.zeros(()).double(), torch.ones(()).double()
    R = torch.stack([torch.stack([a.cos(), zero, a.sin()]), torch.stack([zero, one, zero]),
                     torch.stack([-a.sin(), zero, a.cos()])])  # fmt: skip
    return project(transform(nose_tip[None], R, torch.tensor([0, 0, -0.6]).double()), camera)[0, 0]


degrees = torch.tensor(10.0, dtype=torch.float64, requires_grad=True)
(autograd,) = torch.autograd.grad(tip_u(degrees), degrees)
h = 1e-4
finite = (tip_u(degrees + h) - tip_u(degrees - h)) / (2 * h)
print(f"autograd {autograd:.6f}, finite difference {finite:.6f} pixels per degree")
assert abs(autograd - finite) < 1e-6

# %% [markdown]
# ### 6.2 A colour
#
# The same for the picture. Let the head come nearer by $z$ metres; here is the brightness of the picture, once summed
# over a small window on the forehead, once over the whole picture. The window is always covered with skin; in the whole
# picture, the head's outline moves.

# %%
mesh = model.coarse
shape = mesh.vertices(torch.from_numpy(person.params.identity)[None]).double()
white, lamp = torch.full_like(shape, 0.6), directed_light(yaw=-40)[None].double()


def brightness(z, window):
    """Sum of the red channel over a part of the picture."""
    where = torch.stack([torch.zeros_like(z), torch.zeros_like(z), z - 0.6])[None]
    drawn = render_head(shape, white, mesh.tensor("faces"), torch.eye(3)[None].double(), where, lamp, camera)
    return drawn.rgb[0][window][..., 0].sum()

# %%
h, slopes = 2e-3, {}
for name, window in (("forehead", np.s_[40:60, 85:115]), ("whole picture", np.s_[:, :])):
    z = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(brightness(z, window), z)
    with torch.no_grad():
        around = (brightness(z + h, window) - brightness(z - h, window)) / (2 * h)
    slopes[name] = float(slope), float(around)
    print(f"{name:14s}: autograd {slope:10.1f}, finite difference {around:10.1f} per metre")
inner, outer = slopes["forehead"], slopes["whole picture"]
assert abs(inner[0] - inner[1]) < 0.1 * abs(inner[1]) and abs(outer[0] - outer[1]) > 0.5 * abs(outer[1])

# %% [markdown]
# On the forehead the two agree. Over the whole picture they do not at all: a nearer head covers more pixels, and
# autograd does not account for it.
#
# ### 6.3 Edges
#
# The reason is in the comparison `edges > 0`: a pixel is covered or it is not. When the triangle moves a little,
# either nothing happens or a pixel jumps. Move a small triangle to the right by fractions of a pixel, over the right
# edge of a picture of 10 columns, and count its pixels that are left:

# %%
shifts = np.linspace(0, 4, 41 if FAST else 161)
counts, exact = [], []
for shift in shifts:
    moved = np.array([[2.0 + shift, 4.0], [2.0 + shift, 12.0], [10.0 + shift, 8.0]])
    hits = rasterize(torch.from_numpy(np.column_stack([moved, np.ones(3)]))[None], torch.tensor([[0, 1, 2]]), (16, 10))
    counts.append(int(hits.mask.sum()))
    exact.append(32 - 32 * (shift / 8) ** 2)  # what has left the picture is a smaller triangle of the same form
plt.step(shifts, counts, where="mid", label="pixels counted")
plt.plot(shifts, exact, label="exact area")
plt.xlabel("shift in pixels")
plt.ylabel("area in pixels")
plt.legend()
plt.show()
print("different counts:", sorted(set(counts)))
assert len(set(counts)) < 12

# %% [markdown]
# A staircase: its derivative is 0 nearly everywhere, and does not exist at the steps. So the outline of a head, which
# says so much about its shape, has no gradient at all. Three ways out are known:
#
# * *soft rasterizers* blur every edge, so that the steps become ramps (slower, and the picture is another one),
# * *anti-aliasing* computes how much of an edge pixel is covered, and differentiates that,
# * or one does not need it.
#
# This project takes the third way. Its photometric stage (`faceverse/fitting/surface.py`) does not compare pixels with
# triangles. It compares *vertices*: each visible vertex has a colour predicted by the model, and the colour of the
# photograph at its projection. A depth buffer as above determines the visible vertices anew in every step, and they
# stay fixed within the step. The difference of the two colours is smooth in everything: the
# projection moves smoothly, and the photograph has a slope at every place. The outline is left to the landmarks, some
# of which lie on it.
#
# ### 6.4 A loss that can be walked down
#
# Let us do it. The "photograph" is a rendering; we shift the head sideways and compare colours at the vertices of the
# face that are visible. $E$ is the mean squared difference of sRGB colours, 0 to 1:

# %%
camera = fv.Camera(470, (120, 98), (240, 240))
photo = torch.from_numpy(fv.render(lamps[1], camera=camera).rgb / 255.0).permute(2, 0, 1)[None]
skin = mesh.regions["face"]
tone = torch.from_numpy(mesh.albedo(torch.from_numpy(person.params.albedo)[None])[0].numpy()[skin]).double()
normal = render_head(shape.float(), white.float(), mesh.tensor("faces"), torch.eye(3)[None], torch.zeros(1, 3) - 0.6,
                     directed_light()[None], camera).vertex_normals_cam[0, skin].double()  # fmt: skip
front = normal[:, 2] > 0.5
colour = srgb_from_linear(tone * shading(normal, torch.from_numpy(lamps[1].params.light).double()))[front]


def loss(x, picture):
    """E for a head that lies x metres to the right."""
    where = torch.stack([x, torch.zeros_like(x), torch.full_like(x, -0.6)])
    pixels = project(transform(shape[0, skin], torch.eye(3).double(), where), camera)[front, :2]
    found = torch.nn.functional.grid_sample(picture, (pixels / 120 - 1)[None, None], align_corners=False)[0, :, 0].T
    return ((colour - found) ** 2).mean()

# %%
xs = torch.linspace(-0.02, 0.02, 41, dtype=torch.float64)
blurred = torch.nn.functional.avg_pool2d(photo, 25, stride=1, padding=12, count_include_pad=False)
curves = {name: [float(loss(x, p)) for x in xs] for name, p in (("sharp", photo), ("blurred", blurred))}
for name, curve in curves.items():
    plt.plot(1000 * xs, curve, label=f"{name} photograph")
plt.xlabel("head to the right by mm")
plt.ylabel("E")
plt.legend()
plt.grid(alpha=0.3)
plt.show()
lowest_mm = 1000 * float(xs[np.argmin(curves["sharp"])])
print(f"lowest at {lowest_mm:+.1f} mm")
assert abs(lowest_mm) < 2

# %%
x = torch.tensor(0.0035, dtype=torch.float64, requires_grad=True)
(slope,) = torch.autograd.grad(loss(x, photo), x)
around = (loss(x + 1e-6, photo) - loss(x - 1e-6, photo)) / 2e-6
print(f"at 3.5 mm: autograd {slope:.5f}, finite difference {around:.5f} per metre")
assert abs(slope - around) < 0.02 * abs(around)

# %% [markdown]
# A valley with its bottom at the truth, and a gradient that is right. But the sharp photograph's has a shoulder some
# way up on the right, where the model's eye lies on skin and a small step does not help: who starts there may stay.
# Blurred, the valley is wider and has none, though its bottom is less exact. That is why fits start from landmarks, and
# compare small pictures before large ones, *coarse to fine*. [03_fitting_losses](03_fitting_losses.ipynb) does it.
#
# ## 7. Exercises
#
# 1. *Easy.* Photographers name lenses by the focal length on film of 36 mm x 24 mm. Which lens, in mm, takes the
#    pictures of section 3.1 if the long side of the picture has 240 pixels?
# 2. *Easy.* Which of the nine patterns do not change when the head is mirrored left to right and turned upside
#    down? Check with `sh_basis`.
# 3. *Medium.* The shading is linear in the light. Find the light of a picture by least squares, from normals, albedo
#    and the linear colours of the pixels.
# 4. *Hard.* Rasterize a whole head by hand: the coarse mesh, with a loop over its triangles and a depth buffer, in 96 x
#    96 pixels. How many pixels are not the library's?

# %% [markdown]
# ## 8. Solutions
#
# **1.** A picture of $W$ pixels stands for 36 mm: $f_{mm} = 36 f / W$. (Zoomed so far that the face fills the picture;
# a phone's front camera has about 26 mm and shows more around it.)

# %%
for metres in (0.25, 0.5, 1.0, 2.0):
    print(f"{metres:.2f} m: {36 * 800 * metres / 240:.0f} mm")

# %% [markdown]
# **2.** Mirroring changes the sign of x, turning upside down that of y. Patterns with squares, or without x and y,
# stay; so does the product xy, whose sign changes twice.

# %%
n = torch.nn.functional.normalize(torch.from_numpy(np.random.default_rng(0).standard_normal((50, 3))).float(), dim=1)
same = (sh_basis(n) - sh_basis(n * torch.tensor([-1.0, -1.0, 1.0]))).abs().amax(dim=0) < 1e-6
print("unchanged:", [title for title, kept in zip(titles, same) if kept])
assert [title for title, kept in zip(titles, same) if kept] == ["1", "z", "xy", "3z²-1", "x²-y²"]

# %% [markdown]
# **3.** Colour over albedo is shading; shading is patterns times light. 27 unknowns, thousands of equations.

# %%
truth = directed_light(yaw=-80, pitch=15)
pixels = lit.mask[0]
drawn_albedo = interpolate(lit.fragments, torch.from_numpy(person.albedo)[None], model.tensor("faces"))[0]
basis = sh_basis(lit.normals_cam[0])[pixels].numpy()
seen_shading = (lit.rgb[0] / drawn_albedo.clamp_min(1e-3))[pixels].numpy()
found_light = np.linalg.lstsq(basis, seen_shading, rcond=None)[0]
print(np.column_stack([truth[:, 0].numpy(), found_light[:, 0]]).round(2).T)
assert np.abs(found_light - truth.numpy()).max() < 0.1

# %% [markdown]
# **4.** Only the box around each triangle is looked at, which makes the loop bearable. Left our depth buffer, right in
# white the pixels that are not the library's, if there are any.

# %%
tiny = fv.Camera(205, (48, 41), (96, 96))
px = project(transform(shape[0], torch.eye(3).double(), torch.tensor([0, 0, -0.6]).double()), tiny).numpy()
nearest, shown = np.full((96, 96), np.inf), np.full((96, 96), -1)
for number, (a, b, c) in enumerate(px[mesh.faces]):
    (x0, y0), (x1, y1) = (bound([a, b, c], axis=0)[:2].round().clip(0, 96) for bound in (np.min, np.max))
    qx, qy = np.meshgrid(np.arange(x0, x1) + 0.5, np.arange(y0, y1) + 0.5)
    e = [(r[0] - p[0]) * (qy - p[1]) - (r[1] - p[1]) * (qx - p[0]) for p, r in ((b, c), (c, a), (a, b))]
    with np.errstate(divide="ignore", invalid="ignore"):
        bary = np.stack(e) / np.sum(e, axis=0)
        at_depth = 1 / (bary[0] / a[2] + bary[1] / b[2] + bary[2] / c[2])
    rows, columns = (qy - 0.5).astype(int), (qx - 0.5).astype(int)
    wins = (bary > 0).all(axis=0) & (at_depth < nearest[rows, columns])
    nearest[rows[wins], columns[wins]], shown[rows[wins], columns[wins]] = at_depth[wins], number

# %%
library = rasterize(torch.from_numpy(px)[None], mesh.tensor("faces"), (96, 96)).triangle[0].numpy()
print(f"{(shown != library).sum()} of {(library >= 0).sum()} pixels show another triangle")
range_m = 0.48, 0.64
grey = (255 * (range_m[1] - nearest.clip(*range_m)) / (range_m[1] - range_m[0])).astype(np.uint8)
show(
    np.kron(grey, np.ones((3, 3), np.uint8)),
    np.kron(255 * (shown != library).astype(np.uint8), np.ones((3, 3), np.uint8)),
)
assert (shown != library).sum() < 0.01 * (library >= 0).sum()

# %% [markdown]
# Where to go next: [03_fitting_losses](03_fitting_losses.ipynb) walks down such a loss on a photograph.
