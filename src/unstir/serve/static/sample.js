// The page Sample: frames as they are computed, then files.
import { Player, atTime, computes, opens, part, settings } from "./unstir.js";

const form = part("settings"), files = part("files");

const player = new Player((frame) => {
  part("x").src = frame.x;
  part("x0").src = frame.x0;
  return atTime(frame.t);
});

/** Begin with few steps. */
function choose(facts) {
  const distilled = facts.samplers.includes("consistency");
  form.sampler.value = distilled ? "consistency" : "unipc";
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

opens(form, choose, computes(form, "sample", () => settings(form), begin, take));
