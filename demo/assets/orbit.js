// Camera that circles around the head: drag, wheel, pinch, keyboard, smooth turns.

export const FIELD_OF_VIEW_DEG = 22;
const VIEW_HEIGHT_M = 0.34; // visible at the head's centre before any zoom
const HEAD_PROPORTION = 0.78; // width to height of what has to be in the picture
const TURN_MS = 420;
const PITCH_LIMIT = 1.3;

export class Orbit {
  // Options: onChange(), grab(dx, dy, isLast) that may take a drag for something else and then returns true.
  constructor(canvas, { onChange, grab }) {
    Object.assign(this, { canvas, onChange, grab });
    this.pointers = new Map();
    this.yaw = this.pitch = 0;
    this.zoom = 1;
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => this.release(event));
    }
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoomBy(Math.exp(-0.0012 * event.deltaY));
    }, { passive: false });
    canvas.addEventListener("dblclick", () => this.reset());
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  reset(isSmooth = true) {
    if (isSmooth) this.turnSmoothly(0, 0, 1);
    else this.turnTo(0, 0, 1);
  }

  turnTo(yaw, pitch, zoom = this.zoom) {
    cancelAnimationFrame(this.turning);
    this.set(yaw, pitch, zoom);
  }

  set(yaw, pitch, zoom) {
    this.yaw = yaw;
    this.pitch = Math.max(-PITCH_LIMIT, Math.min(PITCH_LIMIT, pitch));
    this.zoom = Math.max(0.6, Math.min(6, zoom));
    this.onChange();
  }

  // The short way round.
  turnSmoothly(yaw, pitch, zoom = this.zoom) {
    const whole = 2 * Math.PI;
    const from = { yaw: this.yaw, pitch: this.pitch, zoom: this.zoom };
    const way = ((((yaw - from.yaw + Math.PI) % whole) + whole) % whole) - Math.PI;
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
      this.turnTo(yaw, pitch, zoom);
      return;
    }
    cancelAnimationFrame(this.turning);
    const start = performance.now();
    const step = (now) => {
      const part = Math.min(1, Math.max(0, now - start) / TURN_MS);
      const eased = part < 0.5 ? 4 * part ** 3 : 1 - (2 - 2 * part) ** 3 / 2;
      this.set(part < 1 ? from.yaw + eased * way : yaw, from.pitch + eased * (pitch - from.pitch),
        from.zoom + eased * (zoom - from.zoom));
      if (part < 1) this.turning = requestAnimationFrame(step);
    };
    this.turning = requestAnimationFrame(step);
  }

  zoomBy(factor) {
    this.turnTo(this.yaw, this.pitch, this.zoom * factor);
  }

  press(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const now = [event.clientX, event.clientY];
    if (this.pointers.size === 1) {
      const perPixel = 3 / this.canvas.clientHeight, side = this.isMirrored ? -1 : 1;
      const dx = side * (now[0] - before[0]) * perPixel, dy = (now[1] - before[1]) * perPixel;
      if (!this.grab(dx, dy, false)) this.turnTo(this.yaw - dx, this.pitch + dy);
    } else {
      const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
      const distance = (place) => Math.hypot(place[0] - other[0], place[1] - other[1]) || 1;
      this.zoomBy(distance(now) / distance(before));
    }
    this.pointers.set(event.pointerId, now);
  }

  release(event) {
    if (this.pointers.delete(event.pointerId)) this.grab(0, 0, true);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const turns = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };
    if (event.key in turns) this.turnTo(this.yaw + turns[event.key][0], this.pitch + turns[event.key][1]);
    else if (event.key === "+" || event.key === "=") this.zoomBy(1.1);
    else if (event.key === "-") this.zoomBy(1 / 1.1);
    else if (event.key === "0") this.reset();
    else return;
    event.preventDefault();
  }

  place(camera, target) {
    const distance = VIEW_HEIGHT_M / 2 / Math.tan((FIELD_OF_VIEW_DEG * Math.PI) / 360) / this.zoom;
    const wide = Math.max(1, HEAD_PROPORTION / camera.aspect); // in a narrow frame the head's width decides
    camera.position.set(
      target.x + distance * wide * Math.cos(this.pitch) * Math.sin(this.yaw),
      target.y + distance * wide * Math.sin(this.pitch),
      target.z + distance * wide * Math.cos(this.pitch) * Math.cos(this.yaw),
    );
    camera.lookAt(target);
  }
}
