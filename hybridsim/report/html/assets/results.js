// What the explorer shows of one setting.

// What stands around the layers' mixers and feed-forwards: hybridsim/report/profile_figures.py.
const RANK = { "head": 1, "embedding, norms, adds": 2 };
const REST = { embedding: "embedding, norms, adds", norm: "embedding, norms, adds", add: "embedding, norms, adds" };
const PHASE_OF = { decode_latency: "decode", prefill_latency: "prefill" };

const valueOf = (costs, name, context) => (name === "memory" ? costs.cacheBytes(context) : costs.seconds(context, PHASE_OF[name]));

function card(name, title, kind, value, twin, note, over = false) {
  const ratio = twin === null || twin === undefined ? "" : `all-full twin: ${textOf(kind, twin)}, ${ratioOf(twin, value)}`;
  return h("div", { class: over ? "card over" : "card" }, h("dt", {}, title),
    h("dd", {}, h("output", { name, "data-exact": String(value), "data-twin": twin === null || twin === undefined ? null : String(twin) }, textOf(kind, value)),
      h("div", { class: "exact" }, typeof value === "bigint" && kind !== "count" ? `${exactText(value)}${kind === "bytes" ? " B" : ""}` : "", note ? h("div", {}, note) : null, ratio ? h("div", {}, ratio) : null)));
}

function ratioOf(twin, value) {
  const ratio = Number(twin) / Number(value);
  if (!Number.isFinite(ratio)) return "";
  return ratio >= 1 ? `${threeDigits(ratio)} times this` : `${threeDigits(1 / ratio)} times less`;
}

function cards(ours, twin, context, batch) {
  const of = (figure) => [figure(ours), twin && figure(twin)];
  const memory = ours.memory(context), parts = Object.values(memory).map(roundHalfEven), fits = ours.fits(context, batch);
  const largest = ours.largestBatch(context), decode = of((c) => c.seconds(context, "decode"));
  return [
    card("cache_bytes", "cache and state, one sequence", "bytes", ...of((c) => c.cacheBytes(context)), "exact"),
    card("kv_cache_bytes", "of it keys, values, latents", "bytes", ...of((c) => c.kvBytes(context)), "exact, grows with the context"),
    card("state_bytes", "of it state", "bytes", ours.stateBytes(), null, "exact, whatever the context"),
    card("decode_s", "decode step", "seconds", ...decode, "modelled: roofline, a lower bound"),
    card("tokens_per_s", "decoded tokens a second", "count", batch / decode[0], twin && batch / decode[1], `modelled, ${batch} at once`),
    card("prefill_s", "prefill of the context", "seconds", ...of((c) => c.seconds(context, "prefill")), "modelled: roofline, a lower bound"),
    card("prefill_flops", "FLOPs of a prefill", "amount", ...of((c) => c.flops(context, "prefill")), "exact, one sequence"),
    card("weights_bytes", "weights", "bytes", roundHalfEven(memory.weights_bytes), null, "exact"),
    card("parameters", "parameters", "amount", ours.parameters(), null, `active per token: ${exactText(ours.activeParameters())}`),
    card("memory_bytes", "memory at once", "bytes", total(parts), null, fits ? "modelled; fits the device" : "modelled; does not fit the device", !fits),
    card("largest_batch", "largest batch that fits", "count", BigInt(largest), twin && BigInt(twin.largestBatch(context)), "modelled"),
  ];
}

// The arithmetic of the crossover of memory, where it is a line against a constant.
function sentences(explorer, context) {
  const { ours, twin } = explorer;
  if (twin === null) return [h("p", {}, "Every layer has full attention: there is nothing to compare with.")];
  const state = ours.stateBytes() - twin.stateBytes(), growth = (costs) => costs.kvBytes(context + 1) - costs.kvBytes(context);
  const saved = growth(twin) - growth(ours), times = Number(twin.cacheBytes(context)) / Number(ours.cacheBytes(context));
  const parts = [`At ${exactText(context)} tokens full attention everywhere would keep ${threeDigits(times)} times as much for each sequence. `];
  if (saved > 0n && state > 0n) {
    parts.push(`The cheaper layers hold ${exactText(state)} B of state whatever the context, and save ${exactText(saved)} B with each further token: `
      + `${exactText(state)} / ${exactText(saved)} = ${exactText(Math.round(Number(state) / Number(saved)))} tokens until they have paid for it.`);
  }
  return [h("p", {}, parts.join(""))];
}

function emptyFigure(name) {
  return {
    form: "lines", name: `explorer-${name}`, title: PART_NAMES[name], note: "", series: [], marks: [],
    x: { label: "context (tokens)", kind: "tokens", log: true },
    y: { label: name === "memory" ? "bytes (exact)" : "time (modelled)", kind: name === "memory" ? "bytes" : "seconds", log: true },
  };
}

function costFigure(explorer, name, crossed) {
  const { ours, twin, state } = explorer, contexts = [];
  for (let power = 8; power <= LONGEST; power += 0.5) contexts.push(Math.round(2 ** power));
  const line = (costs, title, colour, dashed) => ({ name: title, x: contexts, y: contexts.map((n) => Number(valueOf(costs, name, n))), colour, dashed });
  const marks = [{ x: state.context, label: `${textOf("tokens", state.context)} chosen` }];
  if (crossed) marks.unshift({ x: crossed, label: `cheaper beyond ${exactText(crossed)}` });
  const batch = name === "memory" ? "" : ` On ${explorer.setting().device.title}, batch ${state.batch}.`;
  return {
    ...emptyFigure(name), marks,
    series: [line(ours, explorer.model.title, 0, false), ...(twin === null ? [] : [line(twin, "all-full twin", 1, true)])],
    note: (name === "memory" ? "Exact." : "Modelled: each operation at the device's peak rate or bandwidth.") + batch,
  };
}

function shareFigure(explorer) {
  const { ours, state } = explorer, values = ours.values(state.context), parts = new Map();
  const figures = {
    [`cache of one sequence at ${textOf("tokens", state.context)}`]: (op) => add(values.at(op.kv_bytes[state.kv]), values.at(op.state_bytes[state.state])),
    "decode step": (op) => ours.opSeconds(op, values, "decode"),
    "prefill": (op) => ours.opSeconds(op, values, "prefill"),
    "parameters": (op) => values.at(op.parameters),
  };
  const stacks = Object.keys(figures);
  for (const [place, count] of ours.counts) {
    const op = explorer.model.ops[place], key = op.letter ? `${op.letter} ${op.title}` : REST[op.part] || op.title;
    const shares = parts.get(key) || stacks.map(() => 0);
    parts.set(key, shares.map((share, i) => share + Number(multiply(count, figures[stacks[i]](op)))));
  }
  const sums = stacks.map((_, i) => [...parts.values()].reduce((sum, shares) => sum + shares[i], 0) || 1);
  return {
    form: "shares", name: "explorer-shares", title: "Where bytes and time go", stacks,
    note: `Batch ${state.batch}; cache and parameters exact, times modelled.`,
    parts: [...parts].sort(([a], [b]) => (a in RANK || b in RANK ? (RANK[a] || 0) - (RANK[b] || 0) : 0)).map(([name, shares]) => ({ name, shares: shares.map((share, i) => share / sums[i]) })),
  };
}

function crossingTable(explorer, found) {
  const none = explorer.twin === null ? "no other twin" : "never";
  return h("div", { class: "scroll" }, h("table", { class: "data" },
    h("caption", {}, "Cheaper than the all-full twin beyond"),
    h("thead", {}, h("tr", {}, h("th", { class: "words" }, "cost"), h("th", {}, "tokens"), h("th", { class: "words" }, "of"))),
    h("tbody", {}, ...Object.entries(found).map(([name, tokens]) => h("tr", {},
      h("td", { class: "words" }, name), h("td", { "data-crossing": name, "data-exact": String(tokens) }, tokens === null ? none : exactText(tokens)),
      h("td", { class: "words" }, explorer.book.definitions[name].replace("the first batch size", `batch ${explorer.state.batch}`)))))));
}
