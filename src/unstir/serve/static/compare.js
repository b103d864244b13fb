// The page Compare: a row of images for each sampler, number of steps or snapshot, all from one noise.
import { adapt, computes, copies, part, restore, settings } from "./unstir.js";

const form = part("settings"), rows = part("rows");
const USUAL = ["ancestral", "ddim", "dpmpp_2m", "unipc", "consistency"];

function boxes(id, values, chosen) {
  const box = (value) => {
    const label = document.createElement("label"), input = document.createElement("input");
    Object.assign(input, { type: "checkbox", name: id, value, checked: chosen(value) });
    label.append(input, ` ${value}`);
    return label;
  };
  part(id).replaceChildren(part(id).querySelector("legend"), ...values.map(box));
}

async function choose() {
  const facts = await adapt(form), apart = Math.ceil(facts.steps.length / 5);
  form.sampler.value = facts.samplers.includes("consistency") ? "consistency" : "unipc";
  boxes("samplers", facts.samplers, (name) => USUAL.includes(name));
  boxes("snapshots", facts.steps, (step) => (facts.steps.length - 1 - facts.steps.indexOf(step)) % apart === 0);
  tell();
}

/** Show the controls of what differs. */
function tell() {
  const differs = form.differs.value;
  for (const id of ["samplers", "snapshots"]) part(id).hidden = differs !== id;
  form.sampler.closest("label").hidden = differs === "samplers";
  form.steps.closest("label").hidden = differs === "steps";
  form.several.closest("label").hidden = differs !== "steps";
  part("scale").textContent = form.guidance.value;
}

function values() {
  const chosen = (name) => [...part(name).querySelectorAll(":checked")].map((box) => box.value);
  const { sampler, steps, ...given } = settings(form);
  const several = form.several.value.split(",").map(Number);
  return {
    samplers: () => ({ ...given, rows: chosen("samplers").map((name) => ({ sampler: name, steps })) }),
    steps: () => ({ ...given, rows: several.map((steps) => ({ sampler: form.sampler.value, steps })) }),
    snapshots: () => ({ ...given, sampler, steps, snapshots: chosen("snapshots").map(Number) }),
  }[form.differs.value]();
}

function take(line) {
  if (line.command) part("command").textContent = line.command;
  if (!line.images) return;
  const row = document.createElement("figure"), image = new Image(), text = document.createElement("figcaption");
  const name = document.createElement("strong");
  name.textContent = line.title;
  text.append(name, `, ${line.cost}, ${line.seconds.toPrecision(2)} s per image`);
  Object.assign(image, { src: line.images, alt: `Images by ${line.title}`, className: "picture row" });
  row.append(text, image);
  rows.append(row);
}

const compare = computes(form, "compare", values, () => rows.replaceChildren(), take);
form.addEventListener("input", tell);
form.model.addEventListener("change", async () => { await choose(); compare(); });
copies();
restore(form);
await choose();
restore(form);
tell();
compare();
