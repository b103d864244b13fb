// The page Edit: a picture, a hole painted in it, and the answers of the model as they are computed.
import { Mask } from "./mask.js";
import { Player, content, fill, opens, part, picks, problem, runner, settings } from "./unstir.js";

const form = part("settings"), results = part("results"), photo = part("photo"), files = part("command-files");
const run = runner(form, start);
let timer = 0, picture = null; // {name, url}: the file that is edited

const player = new Player((frame) => { part("x").src = part("clean").checked ? frame.x0 : frame.x; });
const mask = new Mask(part("mask"), part("box"), part("brush"), part("erase"), (text) => { part("where-box").textContent = text; });

/** What depends on the model: its classes, and the sides of its images. */
function choose({ guidable, labels, shape }) {
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
  part("x").removeAttribute("src");
  picture = null;
  const opened = await run("preview", { model: form.model.value, picture: content(url) }, ({ shown, notes }) => {
    part("picture").src = shown;
    part("notes").textContent = notes.length ? `Note: ${notes.join("; ")}.` : "";
  });
  if (!opened) return;
  picture = { name, url };
  Object.assign(part("file-picture"), { href: url, download: name, textContent: name });
  part("status").textContent = "";
}

/** Let the model draw the picture. */
async function draw() {
  const { model, seed, label } = settings(form);
  let url = "";
  part("file").value = "";
  const drawn = await run("drawn", { model, seed, label }, (line) => { url = part("picture").src = line.picture ?? line.x; });
  if (drawn) await open("drawn.png", url);
}

function start() {
  if (!picture) return problem("Open a picture first, or draw one.");
  const { edit, ...given } = settings(form), { name, url } = picture, file = { picture: content(url) };
  if (edit === "inpaint" && !mask.pixels().some(Boolean)) return problem("Paint the hole first, or use the keys.");
  if (edit === "inpaint") file.mask = content(part("file-mask").href = mask.url());
  clear();
  return run(edit, { ...given, ...file, name }, (line) => {
    if (line.command) part("command").textContent = line.command;
    if (line.x) player.add(line);
    if (!line.results) return;
    results.append(...line.results.map((result, number) => answer(result, number, file)));
    part("sheet").href = line.sheet;
    part("cost").textContent = line.cost;
    files.hidden = false;
  });
}

/** An answer, which may be put back into the picture of the ``file`` where a mask of it was filled in. */
function answer(url, number, file) {
  const item = part("answer").content.cloneNode(true), [image, link, button] = item.querySelectorAll("img, a, button");
  Object.assign(image, { src: url, alt: `Answer ${number}` });
  Object.assign(link, { href: url, download: `answer-${number}.png` });
  button.hidden = !file.mask;
  button.setAttribute("aria-label", `Put it back: answer ${number} into the picture at its own size`);
  button.addEventListener("click", () => run("paste", { model: form.model.value, ...file, result: content(url) }, (line) => {
    photo.querySelector("img").src = photo.querySelector("a").href = line.photo;
    part("size").textContent = `${line.size.join(" x ")} pixels`;
    photo.hidden = false;
  }));
  return item;
}

function arrange() {
  for (const element of document.querySelectorAll("[data-edit]")) element.hidden = element.dataset.edit !== form.edit.value;
}

form.addEventListener("input", ({ target }) => {
  arrange();
  clearTimeout(timer);
  if (target === form.strength) timer = setTimeout(start, 150);
});
part("own").addEventListener("click", draw);
part("clear").addEventListener("click", () => mask.fill(0, 0, part("mask").width, part("mask").height, true));
part("clean").addEventListener("change", () => player.at(Number(part("time").value)));
picks(part("file"), open);
opens(form, choose, () => { arrange(); draw(); });
