// What every page uses: calls of the server, the state in the address, a player of frames, the command to copy.

export const part = (id) => document.getElementById(id);

async function send(name, values, signal) {
  const headers = { "Content-Type": "application/json" };
  const asked = fetch(`api/${name}`, { method: "POST", headers, body: JSON.stringify(values), signal });
  const response = await asked.catch((error) => {
    throw error.name === "AbortError" ? error : new Error("The server does not answer; start unstir serve again.");
  });
  if (!response.ok) throw new Error((await response.json()).error);
  return response;
}

/** The answer of a call that computes nothing; throws an Error with the line of a refusal. */
export async function ask(name, values = {}, signal = undefined) {
  return (await send(name, values, signal)).json();
}

/** Call ``take`` for each line of a computation. Abort the ``signal`` to stop it. Throws as `ask`. */
export async function compute(name, values, take, signal = undefined) {
  const response = await send(name, values, signal);
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

/** Show a refusal, or with "" none; a computation that was stopped is no problem. */
export function problem(error) {
  part("problem").textContent = error && error.name !== "AbortError" ? (error.message ?? error) : "";
}

/**
 * Make the button of a form compute the call ``name`` of ``values()``, and stop it while it computes.
 * ``begin()`` clears the page, ``take(line)`` shows a line. Returns the function that begins.
 */
export function computes(form, name, values, begin, take) {
  const button = form.querySelector("button:not([type])"), label = button.textContent, status = part("status");
  let control = null;

  async function run() {
    const { signal } = (control = new AbortController()), began = performance.now();
    problem("");
    remember(form);
    begin();
    button.textContent = "Stop";
    status.textContent = "Waiting for the network.";
    try {
      const shown = (line) => (line.job ? (status.textContent = `Step ${line.done} of ${line.total}.`) : take(line));
      await compute(name, values(), shown, signal);
      status.textContent = `Done in ${((performance.now() - began) / 1000).toFixed(1)} seconds.`;
    } catch (error) {
      problem(error);
      status.textContent = signal.aborted ? "Stopped." : "";
    }
    control = null;
    button.textContent = label;
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (control) control.abort();
    else run();
  });
  return run;
}

/** Put the settings of a form into the address. */
export function remember(form) {
  const given = [...new FormData(form)].filter(([, value]) => value !== "");
  history.replaceState(null, "", `#${new URLSearchParams(given)}`);
}

/** Put the settings in the address into a form; returns whether there were any. */
export function restore(form) {
  const shared = new URLSearchParams(location.hash.slice(1));
  for (const field of form.elements) {
    if (!shared.has(field.name)) continue;
    if (["checkbox", "radio"].includes(field.type)) field.checked = shared.getAll(field.name).includes(field.value);
    else field.value = shared.get(field.name);
  }
  return shared.size > 0;
}

/** Fill a select with options [value, text], and keep what was chosen where it is there. */
export function fill(select, options) {
  const chosen = select.value;
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  if (options.some(([value]) => String(value) === chosen)) select.value = chosen;
}

/** Offer what the model of a form can do, and return the facts about it. */
async function adapt(form) {
  const facts = await ask("model", { model: form.model.value });
  const offer = (name, visible) => { form[name].closest("label").hidden = !visible; };
  fill(form.label, [["", "each in turn"], ...facts.labels.map((name, i) => [i, name])]);
  form.guidance.value = facts.chain.guidance;
  offer("label", facts.labels.length);
  offer("condition", facts.condition?.length === 1);
  offer("guidance", facts.guidable);
  return facts;
}

/** What a form and its model say of a sampling, as a call takes it; what is not offered is left out. */
export function settings(form) {
  const given = (name) => form[name] && form[name].value.trim() !== "" && !form[name].closest("[hidden]");
  const numbers = ["steps", "seed", "num", "label", "guidance"].filter(given).map((name) => [name, Number(form[name].value)]);
  const condition = given("condition") ? form.condition.value.split(",").map(Number) : null;
  return { model: form.model.value, condition, ...Object.fromEntries(numbers) };
}

/**
 * Open the page of a form and compute: ``choose(facts)`` settles what a model begins with, then the address does.
 * The value of a control stands in the [data-value] of its label.
 */
export async function opens(form, choose, run) {
  const tell = () => { for (const each of form.querySelectorAll("[data-value]")) each.textContent = each.closest("label").control.value; };
  const begin = async () => { choose(await adapt(form)); tell(); };
  form.addEventListener("input", tell);
  form.model.addEventListener("change", () => begin().then(run, problem));
  copies();
  restore(form);
  await begin().catch(problem);
  restore(form);
  tell();
  run();
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

/** Make the button #copy copy the text of #command. */
export function copies() {
  part("copy").addEventListener("click", async () => {
    await navigator.clipboard.writeText(part("command").textContent);
    part("copy").textContent = "Copied";
    setTimeout(() => { part("copy").textContent = "Copy"; }, 1500);
  });
}
