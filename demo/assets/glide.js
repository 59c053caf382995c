// Lets the head move to a state instead of jumping there.

const MS = 260;
const PARTS = ["expression", "attributes", "pose"];

export class Glide {
  // `draw(state)` shows a state.
  constructor(draw) {
    this.draw = draw;
    this.shown = null;
  }

  get isRunning() {
    return this.frame !== undefined;
  }

  stop() {
    cancelAnimationFrame(this.frame);
    this.frame = undefined;
  }

  // At once.
  show(state) {
    this.stop();
    this.keep(state);
    this.draw(state);
  }

  to(state) {
    const from = this.shown;
    if (!from || matchMedia("(prefers-reduced-motion: reduce)").matches) {
      this.show(state);
      return;
    }
    this.stop();
    const start = performance.now();
    const step = (now) => {
      const part = Math.min(1, Math.max(0, now - start) / MS);
      if (part === 1) {
        this.show(state);
        return;
      }
      const between = { ...state }, eased = part * part * (3 - 2 * part);
      for (const name of PARTS) between[name] = mixed(from[name], state[name], eased);
      this.keep(between);
      this.draw(between);
      this.frame = requestAnimationFrame(step);
    };
    this.frame = requestAnimationFrame(step);
  }

  keep(state) {
    this.shown = Object.fromEntries(PARTS.map((name) => [name, { ...state[name] }]));
  }
}

function mixed(from, to, share) {
  const result = {};
  for (const name of new Set([...Object.keys(from), ...Object.keys(to)])) {
    const before = from[name] ?? 0;
    result[name] = before + share * ((to[name] ?? 0) - before);
  }
  return result;
}
