// A mask that is painted in pixels of the model's images: by mouse, pen and finger, or by a box that keys move.

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const PAINTS = { Enter: "filled in", " ": "filled in", Delete: "taken out", Backspace: "taken out" };

export class Mask {
  /** ``frame`` is the element of the box, ``brush`` and ``erase`` are inputs, ``say(text)`` tells where the box is. */
  constructor(canvas, frame, brush, erase, say) {
    Object.assign(this, { canvas, frame, brush, erase, say, context: canvas.getContext("2d", { willReadFrequently: true }) });
    canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); this.stroke(event); });
    canvas.addEventListener("pointermove", (event) => { if (event.buttons) this.stroke(event); });
    canvas.addEventListener("pointerup", () => { this.last = null; });
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("focus", () => this.show(canvas.matches(":focus-visible")));
    canvas.addEventListener("blur", () => this.show(false));
  }

  /** An empty mask of these sides, with the box in the lower half. */
  resize(width, height) {
    const [wide, high] = [Math.ceil(width / 2), Math.ceil(height / 4)];
    Object.assign(this.canvas, { width, height });
    this.box = { x: Math.floor((width - wide) / 2), y: Math.floor(height / 2), wide, high };
    this.last = null;
  }

  /** Whether each pixel is painted. */
  pixels() {
    const { data } = this.context.getImageData(0, 0, this.canvas.width, this.canvas.height);
    return Array.from({ length: data.length / 4 }, (_, i) => data[4 * i + 3] > 0);
  }

  /** Paint or erase a rectangle of whole pixels. */
  fill(x, y, wide, high, erases) {
    this.context.fillStyle = "#f33";
    this.context[erases ? "clearRect" : "fillRect"](x, y, wide, high);
  }

  /** Paint from the place before to that of the pointer. */
  stroke({ clientX, clientY }) {
    const { left, top, width } = this.canvas.getBoundingClientRect(), size = Number(this.brush.value);
    const scale = this.canvas.width / width, to = [(clientX - left) * scale, (clientY - top) * scale], from = this.last ?? to;
    const count = Math.ceil(Math.hypot(to[0] - from[0], to[1] - from[1])) || 1;
    for (let i = 1; i <= count; i++) {
      const [x, y] = [0, 1].map((axis) => Math.round(from[axis] + ((to[axis] - from[axis]) * i) / count - size / 2));
      this.fill(x, y, size, size, this.erase.checked);
    }
    this.last = to;
  }

  key(event) {
    const { box, canvas } = this, [dx, dy] = STEPS[event.key] ?? [0, 0], paints = PAINTS[event.key];
    if (!dx && !dy && !paints) return;
    const within = (value, least, most) => Math.min(Math.max(value, least), most), { shiftKey } = event;
    box.wide = within(box.wide + (shiftKey ? dx : 0), 1, canvas.width);
    box.high = within(box.high + (shiftKey ? dy : 0), 1, canvas.height);
    box.x = within(box.x + (shiftKey ? 0 : dx), 0, canvas.width - box.wide);
    box.y = within(box.y + (shiftKey ? 0 : dy), 0, canvas.height - box.high);
    if (paints) this.fill(box.x, box.y, box.wide, box.high, paints === PAINTS.Delete);
    event.preventDefault();
    this.show(true, paints);
  }

  /** Show the box or hide it, and say where it is and what it ``did``. */
  show(visible, did = "") {
    const { x, y, wide, high } = this.box, { width, height } = this.canvas;
    const shares = { left: x / width, top: y / height, width: wide / width, height: high / height };
    for (const [side, share] of Object.entries(shares)) this.frame.style[side] = `${100 * share}%`;
    this.frame.hidden = !visible;
    this.say(visible ? `Box of ${wide} x ${high} pixels at ${x}, ${y} ${did}` : "");
  }
}
