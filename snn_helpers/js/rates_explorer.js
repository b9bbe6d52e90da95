// A comparison that one can win unfairly: each network's learning rate, the grid and the seeds are chosen (chapter 4).
import { ALIKE, fairRate, gridOf, isAlike, meanAndInterval, meanScore, nearestRate, pairedDifferences, scoresOf, verdictOf } from "./rates_model.js";
import { drawing, fitDrawing, frame, keepDrawn, legend, liveText, make, panel, plot, round, signed } from "./parts.js";

const SPIKING = "spiking";
const CONTROLS = [
  { name: "other", label: "other network", options: [] },
  { name: "spiking_rate", label: "spiking: learning rate", min: 0.05, max: 0.2, step: 0.01 },
  { name: "other_rate", label: "other: learning rate", min: 0.1, max: 1.2, step: 0.01 },
  { name: "n_seeds", label: "seeds", min: 1, max: 3, step: 1, when: oneSeed },
  { name: "grid", label: "grid of rates", options: ["fine", "coarse"] },
];
const LOW = 0.868, HIGH = 0.914; // the accuracies that are drawn
const PLACES = { ahead: "the spiking network is ahead", behind: "the spiking network is behind", open: "neither is ahead" };

/** All that the settings decide: the rates that count, and both comparisons. */
function compare(get) {
  const networks = [SPIKING, get("other")];
  const scores = networks.map((network) => scoresOf(get("_rows"), network));
  const grids = scores.map((each) => gridOf(each, get("grid")));
  const wanted = [get("spiking_rate"), get("other_rate")];
  const chosen = wanted.map((rate, k) => nearestRate(grids[k], rate));
  const fair = scores.map(fairRate);
  const between = (rates, nSeeds) => pairedDifferences(...scores.map((each, k) => each.get(rates[k])), nSeeds);
  return { networks, scores, grids, wanted, chosen, fair, yours: between(chosen, get("n_seeds")), most: between(chosen, 3).length, fairly: between(fair, 3) };
}

/** Why the number of seeds changes nothing that is seen, as things are; "" where it does. */
function oneSeed(get) {
  return compare(get).most === 1 ? "the record has one seed at these two rates" : "";
}

function toldOf(differences) {
  const found = meanAndInterval(differences);
  if (found.half === null) return `${signed(found.mean, 2)} points from one seed, which has no interval: it decides nothing`;
  const alike = isAlike(found) ? `; they are alike to within ${ALIKE} point` : "";
  return `${signed(found.mean, 2)} ± ${round(found.half, 2)} points from ${differences.length} seeds: ${PLACES[verdictOf(found)]}${alike}`;
}

function render({ model, el }) {
  const svg = drawing();
  const text = liveText();
  const controls = panel(model, "rates", CONTROLS.map((spec) => (spec.name === "other" ? { ...spec, options: model.get("_others") } : spec)));
  const picture = make("div", { class: "snn-picture" }, svg, legend([
    ["first", "spiking"], ["second", "the other network"], ["dots", "your choice"], ["rings", "the fair choice"],
    ["causal", "alike: within a point"]]), ...text.elements);
  el.append(frame("Explorer of a comparison", controls.element, picture));

  function draw() {
    const found = compare((name) => model.get(name));
    const { width, height } = fitDrawing(svg, 380);
    const across = { left: 52, width: width - 62 }, free = height - 96;

    // Accuracy against the rate, on a scale of ratios.
    const rates = found.scores.flatMap((each) => [...each.keys()]);
    const x = [Math.log10(Math.min(...rates) / 1.1), Math.log10(Math.max(...rates) * 1.1)];
    const curves = plot(svg, { ...across, top: 8, height: 0.68 * free, x, y: [LOW, HIGH], nX: 0, nY: 5,
      xLabel: "first learning rate of the schedule", yLabel: "held-out accuracy" });
    for (const rate of [0.05, 0.1, 0.2, 0.4, 0.8])
      if (Math.log10(rate) > x[0] && Math.log10(rate) < x[1])
        curves.add("text", { x: curves.px(Math.log10(rate)), y: 0.68 * free + 23, "text-anchor": "middle" }, String(rate));
    found.scores.forEach((scores, k) => {
      const kind = ["first", "second"][k];
      const at = (rate) => [Math.log10(rate), Math.max(LOW, meanScore(scores, rate))]; // a bad one lies on the lower edge
      curves.line(found.grids[k].map(at), kind);
      for (const rate of found.grids[k]) curves.dot(...at(rate), kind);
      const circle = (rate, r, shape) => curves.add("circle", { cx: curves.px(at(rate)[0]), cy: curves.py(at(rate)[1]), r, class: `${shape} snn-${kind}` });
      circle(found.chosen[k], 6, "snn-dot");
      // Where the slider is: the nearest rate that was tried is taken.
      const wanted = Math.min(x[1], Math.max(x[0], Math.log10(found.wanted[k])));
      curves.line([[wanted, LOW], [wanted, LOW + 0.06 * (HIGH - LOW)]], kind);
      circle(found.fair[k], 10, "snn-ring");
    });

    // Both comparisons.
    const both = [found.yours, found.fairly].map(meanAndInterval);
    const most = Math.min(6, Math.max(2, ...both.map(({ mean, half }) => 1.1 * (Math.abs(mean) + (half ?? 0)))));
    const top = 0.68 * free + 56;
    const below = plot(svg, { ...across, top, height: height - top - 36, x: [-most, most], y: [-0.6, 1.6], nX: 5, nY: 0,
      xLabel: "spiking minus the other, in points" });
    below.bar(-ALIKE, ALIKE, -0.6, 1.6, "causal");
    below.line([[0, -0.6], [0, 1.6]], "axis");
    ["yours", "fair"].forEach((name, k) => {
      const { mean, half } = both[k], y = 1 - k;
      below.add("text", { x: across.left - 6, y: below.py(y) + 4, "text-anchor": "end" }, name);
      const inside = (value) => Math.min(most, Math.max(-most, value));
      if (half !== null) below.line([[inside(mean - half), y], [inside(mean + half), y]], "third");
      below.dot(inside(mean), y, "third");
    });

    const [mine, others] = found.chosen;
    const told = `Yours, spiking at ${mine} and ${found.networks[1]} at ${others}: ${toldOf(found.yours)}. The fair choice, ${found.fair[0]} and ${found.fair[1]}: ${toldOf(found.fairly)}.`;
    svg.setAttribute("aria-label", `Held-out accuracy against the learning rate for the spiking network and for ${found.networks[1]}; below, the difference of the two with its interval. ${told}`);
    text.tell(told);
  }

  const stopDrawing = keepDrawn(model, CONTROLS.map(({ name }) => name), picture, draw);
  return () => { stopDrawing(); controls.stop(); text.stop(); };
}

export default { render };
