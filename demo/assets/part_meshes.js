// Parts of a head for three.js: a mesh for each slot, which follows the blended head.

import { loadPack, loadTexture } from "./files.js";
import { Edges } from "./occlusion.js";
import { partMaterial } from "./part_material.js";
import { BoundPart, vertexNormals } from "./parts.js";

const ORDER = ["cornea", "tear", "lashes", "brows"]; // of transparent parts, which do not hide each other
const MOUTH_SLOTS = ["teeth_upper", "teeth_lower", "tongue"];

// Packs and textures of parts, which are loaded once each.
export class PartFiles {
  constructor() {
    this.packs = new Map();
    this.textures = new Map();
  }

  // `addresses`: {slot: {mesh, texture}}, the texture may be missing. Returns {slot: {pack, texture}}.
  async load(addresses) {
    const found = await Promise.all(Object.values(addresses ?? {}).map(async ({ mesh, texture }) => {
      const [pack, image] = await Promise.all([
        once(this.packs, mesh, loadPack), texture && once(this.textures, texture, loadTexture),
      ]);
      return { pack, texture: image };
    }));
    return Object.fromEntries(Object.keys(addresses ?? {}).map((slot, k) => [slot, found[k]]));
  }

  // Frees the textures that none of these parts has.
  keep(...used) {
    const kept = new Set(used.flatMap((parts) => Object.values(parts ?? {}).map(({ texture }) => texture)));
    for (const [address, promise] of this.textures) {
      promise.then((texture) => { if (!kept.has(texture)) { texture.dispose(); } }, () => {});
      promise.then((texture) => { if (!kept.has(texture)) this.textures.delete(address); }, () => {});
    }
  }
}

function once(known, address, load) {
  if (!known.has(address)) {
    const promise = load(address);
    known.set(address, promise);
    promise.catch(() => known.delete(address));
  }
  return known.get(address);
}

export class PartMeshes {
  constructor(viewMode, anisotropy) {
    this.edges = new Edges();
    this.anisotropy = anisotropy;
    this.group = new THREE.Group();
    this.parts = new Map();
    this.viewMode = viewMode;
    this.wire = new THREE.MeshBasicMaterial({ color: 0x1d2a3a, wireframe: true, transparent: true, opacity: 0.3 });
  }

  // Takes over {slot: {pack, texture}} and the pack of the head.
  setHead(files, head) {
    this.edges.setHead(head);
    for (const [slot, part] of this.parts) if (!(slot in files)) this.remove(slot, part);
    for (const [slot, { pack, texture }] of Object.entries(files)) {
      const present = this.parts.get(slot);
      if (present?.pack === pack) present.mesh.material.map = prepared(texture, this.anisotropy);
      else {
        if (present) this.remove(slot, present);
        this.parts.set(slot, this.make(slot, pack, prepared(texture, this.anisotropy)));
      }
    }
    this.shape = null;
    this.setMode(this.mode);
  }

  make(slot, pack, texture) {
    const bound = new BoundPart(pack), geometry = new THREE.BufferGeometry();
    const corners = pack.vertexOfCorner.length, faces = pack.cornerFaces.map((corner) => pack.vertexOfCorner[corner]);
    for (const name of ["position", "normal"]) {
      geometry.setAttribute(name, new THREE.BufferAttribute(new Float32Array(3 * corners), 3)
        .setUsage(bound.isSurface ? THREE.DynamicDrawUsage : THREE.StaticDrawUsage));
    }
    geometry.setAttribute("uv", new THREE.BufferAttribute(pack.uv, 2));
    geometry.setIndex(new THREE.BufferAttribute(pack.cornerFaces, 1));
    const mesh = new THREE.Mesh(geometry, partMaterial(slot, pack, texture, this.opening(slot), this.viewMode));
    const wire = new THREE.Mesh(geometry, this.wire);
    for (const each of [mesh, wire]) {
      each.frustumCulled = false;
      each.renderOrder = ORDER.indexOf(slot.split("_")[0]);
      each.matrixAutoUpdate = false;
      this.group.add(each);
    }
    const part = { pack, bound, faces, geometry, mesh, wire, normals: new Float32Array(bound.vertices.length) };
    if (!bound.isSurface) write(part);
    return part;
  }

  // The opening through which light reaches a slot, if the head has it.
  opening(slot) {
    const eye = slot.replace("cornea", "eye");
    const name = eye in this.edges.openings ? eye : MOUTH_SLOTS.includes(slot) ? "mouth" : null;
    return name && this.edges.has(name) ? { name, ...this.edges.openings[name] } : null;
  }

  remove(slot, { mesh, wire, geometry }) {
    this.group.remove(mesh, wire);
    geometry.dispose();
    mesh.material.dispose();
    this.parts.delete(slot);
  }

  // Moves the parts with a `BlendedHead` that has moved.
  follow(head) {
    const isReshaped = head.shape !== this.shape;
    this.shape = head.shape;
    this.edges.follow(head.vertices);
    for (const part of this.parts.values()) {
      const { bound, mesh, wire } = part;
      if (isReshaped) bound.place(head.base);
      bound.follow(head.vertices);
      if (bound.isSurface) write(part);
      else {
        for (const each of [mesh, wire]) each.matrix.fromArray(bound.matrix);
        mesh.material.userData.toHead.copy(mesh.matrix);
        for (const each of [mesh, wire]) each.matrixWorldNeedsUpdate = true;
      }
    }
  }

  // Hair and corneas show in colours only; the other views show the surface.
  setMode(mode) {
    this.mode = mode;
    for (const { pack, mesh, wire } of this.parts.values()) {
      mesh.visible = mode === "colour" || pack.alphaMode === "OPAQUE";
      wire.visible = mode === "wire" && pack.alphaMode === "OPAQUE";
    }
  }
}

// Writes the vertices of a part and their normals to the buffers of its mesh.
function write({ pack, bound, faces, geometry, normals }) {
  const { position, normal } = geometry.attributes;
  vertexNormals(bound.vertices, faces, normals);
  pack.vertexOfCorner.forEach((vertex, corner) => {
    for (let axis = 0; axis < 3; axis++) {
      position.array[3 * corner + axis] = bound.vertices[3 * vertex + axis];
      normal.array[3 * corner + axis] = normals[3 * vertex + axis];
    }
  });
  position.needsUpdate = normal.needsUpdate = true;
}

function prepared(texture, anisotropy) {
  texture.flipY = false;
  texture.encoding = THREE.sRGBEncoding;
  texture.anisotropy = anisotropy;
  return texture;
}
