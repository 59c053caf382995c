// The visitor's webcam: it sends downsized frames to the server one at a time, and receives pose and expression.

import { iconButton, make, setIcon } from "./controls.js";
import { clock, ROW } from "./motion.js";
import { word } from "./words.js";

const MAX_PX = 640; // longer side of a frame
const QUALITY = 0.8;
const TIMEOUT_MS = 10_000;
const MAX_RECORDING_S = 120;
const RATE_MS = 1000; // window of the frame rate
const REST_RATE = 0.03; // of the running mean of the head's position, per frame
const CONSTRAINTS = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 }, facingMode: "user" };
const ERRORS = {
  NotAllowedError: "cameraRefused", SecurityError: "cameraRefused", NotFoundError: "cameraNone",
  OverconstrainedError: "cameraNone", NotReadableError: "cameraBusy", AbortError: "cameraBusy",
};

export class Webcam {
  // Actions: start() requests a stream, keep() the recording, pose(row, restPosition), ended(isKept).
  constructor(element, actions) {
    Object.assign(this, { element, actions });
    this.video = make("video", { class: "fv-self", playsinline: true, "aria-label": word("selfView") });
    this.video.muted = true;
    this.status = make("p", { class: "fv-live-state", role: "status" });
    this.hide = iconButton("eye", word("hideSelf"), () => this.showSelf(this.isHidden), { "aria-pressed": "true" });
    this.calibrateButton = iconButton("target", word("calibrate"), () => this.calibrate(), { "data-calibrate": true });
    this.record = iconButton("record", word("record"), () => this.toggleRecording(), { "data-record": true });
    this.off = iconButton("close", word("stopCamera"), () => this.close(), { "data-stop-camera": true });
    this.buttons = make("div", { class: "fv-live-buttons" }, this.hide, this.calibrateButton, this.record, this.off);
    element.replaceChildren(this.video, this.status, this.buttons);
    window.addEventListener("pagehide", () => this.stop());
  }

  get isOn() {
    return Boolean(this.stream);
  }

  // Requests access to the webcam; call it in a click handler.
  async open() {
    if (this.isOn || this.isOpening) return;
    if (!window.isSecureContext || !navigator.mediaDevices?.getUserMedia) {
      this.fail(word("cameraHttps"));
      return;
    }
    this.isOpening = true;
    this.element.hidden = false;
    this.set("waiting", word("cameraAsk"));
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ video: CONSTRAINTS, audio: false });
      for (const track of this.stream.getTracks()) track.addEventListener("ended", () => this.fail(word("cameraNone")));
      this.video.srcObject = this.stream;
      await this.video.play();
      this.set("waiting", word("cameraPlace"));
      this.actions.start();
    } catch (error) {
      this.fail(word(ERRORS[error.name] ?? "cameraFailed", error.message));
    } finally {
      this.isOpening = false;
    }
  }

  // Starts streaming to the address that the server assigned.
  begin(address) {
    if (!this.isOn) return; // stopped in the meantime
    this.address = address;
    this.restPosition = null;
    this.times = [];
    this.element.classList.add("fv-on");
    const { videoWidth, videoHeight } = this.video, scale = Math.min(1, MAX_PX / Math.max(videoWidth, videoHeight));
    this.canvas = makeCanvas(Math.round(videoWidth * scale), Math.round(videoHeight * scale));
    this.run(this.stream);
  }

  async run(stream) {
    const context = this.canvas.getContext("2d", { alpha: false, willReadFrequently: true });
    const started = performance.now();
    while (this.stream === stream) {
      await this.nextFrame();
      if (this.stream !== stream) return;
      this.draw(context);
      const seconds = ((performance.now() - started) / 1000).toFixed(4);
      try {
        const jpeg = await encodeJpeg(this.canvas);
        if (this.stream !== stream) return;
        const answer = await this.post(`?t=${seconds}`, jpeg);
        if (this.stream !== stream) return;
        if (answer.status >= 500) throw new Error(word("cameraLost"));
        if (answer.status === 410) this.address = null; // the stream is closed already
        if (!answer.ok) throw new Error(answer.status === 410 ? word("cameraClosed") : await answer.text());
        this.applyRow(new Float32Array(await answer.arrayBuffer()));
      } catch (error) {
        if (this.stream === stream) this.fail(error instanceof TypeError || error.name === "TimeoutError"
          ? word("cameraLost") : error.message);
        return;
      }
    }
  }

  post(suffix, body) {
    const address = new URL(this.address + suffix, document.baseURI);
    return fetch(address, { method: "POST", body, signal: AbortSignal.timeout(TIMEOUT_MS) });
  }

  nextFrame() {
    return new Promise((done) => {
      if (this.video.requestVideoFrameCallback) this.video.requestVideoFrameCallback(() => done());
      else requestAnimationFrame(() => done());
    });
  }

  // Letterboxes the frame: its aspect changes when a phone is rotated, the size of the stream does not.
  draw(context) {
    const { width, height } = this.canvas, { videoWidth, videoHeight } = this.video;
    const scale = Math.min(width / videoWidth, height / videoHeight), w = scale * videoWidth, h = scale * videoHeight;
    if (w < width - 1 || h < height - 1) context.clearRect(0, 0, width, height);
    context.drawImage(this.video, (width - w) / 2, (height - h) / 2, w, h);
  }

  applyRow(row) {
    const now = performance.now(), isTracked = row[ROW.confidence] > 0;
    this.times = [...this.times.filter((time) => now - time < RATE_MS), now];
    const position = [row[ROW.x], row[ROW.y], row[ROW.z]];
    if (isTracked) this.restPosition = (this.restPosition ?? position).map((mean, k) => mean + REST_RATE * (position[k] - mean));
    this.element.dataset.frames = Number(this.element.dataset.frames ?? 0) + 1;
    const recorded = (now - this.recordedFrom) / 1000;
    if (now >= (this.hintUntil ?? 0)) {
      const rate = word("rate", this.times.length), state = word(isTracked ? "following" : "lookingForFace");
      this.set(isTracked ? "tracked" : "lost", this.isRecording ? word("recording", clock(recorded)) : `${state} · ${rate}`);
    }
    if (isTracked) this.actions.pose(row, this.restPosition);
    if (this.isRecording && recorded > MAX_RECORDING_S) this.toggleRecording();
  }

  async calibrate() {
    if (!this.address) return;
    await this.post("/calibrate").catch(() => {});
    this.hintUntil = performance.now() + 1500;
    this.set("tracked", word("calibrated"));
  }

  async toggleRecording() {
    if (!this.address) return;
    if (this.isRecording) {
      this.end(true);
      this.actions.keep();
      return;
    }
    const answer = await this.post("/record").catch(() => null);
    if (!answer?.ok) return;
    this.isRecording = true;
    this.recordedFrom = performance.now();
    this.mark();
  }

  mark() {
    setIcon(this.record, this.isRecording ? "stop" : "record");
    const label = word(this.isRecording ? "stopRecording" : "record");
    this.record.title = label;
    this.record.setAttribute("aria-label", label);
    this.element.classList.toggle("fv-recording", Boolean(this.isRecording));
  }

  // Hidden by CSS, not removed: browsers may stop decoding a video that is not displayed.
  showSelf(isShown) {
    this.isHidden = !isShown;
    this.video.classList.toggle("fv-concealed", !isShown);
    this.hide.setAttribute("aria-pressed", String(isShown));
  }

  set(state, text) {
    this.element.dataset.state = state;
    this.status.textContent = text;
  }

  // Turns the webcam off without a request.
  end(isKept = false) {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = this.video.srcObject = null;
    this.isRecording = false;
    this.address = null;
    this.element.classList.remove("fv-on");
    this.element.hidden = true;
    this.mark();
    this.actions.ended(isKept);
  }

  stop() {
    if (this.address) {
      fetch(new URL(`${this.address}/close`, document.baseURI), { method: "POST", keepalive: true }).catch(() => {});
    }
    this.end();
  }

  // Turns the webcam off; what has been recorded becomes a motion.
  close() {
    if (this.isRecording) this.toggleRecording();
    else this.stop();
  }

  // Shows an error until the visitor closes it or tries again.
  fail(text) {
    this.stop();
    this.element.hidden = false;
    this.set("failed", text);
  }
}

// An OffscreenCanvas encodes at once; an element of the page encodes only when the browser is idle.
function makeCanvas(width, height) {
  if (window.OffscreenCanvas?.prototype.convertToBlob) return new OffscreenCanvas(width, height);
  return Object.assign(document.createElement("canvas"), { width, height });
}

function encodeJpeg(canvas) {
  if (canvas.convertToBlob) return canvas.convertToBlob({ type: "image/jpeg", quality: QUALITY });
  return new Promise((done) => canvas.toBlob(done, "image/jpeg", QUALITY));
}
