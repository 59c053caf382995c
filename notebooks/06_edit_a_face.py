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
# # 6. Edit a face
#
# [![Open in
# Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/)
#
# (In Colab run first, with the address of this repository: `!git clone ADDRESS faceverse` and
# `%pip install -q "./faceverse[notebooks]"`.)
#
# A fitted head is a handful of numbers, and some directions among them have a meaning: older, a wider nose, another
# light. `fv.edit` moves along them, by name. Here we use all of it on one photograph, and check that an edit does what
# it says and nothing else.
#
# **You will**
#
# 1. read the model's estimates of age and of many other attributes, and compute one by hand,
# 2. age a face, and see why an edit is a direction that can be undone,
# 3. change single parts within their limits, and check that the others stay,
# 4. ask for values instead of changes, and for expressions, light and skin,
# 5. mix two people, and let chance draw a part of a face.
#
# **You need** NumPy and scalar products. The notebook before is
# [05_expression_and_export](05_expression_and_export.ipynb).

# %% [markdown]
# ## 1. What the model says of a head
#
# `fv` is the library, and its `show` puts pictures side by side.

# %%
import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # more threads only wait for each other here

import matplotlib.pyplot as plt
import numpy as np
from skimage.data import astronaut

import faceverse as fv
from faceverse.viewer import show

FAST = os.environ.get("FACEVERSE_FAST") == "1"  # shorter loops, for the tests

# %% [markdown]
# We fit once (Eileen Collins; NASA, public domain), with the skin's detail, and edit what comes out. On the way to it:
# the photograph, the landmarks found, the fitted shape, the same with wrinkles and pores, the textured head.

# %%
model = fv.load_model()
photo = astronaut()
result = fv.fit(photo, model, detail=not FAST)
if FAST:
    result = fv.edit(result, detail_seed=1)  # the tests draw a skin, which is quicker than fitting hers
stages = fv.stage_pictures(photo, result, 200)
print(", ".join(stages))
show(*stages.values())

# %% [markdown]
# From other sides, and to turn by hand where the notebook's viewer can (elsewhere it is a picture):

# %%
show(fv.turntable(result, size=200))

# %%
fv.MeshViewer(result)

# %% [markdown]
# `model.attributes` estimates each attribute of a head. Some describe the whole person, the others are local: lengths
# in millimetres beyond what is usual for somebody of that age, sex, weight and ancestry. `fv.ATTRIBUTE_REGIONS` sorts
# them by the part of the face.

# %%
attributes = {attribute.name: attribute for attribute in model.data.attributes}
before = model.attributes(result.params)
for region, names in fv.ATTRIBUTE_REGIONS.items():
    print(f"{region:9s}", ", ".join(f"{name} {before[name]:+.1f}" for name in names))
print(f"{len(before)} attributes; units:", ", ".join(sorted({a.unit for a in attributes.values()})))

# %% [markdown]
# These are statements about a *shape and its colours*, made by a model that has seen artists' heads, not by a census.
# An age of 50 means: heads of the model that look like this one are 50 on average. For a real person it may be off by
# many years, and ancestry and sex as such cannot be read off a face at all. (Estimates know no limits: a share may come
# out below 0 or above 1.)
#
# ### 1.1 By hand
#
# Put the coefficients of identity and albedo of a head into one vector $\mathbf{x}$ (without unit). An attribute has an
# **estimator** $\mathbf{e}$, a vector of the same length, and a constant $e_0$ in the attribute's unit. The estimate is
#
# $$a(\mathbf{x}) = \mathbf{e} \cdot \mathbf{x} + e_0$$

# %%
x = np.concatenate([result.params.identity, result.params.albedo])
for name in ("age", "gender", "nose_width"):
    *e, e_0 = attributes[name].estimator
    print(f"{name:11s} by hand {np.dot(e, x) + e_0:7.3f}, by the model {before[name]:7.3f} ({attributes[name].unit})")
    assert np.isclose(np.dot(e, x) + e_0, before[name], atol=1e-3)

# %% [markdown]
# ## 2. Ageing, and what an edit is
#
# `age=+20` means: twenty years older *than the head is now*.

# %%
ages = [fv.edit(result, age=years) for years in ((-20, 0, 20) if FAST else (-20, -10, 0, 10, 20))]
show(*(fv.render(head, 220).rgb for head in ages))
show(*(fv.render(head, 220, "clay").rgb for head in ages))
print("estimates:", ", ".join(f"{model.attributes(head.params)['age']:.1f}" for head in ages))

# %% [markdown]
# What happened? Each attribute also has a **step** $\mathbf{s}$, the change of all coefficients for one unit. An edit
# by an amount $t$ (here in years) adds it $t$ times:
#
# $$\mathbf{x}' = \mathbf{x} + t \, \mathbf{s} \qquad\text{so}\qquad a(\mathbf{x}') = a(\mathbf{x}) + t \; \mathbf{e}
# \cdot \mathbf{s}$$
#
# and the step is made such that $\mathbf{e} \cdot \mathbf{s}$ is 1: twenty years more are estimated as twenty years
# more.

# %%
older = ages[-1]
x_older = np.concatenate([older.params.identity, older.params.albedo])
step = attributes["age"].step
print(f"e . s = {np.dot(attributes['age'].estimator[:-1], step):.4f}")
print(f"largest difference of x + 20 s from the edit: {np.abs(x + 20 * step - x_older).max():.6f}")
assert np.allclose(x + 20 * step, x_older, atol=1e-4)

# %% [markdown]
# From this follows all that one would wish for:
#
# * the head that was given stays as it is; an edit is a new head,
# * edits add up, and their order does not matter,
# * an edit is undone by the opposite edit.

# %%
there_and_back = fv.edit(older, age=-20)
one_way = fv.edit(fv.edit(result, nose_width=2), jaw_width=-4)
other_way = fv.edit(fv.edit(result, jaw_width=-4), nose_width=2)
at_once = fv.edit(result, nose_width=2, jaw_width=-4)
for words, (a, b) in {
    "there and back": (there_and_back, result), "two orders": (one_way, other_way), "at once": (one_way, at_once)
}.items():  # fmt: skip
    off_mm = 1000 * np.abs(a.neutral_vertices - b.neutral_vertices).max()
    print(f"{words:15s} {off_mm:.5f} mm apart")
    assert off_mm < 0.001
assert np.array_equal(np.concatenate([result.params.identity, result.params.albedo]), x)

# %% [markdown]
# (The texture is bytes, so it comes back to within rounding where it did not run into black or white.) Which places
# move, and how far? The further, the brighter.

# %%
moved_mm = 1000 * np.linalg.norm(older.neutral_vertices - result.neutral_vertices, axis=1)
front = np.isin(np.arange(len(moved_mm)), np.concatenate([model.regions[r] for r in ("face", "ears", "lips")]))
plt.figure(figsize=(4.2, 3.8), dpi=90)
plt.scatter(*(100 * result.neutral_vertices[front, :2].T), c=moved_mm[front], s=2)
plt.colorbar(label="mm moved by 20 years")
plt.axis("equal")
plt.xlabel("x in cm (her left)")
plt.ylabel("y in cm (up)")
plt.show()
print(
    f"median over the face {np.median(moved_mm[model.regions['face']]):.2f} mm, at most {moved_mm[front].max():.1f} mm"
)

# %% [markdown]
# ### 2.1 Limits
#
# Nobody is 150. Each attribute has a range; `fv.attribute_limits` says how far *this* head can go, and what goes beyond
# is reduced, with a warning in words.

# %%
limits = fv.attribute_limits(result)
for name in ("age", "gender", "weight", "nose_width", "ear_size"):
    print(f"{name:12s}{limits[name][0]:+8.2f} ... {limits[name][1]:+8.2f}  {attributes[name].unit}")
extreme = fv.edit(result, age=100)
print(extreme.warnings[-1])
assert np.isclose(model.attributes(extreme.params)["age"], attributes["age"].maximum, atol=0.1)

# %% [markdown]
# ## 3. Single parts, and what must not change
#
# A wider nose should not make anybody older. The steps were built so that each changes *its* estimate by one unit and
# those of the others by nothing: $\mathbf{e}_i \cdot \mathbf{s}_j = 0$ for $i \neq j$. Let us make a few edits and
# look at all estimates. To compare years with millimetres, each change is divided by the attribute's range.

# %%
edits = {"age": 15, "gender": 0.5, "weight": 0.5, "forehead_height": 5, "eye_spacing": 4, "nose_width": 4}
edits |= {"cheek_fullness": 3, "upper_lip_fullness": 2, "mouth_width": 6, "jaw_width": 8, "chin_width": 5}
edits |= {"ear_size": 6, "neck_width": 10}
edits = dict(list(edits.items())[: 4 if FAST else None])
table = []
for name, amount in edits.items():
    after = model.attributes(fv.edit(result, **{name: amount}).params)
    table.append([(after[key] - before[key]) / (a.maximum - a.minimum) for key, a in attributes.items()])
table = np.array(table)

# %%
plt.figure(figsize=(9, 3.8), dpi=90)
plt.imshow(table, cmap="RdBu_r", vmin=-0.4, vmax=0.4, aspect="auto")
plt.xticks(range(len(attributes)), attributes, rotation=90, fontsize=7)
plt.yticks(range(len(edits)), edits, fontsize=8)
plt.ylabel("edited")
plt.colorbar(label="change / range")
plt.tight_layout()
plt.show()
own = [list(attributes).index(name) for name in edits]
others = table.copy()
others[np.arange(len(own)), own] = 0
print(f"largest unwanted change: {100 * np.abs(others).max():.3f} % of its range")
assert np.abs(others).max() < 0.01

# %% [markdown]
# One kind is an exception by its nature: `african`, `asian` and `caucasian` are *shares* that add up to one, so that
# more of one is less of the others.

# %%
shares = ("african", "asian", "caucasian")
after = model.attributes(fv.edit(result, asian=0.2).params)
for name in shares:
    print(f"{name:10s}{before[name]:+.2f} -> {after[name]:+.2f}")
assert abs(sum(after[name] - before[name] for name in shares)) < 0.01

# %% [markdown]
# Now look. In each row an attribute goes from its lower limit over the fitted head to its upper limit, on the neutral
# face from two sides.

# %%
neutral = fv.edit(result, expression="neutral")
for name in ("nose_protrusion", "jaw_width", "forehead_height"):
    row = []
    for amount in (limits[name][0], 0, limits[name][1]):
        head = fv.edit(neutral, **{name: amount})
        row += [fv.render(head, 180, "clay", rotation=(yaw, 0, 0)).rgb for yaw in ((0,) if FAST else (0, 60))]
    print(f"{name}: {limits[name][0]:+.1f} ... {limits[name][1]:+.1f} {attributes[name].unit}")
    show(*row)

# %% [markdown]
# Local parts are local: where does each of three edits move the skin?

# %%
figure, axes = plt.subplots(1, 3, figsize=(8, 3), dpi=90, layout="constrained", sharey=True)
for axis, (name, amount) in zip(axes, {"nose_width": 4, "jaw_width": 8, "mouth_width": 6}.items()):
    head = fv.edit(result, **{name: amount})
    moved_mm = 1000 * np.linalg.norm(head.neutral_vertices - result.neutral_vertices, axis=1)
    picture = axis.scatter(*(100 * result.neutral_vertices[front, :2].T), c=moved_mm[front], s=1, vmin=0, vmax=4)
    axis.set(title=f"{name} {amount:+d} mm", aspect="equal", xlabel="x in cm")
axes[0].set_ylabel("y in cm")
figure.colorbar(picture, ax=axes, label="mm", extend="max")
plt.show()

# %% [markdown]
# ## 4. Values to reach
#
# `age_years` and `targets` name where to go, not how far. That makes different people comparable: here she and two
# random people, all at 25 and at 70.

# %%
seeds = (8,) if FAST else (3, 8)
people = [neutral, *(fv.edit(fv.head(model.random(seed), model), detail_seed=seed) for seed in seeds)]
for years in (25, 70):
    heads = [fv.edit(person, age_years=years) for person in people]
    print(years, "->", ", ".join(f"{model.attributes(head.params)['age']:.1f}" for head in heads))
    show(*(fv.render(head, 240).rgb for head in heads))
    assert all(abs(model.attributes(head.params)["age"] - years) < 0.5 for head in heads)

# %% [markdown]
# Changes and targets go together, but not for the same attribute. What cannot be meant is refused in a sentence:

# %%
wanted = {"gender": -0.8, "nose_width": 0.0, "jaw_width": 2.0}
shaped = fv.edit(result, targets=wanted, age=-10)
reached = model.attributes(shaped.params)
print({name: round(reached[name], 2) for name in (*wanted, "age")})
assert all(abs(reached[name] - value) < 0.05 for name, value in wanted.items())
for wrong in ({"age": 5, "age_years": 60}, {"nose_with": 2}, {"targets": {"gender": "male"}}):
    try:
        fv.edit(result, **wrong)
    except fv.ParameterError as error:
        print(f"{wrong}: {error}")

# %% [markdown]
# `gender` is a scale from feminine to masculine heads; there are people everywhere on it.

# %%
values = (-1.2, 1.2) if FAST else (-1.2, -0.6, 0.0, 0.6, 1.2)
row = [fv.edit(neutral, targets={"gender": value}) for value in values]
show(*(fv.render(head, 200).rgb for head in row))
moved_mm = 1000 * np.linalg.norm(row[-1].neutral_vertices - row[0].neutral_vertices, axis=1)[model.regions["face"]]
print(f"from one end to the other the face moves by {np.median(moved_mm):.1f} mm (median)")

# %% [markdown]
# ## 5. Expression, light, skin
#
# ### 5.1 Expressions by name, mixed
#
# A preset replaces the present expression; a mapping mixes presets, and single shapes beside them win. (Her 52 weights
# are in [05_expression_and_export](05_expression_and_export.ipynb).)

# %%
moods = [{"anger": 0.7, "eyeBlinkLeft": 1.0}, {"surprise": 0.5, "laugh": 0.5}, "sadness", "surprise", "smile"]
moods = moods[: 2 if FAST else None]
show(*(fv.render(fv.edit(result, expression=mood), 200).rgb for mood in moods))
print("presets:", ", ".join(fv.EXPRESSION_PRESETS))

# %% [markdown]
# Expression and person are different coefficients. So neither edit touches the other:

# %%
laughing = fv.edit(result, expression="laugh")
assert np.array_equal(laughing.params.identity, result.params.identity)
assert np.array_equal(older.params.expression, result.params.expression)
assert model.attributes(laughing.params) == before
print("a laugh changes none of the", len(before), "estimates")

# %% [markdown]
# ### 5.2 Light
#
# The fit divided the photograph's light out of the texture. So the head can be lit anew: a lamp in a dim room, from a
# direction in degrees (+yaw from her left, which is the right of the picture; +pitch from above), with a warmth from -1
# (blue sky) to 1 (candle), and an intensity: 1 is about as bright as a studio.

# %%
lamps = [{"yaw": -80}, {"pitch": 75}, {"yaw": 60, "pitch": 20, "warmth": 1}, {"pitch": -60, "warmth": -0.8}]
lit = [fv.edit(result, light=lamp | {"intensity": 1.5}) for lamp in lamps]
show(*(fv.render(head, 220).rgb for head in (result, *lit)))
assert all(np.array_equal(head.vertices, result.vertices) for head in lit)
assert all(np.array_equal(head.texture, result.texture) for head in lit)

# %% [markdown]
# ### 5.3 Skin
#
# `detail` is the strength of wrinkles and pores: 0 smooth, 1 as fitted, up to 3. `detail_seed` gives the head
# another sampled detail, of her own age; each seed another.

# %%
smoother = [fv.edit(result, detail=strength) for strength in (0, 1, 2)]
skins = [fv.edit(result, detail_seed=seed) for seed in ((1,) if FAST else (1, 2))]
camera = result.camera.cropped((160, 70, 280, 190), (300, 300))
show(*(fv.render(head, mode="clay", camera=camera).rgb for head in smoother))
show(*(fv.render(head, mode="clay", camera=camera).rgb for head in (smoother[1], *skins)))
displacement = [head.displacement.std() for head in smoother]
print("displacement (rms), in micrometres:", ", ".join(f"{1000 * value:.0f}" for value in displacement))
assert displacement[0] == 0 and np.isclose(displacement[2], 2 * displacement[1], rtol=0.01)
assert all(np.array_equal(head.vertices, result.vertices) for head in (*smoother, *skins))

# %% [markdown]
# The skin ages with the head: creases become deeper, at the places where she has them.

# %%
aged = [fv.edit(result, age_years=years) for years in ((30, 75) if FAST else (30, 50, 75))]
show(*(fv.render(head, mode="clay", camera=camera).rgb for head in aged))

# %% [markdown]
# ## 6. Two people, and chance
#
# ### 6.1 Blends
#
# `fv.blend` makes a head between two: with a share $t$ of the second one, coefficients are $(1 - t) \, \mathbf{x}_1 + t
# \, \mathbf{x}_2$ (indices: first and second person). Identity, expression, albedo and detail each have their own
# share. First all of them together:

# %%
other_person = people[-1]
shares = (0, 0.5, 1) if FAST else (0, 0.25, 0.5, 0.75, 1)
line = [fv.blend(neutral, other_person, identity=t, expression=t, albedo=t, detail=t) for t in shares]
show(*(fv.render(head, 200).rgb for head in line))
middle, mean = line[len(line) // 2], (neutral.neutral_vertices + other_person.neutral_vertices) / 2
print(f"the middle one is the mean of the ends, to {1000 * np.abs(middle.neutral_vertices - mean).max():.5f} mm")
assert np.allclose(middle.neutral_vertices, mean, atol=1e-6)

# %% [markdown]
# (Hair is painted on the skin, not modelled. So it fades like a double exposure.) And apart: her, her shape with the
# other's skin colour, the other's shape with hers, the other.

# %%
mixtures = [
    fv.blend(neutral, other_person, identity=identity, expression=0, albedo=albedo, detail=albedo)
    for identity, albedo in ((0, 0), (0, 1), (1, 0), (1, 1))
]
show(*(fv.render(head, 240).rgb for head in mixtures))
assert np.array_equal(mixtures[1].params.identity, neutral.params.identity)
assert np.array_equal(mixtures[1].params.albedo, other_person.params.albedo)

# %% [markdown]
# Estimates are linear, so those of a blend lie between those of the two, in proportion:

# %%
ends = [model.attributes(head.params) for head in (line[0], line[-1])]
for t, head in zip(shares, line):
    age = model.attributes(head.params)["age"]
    assert np.isclose(age, (1 - t) * ends[0]["age"] + t * ends[1]["age"], atol=0.05)
    print(f"share {t:.2f}: age {age:.1f}")

# %% [markdown]
# ### 6.2 Chance, part by part
#
# `fv.randomize` draws attributes as the people behind the model differ; a part is drawn to suit the parts that stay.
# Here the same head (left) with three noses, three jaws, and three whole faces that keep age and gender. A `strength`
# above 1 goes to the ends of the population.

# %%
for arguments in ({"region": "nose"}, {"region": "jaw"}, {"keep": ("age", "gender")}):
    heads = [fv.randomize(neutral, seed, strength=1.5, **arguments) for seed in ((1,) if FAST else (1, 2, 3))]
    print(arguments)
    show(*(fv.render(head, 220, "clay", rotation=(40, 0, 0)).rgb[:190] for head in (neutral, *heads)))

# %% [markdown]
# With `region="nose"` all estimates of other regions stay. And the same seed gives the same face.

# %%
other_nose = fv.randomize(result, 1, region="nose")
after = model.attributes(other_nose.params)
for name, a in attributes.items():
    share = abs(after[name] - before[name]) / (a.maximum - a.minimum)
    if name in fv.ATTRIBUTE_REGIONS["nose"]:
        print(f"{name:19s}{before[name]:+.2f} -> {after[name]:+.2f} {a.unit}")
    else:
        assert share < 0.01
same = fv.randomize(result, 1, region="nose")
assert np.array_equal(same.params.identity, other_nose.params.identity)

# %% [markdown]
# What chance would do can be read before it is done:

# %%
amounts = fv.random_attributes(result, 5, region=("mouth", "eyes"), strength=0.5)
print({name: round(amount, 2) for name, amount in amounts.items()})

# %% [markdown]
# ## 7. Exercises
#
# 1. Make her ten years younger, laughing, in the light of a candle from her right, in one call.
# 2. Halve her detail, then double it. Is it what it was? What if you set it to 0 in between?
# 3. How different are random people? Draw the distribution of the estimates of age and nose width over many random
#    heads, and mark her.
# 4. Make an *average twin*: her head with all local attributes at 0 (usual for somebody of her age, sex, weight and
#    ancestry). How far is she from it?
# 5. Invent an attribute: the direction from the mean of ten broad-jawed random heads to the mean of ten narrow-jawed
#    ones. Apply it by `identity=...`. What else than the jaw changes, and why is that so?

# %% [markdown]
# ## 8. Solutions
#
# **1.** Everything that `fv.edit` changes goes into one call. Her right is the picture's left, so the lamp has a
# negative yaw.

# %%
evening = fv.edit(result, age=-10, expression="laugh", light={"yaw": -50, "pitch": 15, "warmth": 1.0})
show(*(fv.render(head, 300).rgb for head in (result, evening)))

# %% [markdown]
# **2.** `detail` is not a change but a value: 0.5 is half of what was fitted, whatever it is at present. So 1 brings
# everything back, also from 0.

# %%
half = fv.edit(result, detail=0.5)
for words, head in {"0.5, then 1": half, "0, then 1": fv.edit(result, detail=0)}.items():
    back = fv.edit(head, detail=1)
    print(f"{words}: {1000 * np.abs(back.displacement - result.displacement).max():.3f} µm apart")
    assert np.allclose(back.displacement, result.displacement, atol=1e-3)
double = fv.edit(half, detail=2)
print(f"0.5, then 2: {double.displacement.std() / result.displacement.std():.2f} times the displacement")

# %% [markdown]
# **3.** `model.random` gives parameters, which is all that `model.attributes` needs.

# %%
some = [model.attributes(model.random(seed)) for seed in range(100 if FAST else 1000)]
figure, axes = plt.subplots(1, 2, figsize=(8, 2.8), dpi=90, layout="constrained")
for axis, name in zip(axes, ("age", "nose_width")):
    values = np.array([person[name] for person in some])
    axis.hist(values, 25, color="lightsteelblue")
    axis.axvline(before[name], color="red", label="she")
    axis.set(xlabel=f"{name} in {attributes[name].unit}", ylabel="random heads")
    axis.legend(fontsize=8)
    print(f"{name}: mean {values.mean():.1f}, standard deviation {values.std():.1f}; she {before[name]:.1f}")
plt.show()

# %% [markdown]
# **4.** All regions but "person".

# %%
local = [name for region, names in fv.ATTRIBUTE_REGIONS.items() if region != "person" for name in names]
twin = fv.edit(neutral, targets=dict.fromkeys(local, 0.0))
after = model.attributes(twin.params)
print("largest local estimate left:", f"{max(abs(after[name]) for name in local):.3f}")
away_mm = 1000 * np.linalg.norm(twin.neutral_vertices - neutral.neutral_vertices, axis=1)[model.regions["face"]]
print(f"her face is {np.median(away_mm):.1f} mm away from it (median)")
yaws = (0,) if FAST else (0, 50)
show(*(fv.render(head, 220, "clay", rotation=(yaw, 0, 0)).rgb for yaw in yaws for head in (neutral, twin)))
assert max(abs(after[name]) for name in local) < 0.1

# %% [markdown]
# **5.** The broad-jawed of chance differ in other things, too, because ten people are few and because in a population
# features go together. The library's steps are made to leave the other estimates alone; this one is not.

# %%
drawn = sorted((model.random(seed) for seed in range(60)), key=lambda person: model.attributes(person)["jaw_width"])
narrow, broad = (np.mean([person.identity for person in group], axis=0) for group in (drawn[:10], drawn[-10:]))
changed = fv.edit(neutral, identity=neutral.params.identity + 0.5 * (broad - narrow))
after = model.attributes(changed.params)
shift = {name: (after[name] - before[name]) / (a.maximum - a.minimum) for name, a in attributes.items()}
for name in sorted(shift, key=lambda name: -abs(shift[name]))[:5]:
    print(f"{name:20s}{100 * shift[name]:+5.1f} % of its range")
show(*(fv.render(head, 220, "clay").rgb for head in (neutral, changed)))
assert sum(abs(value) > 0.02 for value in shift.values()) > 3

# %% [markdown]
# Where to go next: [07_evaluate](07_evaluate.ipynb) measures how good a fit is.
