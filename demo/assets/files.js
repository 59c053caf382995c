// Files of the server: three.js, packs as written by demo/view_files.py, textures.

// Array types by NumPy's names.
const TYPES = {
  uint8: Uint8Array, int8: Int8Array, uint16: Uint16Array, int16: Int16Array, uint32: Uint32Array,
  float32: Float32Array,
};

export function loadScript(address) {
  if (window.THREE) return Promise.resolve();
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = address;
    script.onload = resolve;
    script.onerror = () => reject(new Error(`could not load ${address}`));
    document.head.append(script);
  });
}

export async function loadPack(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  return readPack(await answer.arrayBuffer());
}

// Values and typed arrays of a pack by name.
export async function readPack(buffer) {
  const start = new Uint8Array(buffer, 0, 2);
  if (start[0] === 0x1f && start[1] === 0x8b) {
    const unpacked = new Blob([buffer]).stream().pipeThrough(new DecompressionStream("gzip"));
    buffer = await new Response(unpacked).arrayBuffer();
  }
  const headerBytes = new Uint32Array(buffer, 0, 1)[0];
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, headerBytes)));
  const pack = { ...header.values };
  for (const [name, entry] of Object.entries(header.arrays)) {
    pack[name] = new TYPES[entry.type](buffer, 4 + headerBytes + entry.start, entry.length);
  }
  return pack;
}

export const loadModel = async (address) => unpackModel(await loadPack(address));

// Decodes the directions of a model's attributes: `offset` (3 V) interleaved, `tint` (3 V) or null, `gain` (E).
export function unpackModel(model) {
  const size = 3 * model.vertexCount, expressions = model.names.length;
  let tints = 0;
  model.directions.forEach((direction, a) => {
    const differences = model.attributeOffset.subarray(a * size, (a + 1) * size);
    direction.offset = new Int16Array(size);
    for (let axis = 0; axis < 3; axis++) {
      let sum = 0;
      for (let v = 0, from = axis * model.vertexCount; v < model.vertexCount; v++) {
        sum += differences[from + v];
        direction.offset[3 * v + axis] = sum;
      }
    }
    direction.tint = direction.tintScale ? model.attributeTint.subarray(size * tints, size * ++tints) : null;
    direction.gain = model.attributeGain.subarray(a * expressions, (a + 1) * expressions);
  });
  model.attributeOffset = null;
  return model;
}

export function loadTexture(address) {
  return new Promise((resolve, reject) => {
    new THREE.TextureLoader().load(address, resolve, undefined, () => reject(new Error("the texture is gone")));
  });
}
