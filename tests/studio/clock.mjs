// A fake clock for tests: performance.now, timers and animation frames move only by `advance`.

export class FakeClock {
  constructor() {
    this.now = 1000;
    this.tasks = new Map(); // id -> {time, run}
    this.lastId = 0;
    const add = (run, delay) => {
      this.tasks.set(++this.lastId, { time: this.now + delay, run });
      return this.lastId;
    };
    const remove = (id) => this.tasks.delete(id);
    this.replaced = {
      setTimeout: add, clearTimeout: remove,
      requestAnimationFrame: (run) => add(() => run(this.now), 16), cancelAnimationFrame: remove,
      matchMedia: () => ({ matches: this.reducedMotion ?? false }),
    };
    this.original = Object.fromEntries(Object.keys(this.replaced).map((name) => [name, globalThis[name]]));
    Object.assign(globalThis, this.replaced);
    this.performanceNow = performance.now;
    performance.now = () => this.now;
  }

  // Runs what is due within the next milliseconds, in order.
  advance(ms) {
    const end = this.now + ms;
    for (;;) {
      const due = [...this.tasks].filter(([, task]) => task.time <= end).sort(([, a], [, b]) => a.time - b.time)[0];
      if (!due) break;
      this.tasks.delete(due[0]);
      this.now = due[1].time;
      due[1].run();
    }
    this.now = end;
  }

  restore() {
    Object.assign(globalThis, this.original);
    performance.now = this.performanceNow;
  }
}
