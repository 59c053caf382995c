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
# # 4. The detail module: maps, StyleGAN2 and skin
#
# [![Open in
# Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/)
#
# (In Colab run first, with the address of this repository: `!git clone ADDRESS faceverse` and
# `%pip install -q "./faceverse[notebooks]"`.)
#
# A linear face model has no wrinkles: an average of many faces is smooth, and so are the directions in which they
# differ. FaceVerse adds what is missing in *texture space*, where the skin is a flat picture and networks for
# pictures can draw on it. This notebook takes that network apart.
#
# **You will**
#
# 1. flatten a head into maps of albedo and shape, and read the mesh back from them,
# 2. compute the layers of a StyleGAN2 by hand and compare them with the library's,
# 3. see what the random vector, the noise and the head itself decide about the skin,
# 4. make skin stronger and weaker, swap it between two heads, and wrinkle it with an expression,
# 5. find the random vector behind a given skin, and train a tiny generator yourself.
#
# **You need** NumPy, a little PyTorch (tensors and gradients), and what a convolution is. Notebook
# [01_base_model](01_base_model.ipynb) explains the mesh, and [03_fitting_losses](03_fitting_losses.ipynb) gradient
# descent. No GPU.

# %% [markdown]
# ## 1. Set-up
#
# `show` puts pictures side by side; `show_maps` draws square arrays of numbers with a scale of colours.

# %%
import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # more threads only wait for each other here

import tempfile

import matplotlib.pyplot as plt
import matplotlib_inline.backend_inline
import numpy as np
import torch
import torch.nn.functional as F

import faceverse as fv
from faceverse.viewer import show

FAST = os.environ.get("FACEVERSE_FAST") == "1"  # shorter loops, for the tests
matplotlib_inline.backend_inline.set_matplotlib_formats("jpeg", pil_kwargs={"quality": 85})

# %%
def show_maps(maps, limit, unit, colours="RdBu_r"):
    """Named square arrays side by side, drawn from -limit to limit (with other colours: from 0)."""
    low = -limit if colours == "RdBu_r" else 0
    size = (8.4, min(3.6, 0.4 + 7.4 / len(maps)))
    figure, axes = plt.subplots(1, len(maps), figsize=size, dpi=90, squeeze=False, layout="constrained")
    for axis, (name, values) in zip(axes[0], maps.items()):
        drawn = axis.imshow(values, colours, vmin=low, vmax=limit)
        axis.set_title(name, fontsize=9)
        axis.axis("off")
    figure.colorbar(drawn, ax=axes[0].tolist(), label=unit, shrink=0.8)
    plt.show()

# %% [markdown]
# Two people who do not exist: an older man and a younger woman, by the model's own estimate of age (years) and gender
# (negative: female).

# %%
model, module = fv.load_model(), fv.load_detail()
man = fv.edit(fv.head(model.random(9), model), targets={"age": 65, "gender": 0.9})
woman = fv.edit(fv.head(model.random(7), model), targets={"age": 28, "gender": -0.9})
for name, person in (("man", man), ("woman", woman)):
    about = model.attributes(person.params)
    print(f"{name:6s} age {about['age']:.0f}, gender {about['gender']:+.2f}")
show(*(fv.render(person, 320, mode).rgb for person in (man, woman) for mode in ("color", "clay")))

# %% [markdown]
# ## 2. From a mesh to maps
#
# ### 2.1 Every vertex has a place in a square
#
# The head's surface is cut open and laid flat. Each vertex gets two numbers $(u, v)$ between 0 and 1: $u$ from left to
# right, $v$ from top to bottom of a square picture. Its pixels are called **texels**. Texel (row $i$, column $j$) of a
# map with $S \times S$ texels has its centre at
#
# $$u = \frac{j + 1/2}{S}, \qquad v = \frac{i + 1/2}{S}.$$
#
# Where is the tip of the nose? The white cross is the vertex that reaches furthest forward.

# %%
S = 512
nose = int(model.mean_vertices[:, 2].argmax())
u, v = model.uv[nose]
plt.figure(figsize=(3.6, 3.6), dpi=90)
plt.imshow(man.texture, extent=(0, 1, 1, 0))
plt.plot(u, v, "w+", markersize=12)
plt.xlabel("u")
plt.ylabel("v")
plt.show()
print(f"the tip of the nose lies at u = {u:.3f}, v = {v:.3f}: row {v * S - 0.5:.1f}, column {u * S - 0.5:.1f}")

# %% [markdown]
# ### 2.2 Painting a map
#
# A texel lies in one flattened triangle with corners $a, b, c$. Its *barycentric weights* $\lambda_a + \lambda_b +
# \lambda_c = 1$ say how close it is to each corner, and any value $x$ that vertices have (a colour, a position) is
# there
#
# $$x(i, j) = \lambda_a x_a + \lambda_b x_b + \lambda_c x_c .$$
#
# `uv_fragments` finds triangle and weights of all texels, `bake_vertices` paints. We paint one texel by hand.

# %%
from faceverse.model.texture_maps import bake_vertices, uv_fragments

fragments = uv_fragments(model, S)
row, column = round(v * S - 0.5), round(u * S - 0.5)
corners = model.faces[fragments.triangle[row, column]]
weights = fragments.barycentric[row, column]
albedo_map = bake_vertices(model, man.albedo, S)
print("corners", corners, "weights", weights.round(2), "albedo", (weights @ man.albedo[corners]).round(3))
assert np.allclose(weights @ man.albedo[corners], albedo_map[row, column], atol=1e-5)

# %% [markdown]
# Two such maps describe a head completely: its **albedo map** (how much red, green and blue light the skin reflects,
# 0 to 1) and its **geometry map**, in which the three colours are the coordinates $x, y, z$ of the surface.

# %%
from faceverse.detail.displacement import position_map
from faceverse.graphics.lighting import srgb_from_linear

geometry_map = position_map(model, man.neutral_vertices, S)
low, high = man.neutral_vertices.min(0), man.neutral_vertices.max(0)
as_colours = (geometry_map - low) / (high - low)
albedo_srgb = srgb_from_linear(torch.from_numpy(albedo_map.clip(0, 1))).numpy()
show(*(np.uint8(255 * picture.clip(0, 1))[::2, ::2] for picture in (albedo_srgb, as_colours)))

# %% [markdown]
# The way back: look the map up at the vertices' $(u, v)$. What comes out is the mesh, to a fraction of a millimetre.

# %%
from faceverse.detail.displacement import vertex_values

read_back = vertex_values(model, geometry_map)
error_mm = 1000 * np.linalg.norm(read_back - man.neutral_vertices, axis=1)[model.regions["face"]]
print(f"face vertices read back from a map of {S} texels: median error {np.median(error_mm):.3f} mm")
assert np.median(error_mm) < 0.2

# %% [markdown]
# ### 2.3 Displacement
#
# The generators of the FaceVerse paper draw a finer geometry map. The open ones of this library draw what is *added*
# to it: a displacement $d$ in millimetres along the surface's unit normal $\mathbf n$, so that a surface point
# $\mathbf p$ (metres) moves to
#
# $$\mathbf p' = \mathbf p + \frac{d}{1000}\,\mathbf n .$$
#
# Valleys are negative. A displacement is the sum of three **bands**: coarse creases, medium lines, fine pores.

# %%
from faceverse.detail.displacement import split_bands

skinned = fv.edit(man, detail_seed=1)
bands = split_bands(skinned.displacement)
face = (slice(50, 440), slice(60, 452))  # the rows and columns that show the face
names = ("displacement", "coarse", "medium", "fine")
show_maps({name: d[face] for name, d in zip(names, (skinned.displacement, *bands))}, 0.12, "mm")
assert np.allclose(bands.sum(0), skinned.displacement, atol=1e-5)

# %%
SIZE = 360 if FAST else 720
face_px = (slice(SIZE * 13 // 72, SIZE * 3 // 4), slice(SIZE * 19 // 72, SIZE * 53 // 72))  # the face in a picture
show(*(fv.render(person, SIZE, "clay").rgb[face_px] for person in (man, skinned)))
print(f"deepest valley {skinned.displacement.min():.2f} mm, highest point {skinned.displacement.max():.2f} mm")

# %% [markdown]
# A fraction of a millimetre is little, and yet it makes the difference between wax and skin: we see slopes,
# not heights.
#
# ## 3. The generator, layer by layer
#
# `module.detail` is a *conditional StyleGAN2*. A random vector $\mathbf z$ (D numbers, normally distributed) and maps
# of the head, the **condition**, go in; a picture with six channels comes out: three say how the logarithm of the
# albedo changes, three are the bands of the displacement. It starts from a learned picture of 4 x 4 texels and doubles
# it until S x S.

# %%
generator = module.detail.eval()
D, L = generator.style_dim, generator.latent_count
print(f"D = {D} random numbers, pictures of {generator.size} texels, condition of {generator.condition_size} texels")
print("channels by resolution:", generator.channels)
print(f"{sum(p.numel() for p in generator.parameters()) / 1e6:.1f} million weights")

# %% [markdown]
# ### 3.1 Mapping network
#
# A few fully connected layers turn $\mathbf z$ into a **latent** $\mathbf w$ of the same length. First the vector is
# scaled to a mean square of 1; then each layer computes, with its stored weights $W$ (D x D) and bias $\mathbf b$,
#
# $$\mathbf h \leftarrow \sqrt 2 \; \mathrm{lrelu}\!\left(\frac{r}{\sqrt D} W \mathbf h + r\,\mathbf b\right), \qquad
# \mathrm{lrelu}(x) = \max(x, 0.2\,x).$$
#
# $\mathbf h$ is the vector on its way, and $r$ a small number that slows this network's learning down. All synthesis
# layers (there are L uses of it) get the same $\mathbf w$, but in a fit each may have its own.

# %%
z = torch.randn(1, D, generator=torch.Generator().manual_seed(0))
h = z / z.square().mean(1, keepdim=True).sqrt()
for layer in list(generator.style)[1:]:
    h = (layer.weight * layer.rate / np.sqrt(D)) @ h[0] + layer.rate * layer.bias
    h = np.sqrt(2) * torch.maximum(h, 0.2 * h)[None]
latents = generator.mapping(z)
print("latents", tuple(latents.shape), "; largest difference", f"{(h - latents[:, 0]).abs().max():.1e}")
assert latents.shape == (1, L, D) and torch.allclose(h, latents[:, 0], atol=1e-4)

# %% [markdown]
# ### 3.2 Modulation and demodulation
#
# How does a vector steer a convolution? It scales the convolution's inputs. Take a layer with $I$ input and $O$ output
# channels and weights $\mathsf w_{oikl}$ (output $o$, input $i$, row $k$ and column $l$ of a 3 x 3 window):
#
# 1. a linear layer makes a **style** $s_i$ of $\mathbf w$, one number per input channel;
# 2. **modulation**: $\mathsf w'_{oikl} = s_i\,\mathsf w_{oikl}$;
# 3. **demodulation**: divide by the size that an output channel would get from inputs of unit variance,
#
# $$\mathsf w''_{oikl} = \frac{\mathsf w'_{oikl}}{\sqrt{\sum_{i,k,l} \mathsf w'^{\,2}_{oikl} + \epsilon}} ,$$
#
# where $\epsilon$ is tiny and keeps us from dividing by zero. Without step 3 large styles would make large pictures,
# layer after layer. Here with $I = 3$, $O = 2$ and a latent of 4 numbers:

# %%
from faceverse.detail.stylegan_layers import ModulatedConv

torch.manual_seed(0)
layer = ModulatedConv(inputs=3, outputs=2, style_dim=4)
maps, small_w = torch.randn(1, 3, 6, 6), torch.randn(1, 4)
with torch.no_grad():
    style = layer.modulation(small_w)[0]
    modulated = layer.scale * style[None, :, None, None] * layer.weight[0]
    size = (modulated.square().sum((1, 2, 3)) + 1e-8).sqrt()
    by_hand = F.conv2d(maps, modulated / size[:, None, None, None], padding=1)
    of_layer = layer(maps, small_w)
print("styles", style.numpy().round(2), "; largest difference", f"{(by_hand - of_layer).abs().max():.1e}")
assert torch.allclose(by_hand, of_layer, atol=1e-5)

# %% [markdown]
# What demodulation is for: multiply all styles by 10. The plain convolution grows tenfold, the layer's answer stays.

# %%
with torch.no_grad():
    tenfold = 10 * modulated
    plain = F.conv2d(maps, tenfold, padding=1).std()
    size = tenfold.square().sum((1, 2, 3)).sqrt()
    normed = F.conv2d(maps, tenfold / size[:, None, None, None], padding=1).std()
    print(f"deviation of the output: modulated only {plain:.2f}, demodulated {normed:.2f}, before {by_hand.std():.2f}")
assert abs(float(normed / by_hand.std()) - 1) < 1e-3 < float(plain / by_hand.std())

# %% [markdown]
# ### 3.3 Noise
#
# Pores need randomness at every texel, and a vector of D numbers cannot hold it. So each layer adds a map $\mathbf n$
# of independent normal numbers, the same one to all its channels $c$, times one learned weight $\gamma$:
# $x_{c}(i, j) \leftarrow x_{c}(i, j) + \gamma\, n(i, j)$. Which layers use it? The weights say: hardly any below 64
# texels.

# %%
weights = [float(generator.conv1.noise.weight)] + [float(conv.noise.weight) for conv in generator.convs]
plt.figure(figsize=(6, 3), dpi=90)
plt.bar(range(len(weights)), np.abs(weights))
plt.xticks(range(len(weights)), generator.noise_sizes, fontsize=8)
plt.xlabel("layer, by the side of its maps in texels")
plt.ylabel(r"size of $\gamma$ (no unit)")
plt.tight_layout()
plt.show()
coarse = max(abs(w) for w, side in zip(weights, generator.noise_sizes) if side < 64)
assert coarse < 0.5 * max(np.abs(weights))

# %% [markdown]
# ### 3.4 Upsampling
#
# To double a map, insert a zero after each number and blur with the binomial filter $(1, 3, 3, 1)$ in both directions.
# Each tap is divided by 4 (not by 8, the sum of the taps), because half of the numbers in a row are zeros.

# %%
from faceverse.detail.stylegan_layers import Upsample

small = torch.randn(1, 1, 6, 6)
stuffed = torch.zeros(1, 1, 12, 12)
stuffed[..., ::2, ::2] = small
taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
by_hand = F.conv2d(F.pad(stuffed, (2, 1, 2, 1)), (taps[:, None] * taps)[None, None])
of_layer = Upsample()(small)
assert torch.allclose(by_hand, of_layer, atol=1e-5)
show_maps({"6 x 6": small[0, 0], "zeros inserted": stuffed[0, 0], "doubled": of_layer[0, 0]}, 2.5, "no unit")

# %% [markdown]
# ### 3.5 All of it
#
# After each doubling the layer's maps are reduced to six channels and *added* to the doubled picture. So the generator
# can be stopped early; coarse creases are there first, pores come last.

# %%
from faceverse.detail.displacement import condition_maps
from faceverse.detail.latents import read_picture

condition = torch.from_numpy(condition_maps(model, man.params, generator.condition_size))[None]
w = torch.from_numpy(skinned.params.detail["w"])[None]
noise = generator.make_noise(1)
growing = {}
with torch.no_grad():
    for side in (32, 64, 128, 512):
        picture = generator.synthesis(w, condition, noise, until=side)
        growing[side] = read_picture(module.code, picture)[1][0].numpy()
crops = {side: d[side // 10 : side * 17 // 20, side // 8 : side * 7 // 8] for side, d in growing.items()}
show_maps({f"{side} texels": d for side, d in crops.items()}, 0.12, "mm")

# %% [markdown]
# This is exactly the head's displacement, but for a mask that takes it off eyes, teeth and the edges of the charts:

# %%
from faceverse.detail.displacement import displacement_weight

masked = growing[512] * displacement_weight(model, S)
print(f"largest difference {np.abs(masked - skinned.displacement).max():.1e} mm")
assert np.allclose(masked, skinned.displacement, atol=1e-4)

# %% [markdown]
# ## 4. What the shipped generators learned from
#
# **Drawings.** The paper trained on scans of people; those may not be passed on, and no photograph and no scan went
# into the open files. `faceverse.training.synthetic_skin` draws skin on random heads: creases, pores,
# freckles, stubble, with strengths by age and sex that were set by hand. So the wrinkles here look plausible, but
# nothing about them was measured on people. `weights/README.md` states it with all limits.
#
# The advantage of drawings: the first numbers of $\mathbf z$ have names, because they are the parameters of the drawing
# program.

# %%
print(len(module.code.factors), "named numbers:", ", ".join(module.code.factors[:12]), "...")

# %% [markdown]
# The same $\mathbf z$, drawn by the program (left) and made by the generator (right). The deep wrinkles lie where the
# drawing has them. The fine lines of the forehead and beside the eyes are softer or missing: an hour of training
# on one core learned what most drawings have in common, and less of what sets one apart.

# %%
from faceverse.training.synthetic_skin import DetailSurface, random_z, synthetic_detail

z_man = random_z(np.random.default_rng(5), age_years=65, masculinity=1.0)
drawn = synthetic_detail(DetailSurface.of(model, S), z_man, seed=0).displacement
with torch.no_grad():
    z = torch.from_numpy(z_man)[None]
    made = read_picture(module.code, generator(z, condition, noise)[0])[1][0].numpy() * displacement_weight(model, S)
show_maps({"drawn": drawn[face], "generated": made[face]}, 0.2, "mm")
alike = np.corrcoef(split_bands(drawn)[0].ravel(), split_bands(made)[0].ravel())[0, 1]
print(f"correlation of the coarse bands {alike:.2f}")
assert alike > 0.3

# %% [markdown]
# ## 5. Three inputs: z, noise, condition
#
# ### 5.1 The same z with other noise, the same noise with another z
#
# The same head throughout. Upper row: one $\mathbf z$ (a skin of 70 years), three noises. Lower row: one noise and
# three $\mathbf z$, of 25, 40 and 55 years. A part of the forehead and the eyes.

# %%
years = (70, 25, 40, 55)
vectors = np.stack([random_z(np.random.default_rng(k), age, masculinity=1.0) for k, age in enumerate(years)])
vectors = torch.from_numpy(vectors)
noises = [generator.make_noise(seed) for seed in range(4)]
with torch.no_grad():
    features = generator.encode(condition)
    grid = [[generator.synthesis(generator.mapping(v[None]), features, n)[0, 3:] for n in noises] for v in vectors]
scale = torch.tensor(module.code.band_scales_mm)[:, None, None]
pictures = torch.stack([torch.stack(line) for line in grid]) * scale * torch.from_numpy(displacement_weight(model, S))
crop = (slice(110, 270), slice(170, 330))
displacement = pictures.sum(2).numpy()
show_maps({f"70 years, noise {k}": displacement[0, k][crop] for k in range(3)}, 0.15, "mm")
show_maps({f"{years[k]} years, noise 0": displacement[k, 0][crop] for k in (1, 2, 3)}, 0.15, "mm")

# %% [markdown]
# In numbers: write $d_{ab}$ for the displacement (one band, one texel) made from vector $a$ and noise $b$. Its variance
# over all 4 x 4 pictures (six of them are shown) splits in two,
#
# $$\mathrm{Var}(d) = \mathrm{Var}_a\big(\mathrm{E}_b[d_{ab}]\big) + \mathrm{E}_a\big[\mathrm{Var}_b(d_{ab})\big],$$
#
# the first part due to $\mathbf z$, the second to noise. (E is the mean over the index below it, Var the variance.)

# %%
due_to_z = pictures.mean(1).var(0, unbiased=False).mean((1, 2))
due_to_noise = pictures.var(1, unbiased=False).mean((0, 2, 3))
share = (due_to_z / (due_to_z + due_to_noise)).numpy()
for name, part in zip(("coarse", "medium", "fine"), share):
    print(f"{name:6s} band: {100 * part:3.0f} % due to z, {100 * (1 - part):3.0f} % due to noise")
assert share[0] > 0.45 and share[2] < 0.4 and share[0] > share[1] > share[2]

# %% [markdown]
# How deep the creases are belongs to $\mathbf z$, pores to the noise: the exact place of a pore carries no meaning. But
# most of what $\mathbf z$ does is the age in it. For four vectors of *one* age its share is much smaller, and that is
# a weakness of the open generators: people of one age get creases of one kind.

# %%
same_age = vectors.clone()
same_age[:, :2] = vectors[0, :2]
with torch.no_grad():
    grid = [[generator.synthesis(generator.mapping(v[None]), features, n)[0, 3] for n in noises] for v in same_age]
coarse = torch.stack([torch.stack(line) for line in grid])
parts = [float(coarse.mean(1).var(0, unbiased=False).mean()), float(coarse.var(1, unbiased=False).mean())]
share_same_age = parts[0] / sum(parts)
print(f"coarse band of one age: {100 * share_same_age:.0f} % due to z")
assert share_same_age < share[0]

# %% [markdown]
# ### 5.2 The condition
#
# The condition is six small maps: the albedo map and the geometry map of the head without detail, scaled to numbers
# around 0. The same $\mathbf z$ and the same noise for two heads:

# %%
condition_woman = torch.from_numpy(condition_maps(model, woman.params, generator.condition_size))[None]
with torch.no_grad():
    pair = [generator.synthesis(generator.mapping(z), c, noise) for c in (condition, condition_woman)]
of_man, of_woman = (read_picture(module.code, p)[1][0].numpy() * displacement_weight(model, S) for p in pair)
both = {"man's head": of_man, "woman's head": of_woman, "difference x 10": 10 * (of_woman - of_man)}
show_maps({name: d[face] for name, d in both.items()}, 0.15, "mm")
ratio = np.std(of_woman - of_man) / np.std(of_man)
print(f"the difference is {100 * ratio:.0f} % as strong as the displacement")
assert 0 < ratio < 0.25

# %% [markdown]
# Next to nothing. In texture space all heads are laid out alike, so a crease drawn beside the mouth lies beside
# anybody's mouth, and the drawings that the open generator learned from depend on the head's age, sex and skin tone
# only. Scans of people, whose skin follows their bones, would teach it to use the condition more.
#
# What belongs to a head's age and sex comes in by the first two numbers of $\mathbf z$, which the library sets to the
# head's own: `fv.edit(..., detail_seed=1)` gives old skin to the man and young skin to the woman.

# %%
woman_skinned = fv.edit(woman, detail_seed=1)
show(*(fv.render(person, SIZE, "clay").rgb[face_px] for person in (skinned, woman_skinned)))
deep, shallow = (np.std(split_bands(person.displacement)[0]) for person in (skinned, woman_skinned))
print(f"deviation of the coarse band: man {1000 * deep:.0f}, woman {1000 * shallow:.0f} thousandths of a millimetre")
assert deep > shallow

# %% [markdown]
# ## 6. On a head
#
# ### 6.1 Strength
#
# All detail times a factor: 0 is smooth, 1 as made, and more is caricature.

# %%
strengths = [fv.edit(skinned, detail=factor) for factor in (0, 0.5, 1, 2)]
show(*(fv.render(person, SIZE, "clay").rgb[face_px] for person in strengths))
assert np.allclose(strengths[1].displacement, 0.5 * strengths[2].displacement, atol=1e-4)

# %% [markdown]
# ### 6.2 Swapping detail
#
# The latent has L rows, one per layer. Rows of small resolutions place creases, those of the largest resolution make
# pores. So a head can borrow another one's creases and keep its own pores: `detail_layers="coarse"` takes all rows but
# the last three, `"fine"` those three. Here the woman wears the man's skin: her own, his creases, all of his.

# %%
borrowed = [fv.edit(woman_skinned, detail_from=skinned, detail_layers=which) for which in ("coarse", "all")]
show(*(fv.render(person, SIZE, "clay").rgb[face_px] for person in (woman_skinned, *borrowed)))
own, his = woman_skinned.params.detail["w"], skinned.params.detail["w"]
same_rows = [int((person.params.detail["w"] == his).all(1).sum()) for person in borrowed]
print(f"rows of the latent that are his: {same_rows[0]} and {same_rows[1]} of {L}")
assert same_rows == [L - 3, L] and np.array_equal(borrowed[0].params.detail["w"][-3:], own[-3:])

# %% [markdown]
# Turn the head with his skin yourself (on GitHub this is a picture):

# %%
fv.MeshViewer(borrowed[1], mode="clay")

# %% [markdown]
# ## 7. Expression: wrinkles from strain
#
# Raise the brows: the skin of the forehead gets shorter from top to bottom, and what is too long wrinkles. The
# **strain** measures how much shorter. Let $\mathbf F$ (3 x 2) hold the edges of a small piece of skin after the
# movement, in units of two perpendicular directions along the neutral skin. Then the *Green strain* is
#
# $$\mathbf E = \tfrac12\left(\mathbf F^\top \mathbf F - \mathbf I\right),$$
#
# a symmetric 2 x 2 matrix ($\mathbf I$ is the identity): 0 where nothing is stretched. Its most negative eigenvalue is
# the strongest compression: -0.1 means about 10 % shorter.

# %%
from faceverse.detail.displacement import compression, expression_strain

brows = {"browInnerUp": 1.0, "browOuterUpLeft": 1.0, "browOuterUpRight": 1.0}
raised = fv.edit(skinned, expression=brows)
strain = expression_strain(model, raised.params, 256)
shortened, angle = compression(strain)
show_maps({"compression": 100 * shortened[25:220, 30:226]}, 20, "%", "magma")
print(f"strongest compression {100 * shortened.max():.0f} %")
assert 0.05 < shortened.max() <= 0.6

# %% [markdown]
# A second generator, `module.expression`, draws the wrinkles. Its condition is the strain (three maps) and the bands of
# the neutral displacement (three maps): skin wrinkles where it is lined already. Its output is masked by the strain, so
# a neutral face keeps exactly its own skin.

# %%
from faceverse.detail.latents import wrinkles

neutral_wrinkles = wrinkles(module, model, skinned.params, skinned.displacement)
added = wrinkles(module, model, raised.params, skinned.displacement)
show_maps({"neutral": neutral_wrinkles[face], "brows raised": added[face]}, 0.2, "mm")
compressed = np.kron(shortened, np.ones((2, 2))) > 0.05
inside, outside = np.abs(added[compressed]).mean(), np.abs(added[~compressed]).mean()
print(f"mean wrinkle {1000 * inside:.0f} thousandths of a mm where compressed, {1000 * outside:.1f} elsewhere")
assert not neutral_wrinkles.any() and inside > 3 * outside
assert np.allclose(skinned.displacement + added, raised.displacement, atol=1e-3)

# %%
smooth = fv.edit(man, expression=brows)
show(*(fv.render(person, SIZE, "clay").rgb[face_px] for person in (skinned, smooth, raised)))

# %% [markdown]
# Neutral; brows raised without detail; brows raised with personal detail and wrinkles.
#
# ## 8. Fitting the latent
#
# A scan or a photograph gives us a displacement, and we want the $\mathbf z$ behind it. The generator is
# differentiable, so we walk downhill. Let $\mathbf d^*$ be the given map, $\mathbf d(\mathbf z, \mathbf n)$ the one
# made of $\mathbf z$ and noise $\mathbf n$ (both 128 x 128 texels, three bands). If we know the noise, the error is
#
# $$\mathcal L(\mathbf z) = \frac{\lVert \mathbf d(\mathbf z, \mathbf n) - \mathbf d^* \rVert^2}
# {\lVert \mathbf d^* \rVert^2} ,$$
#
# where $\lVert\cdot\rVert^2$ is the sum of squares. Of real skin nobody knows the noise. Then draw *two* noises
# $\mathbf n_1, \mathbf n_2$ at every step and multiply their errors,
#
# $$\mathcal L(\mathbf z) = \frac{\big\langle \mathbf d(\mathbf z, \mathbf n_1) - \mathbf d^*,\;
# \mathbf d(\mathbf z, \mathbf n_2) - \mathbf d^* \big\rangle}{\lVert \mathbf d^* \rVert^2} ,$$
#
# with the dot product $\langle\cdot,\cdot\rangle$ of all texels. Because the two noises are independent, their pores
# cancel on average, and what remains is the squared error of the *mean* picture of $\mathbf z$. (With one noise, wrong
# pores would be punished, and the best skin would be one without pores.) The target is a skin of 70 years; we start
# from another one of 25.

# %%
mask = torch.from_numpy(displacement_weight(model, 128))


def displacement_of(z, noise_seed):
    picture = generator.synthesis(generator.mapping(z), features, generator.make_noise(noise_seed), until=128)
    return picture[:, 3:] * mask


def error_of(z, target, seeds):
    first, second = (displacement_of(z, seed) - target for seed in seeds)
    return (first * second).sum() / target.square().sum()


pairs = ((5, 25), (11, 70))  # seed and age
z_start, z_true = (torch.from_numpy(random_z(np.random.default_rng(k), age, 1.0))[None] for k, age in pairs)
with torch.no_grad():
    target = displacement_of(z_true, 999)

# %%
fits = {}
for name in ("known noise", "unknown noise"):
    z_fit, losses = z_start.clone().requires_grad_(), []
    adam = torch.optim.Adam([z_fit], lr=0.1)
    for step in range(12 if FAST else 40):
        loss = error_of(z_fit, target, (999, 999) if name == "known noise" else (2 * step, 2 * step + 1))
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(float(loss.detach()))
    fits[name] = z_fit.detach(), losses
    print(f"{name}: {losses[0]:.2f} -> {losses[-1]:.2f}")
    assert np.mean(losses[-3:]) < 0.85 * losses[0]

# %% [markdown]
# The error of the *true* vector under unknown noise is about the floor for any fit: what is left are the target's own
# pores, which no vector can know.

# %%
with torch.no_grad():
    floor = np.mean([float(error_of(z_true, target, (2 * k, 2 * k + 1))) for k in range(4)])
plt.figure(figsize=(6, 3), dpi=90)
for name, (_, losses) in fits.items():
    plt.plot(losses, label=name)
plt.axhline(floor, color="grey", linestyle="--", label="true vector, unknown noise")
plt.xlabel("step")
plt.ylabel("error / size of target")
plt.ylim(0)
plt.legend(fontsize=8)
plt.tight_layout()
plt.show()

# %%
with torch.no_grad():
    maps = [displacement_of(z, 7) for z in (z_start, fits["unknown noise"][0], z_true)]
names = ("start", "fitted, noise 7", "true vector, noise 7")
in_mm = [(d[0] * scale).sum(0).numpy()[14:110, 16:112] for d in maps]
show_maps(dict(zip(names, in_mm)), 0.15, "mm")
before, after = (float((d - maps[2]).square().sum() / maps[2].square().sum()) for d in maps[:2])
alike = np.corrcoef(fits["unknown noise"][0].ravel().numpy(), z_true.ravel().numpy())[0, 1]
print(f"difference from the true vector's skin: {before:.2f} at the start, {after:.2f} fitted")
print(f"correlation of the two vectors: {alike:.2f}")
assert after < 0.5 * before

# %% [markdown]
# The fitted vector makes nearly the skin of the true one, and is quite another vector: many $\mathbf z$ make one skin,
# so a fitted one is a description of the skin and no measurement of its parts.
#
# The fit of a photograph (`fv.fit`) does the same with a rendering in between, and on $\mathbf w$, one row per layer,
# and on the noise maps as well.
#
# ## 9. Train a tiny generator
#
# The real ones trained for an hour. A toy problem takes less than a minute: maps of 32 x 32 texels, one channel. The
# condition is a soft blob $c(x, y)$, "where the forehead is". The first of four random numbers, $z_1$, says how deep
# its creases are; pores $\eta$ are independent normal numbers:
#
# $$d(x, y) = 1.5\, c(x, y)\, z_1 \cos(6 \pi y) + 0.3\, \eta(x, y) , \qquad x, y \in [0, 1].$$

# %%
from faceverse.training.detail_data import DataShape, DetailSample, draw_data

y, x = np.mgrid[:32, :32] / 31


def sample(number):
    draw = np.random.default_rng(number)
    centre, z = draw.uniform(0.3, 0.7, 2), draw.standard_normal(4).astype(np.float32)
    blob = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * 0.2**2))
    image = 1.5 * blob * z[0] * np.cos(6 * np.pi * y) + 0.3 * draw.standard_normal((32, 32))
    return DetailSample(np.float32(blob[None]), np.float32(image[None]), z)


toy = sample(0)
show_maps({"condition": toy.condition[0], f"sample, z1 = {toy.z[0]:.1f}": toy.image[0]}, 1.5, "no unit")

# %% [markdown]
# A *plan* names sizes and widths; `GeneratorTrainer` is the class that trained the shipped generators. Its losses:
#
# | loss | what it measures |
# |---|---|
# | matching | the mean over noise of what $(\mathbf z, c)$ make is the sample: creases where they belong |
# | texture | small patches have the right statistics, wherever they lie: pores |
# | adversarial | a second network, the *critic* or discriminator, cannot tell samples from generated maps |
#
# The critic answers high for samples and low for generated maps; a critic that only guesses has a loss of $2 \ln 2
# \approx 1.39$. It takes part in the last third (`adversarial=0.67`), with a penalty on its slope that keeps it from
# becoming too sure (of weight `gamma`). The other settings: samples per step (`batch`), steps of Adam (`rate`, and
# larger ones at the start, `warm_up_rate`), the weight of the noise at the start (`first_noise`), over how many samples
# the weights are averaged in the end (`average`), and no samples with a made-up $\mathbf z$ (`fresh`).

# %%
from faceverse.training.generator_plans import GeneratorPlan
from faceverse.training.generator_step import GeneratorTrainer, TrainingSettings

shape = DataShape(size=32, condition_size=32, whole=16, image_channels=1, condition_channels=1, style_dim=4)
widths = {4: 16, 8: 16, 16: 16, 32: 16}
plan = GeneratorPlan("detail", shape, widths, 32, {"toy": (0,)}, mapping_layers=1, critic_widths=(16, 16, 16, 16))
folder = tempfile.TemporaryDirectory()
data = draw_data(sample, shape, folder.name, count=256, workers=0, progress=lambda line: None)
rates = {"rate": 6e-3, "warm_up_rate": 2e-2}
settings = TrainingSettings(batch=8, adversarial=0.67, gamma=1.0, average=500, fresh=0, first_noise=0.1, **rates)
training = GeneratorTrainer(plan, settings, data, seed=0)
print(len(data.training), "samples to learn from,", len(data.held_out), "held out;",
      sum(p.numel() for p in training.generator.parameters()), "weights")  # fmt: skip

# %%
steps = 60 if FAST else 400
log = [training.step(k / steps) for k in range(steps)]
window = max(steps // 20, 4)
plt.figure(figsize=(6, 3), dpi=90)
for name in ("matching", "texture", "critic"):
    curve = np.array([getattr(losses, name) for losses in log])
    plt.plot(np.convolve(curve, np.ones(window) / window, "valid"), label=name)
plt.xlabel("step")
plt.ylabel(f"loss (mean of {window} steps)")
plt.legend(fontsize=8)
plt.tight_layout()
plt.show()
matching = [losses.matching for losses in log]
assert np.mean(matching[-window:]) < np.mean(matching[:window])

# %% [markdown]
# The jump of the texture loss at half time is no accident: from there on textures are compared band by band too, which
# adds terms. Now for samples that the training has not seen: does $z_1$ steer the depth of the creases, and only the
# noise the pores?

# %%
tiny = training.result()
held_out = data.batch(np.array(data.held_out))
with torch.no_grad():
    latents = tiny.mapping(held_out.z)
    maps = [tiny.synthesis(latents, held_out.condition, tiny.make_noise(seed, len(latents))) for seed in range(8)]
maps = torch.stack(maps)[:, :, 0].numpy()
creases = 1.5 * held_out.condition[:, 0].numpy() * np.cos(6 * np.pi * y)
depth = (maps * creases).sum((2, 3)) / (creases**2).sum((1, 2))
k = int(held_out.z[:, 0].argmax())  # the deepest creases
show_maps({"data": held_out.window[k, 0], "noise 1": maps[0, k], "noise 2": maps[1, k]}, 1.5, "no unit")

# %%
z1, mean_depth = held_out.z[:, 0].numpy(), depth.mean(0)
correlation = np.corrcoef(z1, mean_depth)[0, 1]
plt.figure(figsize=(6, 3), dpi=90)
plt.plot(z1, mean_depth, "o")
plt.axline((0, 0), slope=1, color="grey", linestyle="--")
plt.xlabel("depth asked for, z1")
plt.ylabel("depth made")
plt.tight_layout()
plt.show()
print(f"correlation {correlation:.2f}; from noise to noise the depth varies by {depth.std(0).mean():.2f}")
assert correlation > 0.4 and depth.std(0).mean() < 0.5 * z1.std()
folder.cleanup()

# %% [markdown]
# Each point is a held-out sample; a perfect generator would put all of them on the dashed line. The shipped generator
# is the same code with more channels, six maps instead of one, 64 random numbers instead of four, and drawn skin.
#
# ## 10. Exercises
#
# 1. *Easy.* Which named number of $\mathbf z$ are you curious about? Push "forehead_depth" from -2 to +2 and look.
# 2. *Easy.* Age the man by 15 years and back: do the wrinkles follow?
# 3. *Medium.* *Style mixing*: take rows 0 to L - 4 of the latent from one $\mathbf z$ and the last three from another.
#    Whose creases does the displacement have? Measure it with correlations of the coarse band.
# 4. *Hard.* Fit the latent to a map that the generator has *not* made: the drawing of section 4. How much of it can be
#    explained?
#
# ## 11. Solutions
#
# **1.** The forehead's lines get a little deeper. The drawings obey this number much more than the generator
# does, as section 5.1 has warned.

# %%
index = module.code.factors.index("forehead_depth")
pushed = []
with torch.no_grad():
    for amount in (-2, 0, 2):
        changed = z.clone()
        changed[0, index] = amount
        pushed.append(read_picture(module.code, generator(changed, condition, noise)[0])[1][0].numpy())
show_maps({f"{amount:+d}": d[90:200, 150:362] for amount, d in zip((-2, 0, 2), pushed)}, 0.15, "mm")
forehead = [split_bands(d)[0][90:180, 180:332].std() for d in pushed]
assert forehead[2] > forehead[0]

# %% [markdown]
# **2.** They do: `edit` moves the latent along the mean direction of the number "age".

# %%
aged = [fv.edit(skinned, age=years) for years in (-15, 0, 15)]
show(*(fv.render(person, SIZE, "clay").rgb[face_px] for person in aged))
depths = [split_bands(person.displacement)[0].std() for person in aged]
print("deviation of the coarse band in mm:", np.round(depths, 4))
assert depths[0] < depths[1] < depths[2]

# %% [markdown]
# **3.** The creases are those of the first rows' owner.

# %%
with torch.no_grad():
    one, other = (generator.mapping(vector[None]) for vector in vectors[:2])
    mixed = torch.cat([one[:, :-3], other[:, -3:]], dim=1)
    coarse = [split_bands(read_picture(module.code, generator.synthesis(w, features, noise))[1][0].numpy())[0]
              for w in (one, other, mixed)]  # fmt: skip
with_one, with_other = (np.corrcoef(coarse[2].ravel(), c.ravel())[0, 1] for c in coarse[:2])
print(f"coarse band of the mixture: correlation {with_one:.2f} with the first, {with_other:.2f} with the second")
assert with_one > with_other

# %% [markdown]
# **4.** The drawing's bands, reduced to 128 texels, are the target; we measure the coarse band, so that pores
# count little. A part of it stays unexplained: creases that the generator has not learned to place exactly.

# %%
from faceverse.detail.latents import resized

target = (resized(torch.from_numpy(split_bands(drawn)) / scale, 128) * mask)[None, :1]
z_fit, losses = z_start.clone().requires_grad_(), []
adam = torch.optim.Adam([z_fit], lr=0.1)
for step in range(12 if FAST else 40):
    first, second = (displacement_of(z_fit, 2 * step + k)[:, :1] - target for k in (0, 1))
    loss = (first * second).sum() / target.square().sum()
    adam.zero_grad()
    loss.backward()
    adam.step()
    losses.append(float(loss.detach()))
print(f"coarse band: error {losses[0]:.2f} -> {np.mean(losses[-3:]):.2f} of the target's size")
assert np.mean(losses[-3:]) < losses[0]

# %% [markdown]
# Where to go next: [05_expression_and_export](05_expression_and_export.ipynb) moves the 52 expressions and takes the
# head to other programs; [08_train_your_own](08_train_your_own.ipynb) trains base model and detail on your own scans.
