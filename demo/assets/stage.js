// The stage around the canvas: its buttons, how far the work is, and the choice of a face.

import { iconButton, make } from "./controls.js";
import { word } from "./words.js";

const VIEWS = [["front", 0], ["halfRight", 40], ["halfLeft", -40], ["side", 90], ["back", 180]];
const MODES = ["colour", "clay", "normals", "wire", "uv"];
const GROUNDS = ["theme", "white", "grey", "black"];

export class Stage {
  // Actions: turn(yawDeg), mode(name), ground(name), followLight(isOn), compare(isOn), screenshot(), full(), choose(n).
  constructor(root, actions) {
    this.element = root.querySelector(".fv-stage");
    this.actions = actions;
    this.ground = "theme";
    const find = (name) => this.element.querySelector(name);
    this.step = find(".fv-step");
    this.bar = find(".fv-bar > div");
    this.preview = find(".fv-preview");
    this.failed = find(".fv-failed");
    this.chooser = find(".fv-chooser");
    this.hint = find(".fv-stage-hint");
    find(".fv-canvas").setAttribute("aria-label", word("canvas"));
    find(".fv-empty p").textContent = word("empty");
    const views = VIEWS.map(([name, yaw]) => iconButton("turn", word(`view.${name}`), () => actions.turn(yaw),
      { "data-yaw": yaw, turnDeg: -yaw }));
    this.modes = MODES.map((name) => make("button", {
      type: "button", class: "fv-icon fv-mode", "data-mode": name, "data-clay": name === "clay",
      title: word(`mode.${name}`), "aria-label": word(`mode.${name}`), "aria-pressed": String(name === "colour"),
      onclick: () => this.setMode(name === this.mode ? "colour" : name),
    }, make("span", {})));
    this.mode = "colour";
    find(".fv-tools").append(
      make("div", { class: "fv-tool-group", role: "group", "aria-label": word("tools") }, ...views),
      make("div", { class: "fv-tool-group", role: "group", "aria-label": word("modes") }, ...this.modes));
    this.lightButton = iconButton("light", word("lightDrag"), () => actions.followLight(!this.isFollowing),
      { "aria-pressed": "false", "data-follow": true });
    this.groundButton = make("button", { type: "button", class: "fv-icon fv-ground", onclick: () => this.nextGround() },
      make("span", {}));
    this.compareButton = iconButton("compare", word("compare"), () => {}, { "data-compare": true });
    this.listenToCompare();
    find(".fv-side-tools").append(
      this.groundButton, this.lightButton, this.compareButton,
      iconButton("camera", word("screenshot"), () => actions.screenshot(), { "data-screenshot": true }),
      iconButton("full", word("full"), () => actions.full(), { "data-full": true }));
    this.setGround("theme");
  }

  setMode(mode) {
    this.mode = mode;
    for (const button of this.modes) button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
    this.actions.mode(mode);
  }

  nextGround() {
    this.setGround(GROUNDS[(GROUNDS.indexOf(this.ground) + 1) % GROUNDS.length]);
  }

  setGround(ground) {
    this.ground = this.element.dataset.ground = ground;
    const label = word(`ground.${ground}`);
    this.groundButton.title = label;
    this.groundButton.setAttribute("aria-label", label);
  }

  setFollowing(isOn) {
    this.isFollowing = isOn;
    this.lightButton.setAttribute("aria-pressed", String(isOn));
    this.say(isOn ? word("lightDragHint") : "");
  }

  say(text) {
    this.hint.textContent = text;
    this.hint.hidden = !text;
  }

  listenToCompare() {
    const button = this.compareButton;
    const set = (isOn) => {
      button.setAttribute("aria-pressed", String(isOn));
      this.say(isOn ? word("asFitted") : this.isFollowing ? word("lightDragHint") : "");
      this.actions.compare(isOn);
    };
    button.addEventListener("pointerdown", (event) => {
      button.setPointerCapture(event.pointerId);
      set(true);
    });
    for (const name of ["pointerup", "pointercancel", "blur"]) button.addEventListener(name, () => set(false));
    button.addEventListener("keydown", (event) => {
      if ((event.key === " " || event.key === "Enter") && !event.repeat) set(true);
    });
    button.addEventListener("keyup", () => set(false));
    button.addEventListener("contextmenu", (event) => event.preventDefault());
  }

  // On a phone the stage lies below the photograph: show it when there is something to see.
  comeIntoSight() {
    if (this.element.getBoundingClientRect().top > 0.6 * window.innerHeight) {
      const behavior = matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
      this.element.scrollIntoView({ behavior, block: "start" });
    }
  }

  // `isFree`: the head that is there can be used while the work goes on.
  showProgress(status, hasHead, isFree) {
    this.element.dataset.state = !status ? (hasHead ? "ready" : "empty") : isFree ? "refining" : "busy";
    this.showChoice(status?.choose ?? null);
    if (!status) return;
    this.step.textContent = status.text;
    this.bar.style.width = `${Math.round(100 * status.fraction)}%`;
    if (status.preview) this.preview.src = status.preview;
    // The last preview stays until there is a newer one.
    this.preview.hidden = !status.preview && (this.preview.hidden || status.fraction === 0);
  }

  showChoice(choose) {
    this.element.toggleAttribute("data-choosing", Boolean(choose));
    if (!choose) {
      this.chooser.replaceChildren();
      this.chosen = null;
      return;
    }
    if (JSON.stringify(choose) === this.chosen) return;
    this.chosen = JSON.stringify(choose);
    const part = (value) => `${(100 * value).toFixed(2)}%`;
    const faces = choose.boxes.map(([x0, y0, x1, y1], face) => make("button", {
      type: "button", class: "fv-face", "data-face": face, "aria-label": word("face", face + 1),
      style: `left:${part(x0)};top:${part(y0)};width:${part(x1 - x0)};height:${part(y1 - y0)}`,
      onclick: () => this.actions.choose(face),
    }, make("span", { text: face + 1 })));
    this.chooser.replaceChildren(
      make("p", { text: word("which") }),
      make("div", { class: "fv-faces", role: "group", "aria-label": word("which") },
        make("img", { src: choose.picture, alt: "" }), ...faces));
  }

  fail(reason) {
    this.failed.textContent = word("failed", reason);
    this.element.dataset.state = "failed";
  }
}

