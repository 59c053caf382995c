// Orbit camera around the head: turns by drag and keys, moves by right drag, Shift or two fingers, zooms to the cursor.

export const FIELD_OF_VIEW_DEG = 22; // at zoom 1; zooming narrows it, so the camera never comes close to the nose
const VIEW_HEIGHT_M = 0.34; // visible height at the head's centre at zoom 1
const HEAD_ASPECT = 0.78; // width to height of what must be in view
const TURN_MS = 420;
const PITCH_LIMIT = 1.3; // radians
const ZOOM_RANGE = [0.6, 8];
const PAN_LIMIT_M = 0.18; // of the point in the middle of the view, from the head's centre along each axis
const KEY_PAN_PX = 24;

export class OrbitCamera {
  // Options: onChange(); grab(dx, dy, isLast), which returns true where it handles a drag itself.
  constructor(canvas, { onChange, grab }) {
    Object.assign(this, { canvas, onChange, grab });
    this.pointers = new Map();
    this.yaw = this.pitch = 0;
    this.zoom = 1;
    this.pan = [0, 0, 0]; // from the head's centre to the point in the middle of the view, metres
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => this.release(event));
    }
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoomBy(Math.exp(-0.0012 * event.deltaY), this.fromMiddle(event));
    }, { passive: false });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    // One finger scrolls the page up and down; two are for the head.
    canvas.addEventListener("touchstart", (event) => {
      if (event.touches.length > 1) event.preventDefault();
    }, { passive: false });
    canvas.addEventListener("dblclick", (event) => this.center(this.fromMiddle(event)));
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  // The whole head from the front.
  reset(isSmooth = true) {
    const front = { yaw: 0, pitch: 0, zoom: 1, pan: [0, 0, 0] };
    if (isSmooth) this.moveSmoothly(front);
    else this.moveTo(front);
  }

  turnTo(yaw, pitch) {
    this.moveTo({ yaw, pitch });
  }

  moveTo(view) {
    cancelAnimationFrame(this.turning);
    this.set(view);
  }

  set({ yaw = this.yaw, pitch = this.pitch, zoom = this.zoom, pan = this.pan }) {
    this.yaw = yaw;
    this.pitch = Math.max(-PITCH_LIMIT, Math.min(PITCH_LIMIT, pitch));
    this.zoom = Math.max(ZOOM_RANGE[0], Math.min(ZOOM_RANGE[1], zoom));
    this.pan = pan.map((value) => Math.max(-PAN_LIMIT_M, Math.min(PAN_LIMIT_M, value)));
    this.onChange();
  }

  turnSmoothly(yaw, pitch) {
    this.moveSmoothly({ yaw, pitch });
  }

  // Animated move; turns by the shorter way round.
  moveSmoothly({ yaw = this.yaw, pitch = this.pitch, zoom = this.zoom, pan = this.pan }) {
    const from = { yaw: this.yaw, pitch: this.pitch, zoom: this.zoom, pan: this.pan };
    const turn = shortestTurn(from.yaw, yaw);
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
      this.moveTo({ yaw, pitch, zoom, pan });
      return;
    }
    cancelAnimationFrame(this.turning);
    const start = performance.now();
    const step = (now) => {
      const progress = Math.min(1, Math.max(0, now - start) / TURN_MS);
      const eased = progress < 0.5 ? 4 * progress ** 3 : 1 - (2 - 2 * progress) ** 3 / 2;
      const between = (a, b) => a + eased * (b - a);
      this.set({
        yaw: progress < 1 ? from.yaw + eased * turn : yaw, pitch: between(from.pitch, pitch),
        zoom: between(from.zoom, zoom), pan: from.pan.map((value, k) => between(value, pan[k])),
      });
      if (progress < 1) this.turning = requestAnimationFrame(step);
    };
    this.turning = requestAnimationFrame(step);
  }

  // Zooms, so that what is at a place in the view stays there: (right, down) from the middle, pixels.
  zoomBy(factor, place = [0, 0]) {
    const before = this.metresPerPixel();
    cancelAnimationFrame(this.turning);
    this.set({ zoom: this.zoom * factor });
    const gained = before - this.metresPerPixel();
    this.set({ pan: this.movedPan(place[0] * gained, -place[1] * gained) });
  }

  // Moves the head in the plane of the view, pixels.
  panBy(right, down) {
    const scale = this.metresPerPixel();
    this.moveTo({ pan: this.movedPan(-right * scale, down * scale) });
  }

  // Brings what is at a place to the middle of the view; a place beside the head shows the whole head again.
  center(place) {
    const scale = this.metresPerPixel(), pan = this.movedPan(place[0] * scale, -place[1] * scale);
    if (Math.hypot(...pan) > PAN_LIMIT_M) this.moveSmoothly({ zoom: 1, pan: [0, 0, 0] });
    else this.moveSmoothly({ pan });
  }

  // The point in the middle of the view after a move of the camera to the right and upwards, metres.
  movedPan(right, up) {
    const [sinYaw, cosYaw] = [Math.sin(this.yaw), Math.cos(this.yaw)];
    const [sinPitch, cosPitch] = [Math.sin(this.pitch), Math.cos(this.pitch)];
    const [x, y, z] = this.pan;
    return [
      x + right * cosYaw - up * sinPitch * sinYaw, y + up * cosPitch, z - right * sinYaw - up * sinPitch * cosYaw,
    ];
  }

  metresPerPixel() {
    const { clientWidth, clientHeight } = this.canvas;
    return viewHeight(clientWidth / clientHeight) / this.zoom / clientHeight;
  }

  // (right, down) of an event from the middle of the canvas, pixels; as the head is, where the view is mirrored.
  fromMiddle({ clientX, clientY }) {
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    return [(this.isMirrored ? -1 : 1) * (clientX - left - width / 2), clientY - top - height / 2];
  }

  press(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    this.isPanning = event.button > 0 || Boolean(event.shiftKey);
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const now = [event.clientX, event.clientY], side = this.isMirrored ? -1 : 1;
    const right = side * (now[0] - before[0]), down = now[1] - before[1];
    if (this.pointers.size > 1) this.pinch(event.pointerId, before, now);
    else if (this.isPanning) this.panBy(right, down);
    else {
      const perPixel = 3 / this.canvas.clientHeight;
      if (!this.grab(right * perPixel, down * perPixel, false)) {
        this.turnTo(this.yaw - right * perPixel, this.pitch + down * perPixel);
      }
    }
    this.pointers.set(event.pointerId, now);
  }

  // Two fingers: their distance zooms, their middle moves the head.
  pinch(id, before, now) {
    const [other] = [...this.pointers].filter(([pointer]) => pointer !== id).map(([, position]) => position);
    const distance = (position) => Math.hypot(position[0] - other[0], position[1] - other[1]) || 1;
    const middle = { clientX: (now[0] + other[0]) / 2, clientY: (now[1] + other[1]) / 2 };
    this.panBy(((this.isMirrored ? -1 : 1) * (now[0] - before[0])) / 2, (now[1] - before[1]) / 2);
    this.zoomBy(distance(now) / distance(before), this.fromMiddle(middle));
  }

  release(event) {
    if (this.pointers.delete(event.pointerId)) this.grab(0, 0, true);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const turns = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };
    if (event.key in turns && event.shiftKey) {
      const [right, up] = turns[event.key].map((turn) => KEY_PAN_PX * Math.sign(turn));
      this.panBy(right, -up);
    } else if (event.key in turns) this.turnTo(this.yaw + turns[event.key][0], this.pitch + turns[event.key][1]);
    else if (event.key === "+" || event.key === "=") this.zoomBy(1.1);
    else if (event.key === "-") this.zoomBy(1 / 1.1);
    else if (event.key === "0") this.reset();
    else return;
    event.preventDefault();
  }

  updateCamera(camera, target) {
    const offset = cameraOffset(this.yaw, this.pitch, camera.aspect), at = { x: 0, y: 0, z: 0 };
    ["x", "y", "z"].forEach((axis, k) => {
      at[axis] = target[axis] + this.pan[k];
      camera.position[axis] = at[axis] + offset[k];
    });
    camera.lookAt(at.x, at.y, at.z);
    camera.fov = fieldOfView(this.zoom);
    camera.updateProjectionMatrix();
  }
}

// Signed angle of the shorter way from one yaw to another, radians in [-pi, pi).
export function shortestTurn(from, to) {
  const full = 2 * Math.PI;
  return ((((to - from + Math.PI) % full) + full) % full) - Math.PI;
}

// Visible height at the head's centre at zoom 1, metres: the head fits into a frame of any aspect.
function viewHeight(aspect) {
  return VIEW_HEIGHT_M * Math.max(1, HEAD_ASPECT / aspect); // in a narrow frame the head's width decides
}

// Vertical field of view, degrees.
export function fieldOfView(zoom) {
  return (360 / Math.PI) * Math.atan(Math.tan((FIELD_OF_VIEW_DEG * Math.PI) / 360) / zoom);
}

// Position of the camera relative to the point that it looks at, metres.
export function cameraOffset(yaw, pitch, aspect) {
  const distance = viewHeight(aspect) / 2 / Math.tan((FIELD_OF_VIEW_DEG * Math.PI) / 360);
  return [
    distance * Math.cos(pitch) * Math.sin(yaw), distance * Math.sin(pitch), distance * Math.cos(pitch) * Math.cos(yaw),
  ];
}
