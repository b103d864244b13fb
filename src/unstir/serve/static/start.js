// The first page: ten images on their way from noise, as they are computed.
import { Player, part, restore, runner } from "./unstir.js";
import { paint } from "./paint.js";

const form = part("settings"), run = runner(form);
let shape = [];

const player = new Player((frame) => ["x", "x0"].forEach((name) => paint(part(name), frame[name], shape, 10)), 200);

function open() {
  player.clear();
  run("opening", { model: form.model.value }, (line) => (line.shape ? ({ shape } = line) : player.add(line)));
}

form.addEventListener("change", open);
restore(form);
open();
