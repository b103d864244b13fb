// The page Sample: frames as they are computed, then files.
import { Player, adapt, atTime, computes, copies, part, restore, settings } from "./unstir.js";

const form = part("settings"), files = part("files");

const player = new Player((frame) => {
  part("x").src = frame.x;
  part("x0").src = frame.x0;
  return atTime(frame.t);
});

/** Offer what the model can do, and begin with few steps. */
async function choose() {
  const facts = await adapt(form), distilled = facts.samplers.includes("consistency");
  form.sampler.value = distilled ? "consistency" : "unipc";
  form.steps.value = Math.min(distilled ? 2 : 20, facts.T);
  tell();
}

const tell = () => { part("scale").textContent = form.guidance.value; };

function begin() {
  player.clear();
  files.hidden = true;
}

function take(line) {
  if (line.command) part("command").textContent = line.command;
  if (line.x) player.add(line);
  if (line.files) for (const link of files.querySelectorAll("a")) link.href = line.files[link.download.split(".")[1]];
  files.hidden = !line.files;
}

const draw = computes(form, "sample", () => settings(form), begin, take);
form.addEventListener("input", tell);
form.model.addEventListener("change", async () => { await choose(); draw(); });
copies();
restore(form);
await choose();
restore(form);
tell();
draw();
