"use strict";

// The list of runs, asked for anew while somebody looks.
const EVERY = 2000;
const body = document.querySelector(".runs tbody");
const chosen = new Set();
let last = "";

function cell(label, text, properties = {}) {
  const empty = text === "" || text === "–";
  return el("td", { "data-label": label, className: empty ? "none" : "", ...properties }, text || "–");
}

function rowOf(run) {
  const pick = el("input", { type: "checkbox", checked: chosen.has(run.name), "aria-label": `Compare ${run.name}` });
  pick.addEventListener("change", () => {
    if (pick.checked) chosen.add(run.name);
    else chosen.delete(run.name);
    choosing();
  });
  const best = run.best ? `${run.value}` : "–";
  return el("tr", { "data-run": run.name },
    el("td", { className: "pick" }, pick),
    el("th", { scope: "row" }, el("a", { href: `/runs/${encodeURIComponent(run.name)}` }, run.name)),
    el("td", {}, el("span", { className: `status ${run.status}` }, run.status)),
    cell("model", run.model),
    cell("best", best, { className: best === "–" ? "number none" : "number" }),
    cell("bare base", run.base, { className: run.base === "–" ? "number none" : "number" }),
    cell("measure", run.metric),
    cell("candidates", String(run.candidates), { className: "number" }),
    cell("time", run.took, { className: "number" }),
    cell("started", local(run.started)));
}

function choosing() {
  byId("compare").disabled = chosen.size < 1;
  byId("compare").textContent = chosen.size === 1 ? "Compare its settings" : "Compare";
  byId("chosen").textContent = chosen.size ? `${plural(chosen.size, "run")} chosen.` : "Choose runs to compare them.";
}

function draw(runs) {
  const going = runs.filter((run) => run.status === "running").length;
  byId("summary").textContent = runs.length
    ? `${plural(runs.length, "run")}, ${going ? `${going} going on` : "none going on"}.`
    : "There is no run here yet. The first appears as soon as it begins.";
  shown("list", runs.length > 0);
  shown("choose", runs.length > 0);
  for (const name of [...chosen]) if (!runs.some((run) => run.name === name)) chosen.delete(name);
  const focused = document.activeElement?.closest("tr")?.dataset.run;
  const inPick = document.activeElement?.type === "checkbox";
  body.replaceChildren(...runs.map(rowOf));
  const again = focused && [...body.rows].find((row) => row.dataset.run === focused);
  if (again) again.querySelector(inPick ? "input" : "a").focus();
  choosing();
}

async function look() {
  if (!document.hidden) {
    try {
      const { runs } = await ask("/runs.json");
      const text = JSON.stringify(runs);
      if (text !== last) draw(runs);
      last = text;
      linked("live", "up to date");
    } catch (error) {
      linked("lost", error instanceof TypeError ? "the server does not answer" : error.message);
    }
  }
  setTimeout(look, EVERY);
}

byId("choose").addEventListener("submit", (event) => {
  event.preventDefault();
  location.href = `/compare?${[...chosen].map((name) => `run=${encodeURIComponent(name)}`).join("&")}`;
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) last = ""; });
look();
