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

// Figures: plotly.js draws, colours and fonts come from the style sheet, so that dark mode and print follow it.
const store = document.getElementById("figures");
if (store && window.Plotly) {
  const figures = JSON.parse(store.textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const axes = { share: "share of the candidate’s own training", step: "optimiser steps", epoch: "epochs" };
  const widths = { best: 3.2, default: 2.4, other: 1.5, pruned: 1.2, diverged: 1.2, failed: 1.2 };
  const tones = { best: "--best", default: "--default", other: "--other", pruned: "--pruned", diverged: "--bad", failed: "--bad" };
  let axis = "share";

  const tone = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Figures that are no curves name their colours by the style sheet's properties.
  const toned = (value) => {
    if (typeof value === "string") return value.startsWith("--") ? tone(value) : value;
    if (Array.isArray(value)) return value.map(toned);
    return value && typeof value === "object" ? Object.fromEntries(Object.entries(value).map(([key, part]) => [key, toned(part)])) : value;
  };

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
    const line = { gridcolor: tone("--rule"), zeroline: false, linecolor: tone("--rule"), tickcolor: tone("--rule"), automargin: true };
    const layout = toned(figure.layout);
    const curves = figure.group === "curves";
    const along = curves ? { title: { text: axes[axis] }, tickformat: axis === "share" ? ".0%" : "", rangemode: "tozero" } : {};
    const titled = (given, standoff) => (given.title ? { ...given, title: { ...given.title, standoff } } : given);
    return {
      ...layout,
      showlegend: false,
      font: { family: tone("--sans"), size: 12, color: tone("--soft") },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: narrow ? 44 : 60, r: 12, t: 8, b: 46 },
      hovermode: "closest",
      dragmode: narrow ? false : "zoom",
      hoverlabel: { bgcolor: tone("--panel"), bordercolor: tone("--rule"), font: { color: tone("--ink"), family: tone("--sans"), size: 12 } },
      xaxis: { ...line, ...titled({ ...along, ...layout.xaxis }, 10) },
      yaxis: { ...line, ...titled(layout.yaxis, 8) },
      shapes: (layout.shapes || []).map((shape) => ({ ...shape, line: { color: tone("--faint"), ...shape.line } })),
      annotations: (layout.annotations || []).map((note) => ({ ...note, font: { color: tone("--faint"), size: 11, ...note.font } })),
    };
  }

  const plots = figures.map((figure) => [figure, document.getElementById(figure.place)]);
  const curves = plots.filter(([figure]) => figure.group === "curves");
  const config = { responsive: true, displaylogo: false, displayModeBar: false };
  // On paper nothing measures the page again, so that the width is given.
  const draw = (printing = false, some = plots) => some.forEach(([figure, place]) => {
    const size = printing ? { width: figure.group === "front" ? 340 : 700, height: figure.height || 290 } : { autosize: true };
    const traces = figure.traces.map(figure.group === "curves" ? traceOf : toned);
    Plotly.react(place, traces, { ...layoutOf(figure), ...size }, config);
  });
  draw();
  dark.addEventListener("change", () => draw());
  window.matchMedia("print").addEventListener("change", (event) => draw(event.matches));

  // An axis that no candidate has numbers for cannot be chosen.
  for (const button of document.querySelectorAll("[data-axis]")) {
    const known = curves.some(([figure]) => figure.traces.some((trace) => trace.meta[button.dataset.axis].some((x) => x !== null)));
    button.hidden = !known;
    button.addEventListener("click", () => {
      axis = button.dataset.axis;
      document.querySelectorAll("[data-axis]").forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
      draw(false, curves);
    });
  }

  // A row under the pointer shows its own curves.
  const emphasise = (trial, on) => curves.forEach(([figure, place]) => {
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
