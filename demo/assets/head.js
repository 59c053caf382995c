// Geometry of one head, blended in typed arrays: neutral vertices, plus attributes, plus weighted sparse expressions.
// Normals and tangents have no breaks where the texture has its seams. Metres, +y up, the face looks along +z.

const GAIN_RANGE = [0.5, 2]; // as in faceverse/model.py
const RATIO_SOFTENING = 0.03; // as in faceverse/edit.py: keeps hair and pupils from being tinted

const clip = (value) => Math.max(0, Math.min(1, value));

export class Head {
  constructor(model) {
    this.model = model;
    const size = 3 * model.vertexCount, corners = model.vertexOfCorner.length;
    this.neutral = new Float32Array(size); // of the server's file
    this.base = new Float32Array(size); // with the attributes
    this.vertices = new Float32Array(size); // with the expression
    this.normals = new Float32Array(size);
    this.albedo = new Float32Array(size);
    this.gain = new Float32Array(model.names.length).fill(1);
    this.weights = new Float32Array(model.names.length);
    this.amounts = new Float32Array(model.attributes.length); // of the attributes that are in `base`
    this.indexOf = new Map(model.names.map((name, k) => [name, k]));
    this.geometry = new THREE.BufferGeometry();
    this.geometry.setIndex(new THREE.BufferAttribute(model.cornerFaces, 1));
    this.geometry.setAttribute("uv", new THREE.BufferAttribute(model.uv, 2));
    for (const [name, width] of [["position", 3], ["normal", 3], ["tangent", 4], ["color", 3]]) {
      const attribute = new THREE.BufferAttribute(new Float32Array(width * corners), width);
      this.geometry.setAttribute(name, attribute.setUsage(THREE.DynamicDrawUsage));
    }
    this.geometry.attributes.color.array.fill(1);
    const roughness = Uint8Array.from(model.vertexOfCorner, (vertex) => model.roughness[vertex]);
    this.geometry.setAttribute("vertexRoughness", new THREE.BufferAttribute(roughness, 1, true));
    this.layOutTangents();
  }

  // What tangents need of the texture coordinates, which no slider changes.
  layOutTangents() {
    const { cornerFaces, uv, vertexOfCorner } = this.model;
    const tangent = this.geometry.attributes.tangent.array;
    this.faceUv = new Float32Array((2 * cornerFaces.length) / 3);
    const turns = new Float32Array(vertexOfCorner.length);
    for (let f = 0, at = 0; f < cornerFaces.length; f += 3, at += 2) {
      const a = 2 * cornerFaces[f], b = 2 * cornerFaces[f + 1], c = 2 * cornerFaces[f + 2];
      const v1 = uv[b + 1] - uv[a + 1], v2 = uv[c + 1] - uv[a + 1];
      const mirrored = Math.sign((uv[b] - uv[a]) * v2 - (uv[c] - uv[a]) * v1);
      this.faceUv[at] = mirrored * v1;
      this.faceUv[at + 1] = mirrored * v2;
      for (const corner of [f, f + 1, f + 2]) turns[cornerFaces[corner]] -= mirrored;
    }
    for (let corner = 0; corner < turns.length; corner++) tangent[4 * corner + 3] = turns[corner] < 0 ? -1 : 1;
  }

  // The server's files of a head.
  place(pack) {
    this.neutral.set(pack.neutral);
    this.gain.set(pack.gain);
    for (let i = 0; i < this.albedo.length; i++) this.albedo[i] = pack.albedo[i] * pack.albedoScale;
    this.base.set(this.neutral);
    this.amounts.fill(0);
    this.tinted = true;
    this.stale = true;
  }

  // Blends what has changed. Expression: weights by name; attributes: amounts by name, beyond those of the files.
  blend(expression, attributes) {
    let moved = this.stale;
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
      if (tint) this.tinted = true;
      moved = true;
    });
    if (this.tinted) this.tint();
    if (!moved) return false;
    this.stale = false;
    this.express();
    this.shape();
    this.copyToCorners(this.vertices, this.geometry.attributes.position);
    this.copyToCorners(this.normals, this.geometry.attributes.normal);
    return true;
  }

  gainOf(k) {
    let gain = this.gain[k];
    for (let a = 0; a < this.amounts.length; a++) {
      if (this.amounts[a]) gain += this.amounts[a] * this.model.attributes[a].gain[k];
    }
    return Math.max(GAIN_RANGE[0], Math.min(GAIN_RANGE[1], gain));
  }

  express() {
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

  // Normals of the vertices, tangents of the corners (as in faceverse/gltf.py: along u, within the surface).
  shape() {
    const { faces, cornerFaces, vertexOfCorner } = this.model, p = this.vertices, n = this.normals;
    const tangent = this.geometry.attributes.tangent, t = tangent.array;
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
      if (length < 1e-14) { // where the map is degenerate any direction within the surface will do
        x = 1 - n[i] * n[i]; y = -n[i] * n[i + 1]; z = -n[i] * n[i + 2];
        length = Math.sqrt(x * x + y * y + z * z) || 1;
      }
      t[k] = x / length; t[k + 1] = y / length; t[k + 2] = z / length;
    }
    tangent.needsUpdate = true;
  }

  // Colours follow the attributes as on the server: by the ratio of the model's albedo, in linear light.
  tint() {
    this.tinted = false;
    const parts = this.model.attributes
      .map(({ tint, tintScale }, k) => ({ tint, factor: tint && this.amounts[k] * tintScale }))
      .filter(({ factor }) => factor);
    const { vertexOfCorner } = this.model, color = this.geometry.attributes.color, target = color.array;
    color.needsUpdate = true;
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

  copyToCorners(values, attribute) {
    const vertexOfCorner = this.model.vertexOfCorner, target = attribute.array;
    for (let corner = 0; corner < vertexOfCorner.length; corner++) {
      const from = 3 * vertexOfCorner[corner], to = 3 * corner;
      target[to] = values[from]; target[to + 1] = values[from + 1]; target[to + 2] = values[from + 2];
    }
    attribute.needsUpdate = true;
  }
}
