// What every page uses: calls of the server, the state in the address, a player of frames, the command to copy.
import { thumbnails } from "./paint.js";

export const part = (id) => document.getElementById(id);

/** A new element with these properties and children. */
export function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Send a text or a file, ``again`` after a while where the server is full. Throws an Error with the line of a refusal. */
async function post(address, body, signal = undefined, again = true) {
  const headers = { "Content-Type": body instanceof Blob ? "application/octet-stream" : "application/json" };
  const response = await fetch(address, { method: "POST", headers, body, signal }).catch((error) => {
    throw error.name === "AbortError" ? error : new Error("The server does not answer; start unstir serve again.");
  });
  if (response.ok) return response;
  if (response.status !== 429 || !again) throw new Error((await response.json()).error);
  await new Promise((resolve) => setTimeout(resolve, 1000 * response.headers.get("Retry-After")));
  return post(address, body, signal, false);
}

/** Call ``take`` for each line of an answer. Abort the ``signal`` to stop it. Throws as `post`. */
export async function compute(name, values, take, signal = undefined) {
  const response = await post(`api/${name}`, JSON.stringify(values), signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ; ) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines.map((text) => JSON.parse(text))) {
      if (line.error) throw new Error(line.error);
      take(line);
    }
  }
}

/** The last line of an answer. Throws as `compute`. */
export async function ask(name, values = {}) {
  let answer = {};
  await compute(name, values, (line) => { answer = line; });
  return answer;
}

/** Show a refusal, or with "" none; a computation that was stopped is no problem. */
export function problem(error) {
  part("problem").textContent = error && error.name !== "AbortError" ? (error.message ?? error) : "";
}

/**
 * Returns run(name, values, take), which computes a call in the place of one that still runs, as `compute` does, and
 * resolves to whether it came to its end; to undefined where another took its place.
 * The button of the form stops a call, and begins by ``begin()`` where none runs. ``by`` computes. Answers to other
 * settings are pale, and the command stands beside what it makes.
 */
export function runner(form, begin = null, by = compute) {
  const button = form.querySelector("button:not([type])") ?? make("button"), label = button.textContent;
  const status = part("status") ?? make("p");
  let control = null, submitted = false, changed = false;

  async function run(name, values, take) {
    const mine = new AbortController(), began = performance.now();
    let command = "";
    const show = (line) => {
      if (line.job) return (status.textContent = `Step ${line.done} of ${line.total}.`);
      if (line.command) part("command").textContent = "";
      command ||= line.command;
      document.body.className = "";
      return take(line);
    };
    control?.abort();
    control = mine;
    problem("");
    remember(form, submitted);
    submitted = changed = false;
    tell(form);
    document.body.className = "pale";
    button.textContent = "Stop";
    status.textContent = "Waiting for the network.";
    const failed = await by(name, values, show, mine.signal).then(() => null, (error) => error);
    if (control !== mine) return undefined;
    control = null;
    button.textContent = label;
    problem(failed ?? "");
    if (command && !failed) part("command").textContent = command;
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    status.textContent = mine.signal.aborted ? "Stopped." : failed ? "" : `Done in ${seconds} seconds.`;
    if (begin && changed && !failed) mark();
    return !failed;
  }

  function mark() {
    document.body.className = "pale";
    status.textContent = `Press ${label} for these settings.`;
  }

  form.addEventListener("input", () => {
    tell(form);
    changed = true;
    if (begin && !control) mark();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submitted = !control;
    if (begin && control) control.abort();
    else begin?.();
  });
  return run;
}

/** Put the settings of a form into the address, and into the links to chapters; ``anew``, so that Back leads to those before. */
export function remember(form, anew = false) {
  const hash = `#${new URLSearchParams([...new FormData(form)].filter(([, value]) => value !== ""))}`;
  if (hash !== location.hash) history[anew ? "pushState" : "replaceState"](null, "", hash);
  for (const link of document.querySelectorAll(".chapters a")) link.hash = location.hash;
}

/** Put the settings in the address into a form; returns whether there were any. */
export function restore(form) {
  const shared = new URLSearchParams(location.hash.slice(1));
  for (const field of [...form.elements].filter(({ name }) => shared.has(name)))
    if (["checkbox", "radio"].includes(field.type)) field.checked = shared.getAll(field.name).includes(field.value);
    else field.value = shared.get(field.name);
  return shared.size > 0;
}

/** Fill a select with options [value, text], and keep what was chosen where it is there. */
export function fill(select, options) {
  const chosen = select.value;
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  if (options.some(([value]) => String(value) === chosen)) select.value = chosen;
}

/** Offer what a model can be told; ``none`` are the options [value, text] that name no class and no image. */
export async function offer(form, { chain, condition, guidable, labels }, none = [["", "each in turn"]]) {
  const { images, shape } = condition === "image" ? await ask("conditions", { model: form.model.value }) : { images: [] };
  fill(form.label, [...none, ...labels.map((name, i) => [i, name])]);
  thumbnails(part("conditions"), images.length ? [...none, ...images.map((pixels, i) => [i, `held-out image ${i}`, pixels])] : [], shape, "condition");
  form.guidance.value = chain.guidance;
  part("numbers").disabled = condition !== "numbers";
  const offered = [[form.label, labels.length], [part("numbers"), condition === "numbers"], [part("conditions"), images.length], [form.guidance, guidable]];
  for (const [element, visible] of offered) element.closest("label, fieldset").hidden = !visible;
}

const NUMBERS = ["chain", "guidance", "label", "num", "resamples", "seed", "steps", "strength", "stride"];

/** What a form says, as a call takes it; what is empty or not offered is left out. */
export function settings(form) {
  const offered = ([name, value]) => value.trim() !== "" && !form.querySelector(`[name=${name}]`).closest("[hidden]");
  const given = Object.fromEntries([...new FormData(form)].filter(offered));
  for (const name of NUMBERS) if (name in given) given[name] = Number(given[name]);
  if (given.condition) given.condition = given.condition.split(",").map(Number);
  return given;
}

/** Write the value of each control into the [data-value] of its label. */
export function tell(form) {
  for (const place of form.querySelectorAll("[data-value]")) place.textContent = place.closest("label").control.value;
}

/** Open the page of a form and ``begin()``: ``choose(facts)`` settles what a model starts with, then the address does. */
export async function opens(form, choose, begin) {
  const settle = async () => choose(await ask("model", { model: form.model.value }));
  form.model.addEventListener("change", () => settle().then(begin, problem));
  restore(form);
  await settle().catch(problem);
  restore(form);
  begin();
}

/** Send a picture file that is chosen in an input, and call ``take(name, id)`` with the id by which the server keeps it. */
export function picks(input, take) {
  input.addEventListener("change", async () => {
    const [file] = input.files, most = Number(input.dataset.most);
    if (!file) return;
    if (file.size > most) return problem(`${file.name} has more than ${most / 1e6} MB; save it with a smaller quality or size.`);
    const response = await post("picture", file).catch(problem);
    if (response) take(file.name, (await response.json()).picture);
  });
}

/** Plays frames by the slider #time, the text #where and the button #play. ``show(frame)`` paints one, and may name it. */
export class Player {
  constructor(show, milliseconds = 120) {
    Object.assign(this, { show, milliseconds, frames: [], slider: part("time"), timer: 0 });
    this.slider.addEventListener("input", () => { this.play(false); this.at(Number(this.slider.value)); });
    part("play").addEventListener("click", () => this.play(!this.timer));
  }

  clear() {
    this.play(false);
    this.frames = [];
    this.slider.max = 0;
  }

  /** Add a frame, and show it unless the slider was moved back. */
  add(frame) {
    const last = Number(this.slider.value) >= this.frames.length - 1;
    this.frames.push(frame);
    this.slider.max = this.frames.length - 1;
    if (last) this.at(this.frames.length - 1);
  }

  at(index) {
    const frame = this.frames[Math.min(index, this.frames.length - 1)];
    if (!frame) return;
    this.slider.value = index;
    const where = this.show(frame) ?? (frame.t ? `t = ${frame.t}` : "t = 0, the images");
    this.slider.setAttribute("aria-valuetext", where);
    part("where").textContent = where;
  }

  /** Play from where the slider is, or from the first frame where it is at the last; or pause. */
  play(on) {
    const last = this.frames.length - 1;
    let index = Number(this.slider.value) < last ? Number(this.slider.value) : -1;
    clearInterval(this.timer);
    this.timer = on ? setInterval(() => (index < this.frames.length - 1 ? this.at(++index) : this.play(false)), this.milliseconds) : 0;
    part("play").textContent = on ? "Pause" : "Play";
  }
}

// Back and Forward lead to other settings, and so does another address.
addEventListener("popstate", () => location.hash.includes("=") && location.reload());

// The button #copy copies the text of #command.
part("copy")?.addEventListener("click", async () => {
  await navigator.clipboard.writeText(part("command").textContent);
  part("copy").textContent = "Copied";
  setTimeout(() => { part("copy").textContent = "Copy"; }, 1500);
});
