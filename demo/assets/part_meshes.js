// Parts of a head for three.js: a mesh for each slot, which follows the blended head.

import { loadPack, loadTexture } from "./files.js";
import { hairMaterial } from "./hair_material.js";
import { BoundHair, hairTint, shapeOf } from "./hair_shape.js";
import { Edges } from "./occlusion.js";
import { partMaterial } from "./part_material.js";
import { BoundPart, vertexNormals } from "./parts.js";

const ORDER = ["cornea", "tear", "lashes", "brows", "beard", "scalp", "hair"]; // of transparent parts, which do not hide each other
const AS_MADE = { length: 1, fringe: 1, wave: 0, volume_top: 1, volume_sides: 1, volume_back: 1 };
const HAIR_PASSES = { scalp: ["cap"], hair: ["solid", "edges"] };
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
    this.hair = { color: "#808080", grey: 0, shape: shapeOf(null, AS_MADE) };
    this.wire = new THREE.MeshBasicMaterial({ color: 0x1d2a3a, wireframe: true, transparent: true, opacity: 0.3 });
  }

  // Takes over {slot: {pack, texture}} and the pack of the head.
  setHead(files, head) {
    this.edges.setHead(head);
    this.warp = head.hairWarp ?? null;
    for (const [slot, part] of this.parts) if (!(slot in files)) this.remove(slot, part);
    for (const [slot, { pack, texture }] of Object.entries(files)) {
      const present = this.parts.get(slot);
      if (present?.pack === pack) {
        for (const { material } of present.meshes) material.map = prepared(texture, this.anisotropy);
      }
      else {
        if (present) this.remove(slot, present);
        this.parts.set(slot, this.make(slot, pack, prepared(texture, this.anisotropy)));
      }
    }
    this.shape = null;
    this.setMode(this.mode);
  }

  make(slot, pack, texture) {
    const bound = slot === "hair" ? new BoundHair(pack) : new BoundPart(pack), geometry = new THREE.BufferGeometry();
    const corners = pack.vertexOfCorner.length, faces = pack.cornerFaces.map((corner) => pack.vertexOfCorner[corner]);
    for (const name of ["position", "normal"]) {
      geometry.setAttribute(name, new THREE.BufferAttribute(new Float32Array(3 * corners), 3)
        .setUsage(bound.isSurface ? THREE.DynamicDrawUsage : THREE.StaticDrawUsage));
    }
    geometry.setAttribute("uv", new THREE.BufferAttribute(pack.uv, 2));
    geometry.setIndex(new THREE.BufferAttribute(pack.cornerFaces, 1));
    const passes = HAIR_PASSES[slot];
    if (passes) addStrands(geometry, pack);
    const materials = passes?.map((pass) => hairMaterial(slot, pack, texture, this.viewMode, pass))
      ?? [partMaterial(slot, pack, texture, this.opening(slot), this.viewMode)];
    const meshes = [...materials, this.wire].map((material) => new THREE.Mesh(geometry, material)), wire = meshes.pop();
    for (const each of [...meshes, wire]) {
      each.frustumCulled = false;
      each.renderOrder = ORDER.indexOf(slot.split("_")[0]);
      each.matrixAutoUpdate = false;
      this.group.add(each);
    }
    const part = { slot, pack, bound, faces, geometry, meshes, wire, normals: new Float32Array(bound.vertices.length) };
    if (passes) this.tint(part);
    if (!bound.isSurface && slot !== "hair") write(part);
    return part;
  }

  // The opening through which light reaches a slot, if the head has it.
  opening(slot) {
    const eye = slot.replace("cornea", "eye");
    const name = eye in this.edges.openings ? eye : MOUTH_SLOTS.includes(slot) ? "mouth" : null;
    return name && this.edges.has(name) ? { name, ...this.edges.openings[name] } : null;
  }

  remove(slot, { meshes, wire, geometry }) {
    this.group.remove(...meshes, wire);
    geometry.dispose();
    for (const { material } of meshes) material.dispose();
    this.parts.delete(slot);
  }

  // Colour of the hair ("#rrggbb", share of grey hairs) and its shape, see `shapeOf`. Returns whether the shape changed.
  setHair({ color, grey, shape }) {
    const isReshaped = JSON.stringify(shape) !== JSON.stringify(this.hair.shape);
    this.hair = { color, grey, shape: isReshaped ? shape : this.hair.shape };
    for (const part of this.parts.values()) if (part.slot in HAIR_PASSES) this.tint(part);
    return isReshaped && this.parts.has("hair");
  }

  tint({ slot, meshes }) {
    for (const { material } of meshes) material.userData.tint.set(...hairTint(this.hair.color, this.hair.grey, slot));
  }

  // Moves the parts with a `BlendedHead` that has moved.
  follow(head) {
    const isReshaped = head.shape !== this.shape;
    this.shape = head.shape;
    this.edges.follow(head.vertices);
    for (const part of this.parts.values()) {
      const { bound, meshes, wire, slot } = part;
      if (slot === "hair") this.placeHair(part, head, isReshaped);
      else if (isReshaped) bound.place(head.base);
      bound.follow(head.vertices);
      if (bound.isSurface) write(part);
      else {
        for (const each of [...meshes, wire]) {
          each.matrix.fromArray(bound.matrix);
          each.matrixWorldNeedsUpdate = true;
        }
        for (const { material } of meshes) material.userData.toHead.copy(meshes[0].matrix);
      }
    }
  }

  placeHair(part, { base, model }, isReshaped) {
    const { shape } = this.hair;
    if (!isReshaped && part.shown === shape) return;
    part.shown = shape;
    part.bound.place(base, shape, model.faces, this.warp);
    write(part);
  }

  // Lashes and corneas show in colours only; the other views show the surface.
  setMode(mode) {
    this.mode = mode;
    for (const { pack, slot, meshes, wire } of this.parts.values()) {
      const isShown = mode === "colour" || pack.alphaMode === "OPAQUE" || (slot === "hair" && mode !== "uv");
      for (const mesh of meshes) mesh.visible = isShown;
      wire.visible = mode === "wire" && pack.alphaMode === "OPAQUE";
    }
  }
}

// Writes the vertices of a part and their normals to the buffers of its mesh.
function write({ pack, bound, faces, geometry, normals }) {
  const { position, normal } = geometry.attributes;
  if (bound.normals) normals.set(bound.normals);
  else vertexNormals(bound.vertices, faces, normals);
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

// Attributes of hair by corner: directions of the strands, and shares of the light that arrives.
function addStrands(geometry, { vertexOfCorner, strand, light }) {
  const count = vertexOfCorner.length, directions = new Int8Array(3 * count), shares = new Uint8Array(count).fill(255);
  vertexOfCorner.forEach((vertex, corner) => {
    for (let axis = 0; axis < 3; axis++) directions[3 * corner + axis] = strand ? strand[3 * vertex + axis] : 127 * (axis === 1);
    if (light) shares[corner] = light[vertex];
  });
  geometry.setAttribute("strand", new THREE.BufferAttribute(directions, 3, true));
  geometry.setAttribute("hairLight", new THREE.BufferAttribute(shares, 1, true));
}
