// A mask that is painted in pixels of the model's images: by mouse, pen and finger, or by a box that keys move.

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Mask {
  /** ``tools`` is {brush, erase}, inputs; ``say(text)`` tells where the box is; ``changed()`` is called after painting. */
  constructor(canvas, frame, tools, say, changed) {
    Object.assign(this, { canvas, frame, tools, say, changed });
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); this.stroke(event); });
    canvas.addEventListener("pointermove", (event) => { if (event.buttons) this.stroke(event); });
    canvas.addEventListener("pointerup", () => { this.last = null; changed(); });
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("focus", () => this.show(canvas.matches(":focus-visible")));
    canvas.addEventListener("blur", () => this.show(false));
  }

  /** An empty mask of these sides, with the box in the lower half. */
  resize(width, height) {
    [this.canvas.width, this.canvas.height, this.last] = [width, height, null];
    const [wide, high] = [Math.ceil(width / 2), Math.ceil(height / 4)];
    this.box = { x: Math.floor((width - wide) / 2), y: Math.floor(height / 2), wide, high };
  }

  clear() {
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
  }

  get isEmpty() {
    return !this.pixels().some(Boolean);
  }

  /** Whether each pixel is painted. */
  pixels() {
    const { data } = this.context.getImageData(0, 0, this.canvas.width, this.canvas.height);
    return Array.from({ length: data.length / 4 }, (_, i) => data[4 * i + 3] > 0);
  }

  /** The mask as the address of a PNG, white where it is painted, black elsewhere. */
  url() {
    const { width, height } = this.canvas, file = Object.assign(document.createElement("canvas"), { width, height });
    const context = file.getContext("2d"), picture = context.createImageData(width, height);
    this.pixels().forEach((painted, i) => picture.data.set([...Array(3).fill(painted ? 255 : 0), 255], 4 * i));
    context.putImageData(picture, 0, 0);
    return file.toDataURL("image/png");
  }

  /** Paint or erase a rectangle of whole pixels. */
  fill(x, y, wide, high, erases = this.tools.erase.checked) {
    this.context.fillStyle = "#f33";
    this.context[erases ? "clearRect" : "fillRect"](x, y, wide, high);
  }

  /** Paint from the place before to that of the pointer. */
  stroke(event) {
    const { left, top, width, height } = this.canvas.getBoundingClientRect(), size = Number(this.tools.brush.value);
    const x = ((event.clientX - left) / width) * this.canvas.width, y = ((event.clientY - top) / height) * this.canvas.height;
    const from = this.last ?? { x, y }, count = Math.ceil(Math.hypot(x - from.x, y - from.y)) || 1;
    for (let i = 1; i <= count; i++) {
      const at = (a, b) => Math.round(a + ((b - a) * i) / count - size / 2);
      this.fill(at(from.x, x), at(from.y, y), size, size);
    }
    this.last = { x, y };
  }

  key(event) {
    const { box, canvas } = this, [dx, dy] = STEPS[event.key] ?? [0, 0];
    if (event.shiftKey) [box.wide, box.high] = [box.wide + dx, box.high + dy];
    else [box.x, box.y] = [box.x + dx, box.y + dy];
    box.wide = Math.min(Math.max(box.wide, 1), canvas.width);
    box.high = Math.min(Math.max(box.high, 1), canvas.height);
    box.x = Math.min(Math.max(box.x, 0), canvas.width - box.wide);
    box.y = Math.min(Math.max(box.y, 0), canvas.height - box.high);
    const paints = event.key === "Enter" || event.key === " ", erases = event.key === "Delete" || event.key === "Backspace";
    if (paints || erases) {
      this.fill(box.x, box.y, box.wide, box.high, erases);
      this.changed();
    }
    if (!dx && !dy && !paints && !erases) return;
    event.preventDefault();
    this.show(true, paints ? "filled in" : erases ? "taken out" : "");
  }

  /** Show the box or hide it, and say where it is. */
  show(visible, done = "") {
    const { x, y, wide, high } = this.box, percent = (part, whole) => `${(100 * part) / whole}%`;
    this.frame.hidden = !visible;
    Object.assign(this.frame.style, {
      left: percent(x, this.canvas.width), top: percent(y, this.canvas.height),
      width: percent(wide, this.canvas.width), height: percent(high, this.canvas.height),
    });
    this.say(visible ? `Box of ${wide} x ${high} pixels at ${x}, ${y} ${done}` : "");
  }
}
