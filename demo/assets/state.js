// The visitor's editing state, a plain object: values of all sliders.

export const MIX = ["identity", "expression", "albedo", "detail"];

// Deep copy by way of JSON, because the page may pass proxies, which structuredClone refuses.
export const copy = (state) => JSON.parse(JSON.stringify(state));

export function emptyState() {
  return {
    expression: {}, attributes: {}, skin: 0, strength: 1, pose: { yaw: 0, pitch: 0, roll: 0 }, light: {},
    mix: { identity: 0, expression: 0, albedo: 0, detail: 0 }, hair: null,
  };
}

// A complete state from a partial one. Amounts are clamped to their limits; attributes of zero are omitted.
export function complete(given, limits = {}) {
  const state = { ...emptyState(), ...copy(given ?? {}) };
  for (const part of ["pose", "mix"]) state[part] = { ...emptyState()[part], ...state[part] };
  for (const name of Object.keys(state.expression)) {
    state.expression[name] = clamped(state.expression[name], limits[name] ?? [0, 1]);
  }
  for (const [name, amount] of Object.entries(state.attributes)) {
    state.attributes[name] = clamped(amount, limits[name]);
    if (!state.attributes[name]) delete state.attributes[name];
  }
  state.strength = clamped(state.strength, [0, 2]);
  return state;
}

function clamped(value, limits) {
  if (!Number.isFinite(value)) return 0;
  return limits ? Math.max(limits[0], Math.min(limits[1], value)) : value;
}
