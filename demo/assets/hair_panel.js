// The panel's tab of the hair: pictures of the styles, colours, and sliders.

import { make } from "./controls.js";
import { word } from "./words.js";

const AS_MADE = { length: 1, volume: 1, fringe: 1, wave: 0 };
const SLIDERS = ["length", "volume", "fringe", "wave", "grey"];
const percent = (value) => String(Math.round(100 * value));

export class HairPanel {
  // `panel`: the `Panel`, which owns sliders and actions; `element`: of the tab.
  constructor(panel, element) {
    this.panel = panel;
    const { styles, colors, numbers } = panel.hair;
    this.styles = styles.map(([name, picture]) => this.styleButton(name, picture));
    this.swatches = Object.entries(colors).map(([name, color]) => this.swatch(name, color));
    this.picker = make("input", { type: "color", "data-hair-picker": true, "aria-label": word("hairColor"),
      title: word("hairColor"), oninput: () => this.paint(this.picker.value, false),
      onchange: () => this.panel.actions.commit("hair color") });
    this.mirrored = make("input", { type: "checkbox", "data-hair-mirrored": true,
      onchange: () => this.edit((hair) => { hair.mirrored = this.mirrored.checked; }) });
    const sliders = SLIDERS.map((name) => {
      const [low, high] = numbers[name] ?? [0, 1];
      return panel.slider(
        { label: word(`hairNumber.${name}`), low, high, unit: "%", format: percent, origin: AS_MADE[name] ?? 0,
          data: { "data-hair": name } },
        (state) => state.hair?.[name] ?? AS_MADE[name] ?? 0,
        (state, value) => { if (state.hair) state.hair = { ...state.hair, [name]: value }; }, `hair ${name}`).element;
    });
    element.replaceChildren(
      make("section", {},
        make("div", { class: "fv-section-head" }, make("h4", { text: word("hairStyle") }), panel.lockButton("hair")),
        make("div", { class: "fv-styles", role: "group", "aria-label": word("hairStyle") }, ...this.styles)),
      make("section", {}, make("h4", { text: word("hairColor") }),
        make("div", { class: "fv-swatches", role: "group", "aria-label": word("hairColor") }, ...this.swatches, this.picker)),
      make("section", {}, make("h4", { text: word("hairShape") }), ...sliders,
        make("label", { class: "fv-check" }, this.mirrored, make("span", { text: word("hairMirrored") }))));
  }

  styleButton(name, picture) {
    const text = word(`hairStyle.${name}`);
    const image = picture ? [make("img", { src: picture, alt: "", loading: "lazy" })] : [];
    return make("button", { type: "button", class: "fv-style", "data-hair-style": name, "aria-pressed": "false",
      title: text, onclick: () => this.choose(name) }, ...image, make("span", { text }));
  }

  swatch(name, color) {
    const label = word(`hairColor.${name.replace(" ", "_")}`);
    return make("button", { type: "button", class: "fv-swatch", "data-hair-color": color, "aria-pressed": "false",
      title: label, "aria-label": label, style: `background:${color}`, onclick: () => this.paint(color, true) });
  }

  // Changes the hair of the state as one gesture.
  edit(apply) {
    this.panel.actions.change((state) => {
      if (!state.hair) return;
      state.hair = { ...state.hair };
      apply(state.hair);
    });
    this.panel.actions.commit();
  }

  // Another style is as made; the person's own one comes back as it was.
  choose(style) {
    const own = this.panel.startState?.hair;
    this.edit((hair) => {
      const { length, volume, fringe, wave } = own?.style === style ? own : AS_MADE;
      if (hair.style !== style) Object.assign(hair, { style, length, volume, fringe, wave });
    });
  }

  // A colour that is chosen covers grey hairs.
  paint(color, isLast) {
    const paint = (hair) => Object.assign(hair, { color, grey: 0 });
    if (isLast) this.edit(paint);
    else this.panel.actions.change((state) => { if (state.hair) state.hair = paint({ ...state.hair }); });
  }

  show({ hair }) {
    if (!hair) return;
    for (const button of this.styles) button.setAttribute("aria-pressed", String(button.dataset.hairStyle === hair.style));
    for (const button of this.swatches) button.setAttribute("aria-pressed", String(button.dataset.hairColor === hair.color));
    if (document.activeElement !== this.picker) this.picker.value = hair.color;
    this.mirrored.checked = hair.mirrored;
  }
}
