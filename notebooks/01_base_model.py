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
# # 1. The base model: heads as vectors
#
# [![Open in
# Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/)
#
# (In Colab run first, with the address of this repository: `!git clone ADDRESS faceverse` and
# `%pip install -q "./faceverse[notebooks]"`.)
#
# A *3D morphable model* turns heads into points of a vector space: add two, take an average, walk in a straight line
# from young to old. Everything that FaceVerse does with a photograph later, it does with these vectors. So it pays to
# know what the numbers in them mean, and what they do not.
#
# **You will**
#
# 1. look at the mean head and at the directions in which heads differ,
# 2. learn what a coefficient of 2 means, and how likely a head is,
# 3. draw people in two ways, and see why only one of them looks like people,
# 4. find age, gender and the width of a nose as directions, by hand,
# 5. measure a hundred heads, and compute a model of your own from them,
# 6. look at the 52 expressions, and learn how they differ from the other modes.
#
# **You need** NumPy and a little linear algebra: vectors, matrices, what an orthogonal basis is.
# [00_quickstart](00_quickstart.ipynb) comes before; it shows the whole way from a photograph to a head.

# %% [markdown]
# ## 1. Set-up
#
# `show` puts pictures side by side. In fast mode, which the tests use, loops are shorter.

# %%
import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # more threads only wait for each other here

import matplotlib.pyplot as plt
import numpy as np
import torch

import faceverse as fv
from faceverse.viewer import show

FAST = os.environ.get("FACEVERSE_FAST") == "1"  # shorter loops, for the tests
plt.rcParams.update({"figure.figsize": (6, 3), "figure.dpi": 90, "figure.facecolor": "white"})

# %% [markdown]
# ## 2. A mean and directions
#
# In a morphable model each head is a mesh with the same V vertices (points in space) in the same order: vertex 500 is
# the same spot of the face in everybody. All positions together are one long vector with 3 V numbers, in metres. The
# model itself is a mean vector and a list of *modes*, vectors of the same length:
#
# $$\mathbf{v}(\boldsymbol\alpha) = \bar{\mathbf{v}} + \sum_{i=1}^{I} \alpha_i \, \mathbf{b}_i$$
#
# * $\mathbf{v}$, shape (V, 3), metres: the vertices of a head,
# * $\bar{\mathbf{v}}$, (V, 3), metres: those of the mean head,
# * $\mathbf{b}_i$, (V, 3), metres: mode number $i$ of $I$, how far each vertex moves,
# * $\alpha_i$, a number without unit: the *coefficient* of mode $i$. All of them, $\boldsymbol\alpha$, (I,), are the
#   **identity** of a head.

# %%
model = fv.load_model()
V, N_id, N_alb = len(model.mean_vertices), len(model.identity_modes), len(model.albedo_modes)
print(f"V = {V} vertices; I = {N_id} modes of identity, {N_alb} of albedo (the colour of the skin)")
mean_head = fv.head(model.neutral(), model)
fv.MeshViewer(mean_head)

# %% [markdown]
# Three of the modes: the coefficient is -3 in the upper row, +3 in the lower. The first mode that you see is a matter
# of size: big heads and small ones differ more than anything else does.

# %%
for amount in (-3, 3):
    heads = [fv.edit(mean_head, identity=amount * np.eye(N_id)[mode]) for mode in (0, 1, 2)]
    frame = fv.Camera(470, (130, 106), (260, 260))
    show(*(fv.render(head, mode="clay", camera=frame).rgb for head in heads))

# %% [markdown]
# How much does each mode matter? The mean square of a vertex's movement, in mm², is the mode's *variance*. Added up,
# the variances say how many modes are needed. (Only the face is counted here; the neck is of no interest.)

# %%
face = np.unique(np.concatenate([model.regions[name] for name in ("face", "lips", "eyelids")]))
variance = ((1000 * model.identity_modes[:, face]) ** 2).sum(axis=2).mean(axis=1)
share = np.cumsum(variance) / variance.sum()
for count in (1, 10, 50):
    print(f"the first {count:3d} modes hold {share[count - 1]:.0%} of the face's variance")
plt.plot(np.arange(1, N_id + 1), 100 * share)
plt.xlabel("number of modes")
plt.ylabel("share of variance in %")
plt.grid(alpha=0.3)
plt.show()
assert share[0] > 0.2 and share[49] > 0.85

# %% [markdown]
# ## 3. What a coefficient means
#
# A mode has a length, and a coefficient could be anything, so somebody has to agree on a scale. The agreement: among
# the heads that the model was trained on, **each coefficient has mean 0 and variance 1**. The length of a mode then is
# one standard deviation of those heads. The model carries the coefficients of a few hundred of them, its
# *population*, so that this can be checked.

# %%
population = model.data.population  # a row for each head: identity, then albedo
print("population:", population.shape)
identities = population[:, :N_id]
adult = identities[:, :-3]  # the last modes are those of growth, 0 for adults
print(f"means between {identities.mean(0).min():+.2f} and {identities.mean(0).max():+.2f}")
print(f"variances between {adult.var(0).min():.2f} and {adult.var(0).max():.2f}")
print(f"beyond -2 .. 2: {(abs(identities) > 2).mean():.1%} of the numbers (a normal distribution has 4.6 %)")
assert abs(identities.mean(0)).max() < 0.35 and 0.6 < adult.var(0).min() and identities.var(0).max() < 1.6

# %% [markdown]
# This makes numbers of different modes comparable. For a normal distribution the probability density of a head is
#
# $$p(\boldsymbol\alpha) \propto \exp\left(-\tfrac12 \, \lVert\boldsymbol\alpha\rVert^2\right), \qquad
# \lVert\boldsymbol\alpha\rVert = \sqrt{\textstyle\sum_i \alpha_i^2}$$
#
# and $\lVert\boldsymbol\alpha\rVert$ is the **Mahalanobis length**: how unusual the head is, in standard deviations.
# It is not the same as how far its vertices moved. Here are two heads of the same length 3, equally unusual:

# %%
numbers = 3 * np.eye(N_id)[[0, 40]]
for row, mode in zip(numbers, (1, 41)):
    moved = 1000 * np.linalg.norm(np.tensordot(row, model.identity_modes, 1)[face], axis=1)
    print(f"coefficient 3 of mode {mode:2d}: length {np.linalg.norm(row):.0f}, the face moves by {moved.mean():.2f} mm")
heads = (mean_head, *(fv.edit(mean_head, identity=row) for row in numbers))
show(*(fv.render(head, mode="clay", camera=frame).rgb for head in heads))

# %% [markdown]
# A fit of a photograph uses this length as its *prior*: a change that explains the picture with small coefficients is
# believed sooner than one that needs a head nobody has.
#
# Which length do people have? Not zero! The mean head is the single most likely point, but there is hardly any room
# near it. The squared length is a sum of $I$ squares that are 1 on average, so a usual head has a length of about
# $\sqrt{I}$.

# %%
lengths = np.linalg.norm(identities, axis=1)
plt.hist(lengths, bins=30, color="0.6")
plt.axvline(np.sqrt(N_id), color="tab:red", label=r"$\sqrt{I}$")
plt.xlabel("Mahalanobis length of the population's heads (standard deviations)")
plt.ylabel("heads")
plt.xlim(0, None)
plt.legend()
plt.show()
print(f"lengths {lengths.min():.1f} .. {lengths.max():.1f}, mean {lengths.mean():.1f}; sqrt(I) = {np.sqrt(N_id):.1f}")
assert abs(lengths.mean() - np.sqrt(N_id)) < 1

# %% [markdown]
# ## 4. Albedo: the same for colours
#
# **Albedo** is the share of red, green and blue light that a surface gives back, 0 to 1. It lies on the vertices too,
# and has a mean $\bar{\mathbf{a}}$, (V, 3), and modes $\mathbf{c}_k$, (V, 3), with coefficients $\gamma_k$:
#
# $$\mathbf{a}(\boldsymbol\gamma) = \bar{\mathbf{a}} + \sum_{k=1}^{A} \gamma_k \, \mathbf{c}_k$$
#
# `fv.head` makes a head from given coefficients. The first three modes, -1.5 above and +1.5 below:

# %%
for amount in (-1.5, 1.5):
    people = [model.neutral().replace(albedo=np.float32(amount * np.eye(N_alb)[mode])) for mode in (0, 1, 2)]
    show(*(fv.render(fv.head(p, model, texture_size=256), mode="albedo", camera=frame).rgb for p in people))

# %% [markdown]
# The first is how much melanin the skin has, and its steps are large: skin tones differ far more than anything else
# that colours a face.

# %%
colour_variance = (model.albedo_modes[:, face] ** 2).sum(axis=(1, 2))
print(f"the first albedo mode holds {colour_variance[0] / colour_variance.sum():.0%} of the variance of colour")
assert colour_variance[0] > 0.5 * colour_variance.sum()

# %% [markdown]
# ## 5. Drawing people
#
# A formula that makes heads from numbers makes people from random numbers. The simplest way: draw every coefficient
# from a normal distribution, each on its own (*iid*, independent and identically distributed). `model.random(seed)`
# is the other way: it starts from a head of the stored population and changes it a little. First iid, then
# `model.random`:

# %%
count = 2 if FAST else 5
independent = []
for seed in range(count):
    rng = np.random.default_rng(seed)
    identity, albedo = rng.standard_normal(N_id).astype(np.float32), rng.standard_normal(N_alb).astype(np.float32)
    independent.append(model.neutral().replace(identity=identity, albedo=albedo))
related = [model.random(seed) for seed in range(count)]
small = fv.Camera(345, (95, 79), (190, 190))
for group in (independent, related):
    show(*(fv.render(fv.head(p, model, texture_size=256), camera=small).rgb for p in group))

# %% [markdown]
# Both have coefficients of variance 1. What is different is what goes *together*. Two checks:
#
# **Shape and skin.** An old skin belongs on an old head. The model can estimate age as a sum of coefficients (section
# 6); here are the years that come from the shape against those that come from the skin.

# %%
age = next(a for a in model.data.attributes if a.name == "age")
seeds = range(40 if FAST else 300)
drawn = np.array([np.concatenate([p.identity, p.albedo]) for p in map(model.random, seeds)])
rng = np.random.default_rng(0)
iid = rng.standard_normal(drawn.shape).astype(np.float32)
figure, axes = plt.subplots(1, 2, sharex=True, sharey=True)
agree = {}
for axis, (name, rows) in zip(axes, {"iid": iid, "model.random": drawn}.items()):
    by_shape, by_skin = rows[:, :N_id] @ age.estimator[:N_id], rows[:, N_id:] @ age.estimator[N_id:-1]
    axis.plot(by_shape, by_skin, ".", markersize=3)
    axis.set(title=name, xlabel="years by shape", ylabel="years by skin")
    agree[name] = np.corrcoef(by_shape, by_skin)[0, 1]
plt.tight_layout()
plt.show()
print("correlation:", {name: f"{value:.2f}" for name, value in agree.items()})
assert abs(agree["iid"]) < 0.35 and agree["model.random"] > 0.5

# %% [markdown]
# **Colours that exist.** The colour of skin runs along a curve, from much melanin to little, with more or less blood.
# Albedo modes are straight lines, and numbers drawn for each of them on its own leave the curve. The ratio of blue to
# green light in the mean colour of the face shows it:

# %%
skin = np.setdiff1d(model.regions["face"], np.concatenate([model.regions["lips"], model.regions["eyebrows"]]))
skin_modes, skin_mean = model.albedo_modes[:, skin].mean(axis=1), model.mean_albedo[skin].mean(axis=0)
colours = {"iid": skin_mean + iid[:, N_id:] @ skin_modes, "model.random": skin_mean + drawn[:, N_id:] @ skin_modes}
for name, colour in colours.items():
    plt.plot(colour[:, 1], colour[:, 2] / colour[:, 1], ".", markersize=4, label=name)
plt.xlabel("green (linear light, 0 to 1)")
plt.ylabel("blue / green")
plt.legend()
plt.show()
lowest = {name: (colour[:, 2] / colour[:, 1]).min() for name, colour in colours.items()}
print("least blue / green:", {name: f"{value:.2f}" for name, value in lowest.items()})
assert lowest["iid"] < lowest["model.random"]

# %% [markdown]
# That is why the file stores a population. By construction the identity coefficients are *uncorrelated* among
# themselves, and so are those of albedo. But that is less than independent: shape and skin belong together, and colours
# lie on curves. A mean and variances cannot say so; examples can. The price: such a person resembles somebody of the
# population. (The recipe for the shape: $\sqrt{0.7}$ of a stored identity plus $\sqrt{0.3}$ of fresh noise, which keeps
# the variance at 0.7 + 0.3 = 1.)

# %%
nearest = {}
unit_population = identities / lengths[:, None]
for name, rows in (("iid", iid), ("model.random", drawn)):
    unit = rows[:, :N_id] / np.linalg.norm(rows[:, :N_id], axis=1, keepdims=True)
    nearest[name] = np.median((unit @ unit_population.T).max(axis=1))
    print(f"{name:12s}: cosine with the most similar head of the population {nearest[name]:.2f} (median)")
assert nearest["model.random"] > 0.7 > nearest["iid"]

# %% [markdown]
# ## 6. Attributes are directions
#
# Nobody told the principal components what age is. Yet age is in them: as a direction, a change of all coefficients
# at once. `fv.edit` knows it; by comparing a head before and after an edit we can read the direction off.

# %%
person = fv.head(model.random(12), model)
older = fv.edit(person, age=+15)
direction = np.concatenate([older.params.identity - person.params.identity,
                            older.params.albedo - person.params.albedo]) / 15  # fmt: skip
print(f"one year is a step of length {np.linalg.norm(direction):.3f} among {len(direction)} coefficients")

# %% [markdown]
# Is it *one* direction, the same for everybody, and twice as far for twice the years? Compare with another person.

# %%
other = fv.head(model.random(7), model)
step = (fv.edit(other, age=-10).params.identity - other.params.identity) / -10
cosine = step @ direction[:N_id] / np.linalg.norm(step) / np.linalg.norm(direction[:N_id])
print(f"cosine between the two directions: {cosine:.5f}; lengths {np.linalg.norm(step):.4f}, ", end="")
print(f"{np.linalg.norm(direction[:N_id]):.4f}")
assert cosine > 0.999 and np.allclose(direction, age.step, atol=1e-4)

# %% [markdown]
# So an edit is an addition, which `age.step` of the model holds. There is a second vector, the *estimator*
# $\mathbf{e}$: age is estimated as $\mathbf{e} \cdot (\boldsymbol\alpha, \boldsymbol\gamma, 1)$, where
# $(\boldsymbol\alpha, \boldsymbol\gamma, 1)$ are all coefficients of the head and a 1. The two are made for each other:
# one year's step $\mathbf{s}$ raises the estimate by one year.

# %%
one = age.estimator[:-1] @ age.step
print(f"e . s = {one:.4f} years; estimate for the person: {model.attributes(person.params)['age']:.0f} years")
by_hand = age.estimator @ np.concatenate([person.params.identity, person.params.albedo, [1]])
assert abs(one - 1) < 1e-3 and abs(by_hand - model.attributes(person.params)["age"]) < 0.01

# %% [markdown]
# Gender is such a direction too, and so is the width of the nose. The middle column is the person:

# %%
for name, less, more in (("age", -10, 45), ("gender", -1.2, 0.6), ("nose_width", -6, 6)):
    limits = fv.attribute_limits(person)[name]
    print(f"{name}: {less}, 0, {more:+}  (the model allows changes from {limits[0]:.1f} to {limits[1]:.1f})")
    assert limits[0] <= less and more <= limits[1]
    heads = (fv.edit(person, **{name: less}), person, fv.edit(person, **{name: more}))
    show(*(fv.render(head, camera=frame).rgb for head in heads))

# %% [markdown]
# How local is the nose's? Colour every vertex by how far it moves when the nose becomes 6 mm wider, beside the same for
# age. And measure: does the nose really become wider by what we asked for? Its width, here, is the distance of two of
# the 478 landmarks (the detector's points 129 and 358, on the wings of the nose).

# %%
places = model.landmarks_478
corners, weights = model.faces[places.triangle], places.barycentric[..., None]
wide = fv.edit(person, nose_width=6)
for name, head in (("age", older), ("nose_width", wide)):
    moved = 1000 * np.linalg.norm(head.neutral_vertices - person.neutral_vertices, axis=1)
    print(f"{name:10s} moves the face by {moved[face].mean():.2f} mm, the most anywhere is {moved[face].max():.1f} mm")
wings = [(head.vertices[corners] * weights).sum(1)[[129, 358]] for head in (person, wide)]
width = [1000 * np.linalg.norm(a - b) for a, b in wings]
print(f"the wings of the nose: {width[0]:.1f} mm -> {width[1]:.1f} mm")
assert 4 < width[1] - width[0] < 8

# %%
figure, axes = plt.subplots(1, 2, figsize=(6, 3.4))
for axis, (name, head) in zip(axes, (("age", older), ("nose_width", wide))):
    moved = 1000 * np.linalg.norm(head.neutral_vertices - person.neutral_vertices, axis=1)
    x, y = 100 * person.neutral_vertices[face, :2].T
    dots = axis.scatter(x, y, c=moved[face], s=2, cmap="inferno")
    axis.set(title=name, xlabel="x in cm", ylabel="y in cm", aspect="equal")
    figure.colorbar(dots, ax=axis, label="moved by mm")
plt.tight_layout()
plt.show()

# %% [markdown]
# Left age, which is everywhere; right the nose, which is not (the person is seen from the front). The landmarks move
# apart by a little less than 6 mm, because the detector's points lie beside those between which the model measures.
#
# ## 7. Measuring a population
#
# What sizes do random heads have? Take the distance of the pupils, here of the centres of the two eyeballs.

# %%
count = 40 if FAST else 100
coefficients = np.stack([model.random(seed).identity for seed in range(count)])
left, right = (model.regions[f"eyeball_{side}"] for side in ("left", "right"))

heads = model.vertices(torch.from_numpy(coefficients)).numpy()
distances = 1000 * np.linalg.norm(heads[:, left].mean(axis=1) - heads[:, right].mean(axis=1), axis=1)
print(f"{count} heads: {distances.mean():.1f} mm on average, deviation {distances.std():.1f} mm, "
      f"{distances.min():.1f} .. {distances.max():.1f} mm")  # fmt: skip
assert 57 < distances.mean() < 69 and 1.5 < distances.std() < 6

# %% [markdown]
# We could have known without drawing a single head. The eyes lie on both sides of the middle, so their distance is
# nearly a linear function of the coefficients: $d(\boldsymbol\alpha) \approx d_0 + \mathbf{g} \cdot \boldsymbol\alpha$,
# where $d_0$ is the distance in the mean head and $g_i$, in mm, is what mode $i$ adds to it. For uncorrelated
# coefficients of variance 1, such a sum has the standard deviation $\lVert\mathbf{g}\rVert$.

# %%
d0 = 1000 * np.linalg.norm(model.mean_vertices[left].mean(axis=0) - model.mean_vertices[right].mean(axis=0))
g = 1000 * (model.identity_modes[:, left, 0].mean(1) - model.identity_modes[:, right, 0].mean(1))
print(f"d0 = {d0:.1f} mm, |g| = {np.linalg.norm(g):.1f} mm; the first five of g in mm:", g[:5].round(2))
x = np.linspace(48, 86, 200)
plt.hist(distances, bins=15, density=True, color="0.7", label=f"{count} random heads")
sd = np.linalg.norm(g)
plt.plot(x, np.exp(-0.5 * ((x - d0) / sd) ** 2) / sd / np.sqrt(2 * np.pi), "tab:red", label="from the modes alone")
plt.xlabel("distance of the pupils in mm")
plt.ylabel("density per mm")
plt.xlim(48, 86)
plt.legend(loc="upper right")
plt.show()
assert abs(sd - distances.std()) < 0.35 * sd and abs(d0 - distances.mean()) < 1.5

# %% [markdown]
# ## 8. PCA by hand
#
# Where do mean and modes come from? From example heads, by *principal component analysis*. Put $S$ heads as rows into
# a matrix, take off their mean, and let the singular value decomposition find the directions:
#
# $$\mathbf{X} = \mathbf{U} \, \boldsymbol\Sigma \, \mathbf{W}^\top$$
#
# * $\mathbf{X}$, (S, 3 K), mm: the heads minus their mean, K vertices each (we take every fourth of the face),
# * $\mathbf{W}^\top$, (S, 3 K): rows of length 1 at right angles to each other, the directions,
# * $\boldsymbol\Sigma$, diagonal, mm: the *singular values* $\sigma_i$; the variance along direction $i$ is
#   $\sigma_i^2 / (S - 1)$,
# * $\mathbf{U}$, (S, S): with columns of length 1; times $\sqrt{S - 1}$ they are the coefficients, of variance 1.

# %%
points = face[::4]
samples = 1000 * heads[:, points].reshape(count, -1)
centre = samples.mean(axis=0)
X = samples - centre
U, sigma, W = np.linalg.svd(X, full_matrices=False)
scores = U * np.sqrt(count - 1)
my_modes = sigma[:, None] * W / np.sqrt(count - 1)  # millimetres per unit of coefficient
print("X", X.shape, "->", "U", U.shape, "sigma", sigma.shape, "W", W.shape)
print(f"variance of my coefficients: {scores[:, :-1].var(axis=0, ddof=1).mean():.3f}; the last sigma: {sigma[-1]:.1e}")
assert np.allclose(scores[:, :-1].var(axis=0, ddof=1), 1, atol=1e-2) and sigma[-1] < 1e-2 * sigma[0]

# %% [markdown]
# $S$ heads have at most $S - 1$ directions, because their mean has used one up: the last singular value is zero, but
# for rounding. Now beside the modes that the model ships, restricted to the same vertices. (Those were computed from
# 2,000 heads, with weights on the whole head, so they are not quite at right angles on the face alone. We turn them
# into an orthogonal basis by one more SVD, which changes the basis but not the space.)

# %%
shipped = 1000 * model.identity_modes[:, points].reshape(N_id, -1)
_, shipped_sigma, Q = np.linalg.svd(shipped, full_matrices=False)
plt.semilogy(np.arange(1, count), sigma[:-1] ** 2 / (count - 1) / len(points), label=f"PCA of {count} heads")
plt.semilogy(np.arange(1, N_id + 1), shipped_sigma**2 / len(points), label="shipped model")
plt.xlabel("component")
plt.ylabel("variance in mm² per vertex")
plt.legend()
plt.grid(alpha=0.3)
plt.show()

# %% [markdown]
# The curves begin together and part: a few heads see the large variances well and overlook the small ones. How well do
# the directions agree? The *principal angles* between two subspaces with orthonormal bases $\mathbf{P}$ and
# $\mathbf{Q}$ (rows are the basis vectors) are $\arccos$ of the singular values of $\mathbf{P}\mathbf{Q}^\top$: 0° for
# a direction that both have, 90° for one that the other lacks altogether.

# %%
for k in (1, 3, 10, 30):
    cosines = np.linalg.svd(W[:k] @ Q[:k].T, compute_uv=False)
    angles = np.degrees(np.arccos(np.clip(cosines, 0, 1)))
    low, middle, high = np.quantile(angles, (0, 0.5, 1))
    print(f"first {k:2d}: smallest angle {low:4.1f}°, median {middle:4.1f}°, largest {high:4.1f}°")
all_angles = np.degrees(np.arccos(np.clip(np.linalg.svd(W[: count - 1] @ Q.T, compute_uv=False), 0, 1)))
print(f"all of mine within the space of all {N_id}: largest angle {all_angles.max():.2f}°")
assert all_angles.max() < 1

# %% [markdown]
# The single directions do not agree well. Where two variances are nearly the same, any mixture of the two directions
# is as good, and chance decides. What matters is whether heads that were *not* among the hundred can be built from
# them.

# %%
fresh = np.stack([model.random(1000 + seed).identity for seed in range(20 if FAST else 50)])
unseen = 1000 * model.vertices(torch.from_numpy(fresh)).numpy()[:, points].reshape(len(fresh), -1)
ks = [k for k in (0, 2, 5, 10, 20, 35, 60, 99) if k < count]
errors = {}
for name, data in (("seen", X), ("unseen", unseen - centre)):
    rests = [data - data @ W[:k].T @ W[:k] for k in ks]  # what mean and k directions do not explain
    errors[name] = [np.linalg.norm(rest.reshape(-1, 3), axis=1).mean() for rest in rests]
    print(f"{name:7s} mean error in mm with", {k: f"{e:.2f}" for k, e in zip(ks, errors[name])}, "components")

# %%
plt.plot(ks, errors["seen"], "o-", label="the heads it was computed from")
plt.plot(ks, errors["unseen"], "o-", label="heads it has not seen")
plt.xlabel("components used")
plt.ylabel("mean error in mm")
plt.legend()
plt.grid(alpha=0.3)
plt.show()
assert errors["seen"][-1] < 0.2 * errors["unseen"][-1] < 0.2 * errors["unseen"][0]

# %% [markdown]
# This gap is the most important thing to know about any data-driven model. On the heads that it came from, it looks
# perfect. What counts is the other curve, and a model can only be judged on heads that it has not seen
# ([07_evaluate](07_evaluate.ipynb) does). A hundred heads can tell the mean, the sizes and the coarse directions; they
# cannot tell the fine ones, nor anything about people who are unlike all hundred.
#
# The same holds for the shipped model. Its heads come from an artists' program and from random numbers, not from scans:
# it cannot know what that program does not know.
#
# ## 9. Expressions
#
# Expressions are added on top of the identity:
#
# $$\mathbf{v} = \bar{\mathbf{v}} + \sum_i \alpha_i \, \mathbf{b}_i + \sum_{j=1}^{52} g_j(\boldsymbol\alpha) \, \beta_j
# \, \mathbf{d}_j$$
#
# $\mathbf{d}_j$, (V, 3), metres: expression mode $j$ with a name such as `jawOpen`; $\beta_j$, 0 to 1: its weight;
# $g_j$, a number near 1: its *gain*, see below. These modes are no principal components. Artists sculpted them, each
# with a meaning, after Apple's list of 52. They are linear: a smile with an open mouth is a smile plus an open mouth.

# %%
names = list(model.expression_names)
smile = {"mouthSmileLeft": 0.8, "mouthSmileRight": 0.8}
opened = {"jawOpen": 0.5}
heads = [fv.edit(person, expression=weights) for weights in ({}, smile, opened, smile | opened)]
show(*(fv.render(head, camera=small).rgb for head in heads))
neutral, smiling, open_mouth, both = (head.vertices for head in heads)
difference = 1000 * np.abs(both - (smiling + open_mouth - neutral)).max()
print(f"sum against both at once: {difference:.5f} mm")
assert difference < 0.01

# %% [markdown]
# Unlike principal components they are not at right angles to each other: several names move the same skin. The cosine
# between two modes says how alike they are. (That is why a fit needs priors for them: two similar modes with opposite
# weights nearly cancel out, and large wrong weights would explain a picture almost as well as small right ones.)

# %%
D = model.expression_modes.reshape(len(names), -1)
unit = D / np.linalg.norm(D, axis=1, keepdims=True)
cosines = unit @ unit.T
plt.figure(figsize=(4.2, 3.4))
plt.imshow(cosines, vmin=-1, vmax=1, cmap="RdBu_r")
plt.colorbar(label="cosine")
plt.xlabel("expression number")
plt.ylabel("expression number")
plt.show()
others = cosines - np.eye(len(names))  # each mode beside itself does not count
for label, place in (("most alike", others.argmax()), ("most opposite", others.argmin())):
    i, j = np.unravel_index(place, others.shape)
    print(f"{label}: {names[i]} and {names[j]}, cosine {others[i, j]:+.2f}")
    assert abs(others[i, j]) > 0.5

# %% [markdown]
# ### 9.1 The gain
#
# One size does not fit all: wide eyes need a longer way to close, and a fixed blink would leave them open. So the size
# of each expression follows the head, linearly: $g_j(\boldsymbol\alpha) = 1 + \mathbf{h}_j \cdot \boldsymbol\alpha$,
# with learned numbers $\mathbf{h}_j$, (I,). For one given person all stays linear.

# %%
gains = np.stack([model.gain_of(identity) for identity in coefficients])
blink = names.index("eyeBlinkLeft")
order = np.argsort(gains[:, blink])
for seed in (order[0], order[-1]):
    print(f"person {seed:2d}: gain of {names[blink]} {gains[seed, blink]:.2f}")
    head = fv.head(model.random(int(seed)), model, texture_size=256)
    closed = fv.edit(head, expression={"eyeBlinkLeft": 1, "eyeBlinkRight": 1})
    near = fv.Camera(900, (190, 115), (220, 380))
    show(*(fv.render(h, mode="clay", camera=near).rgb for h in (head, closed)))
assert gains[:, blink].max() > 1.05 > 0.95 > gains[:, blink].min()

# %% [markdown]
# ### 9.2 Where straight lines end
#
# A lid turns about the eye's centre, on an arc; a linear model moves it along the chord. The distance of the lid from
# the centre of the eyeball, while it closes:

# %%
lid_move = np.linalg.norm(model.expression_modes[blink], axis=1)
lid = np.argsort(-lid_move)[:20]
centre_of_eye = model.mean_vertices[left].mean(axis=0)
closing = np.linspace(0, 1, 11)
paths = model.mean_vertices[lid] + closing[:, None, None] * model.expression_modes[blink][lid]
radius = np.linalg.norm(paths - centre_of_eye, axis=2).mean(axis=1)
plt.plot(closing, 1000 * radius, "o-")
plt.xlabel("weight of eyeBlinkLeft")
plt.ylabel("lid to eye centre in mm")
plt.grid(alpha=0.3)
plt.show()
assert min(radius) < min(radius[0], radius[-1])

# %% [markdown]
# On the way it comes nearer than at both ends: a chord. The modes were made so that the ends are right and the way is
# short enough that the lid stays outside of the eye.
#
# ## 10. Exercises
#
# 1. *Easy.* Draw the "anti-person" of seed 12: all identity coefficients with the opposite sign. Is it as likely?
# 2. *Easy.* Blend: show the heads at 0, 25, 50, 75 and 100 % between seeds 12 and 7, and print their Mahalanobis
#    lengths. Why is the middle shorter than the ends?
# 3. *Medium.* Compute an age direction of your own: the mean identity of the population's oldest third minus that of
#    its youngest third. What is the cosine with the model's direction, and what else comes along?
# 4. *Hard.* Section 8 with 10, 25, 50 and more heads: how does the error on unseen heads fall with their number?

# %% [markdown]
# ## 11. Solutions
#
# **1.** It has the same length, so the same density: as likely as the person.

# %%
mirrored = fv.edit(person, identity=-person.params.identity)
show(*(fv.render(head, mode="clay", camera=frame).rgb for head in (person, mean_head, mirrored)))
print([f"{np.linalg.norm(head.params.identity):.2f}" for head in (person, mean_head, mirrored)])

# %% [markdown]
# **2.** Two random directions in 150 dimensions are nearly at right angles, so halfway between them the length is about
# $1 / \sqrt{2}$ of that of the ends: averages are more average than people.

# %%
shares = (0, 0.25, 0.5, 0.75, 1)
blends = [fv.edit(person, identity=(1 - t) * person.params.identity + t * other.params.identity) for t in shares]
show(*(fv.render(head, mode="clay", camera=small).rgb for head in blends))
along = [np.linalg.norm(head.params.identity) for head in blends]
print("lengths:", np.round(along, 1))
assert along[2] < 0.9 * min(along[0], along[-1])

# %% [markdown]
# **3.** The two have much in common, and are not the same: in a finite population old heads may also be heavier, or
# more often male, and a difference of means takes that along. The model's direction was made to leave the others where
# they are.

# %%
years = np.concatenate([population, np.ones((len(population), 1))], axis=1) @ age.estimator
low, high = np.quantile(years, (1 / 3, 2 / 3))
mine = identities[years > high].mean(0) - identities[years < low].mean(0)
mine *= 30 / (age.estimator[:N_id] @ mine)  # 30 years by shape
print(f"cosine: {mine @ age.step[:N_id] / np.linalg.norm(mine) / np.linalg.norm(age.step[:N_id]):.2f}")
before = model.attributes(person.params)
for label, change in (("mine", mine), ("model", age.step[:N_id] * 30 / (age.estimator[:N_id] @ age.step[:N_id]))):
    after = model.attributes(person.params.replace(identity=(person.params.identity + change).astype(np.float32)))
    print(f"{label:6s}", {name: f"{after[name] - before[name]:+.2f}" for name in ("age", "gender", "weight")})

# %% [markdown]
# **4.** The error falls slowly at first: each doubling of the heads adds directions that matter less. Then, with more
# than 150 heads, it is suddenly zero. That is no triumph: these heads come from a model with 150 modes, so 151 of them
# span everything it can make. Real people do not end at 150 directions; their curve goes on falling slowly.

# %%
pool = np.stack([model.random(2000 + seed).identity for seed in range(50 if FAST else 400)])
pool = 1000 * model.coarse.vertices(torch.from_numpy(pool)).numpy()
test = 1000 * model.coarse.vertices(torch.from_numpy(fresh)).numpy()
rows = model.coarse.regions["face"]
pool, test = pool[:, rows].reshape(len(pool), -1), test[:, rows].reshape(len(test), -1)
errors = []
for number in [n for n in (10, 25, 50, 100, 200, 400) if n <= len(pool)]:
    part = pool[:number]
    basis = np.linalg.svd(part - part.mean(0), full_matrices=False)[2][: number - 1]
    rest = test - part.mean(0)
    rest = rest - rest @ basis.T @ basis
    errors.append(np.linalg.norm(rest.reshape(len(test), -1, 3), axis=2).mean())
    print(f"{number:3d} heads, {number - 1:3d} components: {errors[-1]:.2f} mm")
assert all(more > less for more, less in zip(errors[:4], errors[1:4]))

# %% [markdown]
# Where to go next: [02_camera_light_render](02_camera_light_render.ipynb) turns a head into a picture, step by step.
