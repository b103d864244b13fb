// The page Edit: a picture, a hole painted in it, and the answers of the model as they are computed.
import { Mask } from "./mask.js";
import { Player, ask, compute, copies, fill, part, problem, remember, restore } from "./unstir.js";

const MOST = 5_900_000; // bytes of a picture that fit into a call
const form = part("settings"), status = part("status"), results = part("results"), photo = part("photo"), files = part("command-files");
const content = (url) => url.slice(url.indexOf(",") + 1);
const numbers = (...names) => Object.fromEntries(names.filter((name) => form[name].value !== "").map((name) => [name, Number(form[name].value)]));
let running = null, timer = 0, picture = null; // {name, url}: the file that is edited

const player = new Player((frame) => {
  part("x").src = part("clean").checked ? frame.x0 : frame.x;
  return frame.t ? `t = ${frame.t}` : "t = 0, the images";
});
const mask = new Mask(part("mask"), part("box"), part("brush"), part("erase"), (text) => { part("where-box").textContent = text; });

/** Run a call in the place of one that runs; lines go to ``take``. Returns whether it came to its end. */
async function run(name, values, take) {
  const control = new AbortController(), shown = (line) => (line.job ? (status.textContent = `Call ${line.done} of ${line.total}.`) : take(line));
  running?.abort();
  running = control;
  problem("");
  part("start").textContent = "Stop";
  const failed = await compute(name, { model: form.model.value, ...values }, shown, control.signal).then(() => null, (error) => error);
  if (running !== control) return false;
  if (failed) status.textContent = control.signal.aborted ? "Stopped." : "";
  problem(failed ?? "");
  running = null;
  part("start").textContent = "Start";
  return !failed;
}

/** What depends on the model: its classes, and the sides of its images. */
async function choose() {
  const { guidable, labels, shape } = await ask("model", { model: form.model.value });
  fill(form.label, [...(guidable ? [["", "not told"]] : []), ...labels.map((name, i) => [i, name])]);
  form.label.closest("label").hidden = !labels.length;
  mask.resize(shape[2], shape[1]);
}

function clear() {
  player.clear();
  results.replaceChildren();
  photo.hidden = files.hidden = true;
}

/** Show the part of a picture that is edited. */
async function open(name, url) {
  clear();
  picture = null;
  const opened = await run("preview", { picture: content(url) }, ({ shown, notes }) => {
    part("picture").src = shown;
    part("notes").textContent = notes.length ? `Note: ${notes.join("; ")}.` : "";
  });
  if (!opened) return;
  picture = { name, url };
  Object.assign(part("file-picture"), { href: url, download: name, textContent: name });
  status.textContent = "";
}

/** Let the model draw the picture. */
async function draw() {
  let url = "";
  part("file").value = "";
  status.textContent = "Drawing a picture.";
  const drawn = await run("drawn", numbers("seed", "label"), (line) => { url = part("picture").src = line.picture ?? line.x; });
  if (drawn) await open("drawn.png", url);
}

async function start() {
  const fills = form.edit.value === "inpaint", began = performance.now(), { name, url } = picture ?? {}, hole = fills ? mask.url() : "";
  if (!picture) return problem("Open a picture first, or draw one.");
  if (fills && !mask.pixels().some(Boolean)) return problem("Paint the hole first, or use the keys.");
  remember(form);
  clear();
  status.textContent = "Waiting for the network.";
  const values = { picture: content(url), name, ...numbers("num", "seed", "steps", "label", fills ? "resamples" : "strength") };
  return run(form.edit.value, fills ? { ...values, mask: content(hole) } : values, (line) => {
    if (line.command) part("command").textContent = line.command;
    if (line.x) player.add(line);
    if (!line.results) return;
    line.results.forEach((result, number) => results.append(answer(result, number, fills && { picture: content(url), mask: content(hole) })));
    part("sheet").href = line.sheet;
    part("file-mask").href = hole;
    files.hidden = false;
    status.textContent = `Done in ${((performance.now() - began) / 1000).toFixed(1)} seconds: ${line.cost}.`;
  });
}

/** An answer, which may be put back into the picture that was ``filled`` in. */
function answer(url, number, filled) {
  const item = part("answer").content.cloneNode(true), [image, link, button] = item.querySelectorAll("img, a, button");
  Object.assign(image, { src: url, alt: `Answer ${number}` });
  Object.assign(link, { href: url, download: `answer-${number}.png` });
  button.hidden = !filled;
  button.setAttribute("aria-label", `Put it back: answer ${number} into the picture at its own size`);
  button.addEventListener("click", () => {
    status.textContent = "Putting it into the picture.";
    run("paste", { ...filled, result: content(url) }, (line) => {
      photo.querySelector("img").src = photo.querySelector("a").href = line.photo;
      photo.hidden = false;
      status.textContent = `The picture has ${line.size.join(" x ")} pixels.`;
    });
  });
  return item;
}

function arrange() {
  for (const each of document.querySelectorAll("[data-edit]")) each.hidden = each.dataset.edit !== form.edit.value;
  for (const each of form.querySelectorAll("[data-value]")) each.textContent = each.closest("label").control.value;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (running) running.abort();
  else start();
});
form.addEventListener("input", ({ target }) => {
  arrange();
  clearTimeout(timer);
  if (target === form.strength) timer = setTimeout(start, 150);
});
form.model.addEventListener("change", () => choose().then(draw, problem));
part("own").addEventListener("click", draw);
part("clear").addEventListener("click", () => mask.fill(0, 0, part("mask").width, part("mask").height, true));
part("clean").addEventListener("change", () => player.at(Number(part("time").value)));
part("file").addEventListener("change", () => {
  const [file] = part("file").files, reader = new FileReader();
  if (!file) return;
  if (file.size > MOST) return problem(`${file.name} has more than ${MOST / 1e6} MB; save it with a smaller quality or size.`);
  reader.addEventListener("load", () => open(file.name, reader.result));
  reader.readAsDataURL(file);
});
copies();
restore(form);
await choose().catch(problem);
restore(form);
arrange();
await draw();
