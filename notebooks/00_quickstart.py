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
# # 0. From one photograph to a head
#
# [![Open in
# Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/)
#
# (In Colab run first, with the address of this repository: `!git clone ADDRESS faceverse` and
# `%pip install -q "./faceverse[notebooks]"`.)
#
# One photograph goes in; a textured 3D head that you can turn, edit and take to other programs comes out. On the way
# we look at each part: what a face model is, how it finds itself in a photograph, and how we know that the fit is
# good.
#
# **You will**
#
# 1. open a face model and evaluate its formula by hand,
# 2. find a face in a photograph,
# 3. fit the model to it and read the fit's own report,
# 4. check the result with a projection by hand,
# 5. look at the head from all sides, change it, and save it.
#
# **You need** Python, NumPy arrays and a little linear algebra (a sum of vectors, a matrix times a vector). No GPU
# and no connection: everything runs in less than a minute on two processor cores.

# %% [markdown]
# ## 1. Set-up
#
# `fv` is the whole library, and its `show` puts pictures side by side. NumPy computes, Pillow (`PIL`) and matplotlib
# draw, and scikit-image brings the photograph.

# %%
import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # more threads only wait for each other here

import json
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image, ImageDraw
from skimage.data import astronaut

import faceverse as fv
from faceverse.viewer import show

# %% [markdown]
# ## 2. What a face model is
#
# A head is a **mesh**: points in space, called *vertices*, and triangles between them. In this library a mesh always
# has the same V vertices and the same triangles, whoever it shows: vertex number 500 is the same spot of the face in
# every person. So a head is nothing but an array of shape (V, 3), and heads can be added and averaged.

# %%
model = fv.load_model()
V = len(model.mean_vertices)
N_id, N_exp, N_alb = (len(modes) for modes in (model.identity_modes, model.expression_modes, model.albedo_modes))
print(f"V = {V} vertices, {len(model.faces)} triangles")
print(f"modes: {N_id} of identity, {N_exp} of expression, {N_alb} of albedo")
print("a few regions:", {name: len(model.regions[name]) for name in ("face", "lips", "eyeballs", "ears", "teeth")})

# %% [markdown]
# Lengths are metres. The axes: x points to the person's left, y up, z out of the face.

# %%
width, height, depth = 100 * np.ptp(model.mean_vertices, axis=0)
print(f"the mean head is {width:.1f} cm wide, {height:.1f} cm high and {depth:.1f} cm deep")
assert 14 < width < 24 and 22 < height < 40

# %% [markdown]
# To draw it we need a **camera**, and the values that belong to a head besides its vertices. `fv.head` puts all of this
# together from a few parameters, here the neutral ones; `fv.fit` will do so from a photograph. The camera sits 60 cm in
# front of the head. In clay, to see nothing but shape; the second picture shows the triangles, those of a coarser
# version of the mesh.

# %%
camera = fv.Camera(focal_px=430, principal_point_px=(120, 94), image_size=(240, 240))
mean_head = fv.head(model.neutral(), model)
assert np.allclose(mean_head.vertices, model.mean_vertices)
show(*(fv.render(mean_head, 240, mode, camera=camera).rgb for mode in ("clay", "wireframe")))

# %% [markdown]
# ### 2.1 Modes: directions in which heads differ
#
# A **mode** is an array of shape (V, 3) as well: how far each vertex moves. The first modes are those in which the
# heads that the model was trained on differ most (the result of a principal component analysis). Each is scaled so that
# among these heads its coefficient has variance 1: between -2 and +2 for about 95 of 100.
#
# Each column is one mode: below the mean by 2.5 in the upper row, above it by 2.5 in the lower row.

# %%
for amount in (-2.5, 2.5):
    moved = [mean_head.replace(vertices=model.mean_vertices + amount * model.identity_modes[k]) for k in range(4)]
    show(*(fv.render(head, mode="clay", camera=camera).rgb for head in moved))

# %% [markdown]
# The modes are sorted by how much they move: the first is large, the last a fraction of a millimetre.

# %%
mode_mm = 1000 * np.sqrt((model.identity_modes**2).sum(axis=2).mean(axis=1))
for k in (0, 1, 2, 9, 49, N_id - 1):
    print(f"identity mode {k + 1:3d} moves a vertex by {mode_mm[k]:.2f} mm (root mean square)")
assert mode_mm[0] > 10 * mode_mm[-1]

# %% [markdown]
# ### 2.2 The formula
#
# All of the model is one line. With the mean head $\bar{\mathbf{v}}$, identity modes $\mathbf{B}^{id}_i$ with
# coefficients $\alpha_i$, and expression modes $\mathbf{B}^{exp}_j$ with weights $\beta_j$ between 0 and 1:
#
# $$\mathbf{v} = \bar{\mathbf{v}} + \sum_{i=1}^{N_{id}} \alpha_i \, \mathbf{B}^{id}_i +
# \sum_{j=1}^{N_{exp}} \beta_j \, \mathbf{B}^{exp}_j$$
#
# Identity describes who it is, expression what the face does at the moment. (One refinement: wide eyes need a longer
# way to close. So the open model stretches each expression mode by a gain of about 1 that depends on the person;
# `model.expression_modes_of(identity)` are the modes of one head.) Let us evaluate it for a person who does not exist,
# with an open mouth, and compare with the model's own answer. (`model.vertices` works on PyTorch tensors, with one more
# dimension in front, so that many heads can be computed at once and gradients flow.)

# %%
somebody = model.random(seed=3)
beta = np.zeros(N_exp, np.float32)
beta[model.expression_names.index("jawOpen")] = 0.7

by_hand = (
    model.mean_vertices
    + np.tensordot(somebody.identity, model.identity_modes, axes=1)
    + np.tensordot(beta, model.expression_modes_of(somebody.identity), axes=1)
)
by_model = model.vertices(torch.tensor(somebody.identity[None]), torch.tensor(beta[None]))[0].numpy()
difference_mm = 1000 * np.abs(by_hand - by_model).max()
print(f"largest difference: {difference_mm:.6f} mm")
assert difference_mm < 0.001

# %% [markdown]
# The expression modes have names, those of Apple's ARKit, which animation programs understand. *Left* and *right* are
# the person's. Here are four of them on this person.

# %%
neutral_person = model.mean_vertices + np.tensordot(somebody.identity, model.identity_modes, axes=1)
pictures = []
for name in ("jawOpen", "mouthSmileLeft", "mouthPucker", "eyeBlinkRight"):
    mode = model.expression_modes_of(somebody.identity)[model.expression_names.index(name)]
    posed = mean_head.replace(vertices=neutral_person + mode)
    pictures.append(fv.render(posed, mode="clay", camera=camera).rgb)
show(*pictures)
print("all of them:", ", ".join(model.expression_names))

# %% [markdown]
# ### 2.3 Skin
#
# **Albedo** is the colour of the surface without any light or shadow: the share of red, green and blue that it
# reflects, 0 to 1. It has a mean and modes $\mathbf{B}^{alb}_k$ of its own, with coefficients $\gamma_k$:
#
# $$\mathbf{a} = \bar{\mathbf{a}} + \sum_{k=1}^{N_{alb}} \gamma_k \, \mathbf{B}^{alb}_k$$
#
# A **texture** is this surface laid flat like a map. For each corner of each triangle, `uv` says where it lies on the
# map, with u to the right and v down, both from 0 to 1. So we can paint a texture with nothing but coloured
# triangles. (Screens do not show light in proportion to the numbers they get; the power 1 / 2.2 makes up for that.)

# %%
people, textures = [], []
for seed in range(5):
    person = model.random(seed)
    shape = model.mean_vertices + np.tensordot(person.identity, model.identity_modes, axes=1)
    albedo = model.mean_albedo + np.tensordot(person.albedo, model.albedo_modes, axes=1)
    colours = (255 * albedo.clip(0, 1) ** (1 / 2.2))[model.faces].mean(axis=1).astype(int)
    painting = Image.new("RGB", (512, 512))
    draw = ImageDraw.Draw(painting)
    for corners, colour in zip(512 * model.uv[model.uv_faces], colours):
        draw.polygon(corners.ravel().tolist(), fill=tuple(colour.tolist()))
    textures.append(np.array(painting))
    people.append(mean_head.replace(params=person, vertices=shape, texture=textures[-1]))

show(*(texture[::3, ::3] for texture in textures))

# %% [markdown]
# Wrapped around their heads: five people who do not exist. Hair is not in the texture: it is a mesh of its own on the
# head, in one of the styles of `fv.HAIR_STYLES`.

# %%
show(*(fv.render(person, 171).rgb for person in people))

# %% [markdown]
# ## 3. Find the face
#
# Now the photograph (Eileen Collins, NASA, public domain). `fv.detect` returns one entry for each face, largest
# first: a box, 478 **landmarks** (points on eyes, brows, nose, lips and outline, in pixels) and a first guess of the
# expression.

# %%
photo = astronaut()
faces = fv.detect(photo)
face = faces[0]
print(f"{len(faces)} face, landmarks {face.landmarks_px.shape}, box {face.box_px.round()}")
assert len(faces) == 1

# %%
marked = Image.fromarray(photo).resize((1024, 1024))
draw = ImageDraw.Draw(marked)
for x, y in 2 * face.landmarks_px:
    draw.ellipse((x - 1, y - 1, x + 1, y + 1), fill=(0, 255, 120))
show(photo[:400, 40:440], np.asarray(marked.crop((260, 60, 660, 460))))

# %%
for name, score in sorted(face.blendshapes.items(), key=lambda item: -item[1])[:5]:
    print(f"{name:18s} {score:.2f}")
assert face.blendshapes["mouthSmileLeft"] > 0.3

# %% [markdown]
# She smiles, and the detector recognises it.

# %% [markdown]
# ## 4. Fit
#
# Fitting turns the question round: the picture is known, and we look for the numbers that explain it. These are
# identity $\alpha$, expression $\beta$ and albedo $\gamma$ from above, and three that belong to the picture:
#
# * a **rotation** and a **translation** that carry the head to its place in front of the camera,
# * the **light**: how bright a white surface would be for each direction that it can face.
#
# The fit makes a **loss** small: a sum of terms that each say how wrong something is. *Landmarks*: the distance between
# the detected points in the photograph and the same points of the model. *Photometric*: the difference of colour
# between the model's skin and the place of the photograph where it falls, vertex by vertex. And the *priors* keep head
# and light plausible: coefficients far from 0 belong to people who hardly exist, so they cost.
#
# `on_progress` is called throughout with the name of the stage, the fraction done, and at times a picture.
# `detail=False` leaves wrinkles and pores for another day.

# %%
previews = {}


def remember(stage, fraction, preview):
    if preview is not None:
        previews[stage] = np.asarray(Image.fromarray(preview).resize((256, 256)))


result = fv.fit(photo, model, detail=False, on_progress=remember)
print(f"{len(result.vertices)} vertices, texture {result.texture.shape}, {len(result.stages)} stages")
print("previews of:", ", ".join(previews))
show(*previews.values())

# %% [markdown]
# ### 4.1 The report
#
# `result.stages` tells what each stage did: how many steps, and its total loss before and after. Stages without a
# loss do not search, they compute: the detection comes first, the texture last. `result.warnings` would say in words
# if the photograph were too dark, the face too small or rotated too far.

# %%
print(f"{'stage':20s} {'steps':>5s} {'before':>8s} {'after':>8s}")
for stage in result.stages:
    losses = f"{stage.before:8.1f} {stage.after:8.1f}" if stage.history else f"{'-':>8s} {'-':>8s}"
    print(f"{stage.name:20s} {stage.iterations:5d} {losses}")
    assert not stage.history or stage.after < stage.before
print("warnings:", result.warnings or "none")

# %% [markdown]
# What the loss consists of at the end, term by term:

# %%
last = [stage for stage in result.stages if stage.loss_terms][-1]
for name, value in last.loss_terms.items():
    print(f"{name:18s} {value:8.1f}  {'#' * round(50 * value / sum(last.loss_terms.values()))}")

# %% [markdown]
# ### 4.2 The loss, step by step
#
# One curve for each stage with a search: the loss divided by its own start, because the stages look at pictures of
# different sizes. All use the Gauss-Newton method, which knows the curvature of its loss and is done in a few steps.
# The fine stage starts where the coarse one ended, so little is left for it. A photometric curve may rise where the
# picture's noise is measured anew.

# %%
plt.figure(figsize=(6, 3), dpi=90)
for stage in result.stages:
    if stage.history:
        plt.plot(np.array(stage.history) / stage.history[0], "o-", markersize=3, label=stage.name)
plt.xlabel("Gauss-Newton step")
plt.ylabel("loss / its start")
plt.ylim(0, 1.05)
plt.legend(fontsize=8)
plt.show()

# %% [markdown]
# ## 5. Is it right?
#
# Photograph, head over the photograph, shape alone, texture.

# %%
show(fv.overview(photo, result, size=240))

# %% [markdown]
# Then measure. We carry the model's landmarks into the picture **by hand**. A landmark is a point on a triangle:
# three vertices, and three weights that sum to 1. A head-space point $\mathbf{p}$ (a row) goes to camera space by
#
# $$\mathbf{p}_{cam} = \mathbf{p} \, \mathbf{R}^\top + \mathbf{t}$$
#
# with rotation $\mathbf{R}$ and translation $\mathbf{t}$. The camera sits at the origin and looks along $-z$. What is
# twice as far looks half as large: with the focal length $f$ and the picture's centre $(c_x, c_y)$ in pixels
#
# $$x_{px} = c_x + f \, \frac{x}{-z} \qquad y_{px} = c_y - f \, \frac{y}{-z}$$
#
# (the minus of the second one because rows of a picture count downwards).

# %%
points = model.landmarks_478
corners = result.vertices[model.faces[points.triangle]]  # (478, 3 corners, 3)
on_head = (points.barycentric[..., None] * corners).sum(axis=1)  # (478, 3)
x, y, z = (on_head @ result.params.rotation.T + result.params.translation).T
(cx, cy), f = result.camera.principal_point_px, result.camera.focal_px
projected = np.stack([cx + f * x / -z, cy - f * y / -z], axis=1)

assert np.abs(projected - result.projected_landmarks_px).max() < 0.01
print(f"the head is {-result.params.translation[2]:.2f} m away from a camera with f = {f:.0f} px")

# %%
error_px = np.linalg.norm(projected - face.landmarks_px, axis=1)
face_width_px = np.ptp(face.landmarks_px[:, 0])
print(f"distance of the landmarks: median {np.median(error_px):.2f} px, worst {error_px.max():.2f} px")
print(f"width of the face: {face_width_px:.0f} px")
assert np.median(error_px) < 0.03 * face_width_px

# %% [markdown]
# Detected in green, fitted in red. Where they disagree, the model cannot, or because of its priors does not want to,
# follow.

# %%
marked = Image.fromarray(photo).crop((160, 50, 290, 200)).resize((520, 600), Image.Resampling.LANCZOS)
draw = ImageDraw.Draw(marked)
for pixels, colour in ((face.landmarks_px, (0, 255, 120)), (projected, (255, 40, 40))):
    for u, v in 4 * (pixels - (160, 50)):
        draw.ellipse((u - 2, v - 2, u + 2, v + 2), fill=colour)
show(np.asarray(marked))

# %% [markdown]
# ## 6. Look at it from all sides
#
# `fv.render` has seven modes. In the upper row what belongs to the colour: the head in the photograph's light, and
# its albedo, which the light was divided out of. Then what belongs to the shape: clay; the direction that the surface
# faces, as colour (*normal*); the distance from the camera (*depth*); the place on the texture map (*uv*); the
# triangles.

# %%
show(*(fv.render(result, 240, mode).rgb for mode in ("color", "albedo", "clay")))
show(*(fv.render(result, 180, mode).rgb for mode in ("normal", "depth", "uv", "wireframe")))

# %% [markdown]
# The one photograph shows one side. What it does not show (ears behind hair, the back of the head) is the model's
# guess.

# %%
show(fv.turntable(result, size=180))

# %% [markdown]
# In JupyterLab or VS Code, with the package plotly installed, move the pointer onto the picture: now you can turn the
# head with the mouse, and zoom with its wheel. Elsewhere the same cell shows only the picture.

# %%
fv.MeshViewer(result)

# %% [markdown]
# A rendering also carries numbers: which pixels show the head, and how far away each of them is.

# %%
rendering = fv.render(result, 256)
near, far = np.percentile(rendering.depth[rendering.mask], (0.1, 99.9))
print(f"the head covers {rendering.mask.mean():.0%} of the picture; nearest point {near:.2f} m, farthest {far:.2f} m")
assert 0 < near < far and far - near < 0.3

# %% [markdown]
# ## 7. Change it
#
# `fv.edit` returns a new head and leaves the old one as it was. The expression is a matter of its named weights:

# %%
neutral_face = fv.edit(result, expression=np.zeros(N_exp))
surprise = {"jawOpen": 0.5, "browInnerUp": 1.0, "eyeWideLeft": 0.8, "eyeWideRight": 0.8}
surprised = fv.edit(neutral_face, expression=surprise)
winking = fv.edit(result, expression={"eyeBlinkLeft": 1.0, "mouthSmileLeft": 0.9})
show(*(fv.render(head, 240).rgb for head in (result, neutral_face, surprised, winking)))

assert np.allclose(neutral_face.vertices, result.neutral_vertices)  # without expression: the neutral vertices
assert np.allclose(surprised.neutral_vertices, result.neutral_vertices)  # the same person

# %% [markdown]
# **Attributes** such as age are directions among the identity and albedo coefficients. The model can also estimate
# where a head lies on them; that says what the shape and skin of its training heads suggest, nothing about the
# person. (Wrinkles do most of what makes a face look old; [06_edit_a_face](06_edit_a_face.ipynb) ages a head that has
# them.)

# %%
print("attributes:", ", ".join(model.attribute_names))
older = fv.edit(result, age=+25)
younger = fv.edit(result, age=-12)
for name, head in (("younger", younger), ("as fitted", result), ("older", older)):
    print(f"{name:10s} estimated age {model.attributes(head.params)['age']:3.0f} years")
show(*(fv.render(head, 320).rgb for head in (younger, result, older)))
show(*(fv.render(head, 320, "clay").rgb for head in (younger, result, older)))

ages = [model.attributes(head.params)["age"] for head in (younger, result, older)]
assert ages[0] < ages[1] < ages[2]

# %% [markdown]
# How far does ageing move the face? And is all of it a sum of modes, as any other change of identity must be?

# %%
moved_mm = 1000 * np.linalg.norm(older.neutral_vertices - result.neutral_vertices, axis=1)
face_region = model.regions["face"]
median_mm, most_mm = np.median(moved_mm[face_region]), moved_mm[face_region].max()
print(f"vertices of the face move by {median_mm:.1f} mm (median), {most_mm:.1f} mm at most")
by_modes = np.tensordot(older.params.identity - result.params.identity, model.identity_modes, axes=1)
assert np.allclose(older.neutral_vertices - result.neutral_vertices, by_modes, atol=1e-5)

# %% [markdown]
# Besides the attributes of a whole person there are local ones, measured on the mesh: lengths in millimetres (and a few
# angles in degrees) beyond what is typical for somebody of that age, sex, weight and ancestry. Each changes one
# feature, and the estimates of all others stay where they are.

# %%
changes = {"nose_width": +4, "jaw_width": +8, "lower_lip_fullness": +2}
for name, amount in changes.items():
    changed = fv.edit(neutral_face, **{name: amount})
    before, after = model.attributes(neutral_face.params), model.attributes(changed.params)
    shift = {key: after[key] - before[key] for key in before}
    print(f"{name:20s} {before[name]:+5.1f} -> {after[name]:+5.1f} mm")
    assert abs(shift.pop(name) - amount) < 0.1
    assert max(abs(value) for value in shift.values()) < 0.1
    show(*(fv.render(head, 240, "clay").rgb for head in (neutral_face, changed)))

# %% [markdown]
# ## 8. Take it away
#
# A **GLB** file opens in Blender, Unity, three.js and on phones. It holds the neutral head, the texture, and each
# expression as a *morph target*, a slider of that name. A **JSON** file holds the parameters, to go on with later.

# %%
folder = Path(tempfile.mkdtemp())
fv.export(older, folder / "older.glb")
fv.export(older, folder / "older.json")
for path in sorted(folder.iterdir()):
    print(f"{path.name:12s} {path.stat().st_size / 1e6:.1f} MB")

# %% [markdown]
# A GLB begins with a description in JSON; bytes 12 to 15 are its length. The names of the sliders stand in it:

# %%
glb = (folder / "older.glb").read_bytes()
description = json.loads(glb[20 : 20 + int.from_bytes(glb[12:16], "little")])
sliders = description["meshes"][0]["extras"]["targetNames"]
print(len(sliders), "sliders:", ", ".join(sliders[:4]), "...")
assert glb[:4] == b"glTF" and set(sliders) == set(model.expression_names)

# %%
restored = fv.load_result(folder / "older.json", model)
assert np.array_equal(restored.params.identity, older.params.identity)
assert np.array_equal(restored.texture, older.texture)
assert np.allclose(restored.vertices, older.vertices, atol=1e-6)
print("the restored head is the same, to a thousandth of a millimetre")

# %% [markdown]
# ## 9. Exercises
#
# 1. Draw the person halfway between the random person of section 2.2 and the mean head, and that person's "opposite".
# 2. How many identity modes does the fitted head really need? Set all but the first 10, then all but the first 50
#    coefficients to 0, and measure how far the vertices of the face move.
#
# ## 10. Solutions
#
# **1.** Coefficients can be scaled: by 0.5, and by -1.

# %%
heads = []
for factor in (1.0, 0.5, 0.0, -1.0):
    vertices = model.mean_vertices + factor * np.tensordot(somebody.identity, model.identity_modes, axes=1)
    heads.append(mean_head.replace(vertices=vertices))
show(*(fv.render(head, mode="clay", camera=camera).rgb for head in heads))

# %% [markdown]
# **2.** `fv.edit(..., identity=...)` replaces the coefficients.

# %%
pictures, medians_mm = [], []
for kept in (10, 50, N_id):
    identity = np.where(np.arange(N_id) < kept, result.params.identity, 0)
    fewer = fv.edit(result, identity=identity)
    away_mm = 1000 * np.linalg.norm(fewer.neutral_vertices - result.neutral_vertices, axis=1)[face_region]
    medians_mm.append(np.median(away_mm))
    pictures.append(fv.render(fewer, 240, "clay").rgb)
    print(f"{kept:3d} modes: the face is off by {medians_mm[-1]:.2f} mm (median)")
show(*pictures)
assert medians_mm[0] > medians_mm[1] > medians_mm[2] == 0

# %% [markdown]
# ## What you have seen, and where to go next
#
# A face model is a mean and directions; a head is a handful of coefficients; fitting searches those that explain a
# photograph; editing moves them; exporting writes them down.
#
# * Your own photograph: `fv.fit("selfie.jpg")`. Front view, even light and no hair over the face work best.
# * Several people in it: `fv.fit("group.jpg", face=1)` takes the second largest face.
# * A video: `fv.track("clip.mp4")` follows pose and the expression weights from frame to frame.
# * Without writing code: `python -m faceverse fit selfie.jpg -o out/`, or the web page (`make demo`).
# * How the code is built: `docs/architecture.md`.
#
# Next: [01_base_model](01_base_model.ipynb), what the numbers of a head mean. The [map](README.md) tells which
# notebook answers which question.
