// Closed forms: the nodes that hybridsim traced, and how the figures of ops add up to a model's.
// Integers are BigInt and exact; what meets a double is one: Python's rules.

const wide = (a, b) => typeof a === "bigint" && typeof b === "bigint";

const floorDivide = (a, b) => {
  const quotient = a / b;
  return a % b !== 0n && (a < 0n) !== (b < 0n) ? quotient - 1n : quotient;
};

const add = (a, b) => (wide(a, b) ? a + b : Number(a) + Number(b));
const multiply = (a, b) => (wide(a, b) ? a * b : Number(a) * Number(b));
const divide = (a, b) => Number(a) / Number(b);
const larger = (a, b) => (b > a ? b : a);
const smaller = (a, b) => (b < a ? b : a);
const total = (values) => values.reduce(add, 0n);

const OPERATORS = {
  "+": add,
  "-": (a, b) => (wide(a, b) ? a - b : Number(a) - Number(b)),
  "*": multiply,
  "/": divide,
  "//": (a, b) => (wide(a, b) ? floorDivide(a, b) : Math.floor(Number(a) / Number(b))),
  "%": (a, b) => (wide(a, b) ? a - b * floorDivide(a, b) : Number(a) - Number(b) * Math.floor(Number(a) / Number(b))),
  "**": (a, b) => (wide(a, b) ? a ** b : Number(a) ** Number(b)),
  "<": (a, b) => a < b,
  "<=": (a, b) => a <= b,
  ">": (a, b) => a > b,
  ">=": (a, b) => a >= b,
  "==": (a, b) => a == b,
  "!=": (a, b) => a != b,
};

// The nodes at one choice of inputs; what was computed once is kept.
class Values {
  constructor(nodes, inputs) {
    this.nodes = nodes;
    this.inputs = inputs;
    this.known = new Array(nodes.length);
  }

  at(place) {
    let value = this.known[place];
    if (value === undefined) value = this.known[place] = this.computed(this.nodes[place]);
    return value;
  }

  computed([word, first, second, third]) {
    if (word === "integer") return BigInt(first);
    if (word === "float") return first;
    if (word === "input") return this.inputs[first];
    if (word === "choice") return this.at(this.at(first) ? second : third);
    if (word === "floor") {
      const value = this.at(first);
      return typeof value === "bigint" ? value : BigInt(Math.floor(value));
    }
    return OPERATORS[word](this.at(first), this.at(second));
  }
}

function roundHalfEven(value) {
  if (typeof value === "bigint") return value;
  const down = Math.floor(value), rest = value - down;
  const up = rest > 0.5 || (rest === 0.5 && down % 2 !== 0);
  return BigInt(up ? down + 1 : down);
}

// A model with a pattern, as it is served on a device.
class Costs {
  constructor(book, model, letters, setting) {
    this.book = book;
    this.model = model;
    this.setting = setting;
    this.counts = countOps(model, letters);
    this.sizes = Object.fromEntries(Object.entries({ ...model.sizes, ...setting.sizes }).map(([key, value]) => [key, BigInt(value)]));
  }

  values(context) {
    const { batch } = this.setting, kept = this.kept || (this.kept = new Map());
    if (!kept.has(context)) {
      if (kept.size > 400) kept.clear();
      kept.set(context, new Values(this.book.nodes, { ...this.sizes, context: BigInt(context), batch: BigInt(batch) }));
    }
    return kept.get(context);
  }

  bytes(elements, dtype) {
    const width = this.book.bytes_per_element[dtype];
    return multiply(elements, Number.isInteger(width) ? BigInt(width) : width);
  }

  sum(context, figure) {
    const values = this.values(context);
    return total([...this.counts].map(([place, count]) => multiply(count, figure(this.model.ops[place], values))));
  }

  parameters() { return this.sum(1, (op, values) => values.at(op.parameters)); }
  activeParameters() { return this.sum(1, (op, values) => values.at(op.active_parameters)); }
  kvBytes(context) { return this.sum(context, (op, values) => values.at(op.kv_bytes[this.setting.kv])); }
  stateBytes() { return this.sum(1, (op, values) => values.at(op.state_bytes[this.setting.state])); }
  cacheBytes(context) { return add(this.kvBytes(context), this.stateBytes()); }
  flops(context, phase) { return this.sum(context, (op, values) => values.at(op[phase].flops)); }

  mixingFlops(context) {
    return this.sum(context, (op, values) => (op.mixing_flops === null ? 0n : values.at(op.mixing_flops)));
  }

  cacheTraffic(context, phase) {
    return this.sum(context, (op, values) => this.opCacheBytes(op, values, phase));
  }

  opCacheBytes(op, values, phase) {
    const traffic = op[phase].cache_bytes;
    return traffic === null ? 0n : values.at(traffic[this.setting.kv][this.setting.state]);
  }

  opBytes(op, values, phase) {
    const { weights, activations, batch } = this.setting, form = op[phase];
    const moved = add(this.bytes(values.at(form.activation_elements), activations), this.opCacheBytes(op, values, phase));
    return add(this.bytes(values.at(form.weight_elements), weights), multiply(BigInt(batch), moved));
  }

  movedBytes(context, phase) { return this.sum(context, (op, values) => this.opBytes(op, values, phase)); }

  // The longer of compute and traffic, op by op: hybridsim/cost/roofline.py.
  opSeconds(op, values, phase) {
    const { device, batch } = this.setting;
    const compute = divide(multiply(BigInt(batch), values.at(op[phase].flops)), this.peak());
    return Math.max(compute, divide(this.opBytes(op, values, phase), device.bandwidth_bytes_per_s * device.num_devices));
  }

  seconds(context, phase) { return Number(this.sum(context, (op, values) => this.opSeconds(op, values, phase))); }

  peak() {
    const { device, weights, activations } = this.setting, widths = this.book.bytes_per_element;
    const products = widths[activations] > widths[weights] ? activations : weights;
    const rate = device.peak_flops[products];
    if (rate === undefined) throw new Error(`${device.title} has no ${products} rate`);
    return rate * device.num_devices;
  }

  memory(context, batch = this.setting.batch) {
    const many = BigInt(batch), { deployment } = this.book, values = this.values(1);
    const tokens = larger(many, smaller(many * BigInt(context), BigInt(deployment.prefill_chunk_tokens)));
    const streams = (op) => (op.kind === "ffn" ? 3n : 2n) * this.sizes.hidden_size;
    const alive = (op) => streams(op) + values.at(op.peak_elements_per_token);
    const widest = [...this.counts.keys()].map((place) => alive(this.model.ops[place])).reduce(larger);
    return {
      weights_bytes: this.bytes(this.parameters(), this.setting.weights),
      kv_cache_bytes: many * this.kvBytes(context),
      state_bytes: many * this.stateBytes(),
      activation_bytes: this.bytes(larger(tokens * widest, many * this.sizes.vocab_size), this.setting.activations),
    };
  }

  fits(context, batch) {
    const { device } = this.setting;
    const usable = device.memory_bytes * device.num_devices * this.book.deployment.memory_utilization;
    const parts = Object.values(this.memory(context, batch));
    return parts.reduce(add) <= usable;
  }

  largestBatch(context) {
    if (!this.fits(context, 1)) return 0;
    let low = 1, high = 2;
    while (this.fits(context, high)) { low = high; high *= 2; }
    while (high - low > 1) {
      const middle = Math.floor((low + high) / 2);
      if (this.fits(context, middle)) low = middle; else high = middle;
    }
    return low;
  }
}

function countOps(model, letters) {
  const counts = new Map();
  const count = (rows) => rows.forEach(([place, n]) => counts.set(place, (counts.get(place) || 0n) + BigInt(n)));
  count(model.outer);
  [...letters].forEach((letter, layer) => count(model.layers[letter][model.ffn_pattern[layer]]));
  return counts;
}
