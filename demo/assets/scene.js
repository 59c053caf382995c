// What is drawn: the head with its material under three lamps that travel with the onlooker.

import { loadTexture } from "./files.js";
import { Head } from "./head.js";
import { FIELD_OF_VIEW_DEG, Orbit } from "./orbit.js";
import { Skin } from "./skin.js";

export const PICTURES = ["texture", "normal", "smooth", "wrinkles"];
export const LIGHT = { yaw: -27, pitch: 32, intensity: 1, warmth: 0 }; // where a head brings none of its own
const SCREENSHOT_PX = 1600;
const BACKGROUNDS = { white: "#ffffff", grey: "#808080", black: "#000000" };
// Strength and direction (to the right, up, towards the onlooker) of the lamps beside the key.
const KEY = 0.6, FILL = [0.16, 1, 0.05, 0.55], RIM = [0.16, 0.75, 0.35, -0.8];
const SKY = 0.52;
const WARM = [1.0, 0.8, 0.58], COLD = [0.74, 0.87, 1.0];
const DEGREE = Math.PI / 180;

export class Scene {
  // Throws where the browser has no WebGL.
  constructor(canvas, stage, grab) {
    Object.assign(this, { canvas, stage });
    this.renderer = new THREE.WebGLRenderer({ canvas, antialias: true, alpha: true });
    this.renderer.outputEncoding = THREE.sRGBEncoding;
    canvas.addEventListener("webglcontextrestored", () => this.redraw());
    this.scene = new THREE.Scene();
    this.camera = new THREE.PerspectiveCamera(FIELD_OF_VIEW_DEG, 1, 0.05, 10);
    this.center = new THREE.Vector3();
    this.pivot = new THREE.Group(); // turns the head about its centre
    this.lamps = [KEY, FILL[0], RIM[0]].map((strength) => new THREE.DirectionalLight(0xffffff, strength));
    this.lamps[1].position.set(...FILL.slice(1));
    this.lamps[2].position.set(...RIM.slice(1));
    for (const lamp of this.lamps) this.camera.add(lamp, lamp.target);
    this.sky = new THREE.HemisphereLight(0xffffff, 0x8d8580, SKY);
    this.scene.add(this.sky, this.camera, this.pivot);
    this.orbit = new Orbit(canvas, { onChange: () => this.redraw(), grab });
    this.light({});
    new ResizeObserver(() => this.redraw()).observe(stage);
  }

  // Takes over a model; the head is empty until `place`.
  use(model) {
    if (this.head?.model === model) return;
    this.pivot.clear();
    this.head = new Head(model);
    this.skin = new Skin(model);
    this.mesh = new THREE.Mesh(this.head.geometry, this.skin.material);
    this.wire = new THREE.Mesh(this.head.geometry, this.skin.wire);
    this.pivot.add(this.mesh, this.wire);
    for (const mesh of [this.mesh, this.wire]) mesh.frustumCulled = false;
    this.setMode(this.mode ?? "colour");
  }

  async picture(name, address) {
    const texture = await loadTexture(address);
    texture.flipY = false;
    texture.anisotropy = this.renderer.capabilities.getMaxAnisotropy();
    texture.encoding = name === "texture" ? THREE.sRGBEncoding : THREE.LinearEncoding;
    if (name === "wrinkles") { // its tiles must not run into each other
      texture.generateMipmaps = false;
      texture.minFilter = THREE.LinearFilter;
    }
    return texture;
  }

  // Files of a head: pack and pictures by name. The camera looks at the centre of a person's first head, lest the head
  // jump as files arrive.
  place(pack, pictures, isNew) {
    this.head.place(pack);
    this.skin.dress(pictures);
    if (isNew) {
      this.center.set(...pack.center);
      this.pivot.position.copy(this.center);
      for (const mesh of [this.mesh, this.wire]) mesh.position.copy(this.center).negate();
    }
    this.redraw();
  }

  // A visitor's state on files that show some of its attributes already; `fitted` is the expression of the photograph.
  show(state, attributes, fitted) {
    const start = performance.now();
    if (this.head.blend(state.expression, attributes)) {
      this.stage.dataset.blendMs = (performance.now() - start).toFixed(2);
    }
    this.skin.wrinkle(state.expression, fitted);
    this.skin.setStrength(state.strength);
    const { yaw = 0, pitch = 0, roll = 0 } = state.pose;
    this.pivot.rotation.set(-pitch * DEGREE, yaw * DEGREE, roll * DEGREE, "ZYX");
    this.light(state.light);
    this.draw();
  }

  // Moves the head on the stage, metres from where it rests.
  shift(offset) {
    this.pivot.position.copy(this.center).add(new THREE.Vector3(...offset));
  }

  light(given) {
    const { yaw, pitch, intensity, warmth } = { ...LIGHT, ...given };
    const [key] = this.lamps, y = yaw * DEGREE, p = pitch * DEGREE;
    key.position.set(Math.sin(y) * Math.cos(p), Math.sin(p), Math.cos(y) * Math.cos(p));
    const end = warmth < 0 ? COLD : WARM, share = Math.abs(warmth);
    const colour = end.map((channel) => 1 + share * (channel - 1));
    [KEY, FILL[0], RIM[0]].forEach((strength, k) => {
      this.lamps[k].intensity = strength * intensity;
      this.lamps[k].color.setRGB(...colour);
    });
    this.sky.intensity = SKY * intensity;
    this.sky.color.setRGB(...colour.map((channel) => (1 + channel) / 2));
  }

  setMode(mode) {
    this.mode = mode;
    if (!this.skin) return;
    this.skin.setMode(mode);
    this.wire.visible = mode === "wire";
    this.redraw();
  }

  redraw() {
    this.drawSoon ??= requestAnimationFrame(() => this.draw());
  }

  draw() {
    cancelAnimationFrame(this.drawSoon);
    this.drawSoon = undefined;
    const width = this.stage.clientWidth, height = this.stage.clientHeight;
    if (!this.mesh || !width || !height) return;
    const ratio = Math.min(window.devicePixelRatio, 2);
    if (this.canvas.width !== Math.floor(width * ratio) || this.canvas.height !== Math.floor(height * ratio)) {
      this.resize(width, height, ratio);
    }
    this.orbit.place(this.camera, this.center);
    this.renderer.render(this.scene, this.camera);
    this.stage.dataset.drawn = Number(this.stage.dataset.drawn ?? 0) + 1;
  }

  resize(width, height, ratio) {
    this.renderer.setPixelRatio(ratio);
    this.renderer.setSize(width, height, false);
    this.camera.aspect = width / height;
    this.camera.updateProjectionMatrix();
  }

  // PNG of what is on the stage, its longer side SCREENSHOT_PX; transparent on the theme's background.
  screenshot(background) {
    const width = this.stage.clientWidth, height = this.stage.clientHeight;
    const scale = SCREENSHOT_PX / Math.max(width, height);
    this.resize(Math.round(width * scale), Math.round(height * scale), 1);
    this.renderer.setClearColor(BACKGROUNDS[background] ?? "#000000", background in BACKGROUNDS ? 1 : 0);
    this.orbit.place(this.camera, this.center);
    this.renderer.render(this.scene, this.camera);
    const picture = new Promise((resolve) => this.canvas.toBlob(resolve, "image/png"));
    this.renderer.setClearColor("#000000", 0);
    this.canvas.width = 0; // the next drawing has the size of the stage again
    this.draw();
    return picture;
  }
}
