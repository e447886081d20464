"use strict";

// What `loraloom compare` says of several runs.
const SHORT = { trainable_parameters: "parameters", peak_bytes: "memory", seconds: "time" };
const signed = (value) => (value > 0 ? "+" : "") + Number(value).toPrecision(3);
const withError = ({ mean, se }) => (se ? `${mean.toFixed(3)} ± ${se.toFixed(3)}` : mean.toFixed(3));

function value(text) {
  if (text === null || text === undefined) return "–";
  if (typeof text === "number") return String(Number(text.toPrecision(3)));
  return typeof text === "string" ? text : JSON.stringify(text);
}

function headings(found, keys, splits) {
  const names = ["candidate", ...keys.map((key) => key.split(".").pop().replaceAll("_", " ")), "seeds"];
  names.push(...splits.map((split) => `${split} ${found.metric.replaceAll("_", " ")}`));
  return [...names, "gain", "95% interval", "time", "trained", "on the front of"];
}

function line(found, one, keys, splits, names) {
  const mark = one.name === found.keep ? "keep" : one.name === found.reference ? "reference" : "";
  const gain = one.gain;
  const cells = [
    ...keys.map((key) => value(one.params[key])),
    String(one.trials.length),
    ...splits.map((split) => (one.values[split] ? withError(one.values[split]) : "–")),
    gain ? `${signed(gain.mean)}${gain.low > 0 || gain.high < 0 ? "" : " (may be noise)"}` : "–",
    gain ? `${signed(gain.low)} to ${signed(gain.high)}` : "–",
    `${one.seconds.toFixed(1)} s`,
    one.trainable_parameters.toLocaleString("en"),
    one.front.map((price) => SHORT[price] || price).join(", ") || "–",
  ];
  const first = el("th", { scope: "row" }, one.name, mark ? el("mark", {}, ` ${mark}`) : null);
  return el("tr", { className: one.name === found.keep ? "best" : "" }, first,
    cells.map((text, place) => el("td", { "data-label": names[place + 1], className: looks(text) }, text)));
}

// Columns of numbers stand right, so that their digits stand below each other.
const looks = (text) => [/^[+-]?\d/.test(text) ? "number" : "", text === "–" ? "number none" : ""].join(" ").trim();

function draw(found) {
  const keys = [...new Set(found.lines.flatMap((one) => Object.keys(one.params)))]
    .filter((key) => new Set(found.lines.map((one) => value(one.params[key]))).size > 1);
  const order = ["validation", "confirm", "test"];
  const splits = order.filter((split) => found.lines.some((one) => split in one.values));
  const names = headings(found, keys, splits);
  byId("title").textContent = found.keep ? `Keep ${found.keep}` : "Nothing to choose between them";
  byId("verdict").textContent = found.verdict;
  byId("remarks").replaceChildren(...found.notes.map((note) => el("p", { className: "support" }, note)));
  byId("lines-hint").textContent =
    `± one standard error, ${found.direction === "minimize" ? "lower" : "higher"} is better; gain over ${found.reference}.`;
  const table = shown("lines", true).querySelector("table");
  table.tHead.rows[0].replaceChildren(...names.map((name, place) => el("th", { scope: "col",
    className: place && name !== names[names.length - 1] ? "number" : "" }, name)));
  table.tBodies[0].replaceChildren(...found.lines.map((one) => line(found, one, keys, splits, names)));
  mattered(found.importance);
}

function mattered({ shares, note }) {
  const section = shown("mattered", true);
  section.querySelector(".hint").textContent = note
    ? `That cannot be told: ${note}.` : "The share of each setting in what sets good candidates apart from all.";
  const bars = note ? [] : Object.entries(shares).map(([key, share]) => {
    const bar = el("span");
    bar.style.width = `${100 * share}%`;
    return el("div", {}, el("dt", {}, key), el("dd", {}, bar, el("b", {}, `${Math.round(100 * share)}%`)));
  });
  section.querySelector(".bars").replaceChildren(...bars);
}

ask(`/compare.json${location.search}`).then(draw).catch((error) => {
  byId("title").textContent = "They cannot be compared";
  byId("verdict").textContent = error.message;
});
