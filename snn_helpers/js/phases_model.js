// A small Boltzmann machine of neurons that fire at random, and the two phases that teach it; chapter 14.
//
// A machine is {weight, visible, hidden}: the weights [hidden][visible] and the two layers' biases. A gradient has the
// same shape.

import { uniform } from "./neuron.js";

const sigmoid = (u) => 1 / (1 + Math.exp(-u));
const zeros = (n) => new Array(n).fill(0);

/** The machine moved up a gradient. */
export function stepAlong(machine, gradient, rate) {
  const moved = (one, slope) => one.map((value, k) => value + rate * slope[k]);
  return {
    weight: machine.weight.map((row, i) => moved(row, gradient.weight[i])),
    visible: moved(machine.visible, gradient.visible),
    hidden: moved(machine.hidden, gradient.hidden),
  };
}

/** How probable each visible state is, [2 ** n], by enumeration: the lowest digit is the first neuron's. */
function visibleStates({ weight, visible, hidden }) {
  return Array.from({ length: 2 ** visible.length }, (_, code) => {
    const state = visible.map((_bias, j) => (code >> j) & 1);
    const drives = hidden.map((bias, i) => bias + weight[i].reduce((sum, w, j) => sum + w * state[j], 0));
    // The hidden layer is summed over: each of its neurons by itself, as they are independent given the visible ones.
    const log = visible.reduce((sum, bias, j) => sum + bias * state[j], 0)
      + drives.reduce((sum, u) => sum + Math.max(u, 0) + Math.log1p(Math.exp(-Math.abs(u))), 0);
    return { state, on: drives.map(sigmoid), log };
  });
}

function probabilities(states) {
  const highest = Math.max(...states.map(({ log }) => log));
  const shares = states.map(({ log }) => Math.exp(log - highest));
  const whole = shares.reduce((sum, share) => sum + share, 0);
  return shares.map((share) => share / whole);
}

const codeOf = (picture) => picture.reduce((code, on, j) => code + on * 2 ** j, 0);

/** The gradient of the mean log-likelihood of the pictures, exactly: what is on together with the data less when free. */
export function exactGradient(machine, pictures) {
  const states = visibleStates(machine), free = probabilities(states);
  const less = free.map((probability) => -probability);
  for (const picture of pictures) less[codeOf(picture)] += 1 / pictures.length;
  const gradient = { weight: machine.weight.map((row) => zeros(row.length)), visible: zeros(machine.visible.length),
    hidden: zeros(machine.hidden.length) };
  states.forEach(({ state, on }, code) => {
    on.forEach((share, i) => {
      gradient.hidden[i] += less[code] * share;
      state.forEach((lit, j) => { gradient.weight[i][j] += less[code] * share * lit; });
    });
    state.forEach((lit, j) => { gradient.visible[j] += less[code] * lit; });
  });
  return gradient;
}

/** How far the machine is from the pictures, in nats: Kullback-Leibler. */
export function divergence(machine, pictures) {
  const free = probabilities(visibleStates(machine));
  const mean = pictures.reduce((sum, picture) => sum + Math.log(free[codeOf(picture)]), 0) / pictures.length;
  return -Math.log(pictures.length) - mean;
}

/** Copies of a machine at rest, and the draws that they have had so far. */
function atRest(machine, nCopies, seed) {
  const layer = (n) => ({ n, potentials: new Float64Array(nCopies * n), left: new Uint8Array(nCopies * n) });
  return { nCopies, seed, drawn: 0, layers: [layer(machine.visible.length), layer(machine.hidden.length)] };
}

/**
 * Half a cycle, as half_cycle of snn_chapters.boltzmann: for how many more steps each neuron is on, before the first
 * step and after each, [nSteps + 1][layer][copy * n + neuron]. `pictures`: copy c is shown the picture c, counted round;
 * null: the copies run free. What `copies` are is moved on.
 */
function halfCycle(machine, copies, pictures, { nSteps, decay, rest }) {
  const { nCopies, layers } = copies, [below, above] = layers;
  const length = rest + 1, correction = Math.log(length);
  const history = [layers.map(({ left }) => left)];
  const { weight } = machine;
  for (let t = 0; t < nSteps; t++) {
    const currents = [new Float64Array(nCopies * below.n), new Float64Array(nCopies * above.n)];
    const isHeard = pictures === null || decay > 0; // else nobody listens to the layer above
    for (let c = 0; c < nCopies; c++) {
      const v = c * below.n, h = c * above.n;
      for (let j = 0; j < below.n; j++) currents[0][v + j] = machine.visible[j];
      for (let i = 0; i < above.n; i++) {
        let current = machine.hidden[i];
        const isOn = above.left[h + i] > 0, row = weight[i];
        for (let j = 0; j < below.n; j++) {
          if (below.left[v + j] > 0) current += row[j];
          if (isOn && isHeard) currents[0][v + j] += row[j];
        }
        currents[1][h + i] = current;
      }
    }
    layers.forEach((layer, level) => {
      const { n, potentials, left } = layer, draws = uniform(copies.seed, nCopies * n, copies.drawn);
      copies.drawn += nCopies * n;
      const next = new Uint8Array(left.length);
      for (let k = 0; k < next.length; k++) {
        potentials[k] = decay * potentials[k] + (1 - decay) * currents[level][k];
        const picture = level === 0 && pictures !== null ? pictures[Math.floor(k / n) % pictures.length] : null;
        const fires = picture ? picture[k % n] : sigmoid(potentials[k] - correction);
        next[k] = draws[k] < fires && left[k] <= 1 ? length : Math.max(0, left[k] - 1);
      }
      layer.left = next;
    });
    history.push(layers.map(({ left }) => left));
  }
  return history;
}

/** Sums over copies and steps of f(on before, on after) of each visible and hidden neuron: the pairs, and each by itself. */
function sumUp(machine, history, pair, single) {
  const nV = machine.visible.length, nH = machine.hidden.length;
  const nCopies = history[0][0].length / nV;
  const found = { weight: Array.from({ length: nH }, () => zeros(nV)), visible: zeros(nV), hidden: zeros(nH) };
  const on = (left) => (left > 0 ? 1 : 0);
  for (let t = 1; t < history.length; t++) {
    const [v0, h0] = history[t - 1], [v1, h1] = history[t];
    for (let c = 0; c < nCopies; c++) {
      for (let i = 0; i < nH; i++) {
        const before = on(h0[c * nH + i]), after = on(h1[c * nH + i]);
        found.hidden[i] += single(before, after);
        for (let j = 0; j < nV; j++) found.weight[i][j] += pair(on(v0[c * nV + j]), on(v1[c * nV + j]), before, after);
      }
      for (let j = 0; j < nV; j++) found.visible[j] += single(on(v0[c * nV + j]), on(v1[c * nV + j]));
    }
  }
  return { found, nCopies, nPairs: (history.length - 1) * nCopies };
}

const scaled = ({ weight, visible, hidden }, by) => ({
  weight: weight.map((row) => row.map((value) => value * by)),
  visible: visible.map((value) => value * by), hidden: hidden.map((value) => value * by),
});

/** How often neighbours are on together, one step apart, in either order; and each by itself. */
function coincidences(machine, history) {
  const { found, nPairs } = sumUp(machine, history, (v0, v1, h0, h1) => (h1 * v0 + h0 * v1) / 2, (_, after) => after);
  return scaled(found, 1 / nPairs);
}

/** The sum over time of pre × change of post, of both synapses of a pair: the mean over the copies. */
function changes(machine, history) {
  const { found, nCopies } = sumUp(machine, history,
    (v0, v1, h0, h1) => (h1 - h0) * v0 + h0 * (v1 - v0), (before, after) => after - before);
  return scaled(found, 1 / nCopies);
}

/**
 * One cycle of a rule: its halves, the change that it asks for (`gradient`) and the two counts of which that is made.
 *
 * "two phases": what is on together in the second part of the data half less that of the free half, as rhythm_cycle.
 * "transition": pre × change of post while the picture comes back after the free half, as transition_cycle.
 */
export function cycleOf(machine, pictures, settings) {
  const { rule, nCopies, nSteps, seed } = settings;
  const copies = atRest(machine, nCopies, seed);
  const data = halfCycle(machine, copies, pictures, settings), free = halfCycle(machine, copies, null, settings);
  if (rule === "transition") {
    const back = halfCycle(machine, copies, pictures, settings);
    const together = (moment) => coincidences(machine, [moment, moment]);
    return { halves: [data, free, back], gradient: changes(machine, back), plus: together(back.at(-1)), minus: together(back[0]) };
  }
  const nLearning = nSteps - Math.floor(nSteps / 2);
  const [plus, minus] = [data, free].map((half) => coincidences(machine, half.slice(-nLearning - 1)));
  return { halves: [data, free], gradient: stepAlong(plus, minus, -1), plus, minus };
}

/** The cosine of the angle between two changes of the weights. */
export function cosine(one, other) {
  const [a, b] = [one, other].map(({ weight }) => weight.flat());
  const dot = (x, y) => x.reduce((sum, value, k) => sum + value * y[k], 0);
  const lengths = Math.sqrt(dot(a, a) * dot(b, b));
  return lengths > 0 ? dot(a, b) / lengths : 0;
}
