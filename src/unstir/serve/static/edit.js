// The page Edit: a picture, a hole painted in it, and the answers of the model as they are computed.
import { Mask } from "./mask.js";
import { Player, ask, compute, copies, fill, part, problem, remember, restore } from "./unstir.js";

const MOST = 5_900_000; // bytes of a picture that fit into a call
const form = part("settings"), status = part("status"), results = part("results"), photo = part("photo");
let facts, running = null, timer = 0, picture = null; // {name, url}: the file that is edited

const player = new Player((frame) => { part("x").src = part("clean").checked ? frame.x0 : frame.x; });
const mask = new Mask(
  part("mask"), part("box"), { brush: part("brush"), erase: part("erase") },
  (text) => { part("where-box").textContent = text; }, () => { part("command-files").hidden = true; },
);
const content = (url) => url.slice(url.indexOf(",") + 1);
const label = () => (form.label.value === "" ? null : Number(form.label.value));

/** Run a call, the only one; lines go to ``take``. Returns whether it came to its end. */
async function run(name, values, take) {
  const control = new AbortController();
  running?.abort();
  running = control;
  problem("");
  part("start").textContent = "Stop";
  try {
    await compute(name, { model: form.model.value, ...values }, (line) => {
      if (line.job) status.textContent = `Call ${line.done} of ${line.total}.`;
      take(line);
    }, control.signal);
    return running === control;
  } catch (error) {
    problem(error);
    if (running === control) status.textContent = control.signal.aborted ? "Stopped." : "";
    return false;
  } finally {
    if (running === control) {
      running = null;
      part("start").textContent = "Start";
    }
  }
}

/** What depends on the model: its classes, and the sides of its images. */
async function choose() {
  facts = await ask("model", { model: form.model.value });
  fill(form.label, [...(facts.guidable ? [["", "not told"]] : []), ...facts.labels.map((name, i) => [i, name])]);
  form.label.closest("label").hidden = !facts.labels.length;
  form.steps.max = facts.T;
  mask.resize(facts.shape[2], facts.shape[1]);
}

/** Show the part of the picture that is edited. */
async function open(name, url) {
  reset();
  picture = null;
  const done = await run("preview", { picture: content(url) }, ({ shown, notes }) => {
    part("picture").src = shown;
    part("notes").textContent = notes.length ? `Note: ${notes.join("; ")}.` : "";
  });
  if (!done) return;
  picture = { name, url };
  part("file-picture").href = url;
  part("file-picture").download = part("file-picture").textContent = name;
  status.textContent = "";
}

/** Let the model draw the picture. */
async function own() {
  part("file").value = "";
  status.textContent = "Drawing a picture.";
  let url = "";
  const take = ({ x, picture }) => {
    if (x ?? picture) part("picture").src = x ?? picture;
    url = picture ?? "";
  };
  if (await run("drawn", { seed: Number(form.seed.value), label: label() }, take)) await open("drawn.png", url);
}

function reset() {
  player.clear();
  results.replaceChildren();
  photo.hidden = part("command-files").hidden = true;
}

async function start() {
  if (!picture) return problem("open a picture first, or draw one");
  const fills = form.edit.value === "inpaint", began = performance.now();
  const { name, url } = picture, painted = fills ? mask.url() : "";
  if (fills && mask.isEmpty) return problem("paint the hole first, or use the keys");
  remember(form);
  reset();
  status.textContent = "Waiting for the network.";
  const numbers = ["num", "seed", "steps", fills ? "resamples" : "strength"].map((key) => [key, Number(form[key].value)]);
  const values = { picture: content(url), name, label: label(), ...Object.fromEntries(numbers) };
  if (fills) values.mask = content(painted);
  await run(form.edit.value, values, (line) => {
    if (line.command) part("command").textContent = line.command;
    if (line.x) player.add(line);
    if (!line.results) return;
    line.results.forEach((result, i) => answer(result, i, fills ? { url, painted } : null));
    part("sheet").href = line.sheet;
    part("command-files").hidden = false;
    part("file-mask").href = painted;
    status.textContent = `Done in ${((performance.now() - began) / 1000).toFixed(1)} seconds: ${line.cost}.`;
  });
  return null;
}

/** Show an answer, and offer to put it back into the picture that was ``filled`` in. */
function answer(url, number, filled) {
  const item = document.createElement("li"), link = document.createElement("a");
  const image = Object.assign(new Image(), { src: url, alt: `Answer ${number}` });
  Object.assign(link, { href: url, download: `answer-${number}.png`, textContent: "Download" });
  item.append(image, link);
  if (filled) {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: "Put it back" });
    button.setAttribute("aria-label", `Put it back: answer ${number} into the picture at its own size`);
    button.addEventListener("click", () => paste(url, filled));
    item.append(button);
  }
  results.append(item);
}

async function paste(result, { url, painted }) {
  status.textContent = "Putting it into the picture.";
  await run("paste", { picture: content(url), mask: content(painted), result: content(result) }, (line) => {
    photo.querySelector("img").src = photo.querySelector("a").href = line.photo;
    photo.hidden = false;
    status.textContent = `The picture has ${line.size.join(" x ")} pixels.`;
  });
}

function arrange() {
  for (const each of document.querySelectorAll("[data-edit]")) each.hidden = each.dataset.edit !== form.edit.value;
  part("mask").hidden = form.edit.value !== "inpaint";
  part("far").textContent = form.strength.value;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (running) running.abort();
  else start();
});
form.addEventListener("input", arrange);
form.strength.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(start, 150);
});
form.model.addEventListener("change", async () => { await choose(); await own(); });
part("own").addEventListener("click", own);
part("clear").addEventListener("click", () => mask.clear());
part("clean").addEventListener("change", () => player.at(Number(part("time").value)));
part("file").addEventListener("change", () => {
  const [file] = part("file").files, reader = new FileReader();
  if (!file) return;
  if (file.size > MOST) return problem(`${file.name} has more than ${MOST / 1e6} MB; save it with a smaller quality or size`);
  reader.addEventListener("load", () => open(file.name, reader.result));
  reader.readAsDataURL(file);
});
copies();
restore(form);
arrange();
await choose();
restore(form);
await own();
