// Controls of the panel and the viewport: icons, buttons, sliders, tabs.

const ICONS = {
  undo: "M9 14 4 9l5-5M4 9h10a6 6 0 0 1 0 12h-3",
  redo: "m15 14 5-5-5-5M20 9H10a6 6 0 0 0 0 12h3",
  dice: "M5 3h14a2 2 0 0 1 2 2v14a2 2 0 0 1-2 2H5a2 2 0 0 1-2-2V5a2 2 0 0 1 2-2ZM8 8h.01M16 8h.01M12 12h.01"
    + "M8 16h.01M16 16h.01",
  wild: "M13 2 5 14h6l-1 8 9-13h-6Z",
  reset: "M3 12a9 9 0 1 0 3-6.7L3 8M3 3v5h5",
  lock: "M6 11h12a1 1 0 0 1 1 1v8a1 1 0 0 1-1 1H6a1 1 0 0 1-1-1v-8a1 1 0 0 1 1-1ZM8 11V7a4 4 0 0 1 8 0v4",
  unlock: "M6 11h12a1 1 0 0 1 1 1v8a1 1 0 0 1-1 1H6a1 1 0 0 1-1-1v-8a1 1 0 0 1 1-1ZM8 11V7a4 4 0 0 1 7.6-1.8",
  link: "M10 13a5 5 0 0 0 7.5.5l3-3a5 5 0 0 0-7-7l-1.7 1.7M14 11a5 5 0 0 0-7.5-.5l-3 3a5 5 0 0 0 7 7l1.7-1.7",
  light: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8ZM12 2v2M12 20v2"
    + "M4.9 4.9l1.4 1.4M17.7 17.7l1.4 1.4M2 12h2M20 12h2M4.9 19.1l1.4-1.4M17.7 6.3l1.4-1.4",
  compare: "M12 3v18M9 5H5a2 2 0 0 0-2 2v10a2 2 0 0 0 2 2h4M15 5h4a2 2 0 0 1 2 2v10a2 2 0 0 1-2 2h-4",
  camera: "M4 7h3l2-3h6l2 3h3a1 1 0 0 1 1 1v11a1 1 0 0 1-1 1H4a1 1 0 0 1-1-1V8a1 1 0 0 1 1-1Z"
    + "M12 9.5a3.8 3.8 0 1 0 0 7.6 3.8 3.8 0 0 0 0-7.6Z",
  full: "M8 3H4a1 1 0 0 0-1 1v4M16 3h4a1 1 0 0 1 1 1v4M8 21H4a1 1 0 0 1-1-1v-4M16 21h4a1 1 0 0 0 1-1v-4",
  background: "M4 4h16v16H4ZM4 20 20 4M4 12l8-8M12 20l8-8",
  play: "M7 4.5v15l12-7.5Z",
  pause: "M8 5v14M16 5v14",
  loop: "M17 2l4 4-4 4M3 11V9a3 3 0 0 1 3-3h15M7 22l-4-4 4-4M21 13v2a3 3 0 0 1-3 3H3",
  eye: "M2 12s4-7 10-7 10 7 10 7-4 7-10 7S2 12 2 12ZM12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6Z",
  target: "M12 5a7 7 0 1 0 0 14 7 7 0 0 0 0-14ZM12 2v4M12 18v4M2 12h4M18 12h4",
  record: "M12 6a6 6 0 1 0 0 12 6 6 0 0 0 0-12Z",
  stop: "M7 7h10v10H7Z",
  close: "M6 6l12 12M18 6 6 18",
  turn: "M10 17.700a8 8 0 1 1 4 0l-2 3.800Z",
};

export function make(tag, options = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name === "text") node.textContent = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

export function icon(name, turnDeg = 0) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg"), path = document.createElementNS(space, "path");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", ICONS[name]);
  if (turnDeg) path.setAttribute("transform", `rotate(${turnDeg} 12 12)`);
  svg.append(path);
  return svg;
}

export function iconButton(name, label, onclick, options = {}) {
  const { turnDeg, ...attributes } = options;
  return make("button", { type: "button", class: "fv-icon", title: label, "aria-label": label, onclick, ...attributes },
    icon(name, turnDeg));
}

export function setIcon(button, name) {
  button.replaceChildren(icon(name));
}

// A range input with label, value and reset button. Options: label, hint, low, high, step, start,
// format(value) -> text, onInput(value), onCommit().
export class Slider {
  constructor(options) {
    Object.assign(this, { low: 0, high: 1, step: 0.01, start: 0, hint: "" }, options);
    this.input = make("input", {
      type: "range", step: "any", "aria-label": this.label, title: this.hint || false,
      oninput: () => this.moved(), onchange: () => this.onCommit(), ondblclick: () => this.restore(),
      onkeydown: (event) => this.key(event), ...this.data,
    });
    this.output = make("output");
    this.back = make("button", {
      type: "button", class: "fv-back", tabindex: -1, title: this.backLabel, "aria-label": this.backLabel,
      onclick: () => this.restore(),
    }, icon("reset"));
    this.element = make("div", { class: "fv-slider" },
      make("span", { class: "fv-label", text: this.label, title: this.hint || this.label }), this.input, this.output,
      this.back);
    this.setRange(this.low, this.high, this.start);
  }

  setRange(low, high, start = this.start) {
    Object.assign(this, { low, high, start });
    this.input.min = low;
    this.input.max = high;
    this.input.disabled = !(high > low);
    this.set(this.value ?? start);
  }

  set(value) {
    this.value = value;
    this.input.value = value;
    const text = this.format(value);
    const shown = this.unit ? `${text} ${this.unit}` : text;
    this.output.textContent = shown;
    this.input.setAttribute("aria-valuetext", shown);
    const share = (at) => Math.max(0, Math.min(1, (at - this.low) / (this.high - this.low || 1)));
    const percent = (at) => `${(100 * share(at)).toFixed(1)}%`;
    const origin = Math.max(this.low, Math.min(this.high, this.origin ?? 0));
    this.input.style.setProperty("--from", percent(Math.min(value, origin)));
    this.input.style.setProperty("--to", percent(Math.max(value, origin)));
    this.element.classList.toggle("fv-moved", Math.abs(value - this.start) > this.step / 2);
  }

  // Snaps to the initial value, to zero and to whole steps.
  moved() {
    let value = Number(this.input.value);
    const near = (target) => Math.abs(value - target) < 0.012 * (this.high - this.low);
    if (near(this.start)) value = this.start;
    else if (near(0)) value = 0;
    else if (value > this.low && value < this.high) value = Math.round(value / this.step) * this.step;
    this.give(value);
  }

  give(value) {
    const kept = Number(Math.max(this.low, Math.min(this.high, value)).toFixed(4));
    this.set(kept);
    this.onInput(kept);
  }

  restore() {
    this.give(this.start);
    this.onCommit();
  }

  key(event) {
    const directions = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 };
    const ends = { Home: this.low, End: this.high };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in directions) this.give(this.value + directions[event.key] * this.step);
    else if (event.key in ends) this.give(ends[event.key]);
    else if (event.key === "Backspace" || event.key === "Delete") this.give(this.start);
    else return;
    event.preventDefault();
    this.onCommit();
  }
}

// Tabs by the WAI-ARIA pattern: arrow keys choose; only the chosen tab is in the tab order.
export class Tabs {
  constructor(parts) {
    this.parts = parts; // {name: {tab, panel}}
    const names = Object.keys(parts);
    for (const name of names) {
      const { tab } = parts[name];
      tab.addEventListener("click", () => this.choose(name));
      tab.addEventListener("keydown", (event) => {
        const shown = names.filter((other) => !parts[other].tab.hidden), at = shown.indexOf(name);
        const target = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: shown.length - 1 }[event.key];
        if (target === undefined) return;
        event.preventDefault();
        this.choose(shown[(target + shown.length) % shown.length]);
        this.parts[this.chosen].tab.focus();
      });
    }
    this.choose(names[0]);
  }

  choose(name) {
    this.chosen = name;
    for (const [other, { tab, panel }] of Object.entries(this.parts)) {
      tab.setAttribute("aria-selected", String(other === name));
      tab.tabIndex = other === name ? 0 : -1;
      panel.hidden = other !== name;
    }
    const { parentElement } = this.parts[name].panel;
    if (parentElement) parentElement.scrollTop = 0; // each tab opens at its top
  }
}
