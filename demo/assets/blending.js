// Linear blending of one head in typed arrays: neutral vertices, plus attributes, plus weighted sparse expressions.
// Normals and tangents are continuous across texture seams. Metres, +y up, the face looks along +z.
//
// A corner is a pair of vertex and texture coordinate, which is what a GPU calls a vertex.

const GAIN_RANGE = [0.5, 2]; // as in faceverse/model
const RATIO_SOFTENING = 0.03; // as in faceverse/edit.py: keeps hair and pupils from being tinted

const clip = (value) => Math.max(0, Math.min(1, value));

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
    this.amounts = new Float32Array(model.attributes.length); // of the attributes in `base`
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
    const changed = this.model.attributes.map((attribute, k) => (attributes[attribute.name] ?? 0) - this.amounts[k]);
    changed.forEach((amount, k) => {
      if (Math.abs(amount) < 1e-6) return;
      const { offset, scale, tint } = this.model.attributes[k];
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

  // Scale of an expression on this head.
  gainOf(k) {
    let gain = this.gain[k];
    for (let a = 0; a < this.amounts.length; a++) {
      if (this.amounts[a]) gain += this.amounts[a] * this.model.attributes[a].gain[k];
    }
    return Math.max(GAIN_RANGE[0], Math.min(GAIN_RANGE[1], gain));
  }

  addExpression() {
    const { offsetStart, offsetVertex, offset, offsetScale } = this.model, vertices = this.vertices;
    vertices.set(this.base);
    for (let k = 0; k < this.weights.length; k++) {
      if (!this.weights[k]) continue;
      const factor = this.weights[k] * this.gainOf(k) * offsetScale[k];
      for (let i = offsetStart[k]; i < offsetStart[k + 1]; i++) {
        const at = 3 * offsetVertex[i];
        vertices[at] += factor * offset[3 * i];
        vertices[at + 1] += factor * offset[3 * i + 1];
        vertices[at + 2] += factor * offset[3 * i + 2];
      }
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

  // Colour factors of the attributes, as in faceverse/edit.py: the ratio of the model's albedo, linear RGB.
  tint() {
    this.needsTint = false;
    const parts = this.model.attributes
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
