// The figures that hybridsim writes as data: lines, bars, shares, points.

const COLOURS = report.colours;
const MARKERS = [
  (x, y, r) => `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`,
  (x, y, r) => `M${x - r} ${y - r}h${2 * r}v${2 * r}h${-2 * r}z`,
  (x, y, r) => `M${x} ${y - 1.3 * r}l${1.3 * r} ${1.3 * r}l${-1.3 * r} ${1.3 * r}l${-1.3 * r} ${-1.3 * r}z`,
  (x, y, r) => `M${x} ${y - 1.2 * r}l${1.2 * r} ${2.2 * r}h${-2.4 * r}z`,
  (x, y, r) => `M${x} ${y + 1.2 * r}l${1.2 * r} ${-2.2 * r}h${-2.4 * r}z`,
];
const marker = (index, x, y, r, attributes) => svg("path", { d: MARKERS[index % MARKERS.length](x, y, r), ...attributes });
const colourOf = (index) => COLOURS[index % COLOURS.length];

// A figure with caption, drawing, legend, note and what it can be saved as.
function figure(data) {
  const element = h("figure", { id: `figure-${data.name}` });
  const redraw = (room) => {
    const width = Math.max(330, Math.min(760, room || element.clientWidth || 600));
    const { drawing, legend } = DRAWN[data.form](data, width, element);
    drawing.setAttribute("aria-label", `${data.title}. ${data.note}`);
    element.replaceChildren(
      h("figcaption", {}, data.title), drawing, legend || "",
      h("p", { class: "note" }, data.note),
      h("div", { class: "tools" }, tools(data.name.replaceAll("/", "-"), () => element.querySelector("svg"), () => ROWS[data.form](data)),
        numbersOf(() => ROWS[data.form](data))));
  };
  element.update = (fresh) => { data = fresh; redraw(); };
  element.redraw = redraw;
  redraws.push(element);
  return element;
}

const redraws = [];
let waiting = [], drawnWidth = 0;
function redrawAll() {
  if (Math.abs(window.innerWidth - drawnWidth) < 8) return;
  drawnWidth = window.innerWidth;
  const there = redraws.filter((element) => element.isConnected);
  // All places before the first drawing: each would be laid out anew after one.
  const seen = there.map((element) => [element, element.clientWidth, element.getBoundingClientRect().top < window.innerHeight]);
  seen.filter(([, , now]) => now).forEach(([element, room]) => element.redraw(room));
  waiting = seen.filter(([, , now]) => !now);
  delete document.documentElement.dataset.drawn;
  setTimeout(drawWaiting, 0);
}

// What is below the window is drawn once the page is there; all of it at once before a print.
function drawWaiting(enough = 12) {
  const until = performance.now() + enough;
  while (waiting.length && performance.now() < until) {
    const [element, room] = waiting.shift();
    element.redraw(room);
  }
  if (waiting.length) setTimeout(drawWaiting, 0);
  else document.documentElement.dataset.drawn = "yes";
}
window.addEventListener("beforeprint", () => drawWaiting(Infinity));

// The figures of a drawing as a table, made when it is opened: there may be thousands.
function numbersOf(rowsOf) {
  const details = h("details", {}, h("summary", {}, "Figures"));
  details.addEventListener("toggle", () => { if (details.open && details.children.length === 1) details.append(rowsTable(rowsOf())); });
  return details;
}

function rowsTable(rows) {
  return h("div", { class: "scroll" }, h("table", { class: "data" },
    ...rows.map((row, index) => h("tr", {}, ...row.map((cell) => h(index ? "td" : "th", {}, cell === null || cell === undefined ? "" : String(cell)))))));
}

function legendOf(items) {
  return h("ul", { class: "legend" }, ...items.map((item) => h("li", {}, svg("svg", { viewBox: "0 0 26 12", "aria-hidden": "true" }, ...item.sign), item.name)));
}

function drawLines(data, width, element) {
  const height = Math.round(Math.max(250, width * 0.55));
  const xs = data.series.flatMap((s) => s.x), ys = data.series.flatMap((s) => [...s.y, ...(s.low || []), ...(s.high || [])]);
  const plot = frame(width, height,
    { axis: data.x, domain: extent(xs, data.x.log) },
    { axis: data.y, domain: padded(extent(ys, data.y.log), data.y.log, 0.04) });
  data.series.forEach((series, index) => drawSeries(plot, data, series, index));
  for (const mark of data.marks) drawMark(plot, mark);
  follow(plot, data, element);
  const legend = legendOf(data.series.map((series, index) => ({
    name: series.name,
    sign: [lineSign(series), series.x.length <= 40 ? marker(index, 13, 6, 3.2, { fill: colourOf(series.colour) }) : ""],
  })));
  return { drawing: plot.drawing, legend };
}

const lineSign = (series) => svg("path", { d: "M0 6h26", stroke: colourOf(series.colour), "stroke-width": 2, "stroke-dasharray": series.dashed ? "5 3" : null });

const drawable = (data, x, y) => y !== null && y !== undefined && (!data.y.log || y > 0) && (!data.x.log || x > 0);

function drawSeries(plot, data, series, index) {
  const colour = colourOf(series.colour), { across, up } = plot;
  if (series.low) {
    const kept = series.x.map((x, i) => [x, series.low[i], series.high[i]]).filter(([x, low, high]) => drawable(data, x, low) && drawable(data, x, high));
    const edge = [...kept.map(([x, , high]) => [x, high]), ...kept.reverse().map(([x, low]) => [x, low])];
    if (edge.length) plot.drawing.append(svg("path", { d: `M${edge.map(([x, y]) => `${across.at(x).toFixed(1)} ${up.at(y).toFixed(1)}`).join("L")}z`, fill: colour, opacity: 0.18 }));
  }
  let path = "", last = null;
  series.x.forEach((x, i) => {
    if (!drawable(data, x, series.y[i])) { last = null; return; }
    const at = [across.at(x).toFixed(1), up.at(series.y[i]).toFixed(1)];
    path += last === null ? `M${at.join(" ")}` : series.stepped ? `H${at[0]}V${at[1]}` : `L${at.join(" ")}`;
    last = at;
  });
  plot.drawing.append(svg("path", { d: path || "M0 0", fill: "none", stroke: colour, "stroke-width": 2, "stroke-dasharray": series.dashed ? "6 4" : null, "stroke-linejoin": "round" }));
  if (series.x.length > 40) return;
  series.x.forEach((x, i) => {
    if (drawable(data, x, series.y[i])) plot.drawing.append(marker(index, across.at(x), up.at(series.y[i]), 3, { fill: colour }));
  });
}

function drawMark(plot, mark) {
  const { across, box, drawing } = plot, at = across.at(mark.x);
  if (at < box.left || at > box.right) return;
  const left = at > (box.left + box.right) / 2;
  drawing.append(svg("line", { x1: at, x2: at, y1: box.top, y2: box.bottom, stroke: INK, "stroke-dasharray": "2 3" }));
  drawing.append(svg("text", { x: at + (left ? -5 : 5), y: box.top + 12 + 14 * (plot.marked = (plot.marked ?? -1) + 1), "text-anchor": left ? "end" : "start", "font-size": 11 }, mark.label));
}

// A cursor that goes with the pointer, or with the arrow keys, and says the figures there.
function follow(plot, data, element) {
  const { drawing, across, box } = plot, places = [...new Set(data.series.flatMap((s) => s.x))].sort((a, b) => a - b);
  if (!places.length) return;
  const line = svg("line", { class: "cursor", y1: box.top, y2: box.bottom, stroke: SOFT, visibility: "hidden" });
  drawing.append(line);
  drawing.setAttribute("tabindex", "0");
  let chosen = places.length - 1, tip = null;
  const hide = () => { tip?.remove(); tip = null; line.setAttribute("visibility", "hidden"); };
  const show = () => {
    const x = places[chosen], at = across.at(x);
    for (const [key, value] of [["x1", at], ["x2", at], ["visibility", "visible"]]) line.setAttribute(key, value);
    tip?.remove();
    tip = h("div", { class: "tip", role: "status" }, `${textOf(data.x.kind, x)}${data.x.kind === "tokens" ? " tokens" : ""}`,
      h("table", {}, ...data.series.filter((s) => s.x.includes(x)).map((s) => seriesRow(data, s, s.x.indexOf(x)))));
    element.append(tip);
    place(tip, element, drawing, at / plot.width, 0.1);
  };
  drawing.addEventListener("pointermove", (event) => {
    const bounds = drawing.getBoundingClientRect(), at = ((event.clientX - bounds.left) / bounds.width) * plot.width;
    chosen = places.reduce((best, x, i) => (Math.abs(across.at(x) - at) < Math.abs(across.at(places[best]) - at) ? i : best), 0);
    show();
  });
  drawing.addEventListener("pointerleave", hide);
  drawing.addEventListener("blur", hide);
  drawing.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") hide();
    if (!step) return;
    event.preventDefault();
    chosen = tip === null ? chosen : Math.max(0, Math.min(places.length - 1, chosen + step));
    show();
  });
}

function seriesRow(data, series, index) {
  const value = series.y[index], low = series.low?.[index], high = series.high?.[index];
  const interval = low === null || low === undefined ? "" : ` (${textOf(data.y.kind, low)} to ${textOf(data.y.kind, high)})`;
  return h("tr", {}, h("td", {}, series.name), h("td", {}, textOf(data.y.kind, value) + interval));
}

// Beside a place given in parts of the drawing, inside the element.
function place(tip, element, drawing, across, down) {
  const outer = element.getBoundingClientRect(), inner = drawing.getBoundingClientRect();
  const x = inner.left - outer.left + across * inner.width, y = inner.top - outer.top + down * inner.height;
  const right = x + 12 + tip.offsetWidth > outer.width;
  tip.style.left = `${Math.max(0, right ? x - tip.offsetWidth - 12 : x + 12)}px`;
  tip.style.top = `${y}px`;
}

function lineRows(data) {
  const head = [data.x.label, ...data.series.flatMap((s) => [s.name, ...(s.low ? [`${s.name} low`, `${s.name} high`] : [])])];
  const places = [...new Set(data.series.flatMap((s) => s.x))].sort((a, b) => a - b);
  return [head, ...places.map((x) => [x, ...data.series.flatMap((s) => {
    const i = s.x.indexOf(x);
    return s.low ? [s.y[i], s.low[i], s.high[i]] : [s.y[i]];
  })])];
}

function drawBars(data, width) {
  return { drawing: data.upright ? uprightBars(data, width) : lyingBars(data, width) };
}

const barValues = (data) => data.bars.flatMap((bar) => [0, bar.value, bar.low, bar.high, bar.reference]);
const level = (d) => svg("path", { d, stroke: INK, "stroke-dasharray": "3 2", "stroke-width": 1.5 });
const barColour = (bar) => (bar.faded ? "#b8bfc6" : colourOf(bar.colour));

function uprightBars(data, width) {
  const height = 260, count = data.bars.length, axis = { label: "", kind: "text", log: false };
  const plot = frame(width, height, { axis, domain: [-0.5, count - 0.5] }, { axis: data.value, domain: padded(extent(barValues(data), false), false, 0.05) });
  plot.drawing.querySelectorAll("text").forEach((text) => { if (Number(text.getAttribute("y")) === plot.box.bottom + 16) text.remove(); });
  const step = (plot.box.right - plot.box.left) / count, zero = plot.up.at(0);
  data.bars.forEach((bar, i) => {
    const at = plot.across.at(i), top = plot.up.at(bar.value);
    plot.drawing.append(svg("rect", { x: at - 0.4 * step, width: 0.8 * step, y: Math.min(top, zero), height: Math.abs(zero - top), fill: barColour(bar) },
      svg("title", {}, `${bar.label}: ${barText(data, bar)}`)));
    if (bar.low !== null) plot.drawing.append(svg("path", { d: `M${at} ${plot.up.at(bar.low)}V${plot.up.at(bar.high)}`, stroke: INK, "stroke-width": 1.5 }));
    if (bar.reference !== null) plot.drawing.append(level(`M${at - 0.4 * step} ${plot.up.at(bar.reference)}h${0.8 * step}`));
    if (i % Math.ceil(16 / step) === 0) plot.drawing.append(svg("text", { x: at, y: plot.box.bottom + 15, "text-anchor": "middle", "font-size": step > 14 ? 11 : 9 }, bar.label));
  });
  return plot.drawing;
}

function barText(data, bar) {
  const interval = bar.low === null ? "" : ` (${textOf(data.value.kind, bar.low)} to ${textOf(data.value.kind, bar.high)})`;
  return textOf(data.value.kind, bar.value) + interval;
}

// Each bar below its label, with its figure at its end: long labels have room on a phone too.
function lyingBars(data, width) {
  const step = 44, height = data.bars.length * step + 10;
  const scale = new Scale(data.value, padded(extent(barValues(data), false), false, 0), 4, width - 150);
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "font-family": "system-ui, sans-serif", "font-size": 12, fill: INK });
  drawing.append(svg("rect", { width, height, fill: "#fff" }));
  data.bars.forEach((bar, i) => {
    const top = i * step + 6, end = Math.max(scale.at(bar.value), 6);
    drawing.append(svg("text", { x: 4, y: top + 11 }, bar.label));
    drawing.append(svg("rect", { x: 4, y: top + 16, width: end - 4, height: 16, fill: barColour(bar) }));
    if (bar.low !== null) drawing.append(svg("path", { d: `M${scale.at(bar.low)} ${top + 24}H${scale.at(bar.high)}`, stroke: INK, "stroke-width": 2 }));
    if (bar.reference !== null) drawing.append(level(`M${scale.at(bar.reference)} ${top + 13}v22`));
    drawing.append(svg("text", { x: Math.max(end, bar.high === null ? 0 : scale.at(bar.high)) + 6, y: top + 29 }, barText(data, bar)));
  });
  return drawing;
}

const barRows = (data) => [["", data.value.label, "low", "high", "reference"], ...data.bars.map((bar) => [bar.label, bar.value, bar.low, bar.high, bar.reference])];

function drawShares(data, width) {
  const step = 52, height = data.stacks.length * step + 30;
  const axis = { label: "", kind: "share", log: false }, scale = new Scale(axis, [0, 1], 6, width - 14);
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "font-family": "system-ui, sans-serif", "font-size": 12, fill: INK });
  drawing.append(svg("rect", { width, height, fill: "#fff" }));
  data.stacks.forEach((stack, row) => {
    const top = row * step + 6;
    let from = 0;
    drawing.append(svg("text", { x: 6, y: top + 11 }, stack));
    data.parts.forEach((part, i) => {
      const share = part.shares[row] || 0, x = scale.at(from), wide = scale.at(from + share) - x;
      drawing.append(svg("rect", { x, y: top + 16, width: wide, height: 22, fill: colourOf(i), stroke: "#fff" }, svg("title", {}, `${part.name}: ${textOf("share", share)}`)));
      if (wide > 34) drawing.append(svg("text", { x: x + wide / 2, y: top + 31, "text-anchor": "middle", fill: onColour(colourOf(i)) }, `${Math.round(100 * share)} %`));
      from += share;
    });
  });
  for (const tick of scale.ticks(5)) drawing.append(svg("text", { x: Math.max(16, Math.min(width - 20, scale.at(tick))), y: height - 8, "text-anchor": "middle", fill: SOFT }, textOf("share", tick)));
  const legend = legendOf(data.parts.map((part, i) => ({ name: part.name, sign: [svg("rect", { x: 6, y: 0, width: 12, height: 12, fill: colourOf(i) })] })));
  return { drawing, legend };
}

function onColour(colour) {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return 0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#000" : "#fff";
}

const shareRows = (data) => [["", ...data.stacks], ...data.parts.map((part) => [part.name, ...part.shares])];

function drawPoints(data, width) {
  const height = Math.round(Math.max(280, width * 0.62));
  const plot = frame(width, height,
    { axis: data.x, domain: padded(extent(data.groups.flatMap((g) => g.x), data.x.log, false), data.x.log, 0.04) },
    { axis: data.y, domain: padded(extent(data.groups.flatMap((g) => g.y), data.y.log, false), data.y.log, 0.04) });
  if (data.front) drawSeries(plot, data, { ...data.front, x: data.front.x.concat(), low: null }, 0);
  data.groups.forEach((group, index) => group.x.forEach((x, i) => {
    if (!drawable(data, x, group.y[i])) return;
    const at = [plot.across.at(x), plot.up.at(group.y[i])];
    const colour = group.faded ? "#b8bfc6" : colourOf(group.colour);
    plot.drawing.append(marker(index, ...at, group.faded ? 2.5 : 4.5, { fill: colour }));
    if (group.named) plot.drawing.append(svg("text", { x: at[0] + 6, y: at[1] - 6, "font-size": 11 }, group.labels[i]));
  }));
  const legend = legendOf(data.groups.map((group, index) => ({ name: group.name, sign: [marker(index, 13, 6, 4, { fill: group.faded ? "#b8bfc6" : colourOf(group.colour) })] })));
  return { drawing: plot.drawing, legend };
}

const pointRows = (data) => [["", "", data.x.label, data.y.label], ...data.groups.flatMap((group) => group.x.map((x, i) => [group.name, group.labels[i], x, group.y[i]]))];

const DRAWN = { lines: drawLines, bars: drawBars, shares: drawShares, points: drawPoints };
const ROWS = { lines: lineRows, bars: barRows, shares: shareRows, points: pointRows };
