// Keeps the status page fresh: listens to the peer's events and swaps in the parts that changed.
// Reads only. Without it the page shows the moment it was loaded.

const FRESH_AFTER_MS = 400; // changes within this time are one refresh
const PAUSE_MS = 2000; // between two refreshes, however much happens
const STALE_AFTER_MS = 15000; // times and space change without events
const NOTICES_MAX = 50;

const liveState = document.getElementById("live-state");
let timer = 0;
let lastRefresh = 0;
let isRefreshing = false;
let wantsAnother = false;

function say(text, level) {
  if (liveState.textContent !== text) liveState.textContent = text;
  liveState.dataset.level = level;
}

function refreshSoon() {
  if (!timer) timer = setTimeout(refresh, Math.max(FRESH_AFTER_MS, lastRefresh + PAUSE_MS - Date.now()));
}

async function refresh() {
  timer = 0;
  if (document.hidden) return;
  if (isRefreshing) {
    wantsAnother = true;
    return;
  }
  isRefreshing = true;
  try {
    const answer = await fetch(location.pathname + location.search, { headers: { Accept: "text/html" } });
    if (!answer.ok) throw new Error(String(answer.status));
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const old of document.querySelectorAll("[data-live]")) {
      const part = fresh.getElementById(old.id);
      if (part && part.outerHTML !== old.dataset.shown) swap(old, part);
    }
  } catch {
    say("Not connected", "bad");
  }
  isRefreshing = false;
  lastRefresh = Date.now();
  if (wantsAnother) {
    wantsAnother = false;
    refreshSoon();
  }
}

// Puts a part in place, unless the reader stands on a link in it: the next refresh does it then.
function swap(old, part) {
  if (old.contains(document.activeElement) && document.activeElement.matches("a")) return;
  part.dataset.shown = part.outerHTML;
  old.replaceWith(part);
}

function addNotice(notice) {
  const line = document.createElement("li");
  line.dataset.level = notice.kind;
  const time = document.createElement("time");
  time.dateTime = notice.at;
  time.title = notice.at;
  time.textContent = new Date(notice.at).toLocaleTimeString();
  const text = document.createElement("span");
  text.textContent = notice.text;
  line.append(time, " ", text);
  const list = document.getElementById("notice-list");
  list.prepend(line);
  while (list.children.length > NOTICES_MAX) list.lastElementChild.remove();
  document.getElementById("no-notices").hidden = true;
}

const events = new EventSource("/pinfold/v1/events");
events.addEventListener("open", () => say("Live", "good"));
events.addEventListener("error", () => say("Connecting again …", "warn"));
for (const kind of ["refresh", "peers", "pins"]) events.addEventListener(kind, refreshSoon);
events.addEventListener("notice", (event) => {
  addNotice(JSON.parse(event.data));
  refreshSoon();
});

setInterval(refreshSoon, STALE_AFTER_MS);
document.addEventListener("visibilitychange", refreshSoon);
