// The page Edit: a picture, a hole painted in it, and the answers of the model as they are computed.
import { Mask } from "./mask.js";
import { Player, fill, offer, opens, part, picks, problem, remember, runner, settings } from "./unstir.js";

const form = part("settings"), results = part("results"), photo = part("photo");
const run = runner(form, start), DRAWN = "drawn.png", hole = () => `hole:${form.model.value}`;
let timer = 0;

const player = new Player((frame) => { part("x").src = part("clean").checked ? frame.x0 : frame.x; });
const mask = new Mask(part("mask"), part("box"), part("brush"), part("erase"), (text) => { part("where-box").textContent = text; });

/** What depends on the model: what it can be told, its samplers, and the sides of its images, with the hole in them. */
async function choose(facts) {
  const { samplers, shape: [, height, width] } = facts;
  await offer(form, facts, facts.guidable ? [["", "not told"]] : []);
  fill(form.sampler, [["", "the model's own"], ...samplers.map((name) => [name, name])]);
  mask.resize(width, height);
  for (const [i, painted] of [...(sessionStorage.getItem(hole()) ?? "")].entries()) if (Number(painted)) mask.fill(i % width, Math.floor(i / width), 1, 1);
  if (form.elements.name.value === DRAWN) form.picture.value = ""; // by another model
}

function clear() {
  player.clear();
  results.replaceChildren();
  photo.hidden = true;
}

/** Show the part of a picture that is edited, of which the server has the file. */
async function open(name, id) {
  clear();
  for (const image of ["x", "picture"]) part(image).removeAttribute("src");
  part("notes").textContent = form.picture.value = "";
  const opened = await run("preview", { model: form.model.value, picture: id }, ({ shown, notes }) => {
    part("picture").src = shown;
    part("notes").textContent = notes.length ? `Note: ${notes.join("; ")}.` : "";
  });
  if (!opened) return;
  [form.picture.value, form.elements.name.value] = [id, name];
  remember(form);
  Object.assign(part("file-picture"), { href: `file/${id}`, download: name, textContent: name });
  part("status").textContent = "";
}

/** Let the model draw the picture. */
async function draw() {
  const { model, seed, label } = settings(form);
  let id = "";
  part("file").value = "";
  const drawn = await run("drawn", { model, seed, label }, ({ x, picture }) => (picture ? (id = picture) : (part("picture").src = x)));
  if (drawn) await open(DRAWN, id);
}

function start() {
  const { edit, ...given } = settings(form), painted = mask.pixels();
  if (!given.picture) return problem("Open a picture first, or draw one.");
  if (edit === "inpaint" && painted.every((first) => first === painted[0])) return problem("Paint the hole first, or use the keys.");
  if (edit === "inpaint") given.mask = part("file-mask").href = part("mask").toDataURL();
  clear();
  return run(edit, given, (line) => {
    if (line.x) player.add(line);
    if (!line.results) return;
    results.append(...line.results.map((result, number) => answer(result, number, given)));
    part("sheet").href = line.sheet;
    part("cost").textContent = line.cost;
  });
}

/** An answer, which may be put back into the picture where a mask of it was filled in. */
function answer(url, number, { model, picture, mask }) {
  const item = part("answer").content.cloneNode(true), [image, link, button] = item.querySelectorAll("img, a, button");
  Object.assign(image, { src: url, alt: `Answer ${number}` });
  Object.assign(link, { href: url, download: `answer-${number}.png` });
  button.hidden = !mask;
  button.setAttribute("aria-label", `Put it back: answer ${number} into the picture at its own size`);
  button.addEventListener("click", () => run("paste", { model, picture, mask, result: url }, (line) => {
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
addEventListener("pagehide", () => sessionStorage.setItem(hole(), mask.pixels().map(Number).join("")));
opens(form, choose, () => {
  arrange();
  if (form.picture.value) open(form.elements.name.value, form.picture.value);
  else draw();
});
