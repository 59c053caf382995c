// A motion: pose, translation and expression weights over time.

import { loadPack } from "./files.js";

// Columns of a row, as demo/view_files.py writes it; the expression weights follow.
export const ROW = { seconds: 0, confidence: 1, yaw: 2, pitch: 3, roll: 4, x: 5, y: 6, z: 7, weights: 8 };

export class Motion {
  static async load(address) {
    return new Motion(await loadPack(address));
  }

  constructor({ rows, names, frames }) {
    Object.assign(this, { rows, names, frames, width: rows.length / frames });
    this.restPosition = this.medianPosition();
  }

  get seconds() {
    return this.rows[(this.frames - 1) * this.width];
  }

  // The row at a time, interpolated between two frames.
  at(seconds) {
    const { rows, width } = this;
    let low = 0, high = this.frames - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (rows[middle * width] <= seconds) low = middle;
      else high = middle;
    }
    const from = rows.subarray(low * width, (low + 1) * width), to = rows.subarray(high * width, (high + 1) * width);
    const share = high > low ? Math.max(0, Math.min(1, (seconds - from[0]) / (to[0] - from[0]))) : 0;
    return from.map((value, k) => value + share * (to[k] - value));
  }

  // (x, y, z) of the head's translation, metres: the median over the frames.
  medianPosition() {
    return [ROW.x, ROW.y, ROW.z].map((column) => {
      const values = Float32Array.from({ length: this.frames }, (_, k) => this.rows[k * this.width + column]).sort();
      return values[this.frames >> 1];
    });
  }
}

// Minutes and seconds, such as 1:02.5.
export function clock(seconds) {
  const whole = Math.floor(10 * seconds + 1e-6) / 10, minutes = Math.floor(whole / 60);
  return `${minutes}:${(whole - 60 * minutes).toFixed(1).padStart(4, "0")}`;
}
