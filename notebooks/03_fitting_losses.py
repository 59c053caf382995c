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
# # 3. What a fit minimises
#
# [![Open in
# Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/)
#
# (In Colab run first, with the address of this repository: `!git clone ADDRESS faceverse` and
# `%pip install -q "./faceverse[notebooks]"`.)
#
# A fit looks for the numbers that explain a photograph. What "explain" means is written in one number, the **loss**,
# a sum of terms that each say how wrong something is. Here we build the terms by hand, on one photograph, and switch
# each of them off to see what it was good for.
#
# **You will**
#
# 1. read what `fv.fit` reports: stages, seconds, loss terms, curves,
# 2. write the landmark term, and grow a monster without a prior,
# 3. race the Gauss-Newton method against Adam,
# 4. solve for the light with one call of least squares,
# 5. see which pixels are down-weighted as outliers, as a mask over the photograph,
# 6. switch each term off and look at the damage.
#
# **You need** NumPy, derivatives, and least squares. The notebook before this one,
# [02_camera_light_render](02_camera_light_render.ipynb), explains camera and light.

# %% [markdown]
# ## 1. What a fit reports
#
# `fv` is the library. From its modules we take the parts of the fit: `solver` (landmarks), `surface` and
# `photometric` (colours), `prior`, and `fit_input`, which holds one photograph with its detected face.

# %%
import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # more threads only wait for each other here

import time
from dataclasses import replace
from unittest.mock import patch

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy.interpolate import griddata
from skimage.data import astronaut

import faceverse as fv
from faceverse.fitting import fit_input, losses, photometric, solver, surface
from faceverse.fitting.losses import ROBUST_SCALE
from faceverse.fitting.prior import IdentityPrior
from faceverse.fitting.state import FaceState

# %%
from faceverse.graphics.camera import rotation_from_axis_angle, rotation_from_euler_deg
from faceverse.graphics.lighting import linear_from_srgb, shading
from faceverse.viewer import show

FAST = os.environ.get("FACEVERSE_FAST") == "1"  # shorter loops, for the tests
model = fv.load_model()
photo = astronaut()
result = fv.fit(photo, model, detail=False)
show(photo[:240, 110:350], fv.overlay(photo, result)[:240, 110:350], fv.render(result, 240, "clay").rgb)
print(result)

# %% [markdown]
# (The photograph shows Eileen Collins; NASA, public domain. `detail=False` leaves out wrinkles and pores.)
# The head that came out, to turn by hand where the notebook's viewer can (elsewhere it is a picture):

# %%
fv.MeshViewer(result, mode="clay")

# %% [markdown]
# `result.stages` tells what happened, in order. Each stage that searches has a loss, before and after, and the number
# of its steps.

# %%
for stage in result.stages:
    print(f"{stage.name:20s} {stage.seconds:5.2f} s  {stage.iterations:2d} steps", end="")
    print(f"   loss {stage.before:6.1f} -> {stage.after:6.1f}" if stage.history else "")
searches = [stage for stage in result.stages if stage.history]
assert len(searches) == 3 and all(stage.after < stage.before for stage in searches)

# %% [markdown]
# The terms at the end of each search. They are in *squares of standard deviations*, halved: a term of 2 means "as
# unlikely as one number that is 2 standard deviations off". So terms of different origin can be added.

# %%
for stage in searches:
    print(f"{stage.name}: total {stage.after:.1f}")
    for name, value in stage.loss_terms.items():
        print(f"    {name:18s} {value:7.1f}")
    assert np.isclose(sum(stage.loss_terms.values()), stage.after, rtol=1e-3)

# %% [markdown]
# And the way there, each curve divided by its first value. A photometric curve may jump where the fit estimates the
# noise level of the picture's colours anew.

# %%
plt.figure(figsize=(6, 3), dpi=90)
for stage in searches:
    plt.plot(np.array(stage.history) / stage.history[0], marker="o", ms=3, label=stage.name)
plt.xlabel("Gauss-Newton step")
plt.ylabel("loss / first value")
plt.ylim(0, 1.05)
plt.legend(fontsize=8)
plt.show()

# %% [markdown]
# ## 2. The landmark term
#
# The detector finds L = 478 points in the photograph; $\mathbf{q}_l$ is the l-th of them, in pixels, shape (2,). The
# model knows the same points on its surface. With the identity coefficients $\alpha$ and the expression weights
# $\beta$, its l-th point is $\mathbf{p}_l(\alpha, \beta)$, in metres, shape (3,). A rotation $\mathbf{R}$ (3, 3)
# and a translation $\mathbf{t}$ (3,) carry it before the camera, and $\pi$ projects it to pixels. The term is
#
# $$E_{lan} = \frac{1}{2} \sum_{l=1}^{L} w_l^2 \,
# \left\| \pi\left(\mathbf{R} \, \mathbf{p}_l(\alpha, \beta) + \mathbf{t}\right) - \mathbf{q}_l \right\|^2$$
#
# where $w_l$, in 1 / pixel, is one over the error that the detector is expected to make at this point: a corner of an
# eye counts more than a point on the cheek, where the surface looks the same everywhere.
#
# `landmark_model` cuts the model down to these points. (The library also models errors that are correlated
# over many points, the detector's *error modes*. We leave them out.)

# %%
face = fv.detect(photo)[0]
lm = solver.landmark_model(model, model.landmarks_478)
lm = replace(lm, error_modes=lm.error_modes[:0])
detected, camera = face.landmarks_px.astype(float), result.camera
L, N_id, N_exp = len(lm.mean), len(lm.identity), len(lm.expression)
print(f"L = {L} points, {N_id} identity coefficients, {N_exp} expression weights")
print(f"the detector's expected errors: {1000 * lm.sigma.min():.1f} to {1000 * lm.sigma.max():.1f} mm")

# %% [markdown]
# The initial estimate: the mean head ($\alpha = 0$) with the expression that the detector scored, `expected`, in a
# rough pose. The pose is one linear least-squares solution under a scaled orthographic camera.

# %%
expected = lm.prior.mean(face.blendshapes)
rotation, translation = solver.initial_pose(lm.points(np.zeros(N_id), expected), detected, camera)
start = FaceState(rotation=rotation, translation=translation, identity=np.zeros(N_id), expression=expected)
weight = solver.point_weights(lm, rotation, -translation[2], camera.focal_px)

projected = solver.project_points(lm.points(start.identity, start.expression), rotation, translation, camera)
by_hand = 0.5 * (weight**2 * ((projected - detected) ** 2).sum(axis=1)).sum()
term = solver.LandmarkTerm(lm, detected, camera, weight, np.zeros((2 * L, 0)))
print(f"by hand {by_hand:.2f}, by the library {term.loss(start):.2f}")
assert np.isclose(by_hand, term.loss(start))

# %% [markdown]
# `solve_landmarks` minimises it. On the left the initial estimate, on the right the result; detected in green, model in
# red.

# %%
solved = solver.solve_landmarks(lm, detected, camera, expected)
pictures = []
for state in (start, solved.state):
    points = lm.points(state.identity, state.expression)
    points = solver.project_points(points, state.rotation, state.translation, camera)
    marked = Image.fromarray(photo).crop((155, 55, 285, 195)).resize((520, 560), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(marked)
    for pixels, colour in ((detected, (0, 255, 120)), (points, (255, 40, 40))):
        for x, y in 4 * (pixels - (155, 55)):
            draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=colour)
    pictures.append(np.asarray(marked))
    print(f"median distance {np.median(np.linalg.norm(points - detected, axis=1)):.2f} px")
show(*pictures)
assert solved.history[-1] < 0.2 * solved.history[0]

# %% [markdown]
# ### 2.1 Two priors
#
# Points do not say everything. A **prior** states what is likely before any photograph. The identity coefficients were
# scaled so that in the population each has mean 0 and variance 1; the expression weights $\beta_j$ are expected near
# the detector's scores $\hat\beta_j$, with a standard deviation $\sigma_j$ each (all without unit):
#
# $$E_{id} = \frac{\lambda}{2} \sum_i \alpha_i^2 \qquad
# E_{exp} = \frac{1}{2} \sum_j \frac{(\beta_j - \hat\beta_j)^2}{\sigma_j^2}$$
#
# with $\lambda = 1$. These are no tricks: half a square of standard deviations is, up to a constant, minus the
# logarithm of a normal distribution. The sum of all terms is minus the logarithm of "how probable is this head, given
# the points".

# %%
print(f"identity   {0.5 * (solved.state.identity**2).sum():7.1f}")
print(f"expression {0.5 * (((solved.state.expression - expected) / lm.prior.sigma) ** 2).sum():7.1f}")
print(f"by the library, together {solved.prior_loss:.1f}")
off = (solved.state.expression - expected) / lm.prior.sigma
assert np.isclose(0.5 * (solved.state.identity**2).sum() + 0.5 * (off**2).sum(), solved.prior_loss, rtol=1e-3)

# %% [markdown]
# ### 2.2 Without it, and with too much of it
#
# Now $\lambda$ = one millionth, 1, and ten thousand.

# %%
rows = {}
for strength in (1e-6, 1.0, 1e4):
    person = IdentityPrior(np.zeros(N_id), strength * np.eye(N_id))
    state = solver.solve_landmarks(replace(lm, person=person), detected, camera, expected, iterations=30).state
    points = lm.points(state.identity, state.expression)
    points = solver.project_points(points, state.rotation, state.translation, camera)
    error_px, far = np.median(np.linalg.norm(points - detected, axis=1)), np.sqrt((state.identity**2).mean())
    print(f"lambda {strength:9.0e}: point error {error_px:.2f} px, coefficients {far:.2f} standard deviations (rms)")
    neutral = result.params.replace(identity=state.identity.astype(np.float32), expression=np.zeros(N_exp, np.float32))
    head = fv.head(neutral, model)
    rows[strength] = (error_px, far, [fv.render(head, 240, "clay", rotation=(yaw, 0, 0)).rgb for yaw in (0, 50)])
show(*(picture for error_px, far, pair in rows.values() for picture in pair))
assert rows[1e-6][0] < rows[1.0][0] < rows[1e4][0] and rows[1e-6][1] > 2 * rows[1.0][1] > 20 * rows[1e4][1]

# %% [markdown]
# The monster on the left fits the points *best*. It buys its last fraction of a pixel with a skull that nobody has,
# because points in the face say nothing about the skull, and little about depth. The head on the right is simply the
# mean head. The one in the middle gives up a little accuracy for a lot of plausibility; that is the bargain of every
# prior.

# %% [markdown]
# ## 3. Gauss-Newton against Adam
#
# How does one get to the minimum? **Adam** follows the gradient, in small steps, with a step size per variable.
# **Gauss-Newton** uses that the loss is a sum of squares. Put all weighted differences into one vector $\mathbf{r}$
# (the residuals, 2L = 956 numbers), all unknowns into one vector $\mathbf{x}$ (3 of rotation, 3 of translation,
# $\alpha$, $\beta$), and their derivatives into the Jacobian $\mathbf{J} = \partial \mathbf{r} / \partial \mathbf{x}$.
# Then
#
# $$\mathbf{g} = \mathbf{J}^\top \mathbf{r} \qquad \mathbf{H} \approx \mathbf{J}^\top \mathbf{J} \qquad
# \Delta \mathbf{x} = -(\mathbf{H} + \mu \, \mathrm{diag} \, \mathbf{H})^{-1} \mathbf{g}$$
#
# $\mathbf{g}$ is the gradient, $\mathbf{H}$ approximates the second derivatives without computing any, and a small
# $\mu$ (Levenberg and Marquardt's damping) keeps steps modest. The prior adds $\alpha$ to the gradient and 1 to the
# diagonal. `damped_step` solves for $\Delta\mathbf{x}$, with the expression held in its bounds.

# %%
identity_rows, expression_rows = np.arange(6, 6 + N_id), np.arange(6 + N_id, 6 + N_id + N_exp)
state, history, seconds = start, [], []
begun = time.perf_counter()
for _ in range(30):
    off = (state.expression - expected) / lm.prior.sigma
    history.append(term.loss(state) + 0.5 * (state.identity**2).sum() + 0.5 * (off**2).sum())
    seconds.append(time.perf_counter() - begun)
    H, g = term.normal_equations(state)
    H[identity_rows, identity_rows] += 1
    g[identity_rows] += state.identity
    H[expression_rows, expression_rows] += 1 / lm.prior.sigma**2
    g[expression_rows] += off / lm.prior.sigma
    bounds = lm.prior.limits - state.expression[:, None]
    delta = solver.damped_step(H, g, 1e-3, expression_rows, bounds)
    pose, identity, expression = np.split(delta, [6, 6 + N_id])
    state = state.updated(pose, identity=identity, expression=expression, limits=lm.prior.limits)
newton = np.array(history), np.array(seconds)

# %%
print("loss after 0, 1, 2 ... steps:", *(f"{value:.2f}" for value in newton[0][:8]))
assert newton[0][4] < 1.1 * newton[0].min()

# %% [markdown]
# The same loss in PyTorch, for Adam: PyTorch finds the gradient by itself. First we check that it *is* the same loss.

# %%
bases = model.landmark_bases(model.landmarks_478)
target, point_weights, scores = (torch.tensor(a, dtype=torch.float32) for a in (detected, weight, expected))
sigma, low_high = (torch.tensor(a, dtype=torch.float32) for a in (lm.prior.sigma, lm.prior.limits))
rotation0, translation0 = (torch.tensor(a, dtype=torch.float32) for a in (rotation, translation))
(cx, cy), f = camera.principal_point_px, camera.focal_px


def loss_of(rotation_update, translation_update, alpha, beta):
    points = bases.points(alpha[None], beta[None])[0] @ (rotation_from_axis_angle(rotation_update) @ rotation0).T
    x, y, z = (points + translation0 + translation_update).T
    off = torch.stack([cx - f * x / z, cy + f * y / z], dim=1) - target
    prior = (alpha**2).sum() + (((beta - scores) / sigma) ** 2).sum()
    return 0.5 * (point_weights**2 * (off**2).sum(1)).sum() + 0.5 * prior


same = float(loss_of(torch.zeros(3), torch.zeros(3), torch.zeros(N_id), scores))
print(f"at the start: PyTorch {same:.2f}, NumPy {newton[0][0]:.2f}")
assert np.isclose(same, newton[0][0], rtol=1e-3)

# %%
STEPS = 100 if FAST else 1500
adam = {}
for rate in (0.003, 0.01, 0.03):
    unknowns = [torch.zeros(3), torch.zeros(3), torch.zeros(N_id), scores.clone()]
    optimiser = torch.optim.Adam([value.requires_grad_() for value in unknowns], lr=rate)
    history, seconds, begun = [], [], time.perf_counter()
    for _ in range(STEPS):
        loss = loss_of(*unknowns)
        history.append(loss.item())
        seconds.append(time.perf_counter() - begun)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            unknowns[3].clamp_(*low_high.T)
    adam[rate] = np.array(history), np.array(seconds)

# %% [markdown]
# How far above the minimum is each after so many steps, and after so much time? Both axes are logarithmic.

# %%
best = min(newton[0].min(), *(history.min() for history, seconds in adam.values()))
figure, axes = plt.subplots(1, 2, figsize=(8, 3), dpi=90, sharey=True)
for name, (history, seconds) in {"Gauss-Newton": newton, **{f"Adam, rate {r}": run for r, run in adam.items()}}.items():
    above = np.maximum(history - best, 1e-2)
    axes[0].loglog(1 + np.arange(len(above)), above, label=name)
    axes[1].loglog(1000 * seconds[1:], above[1:])
axes[0].set(xlabel="step", ylabel="loss above the minimum")
axes[1].set(xlabel="time in ms")
axes[0].legend(fontsize=7)
figure.tight_layout()
plt.show()

# %%
goal = newton[0][-1] * 1.05
steps, ms = int(np.argmax(newton[0] < goal)), 1000 * newton[1][np.argmax(newton[0] < goal)]
print(f"within 5 % of the minimum: Gauss-Newton after {steps} steps, {ms:.0f} ms")
for rate, (history, seconds) in adam.items():
    there = np.flatnonzero(history < goal)
    words = f"{there[0]} steps, {1000 * seconds[there[0]]:.0f} ms" if len(there) else f"not within {STEPS} steps"
    print(f"    Adam with rate {rate}: {words}")
    assert not len(there) or there[0] > 30 * steps

# %% [markdown]
# A Gauss-Newton step costs more, because it solves a system of some 200 equations, but it needs very few. Adam needs
# dozens of times as many, if it arrives at all, and somebody has to choose its rate. The reason is the shape of the
# valley: the loss is thousands of times steeper along the pose (a metre is much, and so is a radian) than along the
# last identity coefficients, and Adam begins with steps of one size for all. How uneven the valley is, is the
# *condition number* of $\mathbf{H}$, its largest eigenvalue over its smallest:

# %%
eigenvalues = np.linalg.eigvalsh(H)
print(f"condition number of H: {eigenvalues[-1] / eigenvalues[0]:.0e}")
assert eigenvalues[-1] > 1000 * eigenvalues[0]

# %% [markdown]
# ## 4. Light is linear
#
# Now colours. The **surface** of the fit are K vertices of the coarse mesh (skin; no hair, no teeth). `evaluate`
# gives the residual of each: its normal, its position in the picture, and the colours of model and photograph there.
# The photograph is cut to a square of 192 pixels around the face.

# %%
photograph = fit_input.prepare_fit_input(fv.read_image(photo), [face], model, 0, None)
photograph = replace(photograph, camera=result.camera)
fitted = FaceState.from_params(result.params)
target = fit_input.photometric_target(photograph, fitted, fitted.expression, 192)
skin = surface.surface_samples(model.coarse)
samples = photometric.STAGES[-1].effective_samples
colour_term = surface.PhotometricTerm(skin, target.crop, target.inside, target.camera, samples)
residual = colour_term.evaluate(fitted)
visible = residual.weight > 0
print(f"K = {len(visible)} vertices, {visible.sum()} of them visible")

# %% [markdown]
# In linear light, the colour of a vertex k in channel c (red, green or blue) is its albedo $a_{kc}$ times the light
# that falls on it. Light is a sum of nine *spherical harmonics*, functions $Y_1 \ldots Y_9$ of the normal
# $\mathbf{n}_k$, with coefficients $\ell_{bc}$:
#
# $$C_{kc} = a_{kc} \sum_{b=1}^{9} Y_b(\mathbf{n}_k) \, \ell_{bc}$$
#
# If albedo and normals are known, this is **linear** in the unknown $\ell_{1c} \ldots \ell_{9c}$: K equations with 9
# unknowns for each channel. No steps, no initial estimate, one call of least squares.

# %%
observed = linear_from_srgb(torch.tensor(residual.observed[visible, :3])).numpy()
light = np.zeros((9, 3))
for c in range(3):
    rows = residual.albedo[visible, c : c + 1] * residual.basis[visible]
    light[:, c], *_ = np.linalg.lstsq(rows, observed[:, c], rcond=None)
for name, estimated_light in (("least squares", light), ("the fit's own", fitted.light)):
    error = np.abs(residual.albedo[visible] * (residual.basis[visible] @ estimated_light) - observed)
    print(f"{name}: median error {np.median(error):.3f} (linear light, 0 to 1)")

# %% [markdown]
# (The fit's own light has the smaller median error: in least squares the worst fits have the most influence. Section 5
# is about that, and so is exercise 4.) What do nine numbers per channel look like? A white ball in this light: left by
# least squares, right the light of the fit. On a ball every normal occurs, and those that face away from us were never
# observed.

# %%
x, y = np.meshgrid(np.linspace(-1.02, 1.02, 240), np.linspace(1.02, -1.02, 240))
normals = torch.tensor(np.stack([x, y, np.sqrt(np.clip(1 - x**2 - y**2, 0, 1))], axis=-1), dtype=torch.float32)
balls = []
for estimated_light in (light, fitted.light):
    ball = 0.6 * shading(normals, torch.tensor(estimated_light, dtype=torch.float32)).numpy()
    ball = np.where((x**2 + y**2 < 1)[..., None], ball.clip(0, 1) ** (1 / 2.2), 1)
    balls.append((255 * ball).astype(np.uint8))
show(np.asarray(Image.fromarray((255 * target.crop).astype(np.uint8)).resize((240, 240))), *balls)

# %% [markdown]
# Plain least squares fits everything, make-up and shadows included, and where normals were rarely observed it is
# arbitrary. So a prior keeps the light near white and even, too, $E_{light}$, and the albedo near the mean by
# $E_{alb} = \frac{1}{2} \sum_m \gamma_m^2$ with the albedo coefficients $\gamma_m$ (without unit). This prior is
# needed for more than noise: nothing in the equation above tells dark skin in bright light from bright skin in dim
# light. With a factor $s$,
#
# $$C_{kc} = (s \, a_{kc}) \sum_b Y_b(\mathbf{n}_k) \, \frac{\ell_{bc}}{s}$$
#
# is the same picture for every $s$. Only the priors choose.

# %%
for s in (1.0, 0.7):
    colours = (s * residual.albedo) * (residual.basis @ (fitted.light / s))
    residuals, _ = photometric.light_prior_residuals(fitted.light / s)
    prior = photometric.STAGES[-1].light / 2 * (residuals**2).sum()
    print(f"s = {s}: mean colour {colours[visible].mean():.4f}, light prior {prior:.1f}")
    assert np.allclose(colours, residual.linear, atol=1e-5)

# %% [markdown]
# ## 5. The photometric term and its robust weights
#
# Let $\mathbf{d}_k$ be the difference between predicted and photographed colour at vertex k, three numbers from -1 to
# 1 in sRGB (the numbers of the file, in which equal steps look about equal), and $\sigma$ the noise level, which the
# fit estimates. Then $s_k = \|\mathbf{d}_k\|^2 / (3 \sigma^2)$ is a square of standard deviations. Its plain
# sum would be least squares, in which one strand of hair across the cheek outweighs everything. So the squares
# saturate (Geman and McClure), with c = 2.5:
#
# $$\rho(s) = \frac{s}{1 + s / c^2} \qquad
# E_{pho} = \frac{N}{2} \, \frac{\sum_k v_k \, \rho(s_k)}{\sum_k v_k}$$
#
# $v_k$ is how much of the picture the vertex covers (times a weight by region), and N the effective
# sample count: neighbouring pixels are correlated.

# %%
colour_term.update_noise_level(residual)
squares = (residual.difference**2).sum(axis=1) / (3 * colour_term.sigma**2)
rho = squares / (1 + squares / ROBUST_SCALE**2)
rho[~visible] = 0
by_hand = 0.5 * colour_term.effective_count * (residual.weight * rho).sum() / residual.weight.sum()
print(f"sigma = {255 * colour_term.sigma:.1f} of 255 levels, N = {colour_term.effective_count:.0f}")
print(f"by hand {by_hand:.2f}, by the library {colour_term.loss(residual):.2f}")
assert np.isclose(by_hand, colour_term.loss(residual), rtol=1e-4)

# %% [markdown]
# The slope of $\rho$ is the **robust weight** of a vertex, $\rho'(s) = (1 + s / c^2)^{-2}$: 1 where the model is
# right, near 0 where it is hopeless. Such a vertex has no influence.

# %%
deviations = np.linspace(0, 10, 200)
s = deviations**2
plt.figure(figsize=(6, 3), dpi=90)
plt.plot(deviations, s.clip(max=12), "--", color="grey", label="least squares: s (cut off)")
plt.plot(deviations, s / (1 + s / ROBUST_SCALE**2), label="robust: ρ(s)")
plt.plot(deviations, (1 + s / ROBUST_SCALE**2) ** -2.0, label="robust weight ρ'(s)")
plt.xlabel("difference in standard deviations, √s")
plt.legend(fontsize=8, loc=(0.55, 0.6))
plt.show()

# %% [markdown]
# ### 5.1 A rectangle over the face
#
# To see it at work we paint a green rectangle over a part of the cheek, like an occluder, and fit again.
# Then, just to know, once more with c = one million, which is plain least squares. (`patch.object` changes the
# library's constant for the duration of the block.)

# %%
painted = photo.copy()
painted[118:168, 222:262] = (30, 120, 60)
robust = fv.fit(painted, model, detail=False)
with patch.object(losses, "ROBUST_SCALE", 1e6):
    squared = fv.fit(painted, model, detail=False)
heads = (result, robust, squared)
bare = [fv.head(head.params.replace(light=result.params.light), model) for head in heads]
show(painted[:240, 110:350], *(fv.render(head, 240, "albedo", rotation=(0, 0, 0)).rgb for head in bare))

# %% [markdown]
# The picture, and the fitted albedo: without rectangle, with it and robust, with it and plain squares. The last skin is
# no longer hers. In plain squares the outliers have the most influence, and distort light and skin.

# %%
clean = result.albedo[model.regions["face"]]
changes = [np.abs(head.albedo[model.regions["face"]] - clean).mean() for head in (robust, squared)]
print(f"change of the albedo by the rectangle: robust {changes[0]:.3f}, least squares {changes[1]:.3f}")
assert changes[0] < 0.7 * changes[1]

# %% [markdown]
# The robust weights of that fit as a mask over the photograph, interpolated between the vertices: red is
# down-weighted as an outlier.

# %%
detected_again = fv.detect(painted)[0]
covered = fit_input.prepare_fit_input(fv.read_image(painted), [detected_again], model, 0, None)
covered = replace(covered, camera=robust.camera)
refitted = FaceState.from_params(robust.params)
cut = fit_input.photometric_target(covered, refitted, refitted.expression, 192)
again = surface.PhotometricTerm(skin, cut.crop, cut.inside, cut.camera, photometric.STAGES[-1].effective_samples)
view = again.evaluate(refitted)
again.update_noise_level(view)
robust_weights = (1 + (view.difference**2).mean(axis=1) / again.sigma**2 / ROBUST_SCALE**2) ** -2.0

# %%
place = view.points[view.weight > 0]
(cx, cy), f = cut.camera.principal_point_px, cut.camera.focal_px
x_px, y_px = cx - f * place[:, 0] / place[:, 2], cy + f * place[:, 1] / place[:, 2]
columns, rows = np.meshgrid(np.arange(192) + 0.5, np.arange(192) + 0.5)
mask = griddata((x_px, y_px), robust_weights[view.weight > 0], (columns, rows))
figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), dpi=90, layout="constrained")
axes[0].imshow(cut.crop)
axes[1].imshow(cut.crop)
shown = axes[1].imshow(mask, cmap="RdYlGn", vmin=0, vmax=1, alpha=0.7)
figure.colorbar(shown, ax=axes, label="robust weight")
for axis in axes:
    axis.axis("off")
plt.show()

# %%
left, top, right, bottom = photometric.crop_box(detected_again.landmarks_px)
in_photo = np.stack([left + x_px * (right - left) / 192, top + y_px * (bottom - top) / 192], axis=1)
inside = ((in_photo > (224, 120)) & (in_photo < (260, 166))).all(axis=1)
visible_weights = robust_weights[view.weight > 0]
print(f"mean robust weight: under the rectangle {visible_weights[inside].mean():.2f}, elsewhere", end=" ")
print(f"{visible_weights[~inside].mean():.2f}; {inside.sum()} vertices of {len(inside)} lie under it")
assert visible_weights[inside].mean() < 0.5 * visible_weights[~inside].mean()

# %% [markdown]
# Besides the rectangle, look at what the model does not know: make-up, lips, shine, lashes, and the edge of the hair.

# %% [markdown]
# ## 6. All terms together
#
# The photometric stages make the sum of six terms small: colours, landmarks, and priors on identity, expression,
# albedo and light,
#
# $$E = E_{pho} + w_{lan} E_{lan} + E_{id} + E_{exp} + E_{alb} + E_{light}$$
#
# ($w_{lan} = 0.5$, without unit; the others have their weight inside). All unknowns move together, by Gauss-Newton as
# above, first on a small picture, then on a larger one. We start where the landmark stage ends, with light and albedo
# from alternating linear least squares.

# %%
photograph = fit_input.prepare_fit_input(fv.read_image(photo), [face], model, 0, None)
solution = fit_input.fit_landmarks(photograph)
photograph = replace(photograph, camera=solution.camera)
first = fit_input.initial_state(photograph, solution)
coarse = fit_input.photometric_target(photograph, first, first.expression, 96)
first = photometric.estimate_light_and_albedo(skin, first, coarse)
problem = photometric.Refinement(skin, [coarse], photometric.STAGES[0], IdentityPrior.of_population(N_id))
residuals = problem.evaluate([first])
problem.update_noise_levels(residuals)
for name, value in problem.terms([first], residuals).items():
    print(f"{name:18s} {value:7.1f}")

# %% [markdown]
# ### 6.1 Switched off, one by one
#
# Each variant changes one weight; what is not named stays. Three notes. To make the prior on albedo ten thousand
# times cheaper we stretch its modes by 100, so that all coefficients become 100 times smaller. To loosen the one on
# expression, its standard deviations become 100 times as large. And "no colours" is an effective sample count of one
# millionth.

# %%
variants = {
    "all terms": {},
    "no landmarks": {"landmarks": 0.0},
    "no identity prior": {"identity": 1e-4},
    "huge identity prior": {"identity": 1e4},
    "no expression prior": {"looser": 100},
    "no albedo prior": {"stretch": 100},
    "no light prior": {"light": 1e-6},
    "no colours": {"effective_samples": 1e-6},
}
print(len(variants), "variants")

# %%
outcomes, expected_by = {}, photograph.landmarks.prior
for name, weights in variants.items():
    person = IdentityPrior(np.zeros(N_id), weights.get("identity", 1) * np.eye(N_id))
    prior = replace(expected_by, refined_sigma=weights.get("looser", 1) * expected_by.refined_sigma)
    weighted_input = replace(photograph, landmarks=replace(photograph.landmarks, prior=prior))
    k = weights.get("stretch", 1)
    state = replace(first, albedo=first.albedo / k)
    for stage in photometric.STAGES:
        stage = replace(stage, **{key: weights[key] for key in weights if hasattr(stage, key)})
        target = fit_input.photometric_target(weighted_input, state, first.expression, stage.size_px)
        problem = photometric.Refinement(replace(skin, albedo=k * skin.albedo), [target], stage, person)
        state = photometric.refine(problem, [state]).states[0]
    outcomes[name] = replace(state, albedo=k * state.albedo)

# %% [markdown]
# Five measures: the points' median distance in pixels, the median difference of colour in levels of 255, the size of
# the coefficients of identity and albedo in standard deviations (root mean square), and how far the expression's
# weights have gone from those of the landmark stage (the same).

# %%
sizes = {name: (s.identity, s.albedo, s.expression - first.expression) for name, s in outcomes.items()}
rms = {name: [np.sqrt((values**2).mean()) for values in three] for name, three in sizes.items()}
levels, points_px = {}, {}
print(f"{'':22s}points px   colour   identity   albedo   expression")
for name, state in outcomes.items():
    points = photograph.landmarks.points(state.identity, state.expression)
    points = solver.project_points(points, state.rotation, state.translation, photograph.camera)
    points_px[name] = np.median(np.linalg.norm(points - photograph.points_px, axis=1))
    view = colour_term.evaluate(state)
    levels[name] = 255 * np.median(np.abs(view.difference[view.weight > 0]))
    print(f"{name:22s}{points_px[name]:9.2f} {levels[name]:8.1f} ", end="")
    print("{:10.2f} {:8.2f} {:12.2f}".format(*rms[name]))

# %%
assert levels["no identity prior"] < levels["all terms"] < levels["huge identity prior"]
assert rms["no identity prior"][0] > 5 * rms["all terms"][0] and rms["huge identity prior"][0] < 0.01
assert points_px["no landmarks"] < 2 * points_px["all terms"] and min(levels, key=levels.get) == "no identity prior"
assert rms["no colours"][1] < 0.01 and max(levels, key=levels.get) == "no colours"
assert rms["no albedo prior"][1] > 3 * rms["all terms"][1]
assert rms["no expression prior"][2] > 2 * rms["all terms"][2]

# %%
drawn = {}
for name, state in outcomes.items():
    head = fv.head(state.to_params(result.params), model).replace(camera=photograph.camera)
    over = Image.fromarray(fv.overlay(photo, head)[:210, 120:330]).resize((210, 210))
    sides = [fv.render(head, 210, mode, rotation=(0, 0, 0)).rgb for mode in ("clay", "albedo")]
    drawn[name] = np.vstack([np.asarray(over), *sides])

# %% [markdown]
# First row: over the photograph. Second: shape from the front. Third: albedo. In this order: **all terms**, **no
# landmarks**, **no identity prior**, **huge identity prior**.

# %%
show(*(drawn[name] for name in ("all terms", "no landmarks", "no identity prior", "huge identity prior")))

# %% [markdown]
# And **no expression prior**, **no albedo prior**, **no light prior**, **no colours**.

# %%
show(*(drawn[name] for name in ("no expression prior", "no albedo prior", "no light prior", "no colours")))

# %% [markdown]
# * Without the *identity prior* colours match better than ever, and the head is none.
# * With a *huge* one everybody is the mean head, only pose, expression and skin still follow.
# * Without the *expression prior* the mouth gapes: colours match a little better, and the smile is no longer hers.
# * Without the *albedo prior* the skin takes the light's colours, and whatever else the picture shows.
# * Without the *light prior* light and skin exchange brightness freely, see section 4.
# * Without *colours* there is only the landmarks' shape, and skin and light stay at their priors.
# * Without *landmarks* little is lost: here, where the initial estimate was good.

# %% [markdown]
# ### 6.2 Why landmarks stay: a bad initial estimate
#
# We rotate the head away by 25 degrees before the search, and give it plenty of steps, with and without landmarks.

# %%
away = rotation_from_euler_deg(25, 10, 0).double().numpy() @ first.rotation
pictures, angles = [photo[:210, 120:330]], []
for landmarks in (0.5, 0.0):
    state = replace(first, rotation=away)
    for stage in photometric.STAGES:
        stage = replace(stage, landmarks=landmarks, iterations=12 if FAST else 30, tolerance=1e-5)
        target = fit_input.photometric_target(photograph, first, first.expression, stage.size_px)
        problem = photometric.Refinement(skin, [target], stage, IdentityPrior.of_population(N_id))
        state = photometric.refine(problem, [state]).states[0]
    cosine = (np.trace(state.rotation @ outcomes["all terms"].rotation.T) - 1) / 2
    angles.append(np.degrees(np.arccos(min(cosine, 1))))
    head = fv.head(state.to_params(result.params), model).replace(camera=photograph.camera)
    pictures.append(fv.overlay(photo, head)[:210, 120:330])
show(*pictures)
print(f"away from the right pose: with landmarks {angles[0]:.1f} degrees, without {angles[1]:.1f}")
assert angles[0] < angles[1]

# %% [markdown]
# The photometric term has a small region of convergence: a pixel of the cheek carries no information about a nose that
# is twenty pixels away. Landmarks work at any distance. So the fit begins with them and ends with colours.

# %% [markdown]
# ## 7. Exercises
#
# 1. Fit the landmark term with every 8th point only. How much worse are *all* points explained?
# 2. Draw the trade of section 2.2 as a curve: landmark loss against the size of the coefficients, for $\lambda$ from
#    0.001 to 1000.
# 3. Check the gradient of the landmark term with respect to the identity by finite differences.
# 4. Solve for the light robustly: repeat the least squares of section 4, each time weighting the equations by how well
#    they fitted before. Does the median error fall?

# %% [markdown]
# ## 8. Solutions
#
# **1.** All arrays of the model on its landmarks have one row per point.

# %%
few = lm.subset(np.arange(0, L, 8))
medians = []
for some, pixels in ((lm, detected), (few, detected[::8])):
    state = solver.solve_landmarks(some, pixels, camera, expected).state
    points = lm.points(state.identity, state.expression)
    points = solver.project_points(points, state.rotation, state.translation, camera)
    medians.append(np.median(np.linalg.norm(points - detected, axis=1)))
    print(f"fitted to {len(pixels):3d} points: median error of all {medians[-1]:.2f} px")
assert medians[0] < medians[1]

# %% [markdown]
# **2.** The bend is where more freedom stops paying. (At the right end the loss rises again: with hardly any prior the
# valley is flat in so many directions that the search stops before it reaches the bottom.)

# %%
strengths, curve = np.logspace(-3, 3, 7 if FAST else 13), []
for strength in strengths:
    person = IdentityPrior(np.zeros(N_id), strength * np.eye(N_id))
    solution = solver.solve_landmarks(replace(lm, person=person), detected, camera, expected, iterations=100)
    curve.append((np.sqrt((solution.state.identity**2).mean()), solution.landmark_loss))
sizes, landmark_losses = np.transpose(curve)
plt.figure(figsize=(6, 3), dpi=90)
plt.loglog(sizes, landmark_losses, marker="o", ms=3)
middle = np.argmin(np.abs(strengths - 1))
plt.plot(sizes[middle], landmark_losses[middle], "o", color="red", label="λ = 1")
plt.xlabel("size of the coefficients (rms, standard deviations)")
plt.ylabel("landmark loss")
plt.legend(fontsize=8)
plt.show()
assert sizes[0] > sizes[-1] and landmark_losses[0] < landmark_losses[-1]

# %% [markdown]
# **3.** Move one coefficient a little up and down; the difference of the losses over the way is the derivative. (We
# take a face without expression, because the library leaves out that the size of an expression follows the identity.)

# %%
bare_start = replace(start, expression=np.zeros(N_exp))
_, gradient = term.normal_equations(bare_start)
for i in (0, 5, 50):
    step = 1e-4 * np.eye(N_id)[i]
    up, down = (term.loss(replace(bare_start, identity=sign * step)) for sign in (1, -1))
    print(f"coefficient {i:2d}: by formula {gradient[6 + i]:10.4f}, by differences {(up - down) / 2e-4:10.4f}")
    assert np.isclose(gradient[6 + i], (up - down) / 2e-4, rtol=1e-3, atol=1e-3)

# %% [markdown]
# **4.** *Iteratively reweighted least squares*: the weights are those of section 5, with a noise level of 0.05 of
# linear light. The median falls, because vertices that fit no light lose their influence.

# %%
weights, medians = np.ones(visible.sum()), []
for _ in range(6):
    for c in range(3):
        rows = residual.albedo[visible, c : c + 1] * residual.basis[visible] * weights[:, None]
        light[:, c], *_ = np.linalg.lstsq(rows, observed[:, c] * weights, rcond=None)
    off = residual.albedo[visible] * (residual.basis[visible] @ light) - observed
    medians.append(np.median(np.abs(off)))
    weights = 1 / (1 + (off**2).mean(axis=1) / 0.05**2)
print("median error:", *(f"{value:.4f}" for value in medians))
assert medians[-1] < medians[0]

# %% [markdown]
# Where to go next: [04_detail_module](04_detail_module.ipynb) adds what no sum of modes can show, wrinkles and pores.
