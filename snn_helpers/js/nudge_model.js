// One neuron in a noisy current, nudged once: what autograd says of it, and what really happens (chapter 7).
import { resetSlope, runOver, uniform } from "./neuron.js";

export const N_STEPS = 40;

/** The currents of each trial, normal and independent at each step; nudge.py draws the same. */
export function noisyCurrents({ mean, noise, seed, trials }) {
  return Array.from({ length: trials }, (_, k) => {
    const draws = uniform(seed, 2 * N_STEPS, 2 * N_STEPS * k);
    return Array.from({ length: N_STEPS }, (_unused, t) => // normal, by Box and Muller
      mean + noise * Math.sqrt(-2 * Math.log(1 - draws[t])) * Math.cos(2 * Math.PI * draws[N_STEPS + t]));
  });
}

/** The neuron from rest, with a nudge of `size` added to the current of step `at`; its spikes are free to move. */
export function runNudged(currents, at, size, neuron) {
  return runOver(currents.map((current, t) => (t === at ? current + size : current)), neuron);
}

/** Autograd's derivatives of the outputs of all steps by the nudge, where that is 0: the spikes stay where they are. */
function outputSlopes(currents, at, neuron) {
  const { outputs } = runNudged(currents, at, 0, neuron);
  const slope = resetSlope(neuron);
  let dState = 0;
  return outputs.map((output, t) => {
    const dCharge = (t === at ? 1 : 0) + neuron.decay * dState;
    dState = output > 0 ? slope * dCharge : dCharge;
    return output > 0 ? dCharge : 0;
  });
}

/** From the step of the nudge on, per unit of nudge, in the mean over trials: autograd's window and the measured one. */
export function bothWindows(trials, at, size, neuron) {
  const n = N_STEPS - at;
  const autograd = new Float64Array(n), measured = new Float64Array(n);
  for (const currents of trials) {
    const slopes = outputSlopes(currents, at, neuron);
    const [up, down] = [size, -size].map((each) => runNudged(currents, at, each, neuron).outputs);
    for (let d = 0; d < n; d++) {
      autograd[d] += slopes[at + d] / trials.length;
      measured[d] += (up[at + d] - down[at + d]) / (2 * size) / trials.length;
    }
  }
  return { autograd: Array.from(autograd), measured: Array.from(measured) };
}

const total = (values) => values.reduce((sum, value) => sum + value, 0);

/** By how much each of these nudges really changes the sum of all outputs, in the mean over trials. */
export function totalChanges(trials, at, sizes, neuron) {
  const sum = (currents, size) => total(runNudged(currents, at, size, neuron).outputs);
  const before = trials.map((currents) => sum(currents, 0));
  return sizes.map((size) => total(trials.map((currents, k) => sum(currents, size) - before[k])) / trials.length);
}
