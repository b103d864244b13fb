"use strict";
// The controls of the page. Frames {t, x, x0} come from torch at first, then from a worker as they are computed.

const data = JSON.parse(document.getElementById("data").textContent);
const weights = document.getElementById("weights").textContent;
const part = (id) => document.getElementById(id);
const form = part("settings"), slider = part("time"), status = part("status"), play = part("play");
const url = URL.createObjectURL(new Blob([part("engine").textContent, "\nonmessage = answer;"]));
let frames = data.frames.map(({ t, x, x0 }) => ({ t, x: bytes(x), x0: bytes(x0) }));
let calls = data.chains[0].calls.length, worker = null, timer = 0;

/** Draw the images [C, num, H, W] in rows of five, with a pixel between them. */
function paint(canvas, values) {
  const [, h, w] = data.shape, columns = 5, size = h * w, area = data.num * size;
  canvas.width = columns * (w + 1) - 1;
  canvas.height = Math.ceil(data.num / columns) * (h + 1) - 1;
  const context = canvas.getContext("2d"), picture = context.createImageData(canvas.width, canvas.height);
  for (let i = 0; i < area; i++) {
    const image = Math.floor(i / size), y = Math.floor(image / columns) * (h + 1) + (Math.floor(i / w) % h);
    const at = 4 * (y * canvas.width + (image % columns) * (w + 1) + (i % w)), grey = values.length === area;
    for (let channel = 0; channel < 3; channel++) picture.data[at + channel] = values[(grey ? 0 : channel * area) + i];
    picture.data[at + 3] = 255;
  }
  context.putImageData(picture, 0, 0);
}

function show(at) {
  const frame = frames[at];
  slider.max = calls;
  slider.value = at;
  const where = frame.t ? `t = ${frame.t}, call ${at + 1} of ${calls}` : "t = 0, the images";
  slider.setAttribute("aria-valuetext", where);
  part("where").textContent = where;
  paint(part("x"), frame.x);
  paint(part("x0"), frame.x0);
}

function pause() {
  clearInterval(timer);
  timer = 0;
  play.textContent = "Play";
}

function start() {
  let at = Number(slider.value) < frames.length - 1 ? Number(slider.value) : 0;
  play.textContent = "Pause";
  show(at);
  timer = setInterval(() => (at < frames.length - 1 ? show(++at) : pause()), 300);
}

/** The classes, or what else the network is told of each image; of a class that ``hides``, nothing. */
function condition(hides) {
  const count = data.classes.length, c = data.config.condition_size, [, h, w] = data.shape;
  const label = form.label?.value ? () => Number(form.label.value) : (image) => image % count;
  if (count) return Array.from({ length: data.num }, (_, image) => (hides ? count : label(image)));
  if (data.condition === null) return null;
  const x = new Float32Array(bytes(data.condition).buffer), sides = data.config.condition_channels ? [h, w] : [1, 1];
  return { c, h: sides[0], w: sides[1], x: hides ? x.map(() => 0) : x };
}

function settings() {
  const { chain, seed, guidance } = Object.fromEntries(new FormData(form));
  return { chain: Number(chain), seed: Number(seed), guidance: Number(guidance ?? 1) };
}

function changed() {
  const { chain, seed, guidance } = settings();
  const words = ["unstir sample", data.run, "--num", data.num, "--seed", seed, data.chains[chain].words];
  if (form.label?.value) words.push("--label", form.label.value);
  if (data.hides) words.push("--guidance", guidance);
  part("command").textContent = words.join(" ");
  if (data.hides) part("scale").textContent = guidance.toFixed(2);
}

function finish(text) {
  worker.terminate();
  worker = null;
  part("draw").textContent = "Draw";
  status.textContent = text;
}

function compute() {
  pause();
  const began = performance.now(), drawn = [], seconds = () => ((performance.now() - began) / 1000).toFixed(1);
  const request = { ...settings(), condition: condition(false), hidden: condition(true) };
  history.replaceState(null, "", `#${new URLSearchParams(new FormData(form))}`);
  part("draw").textContent = "Stop";
  status.textContent = "Drawing.";
  worker = new Worker(url);
  worker.onmessage = ({ data: frame }) => {
    frames = drawn;
    calls = data.chains[request.chain].calls.length;
    frames.push(frame);
    if (frames.length === 1 || Number(slider.value) === frames.length - 2) show(frames.length - 1); // or it was moved
    if (frames.length > calls) finish(`Drawn in ${seconds()} seconds.`);
  };
  worker.onerror = (error) => finish(`This browser could not draw: ${error.message}`);
  worker.postMessage({ data, weights, request });
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (worker) finish("Stopped.");
  else compute();
});
form.addEventListener("input", changed);
slider.addEventListener("input", () => {
  pause();
  show(Math.min(Number(slider.value), frames.length - 1));
});
play.addEventListener("click", () => (timer ? pause() : start()));
if (form.guidance) form.guidance.value = data.chains[0].guidance;
const shared = new URLSearchParams(location.hash.slice(1));
for (const [name, value] of shared) if (form[name]) form[name].value = value;
changed();
if (shared.size) compute();
else if (matchMedia("(prefers-reduced-motion: reduce)").matches) show(frames.length - 1);
else start();
