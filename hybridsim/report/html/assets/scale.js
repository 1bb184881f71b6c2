// Axes: from figures to places on the drawing, and where the ticks stand.

function extent(values, log, withZero = true) {
  const found = values.filter((v) => v !== null && v !== undefined && Number.isFinite(v) && (!log || v > 0));
  if (!found.length) return log ? [1, 10] : [0, 1];
  let low = Math.min(...found), high = Math.max(...found);
  if (withZero && !log && low > 0 && low < 0.6 * high) low = 0;
  if (low === high) [low, high] = log ? [low / 2, high * 2] : [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
  return [low, high];
}

function padded([low, high], log, part) {
  if (log) {
    const factor = (high / low) ** part;
    return [low / factor, high * factor];
  }
  const more = (high - low) * part;
  return [low === 0 ? 0 : low - more, high + more];
}

class Scale {
  constructor(axis, domain, from, to) {
    this.axis = axis;
    this.domain = domain;
    this.from = from;
    this.to = to;
    this.turn = axis.log ? Math.log : (v) => v;
  }

  at(value) {
    const [low, high] = this.domain.map(this.turn);
    return this.from + ((this.turn(value) - low) / (high - low)) * (this.to - this.from);
  }

  ticks(most) {
    const found = this.axis.log ? this.logTicks(most) : this.evenTicks(most);
    const [low, high] = this.domain, slack = 1e-9;
    return found.filter((v) => v >= low - slack * Math.abs(low) && v <= high + slack * Math.abs(high));
  }

  logTicks(most) {
    const binary = ["tokens", "bytes"].includes(this.axis.kind), base = binary ? 2 : 10;
    const [low, high] = this.domain.map((v) => Math.log(v) / Math.log(base));
    if (!binary && high - low < 1.2) return this.evenTicks(most);
    const step = Math.max(1, Math.ceil((high - low) / most));
    const ticks = [];
    for (let power = Math.ceil(low - 1e-9); power <= high + 1e-9; power += step) ticks.push(base ** power);
    return ticks;
  }

  evenTicks(most) {
    const [low, high] = this.domain;
    const raw = (high - low) / Math.max(1, most), size = this.axis.kind === "bytes" ? 2 ** Math.floor(Math.log2(raw)) : 10 ** Math.floor(Math.log10(raw));
    const factor = (this.axis.kind === "bytes" ? [1, 2] : [1, 2, 5, 10]).find((f) => size * f >= raw) || 2;
    const step = this.axis.kind === "count" ? Math.max(1, Math.round(size * factor)) : size * factor;
    const ticks = [];
    for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n += 1) ticks.push(Number((n * step).toPrecision(12)));
    return ticks;
  }
}

const INK = "#1b1f24", SOFT = "#57606a", GRID = "#e4e8ec";

// The frame of a drawing with two axes: scales, grid and ticks.
function frame(width, height, x, y) {
  const box = { left: 84, right: width - 22, top: 10, bottom: height - 46 };
  const across = new Scale(x.axis, x.domain, box.left, box.right);
  const up = new Scale(y.axis, y.domain, box.bottom, box.top);
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "font-family": "system-ui, sans-serif", "font-size": 12, fill: INK });
  drawing.append(svg("rect", { x: 0, y: 0, width, height, fill: "#fff" }));
  for (const tick of up.ticks(6)) {
    const at = up.at(tick);
    drawing.append(svg("line", { x1: box.left, x2: box.right, y1: at, y2: at, stroke: GRID }));
    drawing.append(svg("text", { x: box.left - 6, y: at + 4, "text-anchor": "end" }, tickText(y.axis.kind, tick)));
  }
  for (const tick of across.ticks(width < 500 ? 5 : 9)) {
    const at = across.at(tick);
    drawing.append(svg("line", { x1: at, x2: at, y1: box.top, y2: box.bottom, stroke: GRID }));
    drawing.append(svg("text", { x: at, y: box.bottom + 16, "text-anchor": "middle" }, tickText(x.axis.kind, tick)));
  }
  drawing.append(svg("path", { d: `M${box.left} ${box.top}V${box.bottom}H${box.right}`, fill: "none", stroke: SOFT }));
  drawing.append(svg("text", { x: (box.left + box.right) / 2, y: height - 8, "text-anchor": "middle", fill: SOFT }, x.axis.label));
  drawing.append(svg("text", { transform: `translate(12 ${(box.top + box.bottom) / 2}) rotate(-90)`, "text-anchor": "middle", fill: SOFT }, y.axis.label));
  return { drawing, box, across, up, width, height };
}
