// The page: each section from its data.

function factsOf(facts) {
  return h("dl", { class: "facts" }, ...facts.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value === null ? "-" : value)]));
}

function madeBy(run) {
  return h("details", { class: "made" }, h("summary", {}, "How it was made"), factsOf(run.facts), h("p", {}, h("code", {}, run.command)));
}

function sectionOf(data) {
  const element = h("section", { id: data.id, tabindex: "-1", "aria-label": data.title },
    h("h2", {}, data.title), ...data.lead.map((line) => h("p", {}, line)), data.facts.length ? factsOf(data.facts) : null);
  if (data.pattern) element.append(h("p", {}, strip(data.pattern, data.letters), " ", h("code", {}, data.pattern)), keyOf(data.letters));
  const scatter = data.pareto ? new Pareto(data.pareto, data.letters) : null;
  if (scatter) element.append(scatter.element, ...data.tables.map((one) => table(one, data.letters, (row) => scatter.chooseTrial(row.trial))));
  if (data.figures.length) element.append(h("div", { class: "figures" }, ...data.figures.map(figure)));
  if (!scatter) element.append(...data.tables.map((one) => table(one, data.letters)));
  if (data.made) element.append(madeBy(data.made));
  return element;
}

function keyOf(letters) {
  return legendOf(Object.entries(letters || {}).map(([letter, { title, role }]) => ({
    name: `${letter} ${title}`,
    sign: [svg("rect", { x: 8, y: role === "full" ? 0 : 3, width: 8, height: role === "full" ? 12 : 9, fill: COLOUR_OF_ROLE[role] })],
  })));
}

function explorerSection(book) {
  return h("section", { id: "explorer", tabindex: "-1", "aria-label": "Explorer" }, h("h2", {}, "Explorer"),
    h("p", {}, "Any pattern, context, batch, number format, device and size. Bytes and FLOPs are hybridsim's closed forms, evaluated here with exact integers; times are its roofline model."),
    new Explorer(book).element);
}

function goTo(event, id) {
  event.preventDefault();
  const target = document.getElementById(id);
  target.scrollIntoView();
  target.focus({ preventScroll: true });
}

const main = document.querySelector("main"), nav = document.querySelector("nav");
for (const data of report.sections) main.append(sectionOf(data));
if (report.explorer) main.append(explorerSection(report.explorer));
for (const element of main.querySelectorAll("section")) {
  nav.append(h("a", { href: `#${element.id}`, onclick: (event) => goTo(event, element.id) }, element.getAttribute("aria-label")));
}
document.querySelector(".skip").addEventListener("click", (event) => goTo(event, "main"));
redrawAll();
window.addEventListener("resize", () => requestAnimationFrame(redrawAll));
window.addEventListener("beforeprint", () => document.querySelectorAll("details.made").forEach((one) => { one.open = true; }));
document.documentElement.dataset.ready = "yes";
