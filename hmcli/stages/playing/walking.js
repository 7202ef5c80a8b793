// What hmcli/stages/playing/motion.py and hmcli/stages/sampling/rollout.py do, for a page without a server.
// A pose is world_from_camera row by row, 16 numbers; metres, seconds, radians.
"use strict";

// --- motion ------------------------------------------------------------------------------------------------------

function moved(pose, speed, keys, { frames, fps, pace }) {
  const way = (one, other) => keys.includes(one) - keys.includes(other), step = 1 / fps;
  const goal = { turn: pace.turn * way("left", "right"), ahead: pace.walk * way("ahead", "back"), aside: pace.walk * way("aside-right", "aside-left") };
  const share = 1 - Math.exp(-step / pace.settle), poses = [];
  for (let frame = 0; frame < frames; frame++) {
    speed = Object.fromEntries(Object.keys(goal).map(name => [name, speed[name] + share * (goal[name] - speed[name])]));
    pose = turned(pose, speed.turn * step);
    const [x, y] = level(pose);
    pose[3] += step * (speed.ahead * x + speed.aside * y);
    pose[7] += step * (speed.ahead * y - speed.aside * x);
    poses.push(pose);
  }
  return { poses, speed };
}
function level(pose) {
  let along = [pose[2], pose[6]];
  if (Math.hypot(...along) <= 1e-6) along = [Math.sign(pose[10]) * pose[1], Math.sign(pose[10]) * pose[5]];
  const length = Math.hypot(...along);
  return [along[0] / length, along[1] / length];
}
function turned(pose, angle) {
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)], done = [...pose];
  for (let column = 0; column < 3; column++) {
    done[column] = cos * pose[column] - sin * pose[4 + column];
    done[4 + column] = sin * pose[column] + cos * pose[4 + column];
  }
  return orthogonal(done);
}
function orthogonal(pose) {  // rounding does not add up
  const columns = [];
  for (let column = 0; column < 3; column++) {
    let v = [pose[column], pose[4 + column], pose[8 + column]];
    for (const u of columns) { const part = dot(u, v); v = v.map((value, i) => value - part * u[i]); }
    const length = Math.hypot(...v);
    columns.push(v.map(value => value / length));
    for (let row = 0; row < 3; row++) pose[4 * row + column] = columns[column][row];
  }
  return pose;
}
function dot(a, b) { return a.reduce((sum, value, i) => sum + value * b[i], 0); }
function fromAbove(pose) { const [x, y] = level(pose); return [pose[3], pose[7], Math.atan2(y, x)]; }

// --- cameras as the model reads them -------------------------------------------------------------------------------

function cameraRows(poses, anchor) {
  const inverse = inverted(anchor), rows = new Float32Array(12 * poses.length);
  poses.forEach((pose, number) => {
    for (let row = 0; row < 3; row++) for (let column = 0; column < 4; column++) {
      let sum = column === 3 ? inverse[4 * row + 3] : 0;
      for (let k = 0; k < 3; k++) sum += inverse[4 * row + k] * pose[4 * k + column];
      rows[12 * number + 4 * row + column] = sum;
    }
  });
  return rows;
}
function inverted(pose) {
  const at = (row, column) => pose[4 * (row % 3) + column % 3], found = new Array(12);
  const minor = (row, column) => at(row + 1, column + 1) * at(row + 2, column + 2) - at(row + 1, column + 2) * at(row + 2, column + 1);
  const whole = at(0, 0) * minor(0, 0) + at(0, 1) * minor(0, 1) + at(0, 2) * minor(0, 2);
  for (let row = 0; row < 3; row++) {
    for (let column = 0; column < 3; column++) found[4 * row + column] = minor(column, row) / whole;
    found[4 * row + 3] = -(found[4 * row] * pose[3] + found[4 * row + 1] * pose[7] + found[4 * row + 2] * pose[11]);
  }
  return found;
}
function metres(pose, anchor) { return Math.hypot(pose[3] - anchor[3], pose[7] - anchor[7], pose[11] - anchor[11]); }

// --- noise -------------------------------------------------------------------------------------------------------

function normal(count, seed) {  // mulberry32, then Box and Muller
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const found = new Float32Array(count);
  for (let i = 0; i < count; i++) found[i] = Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  return found;
}

// --- the past ----------------------------------------------------------------------------------------------------

// What the next chunk sees of the frames before it. Memory of a stretch (the start clip, or a chunk) is true under an
// anchor pose; it is made by `remember(stretch, anchor)` when it is first read. There is room for `places` slots:
// the oldest stretches are forgotten.
class Past {
  constructor(settings, start, remember) {
    this.settings = settings;
    this.remember = remember;
    this.anchor = start.poses.at(-1);
    this.stretches = [{ ...start, first: 0, gap: 0, memory: null }];
    this.inside = [...this.stretches];
  }

  slots(stretch) { return Math.floor(stretch.poses.length / this.settings.slot); }

  comeTo(poses) {
    const { radius, window } = this.settings, far = from => Math.max(...poses.map(pose => metres(pose, from)));
    if (!radius || far(this.anchor) <= radius) return;
    this.anchor = poses[0];
    const kept = [];
    let gap = 0, after = 0;
    for (const stretch of [...this.stretches].reverse()) {
      const inWindow = after < Math.max(1, window - 1);  // its frames are read in full
      if (inWindow || Math.min(...stretch.poses.map(pose => metres(pose, this.anchor))) <= radius) kept.push({ ...stretch, gap, memory: null });
      else gap += stretch.poses.length;
      after += stretch.poses.length;
    }
    this.inside = kept.reverse();
  }

  add(latents, poses) {
    const last = this.stretches.at(-1), stretch = { latents, poses, first: last.first + last.poses.length, gap: 0, memory: null };
    this.stretches.push(stretch);
    this.inside.push(stretch);
    while (this.stretches.reduce((sum, of) => sum + this.slots(of), 0) > this.settings.places) {
      const gone = this.stretches.shift();
      this.inside = this.inside.filter(of => of.first !== gone.first);
    }
  }

  // Memory as the step graph reads it, and which latent frames of the walk each slot stands for. Without memory the
  // local window alone is read, which the last stretch fills.
  async read(on) {
    const read = on ? this.inside : this.inside.slice(-1);
    for (const stretch of read) stretch.memory ??= await this.remember(stretch, this.anchor);
    const { tail_keys, tail_values } = read.at(-1).memory;
    if (!on) return { inputs: { tail_keys, tail_values }, spans: [] };
    const { places, slot, blocks } = this.settings, spans = [], times = new Float32Array(places), there = new Float32Array(places);
    const whole = { slot_keys: null, slot_values: null, slot_means: null };
    for (const name in whole) {
      const dims = read.at(-1).memory[name].dims.toSpliced(1, 1, places);
      whole[name] = { data: new Float32Array(dims.reduce((a, b) => a * b)), dims };
    }
    const total = read.reduce((sum, of) => sum + of.poses.length, 0);
    let before = 0;
    for (const stretch of read) {
      const count = this.slots(stretch), place = spans.length;
      for (let m = 0; m < count; m++) {
        times[place + m] = slot * m + (slot - 1) / 2 + before - stretch.gap - total;
        there[place + m] = 1;
        spans.push([stretch.first + slot * m, stretch.first + slot * (m + 1) - 1]);
      }
      for (const name in whole) {
        const part = stretch.memory[name].data, per = part.length / blocks, room = whole[name].data.length / blocks;
        for (let b = 0; b < blocks; b++) whole[name].data.set(part.subarray(b * per, (b + 1) * per), b * room + place * per / count);
      }
      before += stretch.poses.length;
    }
    return { inputs: { slot_times: { data: times, dims: [places] }, slot_there: { data: there, dims: [places] }, ...whole, tail_keys, tail_values }, spans };
  }
}

// Which slots each latent frame read, the most read first: `counts` (F, places + own) over all blocks and steps.
function readings(counts, frames, spans, { places, slot }, first, total) {
  const width = counts.length / frames;
  return [...Array(frames).keys()].map(frame => {
    const found = [];
    for (let m = 0; m < width; m++) {
      const count = counts[frame * width + m], own = first + slot * (m - places);
      const span = m < places ? spans[m] : [own, own + slot - 1];
      if (count) found.push({ first: span[0], last: span[1], weight: count / total });
    }
    return found.sort((a, b) => b.weight - a.weight || a.first - b.first);
  });
}
