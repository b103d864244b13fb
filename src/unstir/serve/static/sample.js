// The page Sample: frames as they are computed, then files.
import { Player, fill, offer, opens, part, runner, settings } from "./unstir.js";

const form = part("settings"), files = part("files"), run = runner(form, draw);

const player = new Player((frame) => ["x", "x0"].forEach((name) => { part(name).src = frame[name]; }));

async function choose(facts) {
  await offer(form, facts);
  fill(form.sampler, facts.samplers.map((name) => [name, name]));
  form.sampler.value = facts.chain.sampler;
  Object.assign(form.steps, { max: facts.T, value: facts.chain.steps });
}

function draw() {
  player.clear();
  files.hidden = true;
  return run("sample", settings(form), (line) => {
    if (line.x) player.add(line);
    if (line.files) for (const link of files.querySelectorAll("a")) link.href = line.files[link.download.split(".")[1]];
    files.hidden = !line.files;
  });
}

opens(form, choose, draw);
