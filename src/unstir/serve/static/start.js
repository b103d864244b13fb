// The first page: ten images on their way from noise, as they are computed.
import { Player, compute, part, problem, remember, restore } from "./unstir.js";
import { paint } from "./paint.js";

const form = part("settings");
let shape = [], control = null;

const player = new Player((frame) => {
  for (const name of ["x", "x0"]) paint(part(name), frame[name], shape, 10);
  return frame.t ? `t = ${frame.t}` : "t = 0, the images";
}, 200);

async function open() {
  control?.abort();
  const { signal } = (control = new AbortController());
  player.clear();
  remember(form);
  for (const link of document.querySelectorAll("nav.cards a")) link.hash = location.hash;
  try {
    await compute("opening", { model: form.model.value }, (line) => {
      if (line.shape) shape = line.shape;
      else player.add(line);
    }, signal);
  } catch (error) {
    problem(error);
  }
}

form.addEventListener("change", open);
restore(form);
open();
