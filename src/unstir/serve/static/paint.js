// What pages draw: pixels on a canvas, curves, arrows and bars as SVG. Colours are the style's, by class.
import { make } from "./unstir.js";

/** Draw images [C, count, H, W], bytes as base64, in rows of five with a pixel between them. */
export function paint(canvas, text, [channels, h, w], count = 1) {
  const values = atob(text), columns = Math.min(count, 5), size = h * w, area = count * size;
  canvas.width = columns * (w + 1) - 1;
  canvas.height = Math.ceil(count / columns) * (h + 1) - 1;
  const context = canvas.getContext("2d"), picture = context.createImageData(canvas.width, canvas.height);
  for (let i = 0; i < area; i++) {
    const image = Math.floor(i / size), y = Math.floor(image / columns) * (h + 1) + (Math.floor(i / w) % h);
    const at = 4 * (y * canvas.width + (image % columns) * (w + 1) + (i % w));
    for (let channel = 0; channel < 3; channel++)
      picture.data[at + channel] = values.charCodeAt((channels === 1 ? 0 : channel * area) + i);
    picture.data[at + 3] = 255;
  }
  context.putImageData(picture, 0, 0);
}

function element(name, values, text = "") {
  const created = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(values)) created.setAttribute(key, value);
  created.textContent = text;
  return created;
}

const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP] = [320, 200, 38, 22, 8];

/**
 * Draw curves {class: [[t, value], ...]} for t in 0..T, and return the function that marks a time.
 * ``names`` says how numbers of both axes are written.
 */
export function curves(svg, T, lines, names = { x: String, y: (value) => Number(value.toPrecision(2)) }) {
  const values = Object.values(lines).flat().map(([, value]) => value);
  const low = Math.min(...values, 0), high = Math.max(...values, low + 1e-9);
  const x = (t) => LEFT + ((WIDTH - LEFT - 6) * t) / T, y = (value) => TOP + ((HEIGHT - TOP - BOTTOM) * (high - value)) / (high - low);
  const marked = Math.min(y(low) - y(0), y(0) - y(high)) > 12 ? [low, 0, high] : [low, high]; // 12: the height of a number
  svg.replaceChildren();
  for (const value of marked) {
    svg.append(element("line", { x1: LEFT, x2: WIDTH - 6, y1: y(value), y2: y(value) }));
    svg.append(element("text", { x: LEFT - 5, y: y(value) + 4, "text-anchor": "end" }, names.y(value)));
  }
  for (const [t, anchor] of [[0, "start"], [T / 2, "middle"], [T, "end"]]) svg.append(element("text", { x: x(t), y: HEIGHT - 6, "text-anchor": anchor }, names.x(t)));
  for (const [name, points] of Object.entries(lines))
    svg.append(element("polyline", { class: name, points: points.map(([t, value]) => `${x(t).toFixed(1)},${y(value).toFixed(1)}`).join(" ") }));
  const marker = element("line", { class: "marker", y1: TOP, y2: HEIGHT - BOTTOM });
  svg.append(marker);
  return (t) => { for (const end of ["x1", "x2"]) marker.setAttribute(end, x(t)); };
}

/** Draw arrows {class: [x, y]} from one point, x_t, as large as they fit. */
export function arrows(svg, named) {
  const [right, top] = [0, 1].map((axis) => Math.max(...Object.values(named).map((end) => end[axis]), 1e-6));
  const scale = Math.min((WIDTH - 24) / right, (HEIGHT - 48) / top), [left, low] = [12, HEIGHT - 24];
  svg.replaceChildren(element("circle", { cx: left, cy: low, r: 3 }), element("text", { x: left - 6, y: HEIGHT - 6 }, "x_t"));
  for (const [name, [across, up]] of Object.entries(named)) {
    const x = left + scale * across, y = low - scale * up, angle = Math.atan2(up, across);
    const barb = (turn) => `${x - 9 * Math.cos(angle + turn)},${y + 9 * Math.sin(angle + turn)}`;
    svg.append(element("line", { class: name, x1: left, y1: low, x2: x, y2: y }));
    svg.append(element("polyline", { class: name, points: `${barb(0.4)} ${x},${y} ${barb(-0.4)}` }));
  }
}

/** Fill a fieldset with the images [value, name, pixels] to choose from, first the first; one without pixels is its name. */
export function thumbnails(box, images, shape, name) {
  const choice = ([value, ariaLabel, pixels], i) => {
    const image = make(pixels ? "canvas" : "span", { textContent: ariaLabel });
    if (pixels) paint(image, pixels, shape);
    return make("label", {}, make("input", { type: "radio", name, value, checked: !i, ariaLabel }), image);
  };
  box.replaceChildren(box.querySelector("legend"), ...images.map(choice));
}

/** Show the probabilities of named classes as bars with their numbers. */
export function bars(box, names, values) {
  const meter = (i) => make("meter", { max: 1, value: values[i], ariaLabel: `class ${names[i]}` });
  box.replaceChildren(...names.map((name, i) => make("div", {}, meter(i), `${name}: ${Math.round(100 * values[i])}%`)));
}
