// A small Boltzmann machine and the two phases that teach it, live: chapter 14.

import { cosine, cycleOf, divergence, exactGradient, stepAlong } from "./phases_model.js";
import { counted, drawing, fitDrawing, frame, keepDrawn, legend, liveText, make, panel, plot, remembering, round, set } from "./parts.js";

const CONTROLS = [
  { name: "rule", label: "rule", options: ["two phases", "transition"] },
  { name: "decay", label: "decay β", min: 0, max: 0.95, step: 0.05 },
  { name: "rest", label: "rest", min: 0, max: 15, step: 1, unit: "steps" },
  { name: "n_steps", label: "steps in a half", min: 1, max: 60, step: 1, unit: "steps" },
  { name: "picture", label: "picture whose spikes are drawn", min: 1, max: 5, step: 1 },
  { name: "learning_rate", label: "learning rate", min: 0.1, max: 3, step: 0.1 },
  { name: "seed", label: "seed of the draws", min: 0, max: 50, step: 1 },
];
const MACHINE = ["weight", "visible_bias", "hidden_bias", "updates", "n_copies"];
const TITLES = {
  "two phases": ["with the data", "running free", "Δw, the difference"],
  transition: ["at the end", "at the start", "Δw, pre × change"],
};

/** Numbers as squares, row by row: the larger, the larger; those below zero are hollow. */
function squares(parent, rows, most, { left, top, cell, title }) {
  parent.add("text", { x: left, y: top - 6 }, title);
  parent.add("rect", { x: left, y: top, width: cell * rows[0].length, height: cell * rows.length, class: "snn-line snn-axis" });
  rows.forEach((row, i) => row.forEach((value, j) => {
    const side = (cell - 2) * Math.min(1, Math.sqrt(Math.abs(value) / most));
    if (!(side > 0.7)) return;
    parent.add("rect", { x: left + cell * (j + 0.5) - side / 2, y: top + cell * (i + 0.5) - side / 2, width: side, height: side,
      class: value > 0 ? "snn-bar snn-plus" : "snn-bar snn-minus" });
  }));
}

function render({ model, el }) {
  const svg = drawing(), below = drawing();
  const text = liveText();
  const pictures = model.get("_pictures");
  const controls = panel(model, "phases", CONTROLS.map((spec) => (spec.name === "picture" ? { ...spec, max: pictures.length } : spec)));
  const buttons = [1, 10].map((n) => {
    const button = make("button", { type: "button" }, n === 1 ? "One update" : `${n} updates`);
    button.addEventListener("click", () => learn(n));
    return button;
  });
  controls.element.append(make("div", { class: "snn-actions" }, ...buttons));
  const picture = make("div", { class: "snn-picture" }, svg, legend([
    ["state", "a visible neuron fires"], ["law", "a hidden neuron fires"], ["learns", "the synapses learn"],
    ["plus", "above zero"], ["minus", "below zero"]]), below, ...text.elements);
  el.append(frame("Phases explorer", controls.element, picture));
  let waiting = 0, path = [];
  // What the machine does, and what it should do: kept, for another picture, and for the update that follows.
  const cycleNow = remembering(({ machine, settings }) => ({ cycle: cycleOf(machine, pictures, settings),
    exact: exactGradient(machine, pictures), now: divergence(machine, pictures) }));

  const machineNow = () => ({ weight: model.get("weight"), visible: model.get("visible_bias"), hidden: model.get("hidden_bias") });
  const settingsNow = () => ({
    rule: model.get("rule"), decay: model.get("decay"), rest: model.get("rest"), nSteps: model.get("n_steps"),
    nCopies: model.get("n_copies") * pictures.length,
    seed: model.get("seed") + 1000 * model.get("updates"), // each update has draws of its own
  });

  function learn(n) {
    clearTimeout(waiting);
    const machine = machineNow(), { cycle, now } = cycleNow({ machine, settings: settingsNow() });
    const next = stepAlong(machine, cycle.gradient, model.get("learning_rate"));
    path.push([model.get("updates"), now]);
    const updates = model.get("updates") + 1;
    set(model, { weight: next.weight, visible_bias: next.visible, hidden_bias: next.hidden, updates });
    // Unless the machine was set back meanwhile.
    if (n > 1) waiting = setTimeout(() => { if (model.get("updates") === updates) learn(n - 1); }, 30);
  }

  function draw() {
    const settings = settingsNow(), machine = machineNow(), { nSteps, nCopies, rest, rule } = settings;
    const updates = model.get("updates"), shown = (model.get("picture") - 1) % pictures.length;
    const { cycle, exact, now } = cycleNow({ machine, settings }), turn = cosine(cycle.gradient, exact);
    const after = divergence(stepAlong(machine, cycle.gradient, model.get("learning_rate")), pictures);

    const { width, height } = fitDrawing(svg, 310);
    const nV = machine.visible.length, nH = machine.hidden.length;
    const left = 52, cell = Math.floor(Math.min(17, (width - 10 - 12 * 3) / 4 / nV));
    const tall = height - 26 - 34 - 30 - cell * nH;
    const low = -0.7, high = nV + nH + 0.9;
    const nAll = cycle.halves.length * nSteps;
    const raster = plot(svg, { left, top: 26, width: width - left - 10, height: tall, x: [-0.5, nAll - 0.5], y: [low, high],
      nX: Math.max(3, Math.floor(width / 80)), nY: 0, xLabel: "time (steps)" });
    raster.add("text", { x: left, y: 14, "font-weight": 600 }, `cosine of ${width < 450 ? "Δw" : "the weights' change"} with the exact gradient: ${round(turn, 2)}`);
    raster.add("text", { x: left - 6, y: raster.py(nV / 2 - 0.5) + 4, "text-anchor": "end" }, "visible");
    raster.add("text", { x: left - 6, y: raster.py(nV + nH / 2 - 0.5) + 4, "text-anchor": "end" }, "hidden");
    cycle.halves.forEach((half, k) => {
      const begin = k * nSteps;
      const learns = rule === "transition" ? (k === 2 ? 0 : null) : Math.floor(nSteps / 2);
      if (learns !== null) raster.bar(begin + learns - 0.5, begin + nSteps - 0.5, low, high, "learns");
      if (k > 0) raster.line([[begin - 0.5, low], [begin - 0.5, high]], "threshold");
      const name = k === 1 ? "free" : "data";
      raster.word(begin + nSteps / 2 - 0.5, nV + nH + 0.1, rule === "transition" ? name : `${name} ${k ? "−" : "+"}`, "name", "middle");
      half.slice(1).forEach((layers, t) => layers.forEach((steps, level) => {
        const n = level === 0 ? nV : nH;
        for (let i = 0; i < n; i++) {
          if (steps[shown * n + i] !== rest + 1) continue;
          const y = i + (level === 0 ? 0 : nV);
          raster.add("line", { x1: raster.px(begin + t), x2: raster.px(begin + t), y1: raster.py(y - 0.38), y2: raster.py(y + 0.38),
            class: `snn-line ${level === 0 ? "snn-state" : "snn-law"}` });
        }
      }));
    });
    const top = height - cell * nH - 4, apart = (width - 10 - 4 * cell * nV) / 3;
    const narrow = apart + cell * nV < 120;
    const titles = narrow ? (rule === "transition" ? ["end", "start", "Δw"] : ["data", "free", "Δw"]) : TITLES[rule];
    const most = Math.max(...[cycle.gradient, exact].flatMap(({ weight }) => weight.flat().map(Math.abs)), 1e-9);
    [[cycle.plus, 1], [cycle.minus, 1], [cycle.gradient, most], [exact, most]].forEach(([{ weight }, scale], k) =>
      squares(raster, weight, scale, { left: 5 + k * (apart + cell * nV), top, cell, title: [...titles, narrow ? "exact" : "exact gradient"][k] }));

    path = path.filter(([update]) => update < updates);
    const small = fitDrawing(below, 165);
    const points = [...path, [updates, now]];
    const end = Math.max(20, updates + 1);
    const course = plot(below, { left, top: 10, width: small.width - left - 10, height: 115, x: [0, end],
      y: [0, 1.08 * Math.max(after, ...points.map(([, value]) => value))], nX: Math.max(3, Math.floor(small.width / 80)), nY: 4,
      xLabel: "updates", yLabel: "nats from data" });
    course.line(points, "whole");
    course.dot(updates, now, "measured");
    course.line([[updates, now], [updates + 1, after]], "threshold");

    const told = `Cosine of the weights' change with the exact gradient: ${round(turn, 3)}. After ${counted(updates, "update")} `
      + `the machine is ${round(now, 2)} nats from the pictures; the next one leads to ${round(after, 2)}.`;
    svg.setAttribute("aria-label", `The spikes of one copy in the ${rule === "transition" ? "data half, the free half and the data half that learns"
      : "data half and the free half"}; how often visible and hidden neurons are on together ${TITLES[rule][0]} and ${TITLES[rule][1]}; the change `
      + `of the ${nV * nH} weights, from ${nCopies} copies, beside the exact gradient. Cosine ${round(turn, 2)}.`);
    below.setAttribute("aria-label", `The machine's distance from the pictures against the number of updates. ${told}`);
    text.tell(told);
  }

  const stopDrawing = keepDrawn(model, [...CONTROLS.map(({ name }) => name), ...MACHINE], picture, draw);
  return () => { stopDrawing(); clearTimeout(waiting); controls.stop(); text.stop(); };
}

export default { render };
