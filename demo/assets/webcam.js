// The visitor's camera: small pictures of it go to the server one at a time, and what the face does comes back.

import { iconButton, make, setIcon } from "./controls.js";
import { clock, ROW } from "./motion.js";
import { word } from "./words.js";

const LARGEST_PX = 640; // longer side of what is sent
const QUALITY = 0.8;
const PATIENCE_MS = 10_000; // with the server
const LONGEST_S = 120; // of a recording
const RATE_MS = 1000; // over which frames are counted
const DRIFT = 0.03; // how fast a place where the head stays becomes its home, per frame
const WANTED = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 }, facingMode: "user" };
const REFUSALS = {
  NotAllowedError: "cameraRefused", SecurityError: "cameraRefused", NotFoundError: "cameraNone",
  OverconstrainedError: "cameraNone", NotReadableError: "cameraBusy", AbortError: "cameraBusy",
};

export class Webcam {
  // Actions: start() asks the server for a place, keep() for the recording, pose(row, home), ended(isKept).
  constructor(element, actions) {
    Object.assign(this, { element, actions });
    this.video = make("video", { class: "fv-self", playsinline: true, "aria-label": word("selfView") });
    this.video.muted = true;
    this.status = make("p", { class: "fv-live-state", role: "status" });
    this.hide = iconButton("eye", word("hideSelf"), () => this.showSelf(this.isHidden), { "aria-pressed": "true" });
    this.rest = iconButton("target", word("calibrate"), () => this.calibrate(), { "data-calibrate": true });
    this.record = iconButton("record", word("record"), () => this.toggleRecording(), { "data-record": true });
    this.off = iconButton("close", word("stopCamera"), () => this.stop(), { "data-stop-camera": true });
    this.buttons = make("div", { class: "fv-live-buttons" }, this.hide, this.rest, this.record, this.off);
    element.replaceChildren(this.video, this.status, this.buttons);
    window.addEventListener("pagehide", () => this.stop());
  }

  get isOn() {
    return Boolean(this.stream);
  }

  // By a click of the visitor.
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
      this.stream = await navigator.mediaDevices.getUserMedia({ video: WANTED, audio: false });
      for (const track of this.stream.getTracks()) track.addEventListener("ended", () => this.fail(word("cameraNone")));
      this.video.srcObject = this.stream;
      await this.video.play();
      this.set("waiting", word("cameraPlace"));
      this.actions.start();
    } catch (error) {
      this.fail(word(REFUSALS[error.name] ?? "cameraFailed", error.message));
    } finally {
      this.isOpening = false;
    }
  }

  // The server has a place.
  begin(address) {
    if (!this.isOn) return; // the visitor was faster
    this.address = address;
    this.home = null;
    this.times = [];
    this.element.classList.add("fv-on");
    const { videoWidth, videoHeight } = this.video, scale = Math.min(1, LARGEST_PX / Math.max(videoWidth, videoHeight));
    this.canvas = sheet(Math.round(videoWidth * scale), Math.round(videoHeight * scale));
    this.run(this.stream);
  }

  async run(stream) {
    const context = this.canvas.getContext("2d", { alpha: false, willReadFrequently: true });
    const started = performance.now();
    while (this.stream === stream) {
      await this.nextPicture();
      if (this.stream !== stream) return;
      this.draw(context);
      const seconds = ((performance.now() - started) / 1000).toFixed(4);
      try {
        const jpeg = await packed(this.canvas);
        if (this.stream !== stream) return;
        const answer = await this.ask(`?t=${seconds}`, jpeg);
        if (this.stream !== stream) return;
        if (answer.status >= 500) throw new Error(word("cameraLost"));
        if (answer.status === 410) this.address = null; // nothing to close there
        if (!answer.ok) throw new Error(answer.status === 410 ? word("cameraClosed") : await answer.text());
        this.follow(new Float32Array(await answer.arrayBuffer()));
      } catch (error) {
        if (this.stream === stream) this.fail(error instanceof TypeError || error.name === "TimeoutError"
          ? word("cameraLost") : error.message);
        return;
      }
    }
  }

  ask(way, body) {
    const address = new URL(this.address + way, document.baseURI);
    return fetch(address, { method: "POST", body, signal: AbortSignal.timeout(PATIENCE_MS) });
  }

  nextPicture() {
    return new Promise((done) => {
      if (this.video.requestVideoFrameCallback) this.video.requestVideoFrameCallback(() => done());
      else requestAnimationFrame(() => done());
    });
  }

  // A phone that is turned sends other proportions; all pictures have one size.
  draw(context) {
    const { width, height } = this.canvas, { videoWidth, videoHeight } = this.video;
    const scale = Math.min(width / videoWidth, height / videoHeight), w = scale * videoWidth, h = scale * videoHeight;
    if (w < width - 1 || h < height - 1) context.clearRect(0, 0, width, height);
    context.drawImage(this.video, (width - w) / 2, (height - h) / 2, w, h);
  }

  follow(row) {
    const now = performance.now(), isSeen = row[ROW.confidence] > 0;
    this.times = [...this.times.filter((time) => now - time < RATE_MS), now];
    const place = [row[ROW.x], row[ROW.y], row[ROW.z]];
    if (isSeen) this.home = (this.home ?? place).map((middle, k) => middle + DRIFT * (place[k] - middle));
    this.element.dataset.frames = Number(this.element.dataset.frames ?? 0) + 1;
    const recorded = (now - this.recordedFrom) / 1000;
    if (now >= (this.saidUntil ?? 0)) {
      const rate = word("rate", this.times.length), state = word(isSeen ? "following" : "lookingForFace");
      this.set(isSeen ? "seen" : "unseen", this.isRecording ? word("recording", clock(recorded)) : `${state} · ${rate}`);
    }
    if (isSeen) this.actions.pose(row, this.home);
    if (this.isRecording && recorded > LONGEST_S) this.toggleRecording();
  }

  async calibrate() {
    if (!this.address) return;
    await this.ask("/calibrate").catch(() => {});
    this.saidUntil = performance.now() + 1500;
    this.set("seen", word("calibrated"));
  }

  async toggleRecording() {
    if (!this.address) return;
    if (this.isRecording) {
      this.end(true);
      this.actions.keep();
      return;
    }
    const answer = await this.ask("/record").catch(() => null);
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

  // Out of sight, but there: a video that is not displayed may have no pictures.
  showSelf(isShown) {
    this.isHidden = !isShown;
    this.video.classList.toggle("fv-unseen", !isShown);
    this.hide.setAttribute("aria-pressed", String(isShown));
  }

  set(state, text) {
    this.element.dataset.state = state;
    this.status.textContent = text;
  }

  // Off, without a word to the server.
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

  // One sentence, until the visitor closes it or tries again.
  fail(text) {
    this.stop();
    this.element.hidden = false;
    this.set("failed", text);
  }
}

// A canvas off the page writes its picture at once; one of the page waits until the browser has nothing else to do.
function sheet(width, height) {
  if (window.OffscreenCanvas?.prototype.convertToBlob) return new OffscreenCanvas(width, height);
  return Object.assign(document.createElement("canvas"), { width, height });
}

function packed(canvas) {
  if (canvas.convertToBlob) return canvas.convertToBlob({ type: "image/jpeg", quality: QUALITY });
  return new Promise((done) => canvas.toBlob(done, "image/jpeg", QUALITY));
}
