// Light that reaches the inside of the mouth and the eyes, in shaders, as in faceverse/parts/occlusion.py.

export const MOUTH_CURVE = 3;
export const LID_SHADOWS = [[0.72, 3.4e-3], [0.4, 1.6e-3]]; // of the upper and lower lid: strength, reach in metres
const LIP_POINTS = 11, LID_POINTS = 9; // of an edge
const POINTS = { mouth: LIP_POINTS, eye_left: LID_POINTS, eye_right: LID_POINTS };

// GLSL: share of light at a point of the head through the opening between the lips, by the solid angle of its triangles.
export const MOUTH_LIGHT = `
uniform vec3 upperEdge[${LIP_POINTS}];
uniform vec3 lowerEdge[${LIP_POINTS}];
float solidAngle(vec3 a, vec3 b, vec3 c) {
  float x = length(a), y = length(b), z = length(c);
  return 2.0 * atan(dot(a, cross(b, c)), x * y * z + dot(a, b) * z + dot(b, c) * x + dot(c, a) * y);
}
float openingLight(vec3 point) {
  float angle = 0.0, depth = 0.0;
  for (int k = 0; k < ${LIP_POINTS}; k++) depth += (upperEdge[k].z + lowerEdge[k].z) / ${2 * LIP_POINTS}.0;
  for (int k = 0; k < ${LIP_POINTS - 1}; k++) {
    vec3 a = upperEdge[k] - point, b = upperEdge[k + 1] - point;
    vec3 c = lowerEdge[k + 1] - point, d = lowerEdge[k] - point;
    angle += solidAngle(a, d, c) + solidAngle(a, c, b);
  }
  float share = angle < 0.0 && point.z > depth ? 1.0 : clamp(angle / ${2 * Math.PI}, 0.0, 1.0);
  return 1.0 - pow(1.0 - share, ${MOUTH_CURVE.toFixed(6)});
}`;

// GLSL: share of light at a point of an eyeball beside its lids.
export const LID_LIGHT = `
uniform vec3 upperEdge[${LID_POINTS}];
uniform vec3 lowerEdge[${LID_POINTS}];
float toSegment(vec3 point, vec3 start, vec3 end) {
  vec3 along = end - start;
  return distance(point, start + along * clamp(dot(point - start, along) / max(dot(along, along), 1e-12), 0.0, 1.0));
}
float openingLight(vec3 point) {
  float upper = 1.0, lower = 1.0;
  for (int k = 0; k < ${LID_POINTS - 1}; k++) {
    upper = min(upper, toSegment(point, upperEdge[k], upperEdge[k + 1]));
    lower = min(lower, toSegment(point, lowerEdge[k], lowerEdge[k + 1]));
  }
  return ${LID_SHADOWS.map(([strength, reach], k) =>
    `(1.0 - ${strength.toFixed(6)} * exp(-pow(${["upper", "lower"][k]} / ${reach.toFixed(6)}, 1.5)))`).join(" * ")};
}`;

// Edges of the openings that let light in, as they move.
export class Edges {
  constructor() {
    this.openings = Object.fromEntries(Object.entries(POINTS).map(([name, count]) => [
      name, { upper: new Float32Array(3 * count), lower: new Float32Array(3 * count) },
    ]));
  }

  // Takes over the edges of a head's pack.
  setHead({ edges, edgeTriangle, edgeWeights }) {
    Object.assign(this, { edges, edgeTriangle, edgeWeights });
  }

  // Whether the head has this opening with all its points.
  has(name) {
    return this.edges?.[name] === 2 * POINTS[name];
  }

  follow(vertices) {
    let point = 0;
    for (const [name, count] of Object.entries(this.edges ?? {})) {
      const { upper, lower } = this.openings[name];
      for (let k = 0; k < count; k++, point++) {
        const half = count / 2, edge = k < half ? upper : lower, to = 3 * (k % half);
        for (let axis = 0; axis < 3; axis++) {
          let sum = 0;
          for (let i = 3 * point; i < 3 * point + 3; i++) {
            sum += this.edgeWeights[i] * vertices[3 * this.edgeTriangle[i] + axis];
          }
          edge[to + axis] = sum;
        }
      }
    }
  }
}
