// The explorer: a model's costs for any pattern, context, batch, number format, device and size.

const LONGEST = 22; // of contexts, as a power of two: 4M
const DTYPE_FIELDS = { weights: "weights", activations: "activations", kv: "keys and values", state: "recurrent state" };
const PART_NAMES = {
  memory: "cache and state of one sequence", decode_latency: "time of a decode step", prefill_latency: "time of a prefill",
};

class Explorer {
  constructor(book) {
    this.book = book;
    this.defaults = { model: book.models[0].key, context: 131072, batch: 1, device: book.devices[book.first_device] ? book.first_device : Object.keys(book.devices)[0], pattern: "", ...book.deployment.dtypes };
    this.state = this.fromAddress();
    this.element = h("div", { class: "explorer" });
    this.controls = h("form", { class: "controls", "aria-label": "Settings of the explorer", onsubmit: (event) => event.preventDefault() });
    this.result = h("div", { class: "result" });
    this.element.append(this.controls, this.result);
    this.buildResult();
    this.buildControls();
    this.refresh();
    window.addEventListener("hashchange", () => { this.state = this.fromAddress(); this.buildControls(); this.refresh(); });
  }

  get model() { return this.book.models.find((model) => model.key === this.state.model); }
  get letters() { return this.state.pattern || this.model.layer_pattern; }

  // Only what the page knows is taken from an address; all else keeps its default.
  fromAddress() {
    const state = { ...this.defaults, sizes: {} };
    for (const [key, value] of address.read()) {
      const name = key.replace(/^explore\./, "");
      if (name === key) continue;
      if (name === "context" || name === "batch") state[name] = whole(value, name === "context" ? 2 ** LONGEST : 4096) || state[name];
      else if (name in this.defaults) state[name] = value;
      else if (whole(value, 2 ** 31)) state.sizes[name] = whole(value, 2 ** 31);
    }
    if (!this.book.models.some((model) => model.key === state.model)) state.model = this.defaults.model;
    const model = this.book.models.find((one) => one.key === state.model);
    if (!this.book.devices[state.device]) state.device = this.defaults.device;
    for (const field of Object.keys(DTYPE_FIELDS)) if (!(state[field] in this.book.bytes_per_element)) state[field] = this.defaults[field];
    if (!allowed(model, state.pattern)) state.pattern = "";
    for (const name of Object.keys(state.sizes)) if (!(name in model.sizes)) delete state.sizes[name];
    return state;
  }

  toAddress() {
    const { sizes, ...rest } = this.state, changed = {};
    for (const [key, value] of Object.entries(rest)) if (value !== this.defaults[key]) changed[key] = value;
    for (const [key, value] of Object.entries(sizes)) if (value !== this.model.sizes[key]) changed[key] = value;
    address.write("explore.", changed);
  }

  set(changes, rebuild = false) {
    Object.assign(this.state, changes);
    this.toAddress();
    if (rebuild) this.buildControls();
    this.refresh();
  }

  setting() {
    const { batch, device, weights, activations, kv, state, sizes } = this.state;
    return { batch, device: this.book.devices[device], weights, activations, kv, state, sizes };
  }

  buildControls() {
    const { state, book, model } = this;
    const choose = (label, options, value, change) => h("label", {}, label,
      h("select", { onchange: (event) => change(event.target.value), name: label },
        ...options.map(([key, text]) => h("option", { value: key, selected: key === value }, text))));
    const dtypes = Object.keys(book.bytes_per_element).map((name) => [name, name]);
    this.controls.replaceChildren(
      choose("model", book.models.map((m) => [m.key, m.title]), state.model, (key) => this.set({ model: key, pattern: "", sizes: {} }, true)),
      h("p", { class: "note" }, model.description),
      choose("device", Object.entries(book.devices).map(([key, d]) => [key, d.title]), state.device, (key) => this.set({ device: key })),
      this.slider("context", "context (tokens)", LONGEST, 8),
      this.slider("batch", "batch (sequences at once)", 10, 4),
      this.patternControls(),
      h("div", { class: "two" }, ...Object.entries(DTYPE_FIELDS).map(([key, label]) => choose(label, dtypes, state[key], (value) => this.set({ [key]: value })))),
      this.sizeControls(),
      h("div", { class: "tools" },
        h("button", { type: "button", onclick: () => this.set({ ...this.defaults, sizes: {} }, true) }, "Reset"),
        h("button", { type: "button", onclick: (event) => copyLink(event.target) }, "Copy a link to this state")));
  }

  // A slider in powers of two with steps between, and the exact number beside it.
  slider(key, label, highest, steps) {
    const number = h("input", { type: "number", min: 1, max: 2 ** highest, value: this.state[key], name: key, "aria-label": `${label}, exact` });
    const range = h("input", { type: "range", min: 0, max: highest * steps, step: 1, value: Math.log2(this.state[key]) * steps, name: `${key} slider`, "aria-label": label });
    range.addEventListener("input", () => {
      number.value = Math.round(2 ** (range.value / steps));
      this.set({ [key]: Number(number.value) });
    });
    number.addEventListener("input", () => {
      const value = whole(number.value, 2 ** highest);
      if (!value) return;
      range.value = Math.log2(value) * steps;
      this.set({ [key]: value });
    });
    return h("label", {}, label, h("span", { class: "pair" }, range, number));
  }

  patternControls() {
    const { model } = this, full = fullLayers(model, this.letters), mixing = mixingLayers(model).length;
    const ladder = full.letter !== null && full.cheap !== null;
    const range = h("input", { type: "range", min: 0, max: mixing, value: full.count, name: "full layers", "aria-label": "layers with full attention" });
    const said = h("output", {}, ratioText(full.count, mixing));
    const layers = h("div", { class: "layers", role: "group", "aria-label": "layers; a press changes one" });
    const draw = () => layers.replaceChildren(...[...this.letters].map((letter, i) => h("button", {
      type: "button", class: model.letters[letter].role, title: `layer ${i + 1}: ${model.letters[letter].title}`, onclick: () => turn(i),
    }, letter)));
    const changed = () => {
      const count = fullLayers(model, this.letters).count;
      range.value = count;
      said.textContent = ratioText(count, mixing);
      draw();
    };
    const turn = (i) => {
      const choices = lettersFor(model, i), now = this.letters[i];
      const next = choices[(choices.indexOf(now) + 1) % choices.length];
      this.set({ pattern: this.letters.slice(0, i) + next + this.letters.slice(i + 1) });
      changed();
      layers.children[i].focus();
    };
    range.addEventListener("input", () => { this.set({ pattern: evenLadder(model, Number(range.value)) }); changed(); });
    draw();
    return h("div", {},
      ladder ? h("label", {}, "layers with full attention, evenly spread", h("span", { class: "pair" }, range, said)) : h("p", { class: "note" }, "This spec defines no cheaper mixer: its layers stay as they are."),
      layers,
      h("div", { class: "tools" }, h("button", { type: "button", onclick: () => this.set({ pattern: "" }, true) }, "As published")));
  }

  sizeControls() {
    const { model, state } = this;
    const inputs = Object.entries(model.sizes).map(([name, value]) => {
      const input = h("input", { type: "number", min: 1, value: state.sizes[name] || value, name });
      input.addEventListener("input", () => {
        const given = whole(input.value, 2 ** 31);
        if (given) this.set({ sizes: { ...state.sizes, ...this.state.sizes, [name]: given } });
      });
      return h("label", {}, sizeTitle(model, name), input);
    });
    return h("details", { open: Object.keys(state.sizes).length > 0 }, h("summary", {}, "Dimensions of your model"),
      h("p", { class: "note" }, "Every figure of the page follows from these. Whether a model with them can be built is said by hybridsim describe."),
      h("div", { class: "two" }, ...inputs));
  }

  buildResult() {
    this.cards = h("dl", { class: "cards" });
    this.says = h("div", { "aria-live": "polite" });
    this.crossings = h("div");
    this.charts = { memory: null, decode_latency: null, prefill_latency: null };
    const place = h("div", { class: "figures" });
    for (const name of Object.keys(this.charts)) {
      this.charts[name] = figure(emptyFigure(name));
      place.append(this.charts[name]);
    }
    this.shares = figure({ form: "shares", name: "explorer-shares", title: "Where bytes and time go", note: "", stacks: [], parts: [] });
    place.append(this.shares);
    this.result.append(this.cards, this.says, this.crossings, place);
  }

  refresh() {
    const setting = this.setting(), { context } = this.state;
    this.ours = new Costs(this.book, this.model, this.letters, setting);
    const twin = twinOf(this.model, this.letters);
    this.twin = twin === null ? null : new Costs(this.book, this.model, twin, setting);
    try {
      this.cards.replaceChildren(...cards(this.ours, this.twin, context, this.state.batch));
      this.says.replaceChildren(...sentences(this, context));
    } catch (error) {
      this.cards.replaceChildren();
      this.says.replaceChildren(h("p", { class: "error" }, error.message));
      return;
    }
    delete this.result.dataset.settled;
    clearTimeout(this.later);
    this.later = setTimeout(() => this.settle(), 60);
  }

  // What takes longer waits until the sliders rest.
  settle() {
    const found = {};
    for (const name of Object.keys(COSTS)) found[name] = this.twin === null ? null : crossing(name, this.ours, this.twin, this.book.searched_tokens);
    for (const [name, element] of Object.entries(this.charts)) element.update(costFigure(this, name, found[name]));
    this.shares.update(shareFigure(this));
    this.crossings.replaceChildren(crossingTable(this, found));
    this.result.dataset.settled = "yes";
  }
}

function whole(text, most) {
  const number = Number(text);
  return Number.isInteger(number) && number >= 1 && number <= most ? number : 0;
}

async function copyLink(button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(location.href);
    button.textContent = "Copied";
  } catch {
    window.prompt("The link to this state:", location.href);
  }
  setTimeout(() => { button.textContent = before; }, 1500);
}
