"use strict";

// Curves of all candidates. Those that matter have a trace of their own; the others share one for each way
// of drawing, with gaps between them: a thousand traces take a second to draw, ten take a moment.
const LOOKS = {
  best: { colour: "--best", width: 3.2, dash: "solid", words: "best" },
  default: { colour: "--default", width: 2.4, dash: "dash", words: "the plan’s own setting" },
  running: { colour: "--ink", width: 1.8, dash: "solid", words: "in training" },
  other: { colour: "--other", width: 1.5, dash: "solid", words: "other candidates" },
  pruned: { colour: "--pruned", width: 1.2, dash: "dot", words: "pruned" },
  diverged: { colour: "--bad", width: 1.4, dash: "dot", words: "diverged or failed" },
};
const ENDS = { pruned: "x", diverged: "triangle-up" };
const ORDER = ["pruned", "diverged", "other", "running", "default", "best"];
const MOST_OWN = 8;
const FEW = 12;
const MOST_POINTS = 240;
const AXES = { share: "share of the candidate’s own training", step: "optimiser steps", epoch: "epochs" };
const EVERY = 250;

const tone = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

class Charts {
  // rows: a Map of trial -> row, kept by the page.
  constructor(place, rows) {
    this.place = place;
    this.rows = rows;
    this.figures = [];
    this.axis = "share";
    this.focus = null;
    this.bars = true;
    this.bestSteps = {};
    this.drawn = 0;
    this.waiting = 0;
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.soon());
  }

  // Begin anew with what a snapshot has.
  begin(figures, bestSteps) {
    this.bestSteps = bestSteps;
    this.figures = figures.map((figure) => ({ ...figure, curves: new Map(Object.entries(figure.curves)) }));
    this.place.replaceChildren(...this.figures.map((figure) => {
      figure.plot = el("div", { className: "plot", role: "img", "aria-label": figure.title });
      const caption = el("figcaption", {}, el("strong", {}, figure.title), ` ${figure.caption}`);
      figure.box = el("figure", { hidden: true }, caption, figure.plot);
      return figure.box;
    }));
    this.soon();
  }

  // Points as the stream sends them: figure, trial, step, share, epoch, value, error.
  add(points) {
    for (const [id, trial, step, share, epoch, value, error] of points) {
      const curves = this.figures.find((figure) => figure.id === id)?.curves;
      if (!curves || value === null) continue;
      let curve = curves.get(trial);
      if (!curve) curves.set(trial, curve = { step: [], share: [], epoch: [], value: [], error: [] });
      if (curve.step.length && step <= curve.step[curve.step.length - 1]) continue;
      const point = { step, share, epoch, value, error };
      for (const key of Object.keys(curve)) curve[key].push(point[key]);
      if (curve.step.length > MOST_POINTS) thin(curve);
    }
    if (points.length) this.soon();
  }

  // At most four times a second, and not while nobody looks.
  soon() {
    if (this.waiting || document.hidden) return;
    const wait = Math.max(0, EVERY - (performance.now() - this.drawn));
    this.waiting = setTimeout(() => {
      this.waiting = 0;
      this.draw();
    }, wait);
  }

  look(trial) {
    const row = this.rows.get(trial);
    if (!row) return "other";
    if (row.role === "failed") return "diverged";
    if (row.role !== "other") return row.role;
    return row.status === "running" ? "running" : "other";
  }

  draw() {
    if (!window.Plotly || document.hidden) return;
    const began = performance.now();
    for (const figure of this.figures) {
      figure.box.hidden = figure.curves.size === 0;
      if (!figure.box.hidden) this.drawFigure(figure);
    }
    this.drawn = performance.now();
    document.body.dataset.drawMs = (this.drawn - began).toFixed(1);
    document.body.dataset.draws = String(Number(document.body.dataset.draws || 0) + 1);
  }

  drawFigure(figure) {
    const groups = new Map(ORDER.map((look) => [look, []]));
    for (const trial of figure.curves.keys()) groups.get(this.look(trial)).push(trial);
    const limits = this.limits(figure, groups);
    const few = figure.curves.size <= FEW;
    const traces = [];
    for (const [look, trials] of groups) {
      const own = few || look === "best" || look === "default" || (look === "running" && trials.length <= MOST_OWN);
      if (own) traces.push(...trials.map((trial) => this.own(figure, trial, look, limits)));
      else if (trials.length) traces.push(this.shared(figure, trials, look, limits));
      if (look in ENDS && trials.length) traces.push(this.ends(figure, trials, look, limits));
    }
    const focus = this.focus && figure.curves.has(this.focus) ? this.focus : null;
    if (focus) traces.push({ ...this.own(figure, focus, this.look(focus), limits), line: { color: tone("--ink"), width: 4 } });
    const stars = this.stars(figure, limits);
    if (stars) traces.push(stars);
    // New arrays each time: plotly compares them by identity, and one that grew in place is not drawn again.
    Plotly.react(figure.plot, traces, this.layout(figure, limits, groups), { responsive: true, displayModeBar: false });
  }

  own(figure, trial, look, limits) {
    const curve = figure.curves.get(trial);
    const style = LOOKS[look];
    const measured = figure.id !== "train_loss";
    const errors = curve.error.map((error) => error ?? 0);
    return {
      type: "scatter",
      mode: measured ? "lines+markers" : "lines",
      name: trial,
      x: [...curve[this.axis]],
      y: curve.value.map((value) => inside(value, limits)),
      text: curve.value.map((value, place) => point(trial, value, curve.error[place])),
      hovertemplate: "%{text}<extra></extra>",
      line: { color: tone(style.colour), width: style.width, dash: style.dash },
      marker: { color: tone(style.colour), size: 5 },
      error_y: measured && this.barred(figure).includes(trial)
        ? { type: "data", array: errors, color: `${tone(style.colour)}99`, thickness: 1, width: 3 } : { visible: false },
    };
  }

  // Those with error bars: the best and the plan's own setting; before one is chosen, whoever leads. Bars of
  // all would cover the curves.
  barred(figure) {
    if (!this.bars || figure.id === "train_loss") return [];
    const known = [...figure.curves.keys()];
    const marked = known.filter((trial) => ["best", "default"].includes(this.look(trial)));
    const leader = () => known.filter((trial) => this.rows.has(trial))
      .sort((left, right) => compareRanks(this.rows.get(left), this.rows.get(right))).slice(0, 1);
    return [...(marked.some((trial) => this.look(trial) === "best") ? marked : [...marked, ...leader()]),
      ...(this.focus ? [this.focus] : [])];
  }

  shared(figure, trials, look, limits) {
    const x = [], y = [], text = [];
    for (const trial of trials) {
      const curve = figure.curves.get(trial);
      x.push(...curve[this.axis], null);
      y.push(...curve.value.map((value) => inside(value, limits)), null);
      text.push(...curve.value.map((value) => point(trial, value)), "");
    }
    const style = LOOKS[look];
    return {
      type: "scatter", mode: "lines", name: style.words, x, y, text, connectgaps: false, opacity: 0.75,
      hovertemplate: "%{text}<extra></extra>", line: { color: tone(style.colour), width: style.width, dash: style.dash },
    };
  }

  // A mark where each candidate left.
  ends(figure, trials, look, limits) {
    const last = trials.map((trial) => figure.curves.get(trial)).map((curve) => [curve, curve.value.length - 1]);
    return {
      type: "scatter", mode: "markers", name: LOOKS[look].words, cliponaxis: false,
      x: last.map(([curve, place]) => curve[this.axis][place]),
      y: last.map(([curve, place]) => inside(curve.value[place], limits)),
      text: last.map(([curve, place], index) => `${point(trials[index], curve.value[place])}<br>${LOOKS[look].words}`),
      hovertemplate: "%{text}<extra></extra>",
      marker: { symbol: ENDS[look], size: 8, color: tone(look === "pruned" ? "--soft" : "--bad") },
    };
  }

  // The best checkpoint of those that matter most.
  stars(figure, limits) {
    if (figure.id === "train_loss") return null;
    const marks = [];
    for (const trial of figure.curves.keys()) {
      const look = this.look(trial);
      if ((look !== "best" && look !== "default") || this.bestSteps[trial] === undefined) continue;
      const curve = figure.curves.get(trial);
      const place = curve.step.indexOf(this.bestSteps[trial]);
      if (place >= 0) marks.push([curve[this.axis][place], inside(curve.value[place], limits), look, trial]);
    }
    return marks.length ? {
      type: "scatter", mode: "markers", name: "best checkpoint", cliponaxis: false,
      x: marks.map(([x]) => x), y: marks.map(([, y]) => y),
      text: marks.map(([, , , trial]) => `<b>${plain(trial)}</b> best checkpoint`),
      hovertemplate: "%{text}<extra></extra>",
      marker: {
        symbol: marks.map(([, , look]) => (look === "best" ? "star" : "diamond")),
        size: marks.map(([, , look]) => (look === "best" ? 13 : 10)),
        color: marks.map(([, , look]) => tone(LOOKS[look].colour)),
      },
    } : null;
  }

  // The part of the axis that is worth seeing, as in the report: a candidate that diverged would flatten
  // all others, and the bare base is in it unless that takes more than half of the height.
  limits(figure, groups) {
    let low = Infinity, high = -Infinity;
    const over = (looks) => {
      for (const look of looks) for (const trial of groups.get(look)) {
        for (const value of figure.curves.get(trial).value) {
          if (value < low) low = value;
          if (value > high) high = value;
        }
      }
    };
    over(ORDER.filter((look) => look !== "diverged"));
    if (low > high) over(["diverged"]);
    if (low > high) return null;
    [low, high] = this.withBars(figure, low, high);
    const { base } = figure;
    if (base !== null && Math.max(high, base) - Math.min(low, base) <= 2 * (high - low)) {
      [low, high] = [Math.min(low, base), Math.max(high, base)];
    }
    const margin = 0.06 * (high - low) || 0.05 * Math.abs(high) || 0.05;
    return [low - margin, high + margin];
  }

  // Room for the error bars, unless they would leave the curves less than a third of the height.
  withBars(figure, low, high) {
    let [bottom, top] = [low, high];
    for (const trial of this.barred(figure)) {
      const curve = figure.curves.get(trial);
      curve?.value.forEach((value, place) => {
        bottom = Math.min(bottom, value - (curve.error[place] ?? 0));
        top = Math.max(top, value + (curve.error[place] ?? 0));
      });
    }
    const most = 3 * (high - low) || Infinity;
    const cut = Math.max(0, top - bottom - most) / 2;
    return [Math.min(low, bottom + cut), Math.max(high, top - cut)];
  }

  layout(figure, limits, groups) {
    const narrow = window.innerWidth < 640;
    const font = { family: tone("--sans"), size: 12, color: tone("--soft") };
    const line = { gridcolor: tone("--rule"), zeroline: false, linecolor: tone("--rule"), automargin: true };
    const layout = {
      showlegend: false,
      font,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: narrow ? 44 : 60, r: 16, t: 8, b: 46 },
      hovermode: "closest",
      dragmode: narrow ? false : "zoom",
      hoverlabel: { bgcolor: tone("--panel"), bordercolor: tone("--rule"), font: { ...font, color: tone("--ink") } },
      xaxis: { ...line, title: { text: AXES[this.axis], standoff: 10 }, rangemode: "tozero",
        ...(this.axis === "share" ? { tickformat: ".0%", range: [0, 1.03] } : {}) },
      yaxis: { ...line, title: { text: figure.unit, standoff: 8 } },
      uirevision: this.axis,
      shapes: [],
      annotations: this.labels(figure, groups, limits),
    };
    if (limits) layout.yaxis.range = limits;
    return this.withBase(layout, figure, limits);
  }

  withBase(layout, { base }, limits) {
    if (base === null || !limits) return layout;
    const note = { xref: "paper", x: 1, xanchor: "right", showarrow: false, font: { size: 11, color: tone("--soft") } };
    if (base >= limits[0] && base <= limits[1]) {
      const line = { dash: "dot", width: 1.5, color: tone("--soft") };
      layout.shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, y0: base, y1: base, line });
      layout.annotations.push({ ...note, y: base, yanchor: "bottom", text: "bare base" });
    } else {
      const above = base > limits[1];
      layout.annotations.push({ ...note, yref: "paper", y: above ? 1 : 0, yanchor: above ? "top" : "bottom",
        text: `bare base ${base.toFixed(3)} ${above ? "↑" : "↓"}` });
    }
    return layout;
  }

  // Names at the ends of the curves that matter most, so that no colour has to tell them apart.
  labels(figure, groups, limits) {
    return [...groups.get("best"), ...groups.get("default")].map((trial) => {
      const curve = figure.curves.get(trial);
      const place = curve.value.length - 1;
      return {
        x: curve[this.axis][place], y: inside(curve.value[place], limits), text: plain(trial), showarrow: false,
        xanchor: "right", yanchor: "bottom", yshift: 4, font: { size: 11, color: tone(LOOKS[this.look(trial)].colour) },
      };
    });
  }

  // What the drawings mean, in words.
  key() {
    const looks = new Set();
    for (const figure of this.figures) for (const trial of figure.curves.keys()) looks.add(this.look(trial));
    const named = (look) => {
      const one = [...this.rows.values()].find((row) => row.role === look);
      return look === "best" || look === "default" ? `${LOOKS[look].words}: ${one ? one.trial : ""}` : LOOKS[look].words;
    };
    const items = [...ORDER].reverse().filter((look) => looks.has(look)).map((look) => el("li", { className: look }, named(look)));
    if (looks.has("best")) items.push(el("li", { className: "checkpoint" }, "best checkpoint"));
    return items;
  }

  useAxis(axis) {
    this.axis = axis;
    this.drawn = 0;
    this.soon();
  }

  useBars(on) {
    this.bars = on;
    this.drawn = 0;
    this.soon();
  }

  emphasise(trial) {
    if (this.focus === trial) return;
    this.focus = trial;
    this.soon();
  }
}

function inside(value, limits) {
  return limits ? Math.min(Math.max(value, limits[0]), limits[1]) : value;
}

// plotly reads a few tags in its texts.
const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

function point(trial, value, error) {
  return `<b>${plain(trial)}</b> ${value.toFixed(3)}${error ? ` ± ${error.toFixed(3)}` : ""}`;
}

// Half as many points, each the mean of two: as the report thins training curves.
function thin(curve) {
  const pairs = Math.floor(curve.step.length / 2);
  const kept = { step: [], share: [], epoch: [], value: [], error: [] };
  for (let pair = 0; pair < pairs; pair += 1) {
    const [left, right] = [2 * pair, 2 * pair + 1];
    for (const key of ["step", "share", "epoch", "error"]) kept[key].push(curve[key][right]);
    kept.value.push((curve.value[left] + curve.value[right]) / 2);
  }
  if (curve.step.length % 2) for (const key of Object.keys(kept)) kept[key].push(curve[key][curve.step.length - 1]);
  Object.assign(curve, kept);
}
