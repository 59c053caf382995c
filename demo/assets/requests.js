// Edit requests: changes that only the server can show, one request at a time.

import { MIX, copy, emptyState } from "./state.js";

const TIMEOUT_MS = 3000;
const DEBOUNCE_MS = 60;

// Sends the latest state that differs from what the server's files show; waits for the answer before it sends the next.
export class EditRequests {
  // `send({state})` sends a request.
  constructor(send) {
    this.sendRequest = send;
    this.colours = new Set(); // names of the attributes that change albedo
    this.reset(emptyState());
  }

  // The part of a state that the server's files show, as text.
  key({ attributes, skin, mix, hair }) {
    const named = Object.entries(attributes).filter(([name, amount]) => amount && this.colours.has(name)).sort();
    return JSON.stringify([named, skin, MIX.map((part) => mix[part] ?? 0), hair?.style, hair?.mirrored]);
  }

  // The server's files show this state now.
  reset(shown) {
    clearTimeout(this.waiting);
    clearTimeout(this.timer);
    this.waiting = this.timer = undefined;
    this.sent = this.key({ ...emptyState(), ...shown });
  }

  // An answer has arrived.
  answered() {
    clearTimeout(this.waiting);
    this.waiting = undefined;
    if (this.latest) this.request(this.latest);
  }

  // Requests a state, now or after the answer to the request before.
  request(state) {
    this.latest = state;
    if (this.waiting === undefined) this.timer ??= setTimeout(() => this.send(), DEBOUNCE_MS);
  }

  send() {
    this.timer = undefined;
    const key = this.key(this.latest);
    if (this.waiting !== undefined || key === this.sent) return;
    this.sent = key;
    this.waiting = setTimeout(() => this.answered(), TIMEOUT_MS);
    this.sendRequest({ state: copy(this.latest) });
  }
}
