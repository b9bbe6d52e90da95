// One neuron, for the browser, as in snn_helpers; a test holds the two equal.

/** n numbers in [0, 1) from a seed (mulberry32): the same in snn_helpers.widgets.uniform. Skips the first `from`. */
export function uniform(seed, n, from = 0) {
  const numbers = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    const a = (seed + Math.imul(from + i + 1, 0x6d2b79f5)) | 0;
    let x = Math.imul(a ^ (a >>> 15), a | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    numbers[i] = ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  }
  return numbers;
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

/** How the state left at a spike answers to its charge, dv'/dv, as reset_slope of chapter 6. */
export function resetSlope({ threshold, penalty, reset }) {
  return { scale: 1 - penalty / threshold, discharge: 0, subtract: 1, zero: 0 }[reset];
}
