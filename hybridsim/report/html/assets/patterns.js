// Layer patterns in the explorer: which letter may stand where, and evenly spread full attention.

// Layers that mix tokens: where a layer is a feed-forward of its own there is nothing to choose.
const mixingLayers = (model) => [...model.layer_pattern].map((letter, i) => [letter, i]).filter(([letter]) => model.letters[letter].role !== "other").map(([, i]) => i);

const lettersFor = (model, layer) => {
  const there = model.layer_pattern[layer];
  return model.letters[there].role === "other" ? [there] : Object.keys(model.letters).filter((letter) => model.letters[letter].role !== "other");
};

function allowed(model, pattern) {
  return pattern.length === model.layer_pattern.length && [...pattern].every((letter, i) => lettersFor(model, i).includes(letter));
}

function fullLayers(model, letters) {
  const count = [...letters].filter((letter) => model.letters[letter].role === "full").length;
  return { count, letter: model.full_letter, cheap: model.cheap_letter };
}

// The j-th of k full layers stands in the middle of the j-th of k equal parts.
function evenLadder(model, count) {
  const layers = mixingLayers(model), letters = [...model.layer_pattern];
  const full = new Set(Array.from({ length: count }, (_, j) => layers[Math.floor(((j + 0.5) * layers.length) / count)]));
  for (const layer of layers) letters[layer] = full.has(layer) ? model.full_letter : model.cheap_letter;
  return letters.join("");
}

// The same layers with full attention everywhere; null where it is the model itself.
function twinOf(model, letters) {
  if (model.full_letter === null) return null;
  const twin = [...letters].map((letter) => (model.letters[letter].role === "cheap" ? model.full_letter : letter)).join("");
  return twin === letters ? null : twin;
}

function ratioText(full, all) {
  if (full === 0) return `none of ${all}`;
  const others = (all - full) / full;
  return `${full} of ${all}${full === all ? "" : ` (${Number(others.toFixed(1))}:1)`}`;
}

function sizeTitle(model, name) {
  const parts = name.split(".");
  if (parts.length === 1) return name.replaceAll("_", " ");
  return `${parts[1]}: ${parts[2].replaceAll("_", " ")}`;
}
