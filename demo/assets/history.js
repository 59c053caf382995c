// Undo history of the editing state.

import { copy } from "./state.js";

const SAME_GESTURE_MS = 700; // changes of one control within this time are one gesture

export class History {
  constructor(state) {
    this.clear(state);
  }

  clear(state) {
    this.states = [copy(state)];
    this.position = 0;
    this.last = null;
  }

  // Adds the state at the end of a gesture. `name`: the control; a repeated gesture on it replaces the last state.
  add(state, name) {
    if (JSON.stringify(state) === JSON.stringify(this.states[this.position])) return;
    const now = performance.now();
    const continues = name && this.last?.name === name && now - this.last.time < SAME_GESTURE_MS && this.position > 0;
    this.states.length = this.position + 1;
    if (continues) this.states[this.position] = copy(state);
    else this.position = this.states.push(copy(state)) - 1;
    this.last = { name, time: now };
  }

  get canUndo() {
    return this.position > 0;
  }

  get canRedo() {
    return this.position < this.states.length - 1;
  }

  // Moves to the previous (-1) or next (1) state and returns it; null at the end.
  step(direction) {
    if (direction < 0 ? !this.canUndo : !this.canRedo) return null;
    this.position += direction;
    this.last = null;
    return copy(this.states[this.position]);
  }
}
