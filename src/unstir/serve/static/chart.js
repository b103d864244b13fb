// A chart of losses by images seen, on a logarithmic axis. Colours and widths are the style's, by the class of a curve.

const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT] = [560, 260, 58, 30, 8, 12];

function element(name, values, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(values)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

/** Round numbers from 0 to ``most``, at most five. */
function round(most) {
  const size = 10 ** Math.floor(Math.log10(most));
  const step = [0.2, 0.5, 1, 2].map((factor) => factor * size).find((step) => most / step <= 5);
  return Array.from({ length: Math.floor(most / step) + 1 }, (_, i) => i * step);
}

/** Numbers 1, 2 and 5 of each decade between two, and both ends where there are fewer than two. */
function decades(low, high) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power++)
    for (const factor of [1, 2, 5]) ticks.push(Number(`${factor}e${power}`));
  const inside = ticks.filter((tick) => tick >= low && tick <= high);
  const shown = inside.length > 6 ? inside.filter((tick) => /^[^1-9]*1/.test(String(tick))) : inside;
  return shown.length > 1 ? shown : [low, ...shown, high];
}

const [MILLION, THOUSAND] = [1e6, 1e3], plain = (number) => String(Number(number.toPrecision(2)));
const short = (n) => (n >= MILLION ? `${plain(n / MILLION)} M` : n >= THOUSAND ? `${plain(n / THOUSAND)} k` : plain(n));

/** Draw curves {name: [[images, loss], ...]} into an <svg>; losses that are not above 0 are left out. */
export function chart(svg, curves) {
  const good = ([, loss]) => loss > 0;
  const kept = Object.entries(curves).map(([name, points]) => [name, points.filter(good)]);
  const points = kept.flatMap(([, points]) => points);
  svg.replaceChildren();
  if (!points.length) return svg.setAttribute("aria-label", "No loss was logged yet");
  const losses = points.map(([, loss]) => loss), most = Math.max(...points.map(([images]) => images), 1);
  const low = Math.min(...losses) / 1.05, high = Math.max(...losses) * 1.05;
  const x = (images) => LEFT + ((WIDTH - LEFT - RIGHT) * images) / most;
  const y = (loss) => TOP + ((HEIGHT - TOP - BOTTOM) * Math.log(high / loss)) / Math.log(high / low);
  for (const tick of decades(low, high)) {
    svg.append(element("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(tick), y2: y(tick) }));
    svg.append(element("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, short(tick)));
  }
  for (const tick of round(most)) svg.append(element("text", { x: x(tick), y: HEIGHT - 8, "text-anchor": "middle" }, short(tick)));
  for (const [name, points] of kept) {
    const path = points.map(([images, loss]) => `${x(images).toFixed(1)},${y(loss).toFixed(1)}`).join(" ");
    svg.append(element("polyline", { points: path, class: name }));
    if (points.length < 40) for (const [images, loss] of points) svg.append(element("circle", { cx: x(images), cy: y(loss), r: 3, class: name }));
  }
  const last = (points) => points[points.length - 1];
  const says = kept.filter(([, points]) => points.length).map(([name, points]) => `${name === "train" ? "training loss" : "loss of held-out images"} ${last(points)[1].toPrecision(3)}`);
  return svg.setAttribute("aria-label", `After ${last(points)[0].toLocaleString("en")} images: ${says.join(", ")}`);
}
