// One neuron, driven by a flickering current (chapter 1).
import { flickeringCurrent, runNeuron } from "./simulation.js";
import { RESETS, drawing, frame, keepDrawn, legend, liveText, make, panel, plot, round } from "./parts.js";

const CONTROLS = [
  { name: "decay", label: "decay β", min: 0, max: 1, step: 0.01 },
  { name: "threshold", label: "threshold θ", min: 0.1, max: 3, step: 0.05 },
  { name: "penalty", label: "penalty p", min: 0, max: 4, step: 0.05 },
  { name: "reset", label: "reset", options: RESETS },
  { name: "strength", label: "input strength", min: 0, max: 2, step: 0.01 },
  { name: "flicker", label: "flicker", min: 0, max: 1, step: 0.05 },
  { name: "seed", label: "seed", min: 0, max: 999, step: 1 },
];

function describe(result, nSteps) {
  const n = result.spikes.length;
  const spikes = n === 0 ? `silent: no spike in ${nSteps} steps` : `${n} ${n === 1 ? "spike" : "spikes"} in ${nSteps} steps`;
  const { intervals } = result;
  const mean = intervals.reduce((a, b) => a + b, 0) / intervals.length;
  const range = `${Math.min(...intervals)} to ${Math.max(...intervals)} steps`;
  const resting = result.rests.reduce((sum, [from, to]) => sum + to - from, 0);
  return [
    `${spikes}, a firing rate of ${round(result.rate, 2)} a step.`,
    intervals.length === 0 ? "" : `Intervals between spikes: ${range}, ${round(mean, 1)} on average.`,
    `It rests in ${resting} of ${nSteps} steps.`,
  ].filter(Boolean).join(" ").replace(/^./, (first) => first.toUpperCase());
}

function render({ model, el }) {
  const svg = drawing();
  const text = liveText();
  const controls = panel(model, "neuron", CONTROLS);
  const picture = make("div", { class: "snn-picture" }, svg, legend([
    ["state", "state, as each step leaves it"], ["threshold", "threshold"], ["output", "output, a graded spike"],
    ["rest", "rests: thrown below zero, and not yet back"]]), ...text.elements);
  el.append(frame("Neuron explorer", controls.element, picture));

  function draw() {
    const settings = Object.fromEntries(CONTROLS.map(({ name }) => [name, model.get(name)]));
    const nSteps = model.get("n_steps");
    const currents = flickeringCurrent(settings.strength, settings.flicker, settings.seed, nSteps);
    const result = runNeuron(currents, settings);
    const width = Math.max(260, svg.parentElement.clientWidth);
    const height = 470;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("height", height);
    svg.replaceChildren();
    const across = { left: 52, width: width - 62 };
    const x = [-0.5, nSteps - 0.5], nX = Math.max(3, Math.floor(across.width / 70));

    const most = Math.max(0.1, 2 * settings.strength);
    const top = plot(svg, { ...across, top: 8, height: 70, x, y: [0, most], yLabel: "current", nY: 2 });
    currents.forEach((current, t) => top.bar(t - 0.4, t + 0.4, 0, current, "current"));

    const { threshold } = settings;
    const low = Math.min(-0.1, ...result.states), high = Math.max(threshold, ...result.outputs.map((o) => o + threshold), ...result.states);
    const room = 0.06 * (high - low);
    const main = plot(svg, { ...across, top: 94, height: 215, x, y: [low - room, high + room], yLabel: "state", xLabel: "time (steps)", nX });
    for (const [from, to] of result.rests) main.bar(from, Math.min(to, nSteps - 0.5), low - room, high + room, "rest");
    main.line([[x[0], threshold], [x[1], threshold]], "threshold");
    main.line(result.states.map((state, t) => [t, state]), "state");
    for (const t of result.spikes) main.bar(t - 0.3, t + 0.3, threshold, threshold + result.outputs[t], "output");

    const counts = new Map();
    for (const interval of result.intervals) counts.set(interval, (counts.get(interval) ?? 0) + 1);
    const longest = Math.max(10, ...result.intervals), often = Math.max(4, ...counts.values());
    const bottom = plot(svg, { ...across, top: 362, height: 66, x: [0, longest + 1], y: [0, often], nX, nY: 2,
      xLabel: "interval between spikes (steps)", yLabel: "how often" });
    for (const [interval, count] of counts) bottom.bar(interval - 0.35, interval + 0.35, 0, count, "current");

    const told = describe(result, nSteps);
    svg.setAttribute("aria-label", `The neuron over time: its current, its state with the threshold, its output, and a count of its intervals. ${told}`);
    text.tell(told);
  }

  const stopDrawing = keepDrawn(model, [...CONTROLS.map(({ name }) => name), "n_steps"], picture, draw);
  return () => { stopDrawing(); controls.stop(); text.stop(); };
}

export default { render };
