// Orbit camera around the head: drag, wheel, pinch, keyboard, animated turns.

export const FIELD_OF_VIEW_DEG = 22;
const VIEW_HEIGHT_M = 0.34; // visible height at the head's centre at zoom 1
const HEAD_ASPECT = 0.78; // width to height of what must be in view
const TURN_MS = 420;
const PITCH_LIMIT = 1.3; // radians
const ZOOM_RANGE = [0.6, 4]; // at the nearest, the camera is a hand away from the face

export class OrbitCamera {
  // Options: onChange(); grab(dx, dy, isLast), which returns true where it handles a drag itself.
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
    this.zoom = Math.max(ZOOM_RANGE[0], Math.min(ZOOM_RANGE[1], zoom));
    this.onChange();
  }

  // Animated turn by the shorter way round.
  turnSmoothly(yaw, pitch, zoom = this.zoom) {
    const from = { yaw: this.yaw, pitch: this.pitch, zoom: this.zoom };
    const turn = shortestTurn(from.yaw, yaw);
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
      this.turnTo(yaw, pitch, zoom);
      return;
    }
    cancelAnimationFrame(this.turning);
    const start = performance.now();
    const step = (now) => {
      const progress = Math.min(1, Math.max(0, now - start) / TURN_MS);
      const eased = progress < 0.5 ? 4 * progress ** 3 : 1 - (2 - 2 * progress) ** 3 / 2;
      this.set(progress < 1 ? from.yaw + eased * turn : yaw, from.pitch + eased * (pitch - from.pitch),
        from.zoom + eased * (zoom - from.zoom));
      if (progress < 1) this.turning = requestAnimationFrame(step);
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
      const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, position]) => position);
      const distance = (position) => Math.hypot(position[0] - other[0], position[1] - other[1]) || 1;
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

  updateCamera(camera, target) {
    const [x, y, z] = cameraOffset(this.yaw, this.pitch, this.zoom, camera.aspect);
    camera.position.set(target.x + x, target.y + y, target.z + z);
    camera.lookAt(target);
  }
}

// Signed angle of the shorter way from one yaw to another, radians in [-pi, pi).
export function shortestTurn(from, to) {
  const full = 2 * Math.PI;
  return ((((to - from + Math.PI) % full) + full) % full) - Math.PI;
}

// Position of the camera relative to the head's centre, metres. At zoom 1 the head fits into a frame of any aspect.
export function cameraOffset(yaw, pitch, zoom, aspect) {
  const height = VIEW_HEIGHT_M * Math.max(1, HEAD_ASPECT / aspect); // in a narrow frame the head's width decides
  const distance = height / 2 / Math.tan((FIELD_OF_VIEW_DEG * Math.PI) / 360) / zoom;
  return [
    distance * Math.cos(pitch) * Math.sin(yaw), distance * Math.sin(pitch), distance * Math.cos(pitch) * Math.cos(yaw),
  ];
}
