// A chart of losses by images seen, on a logarithmic axis. Colours and widths are the style's, by the class of a curve.

const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT, TICKS] = [560, 260, 58, 30, 8, 20, 4];

/** An SVG element with these attributes. */
export function element(name, values, text = "") {
  const created = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(values)) created.setAttribute(key, value);
  created.textContent = text;
  return created;
}
