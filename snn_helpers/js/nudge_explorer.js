// One neuron, nudged once: the straight line that autograd draws, and what the nudge really does (chapter 7).
import { spikeSteps } from "./neuron.js";
import { N_STEPS, bothWindows, noisyCurrents, runNudged, totalChanges } from "./nudge_model.js";
import {
  RESETS, drawing, fitDrawing, frame, keepDrawn, legend, liveText, make, noPenalty, panel, plot, remembering, round, signed, valuesOf,
} from "./parts.js";

const MOST = 0.5; // the largest nudge of the slider and of the curve
const FIXED = { decay: 0.9, threshold: 1 };
// Why a setting changes nothing that is seen, as things are; "" where it does.
const withoutNoise = (get) => (get("noise") === 0 ? "the current has no noise" : "");

const CONTROLS = [
  { name: "size", label: "size of the nudge", min: -MOST, max: MOST, step: 0.005 },
  { name: "at", label: "step of the nudge", min: 0, max: N_STEPS - 1, step: 1 },
  { name: "trials", label: "trials, averaged", min: 1, max: 200, step: 1, when: withoutNoise },
  { name: "penalty", label: "penalty p", min: 0, max: 4, step: 0.05, when: noPenalty },
  { name: "reset", label: "reset", options: RESETS },
  { name: "mean", label: "mean current", min: 0, max: 1.2, step: 0.01, more: true },
  { name: "noise", label: "noise of the current", min: 0, max: 0.5, step: 0.01, more: true },
  { name: "seed", label: "seed", min: 0, max: 999, step: 1, when: withoutNoise, more: true },
];
const NAMES = CONTROLS.map(({ name }) => name);

function listed(steps) {
  return `${steps.length === 1 ? "step" : "steps"} ${steps.join(", ")}`;
}

function describe({ size, at, trials }, before, after, slope, change) {
  const [old, now] = [before, after].map(({ outputs }) => spikeSteps(outputs));
  const made = now.filter((t) => !old.includes(t)), lost = old.filter((t) => !now.includes(t));
  const moved = [
    made.length ? `it makes a spike at ${listed(made)}` : "",
    lost.length ? `it takes away the spike at ${listed(lost)}` : "",
  ].filter(Boolean).join(", and ");
  const where = trials === 1 ? "" : ` in the mean of ${trials} trials`;
  return [
    `A nudge of ${signed(size, 3)} at step ${at}.`,
    `Autograd says that the sum of all outputs changes by ${signed(size, 3)} × ${round(slope, 2)} = ${signed(slope * size, 3)}${where}; it changes by ${signed(change, 3)}.`,
    `${trials === 1 ? "" : "In the trial that is drawn, "}${moved || "no spike comes or goes"}.`.replace(/^./, (first) => first.toUpperCase()),
  ].join(" ");
}

function render({ model, el }) {
  const svg = drawing(), byDelay = drawing();
  const text = liveText();
  const controls = panel(model, "nudge", CONTROLS);
  const picture = make("div", { class: "snn-picture" }, svg, legend([
    ["first", "without the nudge; what autograd says"], ["second", "with the nudge; what really happens"],
    ["threshold", "threshold"]]), byDelay, ...text.elements);
  el.append(frame("Nudge explorer", controls.element, picture));

  // The trials, and how the sum of all outputs changes with the size of the nudge: what dragging the size leaves as it is.
  const curveOf = remembering(({ reach, ...given }) => {
    const trials = noisyCurrents(given), nPoints = given.trials > 20 ? 100 : 400;
    const sizes = Array.from({ length: nPoints + 1 }, (_, k) => reach * (2 * (k / nPoints) - 1));
    return { trials, sizes, changes: totalChanges(trials, given.at, sizes, given) };
  });

  function draw() {
    const { size, ...others } = { ...FIXED, ...valuesOf(model, NAMES) }, { at } = others;
    const reach = Math.max(MOST, Math.abs(size)), { trials, sizes, changes } = curveOf({ ...others, reach });
    const before = runNudged(trials[0], at, 0, others), after = runNudged(trials[0], at, size, others);
    const windows = bothWindows(trials, at, size === 0 ? 0.005 : size, others);
    const slope = windows.autograd.reduce((sum, each) => sum + each, 0);
    const [change] = totalChanges(trials, at, [size], others);
    const { width, height } = fitDrawing(svg, 330);
    const across = { left: 52, width: width - 62 }, nX = Math.max(3, Math.floor(across.width / 80));
    const free = height - 92;

    // One trial over time.
    const x = [-0.5, N_STEPS - 0.5];
    const all = [before, after].flatMap(({ states, outputs }) => [...states, ...outputs.map((output) => output + FIXED.threshold)]);
    const low = Math.min(-0.1, ...all), high = Math.max(1.1, ...all), room = 0.06 * (high - low);
    const time = plot(svg, { ...across, top: 8, height: 0.5 * free, x, y: [low - room, high + room], nX, yLabel: "state", xLabel: "time (steps)" });
    time.bar(at - 0.5, at + 0.5, low - room, high + room, "causal");
    time.line([[x[0], 1], [x[1], 1]], "threshold");
    [[before, "first", -0.35], [after, "second", 0.05]].forEach(([run, kind, shift]) => {
      time.line(run.states.map((state, t) => [t, state]), kind);
      run.outputs.forEach((output, t) => { if (output > 0) time.bar(t + shift, t + shift + 0.3, 1, 1 + output, kind); });
    });

    // The sum of all outputs against the size of the nudge.
    const most = 1.1 * Math.max(0.1, ...changes.map(Math.abs), Math.abs(change), Math.min(1.5, Math.abs(slope) * reach));
    const bySize = plot(svg, { ...across, top: 0.5 * free + 54, height: 0.5 * free, x: [-reach, reach], y: [-most, most], nX, nY: 5,
      yLabel: "change", xLabel: "size of the nudge" });
    bySize.line([[-reach, 0], [reach, 0]], "axis");
    bySize.line([[0, -most], [0, most]], "axis");
    const end = slope === 0 ? reach : Math.min(reach, most / Math.abs(slope));
    bySize.line([[-end, -end * slope], [end, end * slope]], "first");
    bySize.line(sizes.map((each, k) => [each, changes[k]]), "second");
    if (Math.abs(slope * size) <= most) bySize.dot(size, slope * size, "first");
    bySize.dot(size, change, "second");

    // Output by output, per unit of nudge.
    const shown = Math.min(10, N_STEPS - at);
    fitDrawing(byDelay, 150);
    const values = [...windows.autograd.slice(0, shown), ...windows.measured.slice(0, shown)];
    const top = Math.max(0.2, ...values), bottom = Math.min(-0.2, ...values), margin = 0.1 * (top - bottom);
    const perUnit = plot(byDelay, { ...across, top: 8, height: 104, x: [-0.5, shown - 0.5], y: [bottom - margin, top + margin], nX, nY: 3,
      yLabel: "per unit", xLabel: "steps after the nudge" });
    perUnit.line([[-0.5, 0], [shown - 0.5, 0]], "axis");
    [["autograd", "first"], ["measured", "second"]].forEach(([name, kind]) => {
      const points = windows[name].slice(0, shown).map((value, d) => [d, value]);
      perUnit.line(points, kind);
      for (const point of points) perUnit.dot(...point, kind);
    });

    const told = describe({ size, at, trials: trials.length }, before, after, slope, change);
    svg.setAttribute("aria-label", `The neuron over time with and without the nudge; below it the change of the sum of its outputs against the size of the nudge, autograd's straight line and what really happens. ${told}`);
    byDelay.setAttribute("aria-label", `The change of each output per unit of nudge, by the steps after it. Autograd: ${
      windows.autograd.slice(0, shown).map((value) => round(value, 2)).join(", ")}. Measured with a nudge up and down: ${
      windows.measured.slice(0, shown).map((value) => round(value, 2)).join(", ")}.`);
    text.tell(told);
  }

  const stopDrawing = keepDrawn(model, NAMES, picture, draw);
  return () => { stopDrawing(); controls.stop(); text.stop(); };
}

export default { render };
