// The page: pictures in, counts, maps and zones out. What others named (files, zones, messages) is
// only ever set as text.

const COLORS = ["#37e6ff", "#b6ff3b", "#ffffff", "#ff9f1c", "#ff6bd6", "#8ab4ff"]; // over plasma
const $ = (id) => document.getElementById(id);
const items = []; // the pictures, in the order of the list
let current = null; // the one that is shown
let weights = null; // for pictures to come
let limits = null;
let formats = [];
let counting = false;
let drawing = null; // corners of the zone that is being drawn, in pixels of the picture
let pointer = null; // where the cross is, in pixels of the picture
let zoom = 1;

function element(kind, properties = {}, ...children) {
  const made = Object.assign(document.createElement(kind), properties);
  made.append(...children);
  return made;
}

function say(text) {
  $("status").textContent = text;
}

const people = (count) =>
  count.toLocaleString("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const megabytes = (bytes) => `${+(bytes / 2 ** 20).toFixed(1)} MiB`;

// Server ------------------------------------------------------------------------------------------

class Refused extends Error {
  constructor(status, text, wait) {
    super(text);
    this.status = status;
    this.wait = wait;
  }
}

async function ask(address, options = {}) {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The server does not answer, or the file cannot be read.");
  }
  if (answer.ok) return answer;
  let text = `The server says ${answer.status}.`;
  try {
    text = (await answer.json()).error ?? text;
  } catch {} // not of our server
  throw new Refused(answer.status, text, Number(answer.headers.get("Retry-After")) || 0);
}

const post = (value) => ({
  method: "POST", body: JSON.stringify(value), headers: { "Content-Type": "application/json" },
});
const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

async function count(item) {
  item.state = "counting";
  item.error = null;
  item.since = performance.now();
  item.abort = new AbortController();
  show(item);
  try {
    if (item.file.size > limits.upload_bytes) {
      throw new Refused(413, `The file has ${megabytes(item.file.size)}, the limit is ${megabytes(limits.upload_bytes)}; make it smaller.`);
    }
    const form = new FormData();
    form.append("file", item.file, item.name);
    form.append("weights", item.weights);
    form.append("scale", item.scale);
    const options = { method: "POST", body: form, signal: item.abort.signal };
    let answer = null;
    while (!answer) {
      try {
        answer = await ask("api/count", options);
      } catch (error) {
        if (error.status !== 503) throw error;
        await pause(error.wait || 2); // others are counting
        item.abort.signal.throwIfAborted();
      }
    }
    item.result = await answer.json();
    item.state = "done";
    say(`${item.name}: ${people(item.result.count)} people`);
    for (const zone of item.zones) zone.count = null;
  } catch (error) {
    if (error.name === "AbortError") return;
    item.state = "failed";
    item.error = error.message;
    item.hopeless = error.status >= 400 && error.status < 500; // another try ends alike
    say(`${item.name}: ${item.error}`);
  }
  show(item);
  if (item.state !== "done") return;
  countZones(item);
  if (!item.unknown) return;
  const picture = ask(item.result.links.picture.slice(1)).then((answer) => answer.blob());
  picture.then((data) => paintThumb(item, data)).catch(() => {}); // only a thumbnail
}

async function work() {
  if (counting) return;
  counting = true;
  for (let item; (item = items.find((one) => one.state === "waiting")); ) await count(item);
  counting = false;
}

function recount(item) {
  item.state = "waiting";
  item.error = null;
  show(item);
  work();
}

// Something of a result. The server forgets results when it needs the room, or was started anew;
// then the picture is counted once more.
async function part(item, name, options = {}) {
  try {
    return await ask(item.result.links[name].slice(1), options);
  } catch (error) {
    if (error.status !== 404) throw error;
    recount(item);
    while (item.state === "waiting" || item.state === "counting") await pause(0.1);
    if (item.state !== "done") throw new Error(item.error ?? "removed");
    return ask(item.result.links[name].slice(1), options);
  }
}

// One zone after the other, so that one that is none does not keep the others from being counted.
async function countZones(item) {
  if (item.zonesAtWork || !item.result) return;
  item.zonesAtWork = true;
  for (let zone; (zone = item.zones.find((one) => one.count === null)); ) {
    const corners = zone.points;
    let found = 0;
    zone.error = null;
    try {
      const asked = post({ unit: "pixels", zones: { zone: corners } });
      const answer = await part(item, "zones", asked);
      found = (await answer.json()).zones.zone;
    } catch (error) {
      if (error.status === 503) {
        await pause(error.wait || 2);
        continue;
      }
      zone.error = error.message.replace("the zones: zone 'zone'", "This zone");
    }
    if (zone.points !== corners) continue; // moved meanwhile
    zone.count = found;
    if (item === current) listZones();
    say(`${zone.name}: ${zone.error ?? `${people(found)} people`}`);
  }
  item.zonesAtWork = false;
}

// Pictures ----------------------------------------------------------------------------------------

function add(files) {
  const pictures = [];
  for (const file of files) {
    if (file.type === "application/json" || file.name.endsWith(".json")) loadZones(file);
    else pictures.push(file);
  }
  for (const file of pictures) {
    const item = {
      file, name: file.name || "pasted.png", weights, scale: 1, state: "waiting", error: null,
      result: null, zones: [], url: URL.createObjectURL(file),
    };
    items.push(item);
    item.row = row(item);
    $("list").append(item.row);
    show(item);
  }
  if (!pictures.length) return;
  if (!current || current.state === "failed") open(items[items.length - pictures.length]);
  arrange();
  work();
}

async function paintThumb(item, data) {
  const bitmap = await createImageBitmap(data, { resizeHeight: 96, resizeQuality: "medium" });
  const scale = Math.max(128 / bitmap.width, 96 / bitmap.height);
  const [width, height] = [bitmap.width * scale, bitmap.height * scale];
  const context = item.thumb.getContext("2d");
  context.drawImage(bitmap, (128 - width) / 2, (96 - height) / 2, width, height);
}

function row(item) {
  item.thumb = element("canvas", { className: "thumb", width: 128, height: 96 });
  item.thumb.setAttribute("aria-hidden", "true");
  paintThumb(item, item.file).catch(() => { item.unknown = true; }); // a format browsers lack
  const name = element("span", { className: "item-name", textContent: item.name, title: item.name });
  item.stateText = element("span", { className: "item-state" });
  item.button = element(
    "button", { className: "item-open", type: "button", onclick: () => open(item) },
    item.thumb, element("span", { className: "item-text" }, name, item.stateText),
  );
  const away = element("button", {
    className: "remove", type: "button", textContent: "×", onclick: () => remove(item),
  });
  away.setAttribute("aria-label", `Remove ${item.name}`);
  return element("li", { className: "item" }, item.button, away);
}

function remove(item) {
  const at = items.indexOf(item);
  items.splice(at, 1);
  item.abort?.abort();
  item.state = "removed";
  item.row.remove();
  URL.revokeObjectURL(item.url);
  if (item.result) ask(`api/results/${item.result.id}`, { method: "DELETE" }).catch(() => {});
  if (item === current) {
    stopDrawing();
    current = null;
    const next = items[Math.min(at, items.length - 1)];
    if (next) {
      open(next);
      next.button.focus();
    } else $("files").focus();
  }
  arrange();
}

function arrange() {
  const some = items.length > 0;
  $("main").classList.toggle("empty", !some);
  for (const id of ["side", "view", "answer"]) $(id).hidden = !some;
  $("save-all").hidden = items.length < 2;
}

function open(item) {
  if (item === current) return;
  stopDrawing();
  current = item;
  zoom = 1;
  for (const one of items) one.button.setAttribute("aria-current", String(one === item));
  $("weights").value = item.weights;
  $("name").textContent = item.name;
  $("map").removeAttribute("src");
  $("photo").src = item.url;
  $("photo").alt = item.name;
  show(item);
  size();
}

// Everything that says how far a picture is.
function show(item) {
  const texts = {
    waiting: "waiting", counting: "counting …", failed: "not counted",
    done: item.result && `${people(item.result.count)} people`,
  };
  if (item.stateText) {
    item.stateText.textContent = texts[item.state];
    item.stateText.className = `item-state ${item.state}`;
  }
  if (item !== current) return;
  const done = item.state === "done";
  $("count").textContent = done ? people(item.result.count) : "–";
  $("failure").hidden = item.state !== "failed";
  $("again").hidden = item.hopeless;
  $("failure-text").textContent = item.error ?? "";
  $("draw").disabled = !done;
  for (const id of ["save-overlay", "save-density", "save-json"]) $(id).disabled = !done;
  $("scale").hidden = !done;
  $("size").disabled = !done;
  showSize(item);
  $("facts").textContent = "";
  if (done) {
    const { result } = item;
    $("facts").textContent = `${result.width} × ${result.height} pixels, weights ${result.weights}, ${result.seconds.toFixed(1)}\u00a0s`;
    const map = result.links.map.slice(1);
    if ($("map").getAttribute("src") !== map) $("map").src = map;
    showColors(result.colors);
    size();
  } else $("map").removeAttribute("src");
  showWindow();
  showProgress();
  listZones();
}

function showSize({ scale, result, state }) {
  const percent = (value) => `${+(100 * value).toPrecision(3)} %`;
  const options = [...$("size").options];
  if (!options.some((option) => Number(option.value) === scale)) {
    $("size").append(element("option", { value: scale, textContent: `${percent(scale)} of its size` }));
  }
  $("size").value = scale;
  const warning = state === "done" && result.warning;
  $("warning").hidden = !warning;
  if (!warning) return;
  $("warning-text").textContent = `${warning[0].toUpperCase()}${warning.slice(1)}.`;
  $("better").hidden = result.better_scale === null;
  $("better").textContent = `Count at ${percent(result.better_scale)} of its size`;
}

function showProgress() {
  const state = current?.state;
  $("progress").hidden = state !== "counting" && state !== "waiting";
  if (state === "counting") {
    const seconds = Math.floor((performance.now() - current.since) / 1000);
    $("progress-text").textContent = seconds < 1 ? "Counting …" : `Counting … ${seconds} s`;
  } else $("progress-text").textContent = "Waiting for its turn …";
}

function showColors({ top, clipped, unit }) {
  const number = (value) => String(+value.toPrecision(2));
  const parts = [0, 0.25, 0.5, 0.75, 1]; // colours follow the square root of the density
  $("ticks").replaceChildren(
    ...parts.map((at) => {
      const text = number(at * at * top);
      const tick = element("span", { textContent: at === 1 && clipped ? `≥ ${text}` : text });
      tick.style.left = `${100 * at}%`;
      return tick;
    }),
  );
  $("unit").textContent = unit;
  $("scale").setAttribute("aria-label", `Colours of the density map, 0 to ${number(top)} ${unit}`);
}

// The stage ---------------------------------------------------------------------------------------

// Sides of the picture in its own pixels; those the browser shows where it is not counted yet.
function sides() {
  if (current?.result) return [current.result.width, current.result.height];
  return [$("photo").naturalWidth || 4, $("photo").naturalHeight || 3];
}

function size() {
  if (!current) return;
  const [width, height] = sides();
  const box = $("window");
  const limit = parseFloat(getComputedStyle(box).maxHeight) || innerHeight;
  const fit = Math.min((box.clientWidth || box.offsetWidth) / width, (limit - 4) / height, 4);
  $("stage").style.width = `${width * fit * zoom}px`;
  $("stage").style.height = `${height * fit * zoom}px`;
  drawZones();
}

function zoomTo(value) {
  const box = $("window");
  const [x, y] = [
    (box.scrollLeft + box.clientWidth / 2) / box.scrollWidth,
    (box.scrollTop + box.clientHeight / 2) / box.scrollHeight,
  ];
  zoom = Math.min(Math.max(value, 1), 16);
  size();
  box.scrollTo(x * box.scrollWidth - box.clientWidth / 2, y * box.scrollHeight - box.clientHeight / 2);
  $("out").disabled = zoom === 1;
  $("in").disabled = zoom === 16;
}

// Nothing is shown of what neither the browser nor the server can read.
function showWindow() {
  const unseen = $("photo").complete && !$("photo").naturalWidth;
  $("photo").hidden = unseen;
  $("window").hidden = unseen && current?.state === "failed";
}

$("photo").addEventListener("load", () => { showWindow(); size(); });
$("photo").addEventListener("error", () => {
  showWindow();
  // A format that the browser does not know: what the server made of it.
  const address = current?.result?.links.picture.slice(1);
  if (address && $("photo").getAttribute("src") !== address) $("photo").src = address;
});
$("map").addEventListener("load", () => {
  // The picture failed to show before it was counted.
  if ($("photo").complete && !$("photo").naturalWidth) $("photo").dispatchEvent(new Event("error"));
});
$("map").addEventListener("error", () => {
  if (current?.state === "done") part(current, "map").then(() => show(current), () => {});
});
$("in").onclick = () => zoomTo(zoom * 1.5);
$("out").onclick = () => zoomTo(zoom / 1.5);
$("fit").onclick = () => zoomTo(1);
new ResizeObserver(size).observe($("view"));
setInterval(showProgress, 500);

function showOpacity() {
  const value = $("opacity").value;
  $("map").style.opacity = value / 100;
  document.querySelector(".scale-colors img").style.opacity = value / 100;
  $("opacity").setAttribute("aria-valuetext", `${value} %`);
}
$("opacity").oninput = showOpacity;

// Zones -------------------------------------------------------------------------------------------

function inside([x, y]) {
  const [width, height] = sides();
  const round = (value, most) => Math.min(Math.max(Math.round(10 * value) / 10, 0), most);
  return [round(x, width), round(y, height)];
}

function position(event) {
  const [width, height] = sides();
  const box = $("stage").getBoundingClientRect();
  return inside([
    ((event.clientX - box.left) / box.width) * width,
    ((event.clientY - box.top) / box.height) * height,
  ]);
}

function place(made, [x, y]) {
  const [width, height] = sides();
  made.style.left = `${(100 * x) / width}%`;
  made.style.top = `${(100 * y) / height}%`;
}

// Distance of two points on the screen, in CSS pixels.
function distance([x0, y0], [x1, y1]) {
  return (Math.hypot(x1 - x0, y1 - y0) * $("stage").clientWidth) / sides()[0];
}

function freeName(wanted, zones) {
  const taken = new Set(zones.map((zone) => zone.name));
  let name = wanted;
  for (let number = 2; taken.has(name); number++) name = `${wanted} ${number}`;
  return name;
}

function addZone(item, name, points) {
  const used = item.zones.map((zone) => zone.color);
  const color = COLORS.find((one) => !used.includes(one)) ?? COLORS[item.zones.length % COLORS.length];
  item.zones.push({ name: freeName(name, item.zones), points, color, count: null, error: null });
}

function inZone({ count, error }) {
  if (error) return "–";
  return count === null ? "…" : people(count);
}

function shape(kind, points, properties) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", kind);
  made.setAttribute("points", points.map((point) => point.join(",")).join(" "));
  for (const [name, value] of Object.entries(properties)) made.setAttribute(name, value);
  return made;
}

function drawZones() {
  const [width, height] = sides();
  $("shapes").setAttribute("viewBox", `0 0 ${width} ${height}`);
  const shapes = [];
  const marks = [];
  for (const zone of current?.zones ?? []) {
    shapes.push(shape("polygon", zone.points, { class: "halo" }));
    shapes.push(shape("polygon", zone.points, { class: "edge", stroke: zone.color, fill: zone.color }));
    const number = zone.points.length;
    const middle = [0, 1].map((i) => zone.points.reduce((sum, point) => sum + point[i], 0) / number);
    const tag = element("span", { className: "tag", textContent: `${zone.name}: ${inZone(zone)}` });
    place(tag, middle);
    marks.push(tag);
    if (!drawing) zone.points.forEach((_, i) => marks.push(corner(zone, i)));
  }
  if (drawing) {
    const points = pointer ? [...drawing, pointer] : drawing;
    shapes.push(shape("polyline", points, { class: "halo" }));
    shapes.push(shape("polyline", points, { class: "edge", stroke: "#fff", fill: "#fff" }));
    for (const point of drawing) {
      const dot = element("span", { className: "corner" });
      place(dot, point);
      marks.push(dot);
    }
  }
  $("shapes").replaceChildren(...shapes);
  const focused = document.activeElement?.dataset?.corner;
  $("marks").replaceChildren(...marks);
  if (focused) $("marks").querySelector(`[data-corner="${focused}"]`)?.focus();
}

// A handle that moves a corner of a zone.
function corner(zone, i) {
  const handle = element("button", { className: "corner", type: "button" });
  handle.dataset.corner = `${current.zones.indexOf(zone)}-${i}`;
  handle.style.background = zone.color;
  handle.setAttribute(
    "aria-label",
    `Corner ${i + 1} of ${zone.name} at ${zone.points[i].join(", ")}; arrows move it, Delete removes it`,
  );
  place(handle, zone.points[i]);
  const move = (point) => {
    zone.points = zone.points.map((old, j) => (j === i ? inside(point) : old));
    zone.count = null;
  };
  handle.onpointerdown = (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    const done = new AbortController();
    const { signal } = done;
    addEventListener("pointermove", (at) => { move(position(at)); drawZones(); }, { signal });
    for (const kind of ["pointerup", "pointercancel"]) {
      addEventListener(kind, () => { done.abort(); listZones(); countZones(current); }, { signal });
    }
  };
  handle.onkeydown = (event) => {
    const step = arrow(event);
    if (step) move(zone.points[i].map((value, axis) => value + step[axis]));
    else if (event.key === "Delete" && zone.points.length > 3) {
      zone.points = zone.points.filter((_, j) => j !== i);
      zone.count = null;
    } else return;
    event.preventDefault();
    listZones();
    countZones(current);
  };
  return handle;
}

// What an arrow key means, in pixels of the picture.
function arrow(event) {
  const directions = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const step = Math.max(...sides()) * (event.shiftKey ? 0.05 : 0.005);
  return directions[event.key]?.map((value) => value * step);
}

function startDrawing() {
  drawing = [];
  pointer = null;
  showDrawing();
  const stage = $("stage");
  stage.tabIndex = 0;
  stage.setAttribute("role", "application");
  stage.setAttribute("aria-label", "Picture: arrows move the cross, Space sets a corner, Enter closes the zone, Backspace takes a corner back, Escape cancels");
  stage.focus({ preventScroll: true });
}

function stopDrawing() {
  drawing = pointer = null;
  for (const name of ["tabindex", "role", "aria-label"]) $("stage").removeAttribute(name);
  showDrawing();
}

function showDrawing() {
  const active = drawing !== null;
  $("stage").classList.toggle("drawing", active);
  for (const id of ["finish", "cancel", "hint"]) $(id).hidden = !active;
  $("draw").hidden = active;
  $("finish").disabled = !active || drawing.length < 3;
  $("cross").hidden = !active || !pointer;
  if (pointer) place($("cross"), pointer);
  drawZones();
}

function setCorner(point) {
  const first = drawing[0];
  if (drawing.length >= 3 && distance(first, point) < 12) return finish();
  const last = drawing.at(-1);
  if (!last || last[0] !== point[0] || last[1] !== point[1]) drawing.push(point);
  showDrawing();
}

function finish() {
  if (!drawing || drawing.length < 3) return;
  addZone(current, `Zone ${current.zones.length + 1}`, drawing);
  stopDrawing();
  listZones();
  countZones(current);
  $("zones").lastElementChild.querySelector("input").select();
}

$("draw").onclick = startDrawing;
$("finish").onclick = finish;
$("cancel").onclick = () => { stopDrawing(); $("draw").focus(); };
$("stage").addEventListener("pointermove", (event) => {
  if (!drawing || event.pointerType === "touch") return;
  pointer = position(event);
  showDrawing();
});
$("stage").addEventListener("click", (event) => {
  if (!drawing) return;
  if (event.detail > 1) return finish(); // a double click closes the zone
  setCorner(position(event));
});
$("stage").addEventListener("keydown", (event) => {
  if (!drawing) return;
  const step = arrow(event);
  if (step) {
    const from = pointer ?? sides().map((side) => side / 2);
    pointer = inside(from.map((value, axis) => value + step[axis]));
    showDrawing();
    say(`${pointer.map(Math.round).join(", ")}`);
  } else if (event.key === " ") {
    pointer ??= inside(sides().map((side) => side / 2));
    setCorner(pointer);
    if (drawing) say(`Corner ${drawing.length}`);
  } else if (event.key === "Enter") finish();
  else if (event.key === "Backspace") {
    drawing.pop();
    showDrawing();
  } else if (event.key === "Escape") $("cancel").onclick();
  else return;
  event.preventDefault();
});

function listZones() {
  const zones = current?.zones ?? [];
  $("no-zones").hidden = zones.length > 0;
  $("save-zones").hidden = zones.length === 0;
  $("copy").hidden = zones.length === 0 || items.length < 2;
  const focused = document.activeElement?.closest?.(".zone input");
  const at = focused && [...$("zones").querySelectorAll("input")].indexOf(focused);
  if (!focused || $("zones").children.length !== zones.length) {
    $("zones").replaceChildren(...zones.map(zoneRow));
    if (at >= 0) $("zones").querySelectorAll("input")[at]?.focus();
  }
  zones.forEach((zone, i) => {
    const line = $("zones").children[i];
    line.querySelector("output").textContent = inZone(zone);
    line.querySelector(".zone-error").textContent = zone.error ?? "";
    line.querySelector(".zone-error").hidden = !zone.error;
  });
  drawZones();
}

function zoneRow(zone) {
  const swatch = element("span", { className: "swatch" });
  swatch.style.background = zone.color;
  const name = element("input", { type: "text", value: zone.name, maxLength: 100 });
  name.setAttribute("aria-label", `Name of ${zone.name}`);
  name.onchange = () => {
    const others = current.zones.filter((one) => one !== zone);
    zone.name = freeName(name.value.trim() || zone.name, others);
    name.value = zone.name;
    drawZones();
  };
  name.onkeydown = (event) => { if (event.key === "Enter") name.blur(); };
  const away = element("button", { className: "remove", type: "button", textContent: "×" });
  away.setAttribute("aria-label", `Delete ${zone.name}`);
  away.onclick = () => {
    current.zones = current.zones.filter((one) => one !== zone);
    listZones();
    $("draw").focus();
  };
  const error = element("p", { className: "zone-error", hidden: true });
  return element("li", {}, element("div", { className: "zone" }, swatch, name, element("output"), away), error);
}

// In the form of the files of predict --roi; zones that are none are left out.
const zonesOf = (item) => ({
  unit: "pixels",
  zones: Object.fromEntries(
    item.zones.filter((zone) => !zone.error).map((zone) => [zone.name, zone.points]),
  ),
});

async function loadZones(file) {
  try {
    if (!current?.result) throw new Error("count a picture first");
    const { unit = "pixels", zones } = JSON.parse(await file.text());
    const factor = unit === "fraction" ? sides() : [1, 1];
    const found = Object.entries(zones).map(([name, points]) => [
      name, points.map(([x, y]) => [x * factor[0], y * factor[1]]),
    ]);
    if (!found.every(([, points]) => points.length && points.flat().every(Number.isFinite))) {
      throw new Error("no corners");
    }
    for (const [name, points] of found) addZone(current, name.slice(0, 100), points);
    listZones();
    countZones(current);
  } catch (error) {
    complain(`${file.name} holds no zones (${error.message}); expected {"unit": "pixels", "zones": {"name": [[x, y], …]}}.`);
  }
}

$("zone-file").onchange = () => {
  for (const file of $("zone-file").files) loadZones(file);
  $("zone-file").value = "";
};
$("copy").onclick = () => {
  const others = items.filter((item) => item !== current);
  for (const item of others) {
    item.zones = [];
    for (const zone of current.zones) addZone(item, zone.name, zone.points);
    countZones(item);
  }
  say(`Zones copied to ${others.length} pictures`);
};

// Downloads ---------------------------------------------------------------------------------------

function save(name, data, type) {
  const link = element("a", { href: URL.createObjectURL(new Blob([data], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

const stem = (item) => item.name.replace(/\.[^.]*$/, "") || "picture";
const json = (value) => `${JSON.stringify(value, null, 2)}\n`;

function complain(text) {
  $("failure").hidden = false;
  $("again").hidden = true;
  $("failure-text").textContent = text;
}

async function saveOf(item, name, ending, options) {
  try {
    const answer = await part(item, name, options);
    save(`${stem(item)}.${ending}`, await answer.blob());
  } catch (error) {
    complain(error.message);
  }
}

function summary(item) {
  const { name, weights: used, count: total, width, height, scale } = item.result;
  const zones = item.zones
    .filter((zone) => zone.count !== null && !zone.error)
    .map((zone) => ({ name: zone.name, count: zone.count, points: zone.points }));
  return { name, weights: used, count: total, width, height, scale, zones };
}

$("save-overlay").onclick = () => saveOf(current, "overlay", "overlay.png", post(zonesOf(current)));
$("save-density").onclick = () => saveOf(current, "density", "density.npy");
$("save-json").onclick = () => save(`${stem(current)}.count.json`, json(summary(current)), "application/json");
$("save-all").onclick = () => save("counts.json", json(items.filter((item) => item.result).map(summary)), "application/json");
$("save-zones").onclick = () => save(`${stem(current)}.zones.json`, json(zonesOf(current)), "application/json");

// Ways in -----------------------------------------------------------------------------------------

$("files").onchange = () => {
  add([...$("files").files]);
  $("files").value = "";
};
addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) add([...event.clipboardData.files]);
});
let inWindow = 0; // of nested elements that a dragged file is over
addEventListener("dragenter", () => { inWindow++; $("drop").hidden = false; });
addEventListener("dragleave", () => { if (--inWindow <= 0) $("drop").hidden = true; });
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  inWindow = 0;
  $("drop").hidden = true;
  add([...event.dataTransfer.files]);
});

$("weights").onchange = () => {
  weights = $("weights").value;
  if (!current || current.weights === weights) return;
  current.weights = weights;
  if (current.state !== "counting") recount(current);
  else {
    current.abort.abort();
    recount(current);
  }
};
function resize(scale) {
  current.scale = scale;
  recount(current);
}
$("size").onchange = () => resize(Number($("size").value));
$("better").onclick = () => resize(+current.result.better_scale.toPrecision(2));
$("again").onclick = () => recount(current);

async function start() {
  try {
    const [health, choices] = await Promise.all(
      ["api/health", "api/weights"].map(async (address) => (await ask(address)).json()),
    );
    ({ limits, formats } = health);
    weights = choices[0].name;
    for (const { name, trained_on: data } of choices) {
      $("weights").append(element("option", { value: name, textContent: name, title: `trained on ${data}` }));
    }
    $("files").accept = `image/*,${formats.join()}`;
    const most = (limits.pixels / 1e6).toLocaleString("en");
    $("accepted").textContent = `JPEG, PNG, TIFF, WebP, GIF, BMP or PPM, up to ${megabytes(limits.upload_bytes)} and ${most} million pixels each`;
    showOpacity();
  } catch (error) {
    $("accepted").textContent = error.message;
  }
}
start();
