// The page Compare: a row of images for each sampler, number of steps and snapshot that are chosen, all from one noise.
import { make, offer, opens, part, runner, settings } from "./unstir.js";

const form = part("settings"), rows = part("rows"), run = runner(form, begin);

function boxes(name, values, chosen) {
  const input = (value) => make("input", { type: "checkbox", name, value, checked: chosen.includes(value) });
  const box = (value) => make("label", {}, input(value), ` ${value}`);
  part(name).replaceChildren(part(name).querySelector("legend"), ...values.map(box));
}

async function choose(facts) {
  await offer(form, facts);
  boxes("samplers", facts.samplers, facts.compared);
  if (facts.samplers.length === 1) form.several.value = facts.chain.steps; // a distilled run takes its own alone
  boxes("snapshots", facts.steps, facts.steps.slice(-1));
}

function begin() {
  const { several, samplers, snapshots, ...given } = settings(form), chosen = new FormData(form), steps = several.split(",");
  const pairs = chosen.getAll("samplers").flatMap((sampler) => steps.map((count) => ({ sampler, steps: Number(count) })));
  rows.replaceChildren();
  return run("compare", { ...given, rows: pairs, snapshots: chosen.getAll("snapshots").map(Number) }, (line) => {
    if (!line.images) return;
    const row = part("row").content.cloneNode(true), [name, image] = row.querySelectorAll("strong, img");
    name.textContent = line.title;
    name.after(`, ${line.cost}, ${line.seconds.toPrecision(2)} s per image`);
    Object.assign(image, { src: line.images, alt: `Images by ${line.title}` });
    rows.append(row);
  });
}

opens(form, choose, begin);
