// One neuron, for the browser, as in snn_helpers; a test holds the two equal.

/** The draw number `i` of a seed, in [0, 1) (mulberry32): the same in snn_helpers.widgets.uniform. */
export function draw(seed, i) {
  const a = (seed + Math.imul(i + 1, 0x6d2b79f5)) | 0;
  let x = Math.imul(a ^ (a >>> 15), a | 1);
  x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
  return ((x ^ (x >>> 14)) >>> 0) / 4294967296;
}

/** n draws of a seed, without the first `from`. */
export function uniform(seed, n, from = 0) {
  const numbers = new Float64Array(n);
  for (let i = 0; i < n; i++) numbers[i] = draw(seed, from + i);
  return numbers;
}

/** A current of the mean `strength`: steady at flicker 0, uniform between 0 and twice the mean at flicker 1. */
export function flickeringCurrent(strength, flicker, seed, nSteps) {
  return Array.from(uniform(seed, nSteps), (u) => strength * (1 - flicker + flicker * (2 * u)));
}

/** One step of one neuron, as neuron_step of chapter 1. */
export function neuronStep(current, state, { decay, threshold, penalty, reset }) {
  const charge = current + decay * state;
  const output = Math.max(0, charge - threshold);
  if (output === 0) return { charge, output, state: charge };
  if (reset === "scale") return { charge, output, state: charge - (penalty / threshold) * charge };
  if (reset === "discharge") return { charge, output, state: charge - (penalty + output) };
  if (reset === "subtract") return { charge, output, state: charge - threshold };
  if (reset === "zero") return { charge, output, state: 0 };
  throw new Error(`reset must be scale, discharge, subtract or zero, not ${reset}`);
}

/** The neuron over time, from rest: its charge at each step, the state that the step leaves, and the output. */
export function runOver(currents, settings) {
  const charges = [], states = [], outputs = [];
  let state = 0;
  for (const current of currents) {
    const step = neuronStep(current, state, settings);
    state = step.state;
    charges.push(step.charge);
    states.push(state);
    outputs.push(step.output);
  }
  return { charges, states, outputs };
}

/** The steps at which it fires. */
export function spikeSteps(outputs) {
  return outputs.flatMap((output, t) => (output > 0 ? [t] : []));
}

/** How the state left at a spike answers to its charge, dv'/dv, as reset_slope of chapter 6. */
export function resetSlope({ threshold, penalty, reset }) {
  return { scale: 1 - penalty / threshold, discharge: 0, subtract: 1, zero: 0 }[reset];
}
