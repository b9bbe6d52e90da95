// What a surrogate promises and what a nudge does, live: chapter 12.

import { flickeringCurrent } from "./neuron.js";
import { SHAPES, nudged, runBinary, spikeGradient, surrogateSlope } from "./surrogate_model.js";
import { RESETS, counted, drawing, fitDrawing, frame, keepDrawn, legend, liveText, make, panel, plot, round, valuesOf } from "./parts.js";

const CONTROLS = [
  { name: "shape", label: "shape", options: Object.keys(SHAPES) },
  { name: "slope", label: "slope k", min: 0.5, max: 20, step: 0.5 },
  { name: "strength", label: "current (its mean)", min: 0, max: 0.6, step: 0.01 },
  { name: "flicker", label: "flicker", min: 0, max: 1, step: 0.05 },
  { name: "nudge", label: "nudge of one step's current", min: 0.05, max: 1, step: 0.05 },
  { name: "decay", label: "decay β", min: 0, max: 1, step: 0.01 },
  { name: "reset", label: "reset", options: RESETS },
  { name: "seed", label: "seed of the flicker", min: 0, max: 50, step: 1 },
];
const NAMES = [...CONTROLS.map(({ name }) => name), "threshold", "penalty", "n_steps"];

const sum = (values) => values.reduce((total, value) => total + value, 0);

function describe({ count }, promised, happened, nudge) {
  const moved = happened.filter((change) => change !== 0).length;
  const empty = promised.filter((promise, t) => promise !== 0 && happened[t] === 0).length;
  return [
    `${counted(count, "spike")}. A nudge of ${round(nudge, 2)} at one step changes their number at `
      + `${moved} of ${counted(promised.length, "step")}, by ${round(sum(happened), 0)} in all.`,
    `The gradient promises ${round(sum(promised), 1)} in all:`,
    empty === 0 ? "nothing in vain." : `at ${counted(empty, "step")} it promises something, and nothing happens.`,
  ].join(" ");
}

function render({ model, el }) {
  const svg = drawing(), below = drawing();
  const text = liveText();
  const controls = panel(model, "surrogate", CONTROLS);
  const picture = make("div", { class: "snn-picture" }, svg, legend([
    ["threshold", "the spike as it is, and its threshold"], ["state", "charge"], ["output", "a spike"], ["law", "the surrogate, and what its gradient promises"],
    ["measured", "what the nudge does"]]), below, ...text.elements);
  el.append(frame("Surrogate explorer", controls.element, picture));

  function draw() {
    const settings = valuesOf(model, NAMES), { threshold, nudge, n_steps: nSteps } = settings;
    const currents = flickeringCurrent(settings.strength, settings.flicker, settings.seed, nSteps);
    const found = runBinary(currents, settings);
    const promised = spikeGradient(found, settings).map((slope) => slope * nudge);
    const happened = nudged(currents, nudge, settings);

    const across = (width) => ({ left: 52, width: width - 62, nX: Math.max(3, Math.floor(width / 80)) });
    const { width, height } = fitDrawing(svg, 310);
    const upper = Math.floor(0.38 * (height - 74)), lower = height - 74 - upper;
    const x = [-0.5, nSteps - 0.5];
    const low = Math.min(0, ...found.charges), high = Math.max(threshold * 1.2, ...found.charges);
    const charges = plot(svg, { ...across(width), top: 8, height: upper, x, y: [low, high * 1.03], nY: 3, yLabel: "charge v" });
    charges.line([[x[0], threshold], [x[1], threshold]], "threshold");
    charges.line(found.charges.map((charge, t) => [t, charge]), "state");
    found.charges.forEach((charge, t) => { if (found.spikes[t]) charges.bar(t - 0.25, t + 0.25, 0, charge, "output"); });

    const least = Math.min(0, ...promised, ...happened), most = Math.max(1, ...promised, ...happened);
    const room = 0.06 * (most - least);
    const answer = plot(svg, { ...across(width), top: 30 + upper, height: lower, x, y: [least - room, most + room], nY: 4,
      xLabel: "step whose current is nudged", yLabel: "spikes more" });
    answer.line([[x[0], 0], [x[1], 0]], "axis");
    promised.forEach((promise, t) => answer.bar(t - 0.35, t + 0.35, 0, promise, "promise"));
    happened.forEach((change, t) => answer.dot(t, change, "measured"));

    const reach = 1.2;
    const small = fitDrawing(below, 125);
    const shape = plot(below, { ...across(small.width), top: 8, height: 80, x: [-reach, reach], y: [0, 1.05], nY: 2,
      xLabel: "charge − threshold", yLabel: "surrogate" });
    const grid = Array.from({ length: 241 }, (_, i) => reach * (i / 120 - 1));
    shape.line([[-reach, 0], [0, 0], [0, 1], [reach, 1]], "threshold");
    shape.line(grid.map((d) => [d, surrogateSlope(d, settings)]), "law");
    for (const charge of found.charges) {
      const distance = charge - threshold;
      if (Math.abs(distance) <= reach) shape.line([[distance, 0], [distance, 0.1]], charge > threshold ? "law" : "state");
    }

    const told = describe(found, promised, happened, nudge);
    svg.setAttribute("aria-label", "The charge over time, and for each step what the gradient promises for a nudge and what "
      + `the nudge does. ${told}`);
    below.setAttribute("aria-label", `The surrogate, ${settings.shape} with slope ${settings.slope}, against the distance of the `
      + "charge from the threshold, beside the spike's own step, with a mark for each step's charge");
    text.tell(told);
  }

  const stopDrawing = keepDrawn(model, NAMES, picture, draw);
  return () => { stopDrawing(); controls.stop(); text.stop(); };
}

export default { render };
