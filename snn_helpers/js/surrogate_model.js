// One neuron of binary spikes, what a surrogate sends back to its input, and what its input does; chapter 12.

import { resetSlope, runOver } from "./neuron.js";

/** The shapes, each of height 1 at the threshold, as SHAPES of snn_chapters.binary. */
export const SHAPES = {
  "fast sigmoid": (z) => 1 / (1 + Math.abs(z)) ** 2,
  arctan: (z) => 1 / (1 + z * z),
  sigmoid: (z) => 4 / (2 + Math.exp(z) + Math.exp(-z)),
  triangle: (z) => Math.max(0, 1 - Math.abs(z)),
  rectangle: (z) => (Math.abs(z) < 1 ? 1 : 0),
  none: () => 0,
};

/** What stands in for the derivative of a spike, by the charge's distance from the threshold. */
export function surrogateSlope(distance, { shape, slope }) {
  return SHAPES[shape](slope * distance);
}

/** The charge at each step, and whether the neuron fires, 0 or 1. */
export function runBinary(currents, settings) {
  const { charges, outputs } = runOver(currents, settings), spikes = outputs.map((output) => (output > 0 ? 1 : 0));
  return { charges, spikes, count: spikes.reduce((sum, spike) => sum + spike, 0) };
}

/**
 * The gradient of the number of spikes by the current of each step, with the surrogate in place of the spike's
 * derivative and the reset detached: backwards in time, step by step.
 */
export function spikeGradient({ charges, spikes }, settings) {
  const gradient = new Array(charges.length).fill(0);
  let later = 0; // what a change of the state that this step leaves is worth to all later ones
  for (let t = charges.length - 1; t >= 0; t--) {
    const passed = spikes[t] ? resetSlope(settings) : 1;
    gradient[t] = surrogateSlope(charges[t] - settings.threshold, settings) + passed * later;
    later = settings.decay * gradient[t];
  }
  return gradient;
}

/** How many spikes more, or fewer, there are if the current of one step is raised by `nudge`: for each step. */
export function nudged(currents, nudge, settings) {
  const { count } = runBinary(currents, settings);
  return currents.map((_, step) =>
    runBinary(currents.map((current, t) => (t === step ? current + nudge : current)), settings).count - count);
}
