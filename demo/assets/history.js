// A visitor's state as a value, its history, and what of it the server has to know.

export const MIX = ["identity", "expression", "albedo", "detail"];
const SAME_GESTURE_MS = 700; // keys that follow each other on one slider are one gesture
const ANSWER_MS = 3000;
const PAUSE_MS = 60;

// By way of text, because what the page hands over may be a proxy, which cannot be cloned otherwise.
export const copy = (state) => JSON.parse(JSON.stringify(state));

export function emptyState() {
  return {
    expression: {}, attributes: {}, skin: 0, strength: 1, pose: { yaw: 0, pitch: 0, roll: 0 }, light: {},
    mix: { identity: 0, expression: 0, albedo: 0, detail: 0 },
  };
}

// A whole state of what a server or a visitor gave; amounts stay within limits, those of zero are left out.
export function complete(given, limits = {}) {
  const state = { ...emptyState(), ...copy(given ?? {}) };
  for (const part of ["pose", "mix"]) state[part] = { ...emptyState()[part], ...state[part] };
  for (const name of Object.keys(state.expression)) {
    state.expression[name] = within(state.expression[name], limits[name] ?? [0, 1]);
  }
  for (const [name, amount] of Object.entries(state.attributes)) {
    state.attributes[name] = within(amount, limits[name]);
    if (!state.attributes[name]) delete state.attributes[name];
  }
  state.strength = within(state.strength, [0, 2]);
  return state;
}

function within(value, limits) {
  if (!Number.isFinite(value)) return 0;
  return limits ? Math.max(limits[0], Math.min(limits[1], value)) : value;
}

export class History {
  constructor(state) {
    this.clear(state);
  }

  clear(state) {
    this.states = [copy(state)];
    this.at = 0;
    this.last = null;
  }

  // The end of a gesture; `name` tells which control it was.
  add(state, name) {
    if (JSON.stringify(state) === JSON.stringify(this.states[this.at])) return;
    const now = performance.now();
    const continues = name && this.last?.name === name && now - this.last.time < SAME_GESTURE_MS && this.at > 0;
    this.states.length = this.at + 1;
    if (continues) this.states[this.at] = copy(state);
    else this.at = this.states.push(copy(state)) - 1;
    this.last = { name, time: now };
  }

  get canUndo() {
    return this.at > 0;
  }

  get canRedo() {
    return this.at < this.states.length - 1;
  }

  // The state before (-1) or after (1) this one, or null.
  step(direction) {
    if (direction < 0 ? !this.canUndo : !this.canRedo) return null;
    this.at += direction;
    this.last = null;
    return copy(this.states[this.at]);
  }
}

// Tells the server of changes that only it can show: one question at a time, and the last one wins.
export class Questions {
  constructor(ask) {
    this.ask = ask;
    this.colours = new Set(); // attributes that change colours
    this.reset(emptyState());
  }

  // What the server shows, as text.
  key({ attributes, skin, mix }) {
    const named = Object.entries(attributes).filter(([name, amount]) => amount && this.colours.has(name)).sort();
    return JSON.stringify([named, skin, MIX.map((part) => mix[part] ?? 0)]);
  }

  // The server's files show this state.
  reset(shown) {
    clearTimeout(this.waiting);
    clearTimeout(this.soon);
    this.waiting = this.soon = undefined;
    this.sent = this.key({ ...emptyState(), ...shown });
  }

  answered() {
    clearTimeout(this.waiting);
    this.waiting = undefined;
    if (this.wanted) this.want(this.wanted);
  }

  want(state) {
    this.wanted = state;
    if (this.waiting === undefined) this.soon ??= setTimeout(() => this.send(), PAUSE_MS);
  }

  send() {
    this.soon = undefined;
    const key = this.key(this.wanted);
    if (this.waiting !== undefined || key === this.sent) return;
    this.sent = key;
    this.waiting = setTimeout(() => this.answered(), ANSWER_MS);
    this.ask({ state: copy(this.wanted) });
  }
}
