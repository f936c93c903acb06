// The live page. All text of others goes in by textContent; nothing is asked of any other host.

const $ = (id) => document.getElementById(id);
const KINDS = ["catalog", "coplay"];
const STAGES = [
  ["read", "until read"], ["applied", "until folded in"],
  ["embedded", "until embedded"], ["visible", "until visible"],
];
const KEPT = 900;              // points of the history
const LEAST_SPAN_S = 120;      // of the time axis
const BEHIND_S = 10;           // age of the oldest event that nobody can see
const SILENT_S = 5;            // without a heartbeat
const GOALS = { catalog: 1.5, coplay: 5 };
const CARDS = 6;

const page = { now: null, history: [], titles: [], map: null, paused: false, heard: 0, shown: new Set(), first: true };

// ---- small helpers

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.filter((one) => one !== null));
  return element;
}

function draw(tag, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

const whole = (value) => Math.round(value).toLocaleString("en").replaceAll(",", "\u202f");
const digits = (value, count) => (value === undefined || value === null ? "\u2013" : value.toFixed(count));

function seconds(value) {
  if (value === undefined || value === null) return "\u2013";
  if (value < 0.0995) return `${Math.round(value * 1000)}\u202fms`;
  if (value < 9.95) return `${value.toFixed(value < 0.995 ? 2 : 1)}\u202fs`;
  if (value < 120) return `${Math.round(value)}\u202fs`;
  if (value < 7200) return `${Math.round(value / 60)}\u202fmin`;
  return `${Math.round(value / 3600)}\u202fh`;
}

function bytes(value) {
  return value < 1e9 ? `${whole(value / 1e6)}\u202fMB` : `${(value / 1e9).toFixed(1)}\u202fGB`;
}

function put(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

// ---- the verdict

function verdict() {
  const { now } = page;
  if (now === null) return ["waiting", "Waiting for a worker", "No heartbeat has come yet."];
  const silent = (Date.now() - page.heard) / 1000;
  if (silent > SILENT_S) {
    return ["broken", "No heartbeat", `The worker was last heard of ${seconds(silent)} ago.`];
  }
  const troubles = Object.values(now.checks ?? {}).filter((why) => why !== null);
  if (now.error) troubles.push(now.error);
  if (troubles.length) return ["broken", "Something is wrong", troubles[0]];
  if (now.phase !== "live") return ["behind", "Not live yet", `The worker is ${now.phase}.`];
  const age = now.point.t - now.watermark_ms / 1000;
  if (age > BEHIND_S) {
    return ["behind", "Falling behind", `The oldest event that no reader can see came in ${seconds(age)} ago.`];
  }
  const fresh = now.freshness_recent_s ?? {};
  const slow = KINDS.filter((kind) => fresh[kind] && fresh[kind].p99 > GOALS[kind]);
  if (slow.length) {
    const names = { catalog: "catalog events", coplay: "co-plays" };
    return ["behind", "Slower than it should be", `One in a hundred ${names[slow[0]]} takes ${seconds(fresh[slow[0]].p99)}; the goal is ${GOALS[slow[0]]}\u202fs.`];
  }
  if (!Object.keys(fresh).length) {
    return ["fresh", "Embeddings are fresh", "No event has come in for ten seconds, and none waits."];
  }
  return ["fresh", "Embeddings are fresh", "Every event older than " + seconds(Math.max(age, 0.001)) + " is visible in Redis."];
}

function showVerdict() {
  const [state, words, because] = verdict();
  $("verdict").dataset.state = state;
  put("verdict", words);
  put("because", because);
  document.title = state === "fresh" ? "Upwell" : `${words} \u00b7 Upwell`;
}

// ---- freshness

function showFreshness() {
  const recent = page.now.freshness_recent_s ?? {};
  const ever = page.now.freshness_s ?? {};
  for (const kind of KINDS) {
    const found = recent[kind];
    put(`${kind}-p50`, seconds((found ?? ever[kind])?.p50));
    put(`${kind}-p99`, found
      ? `in half of the cases; 99 of 100 within ${seconds(found.p99)}`
      : ever[kind] ? "none in the last ten seconds; this is what it was" : "none has come in yet");
    showStages(kind, page.now.stages_s?.[kind]);
  }
}

function showStages(kind, stages) {
  const box = $(`${kind}-stages`);
  if (!stages) {
    if (!box.childElementCount) box.replaceChildren(make("p", { class: "more" }, "Where the time goes shows with the next event."));
    return;
  }
  const bar = make("div", { class: "bar", "aria-hidden": "true" });
  const legend = make("ul", { class: "legend", "aria-label": "Mean time in each stage" });
  STAGES.forEach(([name, words], at) => {
    const part = document.createElement("i");
    part.style.flexGrow = 1000 * Math.max(stages[name] ?? 0, 1e-3);
    bar.append(part);
    legend.append(make("li", {}, make("i", { class: `s${at + 1}` }), `${words} `, make("b", {}, seconds(stages[name]))));
  });
  box.replaceChildren(bar, legend);
}

function showTimeline() {
  const svg = $("timeline");
  const width = svg.clientWidth || 600, height = svg.clientHeight || 240;
  const left = 46, right = 8, top = 8, bottom = 22;
  const points = page.history;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  if (!points.length) return;
  const end = points[points.length - 1].t;
  const start = Math.min(points[0].t, end - LEAST_SPAN_S);
  const values = points.flatMap((one) => KINDS.flatMap((kind) => [one[`${kind}_p50`], one[`${kind}_p99`]])).filter((one) => one > 0);
  const low = 10 ** Math.floor(Math.log10(Math.min(0.05, ...values)));
  const high = 10 ** Math.ceil(Math.log10(Math.max(1, ...values)));
  const x = (t) => left + (width - left - right) * (t - start) / (end - start);
  const y = (s) => top + (height - top - bottom) * (1 - Math.log(Math.max(s, low) / low) / Math.log(high / low));
  const parts = [];
  for (const [from, to] of runs(points, (one) => one.training)) {
    parts.push(draw("rect", { class: "shade", x: x(from.t), y: top, width: Math.max(2, x(to.t) - x(from.t)), height: height - top - bottom }));
  }
  for (let tick = low; tick <= high * 1.001; tick *= 10) {
    parts.push(draw("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }));
    parts.push(draw("text", { x: left - 8, y: y(tick) + 4, "text-anchor": "end" }, tick < 0.9 ? `${Math.round(tick * 1000)}\u202fms` : `${Math.round(tick)}\u202fs`));
  }
  const span = end - start;
  const every = span > 600 ? 180 : span > 300 ? 120 : span > 150 ? 60 : 30;
  for (let ago = 0; ago <= span; ago += every) {
    const anchor = ago === 0 ? "end" : "middle";
    if (ago && x(end - ago) < left + 14) break;
    parts.push(draw("text", { x: x(end - ago), y: height - 4, "text-anchor": anchor }, ago === 0 ? "now" : `\u2212${ago < 60 ? `${ago}\u202fs` : `${ago / 60}\u202fmin`}`));
  }
  for (const kind of KINDS) {
    for (const run of stretches(points, `${kind}_p50`)) {
      const upper = run.map((one) => `${x(one.t)},${y(one[`${kind}_p99`])}`);
      const lower = run.map((one) => `${x(one.t)},${y(one[`${kind}_p50`])}`);
      parts.push(draw("polygon", { class: `band ${kind}`, points: [...upper, ...lower.toReversed()].join(" ") }));
      if (run.length === 1) lower.push(`${x(run[0].t) + 0.1},${y(run[0][`${kind}_p50`])}`);
      parts.push(draw("polyline", { class: `line ${kind}`, points: lower.join(" ") }));
    }
  }
  svg.replaceChildren(...parts);
  const last = points[points.length - 1];
  const words = KINDS.filter((kind) => last[`${kind}_p50`] !== undefined)
    .map((kind) => `${kind === "catalog" ? "catalog" : "co-play"} p50 ${seconds(last[`${kind}_p50`])}, p99 ${seconds(last[`${kind}_p99`])}`);
  svg.setAttribute("aria-label", `Freshness over the last ${seconds(span)}. Now: ${words.join("; ") || "no events"}.`);
}

// Stretches of points that have a value; a pause of more than a few seconds parts them.
function stretches(points, name) {
  const found = [];
  let last = null;
  for (const one of points) {
    if (one[name] === undefined) { last = null; continue; }
    if (last === null || one.t - last.t > 5) found.push([]);
    found[found.length - 1].push(one);
    last = one;
  }
  return found;
}

function runs(points, holds) {
  const found = [];
  let from = null;
  for (const one of points) {
    if (holds(one)) {
      if (from === null) { from = one; found.push([one, one]); }
      found[found.length - 1][1] = one;
    } else from = null;
  }
  return found;
}

function showSpark(id, name) {
  const svg = $(id), width = svg.clientWidth || 300, height = svg.clientHeight || 48;
  const points = page.history.slice(-300);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  if (points.length < 2) return;
  const start = points[0].t, span = points[points.length - 1].t - start || 1;
  const top = Math.max(1, ...points.map((one) => one[name]));
  const line = points.map((one) => `${(one.t - start) / span * width},${height - 1 - one[name] / top * (height - 4)}`);
  svg.replaceChildren(
    draw("polygon", { class: "band", points: [`0,${height}`, ...line, `${width},${height}`].join(" ") }),
    draw("polyline", { class: "line", points: line.join(" ") }),
  );
  svg.setAttribute("aria-label", `${name === "events_per_s" ? "Events applied" : "Embeddings written"} a second over the last ${seconds(span)}: now ${whole(points[points.length - 1][name])}, at most ${whole(top)}`);
}

// ---- lanes and ingest

function showLanes() {
  const { now } = page;
  put("dirty", whole(now.dirty));
  put("published-per-s", whole(now.published_per_s));
  put("published", whole(now.published));
  put("training-now", now.training ? "training" : now.cycles ? "idle" : "no cycle yet");
  put("fresh-coplays", whole(now.fresh_coplays));
  put("step", whole(now.step));
  put("events-per-s", whole(now.events_per_s));
  put("lag", whole(now.lag));
  put("dead", whole(Object.values(now.events).reduce((sum, one) => sum + one.dead, 0)));
  const lags = Object.entries(now.lag_by_partition ?? {});
  $("partitions").replaceChildren(...lags.slice(0, 24).map(([name, lag]) => make("li", {}, `${name} `, make("b", {}, whole(lag)))));
  showSpark("events-spark", "events_per_s");
  showSpark("published-spark", "published_per_s");
}

function showCycles() {
  const cycles = page.now.last_cycles ?? [];
  const longest = Math.max(0.1, ...cycles.map((one) => one.seconds));
  $("verdicts").replaceChildren(...cycles.slice(-24).map((one) => {
    const words = `cycle ${one.cycle}: ${one.verdict}, ${seconds(one.seconds)}`;
    const bar = make("li", { "data-verdict": one.verdict, title: words, "aria-label": words });
    bar.style.height = `${Math.max(8, 100 * one.seconds / longest)}%`;
    return bar;
  }));
  if (!cycles.length) return;
  $("cycles").replaceChildren(...cycles.slice(-8).reverse().map((one) => make("tr", {},
    make("td", {}, String(one.cycle)),
    make("td", { class: one.reason ? "why" : "" }, make("span", { class: one.verdict }, one.verdict), one.reason ? `: ${one.reason}` : ""),
    ...[whole(one.fresh), whole(one.steps), digits(one.loss, 3), digits(one.drift_cosine, 4), digits(one.recall_before, 4), digits(one.recall_after, 4), seconds(one.seconds)]
      .map((text) => make("td", { class: "n" }, text)),
  )));
}

function showFoot() {
  const { now } = page;
  put("where", [
    now.worker ? `worker ${now.worker}` : null, `space ${now.space}`,
    `${whole(now.titles)} titles, ${whole(now.concepts)} concepts, ${whole(now.coplay_edges)} co-play edges`,
  ].filter(Boolean).join(" \u00b7 "));
  $("checks").replaceChildren(...Object.entries(now.checks ?? {}).map(([name, why]) =>
    make("li", { class: why === null ? "" : "wrong" }, why === null ? name : `${name}: ${why}`)));
  const memory = now.memory_bytes ?? {};
  put("facts", [
    `up for ${seconds(now.point.t - now.started_ms / 1000)}`,
    now.checkpoint_age_s === null ? null : `last checkpoint ${seconds(now.checkpoint_age_s)} ago`,
    memory.process ? `${bytes(memory.process)} of memory, ${bytes(memory.graph)} of it the graph` : null,
    `${whole(now.redis_errors ?? 0)} failed calls of Redis`,
  ].filter(Boolean).join(" \u00b7 "));
}

// ---- titles

function showTitles() {
  const { titles } = page;
  if (!titles.length) return;
  const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  $("titles").replaceChildren(...titles.slice(0, CARDS).map((one) => {
    const fresh = !page.first && !page.shown.has(one.title);
    const when = new Date(one.visible_ms ?? one.read_ms);
    return make("article", { class: fresh ? "title fresh" : "title", "data-title": one.title },
      make("div", { class: "head" }, make("h3", {}, one.name ?? one.title), make("time", { datetime: when.toISOString() }, clock.format(when))),
      make("ol", { "aria-label": "Nearest titles" }, ...one.near.map((near) => make("li", {}, make("b", {}, near.name ?? near.title), ` ${near.score.toFixed(2)}`))));
  }));
  titles.forEach((one) => page.shown.add(one.title));
  page.first = false;
}

// ---- the map

function places() {
  const canvas = $("map"), { width, height } = canvas.getBoundingClientRect();
  const { x, y, scale } = page.map;
  return { width, height, at: (i) => [x[i] / scale * width, y[i] / scale * height] };
}

function showMap() {
  if (page.map === null) return;
  const canvas = $("map"), ratio = window.devicePixelRatio || 1;
  const { width, height, at } = places();
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  const { names, new: fresh } = page.map;
  const dot = (i, radius) => { const [x, y] = at(i); context.beginPath(); context.arc(x, y, radius, 0, 7); context.fill(); };
  context.fillStyle = color("--coplay");
  context.globalAlpha = names.length > 800 ? 0.5 : 0.75;
  for (let i = 0; i < names.length; i++) dot(i, names.length > 800 ? 1.7 : 2.8);
  context.globalAlpha = 1;
  context.fillStyle = color("--catalog");
  fresh.forEach((i) => dot(i, 4.5));
  const sought = $("find").value.trim().toLowerCase();
  const found = sought ? names.map((name, i) => [name, i]).filter(([name]) => name.toLowerCase().includes(sought)) : [];
  context.strokeStyle = color("--ink");
  context.lineWidth = 2;
  found.slice(0, 50).forEach(([, i]) => { const [x, y] = at(i); context.beginPath(); context.arc(x, y, 7, 0, 7); context.stroke(); });
  label(context, [...found.slice(0, 5).map(([, i]) => i), ...fresh.slice(-4)], at, names, width, color);
  put("found", sought ? (found.length ? `${whole(found.length)} found: ${found.slice(0, 3).map(([name]) => name).join(", ")}${found.length > 3 ? ", \u2026" : ""}` : "No title of the map has that in its name.") : `${whole(names.length)} titles on the map, ${whole(fresh.length)} of the newest among them.`);
  canvas.setAttribute("aria-label", `Map of ${names.length} titles, ${fresh.length} of the newest marked`);
}

function label(context, chosen, at, names, width, color) {
  context.font = "12px system-ui, sans-serif";
  context.lineJoin = "round";
  const taken = [];
  for (const i of new Set(chosen)) {
    const [x, y] = at(i), text = names[i].length > 34 ? `${names[i].slice(0, 33)}\u2026` : names[i];
    const long = context.measureText(text).width;
    const from = x + 9 + long > width ? x - 9 - long : x + 9;
    if (taken.some(([a, b, c]) => Math.abs(b - y) < 14 && from < c && a < from + long)) continue;
    taken.push([from, y, from + long]);
    context.lineWidth = 3.5;
    context.strokeStyle = color("--card");
    context.strokeText(text, from, y + 4);
    context.fillStyle = color("--ink");
    context.fillText(text, from, y + 4);
  }
}

function point(event) {
  if (page.map === null) return;
  const box = $("map").getBoundingClientRect(), { at } = places();
  const px = event.clientX - box.left, py = event.clientY - box.top;
  let best = -1, least = 14 ** 2;
  for (let i = 0; i < page.map.names.length; i++) {
    const [x, y] = at(i), far = (x - px) ** 2 + (y - py) ** 2;
    if (far < least) { least = far; best = i; }
  }
  const tip = $("tip");
  tip.hidden = best < 0;
  if (best < 0) return;
  const [x, y] = at(best);
  tip.textContent = page.map.names[best];
  tip.style.left = `${Math.max(0, Math.min(x + 10, box.width - tip.offsetWidth))}px`;
  tip.style.top = `${Math.max(0, y - 32)}px`;
}

// ---- the stream

function heard(now) {
  page.heard = Date.now();
  page.now = now;
  const last = page.history[page.history.length - 1];
  if (!last || now.point.t > last.t) page.history.push(now.point);
  page.history.splice(0, page.history.length - KEPT);
}

function show() {
  if (page.paused) return;
  showVerdict();
  if (page.now === null) return;
  showFreshness();
  showTimeline();
  showLanes();
  showCycles();
  showFoot();
}

async function recall() {
  try {
    const answer = await fetch("/api/history");
    const points = await answer.json();
    const first = page.history.length ? page.history[0].t : Infinity;
    page.history = [...points.filter((one) => one.t < first), ...page.history].slice(-KEPT);
    show();
  } catch { /* the stream tells of a lost connection */ }
}

function listen() {
  const stream = new EventSource("/events");
  stream.addEventListener("open", recall);
  stream.addEventListener("now", (event) => { heard(JSON.parse(event.data)); show(); });
  stream.addEventListener("titles", (event) => { page.titles = JSON.parse(event.data); if (!page.paused) showTitles(); });
  stream.addEventListener("map", (event) => { page.map = JSON.parse(event.data); if (!page.paused) showMap(); });
}

$("pause").addEventListener("click", () => {
  page.paused = !page.paused;
  $("pause").setAttribute("aria-pressed", String(page.paused));
  put("pause", page.paused ? "Paused" : "Pause");
  if (!page.paused) { show(); showTitles(); showMap(); }
});
$("find").addEventListener("input", showMap);
$("map").addEventListener("pointermove", point);
$("map").addEventListener("pointerdown", point);
$("map").addEventListener("pointerleave", () => { $("tip").hidden = true; });
new ResizeObserver(() => { showMap(); if (page.now) showTimeline(); }).observe($("map"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showMap);
setInterval(showVerdict, 1000);
listen();
