// The editing panel: tabs of sliders that show a state and report changes. It owns no state.

import { Slider, Tabs, iconButton, make, setIcon } from "./controls.js";
import { HairPanel } from "./hair_panel.js";
import { MIX } from "./state.js";
import { initialLight } from "./lighting.js";
import { word } from "./words.js";

// Names whose ending is a direction, not a side; and the pairs of eye weights that make one gaze direction.
const DIRECTIONS = new Set(["jawLeft", "jawRight", "mouthLeft", "mouthRight"]);
const GAZE = {
  eyeLookInRight: ["eyeLookOutLeft", "lookLeft"], eyeLookOutLeft: ["eyeLookInRight", "lookLeft"],
  eyeLookInLeft: ["eyeLookOutRight", "lookRight"], eyeLookOutRight: ["eyeLookInLeft", "lookRight"],
};
const STEPS = { years: 1, mm: 0.1, degrees: 0.1 };
const POSE = { yaw: 90, pitch: 45, roll: 45 };
const minus = (text) => text.replace("-", "−");
const percent = (value) => minus(String(Math.round(100 * value)));
const degrees = (value) => minus(`${Math.round(value)}°`);
const signed = (value, digits) => minus(`${value > 0 ? "+" : ""}${value.toFixed(digits)}`);

// Rows of sliders for a list of expressions: [key of the label, names that it moves, "pair", "half" or "single"].
export function rowsOf(names) {
  const rows = [], paired = new Set();
  for (const name of names) {
    if (paired.has(name)) continue;
    let [other, row] = GAZE[name] ?? [];
    if (!other && name.endsWith("Left") && !DIRECTIONS.has(name)) {
      other = name.replace(/Left$/, "Right");
      row = name.replace(/Left$/, "");
    }
    if (other && names.includes(other)) {
      paired.add(other);
      rows.push([row, [name, other], "pair"], [name, [name], "half"], [other, [other], "half"]);
    } else {
      rows.push([name, [name], "single"]);
    }
  }
  return rows;
}

// Sections, limited to the names of the model; names without a section come last.
function sectionsOf(groups, names) {
  const known = new Set(names);
  const sections = groups.map(([key, members]) => [key, members.filter((name) => known.has(name))]);
  for (const [, members] of sections) for (const name of members) known.delete(name);
  if (known.size) sections.push(["other", [...known]]);
  return sections.filter(([, members]) => members.length);
}

export class Panel {
  // Actions: change(apply(state)) while a control moves, commit(name) at its end, preset(weights), randomise(region),
  // sampleSkin(), ownSkin(), followLight(isOn), undo(), redo(), reset().
  constructor(element, options, actions) {
    Object.assign(this, { element, actions, presets: options.presets ?? {}, groups: options.groups ?? {},
      light: options.light ?? [], hair: options.hair ?? { styles: [], colors: {}, numbers: {} } });
    this.locked = new Set(); // regions, and "skin"
    this.isWild = false; // whether the dice draw anybody, not only people like the fitted one
    this.rows = []; // {slider, read(state)}
    this.chips = [];
    this.bar = {
      undo: iconButton("undo", word("undo"), actions.undo, { "data-undo": true }),
      redo: iconButton("redo", word("redo"), actions.redo, { "data-redo": true }),
      wild: iconButton("wild", word("wild"), () => this.setWild(!this.isWild), { "data-wild": true, "aria-pressed": "false" }),
      dice: iconButton("dice", word("randomiseAll"), () => actions.randomise(null), { "data-dice": "" }),
      reset: iconButton("reset", word("resetAll"), actions.reset, { "data-reset": true }),
    };
    const names = ["expression", "shape", "hair", "skin", "scene", "mix"];
    const parts = {};
    for (const name of names) {
      const id = `fv-tab-${name}`;
      parts[name] = {
        tab: make("button", { type: "button", role: "tab", id, "aria-controls": `${id}-panel`, "data-tab": name,
          text: word(`tab.${name}`) }),
        panel: make("div", { role: "tabpanel", id: `${id}-panel`, "aria-labelledby": id, class: "fv-tabpanel" }),
      };
    }
    this.parts = parts;
    element.replaceChildren(
      make("div", { class: "fv-panel-bar", role: "toolbar", "aria-label": word("editing") },
        this.bar.undo, this.bar.redo, make("span", { class: "fv-gap" }), this.bar.wild, this.bar.dice,
        this.bar.reset),
      make("div", { class: "fv-tabs", role: "tablist", "aria-label": word("editing") },
        ...names.map((name) => parts[name].tab)),
      make("div", { class: "fv-panels" }, ...names.map((name) => parts[name].panel)),
    );
    this.tabs = new Tabs(parts);
  }

  // Builds the sliders of a model; `setPerson` sets their ranges and initial values.
  build(model) {
    this.model = model;
    this.rows = [];
    this.chips = [];
    this.fillExpression(this.parts.expression.panel);
    this.fillShape(this.parts.shape.panel);
    this.hairPanel = new HairPanel(this, this.parts.hair.panel);
    this.fillSkin(this.parts.skin.panel);
    this.fillScene(this.parts.scene.panel);
    this.fillMix(this.parts.mix.panel);
  }

  slider(options, read, write, name, from = read) {
    const slider = new Slider({
      backLabel: word("back"), format: percent, unit: options.format ? "" : "%", ...options,
      onInput: (value) => this.actions.change((state) => write(state, value)),
      onCommit: () => this.actions.commit(name),
    });
    this.rows.push({ slider, read, from });
    return slider;
  }

  fillExpression(panel) {
    this.expressionRows = [];
    const sections = sectionsOf(this.groups.expressions ?? [], this.model.names);
    const chips = [["photo", null], ...Object.entries(this.presets)].map(([name, weights]) => {
      const chip = make("button", { type: "button", class: "fv-chip", "data-preset": name, "aria-pressed": "false",
        text: word(`preset.${name}`), onclick: () => this.actions.preset(weights) });
      this.chips.push({ chip, weights });
      return chip;
    });
    this.linked = make("input", { type: "checkbox", "data-link": true, onchange: () => this.showLinked() });
    this.linked.checked = true;
    panel.replaceChildren(
      make("div", { class: "fv-chips", role: "group", "aria-label": word("presets") }, ...chips),
      make("label", { class: "fv-check" }, this.linked, make("span", { text: word("link") })),
      ...sections.map(([key, names]) => make("section", {}, make("h4", { text: word(`section.${key}`) }),
        ...rowsOf(names).map(([row, moved, kind]) => this.expressionRow(row, moved, kind)))),
    );
    this.showLinked();
  }

  expressionRow(row, names, kind) {
    const read = (state) => names.reduce((sum, name) => sum + (state.expression[name] ?? 0), 0) / names.length;
    const write = (state, value) => { for (const name of names) state.expression[name] = value; };
    const slider = this.slider({ label: word(`expression.${row}`), unit: "%",
      data: { "data-names": names.join(" ") } }, read, write, row);
    slider.element.classList.add(`fv-${kind}`);
    this.expressionRows.push([names[0], slider]);
    return slider.element;
  }

  showLinked() {
    this.parts.expression.panel.dataset.linked = this.linked.checked;
  }

  fillShape(panel) {
    const known = new Map(this.model.attributes.map((attribute) => [attribute.name, attribute]));
    const regions = sectionsOf(this.groups.attributes ?? [], [...known.keys()]);
    this.regions = Object.fromEntries(regions);
    this.attributeRows = [];
    panel.replaceChildren(...regions.map(([region, names]) => make("section", { "data-region": region },
      make("div", { class: "fv-section-head" }, make("h4", { text: word(`region.${region}`) }),
        iconButton("dice", word("randomise", word(`region.${region}`)), () => this.actions.randomise(region),
          { "data-dice": region }),
        this.lockButton(region)),
      ...names.map((name) => this.attributeRow(known.get(name))))));
    if (!known.size) panel.replaceChildren(make("p", { class: "fv-hint", text: word("noAttributes") }));
  }

  lockButton(region) {
    const label = word("lock", word(`region.${region}`));
    const button = iconButton("unlock", label, () => {
      const isLocked = !this.locked.delete(region);
      if (isLocked) this.locked.add(region);
      button.setAttribute("aria-pressed", String(isLocked));
      setIcon(button, isLocked ? "lock" : "unlock");
    }, { "data-lock": region, "aria-pressed": "false" });
    return button;
  }

  attributeRow({ name, unit }) {
    const step = STEPS[unit] ?? 0.01, digits = step === 1 ? 0 : step === 0.1 ? 1 : 2;
    const format = (amount) => {
      if (unit === "share") return `${signed(100 * amount, 0)}`;
      return signed(amount, digits) + (unit === "degrees" ? "°" : "");
    };
    const slider = this.slider(
      { label: word(`attribute.${name}`), step, format, unit: unit === "degrees" ? "" : word(`unit.${unit}`),
        hint: this.hint(name, unit),
        data: { "data-attribute": name } },
      (state) => state.attributes[name] ?? 0,
      (state, value) => {
        if (value) state.attributes[name] = value;
        else delete state.attributes[name];
      },
      name,
    );
    this.attributeRows.push([name, slider]);
    return slider.element;
  }

  hint(name, unit) {
    const text = word(`attribute.${name}`), unitText = word(`unit.${unit}`);
    return unitText ? `${text} (${unitText})` : text;
  }

  fillSkin(panel) {
    this.strength = this.slider({ label: word("strength"), hint: word("strengthHint"), high: 2, step: 0.05,
      data: { "data-strength": true } }, (state) => state.strength, (state, value) => { state.strength = value; },
    "strength");
    this.sampleSkin = make("button", { type: "button", class: "fv-button", "data-sample-skin": true,
      text: word("sampleSkin"), onclick: () => this.actions.sampleSkin() });
    this.ownSkin = make("button", { type: "button", class: "fv-button", "data-own-skin": true, text: word("ownSkin"),
      onclick: () => this.actions.ownSkin() });
    this.skinHint = make("p", { class: "fv-hint" });
    panel.replaceChildren(
      make("section", {}, make("h4", { text: word("detail") }), this.strength.element,
        make("div", { class: "fv-buttons" }, this.sampleSkin, this.ownSkin), this.skinHint));
  }

  fillScene(panel) {
    const pose = Object.entries(POSE).map(([name, limit]) => this.slider(
      { label: word(`pose.${name}`), low: -limit, high: limit, step: 1, format: degrees,
        data: { "data-pose": name } },
      (state) => state.pose[name] ?? 0, (state, value) => { state.pose[name] = value; }, `pose ${name}`).element);
    const initial = initialLight(this.light);
    const light = this.light.map(({ name, range: [low, high], start, unit }) => this.slider(
      { label: word(`light.${name}`), low, high, step: unit === "degrees" ? 1 : 0.01,
        format: unit === "degrees" ? degrees : percent, data: { "data-light": name } },
      (state) => state.light[name] ?? start,
      (state, value) => { state.light = { ...initial, ...state.light, [name]: value }; }, `light ${name}`).element);
    this.follow = make("input", { type: "checkbox", onchange: () => this.actions.followLight(this.follow.checked) });
    panel.replaceChildren(
      make("section", {}, make("h4", { text: word("pose") }), ...pose),
      make("section", {}, make("h4", { text: word("light") }),
        make("label", { class: "fv-check" }, this.follow, make("span", { text: word("followLight") })), ...light));
  }

  fillMix(panel) {
    this.mixHint = make("p", { class: "fv-hint" });
    const rows = MIX.map((name) => this.slider({ label: word(`mix.${name}`), data: { "data-mix": name } },
      (state) => state.mix[name] ?? 0, (state, value) => { state.mix[name] = value; }, `mix ${name}`).element);
    panel.replaceChildren(make("section", {}, make("h4", { text: word("tab.mix") }), this.mixHint, ...rows));
  }

  // Ranges, initial values and available features of a head; `value` is the component's.
  setPerson(value, start) {
    this.estimates = value.estimates;
    this.startState = start;
    for (const [name, slider] of this.attributeRows) {
      const { minimum, maximum } = this.model.attributes.find((attribute) => attribute.name === name);
      const estimate = value.estimates?.[name] ?? (minimum + maximum) / 2;
      const [low, high] = value.limits?.[name] ?? [Math.min(0, minimum - estimate), Math.max(0, maximum - estimate)];
      slider.setRange(low, high);
    }
    for (const [name, slider] of this.expressionRows) slider.setRange(...(value.limits?.[name] ?? [0, 1]));
    for (const { slider, from } of this.rows) slider.setRange(slider.low, slider.high, from(start));
    const hasDisplacement = Boolean(value.normal);
    this.strength.input.disabled = this.sampleSkin.disabled = !hasDisplacement;
    this.skinHint.textContent = word(hasDisplacement ? "skinHint" : "noDetail");
    this.parts.hair.tab.hidden = !value.hair;
    if (!value.hair && this.tabs.chosen === "hair") this.tabs.choose("expression");
    this.parts.mix.tab.hidden = !value.donor;
    if (value.donor) this.mixHint.textContent = word("mixHint", value.donor.name || "…");
    else if (this.tabs.chosen === "mix") this.tabs.choose("expression");
  }

  // Shows a state on all sliders.
  show(state, history) {
    for (const { slider, read } of this.rows) {
      const value = read(state);
      if (value !== slider.value) slider.set(value);
    }
    for (const { chip, weights } of this.chips) {
      const wanted = weights ?? this.startState?.expression ?? {};
      const isSame = (name) => Math.abs((state.expression[name] ?? 0) - (wanted[name] ?? 0)) < 1e-3;
      chip.setAttribute("aria-pressed", String(this.model.names.every(isSame)));
    }
    this.ownSkin.disabled = !state.skin;
    this.hairPanel.show(state);
    this.bar.undo.disabled = !history.canUndo;
    this.bar.redo.disabled = !history.canRedo;
  }

  setWild(isOn) {
    this.isWild = isOn;
    this.bar.wild.setAttribute("aria-pressed", String(isOn));
  }

  setWaiting(isWaiting) {
    for (const button of this.element.querySelectorAll("[data-dice]")) button.disabled = isWaiting;
  }

  // Attributes that randomising must keep.
  lockedAttributes() {
    return [...this.locked].flatMap((region) => (region === "hair" ? ["hair"] : this.regions[region] ?? []));
  }
}
