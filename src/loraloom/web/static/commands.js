"use strict";

// Commands to a run, and what became of them.
const WORDS = { prune: "Prune", stop: "Stop the run", clone: "Clone", extend: "Add candidates", note: "Note" };
const NOTHING = new Set(["completed", "pruned", "diverged", "failed"]);
const pending = new Map();
let told = new Map();

const mayAsk = () => document.body.dataset.readOnly === "no" && head.alive;

async function send(verb, { trial = null, changes = {}, text = null } = {}) {
  const command = { uuid: crypto.randomUUID(), verb, trial, changes, text };
  await ask(`${home}/commands`, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(command),
  });
  say(`${WORDS[verb]}${trial ? ` ${trial}` : ""}: asked.`);
}

// -- dialogs

// A dialog with a form. `go` is called with the form; when it fails, what it says stays on the screen.
function dialog(title, parts, button, go, look = "first") {
  const box = byId("dialog");
  const error = el("p", { className: "error", role: "alert" });
  const done = button ? el("button", { type: "submit", className: look }, button) : null;
  const away = el("button", { type: "button" }, button ? "Cancel" : "Close");
  away.addEventListener("click", () => box.close());
  const form = el("form", {}, el("h2", { id: "dialog-title" }, title), ...parts, error, el("div", { className: "buttons" }, away, done));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!done) return;
    done.disabled = true;
    error.textContent = "";
    try {
      await go(form);
      box.close();
    } catch (failure) {
      error.textContent = failure instanceof TypeError ? "The server does not answer." : failure.message;
    }
    done.disabled = false;
  });
  box.replaceChildren(form);
  box.showModal();
  (form.querySelector("input, textarea") || done || away).focus();
}

function field(name, label, properties = {}, tag = "input") {
  const input = el(tag, { id: `field-${name}`, name, autocomplete: "off", ...properties });
  return el("div", {}, el("label", { htmlFor: input.id }, label), input);
}

function prune(trial) {
  const about = "It leaves at the next tick and is counted as pruned by hand; the pruner learns nothing from it.";
  dialog(`Prune ${trial}?`, [el("p", {}, about)], `Prune ${trial}`, () => send("prune", { trial }), "last");
}

function stopRun() {
  const about = "A checkpoint is written first, as by Ctrl-C: the run can go on later where it stopped.";
  dialog("Stop the run?", [el("p", {}, about)], "Stop the run", () => send("stop"), "last");
}

function extend() {
  const about = "They are drawn as the search draws its own.";
  dialog("Add candidates", [el("p", {}, about),
    field("count", "how many more", { type: "number", min: 1, max: 1000, value: 4, required: true })],
  "Add candidates", (form) => send("extend", { changes: { trials: Number(form.elements.count.value) } }));
}

function note() {
  dialog("Write a note", [el("p", {}, "It is kept with the run and stands in its report."),
    field("text", "note", { rows: 3, maxLength: 1000, required: true }, "textarea")],
  "Keep it", (form) => send("note", { text: form.elements.text.value.trim() }));
}

const written = (value) => (value === null ? "" : typeof value === "string" ? value : JSON.stringify(value));
const read = (text) => (/^\s*\[/.test(text) ? JSON.parse(text) : text.trim());

async function clone(trial) {
  const { settings, searchable } = await ask(`${home}/trials/${encodeURIComponent(trial)}`);
  const before = Object.fromEntries(searchable.map((key) => [key, written(settings[key])]));
  const first = ["training.learning_rate", "adapter.r", "adapter.lora_alpha", "adapter.lora_dropout", "training.weight_decay",
    "training.num_train_epochs"].filter((key) => key in before);
  const rest = searchable.filter((key) => !first.includes(key));
  const make = (key) => {
    const made = field(key, key.split(".").pop().replaceAll("_", " "), { value: before[key] });
    const input = made.querySelector("input");
    input.addEventListener("input", () => input.classList.toggle("changed", input.value.trim() !== before[key]));
    return made;
  };
  const choice = (value, text, on) => el("label", { className: "choice" },
    el("input", { type: "radio", name: "start", value, checked: on }), text);
  dialog(`Clone ${trial}`, [
    el("p", {}, "A new candidate with the settings that you change here; all others stay as they are."),
    el("div", { className: "fields" }, first.map(make)),
    el("details", {}, el("summary", {}, "more settings"), el("div", { className: "fields" }, rest.map(make))),
    el("fieldset", {}, el("legend", {}, "It begins"), choice("fresh", "fresh, as every candidate", true),
      choice("warm", `with ${trial}’s best weights`, false)),
  ], `Clone ${trial}`, (form) => {
    const changed = searchable.filter((key) => form.elements[key].value.trim() !== before[key]);
    const changes = Object.fromEntries(changed.map((key) => [key, read(form.elements[key].value)]));
    if (form.elements.start.value === "warm") changes.warm = true;
    return send("clone", { trial, changes });
  });
}

async function details(trial) {
  try {
    const found = await ask(`${home}/trials/${encodeURIComponent(trial)}`);
    const rows_ = [
      ["status", found.reason ? `${found.status}: ${found.reason}` : found.status],
      ["steps", `${found.steps} of ${found.planned_steps}`],
      ...Object.entries(found.settings).filter(([, value]) => value !== null).map(([key, value]) => [key, written(value)]),
    ];
    const findings = found.findings.map((one) => el("article", { className: `finding ${one.level}` },
      el("h3", {}, `${one.level}: ${one.symptom}`), el("p", {}, one.evidence), el("p", { className: "next" }, one.next)));
    dialog(trial, [...findings, el("dl", {}, rows_.map(([key, value]) => [el("dt", {}, key), el("dd", {}, value)]))], null, null);
  } catch (error) {
    say(error.message);
  }
}

// -- where commands are

function rowCommands(cell, row) {
  const may = mayAsk();
  const asked = pending.get(row.trial) || [];
  const state = `${may} ${row.status} ${asked.join()}`;
  if (cell.dataset.state === state) return;
  cell.dataset.state = state;
  const made = [];
  if (may && !NOTHING.has(row.status) && !asked.includes("prune")) {
    made.push(command("Prune", `Prune ${row.trial}`, () => prune(row.trial)));
  }
  if (may && row.planned) made.push(command("Clone", `Clone ${row.trial}`, () => clone(row.trial)));
  if (asked.length) made.unshift(el("small", {}, `${asked.join(", ")} asked`));
  const focused = cell.contains(document.activeElement);
  cell.replaceChildren(...made);
  if (focused) (cell.querySelector("button") || cell.parentElement.querySelector("button")).focus();
}

function command(text, label, go) {
  const button = el("button", { type: "button", "aria-label": label }, text);
  button.addEventListener("click", () => Promise.resolve(go()).catch((error) => say(error.message)));
  return button;
}

function refreshCommands() {
  const may = mayAsk();
  const buttons = [["Add candidates", extend], ["Write a note", note], ["Stop the run", stopRun]].map(([text, go]) => {
    const button = el("button", { type: "button", className: "action" }, text);
    button.addEventListener("click", go);
    return button;
  });
  shown("steering", may).replaceChildren(...buttons);
  for (const [trial, line] of lines) rowCommands(line.cells[columns.length], rows.get(trial));
}

function changesOf(one) {
  const parts = Object.entries(one.changes).map(([key, value]) => `${key.split(".").pop().replaceAll("_", " ")} ${written(value)}`);
  return [one.trial, parts.join(", "), one.text].filter(Boolean).join(" · ");
}

function showCommands(asked) {
  pending.clear();
  for (const one of asked) {
    if (one.state === "asked" && one.trial) pending.set(one.trial, [...(pending.get(one.trial) || []), one.verb]);
    const before = told.get(one.uuid);
    if (before === "asked" && one.state !== "asked") {
      say(`${WORDS[one.verb]}${one.trial ? ` ${one.trial}` : ""}: ${one.state}. ${one.reason}`);
    }
  }
  told = new Map(asked.map((one) => [one.uuid, one.state]));
  const items = asked.map((one) => {
    const more = [one.reason, one.made ? `made ${one.made}` : "", one.step === null ? "" : `at step ${one.step}`];
    const rest = more.filter(Boolean).join(" · ");
    return el("li", { "data-uuid": one.uuid }, el("span", { className: `status ${one.state}` }, one.state),
      el("span", {}, el("b", {}, WORDS[one.verb] || one.verb), ` ${changesOf(one)}`, rest ? el("small", {}, rest) : null));
  });
  shown("commands", items.length > 0).querySelector("ol").replaceChildren(...items);
  for (const [trial, line] of lines) if (rows.has(trial)) rowCommands(line.cells[columns.length], rows.get(trial));
}
