// Animated transition between editing states.

const DURATION_MS = 260;
const ANIMATED = ["expression", "attributes", "pose"];

export class Transition {
  // `draw(state)` draws a state.
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

  // Shows a state without a transition.
  show(state) {
    this.stop();
    this.keep(state);
    this.draw(state);
  }

  // Moves to a state; at once where the visitor prefers reduced motion.
  to(state) {
    const from = this.shown;
    if (!from || matchMedia("(prefers-reduced-motion: reduce)").matches) {
      this.show(state);
      return;
    }
    this.stop();
    const start = performance.now();
    const step = (now) => {
      const progress = Math.min(1, Math.max(0, now - start) / DURATION_MS);
      if (progress === 1) {
        this.show(state);
        return;
      }
      const current = { ...state }, eased = smoothstep(progress);
      for (const name of ANIMATED) current[name] = interpolate(from[name], state[name], eased);
      this.keep(current);
      this.draw(current);
      this.frame = requestAnimationFrame(step);
    };
    this.frame = requestAnimationFrame(step);
  }

  keep(state) {
    this.shown = Object.fromEntries(ANIMATED.map((name) => [name, { ...state[name] }]));
  }
}

export const smoothstep = (t) => t * t * (3 - 2 * t);

// Linear interpolation of numbers by name; a missing name counts as zero.
export function interpolate(from, to, t) {
  const result = {};
  for (const name of new Set([...Object.keys(from), ...Object.keys(to)])) {
    const start = from[name] ?? 0;
    result[name] = start + t * ((to[name] ?? 0) - start);
  }
  return result;
}
