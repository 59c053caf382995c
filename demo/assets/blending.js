// Linear blending of one head in typed arrays: neutral vertices, plus attributes, plus weighted sparse expressions.
// Normals and tangents are continuous across texture seams. Metres, +y up, the face looks along +z.
//
// A corner is a pair of vertex and texture coordinate, which is what a GPU calls a vertex.

const GAIN_RANGE = [0.5, 2]; // as in faceverse/model
const RATIO_SOFTENING = 0.03; // as in faceverse/edit.py: keeps hair and pupils from being tinted

const clip = (value) => Math.max(0, Math.min(1, value));

// Coordinates of a value on the path of an attribute, which is linear between its knots and beyond the last ones.
function placeOnPath({ values, offsets, modulated }, value, modulator) {
  let knot = 0;
  while (knot < values.length - 2 && value >= values[knot + 1]) knot++;
  const share = (value - values[knot]) / (values[knot + 1] - values[knot]);
  const at = (row) => offsets[row].map((offset, k) => offset + modulator * modulated[row][k]);
  const before = at(knot), after = at(knot + 1);
  return before.map((place, k) => (1 - share) * place + share * after[k]);
}

// Scale of the individual features at a value, constant beyond the knots.
function shareOf({ values, shares }, value) {
  const last = values.length - 1;
  if (value <= values[0]) return shares[0];
  if (value >= values[last]) return shares[last];
  const knot = values.findLastIndex((start) => value >= start);
  const share = (value - values[knot]) / (values[knot + 1] - values[knot]);
  return (1 - share) * shares[knot] + share * shares[knot + 1];
}

export class BlendedHead {
  constructor(model) {
    this.model = model;
    const size = 3 * model.vertexCount, corners = model.vertexOfCorner.length;
    this.neutral = new Float32Array(size); // from the head's pack
    this.base = new Float32Array(size); // with attributes
    this.vertices = new Float32Array(size); // with attributes and expression
    this.normals = new Float32Array(size);
    this.albedo = new Float32Array(size);
    this.gain = new Float32Array(model.names.length).fill(1);
    this.weights = new Float32Array(model.names.length);
    this.directions = model.directions;
    this.amounts = new Float32Array(model.directions.length + 1); // of the directions in `base`
    this.estimates = {}; // attributes of the head in the pack
    this.positions = new Float32Array(3 * corners); // by corner, as are the next three
    this.cornerNormals = new Float32Array(3 * corners);
    this.tangents = new Float32Array(4 * corners);
    this.colours = new Float32Array(3 * corners).fill(1); // factors of the texture, linear RGB
    this.prepareTangents();
  }

  // Edges of the faces in texture space and the handedness of tangents, which no slider changes.
  prepareTangents() {
    const { cornerFaces, uv, vertexOfCorner } = this.model;
    this.faceUv = new Float32Array((2 * cornerFaces.length) / 3);
    const handedness = new Float32Array(vertexOfCorner.length);
    for (let f = 0, at = 0; f < cornerFaces.length; f += 3, at += 2) {
      const a = 2 * cornerFaces[f], b = 2 * cornerFaces[f + 1], c = 2 * cornerFaces[f + 2];
      const v1 = uv[b + 1] - uv[a + 1], v2 = uv[c + 1] - uv[a + 1];
      const mirrored = Math.sign((uv[b] - uv[a]) * v2 - (uv[c] - uv[a]) * v1);
      this.faceUv[at] = mirrored * v1;
      this.faceUv[at + 1] = mirrored * v2;
      for (const corner of [f, f + 1, f + 2]) handedness[cornerFaces[corner]] -= mirrored;
    }
    handedness.forEach((sum, corner) => { this.tangents[4 * corner + 3] = sum < 0 ? -1 : 1; });
  }

  // Takes over the pack of a head.
  setHead(pack) {
    this.neutral.set(pack.neutral);
    this.gain.set(pack.gain);
    for (let i = 0; i < this.albedo.length; i++) this.albedo[i] = pack.albedo[i] * pack.albedoScale;
    this.estimates = pack.estimates ?? {};
    const { individual: offset, individualScale: scale, individualGain: gain } = pack;
    const { individualTint: tint, individualTintScale: tintScale } = pack;
    this.directions = offset ? [...this.model.directions, { offset, scale, gain, tint, tintScale }] : this.model.directions;
    this.base.set(this.neutral);
    this.amounts.fill(0);
    this.shape = {}; // another object whenever `base` changes
    this.needsTint = true;
    this.needsBlend = true;
  }

  // Blends what has changed since the last call, and tells which arrays changed: {moved, tinted}. `expression`: weights
  // by name; `attributes`: amounts by name, relative to the head of the pack.
  blend(expression, attributes) {
    let moved = this.needsBlend;
    this.model.names.forEach((name, k) => {
      const weight = expression[name] ?? 0;
      moved ||= Math.fround(weight) !== this.weights[k];
      this.weights[k] = weight;
    });
    const changed = this.directionAmounts(attributes).map((amount, k) => amount - this.amounts[k]);
    changed.forEach((amount, k) => {
      if (Math.abs(amount) < 1e-6) return;
      const { offset, scale, tint } = this.directions[k];
      for (let i = 0, factor = amount * scale; i < this.base.length; i++) this.base[i] += factor * offset[i];
      this.amounts[k] += amount;
      this.shape = {};
      if (tint) this.needsTint = true;
      moved = true;
    });
    const tinted = this.needsTint;
    if (tinted) this.tint();
    if (!moved) return { moved, tinted };
    this.needsBlend = false;
    this.addExpression();
    this.computeNormals();
    this.copyToCorners(this.vertices, this.positions);
    this.copyToCorners(this.normals, this.cornerNormals);
    return { moved, tinted };
  }

  // Amounts of all directions for amounts of attributes by name. An attribute moves the head along one direction, or
  // along a path, as in faceverse/model/data.py.
  directionAmounts(attributes) {
    const result = new Float64Array(this.directions.length), own = this.model.directions.length;
    for (const { name, first, path } of this.model.attributes) {
      const amount = attributes[name] ?? 0;
      if (!path) {
        result[first] = amount;
        continue;
      }
      const value = this.estimates[name] ?? path.values[0], modulator = this.estimates[path.modulator] ?? 0;
      const before = placeOnPath(path, value, modulator);
      placeOnPath(path, value + amount, modulator + (attributes[path.modulator] ?? 0))
        .forEach((place, k) => { result[first + k] = place - before[k]; });
      if (own < result.length) result[own] = shareOf(path, value + amount) / shareOf(path, value) - 1;
    }
    return result;
  }

  // Scale of an expression on this head.
  gainOf(k) {
    let gain = this.gain[k];
    for (let a = 0; a < this.directions.length; a++) {
      if (this.amounts[a]) gain += this.amounts[a] * this.directions[a].gain[k];
    }
    return Math.max(GAIN_RANGE[0], Math.min(GAIN_RANGE[1], gain));
  }

  addExpression() {
    const { offsetStart, offsetVertex, offset, offsetScale } = this.model;
    const { correctiveStart, correctiveVertex, corrective, correctiveScale, correctivePairs } = this.model;
    this.vertices.set(this.base);
    for (let k = 0; k < this.weights.length; k++) {
      if (!this.weights[k]) continue;
      const factor = this.weights[k] * this.gainOf(k) * offsetScale[k];
      this.addOffsets(factor, offset, offsetVertex, offsetStart[k], offsetStart[k + 1]);
    }
    correctivePairs.forEach(([a, b], k) => { // as in faceverse/model/correctives.py
      const weight = Math.max(this.weights[a], 0) * Math.max(this.weights[b], 0);
      if (!weight) return;
      const factor = weight * Math.sqrt(this.gainOf(a) * this.gainOf(b)) * correctiveScale[k];
      this.addOffsets(factor, corrective, correctiveVertex, correctiveStart[k], correctiveStart[k + 1]);
    });
  }

  // Adds rows `from` to `to` of sparse offsets, times a factor.
  addOffsets(factor, offset, vertex, from, to) {
    const vertices = this.vertices;
    for (let i = from; i < to; i++) {
      const at = 3 * vertex[i];
      vertices[at] += factor * offset[3 * i];
      vertices[at + 1] += factor * offset[3 * i + 1];
      vertices[at + 2] += factor * offset[3 * i + 2];
    }
  }

  // Normals of the vertices, weighted by area; tangents of the corners along u, as in faceverse/formats/gltf.py.
  computeNormals() {
    const { faces, cornerFaces, vertexOfCorner } = this.model, p = this.vertices, n = this.normals;
    const t = this.tangents;
    n.fill(0);
    for (let i = 0; i < t.length; i += 4) t[i] = t[i + 1] = t[i + 2] = 0;
    for (let f = 0, at = 0; f < faces.length; f += 3, at += 2) {
      const a = 3 * faces[f], b = 3 * faces[f + 1], c = 3 * faces[f + 2];
      const ux = p[b] - p[a], uy = p[b + 1] - p[a + 1], uz = p[b + 2] - p[a + 2];
      const vx = p[c] - p[a], vy = p[c + 1] - p[a + 1], vz = p[c + 2] - p[a + 2];
      const x = uy * vz - uz * vy, y = uz * vx - ux * vz, z = ux * vy - uy * vx;
      n[a] += x; n[a + 1] += y; n[a + 2] += z;
      n[b] += x; n[b + 1] += y; n[b + 2] += z;
      n[c] += x; n[c + 1] += y; n[c + 2] += z;
      const v1 = this.faceUv[at], v2 = this.faceUv[at + 1];
      const tx = ux * v2 - vx * v1, ty = uy * v2 - vy * v1, tz = uz * v2 - vz * v1;
      for (let corner = f; corner < f + 3; corner++) {
        const k = 4 * cornerFaces[corner];
        t[k] += tx; t[k + 1] += ty; t[k + 2] += tz;
      }
    }
    for (let i = 0; i < n.length; i += 3) {
      const length = Math.sqrt(n[i] * n[i] + n[i + 1] * n[i + 1] + n[i + 2] * n[i + 2]) || 1;
      n[i] /= length; n[i + 1] /= length; n[i + 2] /= length;
    }
    for (let corner = 0; corner < vertexOfCorner.length; corner++) {
      const i = 3 * vertexOfCorner[corner], k = 4 * corner;
      const along = t[k] * n[i] + t[k + 1] * n[i + 1] + t[k + 2] * n[i + 2];
      let x = t[k] - along * n[i], y = t[k + 1] - along * n[i + 1], z = t[k + 2] - along * n[i + 2];
      let length = Math.sqrt(x * x + y * y + z * z);
      if (length < 1e-14) { // a degenerate texture map: any tangent of the surface will do
        x = 1 - n[i] * n[i]; y = -n[i] * n[i + 1]; z = -n[i] * n[i + 2];
        length = Math.sqrt(x * x + y * y + z * z) || 1;
      }
      t[k] = x / length; t[k + 1] = y / length; t[k + 2] = z / length;
    }
  }

  // Colour factors of the directions, as in faceverse/edit.py: the ratio of the model's albedo, linear RGB.
  tint() {
    this.needsTint = false;
    const parts = this.directions
      .map(({ tint, tintScale }, k) => ({ tint, factor: tint && this.amounts[k] * tintScale }))
      .filter(({ factor }) => factor);
    const { vertexOfCorner } = this.model, target = this.colours;
    if (!parts.length) {
      target.fill(1);
      return;
    }
    for (let corner = 0; corner < vertexOfCorner.length; corner++) {
      for (let channel = 0; channel < 3; channel++) {
        const i = 3 * vertexOfCorner[corner] + channel;
        let albedo = this.albedo[i];
        for (const { tint, factor } of parts) albedo += factor * tint[i];
        target[3 * corner + channel] = (clip(albedo) + RATIO_SOFTENING) / (clip(this.albedo[i]) + RATIO_SOFTENING);
      }
    }
  }

  copyToCorners(values, target) {
    const { vertexOfCorner } = this.model;
    for (let corner = 0; corner < vertexOfCorner.length; corner++) {
      const from = 3 * vertexOfCorner[corner], to = 3 * corner;
      target[to] = values[from]; target[to + 1] = values[from + 1]; target[to + 2] = values[from + 2];
    }
  }
}
