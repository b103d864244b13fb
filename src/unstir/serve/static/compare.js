// The page Compare: a row of images for each sampler, number of steps and snapshot that are chosen, all from one noise.
import { computes, opens, part, settings } from "./unstir.js";

const form = part("settings"), rows = part("rows");
const USUAL = ["ancestral", "ddim", "dpmpp_2m", "unipc", "consistency"];

function boxes(name, values, chosen) {
  const box = (value) => {
    const label = document.createElement("label"), input = document.createElement("input");
    Object.assign(input, { type: "checkbox", name, value, checked: chosen.includes(value) });
    label.append(input, ` ${value}`);
    return label;
  };
  part(name).replaceChildren(part(name).querySelector("legend"), ...values.map(box));
}

function choose({ samplers, steps }) {
  boxes("samplers", samplers, USUAL);
  boxes("snapshots", steps, steps.slice(-1));
}

function values() {
  const chosen = new FormData(form), several = chosen.get("several").split(",").map(Number);
  const all = chosen.getAll("samplers").flatMap((sampler) => several.map((steps) => ({ sampler, steps })));
  return { ...settings(form), rows: all, snapshots: chosen.getAll("snapshots").map(Number) };
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

opens(form, choose, computes(form, "compare", values, () => rows.replaceChildren(), take));
