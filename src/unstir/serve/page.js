// The live page: frames {t, x, x0} come from torch at first, then from a worker as they are computed.
import { paint } from "./static/paint.js";
import { Player, part, restore, runner, settings, tell } from "./static/unstir.js";

const data = JSON.parse(part("data").textContent), weights = part("weights").textContent;
const shape = [data.shown.length, ...data.shape.slice(1)];
const url = URL.createObjectURL(new Blob([part("engine").textContent, "\nonmessage = answer;"]));
const form = part("settings"), run = runner(form, begin, inWorker);
let calls = data.frames.length - 1;

const player = new Player((frame) => {
  for (const name of ["x", "x0"]) paint(part(name), frame[name], shape, data.num);
  return frame.t ? `t = ${frame.t}, call ${player.frames.indexOf(frame) + 1} of ${calls}` : "t = 0, the images";
}, 300);

/** The classes, or what else the network is told of each image; of a class that ``hides``, nothing. */
function condition(hides) {
  const count = data.classes.length, c = data.config.condition_size, [, h, w] = data.shape, { label } = settings(form);
  if (count) return Array.from({ length: data.num }, (_, image) => (hides ? count : (label ?? image % count)));
  if (data.condition === null) return null;
  const x = new Float32Array(bytes(data.condition).buffer), sides = data.config.condition_channels ? [h, w] : [1, 1];
  return { c, h: sides[0], w: sides[1], x: hides ? x.map(() => 0) : x };
}

function command() {
  const { chain, seed = 0, label, guidance } = settings(form);
  const words = ["unstir sample", data.run, "--num", data.num, "--seed", seed, data.chains[chain].words];
  if (label !== undefined) words.push("--label", label);
  if (guidance !== undefined) words.push("--guidance", guidance);
  part("command").textContent = words.join(" ");
  tell(form);
}

/** The frames of a request, as `compute` gives the lines of a call. */
function inWorker(_, request, take, signal) {
  const worker = new Worker(url);
  const ended = new Promise((resolve, reject) => {
    worker.onmessage = ({ data: frame }) => { take(frame); if (!frame.t) resolve(); };
    worker.onerror = ({ message }) => reject(new Error(`This browser could not draw: ${message}`));
    signal.addEventListener("abort", () => reject(signal.reason));
    worker.postMessage({ data, weights, request });
  });
  return ended.finally(() => worker.terminate());
}

function begin() {
  const { guidance = 1, ...given } = settings(form);
  player.clear();
  calls = data.chains[given.chain].calls.length;
  return run("", { ...given, guidance, condition: condition(false), hidden: condition(true) }, (frame) => player.add(frame));
}

form.addEventListener("input", command);
for (const frame of data.frames) player.add(frame);
const shared = restore(form);
command();
if (shared) begin();
else player.play(!matchMedia("(prefers-reduced-motion: reduce)").matches);
