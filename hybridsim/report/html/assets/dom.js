// Elements, and files that the reader saves.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

function save(name, type, content) {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

function svgText(drawing) {
  const copy = drawing.cloneNode(true);
  const [, , width, height] = copy.getAttribute("viewBox").split(" ");
  copy.setAttribute("xmlns", SVG);
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  copy.querySelectorAll(".cursor").forEach((element) => element.remove());
  return new XMLSerializer().serializeToString(copy);
}

function savePng(name, drawing) {
  const image = new Image();
  image.onload = () => {
    const canvas = h("canvas", { width: 2 * image.width, height: 2 * image.height });
    const context = canvas.getContext("2d");
    context.fillStyle = "#fff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((blob) => save(name, "image/png", blob));
  };
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svgText(drawing))}`;
}

function csvText(rows) {
  const cell = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return rows.map((row) => row.map(cell).join(",") + "\n").join("");
}

function tools(name, drawingOf, rowsOf) {
  return h("div", { class: "tools" },
    h("button", { type: "button", onclick: () => save(`${name}.svg`, "image/svg+xml", svgText(drawingOf())) }, "SVG"),
    h("button", { type: "button", onclick: () => savePng(`${name}.png`, drawingOf()) }, "PNG"),
    h("button", { type: "button", onclick: () => save(`${name}.csv`, "text/csv", csvText(rowsOf())) }, "CSV"));
}

// What the address says about the page's state: shared by the explorer and the scatter.
const address = {
  read: () => new URLSearchParams(location.hash.slice(1)),
  write(prefix, values) {
    const found = address.read();
    for (const key of [...found.keys()]) if (key.startsWith(prefix)) found.delete(key);
    for (const [key, value] of Object.entries(values)) found.set(prefix + key, value);
    history.replaceState(null, "", `#${found}`);
  },
};
