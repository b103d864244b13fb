// The page Sample: frames as they are computed, then files.
import { Player, computes, fill, opens, part, settings } from "./unstir.js";

const form = part("settings"), files = part("files");

const player = new Player((frame) => {
  part("x").src = frame.x;
  part("x0").src = frame.x0;
});

/** Begin with few steps. */
function choose(facts) {
  const distilled = facts.samplers.includes("consistency");
  fill(form.sampler, facts.samplers.map((name) => [name, name]));
  form.sampler.value = distilled ? "consistency" : "unipc";
  form.steps.max = facts.T;
  form.steps.value = Math.min(distilled ? 2 : 20, facts.T);
}

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

const values = () => ({ ...settings(form), sampler: form.sampler.value });
opens(form, choose, computes(form, "sample", values, begin, take));
