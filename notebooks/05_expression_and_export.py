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
# # 5. Expressions, and out into the world
#
# [![Open in
# Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/)
#
# (In Colab run first, with the address of this repository: `!git clone ADDRESS faceverse` and
# `%pip install -q "./faceverse[notebooks]"`.)
#
# What makes a scanned face a character is that it moves. The model moves by 52 named shapes that animation programs
# understand, because phones speak the same language. Here we look at them, find them in a photograph, wrinkle the skin
# with them, put one person's smile on others, and write files that open elsewhere.
#
# **You will**
#
# 1. know the 52 ARKit shapes by name, side and size,
# 2. read which of them a fit found in a photograph,
# 3. see the wrinkles that an expression makes, with and without,
# 4. carry an expression to other heads, and see why its size has to follow the head,
# 5. take a GLB file apart with `struct` and `json`, and write OBJ, PLY, STL and JSON,
# 6. open the file in Blender and in a web page.
#
# **You need** NumPy, and the formula of the model ([01_base_model](01_base_model.ipynb)).
# [04_detail_module](04_detail_module.ipynb) explains the skin's detail; here we use it.

# %% [markdown]
# ## 1. Fifty-two shapes
#
# `fv` is the library, and its `show` puts pictures side by side.

# %%
import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # more threads only wait for each other here

import json
import struct
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import trimesh
from PIL import Image, ImageDraw
from scipy.spatial import cKDTree
from skimage.data import astronaut

import faceverse as fv
from faceverse.viewer import show

FAST = os.environ.get("FACEVERSE_FAST") == "1"  # shorter loops, for the tests

# %% [markdown]
# An expression mode is an array of shape (V, 3): how far, in metres, each of the V vertices moves when its weight is 1.
# Names and meanings are those of Apple's ARKit, which gives them to every phone that looks at a face.

# %%
model = fv.load_model()
names = list(model.expression_names)
print(f"{len(names)} modes, shape {model.expression_modes.shape}")
for part in ("brow", "eye", "cheek", "nose", "jaw", "mouth", "tongue"):
    own = [name for name in names if name.startswith(part)]
    print(f"{part:7s}{len(own):3d}: {', '.join(own[:5])}{' ...' if len(own) > 5 else ''}")
assert len(names) == 52

# %% [markdown]
# A sheet of them, each alone at weight 1, on a person who does not exist. `fv.head` makes a head from parameters,
# `fv.edit` changes it.

# %%
stranger = fv.head(model.random(seed=4), model)
chosen = ["browInnerUp", "browDownLeft", "browOuterUpRight", "eyeBlinkLeft", "eyeWideRight", "eyeLookInLeft"]
chosen += ["cheekPuff", "cheekSquintLeft", "noseSneerLeft", "jawOpen", "jawLeft", "tongueOut"]
chosen += ["mouthSmileLeft", "mouthFrownRight", "mouthPucker", "mouthFunnel", "mouthUpperUpLeft", "mouthPressRight"]
tiles = {}
for name in chosen:
    tile = Image.fromarray(fv.render(fv.edit(stranger, expression={name: 1.0}), 220).rgb[20:210, 20:200])
    ImageDraw.Draw(tile).text((6, 174), name, fill="black", font_size=13)
    tiles[name] = np.asarray(tile)
for first in (0, 6, 12):
    show(*(tiles[name] for name in chosen[first : first + 6]))

# %% [markdown]
# ### 1.1 Left and right are the person's
#
# `eyeBlinkLeft` closes the eye on the *right* side of the picture: sides are those of the person who makes the face.
# Most shapes come in pairs, so that a face may be lopsided. (In `jawLeft` and `mouthLeft` it is the
# direction, again the person's.)

# %%
lefts = [name for name in names if name.endswith("Left") and name.replace("Left", "Right") in names]
alone = [name for name in names if not name.endswith(("Left", "Right"))]
print(f"{len(lefts)} pairs, {len(alone)} without a side: {', '.join(alone)}")
assert 2 * len(lefts) + len(alone) == len(names)

# %% [markdown]
# Is a left mode the mirror image of its right one? Mirroring a head means x becomes -x. We look for the partner of
# each vertex on the other side of the mean head, and compare.

# %%
mirror = np.array([-1, 1, 1])
_, partner = cKDTree(model.mean_vertices * mirror).query(model.mean_vertices)
face = model.regions["face"]
for name in ("eyeBlinkLeft", "browDownLeft", "mouthSmileLeft", "cheekSquintLeft"):
    left, right = (model.expression_modes[names.index(n)] for n in (name, name.replace("Left", "Right")))
    off_mm = 1000 * np.linalg.norm(left - right[partner] * mirror, axis=1)[face]
    size_mm = 1000 * np.linalg.norm(left, axis=1)[face]
    moving = size_mm > 0.5
    print(f"{name:16s} moves {moving.sum():5d} vertices, up to {size_mm.max():4.1f} mm; ", end="")
    print(f"mirror images differ by {np.median(off_mm[moving]):.2f} mm (median)")
    assert np.median(off_mm[moving]) < 0.3 * np.median(size_mm[moving])

# %% [markdown]
# ### 1.2 They add up
#
# With a person's neutral head $\mathbf{v}_0$, shape (V, 3) in metres, that person's modes $\mathbf{B}_j$ of the same
# shape, and weights $\beta_j$ between 0 and 1 without unit,
#
# $$\mathbf{v} = \mathbf{v}_0 + \sum_{j=1}^{52} \beta_j \, \mathbf{B}_j$$
#
# A smile that reaches the eyes is several of them. The library knows some mixtures by everyday names.

# %%
print(dict(fv.EXPRESSION_PRESETS["smile"]))
smiling = fv.edit(stranger, expression="smile")
by_hand = stranger.neutral_vertices.copy()
for name, weight in fv.EXPRESSION_PRESETS["smile"].items():
    by_hand += weight * model.expression_modes_of(stranger.params.identity)[names.index(name)]
print(f"by hand and by fv.edit: {1000 * np.abs(by_hand - smiling.vertices).max():.5f} mm apart")
assert np.allclose(by_hand, smiling.vertices, atol=3e-3)  # the rest corrects a smile with raised cheeks

# %%
presets = ("smile", "laugh", "surprise", "anger", "sadness", "disgust", "wink", "kiss")
for some in (presets[:4], presets[4:]):
    show(*(fv.render(fv.edit(stranger, expression=name), 220).rgb[20:210] for name in some))

# %% [markdown]
# ## 2. What a photograph shows
#
# Now a real face (Eileen Collins, NASA, public domain). The landmark detector gives each shape a *score*; the fit
# starts there, and then looks for the weights that explain points and colours best. Wrinkles and pores are fitted as
# well, which takes a while.

# %%
photo = astronaut()
result = fv.fit(photo, model, detail=not FAST)
if FAST:
    result = fv.edit(result, detail_seed=1)  # the tests sample a skin, which is quicker than fitting hers
show(photo[:240, 110:350], fv.overlay(photo, result)[:240, 110:350], fv.render(result, 240, "clay").rgb)
print(result)

# %%
fitted = dict(zip(names, result.params.expression.tolist()))
top = sorted(names, key=lambda name: -max(fitted[name], result.blendshape_scores.get(name, 0)))[:12]
rows = np.arange(len(top))
plt.figure(figsize=(6, 3.4), dpi=90)
plt.barh(rows - 0.2, [result.blendshape_scores.get(name, 0) for name in top], 0.4, label="detector's score")
plt.barh(rows + 0.2, [fitted[name] for name in top], 0.4, label="fitted weight")
plt.yticks(rows, top, fontsize=8)
plt.gca().invert_yaxis()
plt.xlabel("weight (no unit)")
plt.legend(fontsize=8)
plt.tight_layout()
plt.show()
assert min(fitted["mouthSmileLeft"], fitted["mouthSmileRight"]) > 0.4

# %% [markdown]
# She smiles, with both sides of the mouth. Because the expression is known, it can be taken away: weights of 0, then
# half of hers, hers, and an exaggeration by half (clamped to 1 where it would leave the limits).

# %%
hers = result.params.expression
stronger = np.clip(1.5 * hers, *model.expression_limits.T)
steps = [fv.edit(result, expression=weights) for weights in (0 * hers, 0.5 * hers, hers, stronger)]
show(*(fv.render(head, 240).rgb for head in steps))
neutral = steps[0]
assert np.allclose(neutral.vertices, neutral.neutral_vertices)

# %% [markdown]
# The first picture shows the limit of one photograph: her texture was photographed *while* she smiled, and shadows at
# the corners of the mouth stay in it.

# %% [markdown]
# ## 3. Wrinkles: what skin does when a face moves
#
# 52 smooth shapes cannot wrinkle. But compressed skin wrinkles: a network (`module.expression` of
# [04_detail_module](04_detail_module.ipynb)) draws the wrinkles from the *strain*, the relative change of length of the
# skin, and from the neutral displacement. They are added to the **displacement**, a map in texture space of the height
# of the skin above the smooth surface, in millimetres. `fv.edit` generates the wrinkles anew for each expression.
#
# To see their effect we keep the displacement of the neutral face on the moving shape. Left: neutral. Middle:
# expression with the neutral displacement. Right: expression with its wrinkles.

# %%
moods = ("laugh", "anger", "surprise")
moved = {mood: fv.edit(result, expression=mood) for mood in moods}
for mood in moods:
    without = moved[mood].replace(displacement=neutral.displacement, normal_map=neutral.normal_map)
    show(*(fv.render(head, 360, "clay").rgb[50:330] for head in (neutral, without, moved[mood])))

# %% [markdown]
# In colour, and to turn by hand where the notebook's viewer can (elsewhere it is a picture):

# %%
fv.MeshViewer(moved["laugh"])

# %% [markdown]
# The difference of the displacements, as maps of the face: blue is a valley, red a ridge.

# %%
figure, axes = plt.subplots(1, 3, figsize=(8, 2.9), dpi=90, layout="constrained")
for axis, mood in zip(axes, moods):
    wrinkles = moved[mood].displacement - neutral.displacement
    picture = axis.imshow(wrinkles, cmap="RdBu_r", vmin=-0.15, vmax=0.15)
    axis.set_title(mood, fontsize=9)
    axis.axis("off")
    print(f"{mood:9s} deepest valley {wrinkles.min():.2f} mm, highest ridge {wrinkles.max():.2f} mm")
    assert wrinkles.min() < -0.05
figure.colorbar(picture, ax=axes, label="mm")
plt.show()

# %% [markdown]
# Laughing wrinkles the outer corners of the eyes and the line from nose to mouth; anger wrinkles the skin between the
# brows; surprise wrinkles the forehead. How deep they are is a guess for a smooth young skin and part of the fit where
# the photograph shows them. `detail` turns everything up or down:

# %%
laughing = [fv.edit(moved["laugh"], detail=strength) for strength in (0, 1, 2)]
show(*(fv.render(head, 300, "clay").rgb[40:280] for head in laughing))
displacement_mm = [head.displacement.std() for head in laughing]
print("displacement (rms):", ", ".join(f"{1000 * value:.0f} µm" for value in displacement_mm))
assert displacement_mm[0] == 0 and np.isclose(displacement_mm[2], 2 * displacement_mm[1], rtol=0.01)

# %% [markdown]
# ## 4. Her smile on other faces
#
# **Retargeting** is carrying an expression from one head to another. With named weights there is nothing to it: the
# weights $\beta$ are the expression, whoever makes it.

# %%
others = [fv.head(model.random(seed), model) for seed in (0, 5, 8, 13)]
show(*(fv.render(head, 200).rgb for head in (neutral, *others)))
show(*(fv.render(fv.edit(head, expression=hers), 200).rgb for head in (result, *others)))

# %% [markdown]
# There is one subtlety. A blink closes an eye; a wide eye has a longer way to close. So a mode of one fixed size
# would leave the wide eyes open. The model stretches each mode by a **gain** of about 1 that depends on the person,
# $\mathbf{B}_j = g_j(\alpha) \, \mathbf{B}^{exp}_j$, with the model's mode $\mathbf{B}^{exp}_j$, shape (V, 3), and the
# person's identity coefficients $\alpha$. Is it really the wide eyes that have the larger gain?

# %%
points = model.landmarks_478
lids = [159, 145]  # upper and lower lid of the right eye, among the 478 landmarks
opening_mm, gain = [], []
for seed in range(12 if FAST else 60):
    person = model.random(seed)
    vertices = model.mean_vertices + np.tensordot(person.identity, model.identity_modes, axes=1)
    upper, lower = np.einsum("lc,lcx->lx", points.barycentric[lids], vertices[model.faces[points.triangle[lids]]])
    opening_mm.append(1000 * np.linalg.norm(upper - lower))
    gain.append(model.gain_of(person.identity)[names.index("eyeBlinkRight")])
plt.figure(figsize=(6, 3), dpi=90)
plt.scatter(opening_mm, gain, s=10)
plt.xlabel("distance of the lids' landmarks, neutral, in mm")
plt.ylabel("gain of eyeBlinkRight")
plt.show()
print(f"correlation {np.corrcoef(opening_mm, gain)[0, 1]:.2f}")
assert np.corrcoef(opening_mm, gain)[0, 1] > 0.6

# %% [markdown]
# Somebody else's *whole* performance would be a list of weights per frame; `fv.track` makes it from a video. Here is a
# tiny one by hand: from neutral to surprise and on to a laugh, on her and on another person.

# %%
surprise, laugh = (fv.edit(result, expression=name).params.expression for name in ("surprise", "laugh"))
frames = [0 * hers, 0.5 * surprise, surprise, 0.5 * (surprise + laugh), laugh][: 2 if FAST else None]
for head in (result, others[1]):
    show(*(fv.render(fv.edit(head, expression=weights), 180).rgb for weights in frames))

# %% [markdown]
# ## 5. Files
#
# ### 5.1 A GLB, taken apart
#
# `fv.export` goes by the ending of the name. A **GLB** (binary glTF, the "JPEG of 3D") holds the neutral head with its
# parts, its textures, and each expression as a *morph target*: offsets of the vertices, and a slider with a name.
#
# The file begins with 12 bytes: the word `glTF`, the version, the length of all. Then come *chunks*, each with its
# length and its kind. The first chunk is a description in JSON, the second one raw numbers. `struct` reads
# little-endian integers (`<I` is one of 4 bytes):

# %%
folder = Path(tempfile.mkdtemp())
fv.export(result, folder / "head.glb")
data = (folder / "head.glb").read_bytes()
magic, version, total = struct.unpack("<4sII", data[:12])
json_length, json_kind = struct.unpack("<I4s", data[12:20])
start = 20 + json_length
binary_length, binary_kind = struct.unpack("<I4s", data[start : start + 8])
binary = data[start + 8 :]
print(magic, "version", version, f"{total:,} bytes")
print(json_kind, f"{json_length:,} bytes;", binary_kind, f"{binary_length:,} bytes")
assert magic == b"glTF" and total == len(data) == 28 + json_length + binary_length

# %%
description = json.loads(data[20:start])
print("sections:", ", ".join(description))
mesh, *parts = description["meshes"]
print("meshes:", mesh["name"], "and the parts", ", ".join(part["name"] for part in parts))
(primitive,) = mesh["primitives"]
print("vertex data:", ", ".join(primitive["attributes"]))
print("pictures:", ", ".join(image["name"] for image in description["images"]))
print("targets:", len(primitive["targets"]), "with names:", ", ".join(mesh["extras"]["targetNames"][:5]), "...")
assert mesh["extras"]["targetNames"] == names and np.allclose(mesh["weights"], hers, atol=1e-6)

# %% [markdown]
# The weights in the file are hers: it opens smiling. Where are the numbers? An *accessor* says of which type and how
# many they are, and *buffer views* where they lie. Most of a face does not move with most shapes, so the accessors of
# targets are *sparse*: numbers of the vertices that move, and their offsets. We read one by hand and compare it with
# the model.

# %%
def numbers(view, kind):
    """The numbers of a buffer view."""
    view = description["bufferViews"][view]
    return np.frombuffer(binary[: view["byteOffset"] + view["byteLength"]], kind, offset=view["byteOffset"])


target = primitive["targets"][names.index("jawOpen")]
accessor = description["accessors"][target["POSITION"]]
sparse = accessor["sparse"]
kind = {5123: np.uint16, 5125: np.uint32}[sparse["indices"]["componentType"]]
offsets = np.zeros((accessor["count"], 3), np.float32)
moving = numbers(sparse["indices"]["bufferView"], kind)
offsets[moving] = numbers(sparse["values"]["bufferView"], np.float32).reshape(-1, 3)
print(f"jawOpen moves {len(moving)} of {len(offsets)} vertices, by up to {1000 * np.abs(offsets).max():.1f} mm")

# %% [markdown]
# The mesh of the skin has other vertices than the model. Eyeballs, teeth and tongue are meshes of their own in the
# file, so those of the model are left out. Along a seam of the texture a vertex lies at two places of the map, and the
# file has one row for each pair of vertex and place.

# %%
skin = result.is_skin  # without what the parts replace
pairs = np.unique(np.stack([model.faces[skin].ravel(), model.uv_faces[skin].ravel()], axis=1), axis=0)
vertex = pairs[:, 0]
ours = model.expression_modes_of(result.params.identity)[names.index("jawOpen")]
print(f"{len(ours)} vertices in the model, {len(vertex)} in the file", end="; ")
print(f"largest difference of the mode: {1e6 * np.abs(offsets - ours[vertex]).max():.2f} µm")
assert np.allclose(offsets, ours[vertex], atol=2.1e-5)  # targets leave out what moves less than 20 µm

# %% [markdown]
# What takes the space?

# %%
views = [view["byteLength"] for view in description["bufferViews"]]
sizes = {"texture and other pictures": sum(views[image["bufferView"]] for image in description["images"])}
for what in ("POSITION", "NORMAL"):
    own = [description["accessors"][target[what]]["sparse"] for target in primitive["targets"]]
    used = {part[key]["bufferView"] for part in own for key in ("indices", "values")}
    sizes[f"targets, {what}"] = sum(views[number] for number in used)
sizes["everything else"] = total - sum(sizes.values())
for what, size in sizes.items():
    print(f"{what:28s}{size / 1e6:6.2f} MB")

# %% [markdown]
# ### 5.2 The others
#
# OBJ (with .mtl and a picture) is what everything reads; PLY carries a colour at each vertex; STL is for printers, in
# millimetres. These three hold the head *with* its expression and no sliders. `lod="coarse"` writes the coarse mesh,
# a few thousand vertices for games and web pages.

# %%
for name in ("head.obj", "head.ply", "head.stl", "head.json"):
    fv.export(result, folder / name)
fv.export(result, folder / "coarse.glb", lod="coarse")
for path in sorted(folder.iterdir()):
    print(f"{path.name:18s}{path.stat().st_size / 1e6:6.2f} MB")
assert (folder / "coarse.glb").stat().st_size < 0.6 * (folder / "head.glb").stat().st_size

# %% [markdown]
# The headers of these formats can be read by a human. An STL begins with 80 free bytes and the number of triangles:

# %%
lines = (folder / "head.obj").read_text().splitlines()
for kind in ("v", "vt", "f"):
    own = [line for line in lines if line.startswith(kind + " ")]
    print(f"OBJ: {len(own):6d} lines such as '{own[0]}'")
print("PLY:", (folder / "head.ply").read_bytes().split(b"end_header")[0].decode().split("\n")[1:3])
fv.export(result, folder / "bald.stl", hair=False)  # in an STL hair is a closed solid around the strands
(triangles,) = struct.unpack("<I", (folder / "bald.stl").read_bytes()[80:84])
print(f"STL: {triangles} triangles")
assert trimesh.load(folder / "bald.stl").is_watertight  # skin, eyes, teeth and tongue are closed bodies

# %% [markdown]
# ### 5.3 JSON: to go on with later
#
# A JSON file holds parameters, texture and detail, but no mesh, because the model computes it. Nothing is lost on the
# way:

# %%
again = fv.load_result(folder / "head.json", model)
assert np.array_equal(again.params.identity, result.params.identity)
assert np.array_equal(again.params.expression, hers)
assert np.array_equal(again.texture, result.texture)
print(f"vertices differ by at most {1e6 * np.abs(again.vertices - result.vertices).max():.3f} µm", end=", ")
print(f"displacement by {1000 * np.abs(again.displacement - result.displacement).max():.3f} µm")
assert np.allclose(again.vertices, result.vertices, atol=1e-6)
assert np.allclose(again.displacement, result.displacement, atol=1e-3)

# %%
stored = json.loads((folder / "head.json").read_text())
print("entries:", ", ".join(stored))

# %% [markdown]
# ## 6. Open it elsewhere
#
# ### 6.1 Blender
#
# 1. *File > Import > glTF 2.0 (.glb/.gltf)*, choose `head.glb`. The head stands upright and in metres; with the
#    view's *Material Preview* (Z key) its texture shows.
# 2. Select it, open *Properties > Data (green triangle) > Shape Keys*: the 52 names, each with a *Value*. Those of her
#    smile are set already.
# 3. To animate: go to a frame, set a value, press I over it; go on, set another, press I again.
# 4. Or in the *Scripting* tab, where `bpy` is Blender's own module:
#
# ```python
# import bpy
#
# keys = bpy.context.object.data.shape_keys.key_blocks
# for frame, weight in ((1, 0.0), (12, 1.0), (24, 0.0)):
#     keys["jawOpen"].value = weight
#     keys["jawOpen"].keyframe_insert("value", frame=frame)
# ```
#
# ### 6.2 A web page with three.js
#
# The next cell writes a page beside `coarse.glb`. Run `python -m http.server` in that folder (`print(folder)` tells
# which one it is), and open http://localhost:8000/page.html: the head turns and opens its mouth. three.js comes from
# the network, and finds the sliders by the names in the file (`morphTargetDictionary`).

# %%
page = """<!doctype html>
<script type="importmap">{"imports": {
  "three": "https://cdn.jsdelivr.net/npm/three@0.170.0/build/three.module.js",
  "addons/": "https://cdn.jsdelivr.net/npm/three@0.170.0/examples/jsm/"}}</script>
<body style="margin:0"><script type="module">
import * as THREE from "three";
import { GLTFLoader } from "addons/loaders/GLTFLoader.js";
const scene = new THREE.Scene(), camera = new THREE.PerspectiveCamera(30, innerWidth / innerHeight, 0.05, 5);
const renderer = new THREE.WebGLRenderer({ antialias: true });
renderer.setSize(innerWidth, innerHeight); document.body.append(renderer.domElement);
scene.background = new THREE.Color("white"); camera.position.z = 0.7;
scene.add(new THREE.HemisphereLight("white", "grey", 3));
new GLTFLoader().load("coarse.glb", ({ scene: head }) => {
  scene.add(head); let face; head.traverse(o => { if (o.isMesh) face = o; });
  renderer.setAnimationLoop(ms => {
    face.morphTargetInfluences[face.morphTargetDictionary.jawOpen] = 0.5 - 0.5 * Math.cos(ms / 400);
    head.rotation.y = 0.4 * Math.sin(ms / 1500); renderer.render(scene, camera); });
});</script></body>"""
(folder / "page.html").write_text(page)
print(f"page.html: {len(page)} characters, beside", ", ".join(sorted(p.name for p in folder.glob("*.glb"))))

# %% [markdown]
# ## 7. Exercises
#
# 1. Mirror her expression: exchange left and right weights. Where does it make a difference?
# 2. Make a face that no preset has: skeptical, one brow up, mouth to the other side.
# 3. Take the texture out of the GLB by hand and show it.
# 4. Which two of the 52 shapes are most alike? Compare the directions of their modes as vectors of 3V numbers.
# 5. Find the weights of an expression back from its vertices alone, by least squares. Why is the answer unique?

# %% [markdown]
# ## 8. Solutions
#
# **1.** Swap the names; measure the largest change.

# %%
swap = {"Left": "Right", "Right": "Left"}
other_side = [next((n.removesuffix(s) + swap[s] for s in swap if n.endswith(s)), n) for n in names]
mirrored = hers[[names.index(name) for name in other_side]]
change = mirrored - hers
for index in np.argsort(-np.abs(change))[:3]:
    print(f"{names[index]:20s}{hers[index]:.2f} -> {mirrored[index]:.2f}")
show(*(fv.render(fv.edit(result, expression=weights), 240, "clay").rgb for weights in (hers, mirrored)))
assert np.array_equal(mirrored[[names.index(name) for name in other_side]], hers)

# %% [markdown]
# **2.** Weights by name; those that are not named would stay, so we start from the neutral face.

# %%
sceptic = {
    "browOuterUpLeft": 1.0,
    "browDownRight": 0.8,
    "eyeSquintRight": 0.5,
    "mouthRight": 0.5,
    "mouthPressRight": 0.6,
}
show(*(fv.render(fv.edit(head, expression=sceptic), 240).rgb for head in (neutral, others[0], others[2])))

# %% [markdown]
# **3.** An image names its buffer view; its bytes are those of a PNG (or JPEG) file.

# %%
pictures = []
for image in description["images"]:
    view = description["bufferViews"][image["bufferView"]]
    (folder / image["name"]).write_bytes(binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]])
    opened = Image.open(folder / image["name"]).convert("RGB")
    print(f"{image['name']:10s}{image['mimeType']}, {opened.width} x {opened.height} texels")
    pictures.append(np.asarray(opened.resize((256, 256))))
show(*pictures)

# %% [markdown]
# **4.** The cosine of the angle between two modes: 1 for the same direction, 0 for nothing in common.

# %%
directions = model.expression_modes.reshape(len(names), -1)
directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
cosines = directions @ directions.T - 2 * np.eye(len(names))
for _ in range(3):
    i, j = np.unravel_index(cosines.argmax(), cosines.shape)
    print(f"{names[i]:18s}{names[j]:18s} cosine {cosines[i, j]:.2f}")
    cosines[i, j] = cosines[j, i] = -1
plt.figure(figsize=(4.4, 3.6), dpi=90)
plt.imshow(directions @ directions.T, cmap="RdBu_r", vmin=-1, vmax=1)
plt.colorbar(label="cosine")
plt.xlabel("expression")
plt.ylabel("expression")
plt.show()

# %% [markdown]
# **5.** The modes are linearly independent (their matrix has rank 52), so only one set of weights gives these
# vertices.

# %%
matrix = model.expression_modes_of(result.params.identity).reshape(len(names), -1).T  # (3V, 52)
offset = (result.vertices - result.neutral_vertices).reshape(-1)
weights, *_ = np.linalg.lstsq(matrix, offset, rcond=None)
print(f"rank {np.linalg.matrix_rank(matrix)}, weights off by at most {np.abs(weights - hers).max():.5f}")
assert np.allclose(weights, hers, atol=0.05)  # corrective shapes are no combination of the modes

# %% [markdown]
# Where to go next: [06_edit_a_face](06_edit_a_face.ipynb) changes who it is: age, parts, mixtures of people.
