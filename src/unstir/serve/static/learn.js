// A chapter: all places of its slider come from the server at once or one by one, and then the slider does not wait.
import { Player, ask, compute, fill, part, problem, remember, restore } from "./unstir.js";
import { arrows, bars, curves, paint } from "./paint.js";

const form = part("settings"), chapter = form.dataset.chapter, all = (what) => [...document.querySelectorAll(what)];
const call = chapter === "posterior" ? "forward" : chapter;
let facts = {}, data = {}, about = {}, mark = null, control = null, later = 0, wanted = 0;

/** A number as formulas show it: three digits, of the values of pixels three decimals. */
function written(value, decimals) {
  if (value === null) return "∞";
  const small = Math.abs(value) < 1e-3 && value && !decimals;
  return (small ? value.toExponential(1) : String(Number(decimals ? value.toFixed(3) : value.toPrecision(3)))).replace("-", "−");
}

/** Put a number into a formula, in brackets where it is below zero and follows an operator. */
function put(number, value) {
  const text = written(value, /_pixel$|^z$/.test(number.dataset.number));
  const follows = /[·+−]/.test(number.previousElementSibling?.textContent ?? "");
  number.textContent = follows && text.startsWith("−") ? `(${text})` : text;
}

/** Show one place of the slider. */
function show(place) {
  const chosen = place.by_scale?.find(({ scale }) => scale === Number(form.scale.value));
  const frame = { ...about.given, ...place, ...chosen };
  for (const canvas of all("[data-picture]")) if (frame[canvas.dataset.picture]) paint(canvas, frame[canvas.dataset.picture], about.shape);
  for (const number of all("[data-number]")) if (frame[number.dataset.number] !== undefined) put(number, frame[number.dataset.number]);
  mark?.(frame.t);
  if (chosen) {
    arrows(part("arrows"), { a: frame.to_weak, b: frame.to_strong, c: frame.to_guided });
    part("scale").textContent = frame.scale;
  }
  if (frame.probabilities?.length) bars(part("bars"), facts.labels, frame.probabilities);
  form.t.value = frame.t;
  clearTimeout(later);
  later = setTimeout(keep, 200);
  return frame.s === undefined || chapter === "forward" ? `t = ${frame.t}` : `t = ${frame.t}, s = ${frame.s}`;
}

function keep() {
  remember(form);
  for (const link of all(".chapters a")) link.hash = location.hash;
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
  part("chart")?.setAttribute("aria-label", all("#chart + figcaption").map((text) => text.textContent).join());
}

function begin(line) {
  about = line;
  const [, h, w] = line.shape, middle = { left: Math.floor(w / 2) / w, top: Math.floor(h / 2) / h, width: 1 / w, height: 1 / h };
  for (const [name, share] of Object.entries(middle)) part("chapter").style.setProperty(`--${name}`, `${100 * share}%`);
  wanted = Number(form.t.value || line.first);
  player.clear();
  player.slider.max = line.total - 1;
  if (part("held")) part("held").hidden = !line.held_out.length;
  if (part("target")) part("target").textContent = line.predicts;
  if (part("classes")) part("classes").hidden = !facts.labels.length;
}

function values() {
  const given = ["image", "label", "seed", "stride"].map((name) => [name, form.elements[name]?.value]);
  const numbers = given.filter(([, value]) => value && value !== "own").map(([name, value]) => [name, Number(value)]);
  const own = form.elements.image?.value === "own" ? { pixels: data.own } : {};
  return { model: form.model.value, schedule: form.schedule?.value ?? "", ...own, ...Object.fromEntries(numbers) };
}

/** Compute the chapter for the settings, and stay at the time that is shown. */
async function load() {
  control?.abort();
  const { signal } = (control = new AbortController());
  const away = (frame) => Math.abs(frame.t - wanted);
  const place = (frame) => {
    player.frames.push(frame);
    if (away(frame) <= away(player.frames[player.slider.value] ?? frame)) player.at(player.frames.length - 1);
  };
  problem("");
  part("chapter").setAttribute("aria-busy", "true");
  try {
    await compute(call, values(), (line) => (line.shape ? begin(line) : place(line)), signal);
    chart();
    mark?.(player.frames[player.slider.value].t);
  } catch (error) {
    problem(error);
    if (!signal.aborted) for (const canvas of all("[data-picture]")) canvas.width = 0; // it may be of another model
  }
  if (!signal.aborted) part("chapter").removeAttribute("aria-busy");
}

/** The images of the data as buttons, and one of the reader's own. */
function thumbnails() {
  const button = (pixels, value, name) => {
    const label = document.createElement("label"), input = document.createElement("input"), canvas = document.createElement("canvas");
    Object.assign(input, { type: "radio", name: "image", value, checked: value === 0 });
    input.setAttribute("aria-label", name);
    paint(canvas, pixels, data.shape);
    label.append(input, canvas);
    return label;
  };
  const name = (i) => (data.labels ? `image of class ${facts.labels[data.labels[i]]}` : `image ${i + 1}`);
  const shown = data.images.map((pixels, i) => button(pixels, i, name(i)));
  if (data.own) shown.push(button(data.own, "own", "your own image"));
  part("images").replaceChildren(part("images").querySelector("legend"), ...shown);
}

/** The class of the image that is chosen is what the network is told at first. */
function tell() {
  if (form.label && data.labels) form.label.value = data.labels[form.elements.image.value] ?? form.label.options[0].value;
}

const stored = () => `own:${form.model.value}`;

/** Offer what the model has: images, classes, strides. */
async function choose() {
  facts = await ask("model", { model: form.model.value });
  if (part("images")) {
    await compute("images", { model: form.model.value }, (line) => { data = line; });
    data.own = sessionStorage.getItem(stored());
    thumbnails();
  }
  if (form.label) {
    const none = facts.guidable && chapter !== "guidance" ? [["", "none"]] : [];
    fill(form.label, [...none, ...facts.labels.map((name, i) => [i, name])]);
    form.label.closest("label").hidden = !facts.labels.length;
  }
  if (form.stride) fill(form.stride, [[Math.ceil(facts.T / 10), "a tenth of the times"], [1, "one time"], [facts.T, "all times, to the image"]]);
}

/** Send a picture file, and take its pixels as the image. */
async function own(picture) {
  try {
    const { pixels } = await ask("own", { model: form.model.value, picture });
    sessionStorage.setItem(stored(), (data.own = pixels));
    thumbnails();
    form.elements.image.value = "own";
    tell();
    load();
  } catch (error) {
    problem(error);
  }
}

async function answer(event) {
  event.preventDefault();
  const exercise = event.target, output = exercise.querySelector("output"), t = Number(form.t.value);
  try {
    await compute("check", { ...values(), exercise: exercise.dataset.exercise, t }, ({ right, line }) => {
      output.className = right ? "right" : "wrong";
      output.textContent = `${right ? "Right." : "Not yet."} ${line}`;
    });
  } catch (error) {
    output.className = "wrong";
    output.textContent = error.message;
  }
}

player.slider.addEventListener("input", () => { wanted = Number(form.t.value); });
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("change", async ({ target }) => {
  if (target.id === "own" || target.name === "scale") return;
  if (target.name === "model") await choose().catch(problem);
  if (["model", "image"].includes(target.name)) tell();
  load();
});
form.scale?.addEventListener("input", () => player.at(Number(player.slider.value)));
part("own")?.addEventListener("change", ({ target }) => {
  if (!target.files.length) return;
  const reader = new FileReader();
  reader.addEventListener("load", () => own(reader.result.split(",")[1]));
  reader.readAsDataURL(target.files[0]);
});
for (const link of all(".chapters a")) link.addEventListener("click", keep);
for (const exercise of all(".exercise")) exercise.addEventListener("submit", answer);
try {
  restore(form); // the model, before what it offers
  await choose();
  restore(form); // the image, before its class
  if (form.elements.image && !form.elements.image.value) form.elements.image[0].checked = true;
  tell();
  restore(form);
  load();
} catch (error) {
  problem(error);
}
