// The studio: the 3D view of a head and its editing panel. Python sends the component's value (files of a head, progress);
// the editing state is owned here, and changes that the browser can show itself need no request.

import { loadModel, loadPack, loadScript } from "./files.js";
import { agedGrey, shapeOf } from "./hair_shape.js";
import { History } from "./history.js";
import { initialLight } from "./lighting.js";
import { Motion, ROW } from "./motion.js";
import { Panel } from "./panel.js";
import { PartFiles } from "./part_meshes.js";
import { Player } from "./player.js";
import { EditRequests } from "./requests.js";
import { Scene, TEXTURES } from "./scene.js";
import { complete, copy } from "./state.js";
import { Transition } from "./transition.js";
import { Viewport } from "./viewport.js";
import { Visit } from "./visit.js";
import { Webcam } from "./webcam.js";
import { setTexts, word } from "./words.js";

const FILES = ["model", "head", ...TEXTURES]; // URLs in the value of the component
const TIMEOUT_MS = 5000;
const SKIN_SEEDS = 2 ** 24 - 1;
const PANEL_MS = 100; // between two updates of the sliders while a motion plays
const MAX_SHIFT_M = 0.06; // the translation of a motion is soft-limited to this distance from the rest position

class Studio {
  constructor(element, props, trigger) {
    this.root = element.querySelector(".fv-studio");
    this.trigger = trigger;
    this.threeAddress = props.three_url;
    this.lightParameters = props.light ?? [];
    this.canvas = element.querySelector(".fv-canvas");
    this.models = new Map();
    this.partFiles = new PartFiles();
    this.latest = {}; // newest value of the component
    this.shownKey = this.loading = this.person = null;
    this.files = null; // in the scene: {value, pack, textures, parts}
    this.original = null; // files of this person without edits, for comparison
    this.adopted = 0; // number of the last state that was adopted from the server
    this.state = complete();
    this.start = complete();
    this.history = new History(this.state);
    this.transition = new Transition((state) => this.draw(state));
    this.requests = new EditRequests((data) => this.trigger("edit", data));
    this.viewport = new Viewport(this.root, {
      turn: (yaw) => (yaw ? this.scene?.orbit.turnSmoothly((yaw * Math.PI) / 180, 0) : this.scene?.orbit.reset()),
      mode: (mode) => this.scene?.setMode(mode),
      followLight: (isOn) => this.followLight(isOn),
      compare: (isOn) => this.compare(isOn),
      screenshot: () => this.screenshot(),
      full: () => this.toggleFull(),
      choose: (face) => this.trigger("choose", { face }),
    });
    this.panel = new Panel(this.root.querySelector(".fv-panel"), props, {
      change: (apply) => this.change(apply),
      commit: (name) => this.commit(name),
      preset: (weights) => this.setExpressions(weights),
      randomise: (region) => this.randomise(region),
      sampleSkin: () => this.edit((state) => { state.skin = 1 + Math.floor(Math.random() * SKIN_SEEDS); }),
      ownSkin: () => this.edit((state) => { state.skin = 0; }),
      followLight: (isOn) => this.followLight(isOn),
      undo: () => this.step(-1),
      redo: () => this.step(1),
      reset: () => this.setState(this.start),
    });
    this.player = new Player(element.querySelector(".fv-player"), {
      show: (motion, row, isPaused) => this.pose(motion.names, row, motion.restPosition, isPaused),
      leave: () => this.leaveMotion(),
    });
    this.webcam = new Webcam(element.querySelector(".fv-webcam"), {
      start: () => this.trigger("webcam", { do: "start" }),
      keep: () => this.trigger("webcam", { do: "keep" }),
      pose: (row, restPosition) => this.poseLive(row, restPosition),
      ended: (isKept) => this.endLive(isKept),
    });
    this.visit = new Visit();
    window.addEventListener("pagehide", () => this.visit.remember(this.person, this.withoutMotion(this.state)));
    // When a focused button becomes disabled, such as the last undo, the focus moves to the page's body.
    document.addEventListener("keydown", (event) => {
      if (event.target === document.body || this.root.contains(event.target)) this.key(event);
    });
  }

  // -- what the server sends ------------------------------------------------------------------------------------------
  // Called with every new value of the component. The newest edition wins, in whatever order values arrive; a value that
  // differs only in its progress does not restart the loading of files.
  async show(value) {
    const kept = this.visit.token;
    if (value.kept !== undefined && value.kept !== null) this.visit.token = value.kept;
    else if (kept && value.model && !this.hasAsked) this.trigger("resume", { token: kept });
    this.hasAsked ||= Boolean(value.model);
    if (value.webcam && value.webcam.number !== this.webcamNumber) this.handleWebcamAnswer(value.webcam);
    if (value.adopt && value.adopt.number > this.adopted) this.adoption = value.adopt; // kept until it is applied
    if (value.edition < this.latest.edition) { // a late answer
      if (this.adoption && this.files) this.applyValue(this.latest, false);
      return;
    }
    const isAnswer = value.edition !== this.latest.edition;
    this.latest = value;
    if (this.isWithoutWebgl) {
      this.showWithoutWebgl(value);
      return;
    }
    const key = [value.person, ...FILES.map((name) => value[name]), JSON.stringify(value.parts)].join();
    if (value.status || !value.head || key === this.shownKey) this.showProgress();
    if (key === this.shownKey && value.head) this.applyValue(value, isAnswer);
    if (key === this.loading || key === this.shownKey) return;
    this.loading = key;
    try {
      const model = value.model && (await this.loadModel(value.model));
      const parts = value.model ? this.partFiles.load(value.parts) : {};
      if (!value.head || key !== this.loading) {
        await parts;
        return;
      }
      this.scene ??= this.makeScene();
      const known = this.files;
      const load = (name) => value[name] && (value[name] === known?.value[name] ? known.textures[name]
        : this.scene.loadTexture(name, value[name]));
      const packed = value.head === known?.value.head ? known.pack : loadPack(value.head);
      const [bound, pack, ...textures] = await Promise.all([parts, packed, ...TEXTURES.map(load)]);
      if (key !== this.loading) return;
      this.setHead(model, pack, Object.fromEntries(TEXTURES.map((name, k) => [name, textures[k]])), bound);
      this.shownKey = key;
      this.applyValue(this.latest, true);
      this.showProgress();
    } catch (error) {
      if (key === this.loading) this.fail(error);
    } finally {
      if (key === this.loading) this.loading = null;
    }
  }

  async loadModel(address) {
    await loadScript(this.threeAddress);
    if (!this.models.has(address)) this.models.set(address, loadModel(address));
    try {
      return await this.models.get(address);
    } catch (error) {
      this.models.delete(address);
      throw error;
    }
  }

  makeScene() {
    let scene;
    try {
      scene = new Scene(this.canvas, this.viewport.element, (dx, dy, isLast) => this.dragLight(dx, dy, isLast),
        initialLight(this.lightParameters));
    } catch (cause) {
      throw Object.assign(new Error(word("noWebgl")), { isWebgl: true, cause });
    }
    scene.setMode(this.viewport.mode);
    return scene;
  }

  setHead(model, pack, textures, parts) {
    const value = this.latest, isNew = value.person !== this.person;
    this.scene.setModel(model);
    if (this.panel.model !== model) {
      this.panel.build(model);
      this.requests.colours = new Set(model.attributes.filter((a) => a.colours).map((a) => a.name));
    }
    const previous = [this.files, this.original];
    this.files = { value, pack, textures, parts };
    const { attributes = {}, skin = 0, mix = {}, hair } = value.state ?? {}, ownHair = value.start?.hair;
    const isOwnHair = !hair || (hair.style === ownHair?.style && hair.mirrored === ownHair.mirrored);
    const isUnchanged = isOwnHair && !skin && ![...Object.values(attributes), ...Object.values(mix)].some(Boolean);
    if (isUnchanged) this.original = this.files;
    else if (isNew) this.original = null;
    const used = new Set([this.files, this.original].flatMap((files) => Object.values(files?.textures ?? {})));
    for (const files of previous) {
      for (const texture of Object.values(files?.textures ?? {})) if (!used.has(texture)) texture?.dispose();
    }
    this.partFiles.keep(this.files.parts, this.original?.parts);
    this.scene.setHead(this.files, isNew);
    if (isNew) this.startPerson(value);
  }

  // Resets the state for a new person.
  startPerson(value) {
    this.person = value.person;
    this.adoption = null;
    if (this.webcam.isOn && this.latest.webcam?.person !== value.person) this.webcam.stop();
    this.endMotion();
    this.motion = null;
    this.start = complete(value.start, value.limits);
    this.state = copy(this.start);
    this.history.clear(this.state);
    this.requests.reset({ ...value.state, hair: value.state?.hair ?? value.start?.hair });
    this.scene.orbit.reset(false);
    this.viewport.scrollIntoView();
    const state = this.visit.stateOf(value.person);
    if (state) this.setState(state);
  }

  // Applies a value beyond its files; one that differs only in its progress draws nothing.
  applyValue(value, isAnswer) {
    this.viewport.element.dataset.edition = value.edition;
    if (isAnswer) {
      this.panel.setPerson(value, this.start);
      this.requests.answered();
    }
    if (this.adoption) {
      const { number, state } = this.adoption;
      this.adopted = number;
      this.adoption = null;
      this.setWaiting(false);
      this.setState({ ...this.state, ...state });
    } else if (isAnswer) {
      this.refresh();
    }
    if (value.motion?.number !== this.motion) this.changeMotion(value.motion);
  }

  // -- motions --------------------------------------------------------------------------------------------------------
  async changeMotion(given, isPlaying = !matchMedia("(prefers-reduced-motion: reduce)").matches) {
    const number = (this.motion = given?.number);
    this.leaveMotion();
    if (!given) return;
    try {
      const motion = await Motion.load(given.address);
      if (number !== this.motion) return;
      this.viewport.scrollIntoView();
      this.player.open(motion, isPlaying);
    } catch (error) {
      if (number === this.motion) this.viewport.showHint(word("noMotion", error.message));
    }
  }

  // The server's answer to a request of the webcam.
  handleWebcamAnswer({ number, address, error }) {
    this.webcamNumber = number;
    if (error) this.webcam.fail(error);
    else if (address) this.webcam.begin(address);
  }

  openWebcam() {
    if (this.isWithoutWebgl) this.webcam.fail(word("cameraNoWebgl"));
    else this.webcam.open();
    this.viewport.scrollIntoView();
  }

  // Poses the head with the next animation frame.
  poseLive(row, restPosition) {
    this.newest = { row, restPosition };
    this.poseFrame ??= requestAnimationFrame(() => {
      this.poseFrame = undefined;
      if (!this.files || !this.panel.model) return;
      this.player.close();
      this.setMirrored(true);
      this.pose(this.panel.model.names, this.newest.row, this.newest.restPosition, false);
    });
  }

  // Restores the head as it was before the webcam, and the motion that was open.
  endLive(isKept) {
    cancelAnimationFrame(this.poseFrame);
    this.poseFrame = undefined;
    if (!this.isMirrored) return;
    this.setMirrored(false);
    this.leaveMotion();
    if (this.motion && !isKept) this.changeMotion(this.latest.motion, false);
  }

  // Mirrors the view, like the webcam's picture beside it.
  setMirrored(isOn) {
    this.isMirrored = isOn;
    this.viewport.element.toggleAttribute("data-mirrored", isOn);
    this.scene.orbit.isMirrored = isOn;
  }

  // Applies a row of a motion: pose, translation and expression. The sliders follow at intervals, and when it is paused.
  pose(names, row, restPosition, isPaused) {
    if (!this.files) return;
    this.beforeMotion ??= { expression: { ...this.state.expression }, pose: { ...this.state.pose } };
    const expression = { ...this.state.expression };
    names.forEach((name, k) => { expression[name] = Number(row[ROW.weights + k].toFixed(4)); });
    const [yaw, pitch, roll] = [ROW.yaw, ROW.pitch, ROW.roll].map((column) => Number(row[column].toFixed(2)));
    Object.assign(this.state, { expression, pose: { yaw, pitch, roll } });
    this.scene.translate(restPosition.map((middle, k) => MAX_SHIFT_M * Math.tanh((row[ROW.x + k] - middle) / MAX_SHIFT_M)));
    if (this.isComparing) return;
    this.transition.show(this.state);
    const now = performance.now();
    if (!isPaused && now - (this.panelShown ?? 0) < PANEL_MS) return;
    this.panelShown = now;
    this.panel.show(this.state, this.history);
  }

  // Closes the motion and restores the state before it.
  leaveMotion() {
    const state = this.withoutMotion(this.state), hasMoved = Boolean(this.beforeMotion);
    this.endMotion();
    if (hasMoved) this.adopt(state);
  }

  endMotion() {
    this.player.close();
    this.beforeMotion = null;
    this.scene?.translate([0, 0, 0]);
  }

  // A state without the changes of the motion that plays.
  withoutMotion(state) {
    return this.beforeMotion ? { ...state, ...this.beforeMotion } : state;
  }

  showProgress() {
    const { head, person, status } = this.latest, hasHead = Boolean(this.files);
    const isUsable = Boolean(status?.refining) && hasHead && person === this.person;
    this.viewport.showProgress(status, Boolean(head) && hasHead, isUsable);
    const { state } = this.viewport.element.dataset;
    const panel = this.panel.element;
    this.root.dataset.state = state;
    panel.hidden = !hasHead || !["ready", "refining", "busy"].includes(state) || !head;
    panel.inert = state === "busy";
  }

  fail(error) {
    this.viewport.fail(error.message);
    this.root.dataset.state = "failed";
    this.panel.element.hidden = true;
    if (!error.isWebgl) return;
    this.isWithoutWebgl = true;
    if (this.webcam.isOn) this.webcam.fail(word("cameraNoWebgl"));
    this.showWithoutWebgl(this.latest);
  }

  // Without WebGL: shows progress, and requests pictures of each new head from the page.
  showWithoutWebgl(value) {
    if (value.status && !value.status.refining) this.showProgress();
    else if (value.head) this.viewport.fail(word("noWebgl"));
    if (!value.head || value.head === this.announcedHead) return;
    this.announcedHead = value.head;
    this.trigger("fallback", {});
  }

  // -- the editing state ----------------------------------------------------------------------------------------------
  // Changes the state while a control moves; `commit` ends the gesture.
  change(apply) {
    const posed = this.player.isPlaying && posedPart(this.state);
    apply(this.state);
    if (posed && posed !== posedPart(this.state)) this.player.pause(true);
    this.requests.request(this.state);
    this.transition.stop();
    this.refreshFrame ??= requestAnimationFrame(() => this.refresh());
  }

  commit(name) {
    this.history.add(this.withoutMotion(this.state), name);
    this.markChanged();
    this.refresh();
  }

  // The links below lead to files of an earlier state.
  markChanged() {
    for (const name of ["fv-saved", "fv-motion-saved"]) document.getElementById(name)?.toggleAttribute("data-stale", true);
  }

  edit(apply) {
    this.change(apply);
    this.commit();
  }

  setState(given) {
    const state = complete(given, this.latest.limits);
    if (this.beforeMotion && posedPart(state) !== posedPart(this.state)) this.endMotion();
    this.history.add(this.withoutMotion(state));
    this.markChanged();
    this.adopt(state);
  }

  setExpressions(weights) {
    this.setState({ ...this.withoutMotion(this.state), expression: { ...(weights ?? this.start.expression) } });
  }

  step(direction) {
    const state = this.history.step(direction);
    if (!state) return;
    const { expression, pose } = this.state;
    if (!this.beforeMotion) this.adopt(state);
    else { // the motion continues; the undone state shows when it ends
      this.beforeMotion = { expression: state.expression, pose: state.pose };
      this.adopt({ ...state, expression, pose });
    }
  }

  adopt(state) {
    this.state = state;
    this.requests.request(state);
    this.refresh(true);
  }

  refresh(isAnimated = this.transition.isRunning) {
    cancelAnimationFrame(this.refreshFrame);
    this.refreshFrame = undefined;
    if (!this.files || !this.panel.model) return;
    this.panel.show(this.state, this.history);
    const state = this.isComparing ? this.start : this.state;
    if (isAnimated) this.transition.to(state);
    else this.transition.show(state);
  }

  // Draws a state: attributes beyond those that are baked into the files in the scene.
  draw(state) {
    const baked = this.sceneFiles().value.state?.attributes ?? {}, amounts = { ...state.attributes };
    for (const [name, amount] of Object.entries(baked)) amounts[name] = (amounts[name] ?? 0) - amount;
    this.scene.show(state, amounts, this.start.expression, this.hairOf(state));
  }

  // Colour and shape of the hair of a state; null for a model without. A style whose files are not there yet shows that
  // of the files, as made.
  hairOf(state) {
    const { hair: base, estimates } = this.sceneFiles().value, { hair } = state;
    if (!base || !hair) return null;
    const years = estimates?.age, grey = years === undefined ? hair.grey
      : agedGrey(hair.grey, years, years + (state.attributes.age ?? 0));
    return { color: hair.color, grey, shape: shapeOf(hair, base) };
  }

  sceneFiles() {
    return this.isComparing && this.canCompareFiles ? this.original : this.files;
  }

  compare(isOn) {
    if (!this.files || isOn === Boolean(this.isComparing)) return;
    this.canCompareFiles = this.original && (this.original.textures.normal || !this.files.textures.normal);
    this.isComparing = isOn;
    this.scene.setHead(this.sceneFiles());
    this.refresh();
  }

  randomise(region) {
    this.setWaiting(true);
    const keep = this.panel.lockedAttributes();
    this.trigger("randomise", { region, keep, wild: this.panel.isWild, state: copy(this.state) });
  }

  setWaiting(isWaiting) {
    clearTimeout(this.waiting);
    this.panel.setWaiting(isWaiting);
    if (isWaiting) this.waiting = setTimeout(() => this.setWaiting(false), TIMEOUT_MS);
  }

  // -- the viewport ---------------------------------------------------------------------------------------------------
  followLight(isOn) {
    this.isFollowing = isOn;
    this.viewport.setFollowing(isOn);
    if (this.panel.follow) this.panel.follow.checked = isOn;
  }

  // Moves the light by a drag, if that is switched on; returns whether it is. `isLast` ends the drag.
  dragLight(dx, dy, isLast) {
    if (!this.isFollowing) return false;
    if (isLast) {
      this.commit();
      return true;
    }
    this.change((state) => {
      const light = { ...initialLight(this.lightParameters), ...state.light };
      const moves = { yaw: 57 * dx, pitch: -57 * dy };
      for (const { name, range: [low, high] } of this.lightParameters) {
        if (name in moves) light[name] = Math.max(low, Math.min(high, light[name] + moves[name]));
      }
      state.light = light;
    });
    return true;
  }

  async screenshot() {
    if (!this.scene?.head) return;
    const png = await this.scene.screenshot(this.viewport.background);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(png);
    link.download = "head.png";
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  toggleFull() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.root.requestFullscreen?.().catch(() => {});
  }

  key(event) {
    if (!(event.ctrlKey || event.metaKey) || event.altKey) return;
    const key = event.key.toLowerCase();
    const direction = key === "y" || (key === "z" && event.shiftKey) ? 1 : key === "z" ? -1 : 0;
    if (!direction) return;
    event.preventDefault();
    this.step(direction);
  }
}

// The part of a state that motions set, as text.
const posedPart = ({ expression, pose }) => JSON.stringify([expression, pose]);

export function mount(element, props, watch, trigger = () => {}) {
  setTexts(props.texts);
  const studio = new Studio(element, props, trigger);
  window.faceverse = {
    state: () => copy(studio.state),
    setState: (state) => studio.setState(state),
    setExpression: (names, weight) => studio.edit((state) => {
      for (const name of [names].flat()) state.expression[name] = weight;
    }),
    setStrength: (strength) => studio.edit((state) => { state.strength = strength; }),
    undo: () => studio.step(-1),
    redo: () => studio.step(1),
    screenshot: () => studio.screenshot(),
    openWebcam: () => studio.openWebcam(),
    play: () => studio.changeMotion(studio.latest.motion, true),
  };
  const show = () => props.value && studio.show(props.value);
  watch("value", show);
  show();
}
