// Tables that sort, narrow down and save, and layer patterns drawn as strips.

const SHOWN_ROWS = 15;
const WORDS = { text: "words", name: "name", pattern: "name" };
const COLOUR_OF_ROLE = { full: "#e69f00", cheap: "#56b4e9", other: "#c8d0d8" };

// Full attention is taller than the rest, so that it shows without colour too.
function strip(pattern, letters) {
  const size = pattern.length > 50 ? 4 : 6;
  const drawing = svg("svg", { class: "strip", viewBox: `0 0 ${pattern.length * size} 16`, width: pattern.length * size, role: "img", "aria-label": pattern });
  [...pattern].forEach((letter, i) => {
    const role = letters?.[letter]?.role || "cheap", full = role === "full";
    drawing.append(svg("rect", { x: i * size, y: full ? 0 : 5, width: size - 1, height: full ? 16 : 11, fill: COLOUR_OF_ROLE[role] }));
  });
  drawing.append(svg("title", {}, pattern));
  return drawing;
}

function cellOf(column, row, letters) {
  const value = row[column.key];
  if (column.kind === "pattern" && value) return h("td", { class: "name" }, strip(value, letters));
  const low = row[`${column.key}_low`], high = row[`${column.key}_high`], origin = row[`${column.key}_provenance`];
  const known = low !== null && low !== undefined;
  const sure = [known ? `${textOf(column.kind, low)} to ${textOf(column.kind, high)}` : "", origin || ""].filter(Boolean).join(", ");
  return h("td", { class: WORDS[column.kind] || null, title: typeof value === "number" ? String(value) : null },
    textOf(column.kind, value), sure ? h("div", { class: "sure" }, sure) : null);
}

function compareBy(key, down) {
  return (a, b) => {
    const [x, y] = [a[key], b[key]];
    if (x === null || x === undefined) return 1;
    if (y === null || y === undefined) return -1;
    const order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
    return down ? -order : order;
  };
}

function table(data, letters, onchoose) {
  const state = { key: null, down: false, all: false, text: "" };
  const body = h("tbody"), more = h("button", { type: "button" }), count = h("span", {});
  const matching = () => {
    const rows = state.text ? data.rows.filter((row) => Object.values(row).some((v) => String(v).toLowerCase().includes(state.text))) : [...data.rows];
    return state.key === null ? rows : rows.sort(compareBy(state.key, state.down));
  };
  const heads = data.columns.map((column) => h("th", { scope: "col", class: WORDS[column.kind] || null },
    h("button", { type: "button", title: "sort", onclick: () => {
      state.down = state.key === column.key && !state.down;
      state.key = column.key;
      refresh();
    } }, column.title)));
  const refresh = () => {
    const rows = matching(), shown = state.all ? rows : rows.slice(0, SHOWN_ROWS);
    body.replaceChildren(...shown.map((row) => {
      const line = h("tr", {}, ...data.columns.map((column) => cellOf(column, row, letters)));
      if (onchoose) line.addEventListener("click", () => onchoose(row));
      line.row = row;
      return line;
    }));
    heads.forEach((head, i) => head.setAttribute("aria-sort", data.columns[i].key !== state.key ? "none" : state.down ? "descending" : "ascending"));
    more.hidden = rows.length <= SHOWN_ROWS;
    more.textContent = state.all ? "Show fewer" : `Show all ${rows.length}`;
    count.textContent = data.rows.length > SHOWN_ROWS ? `${rows.length} of ${data.rows.length} rows` : "";
  };
  more.addEventListener("click", () => { state.all = !state.all; refresh(); });
  refresh();
  const search = data.rows.length > 15
    ? h("input", { type: "search", placeholder: "contains", "aria-label": `Rows of ${data.title} that contain`, oninput: (event) => { state.text = event.target.value.toLowerCase(); refresh(); } }) : null;
  const element = h("div", { class: "tabled", id: `table-${data.name}` },
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": data.title },
      h("table", { class: "data" }, h("caption", {}, data.title), h("thead", {}, h("tr", {}, ...heads)), body)),
    data.note ? h("p", { class: "note" }, data.note) : null,
    h("div", { class: "tools" }, search, more, count,
      h("button", { type: "button", onclick: () => save(`${data.name.replaceAll("/", "-")}.csv`, "text/csv", csvText(tableRows(data))) }, "CSV")));
  element.mark = (row) => body.querySelectorAll("tr").forEach((line) => line.classList.toggle("chosen", line.row === row));
  return element;
}

function tableRows(data) {
  const ends = ["", "_low", "_high", "_provenance"];
  const keys = data.columns.flatMap(({ key }) => ends.map((end) => key + end)).filter((key) => data.rows.some((row) => key in row));
  return [keys, ...data.rows.map((row) => keys.map((key) => row[key]))];
}
