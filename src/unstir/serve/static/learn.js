// A chapter: all places of its slider come from the server at once or one by one, and then the slider does not wait.
import { Player, ask, fill, part, picks, problem, remember, restore, runner, settings } from "./unstir.js";
import { arrows, bars, curves, paint, thumbnails } from "./paint.js";

const form = part("settings"), chapter = form.dataset.chapter, run = runner(form);
const all = (selector) => [...document.querySelectorAll(selector)];
const call = chapter === "posterior" ? "forward" : chapter;
let facts = {}, data = {}, about = {}, mark = null, later = 0, wanted = 0;

/** A number as formulas show it: three digits, of the values of pixels three decimals. */
function written(value, decimals) {
  if (value === null) return "∞";
  const small = Math.abs(value) < 1e-3 && value && !decimals;
  return (small ? value.toExponential(1) : String(Number(decimals ? value.toFixed(3) : value.toPrecision(3)))).replace("-", "−");
}

/** Put a number into a formula, in brackets where it is below zero and follows an operator. */
function put(number, value) {
  const text = written(value, /_pixel$|^z$/.test(number.dataset.number));
  const bracket = text.startsWith("−") && /[·+−]/.test(number.previousElementSibling?.textContent ?? "");
  number.textContent = bracket ? `(${text})` : text;
}

/** Show one place of the slider. */
function show(place) {
  const chosen = place.by_scale?.find(({ scale }) => scale === Number(form.scale.value));
  const frame = { ...about.given, ...place, ...chosen };
  for (const canvas of all("[data-picture]")) if (frame[canvas.dataset.picture]) paint(canvas, frame[canvas.dataset.picture], about.shape);
  for (const number of all("[data-number]")) if (frame[number.dataset.number] !== undefined) put(number, frame[number.dataset.number]);
  mark?.(frame.t);
  if (chosen) arrows(part("arrows"), { a: frame.to_weak, b: frame.to_strong, c: frame.to_guided });
  if (frame.probabilities) bars(part("bars"), facts.labels, frame.probabilities);
  form.t.value = frame.t;
  clearTimeout(later);
  later = setTimeout(remember, 200, form);
  return frame.s === undefined || chapter === "forward" ? `t = ${frame.t}` : `t = ${frame.t}, s = ${frame.s}`;
}

const player = new Player(show, 80);

/** The curves of the chapter, over the places that are there. */
function chart() {
  const of = (name) => player.frames.filter((frame) => Number.isFinite(frame[name])).map((frame) => [frame.t, frame[name]]);
  const lines = {
    forward: () => ({ a: of("log_snr") }),
    posterior: () => ({ a: of("at_x_t"), b: of("at_x_0"), c: of("std") }),
    predict: () => ({ a: of("loss"), ...(about.held_out.length ? { b: about.held_out } : {}) }),
  }[chapter];
  mark = lines ? curves(part("chart"), about.T, lines()) : null;
  mark?.(player.frames[player.slider.value].t);
  part("chart")?.setAttribute("aria-label", all("#chart + figcaption").map((text) => text.textContent).join());
}

function begin(line) {
  about = line;
  const [, h, w] = line.shape, middle = { left: Math.floor(w / 2) / w, top: Math.floor(h / 2) / h, width: 1 / w, height: 1 / h };
  for (const [name, share] of Object.entries(middle)) part("chapter").style.setProperty(`--${name}`, `${100 * share}%`);
  wanted = Number(form.t.value || line.first);
  player.clear();
  player.slider.max = line.total - 1 - (chapter === "posterior");
  if (part("target")) part("target").textContent = line.predicts;
}

function values() {
  const { image, scale, t, ...given } = settings(form);
  return { ...given, ...(image === "own" ? { pixels: data.own } : { image: Number(image ?? 0) }) };
}

/** Compute the chapter for the settings, and stay at the time that is shown. */
async function load() {
  const away = (frame) => Math.abs(frame.t - wanted);
  const place = (frame) => {
    if (chapter === "posterior" && !frame.t) return; // no step back from the image itself
    player.frames.push(frame);
    if (away(frame) <= away(player.frames[player.slider.value] ?? frame)) player.at(player.frames.length - 1);
  };
  part("chapter").setAttribute("aria-busy", "true");
  for (const verdict of all(".exercise output")) verdict.textContent = ""; // it was of other settings
  const ended = await run(call, values(), (line) => (line.shape ? begin(line) : place(line)));
  if (ended === undefined) return;
  if (ended) chart();
  else for (const canvas of all("[data-picture]")) canvas.width = 0; // it may be of another model
  part("chapter").removeAttribute("aria-busy");
}

/** The images of the data as buttons, and one of the reader's own. */
function images() {
  const name = (i) => (data.labels ? `image of class ${facts.labels[data.labels[i]]}` : `image ${i + 1}`);
  const own = data.own ? [["own", "your own image", data.own]] : [];
  thumbnails(part("images"), [...data.images.map((pixels, i) => [i, name(i), pixels]), ...own], data.shape, "image");
}

/** The class of the image that is chosen is what the network is told at first. */
function label() {
  if (form.label && data.labels) form.label.value = data.labels[form.elements.image.value] ?? form.label.options[0].value;
}

const stored = () => `own:${form.model.value}`;

/** Offer what the model has: images, classes, strides. */
async function choose() {
  facts = await ask("model", { model: form.model.value });
  if (part("images")) {
    data = await ask("images", { model: form.model.value });
    data.own = sessionStorage.getItem(stored());
    images();
  }
  if (form.label) {
    const none = facts.guidable && chapter !== "guidance" ? [["", "none"]] : [];
    fill(form.label, [...none, ...facts.labels.map((name, i) => [i, name])]);
    form.label.closest("label").hidden = !facts.labels.length;
  }
  if (form.stride) fill(form.stride, facts.strides);
}

/** Send a picture file, and take its pixels as the image. */
async function own(_, picture) {
  const answer = await ask("own", { model: form.model.value, picture }).catch(problem);
  if (!answer) return;
  sessionStorage.setItem(stored(), (data.own = answer.pixels));
  images();
  form.elements.image.value = "own";
  label();
  load();
}

async function check(event) {
  event.preventDefault();
  const { dataset: { exercise }, lastElementChild: output } = event.target, t = Number(form.t.value);
  const { right, line } = await ask("check", { ...values(), exercise, t }).catch(({ message }) => ({ right: false, line: message }));
  Object.assign(output, { className: right ? "right" : "wrong", textContent: line });
}

player.slider.addEventListener("input", () => { wanted = Number(form.t.value); });
form.addEventListener("change", async ({ target }) => {
  if (target.id === "own" || target.name === "scale") return;
  if (target.name === "model") await choose().catch(problem);
  if (["model", "image"].includes(target.name)) label();
  load();
});
form.scale?.addEventListener("input", () => player.at(Number(player.slider.value)));
if (part("own")) picks(part("own"), own);
for (const link of all(".chapters a")) link.addEventListener("click", () => remember(form));
for (const exercise of all(".exercise")) exercise.addEventListener("submit", check);
restore(form); // the model, before what it offers
await choose().catch(problem);
restore(form); // the image, before its class
if (form.elements.image && !form.elements.image.value) form.elements.image[0].checked = true;
label();
restore(form);
load();
