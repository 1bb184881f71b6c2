// The trials of a search: two objectives of the reader's choice, patterns on hover, references.

class Pareto {
  constructor(data, letters) {
    const trials = data.rows.map((row) => Object.fromEntries(data.keys.map((key, i) => [key, row[i]])));
    for (const row of trials) row.front = row.group === data.groups.front;
    this.data = data = { ...data, trials, table: { name: `${data.name}-trials`, title: "Candidates, those on the frontier first", columns: data.columns, rows: trials, note: "" } };
    this.letters = letters;
    this.axes = [...data.objectives, { name: "full_layers", title: "layers with full attention", unit: "", direction: "", kind: "count" }];
    this.prefix = `pareto.${data.name}.`;
    this.state = { x: this.axes[0].name, y: this.axes[1]?.name || this.axes[0].name, dominated: "yes", log: "" };
    for (const [key, value] of address.read()) {
      const name = key.slice(this.prefix.length);
      if (key.startsWith(this.prefix) && name in this.state) this.state[name] = value;
    }
    for (const which of ["x", "y"]) if (!this.axis(which)) this.state[which] = this.axes[0].name;
    this.figure = h("figure", { id: `figure-${data.name}` });
    this.figure.redraw = (room) => this.draw(room);
    redraws.push(this.figure);
    this.table = table(data.table, letters, (row) => this.choose(row));
    this.element = h("div", { class: "pareto" }, this.choices(), this.figure, keyOf(letters), h("details", {}, h("summary", {}, `All candidates (${trials.length})`), this.table));
    this.chosen = null;
  }

  axis(which) { return this.axes.find((axis) => axis.name === this.state[which]); }

  choices() {
    const select = (which, label) => h("label", {}, `${label} `, h("select", { name: `${which} axis`, onchange: (event) => this.set({ [which]: event.target.value }) },
      ...this.axes.map((axis) => h("option", { value: axis.name, selected: axis.name === this.state[which] }, axis.title))));
    const check = (name, label, value) => h("label", {}, h("input", { type: "checkbox", name, checked: this.state[name] === value, onchange: (event) => this.set({ [name]: event.target.checked ? value : "" }) }), ` ${label}`);
    return h("div", { class: "choices" }, select("x", "across"), select("y", "up"), check("log", "log scales", "yes"), check("dominated", "dominated ones", "yes"));
  }

  set(changes) {
    Object.assign(this.state, changes);
    address.write(this.prefix, this.state);
    this.draw();
  }

  pointsOf(rows) {
    const [x, y] = [this.state.x, this.state.y];
    return rows.map((row, i) => ({ row, i, x: row[x], y: row[y] })).filter(({ x: a, y: b }) => Number.isFinite(a) && Number.isFinite(b));
  }

  draw(room) {
    const { data } = this, width = Math.max(330, Math.min(1000, room || this.figure.clientWidth || 700)), height = Math.round(Math.max(320, width * 0.55));
    const trials = this.pointsOf(data.trials), published = this.pointsOf(data.published);
    const seen = this.state.dominated ? trials : trials.filter(({ row }) => row.front);
    const domain = (which) => {
      const log = this.state.log === "yes" && [...seen, ...published].every((point) => point[which] > 0);
      return { axis: { label: axisLabel(this.axis(which)), kind: this.axis(which).kind, log }, domain: padded(extent([...seen, ...published].map((p) => p[which]), log, false), log, 0.05) };
    };
    const plot = frame(width, height, domain("x"), domain("y"));
    plot.drawing.setAttribute("aria-label", `${data.title}: ${this.axis("y").title} against ${this.axis("x").title}. Arrow keys go along the frontier.`);
    plot.drawing.setAttribute("tabindex", "0");
    this.plot = plot;
    const faded = seen.filter(({ row }) => !row.front), front = seen.filter(({ row }) => row.front);
    const plain = ({ row }) => row.group === data.groups.plain;
    for (const point of faded) this.mark(point, plain(point) ? 1 : 0, plain(point) ? { fill: COLOURS[1], opacity: 0.6 } : { fill: "#9aa4ae", opacity: 0.45 }, 2.6);
    this.drawFront(trials);
    for (const point of front) this.drawInterval(point);
    for (const point of front) this.mark(point, 0, { fill: COLOURS[0], stroke: "#fff", "stroke-width": 0.8, opacity: 0.35 + 0.65 * (point.row.probability ?? 1) }, 5);
    for (const point of published) {
      this.mark(point, 2, { fill: COLOURS[5], stroke: "#fff" }, 6);
      const [px, py] = this.at(point), inwards = px > 0.75 * width; // a name at the right edge stands left of its mark
      plot.drawing.append(svg("text", { x: px + (inwards ? -8 : 8), y: py - 7, "font-size": 11, "text-anchor": inwards ? "end" : "start" }, point.row.name));
    }
    this.points = [...front, ...published, ...faded];
    this.order = front.sort((a, b) => a.x - b.x);
    this.listen();
    this.figure.replaceChildren(h("figcaption", {}, data.title), plot.drawing, this.legend(front.length, trials.length), h("p", { class: "note" }, data.note),
      h("div", { class: "tools" }, tools(data.name, () => this.plot.drawing, () => tableRows(data.table))));
  }

  at(point) { return [this.plot.across.at(point.x), this.plot.up.at(point.y)]; }
  mark(point, shape, look, size) { this.plot.drawing.append(marker(shape, ...this.at(point), size, look)); }

  // Steps through the best of these two objectives alone.
  drawFront(trials) {
    const [x, y] = [this.axis("x"), this.axis("y")];
    if (!x.direction || !y.direction || x === y) return;
    const sign = (axis) => (axis.direction === "maximize" ? -1 : 1);
    const sorted = [...trials].sort((a, b) => sign(x) * (a.x - b.x) || sign(y) * (a.y - b.y));
    let best = Infinity, path = "";
    for (const point of sorted) {
      if (sign(y) * point.y >= best) continue;
      best = sign(y) * point.y;
      const [px, py] = this.at(point);
      path += path ? `H${px}V${py}` : `M${px} ${py}`;
    }
    this.plot.drawing.append(svg("path", { d: path || "M0 0", fill: "none", stroke: COLOURS[0], "stroke-width": 1.5, opacity: 0.6 }));
  }

  drawInterval({ row, x, y }) {
    const { across, up, drawing } = this.plot, { x: xName, y: yName } = this.state;
    const known = (name) => Number.isFinite(row[`${name}_low`]) && Number.isFinite(row[`${name}_high`]);
    const line = (d) => drawing.append(svg("path", { d, stroke: COLOURS[0], opacity: 0.45, "stroke-width": 1.5 }));
    // An interval may leave the plot, whose extent is that of the values: it is cut there.
    const ends = (scale, name) => ["low", "high"].map((end) => scale.at(Math.min(Math.max(row[`${name}_${end}`], scale.domain[0]), scale.domain[1])));
    if (known(xName)) { const [low, high] = ends(across, xName); line(`M${low} ${up.at(y)}H${high}`); }
    if (known(yName)) { const [low, high] = ends(up, yName); line(`M${across.at(x)} ${low}V${high}`); }
  }

  legend(front, all) {
    const sign = (shape, fill) => [marker(shape, 13, 6, 4.5, { fill })];
    return legendOf([
      { name: `on the frontier of all objectives (${front})`, sign: sign(0, COLOURS[0]) },
      ...(this.state.dominated ? [{ name: `dominated (${all - front})`, sign: sign(0, "#c3c9cf") }] : []),
      ...(this.state.dominated && this.data.trials.some((row) => row.group === this.data.groups.plain) ? [{ name: "of them plain patterns", sign: sign(1, COLOURS[1]) }] : []),
      ...(this.data.published.length ? [{ name: "published design", sign: sign(2, COLOURS[5]) }] : []),
      { name: "best of the two axes alone", sign: [svg("path", { d: "M0 9h13V3h13", fill: "none", stroke: COLOURS[0] })] },
    ]);
  }

  listen() {
    const { drawing, width, height } = this.plot;
    const nearest = (event) => {
      const bounds = drawing.getBoundingClientRect();
      const at = [((event.clientX - bounds.left) / bounds.width) * width, ((event.clientY - bounds.top) / bounds.height) * height];
      let found = null, least = 18 ** 2;
      for (const point of this.points) {
        const [x, y] = this.at(point), distance = (x - at[0]) ** 2 + (y - at[1]) ** 2;
        if (distance < least) { least = distance; found = point; }
      }
      return found;
    };
    drawing.addEventListener("pointermove", (event) => this.tell(nearest(event)));
    drawing.addEventListener("pointerleave", () => this.tell(null));
    drawing.addEventListener("blur", () => this.tell(null));
    drawing.addEventListener("click", (event) => { const point = nearest(event); if (point) this.table.mark(point.row); });
    drawing.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (event.key === "Escape") this.tell(null);
      if (!step || !this.order.length) return;
      event.preventDefault();
      this.chosen = this.chosen === null ? 0 : (this.chosen + step + this.order.length) % this.order.length;
      this.tell(this.order[this.chosen]);
    });
  }

  chooseTrial(trial) {
    const row = this.data.trials.find((one) => one.trial === trial);
    if (row) this.choose(row);
  }

  choose(row) {
    const point = this.points.find((one) => one.row === row);
    this.table.mark(row);
    if (point) { this.tell(point); this.plot.drawing.scrollIntoView({ block: "nearest" }); }
  }

  tell(point) {
    this.tip?.remove();
    this.ring?.remove();
    this.tip = this.ring = null;
    if (!point) return;
    const { row } = point, line = (name, value) => h("tr", {}, h("td", {}, name), h("td", {}, value));
    this.ring = marker(0, ...this.at(point), 8, { class: "cursor", fill: "none", stroke: INK, "stroke-width": 2 });
    this.plot.drawing.append(this.ring);
    this.tip = h("div", { class: "tip", role: "status" }, h("strong", {}, row.name || `trial ${row.trial}`), h("div", {}, strip(row.layers, this.letters)),
      h("table", {}, ...this.data.objectives.map((o) => line(o.title, valueWithInterval(o, row))),
        line("full layers", textOf("count", row.full_layers)), row.probability === undefined || row.probability === null ? "" : line("on the frontier with", textOf("share", row.probability))));
    this.figure.append(this.tip);
    const [x, y] = this.at(point);
    place(this.tip, this.figure, this.plot.drawing, x / this.plot.width, y / this.plot.height);
  }
}

function axisLabel(axis) {
  const better = { maximize: ", more is better", minimize: ", less is better" }[axis.direction] || "";
  return `${axis.title}${better}`;
}

function valueWithInterval(objective, row) {
  const low = row[`${objective.name}_low`], high = row[`${objective.name}_high`];
  const known = low !== null && low !== undefined ? ` (${textOf(objective.kind, low)} to ${textOf(objective.kind, high)})` : "";
  const origin = row[`${objective.name}_provenance`];
  return `${textOf(objective.kind, row[objective.name])}${known}${origin ? `, ${origin}` : ""}`;
}
