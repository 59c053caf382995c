// How parts (teeth, tongue, eyes, lashes, brows) follow the vertices of a head, as in faceverse/parts/binding.py.
// Metres; matrices are column-major arrays of 16 numbers, as three.js has them.

const LEAST_LENGTH = 1e-9;

// A part that moves as a whole has a `matrix` for its vertices `made`; one that follows triangles has `vertices`.
export class BoundPart {
  // `pack`: as demo/view_files.py writes it.
  constructor(pack) {
    Object.assign(this, pack);
    this.pack = pack;
    this.source = centered(pack.referenceMade);
    this.madeMean = [...this.source.mean];
    this.isSurface = pack.kind === "surface";
    if (this.isSurface) {
      this.vertices = new Float32Array(pack.offset.length);
    } else {
      this.source.mean.fill(0); // the vertices are relative to it
      this.vertices = Float32Array.from(pack.made, (steps) => steps * pack.madeScale);
      this.placed = identity();
      this.matrix = identity();
      this.inverse = pack.kind === "affine" ? inverted(moments(this.source, this.source)) : null;
    }
  }

  // Places the part on a neutral head (3 V).
  place(neutral) {
    this.neutral = centered(gather(neutral, this.reference));
    if (this.isSurface) this.scale = this.neutral.spread / this.source.spread;
    else this.placed = this.inverse ? this.affineMotion() : rigidMotion(this.source, this.neutral, this.neutral.spread / this.source.spread);
  }

  // Moves the part with the vertices (3 V) of the head that it was placed on.
  follow(vertices) {
    if (this.isSurface) this.attach(vertices);
    else this.matrix = product(rigidMotion(this.neutral, centered(gather(vertices, this.reference))), this.placed);
  }

  affineMotion() {
    const { inverse, source, neutral } = this, across = moments(source, neutral), linear = new Float64Array(9);
    for (let row = 0; row < 3; row++) { // (S'S)^-1 S'T, transposed
      for (let column = 0; column < 3; column++) {
        for (let k = 0; k < 3; k++) linear[3 * row + column] += inverse[3 * column + k] * across[3 * k + row];
      }
    }
    return motion(linear, source.mean, neutral.mean);
  }

  // Points at `weights` of triangles, and `offset` away along the first edge, across it in the plane, along the normal.
  attach(p) {
    const { triangle, weights, offset, vertices } = this, scale = this.scale * this.offsetScale;
    for (let i = 0; i < triangle.length; i += 3) {
      const a = 3 * triangle[i], b = 3 * triangle[i + 1], c = 3 * triangle[i + 2];
      let ex = p[b] - p[a], ey = p[b + 1] - p[a + 1], ez = p[b + 2] - p[a + 2];
      const fx = p[c] - p[a], fy = p[c + 1] - p[a + 1], fz = p[c + 2] - p[a + 2];
      let length = Math.max(Math.sqrt(ex * ex + ey * ey + ez * ez), LEAST_LENGTH);
      ex /= length; ey /= length; ez /= length;
      let nx = ey * fz - ez * fy, ny = ez * fx - ex * fz, nz = ex * fy - ey * fx;
      length = Math.max(Math.sqrt(nx * nx + ny * ny + nz * nz), LEAST_LENGTH);
      nx /= length; ny /= length; nz /= length;
      const cx = ny * ez - nz * ey, cy = nz * ex - nx * ez, cz = nx * ey - ny * ex;
      const u = scale * offset[i], v = scale * offset[i + 1], w = scale * offset[i + 2];
      const wa = weights[i], wb = weights[i + 1], wc = weights[i + 2];
      vertices[i] = wa * p[a] + wb * p[b] + wc * p[c] + u * ex + v * cx + w * nx;
      vertices[i + 1] = wa * p[a + 1] + wb * p[b + 1] + wc * p[c + 1] + u * ey + v * cy + w * ny;
      vertices[i + 2] = wa * p[a + 2] + wb * p[b + 2] + wc * p[c + 2] + u * ez + v * cz + w * nz;
    }
  }
}

// Normals (3 N) of vertices (3 N), weighted by area.
export function vertexNormals(p, faces, n = new Float32Array(p.length)) {
  n.fill(0);
  for (let f = 0; f < faces.length; f += 3) {
    const a = 3 * faces[f], b = 3 * faces[f + 1], c = 3 * faces[f + 2];
    const ux = p[b] - p[a], uy = p[b + 1] - p[a + 1], uz = p[b + 2] - p[a + 2];
    const vx = p[c] - p[a], vy = p[c + 1] - p[a + 1], vz = p[c + 2] - p[a + 2];
    const x = uy * vz - uz * vy, y = uz * vx - ux * vz, z = ux * vy - uy * vx;
    n[a] += x; n[a + 1] += y; n[a + 2] += z;
    n[b] += x; n[b + 1] += y; n[b + 2] += z;
    n[c] += x; n[c + 1] += y; n[c + 2] += z;
  }
  for (let i = 0; i < n.length; i += 3) {
    const length = Math.sqrt(n[i] * n[i] + n[i + 1] * n[i + 1] + n[i + 2] * n[i + 2]) || 1;
    n[i] /= length; n[i + 1] /= length; n[i + 2] /= length;
  }
  return n;
}

// Faces (3 F) that remain beside parts. `isSkin` has a bit for each face, from the highest of each byte on.
export function skinFaces(cornerFaces, isSkin) {
  return cornerFaces.filter((_, i) => (isSkin[Math.floor(i / 24)] >> (7 - (Math.floor(i / 3) % 8))) & 1);
}

// The rotation (times `scale`) and translation that move one set of points to another with least squared error.
// Reference: Horn, Closed-form solution of absolute orientation using unit quaternions, 1987.
export function rigidMotion(source, target, scale = 1) {
  const [xx, xy, xz, yx, yy, yz, zx, zy, zz] = moments(source, target);
  const [w, x, y, z] = largestEigenvector([
    [xx + yy + zz, yz - zy, zx - xz, xy - yx],
    [yz - zy, xx - yy - zz, xy + yx, zx + xz],
    [zx - xz, xy + yx, yy - xx - zz, yz + zy],
    [xy - yx, zx + xz, yz + zy, zz - xx - yy],
  ]);
  const linear = [
    1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
    2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
    2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
  ].map((value) => scale * value);
  return motion(linear, source.mean, target.mean);
}

// Unit eigenvector of the largest eigenvalue of a symmetric 4 x 4 matrix, by Jacobi rotations.
function largestEigenvector(m) {
  const size = 4, vectors = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]; // in columns
  for (let sweep = 0; sweep < 16; sweep++) {
    let rest = 0;
    for (let p = 0; p < size; p++) {
      for (let q = p + 1; q < size; q++) {
        if (!m[p][q]) continue;
        rest += m[p][q] ** 2;
        const theta = (m[q][q] - m[p][p]) / (2 * m[p][q]);
        const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.sqrt(theta * theta + 1));
        const c = 1 / Math.sqrt(t * t + 1), s = t * c;
        for (let k = 0; k < size; k++) [m[k][p], m[k][q]] = [c * m[k][p] - s * m[k][q], s * m[k][p] + c * m[k][q]];
        for (let k = 0; k < size; k++) [m[p][k], m[q][k]] = [c * m[p][k] - s * m[q][k], s * m[p][k] + c * m[q][k]];
        for (const row of vectors) [row[p], row[q]] = [c * row[p] - s * row[q], s * row[p] + c * row[q]];
      }
    }
    if (rest < 1e-40) break;
  }
  let best = 0;
  for (let k = 1; k < size; k++) if (m[k][k] > m[best][best]) best = k;
  return vectors.map((row) => row[best]);
}

// Points (3 R) relative to their mean, and their root mean square distance from it.
export function centered(points) {
  const mean = [0, 0, 0], offsets = new Float64Array(points.length), count = points.length / 3;
  for (let i = 0; i < points.length; i++) mean[i % 3] += points[i] / count;
  let sum = 0;
  for (let i = 0; i < points.length; i++) sum += (offsets[i] = points[i] - mean[i % 3]) ** 2;
  return { mean, offsets, spread: Math.sqrt(sum / count) };
}

export function gather(vertices, indices) {
  const found = new Float64Array(3 * indices.length);
  for (let i = 0; i < indices.length; i++) {
    const from = 3 * indices[i], to = 3 * i;
    found[to] = vertices[from]; found[to + 1] = vertices[from + 1]; found[to + 2] = vertices[from + 2];
  }
  return found;
}

// Sums (9, row by row) of products of the coordinates of two sets of points.
function moments({ offsets: a }, { offsets: b }) {
  const sums = new Float64Array(9);
  for (let i = 0; i < a.length; i += 3) {
    for (let row = 0; row < 3; row++) {
      for (let column = 0; column < 3; column++) sums[3 * row + column] += a[i + row] * b[i + column];
    }
  }
  return sums;
}

// Inverse of a 3 x 3 matrix (9, row by row).
function inverted([a, b, c, d, e, f, g, h, i]) {
  const det = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
  return [
    e * i - f * h, c * h - b * i, b * f - c * e,
    f * g - d * i, a * i - c * g, c * d - a * f,
    d * h - e * g, b * g - a * h, a * e - b * d,
  ].map((value) => value / det);
}

// The map x -> linear (x - from) + to; `linear` is 9 numbers, row by row.
function motion(linear, from, to) {
  const [a, b, c, d, e, f, g, h, i] = linear, [x, y, z] = from;
  return [
    a, d, g, 0, b, e, h, 0, c, f, i, 0,
    to[0] - a * x - b * y - c * z, to[1] - d * x - e * y - f * z, to[2] - g * x - h * y - i * z, 1,
  ];
}

const identity = () => [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];

function product(left, right) {
  const result = new Array(16).fill(0);
  for (let column = 0; column < 4; column++) {
    for (let row = 0; row < 4; row++) {
      for (let k = 0; k < 4; k++) result[4 * column + row] += left[4 * k + row] * right[4 * column + k];
    }
  }
  return result;
}
