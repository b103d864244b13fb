// The page Sample: frames as they are computed, then files.
import { Player, ask, compute, copies, fill, part, problem, remember, restore } from "./unstir.js";

const form = part("settings"), status = part("status"), files = part("files");
let facts, running = null;

const player = new Player((frame) => {
  part("x").src = frame.x;
  part("x0").src = frame.x0;
});

function offer(name, visible) {
  form[name].closest("label").hidden = !visible;
}

/** What the model of the page can do decides which controls there are. */
async function choose() {
  facts = await ask("model", { model: form.model.value });
  fill(form.sampler, facts.samplers.map((name) => [name, name]));
  fill(form.label, [["", "each in turn"], ...facts.labels.map((name, i) => [i, name])]);
  form.steps.max = facts.T;
  offer("label", facts.labels.length);
  offer("condition", facts.condition?.length === 1);
  offer("guidance", facts.guidable);
}

function usual() {
  const distilled = facts.samplers.includes("consistency");
  form.sampler.value = distilled ? "consistency" : "unipc";
  form.steps.value = Math.min(distilled ? 2 : 20, facts.T);
  form.guidance.value = facts.chain.guidance;
}

function values() {
  const number = (name) => (form[name].value === "" || form[name].closest("[hidden]") ? null : Number(form[name].value));
  const condition = form.condition.closest("[hidden]") || !form.condition.value.trim() ? null : form.condition.value.split(",").map(Number);
  const numbers = Object.fromEntries(["steps", "seed", "num", "label", "guidance"].map((name) => [name, number(name)]));
  return { model: form.model.value, sampler: form.sampler.value, condition, ...numbers };
}

async function draw() {
  const began = performance.now(), control = new AbortController();
  running = control;
  problem("");
  remember(form);
  player.clear();
  files.hidden = true;
  part("draw").textContent = "Stop";
  status.textContent = "Waiting for the network.";
  let cost = "";
  const take = (line) => {
    if (line.command) { part("command").textContent = line.command; cost = line.cost; }
    if (line.x) player.add(line);
    if (line.job) status.textContent = `Step ${line.done} of ${line.total}.`;
    if (line.files) for (const link of files.querySelectorAll("a")) link.href = line.files[link.download.split(".")[1]];
  };
  try {
    await compute("sample", values(), take, control.signal);
    files.hidden = false;
    status.textContent = `Drawn in ${((performance.now() - began) / 1000).toFixed(1)} seconds: ${cost}.`;
  } catch (error) {
    problem(error);
    status.textContent = control.signal.aborted ? "Stopped." : "";
  }
  running = null;
  part("draw").textContent = "Draw";
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (running) running.abort();
  else draw();
});
form.addEventListener("input", () => { part("scale").textContent = form.guidance.value; });
form.model.addEventListener("change", async () => { await choose(); usual(); });
copies();
restore(form);
await choose();
usual();
restore(form);
part("scale").textContent = form.guidance.value;
draw();
