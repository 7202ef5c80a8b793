// The walk itself, in a worker of the page: it answers the messages that hm play answers on its WebSocket (docs/play.md).
"use strict";
importScripts("ort/ort.wasm.min.js", "walking.js");

const LATEST = 5;  // chunks that the rate is of
const graphs = new Map(), took = [];
let walk, weights, text, pasts, pose, speed = { turn: 0, ahead: 0, aside: 0 }, memory, chunks = 0, given = null;

function tell(told, pictures = []) {
  postMessage(JSON.stringify({ ...told, pictures: pictures.length }));
  for (const picture of pictures) postMessage(picture);
}
async function fetched(name) {
  const answer = await fetch(name);
  if (!answer.ok) throw new Error(`${name}: ${answer.status} ${answer.statusText}`);
  return answer;
}
function tensor({ data, dims }) { return new ort.Tensor("float32", data, dims); }
function graph(name) {
  if (!graphs.has(name)) graphs.set(name, opened(name));
  return graphs.get(name);
}
async function opened(name) {
  weights ??= fetched("weights.bin").then(answer => answer.arrayBuffer());
  const externalData = name === "decoder.onnx" ? [] : [{ path: "weights.bin", data: new Uint8Array(await weights) }];
  return ort.InferenceSession.create(name, { executionProviders: ["wasm"], graphOptimizationLevel: "all", externalData });
}
async function run(name, inputs) {
  const feeds = Object.fromEntries(Object.entries(inputs).map(([key, value]) => [key, tensor(value)]));
  return (await graph(name)).run(feeds);
}

async function start() {
  walk = await (await fetched("walk.json")).json();
  const threads = Number(new URLSearchParams(location.search).get("threads")) || Math.min(4, navigator.hardwareConcurrency || 1);
  ort.env.wasm.numThreads = crossOriginIsolated ? threads : 1;
  ort.env.wasm.wasmPaths = new URL("ort/", location.href).href;
  const numbers = new Float32Array(await (await fetched("start.bin")).arrayBuffer()), { latents, text: rows, poses } = walk.start;
  const count = latents.reduce((a, b) => a * b);
  text = { data: numbers.subarray(count), dims: [1, ...rows] };
  const first = { latents: { data: numbers.subarray(0, count), dims: [1, ...latents] }, poses, graph: "start" };
  pasts = Object.fromEntries(["on", "off"].map(name => [name, new Past(walk.memory, first, remember(name))]));
  pose = walk.start.pose;
  memory = walk.hello.memory;
  const pictures = await Promise.all([...Array(walk.start.pictures).keys()].map(async number =>
    (await fetched(`given/${String(number).padStart(5, "0")}.png`)).blob()));
  const most = walk.memory.places * walk.memory.slot;
  tell({ ...walk.hello, saves: false, threads: ort.env.wasm.numThreads, remembered: most }, pictures);
  tell({ type: "note", text: "Loading the model\u2026" });
  for (const name of ["decoder.onnx", `start-${mode()}.onnx`, `step-${mode()}.onnx`, `chunk-${mode()}.onnx`]) await graph(name);
  tell({ type: "note", text: "" });
}
function mode() { return memory ? "on" : "off"; }
function remember(name) {
  return (stretch, anchor) => run(`${stretch.graph ?? "chunk"}-${name}.onnx`, {
    latents: stretch.latents, camera: { data: cameraRows(stretch.poses, anchor), dims: [1, stretch.poses.length, 12] },
  });
}

async function step(keys) {
  const began = performance.now(), { frames, latents: dims } = walk.chunk, name = mode();
  const way = moved(pose, speed, keys, { frames, fps: walk.hello.fps, pace: walk.pace });
  const poses = way.poses.filter((_, i) => i % walk.stride === 0), past = pasts[name];
  past.comeTo(poses);
  const first = past.stretches.at(-1).first + past.stretches.at(-1).poses.length;
  const { inputs, spans } = await past.read(memory), remembered = performance.now();
  const made = { data: given ?? normal(dims.reduce((a, b) => a * b), 1000003 * walk.seed + chunks), dims: [1, ...dims] };
  given = null;
  const camera = { data: cameraRows(poses, past.anchor), dims: [1, poses.length, 12] };
  let counts = null;
  for (const level of walk.levels) {
    const timestep = { data: Float32Array.of(level.timestep), dims: [1] }, by = Math.fround(level.step);
    const { flow, reads } = await run(`step-${name}.onnx`, { latents: made, timestep, text, camera, ...inputs });
    made.data = made.data.map((value, i) => value + Math.fround(by * flow.data[i]));
    if (reads) counts = counts ? counts.map((value, i) => value + reads.data[i]) : reads.data;
  }
  if (!made.data.every(Number.isFinite)) throw new Error("the model made latents that are not finite");
  const denoised = performance.now(), { pixels } = await run("decoder.onnx", { latents: made });
  const pictures = drawn(pixels), ended = performance.now();
  for (const of of Object.values(pasts)) of.add(made, poses);
  pose = way.poses.at(-1);
  speed = way.speed;
  took.push((ended - began) / 1000);
  const latest = took.slice(-LATEST), total = walk.memory.blocks * walk.levels.length;
  tell({
    type: "chunk", number: chunks++, frames, memory, poses: way.poses.map(fromAbove), held: keys, latents: poses.map((_, i) => first + i),
    reads: counts ? readings(counts, poses.length, spans, walk.memory, first, total) : poses.map(() => []),
    seconds: { context: (remembered - began) / 1000, denoising: (denoised - remembered) / 1000, decoding: (ended - denoised) / 1000 },
    took: took.at(-1), rate: frames * latest.length / latest.reduce((a, b) => a + b),
  }, pictures);
}
function drawn({ data, dims: [, , frames, height, width] }) {
  const size = height * width;
  return [...Array(frames).keys()].map(frame => {
    const picture = new ImageData(width, height);
    for (let channel = 0; channel < 3; channel++) {
      const start = (channel * frames + frame) * size;
      for (let i = 0; i < size; i++) picture.data[4 * i + channel] = Math.round((data[start + i] + 1) * 127.5);
    }
    for (let i = 0; i < size; i++) picture.data[4 * i + 3] = 255;
    return picture;
  });
}

const answers = {
  step: asked => step(asked.keys),
  memory: asked => { memory = asked.on; tell({ type: "memory", on: memory }); },
  noise: asked => { given = Float32Array.from(asked.noise); },  // what the next chunk starts from, for comparisons
};
function failed(error) { tell({ type: "error", what: error.message || String(error) }); }
let turn = start().catch(failed);
onmessage = event => {
  const asked = JSON.parse(event.data);
  turn = turn.then(() => answers[asked.type](asked)).catch(failed);
};
