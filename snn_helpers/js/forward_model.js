// Forward in time (chapter 10): eligibilities and learning signals of one weight, against backpropagation.
import { resetSlope, runOver, uniform } from "./neuron.js";

/** A neuron over time, its outputs not delayed, and the slopes of its resets. */
function over(currents, settings) {
  const found = runOver(currents, settings), atSpike = resetSlope(settings);
  return { ...found, slopes: found.outputs.map((output) => (output > 0 ? atSpike : 1)) };
}

/**
 * One input, one neuron, and, with two layers, a second neuron that reads the first one's spikes a step later. The
 * answer is the mean over the steps of the last neuron's state, each handed out a step late. All is done for the
 * weight of the input: its derivative by backpropagation, from the end to the start, and by a rule that runs forward.
 */
export function forwardInTime({ layers, horizon, resets, decay, threshold = 1, penalty, reset = "scale", weight, bias,
  seed, nSteps, above = 1 }) {
  const neuron = { decay, threshold, penalty, reset };
  const inputs = Array.from(uniform(seed, nSteps));
  const first = over(inputs.map((x) => weight * x), neuron);
  const last = layers === "one" ? first : over(inputs.map((_, t) => bias + (t > 0 ? above * first.outputs[t - 1] : 0)), neuron);
  // What the last neuron's charge at a step does to the answer by the state that it leaves there.
  const direct = last.slopes.map((slope, t) => (t < nSteps - 1 ? slope / nSteps : 0));
  /** The same, and what it does in the next `reach` steps. */
  const worth = (t, reach) => {
    let sum = 0, left = 1;
    for (let s = t; s < nSteps && s <= t + reach; s++) {
      sum += left * direct[s];
      left *= decay * last.slopes[s];
    }
    return sum;
  };
  const signalWith = (reach) => inputs.map((_, t) => {
    if (layers === "one") return direct[t];
    return first.outputs[t] > 0 && t + 1 < nSteps ? above * worth(t + 1, reach) : 0;
  });
  const wholeSignals = signalWith(nSteps), signals = signalWith(horizon);
  const trace = (slopes) => {
    let now = 0;
    return inputs.map((x, t) => (now = x + (t > 0 ? decay * slopes[t - 1] * now : 0)));
  };
  const exact = trace(first.slopes), plain = trace(first.slopes.map(() => 1));
  const eligibilities = resets === "known" ? exact : plain;
  let sum = 0;
  const sums = signals.map((signal, t) => (sum += signal * eligibilities[t]));
  // Backpropagation: from the last step to the first.
  const backwards = new Array(nSteps).fill(0);
  let credit = 0, walked = 0;
  for (let t = nSteps - 1; t >= 0; t--) {
    credit = wholeSignals[t] + decay * first.slopes[t] * credit;
    walked += credit * inputs[t];
    backwards[t] = walked;
  }
  return { first, last, exact, plain, eligibilities, wholeSignals, signals, sums, backwards, gradient: walked };
}
