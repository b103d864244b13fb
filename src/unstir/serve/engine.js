"use strict";
// The U-Net of unstir/nn/unet.py and the steps of a chain, over typed arrays, in the page and in its worker.
// A map is {c, h, w, x}: the features of all images, x a Float32Array in the order [channel, image, row, column].
// A vector for each image (the time, a condition) is a map with h = w = 1, so that a linear layer is a 1x1 convolution.

const BLOCK = 64; // columns multiplied at once, so that they stay in the cache

function bytes(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

/** bfloat16, the upper half of a float32, as float32. */
function widened(stored) {
  const halves = new Uint16Array(stored.buffer), whole = new Uint32Array(halves.length);
  for (let i = 0; i < halves.length; i++) whole[i] = halves[i] << 16;
  return new Float32Array(whole.buffer);
}

/** SiLU of each value. */
const activated = (map) => ({ ...map, x: map.x.map((value) => value / (1 + Math.exp(-value))) });

const sum = (first, second) => ({ ...first, x: first.x.map((value, i) => value + second.x[i]) });

function joined(first, second) {
  const x = new Float32Array(first.x.length + second.x.length);
  x.set(first.x);
  x.set(second.x, first.x.length);
  return { ...first, c: first.c + second.c, x };
}

/** [rows, depth] as panels of four rows, [rows / 4, depth, 4], in doubles; rows beyond the last are zeros. */
function panelled(matrix, rows, depth) {
  const panels = new Float64Array(Math.ceil(rows / 4) * depth * 4);
  for (let row = 0; row < rows; row++)
    for (let k = 0; k < depth; k++) panels[((row >> 2) * depth + k) * 4 + (row & 3)] = matrix[row * depth + k];
  return panels;
}

/** The sums over k of a[k, r] b[k, j] of two panels that begin at ``a0`` and ``b0``: [r, j], 16 numbers. */
function product(a, a0, b, b0, depth) {
  let s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0;
  let s8 = 0, s9 = 0, s10 = 0, s11 = 0, s12 = 0, s13 = 0, s14 = 0, s15 = 0;
  for (let k = 0, p = a0, q = b0; k < depth; k++, p += 4, q += 4) {
    const w = a[p], x = a[p + 1], y = a[p + 2], z = a[p + 3], c = b[q], d = b[q + 1], e = b[q + 2], f = b[q + 3];
    s0 += w * c; s1 += w * d; s2 += w * e; s3 += w * f;
    s4 += x * c; s5 += x * d; s6 += x * e; s7 += x * f;
    s8 += y * c; s9 += y * d; s10 += y * e; s11 += y * f;
    s12 += z * c; s13 += z * d; s14 += z * e; s15 += z * f;
  }
  return [s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14, s15];
}

class Network {
  /** ``data`` as `unstir.serve.live.contents` writes it, ``stored`` the bytes of its weights. */
  constructor(data, stored) {
    this.config = data.config;
    this.num = data.num;
    this.tensors = new Map();
    this.cache = new Map();
    const values = widened(stored);
    let offset = 0;
    for (const [name, shape] of data.tensors) {
      const size = shape.reduce((product, side) => product * side, 1);
      this.tensors.set(name, { shape, values: values.subarray(offset, offset + size) });
      offset += size;
    }
  }

  /** What ``make`` makes, once for each key. */
  kept(key, make) {
    if (!this.cache.has(key)) this.cache.set(key, make());
    return this.cache.get(key);
  }

  /** F(x, t) of a map x of images: a map of out_channels. t is the network's time 0..T-1, ``condition`` as `draw`. */
  forward(x, t, condition) {
    const { mults, num_blocks, condition_channels } = this.config, last = mults.length - 1;
    const time = this.embedding(t, condition);
    let h = this.convolution(condition_channels ? joined(x, condition) : x, "input_conv");
    const skips = [h];
    for (let level = 0; level <= last; level++) {
      for (let n = 0; n < num_blocks; n++) skips.push((h = this.stage(`down.${level}`, n, h, time)));
      if (level < last) skips.push((h = this.downsampled(h, `down.${level}.resize.conv`)));
    }
    for (const n of [0, 1]) h = this.stage("middle", n, h, time);
    for (let level = 0; level <= last; level++) {
      for (let n = 0; n <= num_blocks; n++) h = this.stage(`up.${level}`, n, joined(h, skips.pop()), time);
      if (level < last) h = this.upsampled(h, skips[skips.length - 1], `up.${level}.resize`);
    }
    return this.convolution(activated(this.normalised(h, "output_norm")), "output_conv");
  }

  embedding(t, condition) {
    const { num_classes, condition_values, label_beside } = this.config;
    const perceptron = (map, first, second) => this.linear(activated(this.linear(map, first)), second);
    const waves = this.waves(t), time = this.vectors(waves.length, (channel) => waves[channel]);
    let known = perceptron(time, "time.first", "time.second");
    if (condition_values) known = sum(known, perceptron(condition, "vector.0", "vector.2"));
    if (num_classes) {
      const { shape: [, c], values } = this.tensors.get("label.weight");
      const label = this.vectors(c, (channel, image) => values[condition[image] * c + channel]);
      known = label_beside ? joined(known, label) : sum(known, label);
    }
    return activated(known);
  }

  /** The sines and cosines of t, rounded to float32 where `unstir.nn.blocks.sinusoids` rounds them. */
  waves(t) {
    const { channels, freq_shift, flip_sin_to_cos, time_table } = this.config, half = channels / 2, f = Math.fround;
    if (time_table) return this.tensors.get("time.table").values.subarray(t * channels, (t + 1) * channels);
    const rate = (i) => f(Math.exp(f(f(f(-Math.log(10000)) * i) / f(half - freq_shift))));
    const angles = Array.from({ length: half }, (_, i) => f(t * rate(i)));
    const parts = [angles.map(Math.sin), angles.map(Math.cos)];
    return (flip_sin_to_cos ? parts.reverse() : parts).flat();
  }

  /** The map of a vector of ``c`` numbers for each image. */
  vectors(c, value) {
    const at = (_, i) => value(Math.floor(i / this.num), i % this.num);
    return { c, h: 1, w: 1, x: Float32Array.from({ length: c * this.num }, at) };
  }

  stage(level, n, map, time) {
    const out = this.block(`${level}.blocks.${n}`, map, time), attention = `${level}.attentions.${n}`;
    return this.tensors.has(`${attention}.qkv.weight`) ? this.attention(attention, out) : out;
  }

  block(name, map, time) {
    let h = this.convolution(activated(this.normalised(map, `${name}.first_norm`)), `${name}.first_conv`);
    const shift = this.linear(time, `${name}.time`), area = this.num * h.h * h.w, size = h.h * h.w;
    const at = (i) => Math.floor(i / area) * this.num + (Math.floor(i / size) % this.num); // [channel, image]
    if (this.config.scale_shift) {
      h = this.normalised(h, `${name}.second_norm`);
      h.x = h.x.map((value, i) => value * (1 + shift.x[at(i)]) + shift.x[h.c * this.num + at(i)]);
    } else {
      h.x = h.x.map((value, i) => value + shift.x[at(i)]);
      h = this.normalised(h, `${name}.second_norm`);
    }
    const shortcut = this.tensors.has(`${name}.shortcut.weight`) ? this.linear(map, `${name}.shortcut`) : map;
    return sum(shortcut, this.convolution(activated(h), `${name}.second_conv`));
  }

  /** (x - mean) / sqrt(var + eps) weight + bias, over groups of channels of each image. */
  normalised({ c, h, w, x }, name) {
    const weight = this.tensors.get(`${name}.weight`).values, bias = this.tensors.get(`${name}.bias`).values;
    const width = c / this.config.groups, size = h * w, area = this.num * size, out = new Float32Array(x.length);
    for (let group = 0; group < c; group += width)
      for (let image = 0; image < this.num; image++) {
        let total = 0, squares = 0;
        const each = (visit) => { // of the group's features
          for (let ch = group; ch < group + width; ch++)
            for (let i = ch * area + image * size, end = i + size; i < end; i++) visit(i, ch);
        };
        each((i) => { total += x[i]; });
        const mean = total / (width * size);
        each((i) => { squares += (x[i] - mean) ** 2; });
        const scale = 1 / Math.sqrt(squares / (width * size) + this.config.norm_eps);
        each((i, ch) => { out[i] = (x[i] - mean) * scale * weight[ch] + bias[ch]; });
      }
    return { c, h, w, x: out };
  }

  /** x + linear(softmax(q k^T / sqrt(d)) v) over the positions of a map. */
  attention(name, map) {
    const { c, h, w } = map, size = h * w, area = this.num * size, { heads, head_channels } = this.config;
    const depth = head_channels || c / heads, qkv = this.linear(this.normalised(map, `${name}.norm`), `${name}.qkv`).x;
    const mixed = new Float32Array(map.x.length), row = new Float64Array(size);
    for (let first = 0; first < c; first += depth)
      for (let image = 0; image < this.num; image++) {
        const [q, k, v] = [0, 1, 2].map((part) => (part * c + first) * area + image * size);
        for (let i = 0; i < size; i++) {
          row.fill(0);
          for (let d = 0; d < depth; d++) {
            const factor = qkv[q + d * area + i] / Math.sqrt(depth);
            for (let j = 0; j < size; j++) row[j] += factor * qkv[k + d * area + j];
          }
          const most = row.reduce((a, b) => Math.max(a, b));
          let total = 0;
          for (let j = 0; j < size; j++) total += row[j] = Math.exp(row[j] - most);
          for (let d = 0; d < depth; d++) {
            let value = 0;
            for (let j = 0; j < size; j++) value += row[j] * qkv[v + d * area + j];
            mixed[(first + d) * area + image * size + i] = value / total;
          }
        }
      }
    return sum(map, this.linear({ ...map, x: mixed }, `${name}.out`));
  }

  linear(map, name) {
    return this.applied(map, name, this.table("same", map, 1, map.h, map.w, (_, y) => y));
  }

  convolution(map, name) {
    const from = (side, y, d) => this.edge(y + d - 1, side);
    return this.applied(map, name, this.table("around", map, 3, map.h, map.w, from));
  }

  downsampled(map, name) {
    const reach = this.config.layout === "ho" ? 1 : 2, before = this.config.downsample_padding * reach;
    const half = (side) => Math.max(side / 2, 1);
    const from = (side, y, d) => this.edge(side === 1 ? y + d - reach : 2 * y + d - before, side);
    return this.applied(map, name, this.table("down", map, 2 * reach + 1, half(map.h), half(map.w), from));
  }

  /** To the sides of the map ``like``: pixels repeated, or spread by a transposed 5x5 convolution, then a 3x3 one. */
  upsampled(map, like, name) {
    const spread = this.config.layout !== "ho", stride = (side, out) => (out > side ? 2 : 1);
    const doubled = (side, y, d, out) => Math.floor(this.edge(y + d - 1, out) / stride(side, out));
    const scattered = (side, y, d, out) => {
      const place = (y + 2 - d) / stride(side, out);
      return Number.isInteger(place) && place < side ? place : -1;
    };
    if (!spread) return this.applied(map, `${name}.conv`, this.table("up", map, 3, like.h, like.w, doubled));
    const wide = this.applied(map, `${name}.spread`, this.table("up", map, 5, like.h, like.w, scattered));
    return this.convolution(wide, `${name}.conv`);
  }

  /** Where a place beyond a side of so many pixels is read: -1 for a zero. */
  edge(place, side) {
    if (place >= 0 && place < side) return place;
    return this.config.padding === "circular" ? (place + side) % side : -1;
  }

  /** Which pixel each tap of each output pixel reads: source[tap, pixel], or -1. ``from`` says so for one side. */
  table(name, map, kernel, h, w, from) {
    const taps = kernel * kernel, source = () => Int32Array.from({ length: taps * h * w }, (_, i) => {
      const tap = Math.floor(i / (h * w)), y = Math.floor(i / w) % h;
      const row = from(map.h, y, Math.floor(tap / kernel), h), column = from(map.w, i % w, tap % kernel, w);
      return row < 0 || column < 0 ? -1 : row * map.w + column;
    });
    return { h, w, taps, source: this.kept(`${name} ${map.h} ${map.w}`, source) };
  }

  /** A convolution as products of panels: of weights [rows, depth] and of what the taps read [depth, columns]. */
  applied(map, name, table) {
    const { shape: [rows], values } = this.tensors.get(`${name}.weight`), bias = this.tensors.get(`${name}.bias`).values;
    const depth = values.length / rows, panels = this.kept(name, () => panelled(values, rows, depth));
    const columns = this.num * table.h * table.w;
    const out = new Float32Array(rows * columns), block = new Float64Array(BLOCK * depth);
    for (let first = 0; first < columns; first += BLOCK) {
      const count = Math.min(BLOCK, columns - first);
      this.gather(map, table, first, count, block);
      for (let row = 0; row < rows; row += 4)
        for (let column = 0; column < count; column += 4) {
          const tile = product(panels, row * depth, block, column * depth, depth);
          for (let r = 0; r < 4 && row + r < rows; r++)
            for (let j = 0; j < 4 && column + j < count; j++)
              out[(row + r) * columns + first + column + j] = tile[4 * r + j] + bias[row + r];
        }
    }
    return { c: rows, h: table.h, w: table.w, x: out };
  }

  /** What the taps read for so many columns from ``first`` on, as panels of four columns. */
  gather({ c, h, w, x }, { taps, source, ...to }, first, count, block) {
    const size = h * w, area = to.h * to.w, depth = c * taps;
    for (let j = 0; j < count; j++) {
      const image = Math.floor((first + j) / area), pixel = (first + j) % area;
      const base = (j >> 2) * depth * 4 + (j & 3);
      for (let tap = 0; tap < taps; tap++) {
        const place = source[tap * area + pixel];
        for (let ch = 0, i = image * size + place, to = base + 4 * tap; ch < c; ch++, i += this.num * size, to += 4 * taps)
          block[to] = place < 0 ? 0 : x[i];
      }
    }
  }
}

const MASK = (1n << 64n) - 1n, GOLDEN = 0x9e3779b97f4a7c15n;

function mix64(value) {
  value = ((value ^ (value >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK;
  value = ((value ^ (value >> 27n)) * 0x94d049bb133111ebn) & MASK;
  return value ^ (value >> 31n);
}

/** Standard normal numbers of images 0..num-1, as a map; the same as `unstir.randomness.normal` draws. */
function normal(seed, stream, step, num, [c, h, w]) {
  const base = mix64(mix64(mix64(BigInt(seed)) ^ BigInt(stream)) ^ BigInt(step));
  const x = new Float32Array(c * num * h * w), size = h * w, half = Math.ceil((c * size) / 2), f = Math.fround;
  for (let image = 0; image < num; image++) {
    const start = mix64((BigInt(image) * GOLDEN + base) & MASK), gamma = mix64(start ^ mix64(base)) | 1n;
    const set = (i, value) => { if (i < c * size) x[(Math.floor(i / size) * num + image) * size + (i % size)] = value; };
    for (let i = 0; i < half; i++) {
      const bits = mix64((start + BigInt(i + 1) * gamma) & MASK);
      const radius = f(Math.sqrt(f(-2 * f(Math.log(f(f(f(Number(bits & 0xffffffffn)) + 1) * 2 ** -32))))));
      const angle = f(f(Number(BigInt.asIntN(32, bits >> 32n))) * f(2 * Math.PI * 2 ** -32));
      set(i, radius * f(Math.cos(angle)));
      set(half + i, radius * f(Math.sin(angle)));
    }
  }
  return { c, h, w, x };
}

/** The sum of vectors that `unstir.serve.live.as_linear` describes, in doubles. */
function combined(terms, vectors) {
  return vectors[0].map((_, i) => terms.reduce((total, [place, factor]) => total + factor * vectors[place][i], 0));
}

// The frames {t, x, x0} of a chain, x and x0 Float32Array [C, num, H, W], each as soon as it is computed. ``condition``
// is a class for each image, or a map, and ``hidden`` what stands in its place where guidance hides it.
function* draw(network, data, { chain, seed, guidance, condition, hidden }) {
  const { calls, end, noise } = data.chains[chain], [c, h, w] = data.shape;
  const drawn = (stream, step) => normal(seed, data.streams[stream], step, data.num, data.shape).x;
  const vectors = [drawn("start", 0)];
  noise.forEach((t, i) => { vectors[calls.length + 1 + i] = drawn("sample", t); });
  for (const [number, { t, x: terms, skip, out }] of calls.entries()) {
    const x = combined(terms, vectors), estimate = (given) => {
      const raw = network.forward({ c, h, w, x }, t - 1, given).x;
      return x.map((value, i) => skip * value + out * raw[i]);
    };
    let x0 = estimate(condition);
    if (guidance !== 1) x0 = estimate(hidden).map((weak, i) => weak + guidance * (x0[i] - weak));
    vectors[number + 1] = x0.map((value) => Math.min(Math.max(value, -1), 1));
    yield { t, x, x0: vectors[number + 1] };
  }
  yield { t: 0, x: combined(end, vectors), x0: vectors[calls.length] };
}

/** Values about [-1, 1] as pixels [shown channels, num, H, W]. */
function pixels(data, x) {
  const size = data.num * data.shape[1] * data.shape[2];
  const parts = data.shown.flatMap((channel) => Array.from(x.subarray(channel * size, (channel + 1) * size)));
  return Uint8ClampedArray.from(parts, (value) => (value + 1) * 127.5);
}

/** What a worker does: the frames of a chain, their pixels in base64. */
function answer({ data: { data, weights, request } }) {
  const network = new Network(data, bytes(weights));
  const text = (x) => btoa(Array.from(pixels(data, x), (value) => String.fromCharCode(value)).join(""));
  for (const { t, x, x0 } of draw(network, data, request)) postMessage({ t, x: text(x), x0: text(x0) });
}
