// The page Compare: a row of images for each sampler, number of steps or snapshot, all from one noise.
import { computes, opens, part, settings } from "./unstir.js";

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

/** Begin with the usual samplers and at most five of the snapshots, the newest among them. */
function choose({ samplers, steps }) {
  const apart = Math.ceil(steps.length / 5);
  form.sampler.value = samplers.includes("consistency") ? "consistency" : "unipc";
  boxes("samplers", samplers, (name) => USUAL.includes(name));
  boxes("snapshots", steps, (step) => (steps.length - 1 - steps.indexOf(step)) % apart === 0);
}

/** Show the controls of what differs. */
function tell() {
  for (const each of form.querySelectorAll("[data-for]")) each.hidden = !each.dataset.for.includes(form.differs.value);
}

function values() {
  const chosen = new FormData(form), { sampler, steps, ...given } = settings(form);
  const rows = {
    samplers: () => ({ rows: chosen.getAll("samplers").map((name) => ({ sampler: name, steps })) }),
    steps: () => ({ rows: form.several.value.split(",").map((number) => ({ sampler, steps: Number(number) })) }),
    snapshots: () => ({ sampler, steps, snapshots: chosen.getAll("snapshots").map(Number) }),
  };
  return { ...given, ...rows[form.differs.value]() };
}

function take(line) {
  if (line.command) part("command").textContent = line.command;
  if (!line.images) return;
  const row = part("row").content.cloneNode(true), [name, image] = row.querySelectorAll("strong, img");
  name.textContent = line.title;
  name.after(`, ${line.cost}, ${line.seconds.toPrecision(2)} s per image`);
  Object.assign(image, { src: line.images, alt: `Images by ${line.title}` });
  rows.append(row);
}

const compare = computes(form, "compare", values, () => rows.replaceChildren(), take);
form.addEventListener("input", tell);
await opens(form, choose, () => { tell(); compare(); });
