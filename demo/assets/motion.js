// A motion over time, and the bar under the head that plays it.

import { iconButton, make, setIcon } from "./controls.js";
import { loadPack } from "./files.js";
import { word } from "./words.js";

// Places in a row, as demo/viewer.py writes it; the weights follow.
export const ROW = { seconds: 0, confidence: 1, yaw: 2, pitch: 3, roll: 4, x: 5, y: 6, z: 7, weights: 8 };
const SPEEDS = [0.25, 0.5, 1, 2];

export class Motion {
  static async load(address) {
    return new Motion(await loadPack(address));
  }

  constructor({ rows, names, frames }) {
    Object.assign(this, { rows, names, frames, width: rows.length / frames });
    this.home = this.middle(); // where the head mostly is
  }

  get seconds() {
    return this.rows[(this.frames - 1) * this.width];
  }

  // The row at a time; between two frames it is between both.
  at(seconds) {
    const { rows, width } = this;
    let low = 0, high = this.frames - 1;
    while (high - low > 1) {
      const between = (low + high) >> 1;
      if (rows[between * width] <= seconds) low = between;
      else high = between;
    }
    const from = rows.subarray(low * width, (low + 1) * width), to = rows.subarray(high * width, (high + 1) * width);
    const share = high > low ? Math.max(0, Math.min(1, (seconds - from[0]) / (to[0] - from[0]))) : 0;
    return from.map((value, k) => value + share * (to[k] - value));
  }

  middle() {
    return [ROW.x, ROW.y, ROW.z].map((place) => {
      const values = Float32Array.from({ length: this.frames }, (_, k) => this.rows[k * this.width + place]).sort();
      return values[this.frames >> 1];
    });
  }
}

// Actions: show(motion, row, isResting), leave().
export class Player {
  constructor(element, actions) {
    Object.assign(this, { element, actions, motion: null, speed: 1, isLooping: true });
    this.button = iconButton("play", word("play"), () => this.toggle(), { "data-play": true });
    this.range = make("input", { type: "range", min: 0, max: 1, step: "any", "aria-label": word("scrub"),
      "data-scrub": true, oninput: () => this.scrub(Number(this.range.value)) });
    this.clock = make("output", { class: "fv-clock" });
    this.whole = make("span", { class: "fv-whole" });
    this.choice = make("select", { class: "fv-speed", title: word("speed"), "aria-label": word("speed"),
      onchange: () => { this.speed = Number(this.choice.value); } },
    ...SPEEDS.map((speed) => make("option", { value: speed, text: `${speed}×`, selected: speed === 1 })));
    this.loop = iconButton("loop", word("loop"), () => this.setLooping(!this.isLooping), { "aria-pressed": "true" });
    this.close = iconButton("close", word("leaveMotion"), () => actions.leave(), { "data-leave": true });
    element.replaceChildren(this.button, this.range, this.clock, this.whole, this.choice, this.loop, this.close);
  }

  open(motion, isPlaying) {
    this.motion = motion;
    this.range.max = motion.seconds;
    this.whole.textContent = `/ ${clock(motion.seconds)}`;
    this.element.hidden = false;
    this.scrub(0);
    if (isPlaying && motion.frames > 1) this.play();
  }

  shut() {
    this.pause(true);
    this.motion = null;
    this.element.hidden = true;
  }

  get isPlaying() {
    return this.frame !== undefined;
  }

  toggle() {
    if (this.isPlaying) this.pause();
    else this.play();
  }

  play() {
    if (this.isPlaying || !this.motion) return;
    if (this.seconds >= this.motion.seconds) this.seconds = 0;
    this.mark(true);
    let last = performance.now();
    const step = (now) => {
      this.frame = requestAnimationFrame(step);
      this.seconds += (Math.max(0, now - last) / 1000) * this.speed;
      last = now;
      const end = this.motion.seconds;
      if (this.seconds >= end && this.isLooping) this.seconds %= end || 1;
      if (this.seconds >= end) {
        this.seconds = end;
        this.pause();
        return;
      }
      this.show(false);
    };
    this.frame = requestAnimationFrame(step);
  }

  // `isSilent` leaves on the head what is there.
  pause(isSilent = false) {
    if (!this.isPlaying) return;
    cancelAnimationFrame(this.frame);
    this.frame = undefined;
    this.mark(false);
    if (!isSilent) this.show(true);
  }

  scrub(seconds) {
    this.seconds = Math.max(0, Math.min(this.motion.seconds, seconds));
    this.show(!this.isPlaying);
  }

  setLooping(isOn) {
    this.isLooping = isOn;
    this.loop.setAttribute("aria-pressed", String(isOn));
  }

  mark(isPlaying) {
    setIcon(this.button, isPlaying ? "pause" : "play");
    const label = word(isPlaying ? "pause" : "play");
    this.button.title = label;
    this.button.setAttribute("aria-label", label);
  }

  show(isResting) {
    const { seconds, motion } = this, text = clock(seconds);
    this.range.value = seconds;
    this.range.style.setProperty("--from", "0%");
    this.range.style.setProperty("--to", `${((100 * seconds) / (motion.seconds || 1)).toFixed(2)}%`);
    this.range.setAttribute("aria-valuetext", text);
    this.clock.textContent = text;
    this.actions.show(motion, motion.at(seconds), isResting);
  }
}

export function clock(seconds) {
  const whole = Math.floor(10 * seconds + 1e-6) / 10, minutes = Math.floor(whole / 60);
  return `${minutes}:${(whole - 60 * minutes).toFixed(1).padStart(4, "0")}`;
}
