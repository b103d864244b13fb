// The page Train: the files of a run, read again every two seconds, and nothing else of its training.
import { Player, ask, part, problem, remember, restore, runner } from "./unstir.js";
import { curves } from "./paint.js";

const short = new Intl.NumberFormat("en", { notation: "compact" });
const form = part("settings"), fresh = part("new"), number = (value) => value?.toLocaleString("en") ?? "not known yet";
let stamp = "", model = ""; // of the run that is shown

const player = new Player((snapshot) => {
  snapshot.answer ??= ask("snapshot", { model, step: snapshot.step });
  const shown = ({ picture }) => { if (player.frames[Number(player.slider.value)] === snapshot) part("grid").src = picture; };
  snapshot.answer.then(shown, problem);
  return `after ${number(snapshot.images)} images`;
}, 500);

function show(answer) {
  part("step").textContent = `${number(answer.step)} of ${number(answer.length)}`;
  part("loss").textContent = answer.loss?.toPrecision(3) ?? "not known yet";
  part("speed").textContent = number(answer.images_per_second);
  part("left").textContent = answer.left;
  part("goes").querySelector("code").textContent = answer.command;
  curves(part("chart"), answer.images, answer.curves, { x: short.format, y: (logarithm) => (10 ** logarithm).toPrecision(2) });
  const among = (snapshots) => ({ step, drawn }) => snapshots.some((other) => other.step === step && other.drawn === drawn);
  if (!player.frames.every(among(answer.snapshots))) player.clear(); // they are of a run that was here before
  answer.snapshots.filter((snapshot) => !among(player.frames)(snapshot)).forEach((snapshot) => player.add(snapshot));
}

async function look() {
  models().catch(problem);
  const asked = model, answer = await ask("training", { model, stamp }).catch(problem);
  if (!answer || asked !== model) return; // it was refused, or another was chosen meanwhile
  if (answer.snapshots) show(answer);
  stamp = answer.stamp;
  part("written").textContent = answer.written;
  part("goes").hidden = answer.running || !part("goes").querySelector("code").textContent;
}

function choose() {
  model = form.model.value;
  stamp = "";
  player.clear();
  part("chart").replaceChildren();
  part("grid").removeAttribute("src");
  for (const number of document.querySelectorAll("dd, #status")) number.textContent = "";
  for (const other of ["page", "goes"]) part(other).hidden = true;
  problem("");
  remember(form);
  look();
}

/** Runs that began since the page was opened are offered too. */
async function models() {
  const { models: all } = await ask("models"), known = [...form.model.options].map(({ value }) => value);
  for (const { id } of all.filter((run) => !known.includes(run.id))) form.model.add(new Option(id));
}

const start = () => { part("command").textContent = `unstir train ${fresh.recipe.value} --out runs/${fresh.folder.value}`; };

const run = runner(form, () => {
  part("page").hidden = true;
  run("report", { model }, ({ address }) => Object.assign(part("page"), { href: address, hidden: !address }));
});
form.model.addEventListener("change", choose);
fresh.addEventListener("input", start);
fresh.addEventListener("submit", (event) => event.preventDefault());
start();
restore(form);
choose();
setInterval(look, 2000);
