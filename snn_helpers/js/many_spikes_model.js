// The window among many spikes (chapter 8): what a pulse earns, by its delay to each spike of a neuron that fires often.
import { resetSlope, runOver, uniform } from "./neuron.js";

const INPUTS = 20, WEIGHT = 0.25;

/**
 * One trial: 20 inputs with pulses at random steps reach a neuron, through the same weight. `errors`: 1 at a step whose
 * spike is wanted, -1 at one whose spike is not. `earned`: what a pulse at each step adds to its weight in all, the
 * gradient of the outputs times their errors, through later spikes, too. `slopes` are those of the resets.
 */
export function trial(k, settings) {
  const { rate, decay, wanted, seed, nSteps } = settings;
  const draws = uniform(seed, nSteps * (INPUTS + 1), k * nSteps * (INPUTS + 1));
  const pulses = new Float64Array(nSteps), errors = new Float64Array(nSteps), earned = new Float64Array(nSteps);
  for (let t = 0, at = 0; t < nSteps; t++) {
    for (let i = 0; i < INPUTS; i++, at++) pulses[t] += draws[at] < rate ? 1 : 0;
    errors[t] = draws[at++] < wanted ? 1 : -1;
  }
  const { states, outputs } = runOver(pulses.map((n) => WEIGHT * n), settings), atSpike = resetSlope(settings);
  const slopes = outputs.map((output) => (output > 0 ? atSpike : 1));
  let later = 0;
  for (let t = nSteps - 1; t >= 0; t--) {
    later = (outputs[t] > 0 ? errors[t] : 0) + slopes[t] * decay * later;
    earned[t] = later;
  }
  return { pulses, errors, states, outputs, slopes, earned };
}

/**
 * Over all trials, for the delays `-reach` to `reach`: `change`, what a pulse earns by its delay to a spike, in the mean
 * over all pairs, each counted alike or times the spike's error; for 0 to `reach` steps back, `left`: what is left of a
 * spike's own signal; and `rate`, the share of the steps in which the neuron fires.
 */
export function windowAmongMany(settings) {
  const { trials, decay, weigh, nSteps, reach } = settings;
  const sums = new Float64Array(2 * reach + 1), counts = new Float64Array(2 * reach + 1);
  const left = new Float64Array(reach + 1);
  let fired = 0, first = null;
  for (let k = 0; k < trials; k++) {
    const found = trial(k, settings);
    first ??= found;
    const { pulses, errors, outputs, slopes, earned } = found;
    for (let t = 0; t < nSteps; t++) {
      if (!(outputs[t] > 0)) continue;
      fired += 1;
      const sign = weigh === "times its error" ? errors[t] : 1;
      for (let s = Math.max(0, t - reach); s <= Math.min(nSteps - 1, t + reach); s++) {
        counts[reach + t - s] += pulses[s];
        sums[reach + t - s] += sign * pulses[s] * earned[s];
      }
      let share = 1;
      for (let n = 0; n <= reach && n <= t; n++) {
        left[n] += share;
        if (n < t) share *= decay * slopes[t - n - 1];
      }
    }
  }
  return {
    first, rate: fired / (trials * nSteps), fired,
    change: Array.from(sums, (sum, i) => (counts[i] > 0 ? sum / counts[i] : 0)),
    pairs: Array.from(counts), left: Array.from(left, (sum) => (fired > 0 ? sum / fired : 0)),
  };
}
