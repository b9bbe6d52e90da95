// What the explorers share: elements, controls that are bound to settings, links, and drawing.

/** An HTML element with attributes and children. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  // A notebook's own keys (arrows move its cells, b and x edit them) are not for what has the focus here. Jupyter
  // Notebook looks for this mark on the element that has the focus, JupyterLab on what is around it too.
  if (["input", "select", "button", "summary"].includes(tag) || "tabindex" in attributes) element.dataset.lmSuppressShortcuts = "true";
  element.append(...children);
  return element;
}

/**
 * What holds an explorer. A notebook's own keys (arrows, letters) stay outside, so that they reach the controls.
 *
 * A picture (class snn-picture) that begins with a drawing, or with an element of the class snn-hold, is taken apart:
 * on a phone this first child comes first and stays in sight while the controls under it are moved; the legend follows
 * it, and all else comes after the controls. In a wide window the parts stay below each other, beside the controls.
 */
export function frame(name, ...children) {
  const root = make("div", { class: "snn", role: "group", "aria-label": name, "data-lm-suppress-shortcuts": "true" }, ...children);
  root.addEventListener("keydown", (event) => event.stopPropagation());
  // Something to read out before there is something to see.
  for (const svg of root.querySelectorAll("svg.snn-drawing:not([aria-label])")) svg.setAttribute("aria-label", `${name}: not drawn yet`);
  const picture = root.querySelector(":scope > .snn-picture");
  if (picture?.firstElementChild?.matches("svg.snn-drawing, .snn-hold")) {
    const rest = [...picture.children].slice(1);
    const side = make("div", { class: "snn-side" });
    picture.replaceWith(side);
    side.append(picture, ...["snn-key", "snn-below"].map((part, k) => {
      const moved = rest.filter((child) => child.matches(".snn-legend") === (k === 0));
      return make("div", { class: part }, ...moved);
    }));
    root.classList.add("snn-parted");
  }
  return root;
}

let nIds = 0;
export function newId(name) {
  nIds += 1;
  return `snn-${name}-${Date.now().toString(36)}-${nIds}`;
}

export const RESETS = ["scale", "discharge", "subtract", "zero"];
/** Why the penalty has no effect, or "". */
export const noPenalty = (get) => (["subtract", "zero"].includes(get("reset")) ? `the reset “${get("reset")}” has no penalty` : "");

/**
 * Settings of the model, as controls describe them: {name, label, min, max, step} or {name, label, options}; and, if
 * need be, `unit`, which is read out with the number, `more`, true for one that is folded away, and `when`, a function
 * of `get` that gives the reason why the control has no effect as things are, or "".
 */
function allowed(control, value) {
  if (control.options) return control.options.includes(value) ? value : undefined;
  const number = Number(value);
  if (value === "" || !Number.isFinite(number)) return undefined;
  const clipped = Math.min(control.max, Math.max(control.min, number));
  return control.step >= 1 ? Math.round(clipped) : clipped;
}

function shown(control, value) {
  if (control.options) return value;
  const decimals = control.step >= 1 ? 0 : Math.max(0, Math.ceil(-Math.log10(control.step)));
  return Number(value).toFixed(decimals);
}

/** What follows the # of the address; as it stands, where a broken copy of a link cannot be decoded. */
function hashText() {
  const text = location.hash.slice(1);
  try {
    return decodeURI(text);
  } catch {
    return text;
  }
}

export function set(model, values) {
  for (const [name, value] of Object.entries(values)) model.set(name, value);
  model.save_changes?.(); // not every host has something to save to
}

/** The model's values of these names. */
export function valuesOf(model, names) {
  return Object.fromEntries(names.map((name) => [name, model.get(name)]));
}

/** The same function, which has its last result ready: for where another width, or what is picked to be shown, draws again. */
export function remembering(compute) {
  let key, found;
  return (given) => {
    const now = JSON.stringify(given);
    if (now !== key) [key, found] = [now, compute(given)];
    return found;
  };
}

/** Bytes as a DataView, however the host hands them over: some as a buffer, and a host that has only JSON in base64. */
export function viewOf(value) {
  if (typeof value === "string") return new DataView(Uint8Array.from(atob(value), (letter) => letter.charCodeAt(0)).buffer);
  return ArrayBuffer.isView(value) ? new DataView(value.buffer, value.byteOffset, value.byteLength) : new DataView(value);
}

export function bytesOf(value) {
  const { buffer, byteOffset, byteLength } = viewOf(value);
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** Call `told` when one of the settings changes; returns what ends it, where the host has a way to. */
export function listen(model, names, told) {
  for (const name of names) model.on(`change:${name}`, told);
  return () => { for (const name of names) model.off?.(`change:${name}`, told); };
}

/** A native slider or menu with its name and value, bound both ways. Native ones know keyboard, touch and screen readers. */
function control(model, spec) {
  const id = newId(spec.name);
  const label = make("label", { for: id }, spec.label);
  let input;
  // Quiet: the slider itself says its value.
  const value = make("output", { for: id, class: "snn-value", "aria-live": "off" });
  if (spec.options) {
    input = make("select", { id }, ...spec.options.map((option) => make("option", { value: option }, option)));
  } else {
    input = make("input", { id, type: "range", min: spec.min, max: spec.max, step: spec.step });
  }
  const row = make("div", { class: "snn-control" }, label, input, value);
  const show = () => {
    const current = model.get(spec.name);
    if (spec.options || Number(input.value) !== current) input.value = current;
    if (spec.options) return;
    value.textContent = shown(spec, current);
    input.setAttribute("aria-valuetext", [shown(spec, current), spec.unit].filter(Boolean).join(" "));
  };
  const isIdle = () => input.getAttribute("aria-disabled") === "true";
  input.addEventListener("input", () => {
    if (isIdle()) show();
    else set(model, { [spec.name]: spec.options ? input.value : Number(input.value) });
  });
  // One that has no effect is grey and does not move; the keyboard still reaches it, and hears why.
  const why = make("p", { class: "snn-why", id: `${id}-why` });
  const weigh = () => {
    const reason = spec.when?.((name) => model.get(name)) ?? "";
    row.classList.toggle("snn-idle", Boolean(reason));
    if (!reason) {
      why.remove();
      for (const name of ["aria-disabled", "aria-describedby"]) input.removeAttribute(name);
      return;
    }
    why.textContent = `no effect: ${reason}`;
    row.append(why);
    input.setAttribute("aria-disabled", "true");
    input.setAttribute("aria-describedby", why.id);
  };
  for (const kind of ["pointerdown", "mousedown"]) {
    input.addEventListener(kind, (event) => { if (isIdle()) event.preventDefault(); });
  }
  const stop = listen(model, [spec.name], show);
  show();
  return { row, weigh, stop };
}

/**
 * The controls, the reset button and, on a page that is not a notebook, the link that carries the settings. A chapter
 * names the controls that it shows, and those that are folded away (`controls`, `more`); else all are shown, and those
 * that say so themselves are folded. `watch`: what else than the controls' own settings the reasons (`when`) look at.
 */
export function panel(model, key, given, watch = []) {
  const only = model.get("_controls");
  const chosen = only ? only.map((name) => given.find((spec) => spec.name === name)).filter(Boolean) : given;
  const start = { ...valuesOf(model, given.map(({ name }) => name)), ...model.get("_start") };
  // A slider reaches what it was started with.
  const specs = chosen.map((spec) => (spec.options ? spec
    : { ...spec, min: Math.min(spec.min, start[spec.name]), max: Math.max(spec.max, start[spec.name]) }));
  const controls = specs.map((spec) => control(model, spec));
  const button = make("button", { type: "button" }, "Reset");
  button.addEventListener("click", () => {
    set(model, start);
    if (model.isStatic && location.hash.startsWith(`#${key}?`)) history.replaceState(null, "", location.pathname);
  });
  const actions = make("div", { class: "snn-actions" }, button);
  const stops = controls.map(({ stop }) => stop);
  const weigh = () => controls.forEach((each) => each.weigh());
  stops.push(listen(model, [...new Set([...given.map(({ name }) => name), ...watch])], weigh));
  weigh();
  const isFolded = (spec) => Boolean(model.get("_more")?.includes(spec.name) || (!only && spec.more));
  const rows = (folded) => controls.filter((_, k) => isFolded(specs[k]) === folded).map(({ row }) => row);
  const fold = make("details", { class: "snn-more" }, make("summary", {}, "More settings"),
    make("div", { class: "snn-controls" }, ...rows(true)));
  if (model.isStatic) {
    const link = make("a", { class: "snn-link" }, "Link to these settings");
    const refresh = () => {
      const query = new URLSearchParams(specs.map((spec) => [spec.name, shown(spec, model.get(spec.name))]));
      link.href = `#${key}?${query}`;
      link.textContent = "Link to these settings";
    };
    link.addEventListener("click", (event) => {
      event.preventDefault();
      history.replaceState(null, "", link.getAttribute("href"));
      const told = (text) => { link.textContent = text; };
      const copied = navigator.clipboard?.writeText(location.href);
      if (copied) copied.then(() => told("Copied: paste it anywhere"), () => told("It is in the address bar now"));
      else told("It is in the address bar now");
    });
    const follow = () => {
      const [hashKey, query] = hashText().split("?");
      if (hashKey !== key || !query) return false;
      const asked = new URLSearchParams(query);
      const values = {};
      for (const spec of specs) {
        const value = asked.has(spec.name) ? allowed(spec, asked.get(spec.name)) : undefined;
        if (value !== undefined) values[spec.name] = value;
      }
      set(model, values);
      // What the link has changed is not to be folded away.
      if (specs.some((spec) => isFolded(spec) && model.get(spec.name) !== start[spec.name])) fold.open = true;
      return true;
    };
    stops.push(listen(model, specs.map(({ name }) => name), refresh));
    addEventListener("hashchange", follow);
    stops.push(() => removeEventListener("hashchange", follow));
    actions.append(link);
    // Twice: it is drawn, and so has its height, only once it is on the screen.
    const lead = (times) => requestAnimationFrame(() => {
      actions.closest(".snn")?.scrollIntoView({ block: "center" });
      if (times > 1) requestAnimationFrame(() => lead(times - 1));
    });
    if (follow()) lead(2);
    refresh();
  }
  const element = make("div", { class: "snn-panel" }, ...rows(false), ...(rows(true).length ? [fold] : []), actions);
  return { element, stop: () => stops.forEach((stop) => stop()) };
}

const NEAR = 150; // pixels: what is about to be scrolled into view is drawn before it is there

/** Tell `told` whether an element is on the screen (or nearly), now and when that changes; returns what ends it. */
export function whileSeen(element, told) {
  if (!globalThis.IntersectionObserver) {
    told(true);
    return () => {};
  }
  const box = element.getBoundingClientRect();
  let seen = box.width > 0 && box.bottom > -NEAR && box.top < innerHeight + NEAR;
  if (seen) told(true);
  const observer = new IntersectionObserver((entries) => {
    const now = entries.at(-1).isIntersecting;
    if (now !== seen) told(seen = now);
  }, { rootMargin: `${NEAR}px 0px` });
  observer.observe(element);
  return () => observer.disconnect();
}

/**
 * Run `draw` when a setting changes and when the width does, once a frame at most, and only while the explorer is on
 * the screen, or printed: what has changed meanwhile is drawn when it comes back. Returns what ends it.
 */
export function keepDrawn(model, names, element, draw) {
  let waiting = 0, seen = false, stale = true, width = element.clientWidth;
  const now = () => {
    cancelAnimationFrame(waiting);
    waiting = 0;
    if (!stale) return;
    stale = false;
    draw();
  };
  const later = () => {
    stale = true;
    if (seen && !waiting) waiting = requestAnimationFrame(now);
  };
  const stopListening = listen(model, names, later);
  const observer = new ResizeObserver(() => {
    if (element.clientWidth === width) return; // its height is the drawing's own doing
    width = element.clientWidth;
    later();
  });
  observer.observe(element);
  addEventListener("beforeprint", now);
  const stopSeeing = whileSeen(element.closest(".snn") ?? element, (is) => {
    seen = is;
    if (seen) now();
  });
  return () => {
    cancelAnimationFrame(waiting);
    observer.disconnect();
    removeEventListener("beforeprint", now);
    stopSeeing();
    stopListening();
  };
}

/** Whether the window is a phone's: the drawing is then above its controls, and stays there. */
export function isNarrow() {
  return matchMedia("(max-width: 699px)").matches;
}

/**
 * Empty a drawing and give it its size: as wide as there is room, and `height` high. On a phone, where it stays in sight
 * while its controls are moved, it takes at most 45 % of the window. Returns what it has: {width, height}.
 */
export function fitDrawing(svg, height) {
  const width = Math.max(260, svg.parentElement.clientWidth);
  const held = isNarrow() && svg.closest(".snn-parted .snn-picture");
  const given = held ? Math.min(height, Math.max(170, Math.floor(0.45 * innerHeight) - 8)) : height;
  svg.setAttribute("viewBox", `0 0 ${width} ${given}`);
  svg.setAttribute("height", given);
  svg.replaceChildren();
  return { width, height: given };
}

/** Places near those that are wanted, at least `gap` apart and between `low` and `high`, in the order that they were in. */
export function spreadOut(wanted, gap, low, high) {
  const order = wanted.map((_, k) => k).sort((a, b) => wanted[a] - wanted[b]);
  const room = Math.min(gap, (high - low) / Math.max(1, wanted.length - 1));
  const places = [...wanted];
  let least = low;
  for (const k of order) {
    places[k] = Math.max(least, places[k]);
    least = places[k] + room;
  }
  let most = high;
  for (const k of order.reverse()) {
    places[k] = Math.min(most, places[k]);
    most = places[k] - room;
  }
  return places;
}

/** A line of text that is seen at once and read out once the reader has paused. */
export function liveText() {
  const seen = make("p", { class: "snn-text", "aria-hidden": "true" });
  const heard = make("p", { class: "snn-heard", role: "status" });
  let timer = 0;
  return {
    elements: [seen, heard],
    tell(text) {
      seen.textContent = text;
      clearTimeout(timer);
      timer = setTimeout(() => { heard.textContent = text; }, 400);
    },
    stop: () => clearTimeout(timer),
  };
}

export function legend(entries) {
  const items = entries.map(([kind, text]) => make("span", {}, make("i", { class: `snn-swatch snn-${kind}` }), text));
  return make("div", { class: "snn-legend" }, ...items);
}

// --- drawing in SVG, in pixels of the screen ---

const SVG = "http://www.w3.org/2000/svg";

function svgElement(tag, attributes = {}, text = "") {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}

export function drawing() {
  const svg = svgElement("svg", { role: "img", class: "snn-drawing" });
  return svg;
}

/** Ends for an axis of these values: zero is among them, and there is some room. */
export function span(values) {
  const least = Math.min(0, ...values), most = Math.max(0, ...values), room = 0.08 * (most - least || 1);
  return [least - room, most + room];
}

/** Values for ticks, about `n` of them, round in the decimal system. */
export function ticks(low, high, n) {
  if (!(n > 0)) return [];
  const rough = (high - low) / n || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough * 0.999);
  const values = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) values.push(Number((k * step).toPrecision(12)));
  return values;
}

/** A plot with its axes: `at(x, y)` gives pixels; lines, bars and words are added by its methods. */
export function plot(svg, { left, top, width, height, x, y, xLabel = "", yLabel = "", nX = 8, nY = 4 }) {
  const group = svgElement("g");
  svg.append(group);
  const px = (value) => left + ((value - x[0]) / (x[1] - x[0])) * width;
  const py = (value) => top + height - ((value - y[0]) / (y[1] - y[0])) * height;
  const add = (tag, attributes, text) => {
    const element = svgElement(tag, attributes, text);
    group.append(element);
    return element;
  };
  for (const value of ticks(...y, nY)) {
    add("line", { x1: left, x2: left + width, y1: py(value), y2: py(value), class: "snn-grid" });
    add("text", { x: left - 6, y: py(value) + 4, "text-anchor": "end" }, String(value).replace("-", "−"));
  }
  if (xLabel) {
    for (const value of ticks(...x, nX)) {
      add("text", { x: px(value), y: top + height + 15, "text-anchor": "middle" }, String(value).replace("-", "−"));
    }
    add("text", { x: left + width / 2, y: top + height + 31, "text-anchor": "middle" }, xLabel);
  }
  if (yLabel) {
    add("text", { transform: `translate(${left - 42} ${top + height / 2}) rotate(-90)`, "text-anchor": "middle" }, yLabel);
  }
  const line = (points, kind) => add("polyline", {
    points: points.map(([a, b]) => `${px(a).toFixed(2)},${py(b).toFixed(2)}`).join(" "), class: `snn-line snn-${kind}` });
  return {
    px, py, add, line,
    // A window jumps between a pulse after the spike and one in its step: two pieces of line.
    law(delays, values) {
      for (const side of [(d) => d < 0, (d) => d >= 0]) line(delays.map((d, i) => [d, values[i]]).filter(([d]) => side(d)), "law");
    },
    area: (points, kind) => add("polygon", {
      points: points.map(([a, b]) => `${px(a).toFixed(2)},${py(b).toFixed(2)}`).join(" "), class: `snn-area snn-${kind}` }),
    bar: (a0, a1, b0, b1, kind) => add("rect", {
      x: Math.min(px(a0), px(a1)), y: Math.min(py(b0), py(b1)), width: Math.abs(px(a1) - px(a0)),
      height: Math.abs(py(b1) - py(b0)), class: `snn-bar snn-${kind}` }),
    dot: (a, b, kind) => add("circle", { cx: px(a).toFixed(2), cy: py(b).toFixed(2), r: 3.2, class: `snn-dot snn-${kind}` }),
    word: (a, b, text, kind, anchor = "start") => add("text", { x: px(a), y: py(b), class: `snn-${kind}`, "text-anchor": anchor }, text),
  };
}

/** A number as it is told. Minus nothing is nothing. */
export function round(value, decimals) {
  return value.toFixed(decimals).replace(/^-(?=[0.]*$)/, "").replace("-", "−");
}

/** The same with its sign; nothing has none. */
export function signed(value, decimals) {
  const text = round(value, decimals);
  return value < 0 || /^[0.]*$/.test(text) ? text : `+${text}`;
}

/** So many of a thing: "1 step", "2 steps". */
export function counted(n, word) {
  return `${n} ${word}${n === 1 ? "" : "s"}`;
}
