// A population of neurons that hear each other, and whether it has a rhythm; chapter 13.

import { neuronStep, uniform } from "./neuron.js";

export const SEGMENT = 128; // steps of a window of the spectrum, as in snn_chapters.rhythms
export const BURN_IN = 256; // steps that are not listened to; the neurons start in the first half of them
export const TWICE = 2;
const TOO_LARGE = 1e6; // an output beyond this one grows without end

/**
 * Who hears whom, row by row, `[n * n]`: of the n neurons the first ones inhibit, the others excite. The sizes are drawn
 * between 0 and twice their mean, feedback / n.
 */
function weightsOf({ n, inhibitory, feedback, seed }) {
  const nInhibitory = Math.floor(inhibitory * n + 0.5);
  return uniform(seed, n * n).map((u, k) => ((k % n < nInhibitory ? -1 : 1) * feedback * 2 * u) / n);
}

/** What comes from outside, `[BURN_IN + nListened][n]`: for each neuron draws of its own, and a start of its own. */
function currentsOf({ n, current, noise, seed, nListened }) {
  const starts = uniform(seed, n, n * n).map((u) => Math.floor(u * (BURN_IN / 2)));
  const draws = uniform(seed, n * (BURN_IN + nListened), n * n + n);
  return Array.from({ length: BURN_IN + nListened }, (_, t) => Float64Array.from({ length: n }, (_, i) =>
    (t < starts[i] ? 0 : current + noise * Math.sqrt(3) * (2 * draws[t * n + i] - 1))));
}

/**
 * The steps after the burn-in in which each neuron fires, as RecurrentSpikingLayer hands them out: a list for each
 * neuron; or null if the outputs grow without end.
 */
export function spikeTimes(settings) {
  const { n, delay, nListened } = settings;
  const weights = weightsOf(settings), currents = currentsOf(settings);
  const states = new Float64Array(n), times = Array.from({ length: n }, () => []);
  const made = []; // the outputs of each step, as [neuron, output] of those that fired
  for (let t = 0; t < currents.length - 1; t++) {
    const heard = t >= delay ? made[t - delay] : [];
    const fired = [];
    for (let i = 0; i < n; i++) {
      let back = 0;
      for (const [j, output] of heard) back += weights[i * n + j] * output;
      const step = neuronStep(currents[t][i] + back, states[i], settings);
      states[i] = step.state;
      if (step.output > TOO_LARGE) return null;
      if (step.output > 0) {
        fired.push([i, step.output]);
        if (t + 1 >= BURN_IN) times[i].push(t + 1 - BURN_IN); // handed out one step late
      }
    }
    made.push(fired);
  }
  return times;
}

// For each place t in a window, what a spike there adds to the wave of each frequency: [2 * half] for each t.
const HALF = SEGMENT / 2;
const WAVES = Array.from({ length: SEGMENT }, (_, t) => {
  const height = 0.5 - 0.5 * Math.cos((2 * Math.PI * t) / SEGMENT); // Hann's window
  return Float64Array.from({ length: 2 * HALF }, (_, k) => {
    const angle = (2 * Math.PI * t * ((k % HALF) + 1)) / SEGMENT;
    return height * (k < HALF ? Math.cos(angle) : -Math.sin(angle));
  });
});

/** Welch's spectra of trains, lists of steps: the power of their sum, and the sum of their powers, by frequency. */
export function spectra(trains, nSteps) {
  const nPieces = Math.floor((nSteps - SEGMENT) / HALF) + 1;
  const sum = new Float64Array(nPieces * 2 * HALF), own = new Float64Array(nPieces * 2 * HALF);
  const counts = new Float64Array(nPieces);
  const together = new Float64Array(HALF), alone = new Float64Array(HALF);
  const add = (powers, waves) => {
    for (let p = 0; p < nPieces; p++)
      for (let k = 0, at = p * 2 * HALF; k < HALF; k++, at++) powers[k] += waves[at] ** 2 + waves[at + HALF] ** 2;
  };
  for (const train of trains) {
    if (train.length === 0) continue;
    own.fill(0);
    counts.fill(0);
    for (const step of train) {
      const last = Math.floor(step / HALF);
      for (let p = Math.max(0, last - 1); p <= last && p < nPieces; p++) {
        const waves = WAVES[step - p * HALF];
        counts[p] += 1;
        for (let k = 0, at = p * 2 * HALF; k < 2 * HALF; k++, at++) own[at] += waves[k];
      }
    }
    // Freed of its mean: the window's own wave is -SEGMENT / 4 at the slowest frequency, and 0 at all others.
    for (let p = 0; p < nPieces; p++) {
      if (counts[p] === SEGMENT) own.fill(0, p * 2 * HALF, (p + 1) * 2 * HALF); // at every step: still, to the last bit
      else own[p * 2 * HALF] += counts[p] / 4;
    }
    add(alone, own);
    for (let at = 0; at < own.length; at++) sum[at] += own[at];
  }
  add(together, sum);
  // One-sided, as densities; the squares of the window add up to 3/8 of its length.
  const scaled = (powers) => powers.map((power, k) => ((k < HALF - 1 ? 2 : 1) * power) / ((3 / 8) * SEGMENT) / nPieces);
  return { together: scaled(together), alone: scaled(alone) };
}

/** The power of the sum in units of what independent neurons would have: the synchrony, by frequency. */
export function synchrony({ together, alone }) {
  const least = 1e-6 * Math.max(...alone);
  return together.map((power, k) => (alone[k] > least ? power / alone[k] : 0));
}

/** Each train moved round in a circle by an offset of its own. */
function moveRound(trains, offsets, nSteps) {
  return trains.map((train, i) => train.map((step) => (step - offsets[i] + nSteps) % nSteps));
}

/** For each shuffle, how far each neuron's train is moved. */
export function offsetsOf(seed, nShuffles, n, nSteps) {
  const draws = uniform(seed + 1_000_000, nShuffles * n);
  return Array.from({ length: nShuffles }, (_, k) =>
    Array.from(draws.subarray(k * n, (k + 1) * n), (u) => Math.floor(u * nSteps)));
}

/** The synchrony of one shuffle. */
export function shuffled(trains, offsets, nSteps) {
  return synchrony(spectra(moveRound(trains, offsets, nSteps), nSteps));
}

/**
 * What the definition of a rhythm asks for, as beat of snn_chapters.rhythms finds it: from the spectra of the trains and
 * the synchrony of each shuffle.
 */
export function beat(found, shuffles) {
  const ratio = synchrony(found), power = found.together;
  const highest = shuffles.map((each) => Math.max(...each));
  const slow = Math.max((power[0] + power[1]) / 2, Math.max(...power) / 1e6);
  const rise = power.map((each) => Math.min(1e6, each / slow));
  const hasRisen = rise.some((each) => each >= TWICE);
  const counts = (k) => !hasRisen || rise[k] >= TWICE;
  let place = -1;
  for (let k = 0; k < HALF; k++) if (counts(k) && (place < 0 || ratio[k] > ratio[place])) place = k;
  // The slowest peak that is as high, but for a tenth.
  const asHigh = (k) => k < HALF && counts(k) && ratio[k] >= 0.9 * ratio[place];
  let slowest = 0;
  while (!asHigh(slowest)) slowest += 1;
  for (let k = slowest + 1; asHigh(k); k++) if (power[k] > power[slowest]) slowest = k;
  return {
    peak: ratio[place],
    shuffled: Math.max(...highest),
    pValue: (1 + highest.filter((each) => each >= ratio[place]).length) / (1 + shuffles.length),
    rise: rise[place],
    period: SEGMENT / (slowest + 1),
    ratio,
    chance: ratio.map((_, k) => Math.max(...shuffles.map((each) => each[k]))),
  };
}

/** Whether anything ever changes: what is still has no spectrum. */
export function isStill({ alone }) {
  return !(alone.reduce((sum, power) => sum + power, 0) > 0);
}

/** Whether that is a rhythm, as has_rhythm decides: shared and periodic. */
export function hasRhythm({ peak, pValue, rise }) {
  return peak >= TWICE && pValue <= 0.05 && rise >= TWICE;
}

/** The share of the neurons that fires at each step. */
export function activityOf(trains, nSteps) {
  const share = new Float64Array(nSteps);
  for (const train of trains) for (const step of train) share[step] += 1 / trains.length;
  return share;
}

/** How much of a signal's ups and downs comes back `lag` steps later, for lags 0, 1, …; 0 for a signal that is still. */
export function autocorrelation(signal, nLags) {
  const mean = signal.reduce((sum, value) => sum + value, 0) / signal.length;
  const off = signal.map((value) => value - mean);
  const at = (lag) => {
    let sum = 0;
    for (let t = lag; t < off.length; t++) sum += off[t] * off[t - lag];
    return sum;
  };
  const whole = at(0);
  return Array.from({ length: nLags + 1 }, (_, lag) => (whole > 1e-12 ? at(lag) / whole : 0));
}
