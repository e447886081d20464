"use strict";

// Sorting: a click sorts by a column, a second one turns it round. What is not known stays at the end.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  heads.forEach((head, index) => head.firstElementChild.addEventListener("click", () => {
    const ascending = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const orderOf = (row) => row.cells[index].dataset.order;
    const compare = (a, b) => head.classList.contains("number") ? a - b : a.localeCompare(b, "en", { numeric: true });
    body.append(...[...body.rows].sort((left, right) => {
      const [a, b] = [orderOf(left), orderOf(right)];
      if (a === "" || b === "") return (a === "") - (b === "");
      return ascending ? compare(a, b) : compare(b, a);
    }));
  }));
}

// Curves: plotly.js draws, colours and fonts come from the style sheet, so that dark mode and print follow it.
const store = document.getElementById("figures");
if (store && window.Plotly) {
  const figures = JSON.parse(store.textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const axes = { share: "share of the candidate’s own training", step: "optimiser steps", epoch: "epochs" };
  const widths = { best: 3.2, default: 2.4, other: 1.5, pruned: 1.2, diverged: 1.2, failed: 1.2 };
  const tones = { best: "--best", default: "--default", other: "--other", pruned: "--pruned", diverged: "--bad", failed: "--bad" };
  let axis = "share";

  const tone = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function traceOf(trace) {
    const { role } = trace.meta;
    const colour = tone(tones[role]);
    return {
      ...trace,
      x: trace.meta[axis],
      showlegend: false,
      cliponaxis: false,
      opacity: role === "best" || role === "default" ? 1 : 0.8,
      line: { color: colour, width: widths[role] },
      marker: { ...trace.marker, color: colour, opacity: 1, line: { width: 0 } },
    };
  }

  function layoutOf(figure) {
    const narrow = window.innerWidth < 640;
    const base = { gridcolor: tone("--rule"), zeroline: false, linecolor: tone("--rule"), tickcolor: tone("--rule"), automargin: true };
    const { layout } = figure;
    return {
      ...layout,
      font: { family: tone("--sans"), size: 12, color: tone("--soft") },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: narrow ? 44 : 60, r: 12, t: 8, b: 46 },
      hovermode: "closest",
      dragmode: narrow ? false : "zoom",
      hoverlabel: { bgcolor: tone("--panel"), bordercolor: tone("--rule"), font: { color: tone("--ink"), family: tone("--sans"), size: 12 } },
      xaxis: { ...base, title: { text: axes[axis], standoff: 10 }, tickformat: axis === "share" ? ".0%" : "", rangemode: "tozero" },
      yaxis: { ...base, ...layout.yaxis, title: { ...layout.yaxis.title, standoff: 8 } },
      shapes: (layout.shapes || []).map((shape) => ({ ...shape, line: { ...shape.line, color: tone("--faint") } })),
      annotations: (layout.annotations || []).map((note) => ({ ...note, font: { color: tone("--faint"), size: 11 } })),
    };
  }

  const plots = figures.map((figure, index) => [figure, document.getElementById(`plot-${index + 1}`)]);
  const config = { responsive: true, displaylogo: false, displayModeBar: false };
  // On paper nothing measures the page again, so that the width is given.
  const draw = (printing = false) => plots.forEach(([figure, place]) => {
    const size = printing ? { width: 700, height: 290 } : { autosize: true };
    Plotly.react(place, figure.traces.map(traceOf), { ...layoutOf(figure), ...size }, config);
  });
  draw();
  dark.addEventListener("change", () => draw());
  window.matchMedia("print").addEventListener("change", (event) => draw(event.matches));

  // An axis that no candidate has numbers for cannot be chosen.
  for (const button of document.querySelectorAll("[data-axis]")) {
    const known = figures.some((figure) => figure.traces.some((trace) => trace.meta[button.dataset.axis].some((x) => x !== null)));
    button.hidden = !known;
    button.addEventListener("click", () => {
      axis = button.dataset.axis;
      document.querySelectorAll("[data-axis]").forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
      draw();
    });
  }

  // A row under the pointer shows its own curves in every figure.
  const emphasise = (trial, on) => plots.forEach(([figure, place]) => {
    const index = figure.traces.findIndex((trace) => trace.meta.trial === trial);
    if (index < 0) return;
    const { role } = figure.traces[index].meta;
    Plotly.restyle(place, { "line.width": on ? 4 : widths[role], "line.color": tone(on ? "--ink" : tones[role]) }, [index]);
  });
  for (const row of document.querySelectorAll("tr[data-trial]")) {
    row.addEventListener("mouseenter", () => emphasise(row.dataset.trial, true));
    row.addEventListener("mouseleave", () => emphasise(row.dataset.trial, false));
  }
}
