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
# # 8. Train your own model from scans
#
# [![Open in
# Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/)
#
# (In Colab run first, with the address of this repository: `!git clone ADDRESS faceverse` and
# `%pip install -q "./faceverse[notebooks]"`.)
#
# The open model has seen no real person. If you have scans of people who agreed to it, you can teach it: this notebook
# walks the whole way from a file of triangles to a model file that `fv.fit` takes. As scans of people may not be passed
# around, we make *synthetic scans*: heads that the model cannot express, measured by a simulated scanner with noise and
# holes. Their ground truth is known, so we can measure our errors.
#
# **You will**
#
# 1. make synthetic scans and write them in the layout of the FaceVerse dataset,
# 2. register one: bring it to the model's vertices, and read the report,
# 3. measure distance and correspondence, and see why they are two things,
# 4. train a base model, look into its principal components, and fit a photograph with it,
# 5. see how RGB-D frames are described, and what the detail generator learns from a scan.
#
# **You need** NumPy, and the packages that read and compare meshes (`libigl`, `trimesh`: the extra `train` of this
# library). [01_base_model](01_base_model.ipynb) explains modes, [04_detail_module](04_detail_module.ipynb) the maps of
# the last section.

# %% [markdown]
# ## 1. Set-up

# %%
import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # more threads only wait for each other here

import csv
import dataclasses
import json
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image
from skimage.data import astronaut

import faceverse as fv
from faceverse.viewer import show

FAST = os.environ.get("FACEVERSE_FAST") == "1"  # shorter loops, for the tests

# %% [markdown]
# Everything that this notebook writes goes to one temporary folder, which the last cell deletes.

# %%
from faceverse.training.surface_fit import ModelSurface

model = fv.load_model()
V = len(model.mean_vertices)
face = ModelSurface(model).face_vertices
temporary = tempfile.TemporaryDirectory()
scans_folder = Path(temporary.name) / "scans"
scans_folder.mkdir()
print(f"V = {V} vertices, {face.sum()} of them in the face")

# %% [markdown]
# ## 2. A synthetic scan
#
# ### 2.1 A person outside the model
#
# A random head of the model would be too easy: the model could hit it exactly. So we add a dozen bumps and dents, each
# a Gaussian of 12 mm with a height of some millimetres, along the normals: a person's own shape that no mode has. Skin
# detail is added too, a few hundredths of a millimetre of creases and pores.

# %%
from faceverse.graphics.mesh import vertex_normals


def person_outside_the_model(seed):
    head = fv.edit(fv.head(model.random(seed), model), age_years=65, detail_seed=seed)
    normals = vertex_normals(torch.from_numpy(head.vertices), torch.from_numpy(model.faces)).numpy()
    draw, height_m = np.random.default_rng(seed), np.zeros(V)
    for centre in model.mean_vertices[draw.choice(np.flatnonzero(face), 12)]:
        away_m = np.linalg.norm(model.mean_vertices - centre, axis=1)
        height_m += draw.normal(0, 0.0025) * np.exp(-(away_m**2) / (2 * 0.012**2))
    vertices = np.float32(head.vertices + height_m[:, None] * normals)
    return head.replace(vertices=vertices, neutral_vertices=vertices), 1000 * height_m


truth, bumps_mm = person_outside_the_model(seed=20)
plain = truth.replace(vertices=model.vertices(torch.from_numpy(truth.params.identity)[None])[0].numpy())
show(*(fv.render(head, 360, "clay").rgb for head in (plain, truth)))
print(f"left: the model's head; right: the person, up to {np.abs(bumps_mm).max():.1f} mm away from it")
assert np.abs(bumps_mm).max() > 1

# %% [markdown]
# ### 2.2 The scanner
#
# A scan shares nothing with our mesh but the surface. We take the head as a dense mesh with its displacement, leave out
# what no scanner sees (teeth, the inside of the mouth), join all points within cells of a rotated grid into one (so
# that triangles have nothing to do with ours any more), add noise, and cut holes.

# %%
import trimesh
from scipy.spatial.transform import Rotation

from faceverse.detail.dense import dense_mesh

interior = np.zeros(V, bool)
for name in ("teeth", "tongue", "mouth_inside", "eye_sockets"):
    interior[model.regions[name]] = True
print(f"{interior.sum()} vertices that no scanner sees")

# %%
def scanned(head, seed, cell_m, size):
    dense, draw = dense_mesh(head, size), np.random.default_rng(seed)
    faces = dense.faces[~interior[model.faces].any(1)[dense.source_face]]
    grid = np.round(dense.vertices @ Rotation.random(random_state=seed).as_matrix() / cell_m).astype(int)
    key = (grid - grid.min(0)) @ (1, 10**3, 10**6)  # one number per cell
    _, first, number = np.unique(key, return_index=True, return_inverse=True)
    faces = number.reshape(-1)[faces]
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(1)]
    column, row = np.int64(dense.vertex_uv[first].clip(0, 0.999) * len(head.texture)).T
    points = dense.vertices[first] + 3e-5 * draw.standard_normal((len(first), 3))
    for centre in points[draw.choice(len(points), 6)]:
        hole = np.linalg.norm(points - centre, axis=1) < draw.uniform(0.004, 0.012)
        faces = faces[~hole[faces].any(1)]
    return trimesh.Trimesh(points, faces, vertex_colors=head.texture[row, column], process=False)

# %%
cell_m, size = (0.002, 256) if FAST else (0.0012, 512)
scan_mesh = scanned(truth, 1, cell_m, size)
print(f"the scan: {len(scan_mesh.vertices)} points, {len(scan_mesh.faces)} triangles")

# %% [markdown]
# A scanner has its own unit and axes as well. Ours measures millimetres and holds the head at any angle: a point
# $\mathbf x$ of the head (metres) has the scanner coordinates
#
# $$\mathbf y = 1000\, \mathbf R\, \mathbf x + \mathbf t ,$$
#
# with a random rotation $\mathbf R$ (3 x 3) and a shift $\mathbf t$ in millimetres. The file is called `001_01.obj`:
# person 001, expression 01, which is the neutral one in the official dataset. Beside it the dataset has a material
# (`001_01.mtl`), a picture (`001_01.jpg`), and its own registration (`001_01.ply`), which is left alone.

# %%
R = Rotation.random(random_state=4).as_matrix()
t = np.array([120.0, -40.0, 300.0])
scan_mesh.vertices = 1000 * scan_mesh.vertices @ R.T + t
scan_mesh.export(scans_folder / "001_01.obj")
print(f"001_01.obj, {(scans_folder / '001_01.obj').stat().st_size / 1e6:.1f} MB; its first lines:")
print("\n".join((scans_folder / "001_01.obj").read_text().splitlines()[1:4]))

# %%
from faceverse.training.scan_files import find_scans, load_scan

files = find_scans(scans_folder)
scan = load_scan(files[0].path)
print(f"{files[0].name}: identity {files[0].identity}, expression {files[0].expression}")
print(f"{len(scan.vertices)} points, colours: {scan.has_color}, box {np.ptp(scan.vertices, axis=0).round()} units")
assert files[0].expression == "01" and scan.has_color

# %% [markdown]
# ## 3. Registration
#
# **Registration** finds our V vertices on the scan, so that vertex 500 is the same spot of the face in every scan. Only
# then may heads be averaged. Four steps (`docs/scans.md` tells them in full):
#
# 1. *Face.* Renderings from all sides go to the landmark detector. Where it detects a face, its points are projected
#    back onto the scan; they give orientation and unit.
# 2. *Model.* Pose and coefficients by ICP, "iterative closest point": each scan point looks for the closest place on
#    the model, coefficients are solved for, and again. With the scan's points $\mathbf y_p$, their closest places
#    $\mathbf q_p(\boldsymbol\alpha)$ on the model with coefficients $\boldsymbol\alpha$ and its normals $\mathbf n_p$
#    there, the sum of squares is of the distances *along the normals*,
#    $\sum_p w_p \big(\mathbf n_p \cdot (\mathbf q_p(\boldsymbol\alpha) - \mathbf y_p)\big)^2 + \lVert \boldsymbol\alpha
#    \rVert^2$, up to constants; $w_p$ is 0 for points that cannot be the same surface, such as hair.
# 3. *Bending.* A smooth displacement of the mesh takes up what the model cannot express. It is stiff at first and gets
#    softer.
# 4. *Colour* at each vertex.
#
# `faceverse.training.registration.register(scan, model)` does it. We call it through `register_all`, which works on a
# folder and keeps what it has finished, for later.

# %%
from faceverse.training.collection import register_all
from faceverse.weights import find_weights

output = Path(temporary.name) / "mine.safetensors"
work = output.with_name("mine.scans")
outcome = next(register_all(files, work, find_weights("open"), jobs=1))
found = outcome.registration
report = found.report
for name in ("mean_mm", "median_mm", "p95_mm", "model_mm", "landmark_mm", "noise_mm", "coverage", "unit_m"):
    print(f"{name:12s} {getattr(report, name):.3f}")
assert outcome.reason == "" and report.unit_m == 0.001

# %% [markdown]
# Read it like this: the unit was recognised (0.001 m). The scan's face points lie `mean_mm` from the registered head on
# average, half of them within `median_mm`, 95 of 100 within `p95_mm`; they lay `model_mm` from the model before the
# non-rigid step. `landmark_mm` is the median distance of the detector's points to those of the mean head when the two
# are aligned, and `noise_mm` how far the scan's points deviate from their own smoothed surface. `coverage` is the share
# of the face that the scan shows. Scans that are too far off, or show less than 40 % of the face, are *set aside* with
# a reason.
#
# The registered head lies in the model's space, and `found.matrix`, `found.translation` take scan points there. Three
# pictures from one camera: the scan in its colours, the scan in clay, and the registered head, which has no holes.

# %%
from faceverse.training.scan_files import Scan, transformed
from faceverse.training.scan_landmarks import render_scan

in_head_space = transformed(scan, found.matrix, found.translation)
bent = Scan(found.vertices.astype(np.float64), model.faces)
camera = fv.Camera(focal_px=900, principal_point_px=(170, 200), image_size=(400, 340))
view = np.eye(3), np.array([0.0, 0.01, -0.75])
colourless = dataclasses.replace(in_head_space, colors=None)
show(*(render_scan(each, *view, camera).rgb for each in (in_head_space, colourless, bent)))

# %% [markdown]
# The registered head is an ordinary head, to be turned by hand (on GitHub this is a picture):

# %%
fv.MeshViewer(fv.head(model.neutral(), model).replace(vertices=found.vertices), mode="clay")

# %% [markdown]
# ## 4. How good is it?
#
# ### 4.1 Distance
#
# As we know the true head, we can measure from *it*: for each true face vertex the distance to the closest place on the
# surface, once for the model before bending, once for the registered head. Blue is 0, red 1 mm or more.

# %%
from faceverse.training.surface_fit import closest_points

true_head = (1000 * truth.vertices.astype(np.float64) @ R.T + t) @ found.matrix.T + found.translation
unbent = model.vertices(torch.from_numpy(found.params.identity)[None])[0].numpy().astype(np.float64)
heats, means_mm = [], []
for surface in (unbent, found.vertices):
    away_mm = 1000 * closest_points(true_head, surface, model.faces).distance
    means_mm.append(away_mm[face].mean())
    colours = np.float32(plt.cm.turbo(away_mm.clip(0, 1))[:, :3]) ** 2.2
    colours[~face] = 0.3
    heats.append(render_scan(Scan(true_head, model.faces, colors=colours), *view, camera).rgb)
show(*heats)
print(f"true face to the surface: model alone {means_mm[0]:.2f} mm, after bending {means_mm[1]:.2f} mm")
assert means_mm[1] < 0.8 * means_mm[0] and means_mm[1] < 0.4

# %% [markdown]
# ### 4.2 Correspondence
#
# Small distances are not enough: a surface can lie perfectly on a scan while its vertices have slid along it, so that
# the vertex of the mouth's corner sits on the cheek. **Correspondence error** is the distance from each vertex to the
# place where this very vertex should be:
#
# $$e = \frac{1}{|\mathcal F|} \sum_{i \in \mathcal F} \lVert \hat{\mathbf v}_i - \mathbf v_i \rVert ,$$
#
# with the true vertices $\mathbf v_i$, the registered ones $\hat{\mathbf v}_i$, and the set $\mathcal F$ of the face's
# vertices. Nothing on smooth skin (a cheek) tells where a vertex belongs, so it is larger than the distance. For real
# scans nobody knows it.

# %%
slid_mm = 1000 * np.linalg.norm(found.vertices - true_head, axis=1)[face]
distance_mm = 1000 * closest_points(true_head[face], found.vertices, model.faces).distance
plt.figure(figsize=(6, 3), dpi=90)
plt.hist([distance_mm, slid_mm], bins=np.arange(0, 3, 0.1), label=["distance to the surface", "correspondence error"])
plt.xlabel("mm")
plt.ylabel("vertices of the face")
plt.legend(fontsize=8)
plt.tight_layout()
plt.show()
print(f"mean distance {distance_mm.mean():.2f} mm, mean correspondence error {slid_mm.mean():.2f} mm")
assert distance_mm.mean() < slid_mm.mean() < 4

# %% [markdown]
# ## 5. A base model from a folder of scans
#
# ### 5.1 Train
#
# We scan more people, a little coarser, and start the training. One line does it:
#
# ```bash
# python -m faceverse train base --scans my_scans/ -o mine.safetensors
# ```
#
# In Python it is `train_from_scans`. It starts one process per core; in a notebook pass `jobs=1`, which starts none.
# The first scan is not registered again: what lies finished beside the output costs nothing, so an interrupted run
# resumes.

# %%
from faceverse.training.collection import train_from_scans

count = 2 if FAST else 4
for person in range(2, count + 1):
    mesh = scanned(person_outside_the_model(seed=19 + person)[0], person, cell_m=0.002, size=256)
    mesh.vertices *= 1000
    mesh.export(scans_folder / f"{person:03d}_01.obj")
train_from_scans(scans_folder, output, jobs=1, report=lambda line: print(line.split(";")[0]))
with open(work / "report.csv", newline="") as table:
    for row in csv.DictReader(table):
        print(row["scan"], row["status"], "mean_mm", row["mean_mm"], "model_mm", row["model_mm"])

# %% [markdown]
# ### 5.2 What is in it
#
# A handful of people would make a poor model: their principal components span almost nothing. So the base model counts
# for $m = 30$ heads beside the $n$ scans. With the mean $\bar{\mathbf s}$ of the registered heads and the base model's
# mean $\bar{\mathbf v}$, the new mean is
#
# $$\bar{\mathbf v}_{new} = \frac{n\,\bar{\mathbf s} + m\,\bar{\mathbf v}}{n + m} ,$$
#
# and the covariances are mixed in the same proportion; the principal components of the mixture are the new modes. A
# few scans shift the model a little, some hundred speak for themselves.

# %%
from faceverse.training.collection import BASE_HEADS

own = fv.load_model(output)
heads = np.stack([np.load(path)["vertices"] for path in sorted(work.glob("*.npz"))])
n, m = len(heads), BASE_HEADS
expected = (n * heads.mean(0) + m * model.mean_vertices) / (n + m)
moved_mm, off_mm = (1000 * np.linalg.norm(own.mean_vertices - other, axis=1)[face].mean()
                    for other in (model.mean_vertices, expected))  # fmt: skip
print(f"{n} scans; the mean face moved by {moved_mm:.2f} mm and is {off_mm:.3f} mm from the formula")
print("identity modes:", len(own.identity_modes), "; licence:", own.info["licence"][:40], "...")
assert n == count and off_mm < 0.5 * moved_mm

# %% [markdown]
# The rest is the formula's fine print: the mean is taken on the coarser control mesh and without expressions.
#
# PCA by hand on the scans alone: subtract their mean, and let the singular value decomposition find the directions in
# which they differ. $n$ heads have at most $n - 1$ such directions. Each singular value $\sigma_k$ gives the share of
# the variance, $\sigma_k^2 / \sum_j \sigma_j^2$.

# %%
centred = (heads - heads.mean(0))[:, face].reshape(n, -1)
_, sigma, directions = np.linalg.svd(centred, full_matrices=False)
share = sigma**2 / (sigma**2).sum()
print("share of the variance:", ", ".join(f"{100 * s:.0f} %" for s in share))
assert share[-1] < 1e-6

# %% [markdown]
# The last share is 0, as it must be. The mean head, and the mean moved by one standard deviation along the scans' first
# direction, both ways:

# %%
spread = (heads - heads.mean(0)).reshape(n, -1)
u, s, rows = np.linalg.svd(spread, full_matrices=False)
first = (s[0] / np.sqrt(n - 1) * rows[0]).reshape(V, 3)
clay = [Scan(np.float64(heads.mean(0) + amount * first), model.faces) for amount in (-1, 0, 1)]
show(*(render_scan(each, *view, camera).rgb for each in clay))

# %% [markdown]
# Does the new model know its people better? With correspondence, the closest head that a model can make of a head
# $\mathbf s$ (V, 3) is a linear least-squares problem over its modes $\mathbf B$ and coefficients $\boldsymbol\alpha$,
#
# $$\min_{\boldsymbol\alpha} \lVert \bar{\mathbf v} + \mathbf B \boldsymbol\alpha - \mathbf s \rVert^2 .$$

# %%
def misfit_mm(which, head):
    modes = which.identity_modes[:, face].reshape(len(which.identity_modes), -1).T
    wanted = (head - which.mean_vertices)[face].ravel()
    weights, *_ = np.linalg.lstsq(modes, wanted, rcond=None)
    return 1000 * np.linalg.norm((modes @ weights - wanted).reshape(-1, 3), axis=1).mean()


for number, head in enumerate(heads, 1):
    of_base, of_own = misfit_mm(model, head), misfit_mm(own, head)
    print(f"person {number:03d}: base model {of_base:.3f} mm, own model {of_own:.3f} mm")
    assert of_own < of_base

# %% [markdown]
# These are people who were in the training. Somebody else gains only what he or she shares with them; to measure that,
# keep some scans out of the folder (exercise 3). For scans without correspondence, `python -m
# faceverse bench registration --scans FOLDER` measures the same by ICP.
#
# ### 5.3 Use it
#
# The file is an ordinary model file: expressions keep their names, texture layout and landmarks stay, and so does the
# detail module. The sample photograph, fitted with both models:

# %%
photo = astronaut()
fits = [fv.fit(photo, which, detail=False) for which in (model, own)]
show(photo[:330, 60:390], *(fv.overlay(photo, fit)[:330, 60:390] for fit in fits))
difference_mm = 1000 * np.linalg.norm(fits[0].neutral_vertices - fits[1].neutral_vertices, axis=1)[face]
print(f"both heads differ by {np.median(difference_mm):.2f} mm (median over the face)")
assert len(own.expression_names) == len(model.expression_names) and np.median(difference_mm) < 5

# %% [markdown]
# ## 6. RGB-D frames
#
# Depth cameras do not give triangles but pictures of depths. A small JSON file beside them says what they are: focal
# lengths `fx fy` and the middle `cx cy` in pixels, the unit of the depths, and the frames. We make one: the true head
# at 50 cm, depths in tenths of a millimetre. (Such cameras count from the centre of the first pixel, this library from
# its corner: hence 159.5 for our 160.)

# %%
depth_camera = fv.Camera(focal_px=600, principal_point_px=(160, 160), image_size=(320, 320))
head = Scan(truth.vertices.astype(np.float64), model.faces)
depth_m = render_scan(head, np.eye(3), np.array([0, 0, -0.5]), depth_camera).depth
Image.fromarray(np.uint16(np.round(10_000 * depth_m))).save(scans_folder / "anna_depth.png")
about = {"fx": 600, "fy": 600, "cx": 159.5, "cy": 159.5, "depth_unit_m": 0.0001}
about["frames"] = [{"depth": "anna_depth.png"}]
(scans_folder / "anna.rgbd.json").write_text(json.dumps(about))
frame = load_scan(scans_folder / "anna.rgbd.json")
away_mm = 1000 * closest_points(frame.vertices - [0, 0, -0.5], truth.vertices, model.faces).distance
print(json.dumps(about))
print(f"{len(frame.vertices)} points, at most {np.percentile(away_mm, 99):.2f} mm (99 of 100) from the true head")
assert np.percentile(away_mm, 99) < 0.5

# %%
grey = np.uint8(255 * np.where(depth_m > 0, (0.62 - depth_m) / 0.25, 0).clip(0, 1))
side = Rotation.from_euler("y", 35, degrees=True).as_matrix()
turned = render_scan(frame, side, side @ [0, 0, 0.5] + [0, 0, -0.5], depth_camera).rgb
show(np.repeat(grey[..., None], 3, axis=2), turned)

# %% [markdown]
# Left the depths (near is bright), right the same frame from another side: one frame has the visible side only. Two or
# three frames from different sides give the cheeks; with camera poses (`camera_to_world`) they are merged as they are,
# without, each is placed by its own face. `train base --scans` takes such recordings like any other scan.
#
# ## 7. The detail generator on your own scans
#
# What lies between the scan and its registered head is skin: creases and pores. The command registers all scans of a
# folder (or takes what `train base` left), measures this remainder as maps, and trains the generator on them:
#
# ```bash
# python -m faceverse train detail --scans my_scans/ -o my_detail.safetensors --minutes 170
# ```
#
# Training takes hours; measuring takes seconds, and that is the part where scans come in. For each texel we walk along
# the normal of the registered head to the scan. What is wider than about 8 mm is taken off, because it belongs to the
# base model.

# %%
from faceverse.training.scan_detail import detail_of_scan
from faceverse.training.synthetic_skin import DetailSurface, without_coarse

texels = 256
surface = DetailSurface.of(model, texels)
maps, nearest = detail_of_scan(model, surface, scan, found)
step = len(truth.displacement) // texels
drawn = truth.displacement.reshape(texels, step, texels, step).mean((1, 3))
inside = maps.seen * surface.skin.inside
drawn = without_coarse(drawn, inside) * inside
figure, axes = plt.subplots(1, 2, figsize=(7, 3.4), dpi=90)
for axis, values, title in zip(axes, (drawn, maps.displacement), ("true displacement", "measured on the scan")):
    picture = axis.imshow(values[25:220, 30:226], "RdBu_r", vmin=-0.15, vmax=0.15)
    axis.set_title(title, fontsize=9)
    axis.axis("off")
figure.colorbar(picture, ax=axes.tolist(), label="mm")
plt.show()

# %%
alike = np.corrcoef(drawn[maps.seen], maps.displacement[maps.seen])[0, 1]
share_seen = inside.sum() / surface.skin.inside.sum()
print(f"{100 * share_seen:.0f} % of the skin is seen; correlation with the truth {alike:.2f}")
assert alike > 0.25

# %% [markdown]
# Deep creases come through, pores do not: the scan has a point for each millimetre, a pore is smaller, and registration
# errors look like displacement where features are sharp (lids, lips, nostrils). That is why detail needs scans of a
# tenth of a millimetre, from many photographs at once, and why RGB-D frames are refused here.
#
# One sample for the generator is: the condition (maps of the registered head without detail), the picture that it
# should make (three channels of albedo, three bands of displacement), and where the scan was seen. Of the random vector
# only age and sex are known, so the discriminators teach the rest:

# %%
from faceverse.training.scan_detail import ScanDetail, scan_sample
from faceverse.training.synthetic_skin import IMAGE_SIZE

sample = scan_sample(model, ScanDetail("001_01", nearest, maps))
print("condition", sample.condition.shape, "picture", sample.image.shape, "all of z known:", sample.known)
print(f"texels that were seen: {100 * sample.mask.mean():.0f} %; the command measures maps of {IMAGE_SIZE} texels")
assert sample.image.shape == (6, texels, texels) and not sample.known

# %% [markdown]
# ## 8. What changes with real scans
#
# * **Hair, beards, caps** are surface to a scanner. Points that are far from the model or face elsewhere are left out,
#   but a fringe close to the forehead becomes forehead. Caps over the hair help.
# * **Light.** The colour of the scan is taken as the colour of the skin. Shadows and highlights would become part of
#   the person: photograph in even, diffuse light, or strip the colours.
# * **Expression.** People smile for scanners. Half-closed lids and a jaw that hangs open are recognised; a smile
#   becomes part of the person. Name the files by expression and give `--neutral`.
# * **Unit.** Millimetres to inches are recognised by the face's size; an arbitrary scale, as photogrammetry gives, is
#   estimated from the size of an average adult, so sizes of people are lost.
# * **Truth.** Nobody knows the correspondence error. Look at the registered heads, at `report.csv`, and keep scans out
#   of the training to measure on.
# * **Who is in it.** A model of thirty students is a model of thirty students. Count ages, sexes and ancestries before
#   you trust a mean error.
#
# **Licence and consent.** A face is personal data, and a scan identifies a person better than a photograph does. Get a
# written consent that names the purpose (a *statistical model* that others may use is another purpose than *my thesis*)
# and can be withdrawn; keep scans where only those can read them who need to. The model is a work derived from the
# scans and its licence is yours to state. The official FaceVerse data are for research, under an agreement with their
# authors; a model trained on them is bound by it too. `mine.scans/` holds heads of persons: it is not for passing on.
#
# ## 9. Exercises
#
# 1. *Easy.* Which point of the registered face is furthest from the true head? Find its region.
# 2. *Easy.* Keep only 500 points of the scan: what does `register` report?
# 3. *Medium.* Measure both models' misfit of a person who was *not* in the training.
# 4. *Hard.* How many scans would it take until the scans count for more than half of the model's mean? Derive it from
#    the formula, then draw the share for 1 to 300 scans.
#
# ## 10. Solutions
#
# **1.** At the edge of a lid, where skin and eyeball lie close together, and the closest point may be the wrong one.

# %%
away_mm = 1000 * closest_points(true_head, found.vertices, model.faces).distance * face
worst = int(away_mm.argmax())
regions = [name for name, rows in model.regions.items() if worst in np.asarray(rows)]
print(f"vertex {worst}, {away_mm[worst]:.2f} mm, in: {', '.join(regions)}")
assert face[worst]

# %% [markdown]
# **2.** It is refused, with the reason; a whole folder goes on without it.

# %%
from faceverse.training.registration import register
from faceverse.training.scan_files import ScanError

reason = ""
try:
    register(Scan(scan.vertices[:500]), model)
except ScanError as error:
    reason = str(error)
print("refused:", reason)
assert "points" in reason

# %% [markdown]
# **3.** With so few scans there is next to no difference, and it may go either way.

# %%
newcomer, _ = person_outside_the_model(seed=40)
of_base, of_own = misfit_mm(model, newcomer.vertices), misfit_mm(own, newcomer.vertices)
print(f"base model: {of_base:.3f} mm, own model: {of_own:.3f} mm")
assert of_own < 1.5 * of_base

# %% [markdown]
# **4.** The scans' weight is $n / (n + m)$, which is one half at $n = m = 30$.

# %%
number = np.arange(1, 301)
weight = number / (number + BASE_HEADS)
plt.figure(figsize=(6, 3), dpi=90)
plt.plot(number, 100 * weight)
plt.axhline(50, color="grey", linestyle="--")
plt.xlabel("scans")
plt.ylabel("weight of the scans, %")
plt.ylim(0, 100)
plt.tight_layout()
plt.show()
assert number[weight > 0.5][0] == BASE_HEADS + 1

# %% [markdown]
# At last, everything that was written is deleted.

# %%
temporary.cleanup()
assert not scans_folder.exists()

# %% [markdown]
# Where to go next: `docs/scans.md` has all options of both commands, and [07_evaluate](07_evaluate.ipynb) the measures
# that a model should pass before you publish it.
