// The page Train: the files of a run, read again every two seconds, and nothing else of its training.
import { Player, ask, compute, copies, part, problem, remember, restore } from "./unstir.js";
import { chart } from "./chart.js";

const form = part("settings"), fresh = part("new"), grids = new Map(), WAIT = 2000;
let stamp = "", run = "";

const player = new Player((snapshot) => {
  picture(snapshot);
  return `after ${snapshot.images.toLocaleString("en")} images`;
}, 500);

/** Show the grid of a snapshot, unless the slider has left it before it came. */
async function picture(snapshot) {
  if (!grids.has(snapshot.step)) grids.set(snapshot.step, ask("snapshot", { model: run, step: snapshot.step }));
  try {
    const { picture } = await grids.get(snapshot.step);
    if (player.frames[Number(player.slider.value)]?.step === snapshot.step) part("grid").src = picture;
  } catch (error) {
    problem(error);
  }
}

function show(answer) {
  part("step").textContent = `${answer.step.toLocaleString("en")} of ${answer.length.toLocaleString("en")}`;
  part("loss").textContent = answer.loss?.toPrecision(3) ?? "none yet";
  part("speed").textContent = answer.images_per_second?.toLocaleString("en") ?? "not known yet";
  part("left").textContent = answer.left || (answer.step < answer.length ? "not known yet" : "finished");
  part("goes").hidden = answer.step >= answer.length;
  part("goes").querySelector("code").textContent = answer.command;
  chart(part("chart"), { train: answer.train, held_out: answer.held_out });
  document.querySelector("span.held_out").hidden = !answer.held_out.length;
  part("grids").hidden = !answer.snapshots.length;
  const known = new Set(player.frames.map(({ step }) => step));
  for (const snapshot of answer.snapshots) if (!known.has(snapshot.step)) player.add(snapshot);
}

async function look() {
  const of = run;
  try {
    const answer = await ask("training", { model: of, stamp });
    if (of !== run) return; // another was chosen meanwhile
    if (answer.snapshots) show(answer);
    stamp = answer.stamp;
    part("written").textContent = answer.written ? `${answer.written} ago` : "nothing yet";
    problem("");
  } catch (error) {
    problem(error);
  }
}

function choose() {
  run = form.model.value;
  stamp = "";
  grids.clear();
  player.clear();
  chart(part("chart"), {});
  part("grid").removeAttribute("src");
  part("page").hidden = true;
  remember(form);
  look();
}

async function report() {
  part("status").textContent = "Writing the report.";
  try {
    await compute("report", { model: run }, ({ address }) => { if (address) part("page").href = address; });
    part("page").hidden = false;
  } catch (error) {
    problem(error);
  }
  part("status").textContent = "";
}

const start = () => { part("command").textContent = `unstir train ${fresh.recipe.value} --out runs/${fresh.folder.value}`; };

/** Runs that began since the page was opened are offered too. */
async function models() {
  const { models } = await ask("models"), known = new Set([...form.model.options].map(({ value }) => value));
  for (const { id } of models) if (!known.has(id)) form.model.append(new Option(id));
}

form.addEventListener("submit", (event) => event.preventDefault());
fresh.addEventListener("submit", (event) => event.preventDefault());
form.model.addEventListener("change", choose);
form.model.addEventListener("focus", models);
fresh.addEventListener("input", start);
part("report").addEventListener("click", report);
copies();
start();
await models();
if (!restore(form)) form.model.value = form.model.options[form.model.options.length - 1].value;
choose();
setInterval(look, WAIT);
