// A spike and the negative signal that late current provokes after it (chapter 9).

export const AFTER = 60; // steps after the spike that are summed
const PULSE = 0.1; // the pulse's weight: what it adds to the current

/** What the neuron hands out, from the step of its spike on, in a steady current. */
export function handedOut({ strength, after_decay: fade, late_current: late, amplitude }) {
  const signals = [amplitude];
  for (let n = 1, trace = amplitude; n <= AFTER; n++, trace *= fade) signals.push(-strength * trace * Math.max(0, late));
  return signals;
}

/** after_spike_law of chapter 9. `trace` "taken as given": a spike does not answer for its after-spike. */
export function law(delays, { strength, after_decay: fade, late_current: late, amplitude, decay, trace }) {
  let length = 0;
  for (let step = 0; step < AFTER; step++) length += fade ** step;
  const early = trace === "taken as given" ? 1 : 1 - strength * Math.max(0, late) * length;
  const depth = late + PULSE > 0 ? -strength * amplitude : 0;
  return delays.map((d) => (d >= 0 ? early * decay ** d : depth * fade ** (-d - 1)));
}

/**
 * The same as an experiment finds it: one simulation for each delay, in which a voltage clamp makes the neuron fire once,
 * and derivatives by the pulse's weight run along. The counterpart of after_spike_window.
 */
export function measure(delays, { strength, after_decay: fade, late_current: late, amplitude, decay, trace }) {
  const post = Math.max(0, ...delays);
  return delays.map((delay) => {
    let charge = 0, left = 0, ofLeft = 0, sum = 0; // charge: its derivative; left: of earlier spikes
    for (let t = 0; t <= post + AFTER; t++) {
      const pulse = t === post - delay ? 1 : 0, current = late + PULSE * pulse;
      charge = pulse + decay * charge;
      const output = t === post ? amplitude : 0, ofOutput = t === post ? charge : 0;
      sum += ofOutput - strength * (ofLeft * Math.max(0, current) + (current > 0 ? left * pulse : 0));
      left = fade * left + output;
      ofLeft = trace === "taken as given" ? 0 : fade * ofLeft + ofOutput;
    }
    return sum;
  });
}
