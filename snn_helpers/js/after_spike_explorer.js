// A spike, its after-spike, and the window of both (chapter 9).
import { AFTER, handedOut, law, measure } from "./after_spike_model.js";
import { drawing, fitDrawing, frame, keepDrawn, legend, liveText, make, panel, plot, round, span, valuesOf } from "./parts.js";

const none = (get) => (get("strength") === 0 ? "there is no after-spike" : "");
const CONTROLS = [
  { name: "late_current", label: "steady current after the spike", min: 0, max: 2, step: 0.05, when: none },
  { name: "strength", label: "after-spike, strength a", min: 0, max: 2, step: 0.01 },
  { name: "after_decay", label: "after-spike, decay γ", min: 0, max: 0.95, step: 0.01, when: none },
  { name: "trace", label: "trace, to autograd", options: ["followed", "taken as given"],
    when: (get) => none(get) || (get("late_current") === 0 ? "no current brings the trace out" : "") },
  { name: "decay", label: "decay β", min: 0, max: 1, step: 0.01 },
  { name: "amplitude", label: "height of the spike", min: 0.1, max: 2, step: 0.05 },
];
const NAMES = CONTROLS.map(({ name }) => name);
const REACH = 20, DELAYS = Array.from({ length: 2 * REACH + 1 }, (_, i) => i - REACH);

function render({ model, el }) {
  const svg = drawing();
  const text = liveText();
  const controls = panel(model, "after", CONTROLS);
  const picture = make("div", { class: "snn-picture" }, svg, legend([
    ["output", "what is handed out"], ["measured", "measured: one simulation for each delay"], ["law", "the law"],
    ["causal", "pre before post"]]), ...text.elements);
  el.append(frame("Explorer of the after-spike", controls.element, picture));

  function draw() {
    const settings = valuesOf(model, NAMES);
    const signals = handedOut(settings), changes = measure(DELAYS, settings), wanted = law(DELAYS, settings);
    const { width, height } = fitDrawing(svg, 430);
    const across = { left: 56, width: width - 66, nX: Math.max(3, Math.floor(width / 80)) };
    const tall = 0.3 * (height - 110);
    const time = plot(svg, { ...across, top: 10, height: tall, x: [-5, REACH + 5], y: span(signals), nY: 3,
      yLabel: "signal", xLabel: "steps since the spike" });
    time.line([[-5, 0], [REACH + 5, 0]], "axis");
    signals.slice(0, REACH + 5).forEach((signal, n) => { if (signal !== 0) time.bar(n - 0.35, n + 0.35, 0, signal, "output"); });

    const x = [-REACH - 1, REACH + 1], y = span([...changes, 1, -0.4]), top = tall + 60;
    const area = plot(svg, { ...across, top, height: height - top - 38, x, y, nY: 5,
      yLabel: "weight change Δw", xLabel: "delay Δt = t_post − t_pre (steps)" });
    area.bar(0, x[1], ...y, "causal");
    area.line([[x[0], 0], [x[1], 0]], "axis");
    area.law(DELAYS, wanted);
    DELAYS.forEach((d, i) => area.dot(d, changes[i], "measured"));

    const words = `Over ${AFTER} steps the spike and its after-spike sum to ${round(signals.reduce((sum, signal) => sum + signal, 0), 2)}.`
      + ` An input in the step of the spike gets ${round(wanted[REACH], 2)}, one a step later ${round(wanted[REACH - 1], 2)}.`;
    svg.setAttribute("aria-label", `What the neuron hands out over time, and below it the change of a weight against the delay. ${words}`);
    text.tell(words);
  }

  const stopDrawing = keepDrawn(model, NAMES, picture, draw);
  return () => { stopDrawing(); controls.stop(); text.stop(); };
}

export default { render };
