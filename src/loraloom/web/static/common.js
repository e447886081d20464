"use strict";

// An element with properties, attributes (aria-…, data-…) and children. Text is always text: nothing that
// comes from a run is ever read as HTML.
function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (key in made && !key.includes("-")) made[key] = value;
    else made.setAttribute(key, value);
  }
  return filled(made, ...children);
}

function filled(parent, ...children) {
  parent.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return parent;
}

const byId = (id) => document.getElementById(id);

function say(text) {
  byId("said").textContent = text;
}

// What the line at the top says of the connection.
function linked(state, text) {
  byId("link").className = `link ${state}`;
  if (byId("link").textContent !== text) byId("link").textContent = text;
}

async function ask(address, options = {}) {
  const answer = await fetch(address, { credentials: "same-origin", ...options });
  if (answer.status === 401) throw new Error("Open the address that loraloom serve printed.");
  const document_ = await answer.json();
  if (!answer.ok) {
    const { what, need, next } = document_.error || {};
    throw new Error([what || `The server answered ${answer.status}.`, need, next].filter(Boolean).join(" · "));
  }
  return document_;
}

function shown(id, on) {
  byId(id).hidden = !on;
  return byId(id);
}

function local(text) {
  const at = new Date(text);
  return Number.isNaN(at.getTime()) ? "" : at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
