// Numbers for people. A BigInt is exact, a Number is a double.

const BINARY = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
const DECIMAL = ["", "k", "M", "G", "T", "P", "E", "Z"];

function threeDigits(value) {
  const number = Number(value);
  return Math.abs(number) >= 100 ? number.toFixed(0) : String(Number(number.toPrecision(3)));
}

function scaled(value, base, units) {
  let number = Number(value), step = 0;
  while (Math.abs(number) >= base && step < units.length - 1) { number /= base; step += 1; }
  return [threeDigits(number), units[step]];
}

function exactText(value) {
  return String(value).replace(/\B(?=(\d{3})+$)/g, ",");
}

function secondsText(value) {
  if (value === 0) return "0 s";
  for (const [unit, size] of [["s", 1], ["ms", 1e-3], ["us", 1e-6]]) {
    if (value >= size) return `${threeDigits(value / size)} ${unit}`;
  }
  return `${threeDigits(value / 1e-9)} ns`;
}

function tokensText(value) {
  const number = Math.round(Number(value));
  for (const [size, unit] of [[1 << 20, "M"], [1 << 10, "k"]]) {
    if (number >= size && number % size === 0) return `${number / size}${unit}`;
  }
  return exactText(number);
}

const TEXTS = {
  text: String,
  name: String,
  pattern: String,
  number: (v) => (Math.abs(v) < 1e-4 && v !== 0 ? Number(v).toExponential(2) : String(Number(Number(v).toPrecision(4)))),
  count: (v) => (Number.isInteger(Number(v)) && Math.abs(Number(v)) < 1e15 ? exactText(v) : scaled(v, 1000, DECIMAL).join(" ").trim()),
  amount: (v) => scaled(v, 1000, DECIMAL).join(" ").trim(),
  bytes: (v) => scaled(v, 1024, BINARY).join(" "),
  seconds: secondsText,
  tokens: tokensText,
  share: (v) => `${Number((100 * v).toPrecision(3))} %`,
  yes: (v) => (v === true ? "yes" : v === false ? "no" : String(v)),
  usd: (v) => `${Number(Number(v).toPrecision(4))} USD`,
};

function textOf(kind, value) {
  if (value === null || value === undefined || value === "") return "-";
  return (TEXTS[kind] || String)(value);
}

// On an axis there is room for little.
function tickText(kind, value) {
  if (kind === "count") return TEXTS.amount(value);
  if (kind === "number") return Math.abs(value) >= 1e4 ? TEXTS.amount(value) : TEXTS.number(value);
  return textOf(kind, value);
}
