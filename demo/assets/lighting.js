// Colour and direction of the key light, from the sliders of the panel.

const WARM = [1.0, 0.8, 0.58], COLD = [0.74, 0.87, 1.0];
const DEGREE = Math.PI / 180;

// Unit vector to the light: +x to the right of the picture, +y up, +z towards the camera.
export function lightDirection(yawDeg, pitchDeg) {
  const yaw = yawDeg * DEGREE, pitch = pitchDeg * DEGREE;
  return [Math.sin(yaw) * Math.cos(pitch), Math.sin(pitch), Math.cos(yaw) * Math.cos(pitch)];
}

// The light of a state without one. `parameters`: [{name, range, start, unit}], as the page's Python sends them.
export function initialLight(parameters) {
  return Object.fromEntries(parameters.map(({ name, start }) => [name, start]));
}

// Linear RGB of a warmth from -1 (cold) over 0 (white) to 1 (warm).
export function lightColour(warmth) {
  const end = warmth < 0 ? COLD : WARM;
  return end.map((channel) => 1 + Math.abs(warmth) * (channel - 1));
}
