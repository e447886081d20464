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
const SHARED_POINTS = 6000;
const FEWEST_POINTS = 6;
const MANY = 60;
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
      figure.many = el("span", { hidden: true }, " Point at a row of the table to see its curve.");
      const caption = el("figcaption", {}, el("strong", {}, figure.title), ` ${figure.caption}`, figure.many);
      figure.box = el("figure", { hidden: true }, caption, figure.plot);
      return figure.box;
    }));
    this.soon();
  }

  // Points as the stream sends them: figure, trial, step, share, epoch, value, error.
  add(points) {
    for (const [id, trial, step, share, epoch, value, error] of points) {
      const figure = this.figures.find((one) => one.id === id);
      const curves = figure?.curves;
      if (!curves || value === null) continue;
      let curve = curves.get(trial);
      if (!curve) curves.set(trial, curve = { step: [], share: [], epoch: [], value: [], error: [] });
      if (curve.step.length && step <= curve.step[curve.step.length - 1]) continue;
      const point = { step, share, epoch, value, error };
      for (const key of Object.keys(curve)) curve[key].push(point[key]);
      if (curve.step.length > MOST_POINTS) thin(curve);
      figure.stale = true;
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

  // Draw those figures that something changed in; all of them where the looks of candidates did.
  draw() {
    if (!window.Plotly || document.hidden) return;
    const began = performance.now();
    const looks = this.looks();
    for (const figure of this.figures) {
      figure.box.hidden = figure.curves.size === 0;
      if (figure.box.hidden || !(figure.stale || figure.looks !== looks)) continue;
      this.drawFigure(figure);
      figure.stale = false;
      figure.looks = looks;
    }
    this.drawn = performance.now();
    document.body.dataset.drawMs = (this.drawn - began).toFixed(1);
    document.body.dataset.draws = String(Number(document.body.dataset.draws || 0) + 1);
  }

  // All but the points that a drawing depends on.
  looks() {
    const marked = [...this.rows.values()].map((row) => this.look(row.trial)).join();
    return [marked, this.axis, this.bars, this.focus, tone("--ink"), window.innerWidth < 640].join("|");
  }

  drawFigure(figure) {
    const groups = new Map(ORDER.map((look) => [look, []]));
    for (const trial of figure.curves.keys()) groups.get(this.look(trial)).push(trial);
    const limits = this.limits(figure, groups);
    const few = figure.curves.size <= FEW;
    const traces = [], shapes = [];
    const longest = this.longest(figure);
    for (const [look, trials] of groups) {
      const own = few || look === "best" || look === "default" || (look === "running" && trials.length <= MOST_OWN);
      if (!own && trials.length > MANY) {
        shapes.push(...this.paths(figure, trials, look, limits, longest));
        continue;
      }
      if (own) traces.push(...trials.map((trial) => this.own(figure, trial, look, limits)));
      else if (trials.length) traces.push(this.shared(figure, trials, look, limits));
      if (look in ENDS && trials.length) traces.push(this.ends(figure, trials, look, limits));
    }
    const focus = this.focus && figure.curves.has(this.focus) ? this.focus : null;
    if (focus) traces.push({ ...this.own(figure, focus, this.look(focus), limits), line: { color: tone("--ink"), width: 4 } });
    const stars = this.stars(figure, limits);
    if (stars) traces.push(stars);
    // New arrays each time: plotly compares them by identity, and one that grew in place is not drawn again.
    figure.many.hidden = shapes.length === 0;
    const layout = this.layout(figure, limits, groups, longest);
    layout.shapes.unshift(...shapes);
    Plotly.react(figure.plot, traces, layout, { responsive: true, displayModeBar: false });
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
    const most = Math.max(FEWEST_POINTS, Math.floor(SHARED_POINTS / trials.length));
    for (const trial of trials) {
      const curve = figure.curves.get(trial);
      for (const place of spread(curve.value.length, most)) {
        x.push(curve[this.axis][place]);
        y.push(inside(curve.value[place], limits));
        text.push(point(trial, curve.value[place]));
      }
      x.push(null);
      y.push(null);
      text.push("");
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

  // Curves and ends of very many candidates as one path each: plotly makes an element of every curve and
  // every mark, which takes a second for a thousand of them. What a path has not is a text under the pointer.
  paths(figure, trials, look, limits, longest) {
    const style = LOOKS[look];
    const most = Math.max(FEWEST_POINTS, Math.floor(SHARED_POINTS / trials.length));
    const wide = longest * 0.0035;
    const high = limits ? (limits[1] - limits[0]) * 0.008 : 0;
    const lines = [], crosses = [];
    for (const trial of trials) {
      const { value, [this.axis]: along } = figure.curves.get(trial);
      const known = spread(value.length, most).filter((place) => along[place] !== null);
      lines.push(...known.map((place, index) => `${index ? "L" : "M"}${along[place]},${inside(value[place], limits)}`));
      const [x, y] = [along.at(-1), inside(value.at(-1), limits)];
      if (x === null) continue;
      crosses.push(`M${x - wide},${y - high}L${x + wide},${y + high}M${x - wide},${y + high}L${x + wide},${y - high}`);
    }
    const path = (parts, line) => ({ type: "path", layer: "between", path: parts.join(""), line });
    const drawn = [path(lines, { color: `${tone(style.colour)}80`, width: 0.8, dash: style.dash })];
    if (look in ENDS) drawn.push(path(crosses, { color: tone(look === "pruned" ? "--soft" : "--bad"), width: 1.2 }));
    return drawn;
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

  longest(figure) {
    let longest = this.axis === "share" ? 1 : 0;
    for (const curve of figure.curves.values()) longest = Math.max(longest, curve[this.axis].at(-1) ?? 0);
    return longest || 1;
  }

  layout(figure, limits, groups, longest) {
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
      xaxis: { ...line, title: { text: AXES[this.axis], standoff: 10 }, range: [0, 1.03 * longest],
        tickformat: this.axis === "share" ? ".0%" : "" },
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

// Places of at most so many of a curve's points: the first, the last, and some between them.
function spread(count, most) {
  const width = Math.max(1, (count - 1) / (most - 1));
  const places = [];
  for (let place = 0; place < count - 1; place += width) places.push(Math.round(place));
  if (count) places.push(count - 1);
  return places;
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
