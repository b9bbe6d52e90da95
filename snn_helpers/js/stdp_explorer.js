// Pairs of spikes, their traces, the window of STDP, and Hebb's rule beside it (chapter 5).
import { MARGIN, hebb, stdpByTraces, stdpPairs, stdpTrains, stdpWindow } from "./stdp_model.js";
import { counted, drawing, fitDrawing, frame, keepDrawn, legend, liveText, make, panel, plot, round, signed, valuesOf } from "./parts.js";

// Reasons why a setting changes nothing that is seen, as things are; "" where it does.
const isRandom = (get) => ["following", "unrelated"].includes(get("trains"));
const withoutDelay = (get) => (get("trains") === "unrelated" ? "the two trains are unrelated" : "");
const withoutInterval = (get) => (get("trains") === "pairings" ? "" : "it is for the spike trains “pairings”");
const withoutChance = (get) => (isRandom(get) ? "" : "no spike is random");
const withoutChoice = (get) => (get("trains") === "pair" ? "there is only one pair" : "");

const CONTROLS = [
  { name: "trains", label: "spike trains", options: ["pair", "pairings", "following", "unrelated"] },
  { name: "delay", label: "delay Δt", min: -MARGIN, max: MARGIN, step: 1, unit: "steps", when: withoutDelay },
  { name: "interval", label: "pairing interval", min: 15, max: 150, step: 1, unit: "steps", when: withoutInterval },
  { name: "pairing", label: "pairs that count", options: ["all", "nearest"], when: withoutChoice },
  { name: "a_plus", label: "A₊", min: 0, max: 1.5, step: 0.05 },
  { name: "a_minus", label: "A₋", min: 0, max: 1.5, step: 0.05 },
  { name: "tau_plus", label: "τ₊", min: 2, max: 60, step: 0.1, unit: "steps" },
  { name: "tau_minus", label: "τ₋", min: 2, max: 60, step: 0.1, unit: "steps" },
  { name: "rate", label: "spikes a step", min: 0.005, max: 0.1, step: 0.005, when: withoutChance, more: true },
  { name: "seed", label: "seed", min: 0, max: 999, step: 1, when: withoutChance, more: true },
];
const NAMES = CONTROLS.map(({ name }) => name);
const REACH = 100;

/** A trace between the spikes and its jumps at them, as points of a line. */
function tracePoints(found, left) {
  return found.flatMap((before, t) => (left[t] === before ? [[t, before]] : [[t, before], [t, left[t]]]));
}

/** Values that change now and then, as points of a line that is level between the changes. */
function stairs(values) {
  return values.flatMap((value, t) => (value === (values[t - 1] ?? 0) && t > 0 ? [] : [[t, values[t - 1] ?? 0], [t, value]]));
}

function describe(settings, nPre, nPost, pairs, byPairs, byTraces, rates) {
  const { trains, delay, interval } = settings;
  const order = delay === 0 ? "in the same step as pre" : `${counted(Math.abs(delay), "step")} ${delay > 0 ? "after" : "before"} pre`;
  const told = {
    pair: `Post fires ${order}.`,
    pairings: `${nPre} pairings, one every ${counted(interval, "step")}: post fires ${order}.`,
    following: `Pre fires ${counted(nPre, "time")} at random; post fires ${order} (${counted(nPost, "time")}).`,
    unrelated: `Pre fires ${counted(nPre, "time")}, post ${counted(nPost, "time")}, each by itself.`,
  }[trains];
  const area = (a, tau) => round(a * tau, 1);
  return [
    told,
    `The two traces change the weight by ${signed(byTraces, 2)}; the sum over ${counted(pairs.length, "pair")} is ${signed(byPairs, 2)}.`,
    `Hebb's rule multiplies the two rates: ${rates.toPrecision(2)}${["pair", "pairings"].includes(trains) ? ", whatever the delay" : ""}.`,
    `Areas: A₊τ₊ = ${area(settings.a_plus, settings.tau_plus)} above zero, A₋τ₋ = ${area(settings.a_minus, settings.tau_minus)} below.`,
  ].join(" ");
}

function render({ model, el }) {
  const svg = drawing();
  const text = liveText();
  const controls = panel(model, "stdp", CONTROLS);
  const picture = make("div", { class: "snn-picture" }, svg, legend([
    ["first", "pre: spikes, trace, and what post reads of it"], ["second", "post: spikes, trace, and what pre reads of it"],
    ["third", "weight by STDP"], ["threshold", "weight by Hebb's rule, scaled to fit"]]), ...text.elements);
  el.append(frame("STDP explorer", controls.element, picture));

  function draw() {
    const settings = valuesOf(model, NAMES);
    const { pre, post } = stdpTrains(settings);
    const [nPre, nPost] = [pre, post].map((train) => train.reduce((sum, spike) => sum + spike, 0));
    const pairs = stdpPairs(pre, post, settings);
    const byPairs = pairs.reduce((sum, { change }) => sum + change, 0);
    const traces = stdpByTraces(pre, post, settings);
    const rates = hebb(pre, post);
    const { width, height } = fitDrawing(svg, 415);
    const across = { left: 52, width: width - 62 };
    const nX = Math.max(3, Math.floor(across.width / 80));
    const free = height - 112; // what the axes' words leave to the four plots
    const tops = [8, 0.42 * free + 54, 0.58 * free + 62, 0.74 * free + 70];

    const tall = Math.max(0.2, settings.a_plus, settings.a_minus) * 1.1;
    const window_ = plot(svg, { ...across, top: tops[0], height: 0.42 * free, x: [-REACH, REACH], y: [-tall, tall], nX,
      xLabel: "delay Δt = t_post − t_pre (steps)", yLabel: "change by a pair" });
    window_.line([[-REACH, 0], [REACH, 0]], "axis");
    for (const [side, kind] of [[1, "first"], [-1, "second"]]) {
      const curve = Array.from({ length: REACH + 1 }, (_, d) => [side * d, stdpWindow(side * Math.max(d, 1e-9), settings)]);
      window_.area([[0, 0], ...curve, [side * REACH, 0]], kind);
      window_.line(curve, kind);
    }
    for (const delay of new Set(pairs.map(({ tPre, tPost }) => tPost - tPre)))
      if (Math.abs(delay) <= REACH) window_.dot(delay, stdpWindow(delay, settings), delay > 0 ? "first" : delay < 0 ? "second" : "third");

    const x = [0, pre.length];
    [["pre", pre, 0, "first", tops[1]], ["post", post, 1, "second", tops[2]]].forEach(([name, train, k, kind, top]) => {
      const most = Math.max(1, ...traces.left[k]);
      const part = plot(svg, { ...across, top, height: 0.16 * free, x, y: [-0.35 * most, 1.05 * most], yLabel: name, nY: 2 });
      train.forEach((spike, t) => { if (spike > 0) part.line([[t, -0.32 * most], [t, -0.08 * most]], kind); });
      part.line(tracePoints(traces.found[k], traces.left[k]), kind);
    });

    // Hebb's rule is in other units: it is drawn as if it gave half a unit for each spike.
    const scale = rates.at(-1) > 0 ? Math.max(nPre, nPost) / (2 * rates.at(-1)) : 0;
    const lines = [["threshold", rates.map((rate) => rate * scale)], ["third", traces.weight]];
    const all = lines.flatMap(([, values]) => values);
    const low = Math.min(-0.1, -settings.a_minus, ...all), high = Math.max(0.1, settings.a_plus, ...all), room = 0.08 * (high - low);
    const bottom = plot(svg, { ...across, top: tops[3], height: 0.26 * free, x, y: [low - room, high + room], nX, nY: 3,
      xLabel: "time (steps)", yLabel: "weight change" });
    bottom.line([[0, 0], [pre.length, 0]], "axis");
    for (const [kind, values] of lines)
      bottom.line([...stairs(values), [pre.length, values.at(-1)]], kind);

    const told = describe(settings, nPre, nPost, pairs, byPairs, traces.weight.at(-1), rates.at(-1));
    svg.setAttribute("aria-label", `The window of STDP with the delays of the pairs on it; below it, over time, the spikes and the trace of each side, and the change of the weight. ${told}`);
    text.tell(told);
  }

  const stopDrawing = keepDrawn(model, NAMES, picture, draw);
  return () => { stopDrawing(); controls.stop(); text.stop(); };
}

export default { render };
