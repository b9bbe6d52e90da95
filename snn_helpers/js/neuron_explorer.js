// One neuron, driven by a flickering current (chapter 1).
import { flickeringCurrent } from "./neuron.js";
import { RESETS, counted, drawing, fitDrawing, frame, keepDrawn, legend, liveText, make, noPenalty, panel, plot, round, valuesOf } from "./parts.js";
import { runNeuron } from "./simulation.js";

/** Reasons why a setting changes nothing that is seen, as things are; "" where it does. */
function withoutCurrent(get) {
  return get("strength") === 0 ? "there is no current" : "";
}

function withoutSpike(get) {
  return withoutCurrent(get) || (runNeuron(currentOf(get), settingsOf(get)).spikes.length === 0 ? "the neuron does not fire" : "");
}

function withoutPenalty(get) {
  return withoutSpike(get) || noPenalty(get);
}

function withoutFlicker(get) {
  return withoutCurrent(get) || (get("flicker") === 0 ? "the current is steady" : "");
}

const CONTROLS = [
  { name: "decay", label: "decay β", min: 0, max: 1, step: 0.01, when: withoutCurrent },
  { name: "threshold", label: "threshold θ", min: 0.1, max: 3, step: 0.05 },
  { name: "penalty", label: "penalty p", min: 0, max: 4, step: 0.05, when: withoutPenalty },
  { name: "reset", label: "reset", options: RESETS, when: withoutSpike },
  { name: "strength", label: "input strength", min: 0, max: 2, step: 0.01 },
  { name: "flicker", label: "flicker", min: 0, max: 1, step: 0.05, when: withoutCurrent },
  { name: "seed", label: "seed", min: 0, max: 999, step: 1, when: withoutFlicker },
];

function settingsOf(get) {
  return Object.fromEntries(CONTROLS.map(({ name }) => [name, get(name)]));
}

function currentOf(get) {
  return flickeringCurrent(get("strength"), get("flicker"), get("seed"), get("n_steps"));
}

function describe(result, nSteps) {
  const n = result.spikes.length, steps = counted(nSteps, "step");
  const spikes = n === 0 ? `silent: no spike in ${steps}` : `${counted(n, "spike")} in ${steps}`;
  const { intervals } = result;
  const mean = intervals.reduce((a, b) => a + b, 0) / intervals.length;
  const range = `${Math.min(...intervals)} to ${Math.max(...intervals)} steps`;
  const resting = result.rests.reduce((sum, [from, to]) => sum + to - from, 0);
  return [
    `${spikes}, a firing rate of ${round(result.rate, 2)} a step.`,
    intervals.length === 0 ? "" : `Intervals between spikes: ${range}, ${round(mean, 1)} on average.`,
    `It rests in ${resting} of ${steps}.`,
  ].filter(Boolean).join(" ").replace(/^./, (first) => first.toUpperCase());
}

function render({ model, el }) {
  const overTime = drawing(), intervals = drawing();
  const text = liveText();
  const controls = panel(model, "neuron", CONTROLS, ["n_steps"]);
  const picture = make("div", { class: "snn-picture" }, overTime, legend([
    ["state", "state, as each step leaves it"], ["threshold", "threshold"], ["output", "output, a graded spike"],
    ["rest", "rests: thrown below zero, and not yet back"]]), intervals, ...text.elements);
  el.append(frame("Neuron explorer", controls.element, picture));

  function draw() {
    const get = (name) => model.get(name);
    const settings = settingsOf(get), nSteps = get("n_steps");
    const currents = currentOf(get);
    const result = runNeuron(currents, settings);
    const { width, height } = fitDrawing(overTime, 350);
    const across = { left: 52, width: width - 62 };
    const x = [-0.5, nSteps - 0.5], nX = Math.max(3, Math.floor(across.width / 70));

    const most = Math.max(0.1, 2 * settings.strength), above = Math.round(0.2 * height);
    const top = plot(overTime, { ...across, top: 8, height: above, x, y: [0, most], yLabel: "current", nY: 2 });
    currents.forEach((current, t) => top.bar(t - 0.4, t + 0.4, 0, current, "current"));

    const { threshold } = settings;
    const low = Math.min(-0.1, ...result.states), high = Math.max(threshold, ...result.outputs.map((o) => o + threshold), ...result.states);
    const room = 0.06 * (high - low), y = [low - room, high + room];
    const main = plot(overTime, { ...across, top: above + 24, height: height - above - 62, x, y, yLabel: "state", xLabel: "time (steps)", nX });
    for (const [from, to] of result.rests) main.bar(from, Math.min(to, nSteps - 0.5), ...y, "rest");
    main.line([[x[0], threshold], [x[1], threshold]], "threshold");
    main.line(result.states.map((state, t) => [t, state]), "state");
    for (const t of result.spikes) main.bar(t - 0.3, t + 0.3, threshold, threshold + result.outputs[t], "output");

    const counts = new Map();
    for (const interval of result.intervals) counts.set(interval, (counts.get(interval) ?? 0) + 1);
    const longest = Math.max(10, ...result.intervals), often = Math.max(4, ...counts.values());
    fitDrawing(intervals, 110);
    const bottom = plot(intervals, { ...across, top: 8, height: 66, x: [0, longest + 1], y: [0, often], nX, nY: 2,
      xLabel: "interval between spikes (steps)", yLabel: "how often" });
    for (const [interval, count] of counts) bottom.bar(interval - 0.35, interval + 0.35, 0, count, "current");

    const told = describe(result, nSteps);
    overTime.setAttribute("aria-label", `The neuron over time: its current, its state with the threshold, and its output. ${told}`);
    intervals.setAttribute("aria-label", `How often each interval between spikes occurs: ${
      [...counts].sort(([a], [b]) => a - b).map(([interval, count]) => `${counted(interval, "step")}, ${counted(count, "time")}`).join("; ") || "none"}`);
    text.tell(told);
  }

  const stopDrawing = keepDrawn(model, [...CONTROLS.map(({ name }) => name), "n_steps"], picture, draw);
  return () => { stopDrawing(); controls.stop(); text.stop(); };
}

export default { render };
