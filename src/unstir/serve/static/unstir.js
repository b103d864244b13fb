// What every page uses: calls of the server, the state in the address, a player of frames, the command to copy.

export const part = (id) => document.getElementById(id);

async function send(name, values, signal) {
  const headers = { "Content-Type": "application/json" };
  const response = await fetch(`api/${name}`, { method: "POST", headers, body: JSON.stringify(values), signal });
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

/** Put the settings of a form into the address. */
export function remember(form) {
  const hidden = (name) => [form.elements[name]].flat()[0].closest?.("[hidden]");
  const given = [...new FormData(form)].filter(([name, value]) => value !== "" && !hidden(name));
  history.replaceState(null, "", `#${new URLSearchParams(given)}`);
}

/** Put the settings in the address into a form; returns whether there were any. */
export function restore(form) {
  const shared = new URLSearchParams(location.hash.slice(1));
  for (const name of new Set(shared.keys())) {
    const field = form.elements[name];
    const boxes = field instanceof RadioNodeList ? [...field] : field?.type === "checkbox" ? [field] : [];
    for (const box of boxes) box.checked = shared.getAll(name).includes(box.value);
    if (field && !boxes.length) field.value = shared.get(name);
  }
  return shared.size > 0;
}

/** Fill a select with options [value, text], and keep what was chosen where it is there. */
export function fill(select, options) {
  const chosen = select.value;
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  if (options.some(([value]) => String(value) === chosen)) select.value = chosen;
}

/** Plays frames by the slider #time, the text #where and the button #play; ``show(frame)`` paints one. */
export class Player {
  constructor(show) {
    this.show = show;
    this.frames = [];
    this.slider = part("time");
    this.timer = 0;
    this.slider.addEventListener("input", () => { this.pause(); this.at(Number(this.slider.value)); });
    part("play").addEventListener("click", () => (this.timer ? this.pause() : this.start()));
  }

  clear() {
    this.pause();
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
    const where = frame.t ? `t = ${frame.t}` : "t = 0, the images";
    this.slider.setAttribute("aria-valuetext", where);
    part("where").textContent = where;
    this.show(frame);
  }

  pause() {
    clearInterval(this.timer);
    this.timer = 0;
    part("play").textContent = "Play";
  }

  start() {
    let index = Number(this.slider.value) < this.frames.length - 1 ? Number(this.slider.value) : 0;
    part("play").textContent = "Pause";
    this.at(index);
    this.timer = setInterval(() => (index < this.frames.length - 1 ? this.at(++index) : this.pause()), 120);
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
