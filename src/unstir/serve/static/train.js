// The page Train: the files of a run, read again every two seconds, and nothing else of its training.
import { Player, ask, computes, copies, part, problem, remember, restore } from "./unstir.js";
import { curves } from "./paint.js";

const short = new Intl.NumberFormat("en", { notation: "compact" });
const form = part("settings"), fresh = part("new"), number = (value) => value?.toLocaleString("en") ?? "not known yet";
let stamp = "", run = "";

const player = new Player((snapshot) => {
  snapshot.answer ??= ask("snapshot", { model: run, step: snapshot.step });
  const shown = ({ picture }) => { if (player.frames[Number(player.slider.value)] === snapshot) part("grid").src = picture; };
  snapshot.answer.then(shown, problem);
  return `after ${number(snapshot.images)} images`;
}, 500);

/** Draw the curves of the logarithm of the loss by images seen. */
function draw({ train, held_out }) {
  const log = (points) => points.filter(([, loss]) => loss > 0).map(([images, loss]) => [images, Math.log10(loss)]);
  const last = [...train, ...held_out].map(([images]) => images), lines = { a: log(train), b: log(held_out) };
  curves(part("chart"), Math.max(...last, 1), lines, { x: short.format, y: (value) => (10 ** value).toPrecision(2) });
}

function show(answer) {
  part("step").textContent = `${number(answer.step)} of ${number(answer.length)}`;
  part("loss").textContent = answer.loss?.toPrecision(3) ?? "not known yet";
  part("speed").textContent = number(answer.images_per_second);
  part("left").textContent = answer.left;
  part("goes").hidden = answer.step >= answer.length;
  part("goes").querySelector("code").textContent = answer.command;
  draw(answer);
  part("grids").hidden = !answer.snapshots.length;
  for (const snapshot of answer.snapshots) if (!player.frames.some(({ step }) => step === snapshot.step)) player.add(snapshot);
}

async function look() {
  const asked = run;
  try {
    const answer = await ask("training", { model: run, stamp });
    if (asked !== run) return; // another was chosen meanwhile
    if (answer.snapshots) show(answer);
    stamp = answer.stamp;
    part("written").textContent = answer.written;
  } catch (error) {
    problem(error);
  }
}

function choose() {
  run = form.model.value;
  stamp = "";
  player.clear();
  part("chart").replaceChildren();
  problem("");
  part("grid").removeAttribute("src");
  part("page").hidden = true;
  remember(form);
  look();
}

/** Runs that began since the page was opened are offered too. */
async function models() {
  const { models } = await ask("models"), known = new Set([...form.model.options].map(({ value }) => value));
  for (const { id } of models) if (!known.has(id)) form.model.append(new Option(id));
}

const start = () => { part("command").textContent = `unstir train ${fresh.recipe.value} --out runs/${fresh.folder.value}`; };

computes(form, "report", () => ({ model: run }), () => { part("page").hidden = true; }, ({ address }) => {
  part("page").href = address;
  part("page").hidden = !address;
});
form.model.addEventListener("change", choose);
form.model.addEventListener("focus", models);
fresh.addEventListener("input", start);
fresh.addEventListener("submit", (event) => event.preventDefault());
copies();
start();
await models();
if (!restore(form)) form.model.selectedIndex = form.model.length - 1;
choose();
setInterval(look, 2000);
