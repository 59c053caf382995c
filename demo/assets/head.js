// Geometry of one head for three.js: the arrays of `BlendedHead` as buffers.

import { BlendedHead } from "./blending.js";
import { skinFaces } from "./parts.js";

export class HeadGeometry {
  constructor(model) {
    this.model = model;
    this.head = new BlendedHead(model);
    this.geometry = new THREE.BufferGeometry();
    this.geometry.setIndex(new THREE.BufferAttribute(model.cornerFaces, 1));
    this.geometry.setAttribute("uv", new THREE.BufferAttribute(model.uv, 2));
    const { positions, cornerNormals, tangents, colours } = this.head;
    for (const [name, array, width] of [
      ["position", positions, 3], ["normal", cornerNormals, 3], ["tangent", tangents, 4], ["color", colours, 3],
    ]) {
      this.geometry.setAttribute(name, new THREE.BufferAttribute(array, width).setUsage(THREE.DynamicDrawUsage));
    }
    const roughness = Uint8Array.from(model.vertexOfCorner, (vertex) => model.roughness[vertex]);
    this.geometry.setAttribute("vertexRoughness", new THREE.BufferAttribute(roughness, 1, true));
    const inMouth = Uint8Array.from(model.vertexOfCorner, (vertex) => model.inMouth[vertex]);
    this.geometry.setAttribute("inMouth", new THREE.BufferAttribute(inMouth, 1));
  }

  setHead(pack) {
    this.head.setHead(pack);
    if (String(pack.isSkin) === this.isSkin) return;
    this.isSkin = String(pack.isSkin);
    this.geometry.setIndex(new THREE.BufferAttribute(skinFaces(this.model.cornerFaces, pack.isSkin), 1));
  }

  // See `BlendedHead.blend`; returns whether the surface has moved.
  blend(expression, attributes) {
    const { moved, tinted } = this.head.blend(expression, attributes);
    const { position, normal, tangent, color } = this.geometry.attributes;
    for (const buffer of moved ? [position, normal, tangent] : []) buffer.needsUpdate = true;
    if (tinted) color.needsUpdate = true;
    return moved;
  }
}
