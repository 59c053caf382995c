// The studio: the 3D view of a head and its panel. Python sends what the component's value holds (files of a head, how
// far the work is); the visitor's state is owned here, and what the browser can show itself needs no request.

import { loadModel, loadPack, loadScript } from "./files.js";
import { Glide } from "./glide.js";
import { History, Questions, complete, copy } from "./history.js";
import { Motion, Player, ROW } from "./motion.js";
import { Panel } from "./panel.js";
import { LIGHT, PICTURES, Scene } from "./scene.js";
import { Stage } from "./stage.js";
import { Webcam } from "./webcam.js";
import { word } from "./words.js";

const PARTS = ["model", "head", ...PICTURES]; // addresses in a value of the component
const NO_ANSWER_MS = 5000;
const SKINS = 2 ** 24 - 1;
const PANEL_MS = 100; // between two updates of the sliders while the head moves by itself
const REACH_M = 0.06; // a head that moves stays about so close to the middle of the stage
const LIGHT_LIMIT_DEG = { yaw: 150, pitch: 80 };

class Studio {
  constructor(element, props, trigger) {
    this.root = element.querySelector(".fv-studio");
    this.trigger = trigger;
    this.threeAddress = props.three_url;
    this.canvas = element.querySelector(".fv-canvas");
    this.models = new Map();
    this.latest = {}; // value of the component
    this.shownParts = this.loading = this.person = null;
    this.files = null; // what is in the scene: {value, pack, pictures, attributes that the files show}
    this.original = null; // the files of this person without changes, for comparing
    this.adopted = 0;
    this.state = complete();
    this.start = complete();
    this.history = new History(this.state);
    this.glide = new Glide((state) => this.draw(state));
    this.questions = new Questions((data) => this.trigger("edit", data));
    this.stage = new Stage(this.root, {
      turn: (yaw) => this.scene?.orbit.turnSmoothly((yaw * Math.PI) / 180, 0),
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
      otherSkin: () => this.edit((state) => { state.skin = 1 + Math.floor(Math.random() * SKINS); }),
      ownSkin: () => this.edit((state) => { state.skin = 0; }),
      followLight: (isOn) => this.followLight(isOn),
      undo: () => this.step(-1),
      redo: () => this.step(1),
      reset: () => this.setState(this.start),
    });
    this.player = new Player(element.querySelector(".fv-player"), {
      show: (motion, row, isResting) => this.pose(motion.names, row, motion.home, isResting),
      leave: () => this.leaveMotion(),
    });
    this.webcam = new Webcam(element.querySelector(".fv-webcam"), {
      start: () => this.trigger("film", { do: "start" }),
      keep: () => this.trigger("film", { do: "keep" }),
      pose: (row, home) => this.poseLive(row, home),
      ended: (isKept) => this.endLive(isKept),
    });
    // A button that was pressed and is disabled now, such as the last undo, leaves the focus to the page.
    document.addEventListener("keydown", (event) => {
      if (event.target === document.body || this.root.contains(event.target)) this.key(event);
    });
  }

  // -- what the server sends ------------------------------------------------------------------------------------------
  // Called with every new value of the component; the newest one wins, whatever arrives first. Values that only tell
  // how far the work is do not disturb the loading of what they have in common.
  async show(value) {
    if (value.film && value.film.number !== this.filmed) this.film(value.film);
    if (value.adopt && value.adopt.number > this.adopted) this.adoption = value.adopt; // not to be lost in what follows
    if (value.edition < this.latest.edition) { // an answer that another one has overtaken
      if (this.adoption && this.files) this.take(this.latest, false);
      return;
    }
    const isAnswer = value.edition !== this.latest.edition;
    this.latest = value;
    if (this.isBlind) {
      this.showBlindly(value);
      return;
    }
    const parts = [value.person, ...PARTS.map((part) => value[part])].join();
    if (value.status || !value.head || parts === this.shownParts) this.showProgress();
    if (parts === this.shownParts && value.head) this.take(value, isAnswer);
    if (parts === this.loading || parts === this.shownParts) return;
    this.loading = parts;
    try {
      const model = value.model && (await this.loadModel(value.model));
      if (!value.head || parts !== this.loading) return;
      this.scene ??= this.makeScene();
      const known = this.files;
      const picture = (part) => value[part] && (value[part] === known?.value[part] ? known.pictures[part]
        : this.scene.picture(part, value[part]));
      const packed = value.head === known?.value.head ? known.pack : loadPack(value.head);
      const [pack, ...pictures] = await Promise.all([packed, ...PICTURES.map(picture)]);
      if (parts !== this.loading) return;
      this.place(model, pack, Object.fromEntries(PICTURES.map((part, k) => [part, pictures[k]])));
      this.shownParts = parts;
      this.take(this.latest, true);
      this.showProgress();
    } catch (error) {
      if (parts === this.loading) this.fail(error);
    } finally {
      if (parts === this.loading) this.loading = null;
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
      scene = new Scene(this.canvas, this.stage.element, (dx, dy, isLast) => this.dragLight(dx, dy, isLast));
    } catch (cause) {
      throw Object.assign(new Error(word("noWebgl")), { isWebgl: true, cause });
    }
    scene.setMode(this.stage.mode);
    return scene;
  }

  place(model, pack, pictures) {
    const value = this.latest, isNew = value.person !== this.person;
    this.scene.use(model);
    if (this.panel.model !== model) {
      this.panel.build(model);
      this.questions.colours = new Set(model.attributes.filter((a) => a.colours).map((a) => a.name));
    }
    const before = [this.files, this.original];
    this.files = { value, pack, pictures };
    const { attributes = {}, skin = 0, mix = {} } = value.state ?? {};
    const isUnchanged = !skin && ![...Object.values(attributes), ...Object.values(mix)].some(Boolean);
    if (isUnchanged) this.original = this.files;
    else if (isNew) this.original = null;
    const used = new Set([this.files, this.original].flatMap((files) => Object.values(files?.pictures ?? {})));
    for (const files of before) {
      for (const texture of Object.values(files?.pictures ?? {})) if (!used.has(texture)) texture?.dispose();
    }
    this.scene.place(pack, pictures, isNew);
    if (isNew) this.welcome(value);
  }

  // A head that was not there before.
  welcome(value) {
    this.person = value.person;
    this.adoption = null;
    if (this.webcam.isOn && this.latest.film?.person !== value.person) this.webcam.stop();
    this.endMotion();
    this.motion = null;
    this.start = complete(value.start, value.limits);
    this.state = copy(this.start);
    this.history.clear(this.state);
    this.questions.reset(value.state);
    this.scene.orbit.reset(false);
    this.stage.comeIntoSight();
  }

  // What a value says beside its files.
  take(value, isAnswer) {
    this.stage.element.dataset.edition = value.edition;
    if (isAnswer) {
      this.panel.setPerson(value, this.start);
      this.questions.answered();
    }
    if (this.adoption) {
      const { number, state } = this.adoption;
      this.adopted = number;
      this.adoption = null;
      this.setWaiting(false);
      this.setState({ ...this.state, ...state });
    } else {
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
      this.stage.comeIntoSight();
      this.player.open(motion, isPlaying);
    } catch (error) {
      if (number === this.motion) this.stage.say(word("noMotion", error.message));
    }
  }

  // The server's word about the visitor's camera.
  film({ number, address, error }) {
    this.filmed = number;
    if (error) this.webcam.fail(error);
    else if (address) this.webcam.begin(address);
  }

  openCamera() {
    if (this.isBlind) this.webcam.fail(word("cameraBlind"));
    else this.webcam.open();
    this.stage.comeIntoSight();
  }

  // Drawn while the next picture is on its way.
  poseLive(row, home) {
    this.newest = { row, home };
    this.poseSoon ??= requestAnimationFrame(() => {
      this.poseSoon = undefined;
      if (!this.files || !this.panel.model) return;
      this.player.shut();
      this.setMirrored(true);
      this.pose(this.panel.model.names, this.newest.row, this.newest.home, false);
    });
  }

  // The head is as it was before the camera; what it did then can be seen again.
  endLive(isKept) {
    cancelAnimationFrame(this.poseSoon);
    this.poseSoon = undefined;
    if (!this.isMirrored) return;
    this.setMirrored(false);
    this.leaveMotion();
    if (this.motion && !isKept) this.changeMotion(this.latest.motion, false);
  }

  // As in a mirror, like the visitor's own picture beside it.
  setMirrored(isOn) {
    this.isMirrored = isOn;
    this.stage.element.toggleAttribute("data-mirrored", isOn);
    this.scene.orbit.isMirrored = isOn;
  }

  // A row of a motion on the head: pose, place and expression. The sliders follow now and then, and where it rests.
  pose(names, row, home, isResting) {
    if (!this.files) return;
    this.rest ??= { expression: { ...this.state.expression }, pose: { ...this.state.pose } };
    const expression = { ...this.state.expression };
    names.forEach((name, k) => { expression[name] = Number(row[ROW.weights + k].toFixed(4)); });
    const [yaw, pitch, roll] = [ROW.yaw, ROW.pitch, ROW.roll].map((place) => Number(row[place].toFixed(2)));
    Object.assign(this.state, { expression, pose: { yaw, pitch, roll } });
    this.scene.shift(home.map((middle, k) => REACH_M * Math.tanh((row[ROW.x + k] - middle) / REACH_M)));
    if (this.isComparing) return;
    this.glide.show(this.state);
    const now = performance.now();
    if (!isResting && now - (this.panelShown ?? 0) < PANEL_MS) return;
    this.panelShown = now;
    this.panel.show(this.state, this.history);
  }

  // What the visitor had set comes back.
  leaveMotion() {
    const state = this.settled(this.state), hasMoved = Boolean(this.rest);
    this.endMotion();
    if (hasMoved) this.adopt(state);
  }

  endMotion() {
    this.player.shut();
    this.rest = null;
    this.scene?.shift([0, 0, 0]);
  }

  // A state without the motion that runs.
  settled(state) {
    return this.rest ? { ...state, ...this.rest } : state;
  }

  showProgress() {
    const { head, person, status } = this.latest, hasHead = Boolean(this.files);
    const isFree = Boolean(status?.refining) && hasHead && person === this.person;
    this.stage.showProgress(status, Boolean(head) && hasHead, isFree);
    const { state } = this.stage.element.dataset;
    const panel = this.panel.element;
    this.root.dataset.state = state;
    panel.hidden = !hasHead || !["ready", "refining", "busy"].includes(state) || !head;
    panel.inert = state === "busy";
  }

  fail(error) {
    this.stage.fail(error.message);
    this.root.dataset.state = "failed";
    this.panel.element.hidden = true;
    if (!error.isWebgl) return;
    this.isBlind = true;
    if (this.webcam.isOn) this.webcam.fail(word("cameraBlind"));
    this.showBlindly(this.latest);
  }

  // Without WebGL: how far the work is, and a word to the page about each new head.
  showBlindly(value) {
    if (value.status && !value.status.refining) this.showProgress();
    else if (value.head) this.stage.fail(word("noWebgl"));
    if (!value.head || value.head === this.blindHead) return;
    this.blindHead = value.head;
    this.trigger("fallback", {});
  }

  // -- the visitor's state --------------------------------------------------------------------------------------------
  // While a control moves; `commit` ends the gesture.
  change(apply) {
    const moved = this.player.isPlaying && movement(this.state);
    apply(this.state);
    if (moved && moved !== movement(this.state)) this.player.pause(true);
    this.questions.want(this.state);
    this.glide.stop();
    this.showSoon ??= requestAnimationFrame(() => this.refresh());
  }

  commit(name) {
    this.history.add(this.settled(this.state), name);
    this.refresh();
  }

  edit(apply) {
    this.change(apply);
    this.commit();
  }

  setState(given) {
    const state = complete(given, this.latest.limits);
    if (this.rest && movement(state) !== movement(this.state)) this.endMotion();
    this.history.add(this.settled(state));
    this.adopt(state);
  }

  setExpressions(weights) {
    this.setState({ ...this.settled(this.state), expression: { ...(weights ?? this.start.expression) } });
  }

  step(direction) {
    const state = this.history.step(direction);
    if (!state) return;
    const { expression, pose } = this.state;
    if (!this.rest) this.adopt(state);
    else { // the motion goes on; what was undone shows when it ends
      this.rest = { expression: state.expression, pose: state.pose };
      this.adopt({ ...state, expression, pose });
    }
  }

  adopt(state) {
    this.state = state;
    this.questions.want(state);
    this.refresh(true);
  }

  refresh(isSmooth = this.glide.isRunning) {
    cancelAnimationFrame(this.showSoon);
    this.showSoon = undefined;
    if (!this.files || !this.panel.model) return;
    this.panel.show(this.state, this.history);
    const state = this.isComparing ? this.start : this.state;
    if (isSmooth) this.glide.to(state);
    else this.glide.show(state);
  }

  // A state on the files that are in the scene: what they do not show yet of the attributes is added.
  draw(state) {
    const shown = this.inScene().value.state?.attributes ?? {}, amounts = { ...state.attributes };
    for (const [name, amount] of Object.entries(shown)) amounts[name] = (amounts[name] ?? 0) - amount;
    this.scene.show(state, amounts, this.start.expression);
  }

  inScene() {
    return this.isComparing && this.canCompareFiles ? this.original : this.files;
  }

  compare(isOn) {
    if (!this.files || isOn === Boolean(this.isComparing)) return;
    this.canCompareFiles = this.original && (this.original.pictures.normal || !this.files.pictures.normal);
    this.isComparing = isOn;
    const { pack, pictures } = this.inScene();
    this.scene.place(pack, pictures);
    this.refresh();
  }

  randomise(region) {
    this.setWaiting(true);
    const keep = this.panel.kept();
    this.trigger("randomise", { region, keep, strength: 1, state: copy(this.state) });
  }

  setWaiting(isWaiting) {
    clearTimeout(this.waiting);
    this.panel.setWaiting(isWaiting);
    if (isWaiting) this.waiting = setTimeout(() => this.setWaiting(false), NO_ANSWER_MS);
  }

  // -- the stage ------------------------------------------------------------------------------------------------------
  followLight(isOn) {
    this.isFollowing = isOn;
    this.stage.setFollowing(isOn);
    if (this.panel.follow) this.panel.follow.checked = isOn;
  }

  // Whether a drag moves the light; `isLast` ends it.
  dragLight(dx, dy, isLast) {
    if (!this.isFollowing) return false;
    if (isLast) {
      this.commit();
      return true;
    }
    this.change((state) => {
      const light = { ...LIGHT, ...state.light };
      const kept = (name, value) => Math.max(-LIGHT_LIMIT_DEG[name], Math.min(LIGHT_LIMIT_DEG[name], value));
      light.yaw = kept("yaw", light.yaw + 57 * dx);
      light.pitch = kept("pitch", light.pitch - 57 * dy);
      state.light = light;
    });
    return true;
  }

  async screenshot() {
    if (!this.scene?.head) return;
    const picture = await this.scene.screenshot(this.stage.ground);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(picture);
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

const movement = ({ expression, pose }) => JSON.stringify([expression, pose]);

export function mount(element, props, watch, trigger = () => {}) {
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
    film: () => studio.openCamera(),
    play: () => studio.changeMotion(studio.latest.motion, true),
  };
  const show = () => props.value && studio.show(props.value);
  watch("value", show);
  show();
}
