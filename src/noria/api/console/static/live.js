// Keeps the page up to date: asks for it again every second and changes only what differs, in place, so that nothing
// flickers, the focus and the scroll position stay and widths move smoothly. No library, no eval, no other host.
"use strict";

const EVERY_MS = 1000;
const SLOWEST_MS = 10000;
const light = document.getElementById("live");
let etag = null;
let ahead = 0; // how far this machine's clock is ahead of the server's, milliseconds
let failures = 0;

function key(node) {
  return node.nodeType === Node.ELEMENT_NODE ? node.id || node.dataset.key || null : null;
}

function alike(a, b) {
  return a.nodeType === b.nodeType && a.nodeName === b.nodeName && key(a) === key(b);
}

function patchAttributes(old, fresh) {
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const { name } of [...old.attributes]) {
    const keptByTheReader = name === "open" && old.nodeName === "DETAILS";
    if (!fresh.hasAttribute(name) && !keptByTheReader) old.removeAttribute(name);
  }
}

function patch(old, fresh) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
    return;
  }
  if (old === light) return;
  patchAttributes(old, fresh);
  patchChildren(old, fresh);
}

function patchChildren(old, fresh) {
  const keyed = new Map();
  for (const child of old.childNodes) if (key(child)) keyed.set(key(child), child);
  let at = old.firstChild;
  for (const wanted of [...fresh.childNodes]) {
    const same = key(wanted) ? keyed.get(key(wanted)) : at;
    if (same && alike(same, wanted)) {
      if (same === at) at = at.nextSibling;
      else old.insertBefore(same, at);
      patch(same, wanted);
    } else {
      old.insertBefore(document.importNode(wanted, true), at);
    }
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

function age(seconds) {
  if (seconds < 2) return "just now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return null;
}

function tellAges() {
  const now = Date.now() - ahead;
  for (const time of document.querySelectorAll("time[datetime]")) {
    const words = age((now - Date.parse(time.dateTime)) / 1000);
    if (!words) continue;
    if (!time.title) time.title = `${time.textContent} UTC`;
    if (time.textContent !== words) time.textContent = words;
  }
}

function say(state, words) {
  if (light.dataset.live === state) return;
  light.dataset.live = state;
  light.lastElementChild.textContent = words;
}

async function refresh() {
  const headers = etag ? { "If-None-Match": etag } : {};
  const reply = await fetch(location.href, { headers, cache: "no-store", credentials: "same-origin" });
  const told = Number(reply.headers.get("X-Noria-Now"));
  if (told) ahead = Date.now() - told;
  if (reply.status === 304) return;
  if (!told) throw new Error(`the console answered ${reply.status}`);
  const fresh = new DOMParser().parseFromString(await reply.text(), "text/html");
  etag = reply.headers.get("ETag");
  document.title = fresh.title;
  patch(document.getElementById("top"), fresh.getElementById("top"));
  patch(document.getElementById("main"), fresh.getElementById("main"));
}

async function turn() {
  if (!document.hidden) {
    try {
      await refresh();
      failures = 0;
      say("on", "live");
    } catch {
      failures += 1;
      say("lost", "no connection");
    }
    tellAges();
  }
  setTimeout(turn, Math.min(EVERY_MS * 2 ** failures, SLOWEST_MS));
}

tellAges();
turn();
