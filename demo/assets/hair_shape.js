// Shape and colour of the hair as in faceverse/parts/hair_shape.py, hair_clearance.py and hair.py, without the DOM.
// Metres; arrays of vertices have three numbers each.

import { BoundPart, centered, gather, rigidMotion, vertexNormals } from "./parts.js";

export const RANGES = {
  grey: [0, 1], length: [0.2, 2], volume_top: [0, 3], volume_sides: [0, 3], volume_back: [0, 3], fringe: [0, 2],
  wave: [0, 1],
};
const VOLUMES = ["top", "sides", "back"];
const MEAN_LUMINANCE = 0.25, GREY_HAIR = [0.78, 0.77, 0.75], SCALP_DARKNESS = 0.75;
const GREY_AT = 62, GREY_OVER = 8, NEVER_GREY = 20; // years, as in hair_choice.py

const RESIDUAL_REACH = 0.05;
const WAVE_SIZE = 0.011, WAVELENGTH = 0.075, CURL = 0.04;

const CLEARANCE = 0.002, REACH = 0.03, PASSES = 3, CELL = 0.01;
const BESIDE_EYE = 0.022, ABOVE_BROW = 0.002, BELOW_EYE = 0.03, HAIR_LINE = 0.52, TEMPLE = 0.012;
const FRONT = [-0.035, -0.012], GAP_INSIDE = 0.85, EAR = [0.046, 0.04], PILED = 0.5, PIVOT = 0.75;
const ROUNDNESS = 0.75, UPRIGHT = 0.35;

const clamp = (value, [low, high]) => Math.max(low, Math.min(high, value));
const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);

function smoothstep(x, low, high) {
  const t = clamp((x - low) / (high - low), [0, 1]);
  return t * t * (3 - 2 * t);
}

// -- values -----------------------------------------------------------------------------------------------------------
// The numbers of `fv.Hair` for the hair of an editing state. `base`: the hair that the files show.
export function shapeOf(state, base) {
  const shape = {};
  for (const name of ["length", "fringe", "wave"]) shape[name] = state?.[name] ?? base[name];
  const share = (state?.volume ?? meanVolume(base)) / (meanVolume(base) || 1);
  for (const side of VOLUMES) shape[`volume_${side}`] = clamp(share * base[`volume_${side}`], RANGES.volume_top);
  return shape;
}

export const meanVolume = (hair) => VOLUMES.reduce((sum, side) => sum + hair[`volume_${side}`], 0) / VOLUMES.length;

// The shape on a style that changes its mesh itself.
function onStyle(shape, own) {
  const result = { ...shape };
  for (const [name, value] of Object.entries(own ?? {})) {
    result[name] = clamp(name === "wave" ? shape[name] + value : shape[name] * value, RANGES[name]);
  }
  return result;
}

export function greyShare(years) {
  const [start, now] = [NEVER_GREY, Math.max(years, NEVER_GREY)].map((age) => 1 / (1 + Math.exp((GREY_AT - age) / GREY_OVER)));
  return (now - start) / (1 - start);
}

// Share of grey hairs after years have passed, or before.
export function agedGrey(grey, before, after) {
  const remaining = (1 - greyShare(after)) / Math.max(1 - greyShare(before), 1e-6);
  return clamp(1 - (1 - grey) * remaining, [0, 1]);
}

// Factors of the texture of a slot, linear RGB. `color`: "#rrggbb".
export function hairTint(color, grey, slot) {
  const srgb = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16) / 255);
  const darkness = (slot === "scalp" ? SCALP_DARKNESS : 1) / MEAN_LUMINANCE;
  return srgb.map((value, k) => darkness * (linear(value) + grey * (linear(GREY_HAIR[k]) - linear(value))));
}

// -- shape ------------------------------------------------------------------------------------------------------------
// Hair that follows the skull. `vertices` are those on the neutral head, `matrix` is the motion of an expression.
export class BoundHair extends BoundPart {
  constructor(pack) {
    super(pack);
    this.made = this.vertices;
    this.vertices = new Float32Array(this.made.length);
    this.outward = new Float32Array(this.made.length);
    this.normals = new Float32Array(this.made.length);
    this.faces = pack.cornerFaces.map((corner) => pack.vertexOfCorner[corner]);
  }

  // Places the hair on a neutral head (3 V) with triangles `faces`. `hair`: a value of `shapeOf`; `warp`: (3 P) or null.
  place(neutral, hair, faces, warp = null) {
    const { pack, made, vertices, outward } = this, shape = onStyle(hair, pack.shape);
    this.neutral = centered(gather(neutral, this.reference));
    const scale = this.neutral.spread / this.source.spread, m = this.affineMotion();
    const target = gather(neutral, this.reference), rest = this.residual(m, target);
    for (let i = 0, p = 0; i < made.length; i += 3, p++) {
      const reach = Math.exp(-((pack.distance[p] / RESIDUAL_REACH) ** 2));
      const factor = this.factorAt(p, shape);
      for (let axis = 0; axis < 3; axis++) {
        let moved = 0, root = 0;
        for (let k = i; k < i + 3; k++) {
          moved += pack.weights[k] * rest[3 * pack.corner[k] + axis];
          root += pack.weights[k] * target[3 * pack.corner[k] + axis];
        }
        const at = m[axis] * made[i] + m[4 + axis] * made[i + 1] + m[8 + axis] * made[i + 2] + m[12 + axis] + reach * moved;
        const away = axis === 1 ? Math.max(at - root, 0) : at - root;
        outward[i + axis] = away;
        vertices[i + axis] = at + (factor - 1) * away;
      }
      vertices[i + 1] -= (shape.length - 1) * pack.hang[p] * scale;
    }
    if (shape.wave) this.addWaves(shape.wave, scale);
    if (warp) for (let i = 0; i < vertices.length; i++) vertices[i] += warp[i];
    const { mean } = this.neutral;
    const surface = new HeadSurface(neutral, faces, pack);
    surface.clear(vertices, shape.fringe, [mean[0] + scale * pack.gap[0], mean[1] + scale * pack.gap[1]], pack.overEars);
    this.findNormals(this.faces);
  }

  // The motion of an expression.
  follow(vertices) {
    this.matrix = rigidMotion(this.neutral, centered(gather(vertices, this.reference)));
  }

  // What the affine motion leaves of the skull's shape (3 R).
  residual(m, target) {
    const made = this.pack.referenceMade, mean = this.madeMean, rest = new Float64Array(target.length);
    for (let i = 0; i < target.length; i += 3) {
      const x = made[i] - mean[0], y = made[i + 1] - mean[1], z = made[i + 2] - mean[2];
      for (let axis = 0; axis < 3; axis++) {
        rest[i + axis] = target[i + axis] - m[axis] * x - m[4 + axis] * y - m[8 + axis] * z - m[12 + axis];
      }
    }
    return rest;
  }

  factorAt(p, shape) {
    let factor = 1;
    for (const side of VOLUMES) factor += this.pack[side][p] * (shape[`volume_${side}`] - 1);
    return factor * (1 + this.pack.shortness * (shape.length - 1));
  }

  // A helix along the length of the hair.
  addWaves(wave, scale) {
    const { pack, vertices, outward } = this, length = WAVELENGTH + wave * (CURL - WAVELENGTH);
    for (let i = 0, p = 0; i < vertices.length; i += 3, p++) {
      const norm = Math.max(Math.hypot(outward[i], outward[i + 2]), 1e-6);
      const x = outward[i] / norm, z = outward[i + 2] / norm;
      const angle = (2 * Math.PI * vertices[i + 1]) / (scale * length) + pack.phase[p];
      const size = scale * WAVE_SIZE * wave * pack.wave[p], c = size * Math.cos(angle), s = size * Math.sin(angle);
      vertices[i] += c * x + s * z;
      vertices[i + 2] += c * z - s * x;
    }
  }

  // Normals of the volume of the hair: mostly away from the skull, whatever way a card faces.
  findNormals(faces) {
    const { vertices, normals } = this, mean = this.neutral.mean;
    vertexNormals(vertices, faces, normals);
    for (let i = 0; i < vertices.length; i += 3) {
      const away = [vertices[i] - mean[0], vertices[i + 1] - mean[1], vertices[i + 2] - mean[2]];
      if (away[1] < 0) away[1] *= UPRIGHT;
      const norm = Math.hypot(...away) || 1;
      for (let axis = 0; axis < 3; axis++) away[axis] /= norm;
      const side = normals[i] * away[0] + normals[i + 1] * away[1] + normals[i + 2] * away[2] < 0 ? -1 : 1;
      for (let axis = 0; axis < 3; axis++) normals[i + axis] = ROUNDNESS * away[axis] + side * (1 - ROUNDNESS) * normals[i + axis];
      const size = Math.hypot(normals[i], normals[i + 1], normals[i + 2]) || 1;
      for (let axis = 0; axis < 3; axis++) normals[i + axis] /= size;
    }
  }
}

// The skin of a neutral head, as far as hair touches it. `places`: `touched`, `eyeballs` (left, then right: as many),
// `brows` and `ears`, vertices of the model.
class HeadSurface {
  constructor(neutral, faces, places) {
    const normals = vertexNormals(neutral, faces);
    Object.assign(this, { neutral, normals, touched: places.touched });
    const balls = places.eyeballs, half = places.leftBall;
    this.eyes = balls.length && places.brows.length
      ? [meanOf(neutral, balls.subarray(0, half)), meanOf(neutral, balls.subarray(half))] : null;
    this.brow = places.brows.reduce((most, v) => Math.max(most, neutral[3 * v + 1]), -Infinity);
    this.top = places.touched.reduce((most, v) => Math.max(most, neutral[3 * v + 1]), -Infinity);
    this.ears = [1, -1].map((side) => extent(neutral, places.ears.filter((v) => neutral[3 * v] * side > 0)));
    this.fillGrid();
  }

  // The touched vertices by cell of a grid, for the closest one to a point.
  fillGrid() {
    const { neutral, touched } = this, low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
    for (const v of touched) {
      for (let axis = 0; axis < 3; axis++) {
        low[axis] = Math.min(low[axis], neutral[3 * v + axis]);
        high[axis] = Math.max(high[axis], neutral[3 * v + axis]);
      }
    }
    this.low = low;
    this.size = low.map((start, axis) => Math.floor((high[axis] - start) / CELL) + 1);
    const cellOf = (v) => this.cell(...[0, 1, 2].map((axis) => Math.floor((neutral[3 * v + axis] - low[axis]) / CELL)));
    const cells = Array.from(touched, cellOf);
    this.start = new Uint32Array(this.size[0] * this.size[1] * this.size[2] + 1);
    for (const cell of cells) this.start[cell + 1]++;
    for (let cell = 1; cell < this.start.length; cell++) this.start[cell] += this.start[cell - 1];
    const next = this.start.slice();
    this.members = new Uint32Array(touched.length);
    cells.forEach((cell, k) => { this.members[next[cell]++] = touched[k]; });
  }

  cell(x, y, z) {
    return (x * this.size[1] + y) * this.size[2] + z;
  }

  // The closest touched vertex to a point within REACH, or -1.
  closest(x, y, z) {
    const { low, size, start, members, neutral } = this, rings = Math.ceil(REACH / CELL);
    const cx = Math.floor((x - low[0]) / CELL), cy = Math.floor((y - low[1]) / CELL), cz = Math.floor((z - low[2]) / CELL);
    let best = REACH * REACH, found = -1;
    for (let ring = 0; ring <= rings; ring++) {
      for (let i = Math.max(cx - ring, 0); i <= Math.min(cx + ring, size[0] - 1); i++) {
        for (let j = Math.max(cy - ring, 0); j <= Math.min(cy + ring, size[1] - 1); j++) {
          const isFace = Math.abs(i - cx) === ring || Math.abs(j - cy) === ring, step = isFace || !ring ? 1 : 2 * ring;
          for (let k = cz - ring; k <= cz + ring; k += step) {
            if (k < 0 || k >= size[2]) continue;
            const cell = (i * size[1] + j) * size[2] + k;
            for (let m = start[cell]; m < start[cell + 1]; m++) {
              const v = 3 * members[m], dx = neutral[v] - x, dy = neutral[v + 1] - y, dz = neutral[v + 2] - z;
              const distance = dx * dx + dy * dy + dz * dz;
              if (distance < best) { best = distance; found = members[m]; }
            }
          }
        }
      }
      if (found >= 0 && best <= (ring * CELL) ** 2) break; // no farther cell can be closer
    }
    return found;
  }

  // Moves hair (3 P) off the eyes and out of the head.
  clear(hair, fringe, gap, overEars) {
    if (this.eyes && fringe < 2) this.offTheEyes(hair, fringe, gap);
    for (const [k, side] of [[0, 1], [1, -1]]) if (this.ears[k]) this.outsideEar(hair, this.ears[k], side, overEars);
    this.pushOut(hair);
  }

  offTheEyes(hair, fringe, gap) {
    const [left, right] = this.eyes;
    const middle = [(left[0] + right[0]) / 2, (left[1] + right[1]) / 2 - BELOW_EYE], depth = (left[2] + right[2]) / 2;
    const short = Math.max(1 - fringe, 0), long = Math.max(fringe - 1, 0);
    const halfWidth = Math.max(Math.abs(left[0] - middle[0]), Math.abs(right[0] - middle[0])) + BESIDE_EYE + short * TEMPLE;
    const line = this.brow + HAIR_LINE * (this.top - this.brow);
    const whole = [halfWidth, this.brow + ABOVE_BROW + short * (line - this.brow) - middle[1]];
    const free = whole.map((size) => size * (1 - long));
    let start = [0, 1].map((axis) => (gap[axis] - middle[axis]) / whole[axis]);
    const shrink = Math.min(1, GAP_INSIDE / Math.max(Math.hypot(...start), 1e-6));
    start = start.map((value) => value * shrink);
    const inside = 1 - start[0] ** 2 - start[1] ** 2;
    const pivot = [middle[0], this.brow, depth - PIVOT * (this.top - this.brow)];
    for (let i = 0; i < hair.length; i += 3) {
      const before = smoothstep(hair[i + 2] - depth, ...FRONT);
      if (!before) continue;
      const ax = (hair[i] - middle[0]) / free[0] - start[0], ay = (hair[i + 1] - middle[1]) / free[1] - start[1];
      const length = Math.max(Math.hypot(ax, ay), 1e-6), along = (ax * start[0] + ay * start[1]) / length;
      const share = length / (Math.sqrt(along * along + inside) - along);
      if (share >= 1 + PILED) continue;
      const gain = (1 + (share * PILED) / (1 + PILED)) / share - 1;
      if (before * gain <= 0) continue;
      const radius = pivot.reduce((sum, value, axis) => sum + (hair[i + axis] - value) ** 2, 0);
      hair[i] += before * gain * ax * free[0];
      hair[i + 1] += before * gain * ay * free[1];
      const ahead = radius - (hair[i] - pivot[0]) ** 2 - (hair[i + 1] - pivot[1]) ** 2;
      hair[i + 2] = Math.min(hair[i + 2], pivot[2] + Math.sqrt(Math.max(ahead, 0)));
    }
  }

  outsideEar(hair, { width, height, depth }, side, overEars) {
    for (let i = 0, p = 0; i < hair.length; i += 3, p++) {
      const lack = width + CLEARANCE - side * hair[i];
      if (lack <= 0 || side * hair[i] <= 0) continue;
      const away = ((hair[i + 1] - height) / EAR[0]) ** 2 + ((hair[i + 2] - depth) / EAR[1]) ** 2;
      hair[i] += side * lack * Math.exp(-(away ** 3)) * overEars[p];
    }
  }

  pushOut(hair) {
    const { neutral, normals } = this;
    for (let i = 0; i < hair.length; i += 3) {
      for (let pass = 0; pass < PASSES; pass++) {
        const v = 3 * this.closest(hair[i], hair[i + 1], hair[i + 2]);
        if (v < 0) break;
        const height = (hair[i] - neutral[v]) * normals[v] + (hair[i + 1] - neutral[v + 1]) * normals[v + 1]
          + (hair[i + 2] - neutral[v + 2]) * normals[v + 2];
        if (height >= CLEARANCE) break;
        for (let axis = 0; axis < 3; axis++) hair[i + axis] += (CLEARANCE - height) * normals[v + axis];
      }
    }
  }
}

function meanOf(points, indices) {
  const mean = [0, 0, 0];
  for (const v of indices) for (let axis = 0; axis < 3; axis++) mean[axis] += points[3 * v + axis] / indices.length;
  return mean;
}

// Greatest distance of an ear from the plane of symmetry, height and depth of its middle; null without vertices.
function extent(points, ear) {
  if (!ear.length) return null;
  const of = (axis) => Array.from(ear, (v) => points[3 * v + axis]);
  const middle = (values) => (Math.min(...values) + Math.max(...values)) / 2;
  return { width: Math.max(...of(0).map(Math.abs)), height: middle(of(1)), depth: middle(of(2)) };
}
