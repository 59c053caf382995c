// What a tab remembers of a visit, where the visitor wants the head kept: the token of the session, and the sliders.
// It is forgotten with the tab.

const TOKEN = "faceverse-visit", STATE = "faceverse-state";

export class Visit {
  constructor(storage) {
    try {
      this.storage = storage ?? window.sessionStorage;
    } catch { // browsers may refuse it
      this.storage = null;
    }
  }

  get token() {
    return this.storage?.getItem(TOKEN) ?? "";
  }

  // An empty token forgets all.
  set token(token) {
    if (token) this.storage?.setItem(TOKEN, token);
    else for (const name of [TOKEN, STATE]) this.storage?.removeItem(name);
  }

  remember(person, state) {
    if (this.token && person) this.storage?.setItem(STATE, JSON.stringify({ person, state }));
  }

  // The sliders of a person as the tab was left with, once.
  stateOf(person) {
    const stored = this.token && this.storage?.getItem(STATE);
    if (!stored) return null;
    const { person: known, state } = JSON.parse(stored);
    this.storage.removeItem(STATE);
    return known === person ? state : null;
  }
}
