// One digit as input over time, in four codes, and what a leaky neuron and a mean over time make of it (chapter 2).
import { runOver, uniform } from "./neuron.js";

/** The pixels as the network gets them, -0.5 (black) to 0.5 (white), times the contrast. */
export function pixelsOf(bytes, contrast) {
  return Float64Array.from(bytes, (byte) => contrast * (byte / 255 - 0.5));
}

/** Halves to the even neighbour, as torch.round does it. */
function roundEven(value) {
  const below = Math.floor(value), rest = value - below;
  if (rest !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}

/** What is sent: for each step an array with the value of each pixel. x is the pixel, b = x + 0.5 its brightness. */
export function encodeFrames(code, pixels, nSteps, seed) {
  const n = pixels.length;
  return Array.from({ length: nSteps }, (_, t) => {
    if (code === "steady") return pixels.map((x) => x / 2);
    if (code === "latency") {
      return pixels.map((x) => {
        const b = x + 0.5;
        return b > 0 && roundEven((1 - b) * (nSteps - 1)) === t ? 1 : 0;
      });
    }
    const draws = uniform(seed, n, t * n);
    if (code === "flicker") return pixels.map((x, i) => x * draws[i]);
    if (code === "rate") return pixels.map((x, i) => (draws[i] < x + 0.5 ? 1 : 0));
    throw new Error(`code must be flicker, steady, rate or latency, not ${code}`);
  });
}

/** What the mean over the steps converges to, pixel by pixel; for the latency code, what it is after all steps. */
export function meanLimit(code, pixels, nSteps) {
  if (code === "rate") return pixels.map((x) => x + 0.5);
  if (code === "latency") return pixels.map((x) => (x + 0.5 > 0 ? 1 / nSteps : 0));
  return pixels.map((x) => x / 2);
}

/** The variance of one pixel at one step. */
export function stepVariance(code, x) {
  if (code === "flicker") return (x * x) / 12;
  return code === "rate" ? (x + 0.5) * (0.5 - x) : 0;
}

/** How far the mean of n steps is from its limit by the law: the root of the mean square over the pixels. */
export function expectedError(code, pixels, nSteps) {
  return Math.sqrt(pixels.reduce((sum, x) => sum + stepVariance(code, x), 0) / pixels.length / nSteps);
}

export function meanOf(frames) {
  const mean = new Float64Array(frames[0].length);
  for (const frame of frames) frame.forEach((value, i) => { mean[i] += value; });
  return mean.map((sum) => sum / frames.length);
}

export function rootMeanSquare(values, others) {
  return Math.sqrt(values.reduce((sum, value, i) => sum + (value - others[i]) ** 2, 0) / values.length);
}

/** The mean of the first 1, 2, … values. */
export function runningMean(values) {
  let sum = 0;
  return values.map((value, t) => { sum += value; return sum / (t + 1); });
}

/** The states of a neuron that leaks and never fires, charged by these currents. */
export function leakyStates(currents, decay) {
  return runOver(currents, { decay, threshold: Infinity, penalty: 0, reset: "subtract" }).states;
}
