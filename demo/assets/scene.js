// The three.js scene: the head under three directional lights that move with the camera.

import { loadTexture } from "./files.js";
import { HeadGeometry } from "./head.js";
import { lightColour, lightDirection } from "./lighting.js";
import { HeadMaterial } from "./material.js";
import { FIELD_OF_VIEW_DEG, OrbitCamera } from "./orbit.js";
import { PartMeshes } from "./part_meshes.js";

export const TEXTURES = ["texture", "normal", "smooth", "wrinkles"];
const SCREENSHOT_PX = 1600;
const BACKGROUNDS = { white: "#ffffff", grey: "#808080", black: "#000000" };
// Intensity and direction (right, up, towards the camera) of the fill and rim lights; intensity of the key light.
const KEY = 0.6, FILL = [0.16, 1, 0.05, 0.55], RIM = [0.16, 0.75, 0.35, -0.8];
const SKY = 0.52;
const DEGREE = Math.PI / 180;

export class Scene {
  // `light` is that of a state without one. Throws where the browser has no WebGL.
  constructor(canvas, viewport, grab, light) {
    Object.assign(this, { canvas, viewport, initialLight: light });
    this.renderer = new THREE.WebGLRenderer({ canvas, antialias: true, alpha: true });
    this.renderer.outputEncoding = THREE.sRGBEncoding;
    canvas.addEventListener("webglcontextrestored", () => this.redraw());
    this.scene = new THREE.Scene();
    this.camera = new THREE.PerspectiveCamera(FIELD_OF_VIEW_DEG, 1, 0.02, 10);
    this.center = new THREE.Vector3();
    this.pivot = new THREE.Group(); // rotates the head about its centre
    this.lights = [KEY, FILL[0], RIM[0]].map((intensity) => new THREE.DirectionalLight(0xffffff, intensity));
    this.lights[1].position.set(...FILL.slice(1));
    this.lights[2].position.set(...RIM.slice(1));
    for (const light of this.lights) this.camera.add(light, light.target);
    this.sky = new THREE.HemisphereLight(0xffffff, 0x8d8580, SKY);
    this.scene.add(this.sky, this.camera, this.pivot);
    this.orbit = new OrbitCamera(canvas, { onChange: () => this.redraw(), grab });
    this.setLight({});
    new ResizeObserver(() => this.redraw()).observe(viewport);
  }

  // Takes over a face model; the head is empty until `setHead`.
  setModel(model) {
    if (this.head?.model === model) return;
    this.pivot.clear();
    this.head = new HeadGeometry(model);
    this.material = new HeadMaterial(model);
    this.mesh = new THREE.Mesh(this.head.geometry, this.material.material);
    this.wire = new THREE.Mesh(this.head.geometry, this.material.wire);
    for (const mesh of [this.mesh, this.wire]) mesh.frustumCulled = false;
    this.parts = new PartMeshes(this.material.uniforms.viewMode, this.renderer.capabilities.getMaxAnisotropy());
    this.pivot.add(this.mesh, this.wire, this.parts.group);
    this.setMode(this.mode ?? "colour");
  }

  async loadTexture(name, address) {
    const texture = await loadTexture(address);
    texture.flipY = false;
    texture.anisotropy = this.renderer.capabilities.getMaxAnisotropy();
    texture.encoding = name === "texture" ? THREE.sRGBEncoding : THREE.LinearEncoding;
    if (name === "wrinkles") { // without filtering across tiles
      texture.generateMipmaps = false;
      texture.minFilter = THREE.LinearFilter;
    }
    return texture;
  }

  // Takes over the pack, the textures (by name) and the parts (by slot) of a head. The camera keeps looking at the centre of a person's first
  // head, so that the head does not jump when files arrive.
  setHead({ pack, textures, parts }, isNew) {
    this.parts.setHead(parts, pack);
    this.head.setHead(pack);
    this.material.setTextures(textures);
    this.material.setMouth(this.parts.opening("tongue"));
    if (isNew) {
      this.center.set(...pack.center);
      this.pivot.position.copy(this.center);
      for (const each of this.pivot.children) each.position.copy(this.center).negate();
    }
    this.redraw();
  }

  // Draws an editing state. `attributes`: amounts relative to the files; `fitted`: expression of the photograph; `hair`:
  // {color, grey, shape}, or null for a model without.
  show(state, attributes, fitted, hair) {
    const start = performance.now(), isRestyled = hair && this.parts.setHair(hair);
    if (this.head.blend(state.expression, attributes) || isRestyled) {
      this.parts.follow(this.head.head);
      this.viewport.dataset.blendMs = (performance.now() - start).toFixed(2);
    }
    this.material.setExpression(state.expression, fitted);
    this.material.setStrength(state.strength);
    const { yaw = 0, pitch = 0, roll = 0 } = state.pose;
    this.pivot.rotation.set(-pitch * DEGREE, yaw * DEGREE, roll * DEGREE, "ZYX");
    this.setLight(state.light);
    this.draw();
  }

  // Moves the head from its rest position, metres.
  translate(offset) {
    this.pivot.position.copy(this.center).add(new THREE.Vector3(...offset));
  }

  setLight(given) {
    const { yaw, pitch, intensity, warmth } = { ...this.initialLight, ...given };
    this.lights[0].position.set(...lightDirection(yaw, pitch));
    const colour = lightColour(warmth);
    [KEY, FILL[0], RIM[0]].forEach((strength, k) => {
      this.lights[k].intensity = strength * intensity;
      this.lights[k].color.setRGB(...colour);
    });
    this.sky.intensity = SKY * intensity;
    this.sky.color.setRGB(...colour.map((channel) => (1 + channel) / 2));
  }

  setMode(mode) {
    this.mode = mode;
    if (!this.material) return;
    this.material.setMode(mode);
    this.wire.visible = mode === "wire";
    this.parts.setMode(mode);
    this.redraw();
  }

  redraw() {
    this.drawSoon ??= requestAnimationFrame(() => this.draw());
  }

  draw() {
    cancelAnimationFrame(this.drawSoon);
    this.drawSoon = undefined;
    const width = this.viewport.clientWidth, height = this.viewport.clientHeight;
    if (!this.mesh || !width || !height) return;
    const ratio = Math.min(window.devicePixelRatio, 2);
    if (this.canvas.width !== Math.floor(width * ratio) || this.canvas.height !== Math.floor(height * ratio)) {
      this.resize(width, height, ratio);
    }
    this.orbit.updateCamera(this.camera, this.center);
    this.renderer.render(this.scene, this.camera);
    this.viewport.dataset.drawn = Number(this.viewport.dataset.drawn ?? 0) + 1;
  }

  resize(width, height, ratio) {
    this.renderer.setPixelRatio(ratio);
    this.renderer.setSize(width, height, false);
    this.camera.aspect = width / height;
    this.camera.updateProjectionMatrix();
  }

  // PNG of the view, its longer side SCREENSHOT_PX; the theme's background is transparent.
  screenshot(background) {
    const width = this.viewport.clientWidth, height = this.viewport.clientHeight;
    const scale = SCREENSHOT_PX / Math.max(width, height);
    this.resize(Math.round(width * scale), Math.round(height * scale), 1);
    this.renderer.setClearColor(BACKGROUNDS[background] ?? "#000000", background in BACKGROUNDS ? 1 : 0);
    this.orbit.updateCamera(this.camera, this.center);
    this.renderer.render(this.scene, this.camera);
    const png = new Promise((resolve) => this.canvas.toBlob(resolve, "image/png"));
    this.renderer.setClearColor("#000000", 0);
    this.canvas.width = 0; // makes the next drawing resize the canvas
    this.draw();
    return png;
  }
}
