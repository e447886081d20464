"use strict";

// One run, live: a snapshot first, then a stream of what is new for as long as somebody looks.
const run = document.body.dataset.run;
const home = `/runs/${encodeURIComponent(run)}`;
const FIRST = 100;
const rows = new Map();
const lines = new Map();
const charts = new Charts(byId("figures"), rows);
const table = document.querySelector("table.live");
let head = {}, columns = [], sorting = null, all = false;
let source = null, place = "", version = -1, boot = "", beginning = null;

// -- reading

async function begin() {
  stop();
  linked("", "reading");
  try {
    const snapshot = await ask(`${home}/snapshot`);
    rows.clear();
    lines.clear();
    table.tBodies[0].replaceChildren();
    ({ place, version, boot } = snapshot);
    apply(snapshot.pieces);
    charts.begin(snapshot.figures, snapshot.best_steps);
    keyed();
    follow();
  } catch (error) {
    linked("lost", error instanceof TypeError ? "the server does not answer" : error.message);
    beginning = setTimeout(begin, 2000);
  }
}

function follow() {
  if (source || document.hidden || !place) return;
  source = new EventSource(`${home}/stream?place=${place}&version=${version}&boot=${boot}`);
  source.onopen = () => linked("live", "live");
  source.onmessage = (event) => {
    const { points, pieces } = JSON.parse(event.data);
    place = event.lastEventId || place;
    apply(pieces);
    charts.add(points);
    if (points.length || Object.keys(pieces).length) keyed();
  };
  source.addEventListener("again", begin);
  source.onerror = () => {
    linked("lost", "the server does not answer; trying again");
    // a browser gives up on a refusal, such as after a restart with another token
    if (source && source.readyState === EventSource.CLOSED) {
      stop();
      beginning = setTimeout(begin, 2000);
    }
  };
}

function stop() {
  clearTimeout(beginning);
  if (source) source.close();
  source = null;
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    stop();
  } else {
    // what was missed comes with the first message
    version = -1;
    if (place) follow();
    else begin();
    charts.soon();
  }
});

// -- showing

const SHOWN = { head: showHead, columns: showColumns, findings: showFindings, notes: showNotes,
  forecast: showForecast, devices: showDevices, workers: showWorkers, commands: showCommands, samples: showSamples };

function apply(pieces) {
  if (pieces.head) SHOWN.head(pieces.head);
  if (pieces.columns) SHOWN.columns(pieces.columns);
  let changed = Boolean(pieces.columns || pieces.head);
  for (const [name, piece] of Object.entries(pieces)) {
    if (name.startsWith("row:")) {
      changed = true;
      showRow(name.slice(4), piece);
    } else if (name in SHOWN && name !== "head" && name !== "columns") {
      SHOWN[name](piece);
    }
  }
  if (changed) order();
}

function showHead(given) {
  const before = head;
  head = given;
  const going = head.alive && head.status === "running";
  filled(byId("line"),
    `loraloom ${head.verb}`, el("span", {}, head.name), el("span", {}, head.model),
    el("span", {}, local(head.started)), el("span", {}, head.took),
    el("span", { className: `status ${head.status}`, title: head.reason }, head.status),
    head.report && !going ? el("span", {}, el("a", { href: `${home}/report` }, "report")) : null,
    el("span", {}, el("a", { href: `/compare?run=${encodeURIComponent(run)}` }, "compare its settings")));
  byId("title").textContent = head.title;
  byId("support").replaceChildren(...head.support.map((text) => el("p", { className: "support" }, text)));
  byId("facts").replaceChildren(...head.facts.map((fact) => el("div", { className: fact.certainty || "" },
    el("dt", {}, fact.label), el("dd", {}, el("strong", {}, fact.value), fact.note ? el("small", {}, fact.note) : null))));
  const counts = Object.entries(head.counts).map(([status, count]) => `${count} ${status}`).join(", ");
  byId("counts").textContent = counts
    ? `${counts}. ${sorting ? "Sorted by you" : "Best first"}; ± is one standard error; bare base ${head.base}.`
    : "No candidate has begun yet.";
  shown("resume", Boolean(head.resume)).querySelector("code").textContent = head.resume || "";
  if (before.status && before.status !== head.status) say(`The run is ${head.status}.`);
  if (before.alive !== head.alive) refreshCommands();
}

function showColumns(given) {
  columns = given;
  const headings = columns.map((column, index) => {
    const button = el("button", { type: "button" }, column.heading);
    button.addEventListener("click", () => sortBy(index));
    return el("th", { scope: "col", className: column.numeric ? "number" : "" }, button);
  });
  table.tHead.rows[0].replaceChildren(...headings, el("th", { scope: "col", className: "plain" }, el("span", { className: "unseen" }, "commands")));
  for (const trial of [...lines.keys()]) lines.delete(trial);
  table.tBodies[0].replaceChildren();
  for (const [trial, row] of rows) showRow(trial, row);
}

function showRow(trial, row) {
  if (row === null) {
    rows.delete(trial);
    lines.get(trial)?.remove();
    lines.delete(trial);
    return;
  }
  const before = rows.get(trial);
  rows.set(trial, row);
  if (before && before.status !== row.status && row.status !== "running") {
    say(`${trial} is ${row.status}.`);
  }
  if (lines.has(trial)) fill(lines.get(trial), row);
}

function lineOf(trial) {
  let line = lines.get(trial);
  if (line) return line;
  line = el("tr", { "data-trial": trial });
  line.append(...columns.map((column, index) => (index ? el("td") : el("th", { scope: "row" }))), el("td", { className: "row-commands" }));
  line.addEventListener("mouseenter", () => charts.emphasise(trial));
  line.addEventListener("mouseleave", () => charts.emphasise(null));
  line.addEventListener("focusin", () => charts.emphasise(trial));
  line.addEventListener("focusout", () => charts.emphasise(null));
  lines.set(trial, line);
  fill(line, rows.get(trial));
  return line;
}

function fill(line, row) {
  line.className = row.role;
  columns.forEach((column, index) => {
    const [text] = row.cells[index];
    const cell = line.cells[index];
    const state = column.key === "status" ? `${text} ${row.steps}/${row.planned}` : text + (index ? "" : row.mark);
    if (cell.dataset.state === state) return;
    cell.dataset.state = state;
    if (index === 0) {
      const name = el("button", { type: "button", className: "name", "aria-label": `${row.trial}: settings` }, text);
      name.addEventListener("click", () => details(row.trial));
      cell.replaceChildren(name, row.mark ? el("mark", {}, ` ${row.mark}`) : "");
    } else if (column.key === "status") {
      const going = row.status === "running" || row.status === "waiting";
      const bar = going && row.planned
        ? el("progress", { max: row.planned, value: row.steps, "aria-label": `${row.trial}: steps done` }) : null;
      const words = going && row.planned ? `${text} ${row.steps}/${row.planned}` : text;
      cell.replaceChildren(el("span", { className: `status ${text}`, title: row.reason }, words), bar || "");
      cell.className = "";
    } else {
      cell.textContent = text;
      cell.className = [column.numeric ? "number" : "", text === "–" ? "none" : "",
        column.importance > 4 ? "minor" : ""].join(" ").trim();
      cell.dataset.label = column.heading;
    }
  });
  rowCommands(line.cells[columns.length], row);
}

// -- order

function sortBy(index) {
  const ascending = !(sorting && sorting.index === index && sorting.ascending);
  sorting = { index, ascending };
  [...table.tHead.rows[0].cells].forEach((cell, at) => {
    if (at === index) cell.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    else cell.removeAttribute("aria-sort");
  });
  order();
}

function compareRanks(left, right) {
  for (let place = 0; place < left.rank.length; place += 1) {
    if (left.rank[place] < right.rank[place]) return -1;
    if (left.rank[place] > right.rank[place]) return 1;
  }
  return 0;
}

function comparison() {
  if (!sorting) return compareRanks;
  const { index, ascending } = sorting;
  const { numeric } = columns[index];
  return (left, right) => {
    const [a, b] = [left.cells[index][1], right.cells[index][1]];
    if (a === "" || b === "") return (a === "") - (b === "");
    const found = numeric ? a - b : a.localeCompare(b, "en", { numeric: true });
    return ascending ? found : -found;
  };
}

// Rows in their order; of many, the first hundred until somebody wants all.
function order() {
  const sorted = [...rows.values()].sort(comparison());
  const wanted = (all ? sorted : sorted.slice(0, FIRST)).map((row) => row.trial);
  const body = table.tBodies[0];
  const focused = document.activeElement;
  wanted.forEach((trial, index) => {
    const line = lineOf(trial);
    if (body.rows[index] !== line) body.insertBefore(line, body.rows[index] || null);
  });
  while (body.rows.length > wanted.length) {
    const gone = body.rows[body.rows.length - 1];
    lines.delete(gone.dataset.trial);
    gone.remove();
  }
  if (focused !== document.activeElement && focused?.isConnected) focused.focus({ preventScroll: true });
  const more = sorted.length - wanted.length;
  shown("all", more > 0).textContent = `Show all ${sorted.length.toLocaleString("en")} candidates`;
}

byId("all").addEventListener("click", () => {
  all = true;
  order();
});

// -- the other parts

function keyed() {
  const items = charts.key();
  shown("curves", items.length > 0);
  byId("key").replaceChildren(...items);
}

for (const button of document.querySelectorAll("[data-axis]")) {
  button.addEventListener("click", () => {
    document.querySelectorAll("[data-axis]").forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
    charts.useAxis(button.dataset.axis);
  });
}

byId("bars").addEventListener("click", (event) => {
  const on = event.currentTarget.getAttribute("aria-pressed") !== "true";
  event.currentTarget.setAttribute("aria-pressed", String(on));
  charts.useBars(on);
});

function showFindings({ shown: found, more }) {
  const section = shown("findings", found.length > 0);
  const articles = found.map((one) => el("article", { className: `finding ${one.level}` },
    el("h3", {}, `${one.level}: ${one.symptom}`, one.trial ? el("small", {}, one.trial) : null),
    el("p", {}, one.evidence), el("p", { className: "next" }, one.next)));
  const rest = more ? [el("p", { className: "hint" }, `${plural(more, "finding")} more in the report.`)] : [];
  section.querySelector("div").replaceChildren(...articles, ...rest);
}

function showNotes(notes) {
  shown("notes", notes.length > 0).querySelector("ul").replaceChildren(...notes.map((note) => el("li", {}, note)));
}

function showForecast(forecasts) {
  const boxes = forecasts.map((one) => el("div", { className: "forecast" },
    el("h3", {}, one.name),
    el("p", {}, el("b", {}, one.now), " of ", el("b", {}, one.expected), ` expected (${one.between})`,
      one.verdict ? `: ${one.verdict}` : ""),
    one.share === null ? null : el("progress", { max: 1, value: one.share, "aria-label": `${one.name} so far` })));
  shown("forecast", boxes.length > 0).querySelector("div").replaceChildren(...boxes);
}

function showDevices(pairs) {
  const found = pairs.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)));
  shown("devices", found.length > 0).querySelector("dl").replaceChildren(...found);
}

function showWorkers(found) {
  const cell = (label, text, more = {}) => el("td", { "data-label": label, ...more }, text);
  const lines = found.map((one) => el("tr", {}, el("th", { scope: "row" }, one.name), cell("on", one.place),
    cell("trains", one.trials.join(", ") || "nothing"),
    cell("heard", "", { className: "number", "data-heard": one.heard })));
  shown("workers", found.length > 0).querySelector("tbody").replaceChildren(...lines);
  heard();
}

// How long ago each worker said something: this goes on while nothing comes.
function heard() {
  for (const cell of document.querySelectorAll("[data-heard]")) {
    const seconds = Math.max(0, Math.round(Date.now() / 1000 - Number(cell.dataset.heard)));
    const text = seconds < 120 ? `${seconds} s ago` : `${Math.round(seconds / 60)} min ago`;
    if (cell.textContent !== text) cell.textContent = text;
  }
}

setInterval(heard, 1000);

function showSamples(samples) {
  const answer = (title, text, look = "") => el("div", { className: look }, el("h3", {}, title), el("p", {}, text || "(nothing)"));
  const found = samples.map((one) => el("article", { className: "sample" },
    el("p", { className: "prompt", tabIndex: 0 }, one.prompt),
    el("div", { className: "answers" }, answer("bare base", one.base), answer(head.best || "adapter", one.best, "best"),
      answer("in the data", one.wanted, "wanted"))));
  shown("samples", found.length > 0).querySelector("div").replaceChildren(...found);
}

begin();
