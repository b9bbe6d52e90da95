// Learning forward in time, step by step, against backpropagation (chapter 10).
import { forwardInTime } from "./forward_model.js";
import { counted, drawing, fitDrawing, frame, keepDrawn, legend, liveText, make, panel, plot, round, span, valuesOf } from "./parts.js";

const alone = (why) => (get) => (get("layers") === "one" ? why : "");
const CONTROLS = [
  { name: "step", label: "steps gone", min: 0, max: 0, step: 1, unit: "steps" },
  { name: "layers", label: "layers", options: ["one", "two"] },
  { name: "horizon", label: "steps of the future that the signal knows", min: 0, max: 0, step: 1, unit: "steps",
    when: alone("the state of the only neuron is what is read, so no future is needed") },
  { name: "resets", label: "resets, to the eligibility", options: ["known", "ignored"] },
  { name: "decay", label: "decay β", min: 0, max: 1, step: 0.01 },
  { name: "penalty", label: "penalty p", min: 0, max: 3, step: 0.05, more: true },
  { name: "weight", label: "weight of the input", min: 0, max: 1.5, step: 0.01 },
  { name: "bias", label: "steady drive of the second neuron", min: 0, max: 0.6, step: 0.01,
    when: alone("there is no second neuron") },
  { name: "seed", label: "seed of the flicker", min: 0, max: 999, step: 1, more: true },
];
const NAMES = [...CONTROLS.map(({ name }) => name), "n_steps"];

function describe(found, step, nSteps) {
  const sum = step > 0 ? found.sums[step - 1] : 0;
  const { gradient } = found;
  if (step < nSteps)
    return `After ${step} of ${nSteps} steps the sum is ${round(sum, 3)}. Backpropagation, which begins at the end, finds ${round(gradient, 3)} in all.`;
  const apart = Math.abs(sum - gradient);
  const start = `All ${nSteps} steps are gone. The sum is ${round(sum, 3)}, and backpropagation finds ${round(gradient, 3)}:`;
  if (apart <= 1e-9 * Math.max(1, Math.abs(gradient))) return `${start} the same number.`;
  if (Math.abs(gradient) < 1e-3) return `${start} they differ by ${apart.toPrecision(2)}.`;
  const percent = (100 * apart) / Math.abs(gradient);
  const told = percent < 0.1 ? "less than 0.1" : round(percent, percent < 10 ? 1 : 0);
  return `${start} they differ by ${told} %${sum * gradient < 0 ? ", and in sign" : ""}.`;
}

function render({ model, el }) {
  const svg = drawing();
  const text = liveText();
  const controls = panel(model, "forward", CONTROLS.map((spec) => (
    ["step", "horizon"].includes(spec.name) ? { ...spec, max: model.get("n_steps") } : spec)));
  const picture = make("div", { class: "snn-picture" }, svg, legend([
    ["state", "forward in time"], ["output", "spike; its learning signal"],
    ["law", "backpropagation, which begins at the end"], ["causal", "steps to come"]]), ...text.elements);
  el.append(frame("Explorer of learning forward in time", controls.element, picture));

  function draw() {
    const get = (name) => model.get(name);
    const nSteps = get("n_steps"), step = Math.min(get("step"), nSteps);
    const found = forwardInTime({ ...valuesOf(model, NAMES), nSteps });
    const { width, height } = fitDrawing(svg, 550);
    const low = height < 420; // on a phone: no plot of the state, whose spikes are where the signals are
    const n = low ? 3 : 4, gap = low ? 20 : 26, tall = (height - 38 - n * gap) / n;
    const across = { left: 56, width: width - 66, x: [-0.5, nSteps - 0.5], nX: Math.max(3, Math.floor(width / 80)) };
    const part = (row, values, yLabel, note, xLabel = "") => {
      const y = span(values);
      const top = gap - 6 + row * (tall + gap);
      const area = plot(svg, { ...across, top, height: tall, y, yLabel, xLabel, nY: tall < 80 ? 3 : 4 });
      if (step < nSteps) area.bar(step - 0.5, nSteps - 0.5, ...y, "causal");
      area.line([[across.x[0], 0], [across.x[1], 0]], "axis");
      area.add("text", { x: across.left + across.width, y: top - 5, "text-anchor": "end" }, note);
      return area;
    };
    const points = (values) => values.map((value, t) => [t, value]);
    const gone = (values) => points(values).slice(0, step);

    const { first, last } = found;
    let row = 0;
    if (!low) {
      const peaks = first.outputs.map((output) => 1 + output);
      const neuron = part(row++, [...first.states, ...peaks], "state", "dashed: the threshold");
      neuron.line([[across.x[0], 1], [across.x[1], 1]], "threshold");
      neuron.line(points(first.states), "state");
      first.outputs.forEach((output, t) => { if (output > 0) neuron.bar(t - 0.3, t + 0.3, 1, 1 + output, "output"); });
    }

    const known = get("resets") === "known";
    const eligibility = part(row++, [...found.exact, ...found.plain], "eligibility",
      `dashed: with resets ${known ? "ignored" : "known"}`);
    eligibility.line(points(known ? found.plain : found.exact), "threshold");
    eligibility.line(gone(found.eligibilities), "state");

    const signal = part(row++, [...found.signals, ...found.wholeSignals], "signal",
      "dots: with the whole future known");
    found.signals.forEach((value, t) => { if (value !== 0 && t < step) signal.bar(t - 0.3, t + 0.3, 0, value, "output"); });
    found.wholeSignals.forEach((value, t) => { if (value !== 0) signal.dot(t, value, "measured"); });

    const sum = part(row++, [...found.sums, ...found.backwards], "sum", "dashed: backpropagation's result",
      "time (steps)");
    sum.line([[across.x[0], found.gradient], [across.x[1], found.gradient]], "threshold");
    sum.line(points(found.backwards), "law");
    sum.line(gone(found.sums), "state");
    if (step > 0) sum.dot(step - 1, found.sums[step - 1], "measured");

    const told = describe(found, step, nSteps);
    const fired = (outputs) => counted(outputs.filter((output) => output > 0).length, "time");
    const plots = low ? "Three plots over time: the eligibility of the neuron's weight"
      : "Four plots over time: the neuron's state and spikes, the eligibility of its weight";
    svg.setAttribute("aria-label", `${plots}, the learning signals, and the sum of their products beside backpropagation's.`
      + ` The neuron fires ${fired(first.outputs)}${get("layers") === "two" ? `, the second one ${fired(last.outputs)}` : ""}. ${told}`);
    text.tell(told);
  }

  const stopDrawing = keepDrawn(model, NAMES, picture, draw);
  return () => { stopDrawing(); controls.stop(); text.stop(); };
}

export default { render };
