// The 3D view of the page: a textured head that is morphed here, in typed arrays, so that expression sliders need no
// request. Files are packs as written by demo/viewer.py. Metres, +y up, the face looks along +z.

const VIEW_HEIGHT_M = 0.34; // visible at the head's centre before any zoom
const FIELD_OF_VIEW_DEG = 22;
const CLAY = 0xb9b4ae;
const PARTS = ["model", "head", "texture", "normal", "smooth"]; // addresses in a value of the component
const PICTURES = ["texture", "normal", "smooth"]; // those that are pictures: colours, relief, colours without detail

// Colours follow the strength of the detail as they do in a download: geometrically from those without detail to those
// with all of it, and beyond.
const STRENGTH_PARAMETERS = "#include <common>\nuniform float detailStrength;\nuniform sampler2D smoothMap;";
const STRENGTH_OF_COLOURS = `#include <map_fragment>
#ifdef USE_MAP
  vec3 smoothTexel = sRGBToLinear(texture2D(smoothMap, vUv)).rgb;
  vec3 pigment = clamp((texelColor.rgb + 0.001) / (smoothTexel + 0.001), 0.1, 10.0);
  diffuseColor.rgb *= pow(pigment, vec3(detailStrength - 1.0));
#endif`;

// Array types by the names that NumPy gives them.
const TYPES = { int8: Int8Array, uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, int16: Int16Array, float32: Float32Array };

function loadScript(address) {
  if (window.THREE) return Promise.resolve();
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = address;
    script.onload = resolve;
    script.onerror = () => reject(new Error(`could not load ${address}`));
    document.head.append(script);
  });
}

async function loadPack(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  let buffer = await answer.arrayBuffer();
  if (new Uint8Array(buffer, 0, 1)[0] === 0x1f) {
    buffer = await new Response(new Blob([buffer]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  }
  const headerBytes = new Uint32Array(buffer, 0, 1)[0];
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, headerBytes)));
  const pack = { ...header.values };
  for (const [name, entry] of Object.entries(header.arrays)) {
    pack[name] = new TYPES[entry.type](buffer, 4 + headerBytes + entry.start, entry.length);
  }
  return pack;
}

function loadTexture(address) {
  return new Promise((resolve, reject) => {
    new THREE.TextureLoader().load(address, resolve, undefined, () => reject(new Error("the texture is gone")));
  });
}

// Geometry of one head: neutral vertices plus weighted sparse offsets, normals without breaks at texture seams.
class Head {
  constructor(model) {
    this.model = model;
    const vertexCount = model.vertexCount;
    const cornerCount = model.vertexOfCorner.length;
    this.neutral = new Float32Array(3 * vertexCount);
    this.vertices = new Float32Array(3 * vertexCount);
    this.normals = new Float32Array(3 * vertexCount);
    this.geometry = new THREE.BufferGeometry();
    this.geometry.setIndex(new THREE.BufferAttribute(model.cornerFaces, 1));
    this.geometry.setAttribute("uv", new THREE.BufferAttribute(model.uv, 2));
    for (const name of ["position", "normal"]) {
      const attribute = new THREE.BufferAttribute(new Float32Array(3 * cornerCount), 3);
      attribute.setUsage(THREE.DynamicDrawUsage);
      this.geometry.setAttribute(name, attribute);
    }
    this.weights = new Float32Array(model.names.length);
    this.gain = new Float32Array(model.names.length).fill(1);
  }

  blend() {
    const { names, offsetStart, offsetVertex, offset, offsetScale } = this.model;
    this.vertices.set(this.neutral);
    for (let k = 0; k < names.length; k++) {
      if (!this.weights[k]) continue;
      const factor = this.weights[k] * this.gain[k] * offsetScale[k];
      for (let i = offsetStart[k]; i < offsetStart[k + 1]; i++) {
        const at = 3 * offsetVertex[i];
        this.vertices[at] += factor * offset[3 * i];
        this.vertices[at + 1] += factor * offset[3 * i + 1];
        this.vertices[at + 2] += factor * offset[3 * i + 2];
      }
    }
    this.computeNormals();
    this.copyToCorners(this.vertices, this.geometry.attributes.position);
    this.copyToCorners(this.normals, this.geometry.attributes.normal);
  }

  computeNormals() {
    const faces = this.model.faces, p = this.vertices, n = this.normals;
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

// Camera that circles around the head; drag, wheel, pinch, keyboard.
class Orbit {
  constructor(canvas, onChange) {
    this.canvas = canvas;
    this.onChange = onChange;
    this.pointers = new Map();
    this.reset();
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => this.pointers.delete(event.pointerId));
    }
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoomBy(Math.exp(-0.0012 * event.deltaY));
    }, { passive: false });
    canvas.addEventListener("dblclick", () => this.reset());
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  reset() {
    this.turnTo(0, 0);
    this.zoom = 1;
    this.onChange();
  }

  turnTo(yaw, pitch) {
    this.yaw = yaw;
    this.pitch = Math.max(-1.3, Math.min(1.3, pitch));
    this.onChange();
  }

  zoomBy(factor) {
    this.zoom = Math.max(0.6, Math.min(6, this.zoom * factor));
    this.onChange();
  }

  press(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const now = [event.clientX, event.clientY];
    if (this.pointers.size === 1) {
      const perPixel = 3 / this.canvas.clientHeight;
      this.turnTo(this.yaw - (now[0] - before[0]) * perPixel, this.pitch + (now[1] - before[1]) * perPixel);
    } else {
      const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
      const distance = (place) => Math.hypot(place[0] - other[0], place[1] - other[1]) || 1;
      this.zoomBy(distance(now) / distance(before));
    }
    this.pointers.set(event.pointerId, now);
  }

  key(event) {
    const turns = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };
    if (event.key in turns) this.turnTo(this.yaw + turns[event.key][0], this.pitch + turns[event.key][1]);
    else if (event.key === "+" || event.key === "=") this.zoomBy(1.1);
    else if (event.key === "-") this.zoomBy(1 / 1.1);
    else if (event.key === "0") this.reset();
    else return;
    event.preventDefault();
  }

  place(camera, target) {
    const distance = VIEW_HEIGHT_M / 2 / Math.tan((FIELD_OF_VIEW_DEG * Math.PI) / 360) / this.zoom;
    const wide = Math.max(1, 0.78 / camera.aspect); // in a narrow frame the head's width decides
    camera.position.set(
      target.x + distance * wide * Math.cos(this.pitch) * Math.sin(this.yaw),
      target.y + distance * wide * Math.sin(this.pitch),
      target.z + distance * wide * Math.cos(this.pitch) * Math.cos(this.yaw),
    );
    camera.lookAt(target);
  }
}

class Viewer {
  constructor(element, threeAddress) {
    this.element = element;
    this.threeAddress = threeAddress;
    this.stage = element.querySelector(".fv-stage");
    this.canvas = element.querySelector(".fv-canvas");
    this.models = new Map();
    this.person = null;
    this.strength = { value: 1 };
    this.smoothMap = { value: null };
    this.wanted = {};
    this.latest = {}; // value of the component
    this.pictures = {};
    this.shown = {}; // the one that is in the scene
    this.shownParts = this.loading = null;
    this.orbit = new Orbit(this.canvas, () => this.redraw());
    for (const button of element.querySelectorAll("[data-yaw]")) {
      button.addEventListener("click", () => this.orbit.turnTo((button.dataset.yaw * Math.PI) / 180, 0));
    }
    this.clayButton = element.querySelector("[data-clay]");
    this.clayButton.addEventListener("click", () => this.toggleClay());
    new ResizeObserver(() => this.redraw()).observe(this.stage);
  }

  // Called with every new value of the component; the newest one wins, whatever arrives first. Values that only tell
  // how far the work is do not disturb the loading of what they have in common.
  async show(value) {
    if (value.edition < this.latest.edition) return; // an answer that another one has overtaken
    this.latest = value;
    const parts = PARTS.map((part) => value[part]).join();
    if (value.status || !value.head || parts === this.shownParts) this.showProgress(value);
    if (parts === this.loading || parts === this.shownParts) return;
    this.loading = parts;
    try {
      const model = value.model && (await this.load(this.models, value.model));
      if (!value.head || parts !== this.loading) return;
      const picture = (part) =>
        value[part] === this.shown[part] ? this.pictures[part] : value[part] && loadTexture(value[part]);
      const [pack, ...pictures] = await Promise.all([loadPack(value.head), ...PICTURES.map(picture)]);
      if (parts !== this.loading) return;
      this.place(value, model, pack, Object.fromEntries(PICTURES.map((part, k) => [part, pictures[k]])));
      this.shown = value;
      this.shownParts = parts;
      this.showProgress(this.latest);
    } catch (error) {
      if (parts === this.loading) this.fail(error);
    } finally {
      if (parts === this.loading) this.loading = null;
    }
  }

  async load(cache, address) {
    await loadScript(this.threeAddress);
    if (!cache.has(address)) cache.set(address, loadPack(address));
    try {
      return await cache.get(address);
    } catch (error) {
      cache.delete(address);
      throw error;
    }
  }

  place(value, model, pack, pictures) {
    if (!this.renderer) this.makeScene();
    if (!this.head || this.head.model !== model) {
      this.mesh?.removeFromParent();
      this.head = new Head(model);
      this.mesh = new THREE.Mesh(this.head.geometry, this.material);
      this.mesh.frustumCulled = false;
      this.scene.add(this.mesh);
    }
    this.head.neutral.set(pack.neutral);
    this.head.gain.set(pack.gain);
    if (value.person !== this.person) {
      this.person = value.person;
      this.wanted = { ...value.expression };
      this.strength.value = 1;
      this.orbit.reset();
      this.comeIntoSight();
    }
    for (const part of PICTURES.filter((name) => pictures[name] !== this.pictures[name])) {
      this.pictures[part]?.dispose();
      if (!pictures[part]) continue;
      pictures[part].flipY = false;
      pictures[part].anisotropy = this.renderer.capabilities.getMaxAnisotropy();
      pictures[part].encoding = part === "texture" ? THREE.sRGBEncoding : THREE.LinearEncoding;
    }
    this.pictures = pictures;
    this.dress();
    this.center.set(...pack.center);
    this.blend();
  }

  makeScene() {
    this.renderer = new THREE.WebGLRenderer({ canvas: this.canvas, antialias: true, alpha: true });
    this.renderer.outputEncoding = THREE.sRGBEncoding;
    this.canvas.addEventListener("webglcontextrestored", () => this.redraw());
    this.scene = new THREE.Scene();
    this.camera = new THREE.PerspectiveCamera(FIELD_OF_VIEW_DEG, 1, 0.05, 10);
    this.center = new THREE.Vector3();
    this.material = new THREE.MeshStandardMaterial({ roughness: 0.62, metalness: 0 });
    this.material.onBeforeCompile = (shader) => {
      Object.assign(shader.uniforms, { detailStrength: this.strength, smoothMap: this.smoothMap });
      shader.fragmentShader = shader.fragmentShader
        .replace("#include <common>", STRENGTH_PARAMETERS)
        .replace("#include <map_fragment>", STRENGTH_OF_COLOURS);
    };
    this.scene.add(new THREE.HemisphereLight(0xffffff, 0x9a938c, 0.62), this.camera);
    for (const [strength, x, y, z] of [[0.42, -0.5, 0.7, 1], [0.16, 1, 0.1, 0.4]]) {
      const lamp = new THREE.DirectionalLight(0xffffff, strength);
      lamp.position.set(x, y, z);
      this.camera.add(lamp, lamp.target); // the lamps travel with the onlooker
    }
  }

  dress() {
    const clay = this.clayButton.getAttribute("aria-pressed") === "true";
    const { texture, normal, smooth } = this.pictures;
    this.material.map = clay ? null : texture;
    this.smoothMap.value = smooth ?? texture;
    this.material.color.setHex(clay ? CLAY : 0xffffff).convertSRGBToLinear();
    this.material.normalMap = normal ?? null;
    this.setRelief();
    this.material.needsUpdate = true;
    this.redraw();
  }

  // Without tangents in the mesh the map's green points down the picture in three.js, and up in glTF.
  setRelief() {
    this.material.normalScale.set(this.strength.value, -this.strength.value);
  }

  setStrength(strength) {
    this.strength.value = strength;
    if (!this.material) return;
    this.setRelief();
    this.redraw();
  }

  toggleClay() {
    const pressed = this.clayButton.getAttribute("aria-pressed") === "true";
    this.clayButton.setAttribute("aria-pressed", String(!pressed));
    if (this.material) this.dress();
  }

  setExpression(names, weight) {
    for (const name of names) this.wanted[name] = weight;
    this.blendSoon ??= requestAnimationFrame(() => this.blend());
  }

  blend() {
    this.blendSoon = undefined;
    if (!this.head) return;
    const start = performance.now();
    this.head.model.names.forEach((name, k) => { this.head.weights[k] = this.wanted[name] ?? 0; });
    this.head.blend();
    this.stage.dataset.blendMs = (performance.now() - start).toFixed(2);
    this.draw();
  }

  redraw() {
    this.drawSoon ??= requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.drawSoon = undefined;
    if (!this.mesh) return;
    const width = this.stage.clientWidth, height = this.stage.clientHeight;
    if (!width || !height) return;
    const ratio = Math.min(window.devicePixelRatio, 2);
    if (this.canvas.width !== Math.floor(width * ratio) || this.canvas.height !== Math.floor(height * ratio)) {
      this.renderer.setPixelRatio(ratio);
      this.renderer.setSize(width, height, false);
      this.camera.aspect = width / height;
      this.camera.updateProjectionMatrix();
    }
    this.orbit.place(this.camera, this.center);
    this.renderer.render(this.scene, this.camera);
    this.stage.dataset.drawn = Number(this.stage.dataset.drawn ?? 0) + 1;
  }

  // On a phone the 3D view lies below the photograph: show it when there is something to see.
  comeIntoSight() {
    if (this.stage.getBoundingClientRect().top > 0.6 * window.innerHeight) {
      this.stage.scrollIntoView({ behavior: "smooth", block: "center" });
    }
  }

  showProgress({ head, person, status }) {
    if (!status) {
      this.stage.dataset.state = head && this.mesh ? "ready" : "empty";
      return;
    }
    // Once the base head is there, work on its detail leaves it free.
    const free = status.refining && this.mesh && person === this.person;
    this.stage.dataset.state = free ? "refining" : "busy";
    this.element.querySelector(".fv-step").textContent = status.text;
    this.element.querySelector(".fv-bar > div").style.width = `${Math.round(100 * status.fraction)}%`;
    const preview = this.element.querySelector(".fv-preview");
    if (status.preview) preview.src = status.preview;
    preview.hidden = !status.preview && (preview.hidden || status.fraction === 0); // until there is a newer one
  }

  fail(error) {
    const note = this.element.querySelector(".fv-failed");
    const reason = /webgl/i.test(error.message) ? "WebGL is switched off in this browser" : error.message;
    note.textContent = `The 3D view cannot be shown (${reason}). The pictures and the downloads are complete.`;
    this.stage.dataset.state = "failed";
  }
}

export function mount(element, props, watch) {
  const viewer = new Viewer(element, props.three_url);
  window.faceverse = {
    setExpression: (names, weight) => viewer.setExpression(names, weight),
    setStrength: (strength) => viewer.setStrength(strength),
  };
  const show = () => props.value && viewer.show(props.value);
  watch("value", show);
  show();
}
