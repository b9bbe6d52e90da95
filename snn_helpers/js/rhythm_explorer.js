// A population that hears itself, live: chapter 13.

import {
  TWICE, activityOf, autocorrelation, beat, hasRhythm, isStill, offsetsOf, shuffled, spectra, spikeTimes, synchrony,
} from "./rhythm_model.js";
import { drawing, fitDrawing, frame, keepDrawn, legend, liveText, make, panel, plot, remembering, round, valuesOf } from "./parts.js";

const alone = (get) => (get("feedback") === 0 ? "nobody hears anybody at feedback 0" : "");
const CONTROLS = [
  { name: "feedback", label: "feedback, strength", min: 0, max: 20, step: 0.5 },
  { name: "delay", label: "feedback, delay", min: 1, max: 12, step: 1, unit: "steps", when: alone },
  { name: "inhibitory", label: "share of neurons that inhibit", min: 0, max: 1, step: 0.05, when: alone },
  { name: "current", label: "current (its mean)", min: 0, max: 1, step: 0.05 },
  { name: "noise", label: "noise of each current", min: 0, max: 0.8, step: 0.05 },
  { name: "n", label: "neurons", min: 20, max: 60, step: 1 },
  { name: "seed", label: "seed of weights and noise", min: 0, max: 50, step: 1 },
];
const SETTINGS = [...CONTROLS.map(({ name }) => name), "decay", "threshold", "penalty", "reset"];
const N_SHUFFLES = 19, N_LAGS = 40, SLICE = 15; // ms: the shuffles are done bit by bit, so that the page stays fluent

/** The verdict in a few words, and what it rests on. */
function judged(found) {
  const { peak, rise, period } = found;
  const shared = `Synchrony ${round(peak, 1)} (a rhythm needs ${TWICE}, and more than the highest of ${N_SHUFFLES} shuffles, `
    + `${round(found.shuffled, 1)}).`;
  const periodic = `The power there is ${rise >= 100 ? "over 100" : round(rise, 1)} times that of the slowest ups and downs `
    + `(a rhythm needs ${TWICE}).`;
  if (hasRhythm(found)) return [`Rhythm: a period of ${round(period, 1)} steps`, `${shared} ${periodic}`];
  const lacks = peak < TWICE ? "the neurons share too little" : found.pValue > 0.05 ? "a shuffle has as much" : "no more than a drift";
  return [`No rhythm: ${lacks}`, `${shared} ${periodic}`];
}

function render({ model, el }) {
  const svg = drawing(), below = drawing();
  const text = liveText();
  const controls = panel(model, "rhythm", CONTROLS);
  const picture = make("div", { class: "snn-picture" }, svg, legend([
    ["law", "neurons that inhibit"], ["state", "neurons that excite"], ["whole", "all together"],
    ["chance", `highest of ${N_SHUFFLES} shuffles`], ["threshold", "the least synchrony of a rhythm"]]), below, ...text.elements);
  el.append(frame("Rhythm explorer", controls.element, picture));
  let waiting = 0;

  // What the neurons do, and, at once or when all shuffles are made, what is `told` of it: kept for another width.
  const hear = remembering((settings) => {
    const trains = spikeTimes(settings), nSteps = settings.nListened, found = spectra(trains ?? [], nSteps);
    const activity = activityOf(trains ?? [], nSteps);
    const told = !trains
      ? ["No rhythm: the outputs grow without end", "More comes back than was put out: the neurons excite each other too much."]
      : isStill(found) ? ["No rhythm: nothing changes", "All neurons are silent, or fire at every step."] : null;
    return { trains: trains ?? [], activity, auto: autocorrelation(activity, N_LAGS), found, ratio: synchrony(found), shuffles: [], told };
  });

  /** Returns the title, which the verdict is written into. */
  function drawPopulation({ trains, activity }, settings) {
    const { width, height } = fitDrawing(svg, 290);
    const nShown = width < 450 ? 80 : 160;
    const across = { left: 52, width: width - 62, x: [-0.5, nShown - 0.5], nX: Math.max(3, Math.floor(width / 80)) };
    const tall = height - 120;
    const raster = plot(svg, { ...across, top: 26, height: tall, y: [-1, settings.n], nY: 3, yLabel: "neuron" });
    const title = raster.add("text", { x: 52, y: 16, "font-weight": 600 });
    const nInhibitory = Math.floor(settings.inhibitory * settings.n + 0.5);
    const marks = { law: "", state: "" };
    const half = Math.max(1, (0.4 * tall) / settings.n);
    trains.forEach((train, i) => {
      for (const step of train) {
        if (step >= nShown) break;
        marks[i < nInhibitory ? "law" : "state"] +=
          `M${raster.px(step).toFixed(1)} ${(raster.py(i) - half).toFixed(1)}v${(2 * half).toFixed(1)}`;
      }
    });
    for (const [kind, d] of Object.entries(marks)) if (d) raster.add("path", { d, class: `snn-line snn-${kind}` });
    const most = Math.max(0.1, ...activity.subarray(0, nShown));
    const sum = plot(svg, { ...across, top: 26 + tall + 10, height: 46, y: [0, most * 1.05], nY: 1,
      xLabel: "time after the burn-in (steps)", yLabel: "share" });
    sum.line(Array.from(activity.subarray(0, nShown), (share, t) => [t, share]), "whole");
    return title;
  }

  /** Returns what draws the synchrony, beside that of the shuffles once it is known. */
  function drawTime({ auto, ratio }) {
    const room = below.parentElement.clientWidth;
    const beside = room >= 520;
    const { width } = fitDrawing(below, beside ? 165 : 345);
    const wide = beside ? (width - 124) / 2 : width - 62;
    const nX = Math.max(3, Math.floor(wide / 60));
    const low = Math.min(-0.2, ...auto);
    const lags = plot(below, { left: 52, top: 8, width: wide, height: 115, x: [0, N_LAGS], y: [low, 1.05], nX,
      xLabel: "lag (steps)", yLabel: "autocorrelation" });
    lags.line([[0, 0], [N_LAGS, 0]], "axis");
    lags.line(auto.map((value, lag) => [lag, value]), "whole");
    return (chance = []) => {
      if (below.childElementCount > 1) below.lastElementChild.remove();
      const most = Math.max(2.6, ...ratio, ...chance);
      const waves = plot(below, { left: beside ? wide + 114 : 52, top: beside ? 8 : 185, width: wide, height: 115,
        x: [0, 0.5], y: [0, most * 1.05], nX, xLabel: "frequency (cycles a step)", yLabel: "synchrony" });
      const curve = (values) => Array.from(values, (value, k) => [(k + 1) / (2 * values.length), value]);
      waves.line(curve(chance), "output");
      waves.line(curve(ratio), "whole");
      waves.line([[0, TWICE], [0.5, TWICE]], "threshold");
    };
  }

  function draw() {
    clearTimeout(waiting);
    const settings = { ...valuesOf(model, SETTINGS), nListened: model.get("n_listened") }, heard = hear(settings);
    const title = drawPopulation(heard, settings), drawWaves = drawTime(heard);
    const show = (verdict, reasons, chance) => {
      title.textContent = verdict;
      drawWaves(chance);
      svg.setAttribute("aria-label", `The spikes of ${settings.n} neurons over time, and the share that fires. ${verdict}.`);
      below.setAttribute("aria-label", `The autocorrelation of that share, and its synchrony at each frequency beside the `
        + `shuffles. ${verdict}. ${reasons}`);
      if (reasons) text.tell(`${verdict}. ${reasons}`);
    };
    show(...(heard.told ?? ["Listening …", ""]));
    if (heard.told) return;
    const { trains, found, shuffles } = heard, offsets = offsetsOf(settings.seed, N_SHUFFLES, settings.n, settings.nListened);
    const goOn = () => {
      const end = performance.now() + SLICE;
      while (shuffles.length < offsets.length && performance.now() < end)
        shuffles.push(shuffled(trains, offsets[shuffles.length], settings.nListened));
      if (shuffles.length < offsets.length) {
        waiting = setTimeout(goOn, 0);
        return;
      }
      const all = beat(found, shuffles);
      heard.told = [...judged(all), all.chance];
      show(...heard.told);
    };
    waiting = setTimeout(goOn, 0);
  }

  const stopDrawing = keepDrawn(model, [...SETTINGS, "n_listened"], picture, draw);
  return () => { stopDrawing(); clearTimeout(waiting); controls.stop(); text.stop(); };
}

export default { render };
