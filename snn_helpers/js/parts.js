// What the explorers share: elements, controls that are bound to settings, links, and drawing.

/** An HTML element with attributes and children. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  // A notebook's own keys (arrows move its cells, b and x edit them) are not for what has the focus here. Jupyter
  // Notebook looks for this mark on the element that has the focus, JupyterLab on what is around it too.
  if (["input", "select", "button"].includes(tag) || "tabindex" in attributes) element.dataset.lmSuppressShortcuts = "true";
  element.append(...children);
  return element;
}

/** What holds an explorer. A notebook's own keys (arrows, letters) stay outside, so that they reach the controls. */
export function frame(name, ...children) {
  const root = make("div", { class: "snn", role: "group", "aria-label": name, "data-lm-suppress-shortcuts": "true" }, ...children);
  root.addEventListener("keydown", (event) => event.stopPropagation());
  return root;
}

let nIds = 0;
export function newId(name) {
  nIds += 1;
  return `snn-${name}-${Date.now().toString(36)}-${nIds}`;
}

export const RESETS = ["scale", "discharge", "subtract", "zero"];

/** Settings of the model, as controls describe them: {name, label, min, max, step} or {name, label, options}. */
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

export function set(model, values) {
  for (const [name, value] of Object.entries(values)) model.set(name, value);
  model.save_changes();
}

/** A native slider or menu with its name and value, bound both ways. Native ones know keyboard, touch and screen readers. */
function control(model, spec) {
  const id = newId(spec.name);
  const label = make("label", { for: id }, spec.label);
  let input;
  const value = make("output", { for: id, class: "snn-value" });
  if (spec.options) {
    input = make("select", { id }, ...spec.options.map((option) => make("option", { value: option }, option)));
  } else {
    input = make("input", { id, type: "range", min: spec.min, max: spec.max, step: spec.step });
  }
  const show = () => {
    const current = model.get(spec.name);
    if (spec.options || Number(input.value) !== current) input.value = current;
    value.textContent = spec.options ? "" : shown(spec, current);
  };
  input.addEventListener("input", () => set(model, { [spec.name]: spec.options ? input.value : Number(input.value) }));
  model.on(`change:${spec.name}`, show);
  show();
  return { row: make("div", { class: "snn-control" }, label, input, value), stop: () => model.off(`change:${spec.name}`, show) };
}

/** All controls, the reset button and, on a page that is not a notebook, the link that carries the settings. */
export function panel(model, key, given) {
  // A slider reaches what it was started with.
  const start = model.get("_start");
  const specs = given.map((spec) => (spec.options ? spec : { ...spec, max: Math.max(spec.max, start[spec.name]) }));
  const controls = specs.map((spec) => control(model, spec));
  const button = make("button", { type: "button" }, "Reset");
  button.addEventListener("click", () => {
    set(model, start);
    if (model.isStatic && location.hash.startsWith(`#${key}?`)) history.replaceState(null, "", location.pathname);
  });
  const actions = make("div", { class: "snn-actions" }, button);
  const stops = controls.map(({ stop }) => stop);
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
      if (copied) copied.then(() => told("Copied: paste it anywhere"), () => told("It stands in the address bar now"));
      else told("It stands in the address bar now");
    });
    const follow = () => {
      const [hashKey, query] = decodeURI(location.hash.slice(1)).split("?");
      if (hashKey !== key || !query) return false;
      const asked = new URLSearchParams(query);
      const values = {};
      for (const spec of specs) {
        const value = asked.has(spec.name) ? allowed(spec, asked.get(spec.name)) : undefined;
        if (value !== undefined) values[spec.name] = value;
      }
      set(model, values);
      return true;
    };
    for (const spec of specs) model.on(`change:${spec.name}`, refresh);
    addEventListener("hashchange", follow);
    stops.push(() => removeEventListener("hashchange", follow));
    actions.append(link);
    if (follow()) requestAnimationFrame(() => actions.closest(".snn")?.scrollIntoView({ block: "center" }));
    refresh();
  }
  const element = make("div", { class: "snn-panel" }, ...controls.map(({ row }) => row), actions);
  return { element, stop: () => stops.forEach((stop) => stop()) };
}

/** Run `draw` now, when a setting changes and when the width does, once a frame at most; returns what ends it. */
export function keepDrawn(model, names, element, draw) {
  let waiting = 0;
  const later = () => {
    if (!waiting) waiting = requestAnimationFrame(() => { waiting = 0; draw(); });
  };
  for (const name of names) model.on(`change:${name}`, later);
  const observer = new ResizeObserver(later);
  observer.observe(element);
  draw();
  return () => {
    cancelAnimationFrame(waiting);
    observer.disconnect();
    for (const name of names) model.off(`change:${name}`, later);
  };
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

/** Values for ticks, about `n` of them, round in the decimal system. */
export function ticks(low, high, n) {
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
  return {
    px, py, add,
    line: (points, kind) => add("polyline", {
      points: points.map(([a, b]) => `${px(a).toFixed(2)},${py(b).toFixed(2)}`).join(" "), class: `snn-line snn-${kind}` }),
    area: (points, kind) => add("polygon", {
      points: points.map(([a, b]) => `${px(a).toFixed(2)},${py(b).toFixed(2)}`).join(" "), class: `snn-area snn-${kind}` }),
    bar: (a0, a1, b0, b1, kind) => add("rect", {
      x: Math.min(px(a0), px(a1)), y: Math.min(py(b0), py(b1)), width: Math.abs(px(a1) - px(a0)),
      height: Math.abs(py(b1) - py(b0)), class: `snn-bar snn-${kind}` }),
    dot: (a, b, kind) => add("circle", { cx: px(a), cy: py(b), r: 3.2, class: `snn-dot snn-${kind}` }),
    word: (a, b, text, kind, anchor = "start") => add("text", { x: px(a), y: py(b), class: `snn-${kind}`, "text-anchor": anchor }, text),
  };
}

export function round(value, decimals) {
  return value.toFixed(decimals).replace("-", "−");
}
