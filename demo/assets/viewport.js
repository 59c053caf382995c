// The viewport around the canvas: buttons, progress, hints, and the choice of a face.

import { iconButton, make } from "./controls.js";
import { word } from "./words.js";

const VIEWS = [["front", 0], ["halfRight", 40], ["halfLeft", -40], ["side", 90], ["back", 180]];
const MODES = ["colour", "clay", "normals", "wire", "uv"];
const BACKGROUNDS = ["theme", "white", "grey", "black"];

export class Viewport {
  // Actions: turn(yawDeg), mode(name), followLight(isOn), compare(isOn), screenshot(), full(), choose(n).
  constructor(root, actions) {
    this.element = root.querySelector(".fv-viewport");
    this.actions = actions;
    this.background = "theme";
    const find = (name) => this.element.querySelector(name);
    this.step = find(".fv-step");
    this.bar = find(".fv-bar > div");
    this.preview = find(".fv-preview");
    this.failed = find(".fv-failed");
    this.chooser = find(".fv-chooser");
    this.hint = find(".fv-hint-line");
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
    this.backgroundButton = make("button", { type: "button", class: "fv-icon fv-background", onclick: () => this.nextBackground() },
      make("span", {}));
    this.compareButton = iconButton("compare", word("compare"), () => {}, { "data-compare": true });
    this.listenToCompare();
    find(".fv-side-tools").append(
      this.backgroundButton, this.lightButton, this.compareButton,
      iconButton("camera", word("screenshot"), () => actions.screenshot(), { "data-screenshot": true }),
      iconButton("full", word("full"), () => actions.full(), { "data-full": true }));
    this.setBackground("theme");
  }

  setMode(mode) {
    this.mode = mode;
    for (const button of this.modes) button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
    this.actions.mode(mode);
  }

  nextBackground() {
    this.setBackground(BACKGROUNDS[(BACKGROUNDS.indexOf(this.background) + 1) % BACKGROUNDS.length]);
  }

  setBackground(background) {
    this.background = this.element.dataset.background = background;
    const label = word(`background.${background}`);
    this.backgroundButton.title = label;
    this.backgroundButton.setAttribute("aria-label", label);
  }

  setFollowing(isOn) {
    this.isFollowing = isOn;
    this.lightButton.setAttribute("aria-pressed", String(isOn));
    this.showHint(isOn ? word("lightDragHint") : "");
  }

  showHint(text) {
    this.hint.textContent = text;
    this.hint.hidden = !text;
  }

  listenToCompare() {
    const button = this.compareButton;
    const set = (isOn) => {
      button.setAttribute("aria-pressed", String(isOn));
      this.showHint(isOn ? word("asFitted") : this.isFollowing ? word("lightDragHint") : "");
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

  // On a phone the viewport lies below the photograph: scroll to it when there is a head.
  scrollIntoView() {
    if (this.element.getBoundingClientRect().top > 0.6 * window.innerHeight) {
      const behavior = matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
      this.element.scrollIntoView({ behavior, block: "start" });
    }
  }

  // `isUsable`: the present head can be edited while the job runs.
  showProgress(status, hasHead, isUsable) {
    this.element.dataset.state = !status ? (hasHead ? "ready" : "empty") : isUsable ? "refining" : "busy";
    this.showFaces(status?.choose ?? null);
    if (!status) return;
    this.step.textContent = status.text;
    this.bar.style.width = `${Math.round(100 * status.fraction)}%`;
    if (status.preview) this.preview.src = status.preview;
    // Without a new preview, the last one stays.
    this.preview.hidden = !status.preview && (this.preview.hidden || status.fraction === 0);
  }

  showFaces(choice) {
    this.element.toggleAttribute("data-choosing", Boolean(choice));
    if (!choice) {
      this.chooser.replaceChildren();
      this.shownChoice = null;
      return;
    }
    if (JSON.stringify(choice) === this.shownChoice) return;
    this.shownChoice = JSON.stringify(choice);
    const percent = (value) => `${(100 * value).toFixed(2)}%`;
    const faces = choice.boxes.map(([x0, y0, x1, y1], face) => make("button", {
      type: "button", class: "fv-face", "data-face": face, "aria-label": word("face", face + 1),
      style: `left:${percent(x0)};top:${percent(y0)};width:${percent(x1 - x0)};height:${percent(y1 - y0)}`,
      onclick: () => this.actions.choose(face),
    }, make("span", { text: face + 1 })));
    this.chooser.replaceChildren(
      make("p", { text: word("which") }),
      make("div", { class: "fv-faces", role: "group", "aria-label": word("which") },
        make("img", { src: choice.picture, alt: "" }), ...faces));
  }

  fail(reason) {
    this.failed.textContent = word("failed", reason);
    this.element.dataset.state = "failed";
  }
}

