// The window among many spikes (chapter 8).
import { windowAmongMany } from "./many_spikes_model.js";
import { RESETS, counted, drawing, fitDrawing, frame, keepDrawn, legend, liveText, make, noPenalty, panel, plot, remembering, round, span, valuesOf } from "./parts.js";

const REACH = 10, STEPS = 60;
const CONTROLS = [
  { name: "rate", label: "pulses of an input, a step", min: 0, max: 0.3, step: 0.01 },
  { name: "wanted", label: "share of spikes that are wanted", min: 0, max: 1, step: 0.05 },
  { name: "weigh", label: "each pair counts", options: ["all alike", "times its error"] },
  { name: "trials", label: "trials", min: 1, max: 200, step: 1 },
  { name: "decay", label: "decay β", min: 0, max: 1, step: 0.01 },
  { name: "threshold", label: "threshold θ", min: 0.1, max: 3, step: 0.05 },
  { name: "penalty", label: "penalty p", min: 0, max: 4, step: 0.05, when: noPenalty, more: true },
  { name: "reset", label: "reset", options: RESETS, more: true },
  { name: "seed", label: "seed", min: 0, max: 999, step: 1, more: true },
];
const NAMES = CONTROLS.map(({ name }) => name);

function describe(found) {
  if (found.fired === 0) return "The neuron never fires: there is no pair.";
  const mean = (from, to) => {
    const total = found.pairs.slice(from, to).reduce((sum, n) => sum + n, 0);
    const parts = found.change.slice(from, to).map((change, i) => change * found.pairs[from + i]);
    return total > 0 ? round(parts.reduce((sum, part) => sum + part, 0) / total, 2) : "nothing";
  };
  return `The neuron fires in ${round(100 * found.rate, 0)} % of the steps. A pulse 0 to 3 steps before a spike earns`
    + ` ${mean(REACH, REACH + 4)} in the mean, one up to 4 steps after it ${mean(REACH - 4, REACH)}.`;
}

function render({ model, el }) {
  const svg = drawing();
  const text = liveText();
  const controls = panel(model, "spikes", CONTROLS);
  const key = legend([["measured", "mean over all pairs"], ["law", "one wanted spike alone"], ["state", "state"],
    ["output", "spike"], ["causal", "pre before post"]]);
  const picture = make("div", { class: "snn-picture" }, svg, key, ...text.elements);
  el.append(frame("Explorer of the window among many spikes", controls.element, picture));

  const windowOf = remembering(windowAmongMany);
  function draw() {
    const settings = valuesOf(model, NAMES);
    const found = windowOf({ ...settings, nSteps: STEPS, reach: REACH });
    const { width, height } = fitDrawing(svg, 540);
    const low = height < 420; // on a phone: the window, and what pulses earn
    key.querySelector(".snn-state").parentElement.hidden = low;
    const across = { left: 56, width: width - 66 };
    const time = { x: [-0.5, STEPS - 0.5], nX: Math.max(3, Math.floor(width / 80)) };
    const note = (area, top, words) => area.add("text", { x: width - 10, y: top, "text-anchor": "end" }, words);
    const { states, outputs, earned } = found.first;
    let top = 18;
    if (!low) {
      const { threshold } = settings;
      const y = span([...states, ...outputs.map((output) => (output > 0 ? threshold + output : threshold))]);
      const area = plot(svg, { ...across, ...time, top, height: 95, y, yLabel: "state", nY: 4 });
      note(area, top - 5, "one trial; dashed: the threshold");
      area.line([[-0.5, threshold], [STEPS - 0.5, threshold]], "threshold");
      area.line(states.map((state, t) => [t, state]), "state");
      outputs.forEach((output, t) => { if (output > 0) area.bar(t - 0.3, t + 0.3, threshold, threshold + output, "output"); });
      top += 95 + 24;
    }
    const tall = low ? (height - 130) * 0.36 : 95;
    const trial = plot(svg, { ...across, ...time, top, height: tall, y: span(earned), yLabel: "earned", nY: low ? 2 : 4,
      xLabel: "time (steps)" });
    note(trial, top - 5, low ? "one trial: what a pulse earns" : "what a pulse at this step earns");
    trial.line([[-0.5, 0], [STEPS - 0.5, 0]], "axis");
    earned.forEach((value, t) => trial.bar(t - 0.4, t + 0.4, 0, value, "current"));
    const marks = span(earned);
    outputs.forEach((output, t) => { if (output > 0) trial.bar(t - 0.12, t + 0.12, ...marks, "output"); });

    top += tall + 58;
    const delays = found.change.map((_, i) => i - REACH);
    const x = [-REACH - 0.7, REACH + 0.7], y = span([...found.change, ...found.left, 1]);
    const area = plot(svg, { ...across, x, y, top, height: height - top - 36, nX: Math.max(3, Math.floor(width / 80)), nY: low ? 3 : 5,
      xLabel: "delay Δt = t_post − t_pre (steps)", yLabel: "mean change" });
    note(area, top - 5, "dotted: left of a spike's own signal");
    area.bar(-0.5, x[1], ...y, "causal");
    area.line([[x[0], 0], [x[1], 0]], "axis");
    area.law(delays, delays.map((d) => (d < 0 ? 0 : settings.decay ** d)));
    area.line(found.left.map((share, n) => [n, share]), "output");
    delays.forEach((d, i) => { if (found.pairs[i] > 0) area.dot(d, found.change[i], "measured"); });

    const told = describe(found);
    svg.setAttribute("aria-label", "One trial of the neuron with what a pulse earns at each step, and below it the mean change"
      + ` of a pair against its delay, over ${counted(settings.trials, "trial")}. ${told}`);
    text.tell(told);
  }

  const stopDrawing = keepDrawn(model, NAMES, picture, draw);
  return () => { stopDrawing(); controls.stop(); text.stop(); };
}

export default { render };
