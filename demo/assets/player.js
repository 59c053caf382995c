// The player below the head: play, scrub, speed, loop.

import { iconButton, make, setIcon } from "./controls.js";
import { clock } from "./motion.js";
import { word } from "./words.js";

const SPEEDS = [0.25, 0.5, 1, 2];

// Actions: show(motion, row, isPaused), leave().
export class Player {
  constructor(element, actions) {
    Object.assign(this, { element, actions, motion: null, speed: 1, isLooping: true });
    this.button = iconButton("play", word("play"), () => this.toggle(), { "data-play": true });
    this.range = make("input", { type: "range", min: 0, max: 1, step: "any", "aria-label": word("scrub"),
      "data-scrub": true, oninput: () => this.scrub(Number(this.range.value)) });
    this.clock = make("output", { class: "fv-clock" });
    this.duration = make("span", { class: "fv-duration" });
    this.speedChoice = make("select", { class: "fv-speed", title: word("speed"), "aria-label": word("speed"),
      onchange: () => { this.speed = Number(this.speedChoice.value); } },
    ...SPEEDS.map((speed) => make("option", { value: speed, text: `${speed}×`, selected: speed === 1 })));
    this.loop = iconButton("loop", word("loop"), () => this.setLooping(!this.isLooping), { "aria-pressed": "true" });
    this.leave = iconButton("close", word("leaveMotion"), () => actions.leave(), { "data-leave": true });
    element.replaceChildren(this.button, this.range, this.clock, this.duration, this.speedChoice, this.loop, this.leave);
  }

  open(motion, isPlaying) {
    this.motion = motion;
    this.range.max = motion.seconds;
    this.duration.textContent = `/ ${clock(motion.seconds)}`;
    this.element.hidden = false;
    this.scrub(0);
    if (isPlaying && motion.frames > 1) this.play();
  }

  close() {
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

  // `isSilent`: without a last call of `show`.
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

  show(isPaused) {
    const { seconds, motion } = this, text = clock(seconds);
    this.range.value = seconds;
    this.range.style.setProperty("--from", "0%");
    this.range.style.setProperty("--to", `${((100 * seconds) / (motion.seconds || 1)).toFixed(2)}%`);
    this.range.setAttribute("aria-valuetext", text);
    this.clock.textContent = text;
    this.actions.show(motion, motion.at(seconds), isPaused);
  }
}
