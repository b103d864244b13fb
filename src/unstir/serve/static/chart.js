// A chart of losses by images seen, on a logarithmic axis. Colours and widths are the style's, by the class of a curve.

const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT, TICKS] = [560, 260, 58, 30, 8, 20, 4];

/** An SVG element with these attributes. */
export function element(name, values, text = "") {
  const created = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(values)) created.setAttribute(key, value);
  created.textContent = text;
  return created;
}

const plain = (number) => String(Number(number.toPrecision(2)));
const short = (n) => (n >= 1e6 ? `${plain(n / 1e6)} M` : n >= 1e3 ? `${plain(n / 1e3)} k` : plain(n));

/** Draw curves [class, name, [[images, loss], ...]] into an <svg>; losses that are not above 0 are left out. */
export function chart(svg, curves) {
  const kept = curves.map(([type, name, points]) => [type, name, points.filter(([, loss]) => loss > 0)]);
  const points = kept.flatMap(([, , points]) => points), losses = points.map(([, loss]) => loss);
  svg.replaceChildren();
  svg.setAttribute("aria-label", "No loss was logged yet");
  if (!points.length) return;
  const most = Math.max(...points.map(([images]) => images), 1);
  const low = Math.min(...losses) / 1.05, ratio = (Math.max(...losses) * 1.05) / low;
  const x = (images) => LEFT + ((WIDTH - LEFT - RIGHT) * images) / most;
  const y = (loss) => HEIGHT - BOTTOM - ((HEIGHT - TOP - BOTTOM) * Math.log(loss / low)) / Math.log(ratio);
  for (let i = 0; i <= TICKS; i++) {
    const loss = low * ratio ** (i / TICKS), images = (most * i) / TICKS;
    svg.append(element("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(loss), y2: y(loss) }));
    svg.append(element("text", { x: LEFT - 6, y: y(loss) + 4, "text-anchor": "end" }, plain(loss)));
    svg.append(element("text", { x: x(images), y: HEIGHT - 8, "text-anchor": "middle" }, short(images)));
  }
  const says = [];
  for (const [type, name, points] of kept.filter(([, , points]) => points.length)) {
    svg.append(element("polyline", { points: points.map(([images, loss]) => `${x(images)},${y(loss)}`).join(" "), class: type }));
    const [images, loss] = points[points.length - 1];
    svg.append(element("circle", { cx: x(images), cy: y(loss), r: 3, class: type }));
    says.push(`${name} ${loss.toPrecision(3)} after ${images.toLocaleString("en")} images`);
  }
  svg.setAttribute("aria-label", says.join("; "));
}
