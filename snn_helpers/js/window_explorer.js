// The window that a gradient draws around one spike (chapters 6 and 9).
import { resetSlope } from "./neuron.js";
import { RESETS, counted, drawing, fitDrawing, frame, keepDrawn, legend, liveText, make, panel, plot, round, valuesOf } from "./parts.js";
import { measureWindow, wholeLaw } from "./window_model.js";

/** Reasons why a setting changes nothing that is seen, as things are; "" where it does. */
function withoutEarlier(get) {
  return get("earlier") === 0 ? "there is no earlier spike" : "";
}

function withoutScale(get) {
  return withoutEarlier(get) || (get("reset") === "scale" ? "" : `the reset “${get("reset")}” does not ask for it`);
}

function withoutPenalty(get) {
  return withoutScale(get) || (get("penalty") === 0 ? "the penalty is 0" : "");
}

function withoutAfterSpike(get) {
  return get("strength") === 0 ? "the after-spike has size 0" : "";
}

const CONTROLS = [
  { name: "decay", label: "decay β", min: 0, max: 1, step: 0.01 },
  { name: "threshold", label: "threshold θ", min: 0.1, max: 3, step: 0.05, when: withoutPenalty },
  { name: "penalty", label: "penalty p", min: 0, max: 4, step: 0.05, when: withoutScale },
  { name: "reset", label: "reset", options: RESETS, when: withoutEarlier },
  { name: "earlier", label: "earlier spike, steps before (0: none)", min: 0, max: 30, step: 1, unit: "steps" },
  { name: "strength", label: "after-spike, size", min: 0, max: 1, step: 0.01 },
  { name: "after_decay", label: "after-spike, decay (its length)", min: 0, max: 0.98, step: 0.01, when: withoutAfterSpike },
];
const NAMES = CONTROLS.map(({ name }) => name);
const REACH = 30;
const DELAYS = Array.from({ length: 2 * REACH + 1 }, (_, i) => i - REACH);

function describe(changes, earlier, settings) {
  const sums = [(d) => d > 0, (d) => d < 0].map((side) =>
    DELAYS.reduce((sum, d, i) => (side(d) ? sum + changes[i] : sum), 0));
  const parts = [
    `Pre before post: ${round(sums[0], 2)} in all.`,
    `Post before pre: ${Math.abs(sums[1]) < 0.005 ? "nothing" : `${round(sums[1], 2)} in all`}.`,
  ];
  if (earlier.length > 0) {
    parts.push(`What came before the earlier spike, ${counted(earlier[0], "step")} back, is multiplied by ${round(resetSlope(settings), 2)}.`);
  }
  return parts.join(" ");
}

function render({ model, el }) {
  const svg = drawing();
  const text = liveText();
  const controls = panel(model, "window", CONTROLS);
  const picture = make("div", { class: "snn-picture" }, svg, legend([
    ["measured", "measured: a pulse at each delay, one simulation each"], ["law", "the law"],
    ["causal", "pre before post"]]), ...text.elements);
  el.append(frame("Window explorer", controls.element, picture));

  function draw() {
    const settings = valuesOf(model, NAMES);
    settings.afterDecay = settings.after_decay;
    const earlier = settings.earlier > 0 ? [settings.earlier] : [];
    const measured = measureWindow(DELAYS, earlier, settings);
    const law = wholeLaw(DELAYS, earlier, settings);
    const { width, height } = fitDrawing(svg, 360);
    const low = Math.min(-0.6, ...law), high = Math.max(1, ...law), room = 0.06 * (high - low);
    const x = [-REACH - 1, REACH + 1], y = [low - room, high + room];
    const window_ = plot(svg, { left: 52, width: width - 62, top: 10, height: height - 55, x, y,
      nX: Math.max(3, Math.floor(width / 80)), nY: Math.round(height / 60), xLabel: "delay Δt = t_post − t_pre (steps)", yLabel: "weight change Δw" });
    window_.bar(0, x[1], ...y, "causal");
    window_.line([[x[0], 0], [x[1], 0]], "axis");
    window_.line([[0, y[0]], [0, y[1]]], "axis");
    if (earlier.length > 0) {
      window_.line([[earlier[0], y[0]], [earlier[0], y[1]]], "output");
      const leftwards = earlier[0] > REACH / 2;
      window_.word(earlier[0] + (leftwards ? -0.5 : 0.5), y[1] - room, "earlier spike", "outputword", leftwards ? "end" : "start");
    }
    window_.law(DELAYS, law);
    DELAYS.forEach((d, i) => window_.dot(d, measured[i], "measured"));
    const told = describe(measured, earlier, settings);
    svg.setAttribute("aria-label", `The change of a weight against the delay between input and spike, measured and by the law. ${told}`);
    text.tell(told);
  }

  const stopDrawing = keepDrawn(model, NAMES, picture, draw);
  return () => { stopDrawing(); controls.stop(); text.stop(); };
}

export default { render };
