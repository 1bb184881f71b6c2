// From which context on a model is cheaper than its all-full twin: hybridsim/cost/crossover.py.

const COSTS = {
  memory: (costs, n) => costs.cacheBytes(n),
  decode_bytes: (costs, n) => costs.cacheTraffic(n, "decode"),
  prefill_flops: (costs, n) => costs.flops(n, "prefill"),
  decode_latency: (costs, n) => costs.seconds(n, "decode"),
  prefill_latency: (costs, n) => costs.seconds(n, "prefill"),
  decode_bytes_with_weights: (costs, n) => costs.movedBytes(n, "decode"),
  prefill_flops_mixing: (costs, n) => costs.mixingFlops(n),
};

function crossing(name, ours, twin, searched) {
  const cost = COSTS[name];
  const ripple = name.startsWith("prefill") ? ours.model.chunk_size : 0;
  return lastCrossing((n) => OPERATORS["-"](cost(twin, n), cost(ours, n)) > 0, searched, ripple);
}

// The last n at which the model is not cheaper; null where that is the end.
function lastCrossing(cheaper, searched, ripple) {
  const grid = crossingGrid(searched, ripple);
  if (!cheaper(grid[grid.length - 1])) return null;
  let above = grid.length - 1;
  while (above > 0 && cheaper(grid[above - 1])) above -= 1;
  if (above === 0) return 0;
  let low = grid[above - 1], high = grid[above];
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (cheaper(middle)) high = middle; else low = middle;
  }
  for (let n = low + 2 * ripple; n > low; n -= 1) if (!cheaper(n)) return n;
  return low;
}

function crossingGrid(searched, ripple) {
  const grid = [1];
  while (grid[grid.length - 1] < searched) {
    const last = grid[grid.length - 1];
    if (last > 1) grid.push(Math.floor((last * 3) / 2), last * 2); else grid.push(2);
  }
  if (!ripple) return grid;
  const all = new Set([...grid, ...grid.map((n) => n + 1)]);
  for (let n = 1; n < 4 * ripple; n += ripple) all.add(n);
  return [...all].sort((a, b) => a - b);
}
