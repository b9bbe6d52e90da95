// A spiking network that learns, for the browser: forward, backpropagation through time and the other rules of the
// book, digit by digit. Pure arithmetic; held to SpikingNet, autograd and the chapters' rules by a test.
//
// Each rule is written as one number for each step and neuron, its `change`: by how much a weight grows for each unit
// of input in that step. A rule's step for a weight is then the sum of its inputs times these numbers, and the window
// of a rule is the mean of these numbers around the spikes.
import { BATCH, MOMENTUM, REACH, RULES, isOfPairs } from "./learning_rules.js";
import { draw } from "./neuron.js";
export { REACH } from "./learning_rules.js";

/** A stream of draws of its own for each use: the streams of one seed, and of neighbouring ones, lie far apart. */
const STREAMS = { weights: 0, order: 1, flicker: 2, test: 3 };
export function streamSeed(seed, name) {
  return (Math.imul(seed, 0x9e3779b1) + Math.imul(STREAMS[name] + 1, 0x85ebca6b)) >>> 0;
}

/** Digits from four bits a pixel, two pixels a byte, as values from -0.5 to 0.5. */
export function unpackDigits(bytes, nPixels) {
  const pixels = new Float64Array(2 * bytes.length);
  bytes.forEach((byte, i) => {
    pixels[2 * i] = (byte >> 4) / 15 - 0.5;
    pixels[2 * i + 1] = (byte & 15) / 15 - 0.5;
  });
  return pixels.subarray(0, Math.floor(pixels.length / nPixels) * nPixels);
}

/** A digit's frames: each pixel of each step times a draw, from draw number `from` on. */
function flickerInto(frames, image, nSteps, seed, from) {
  const n = image.length;
  for (let t = 0, at = 0; t < nSteps; t++)
    for (let i = 0; i < n; i++, at++) frames[at] = image[i] * draw(seed, from + at);
}

/** currents[t, j] = bias[j] + sum over i of weights[j, i] * inputs[t, i]; four steps of two neurons in one go. */
function denseCurrents(currents, weights, biases, inputs, nInputs, nNeurons, nSteps) {
  for (let j = 0; j < nNeurons; j += 2) {
    const last = j + 1 < nNeurons ? j + 1 : j;
    const rowA = j * nInputs, rowB = last * nInputs, biasA = biases[j], biasB = biases[last];
    for (let t = 0; t < nSteps; t += 4) {
      // Past the end the last step is computed again, and lands where it belongs.
      const t1 = Math.min(t + 1, nSteps - 1), t2 = Math.min(t + 2, nSteps - 1), t3 = Math.min(t + 3, nSteps - 1);
      const x0 = t * nInputs, x1 = t1 * nInputs, x2 = t2 * nInputs, x3 = t3 * nInputs;
      let a0 = biasA, a1 = biasA, a2 = biasA, a3 = biasA, b0 = biasB, b1 = biasB, b2 = biasB, b3 = biasB;
      for (let i = 0; i < nInputs; i++) {
        const wA = weights[rowA + i], wB = weights[rowB + i];
        const i0 = inputs[x0 + i], i1 = inputs[x1 + i], i2 = inputs[x2 + i], i3 = inputs[x3 + i];
        a0 += wA * i0; a1 += wA * i1; a2 += wA * i2; a3 += wA * i3;
        b0 += wB * i0; b1 += wB * i1; b2 += wB * i2; b3 += wB * i3;
      }
      currents[t * nNeurons + j] = a0; currents[t1 * nNeurons + j] = a1;
      currents[t2 * nNeurons + j] = a2; currents[t3 * nNeurons + j] = a3;
      currents[t * nNeurons + last] = b0; currents[t1 * nNeurons + last] = b1;
      currents[t2 * nNeurons + last] = b2; currents[t3 * nNeurons + last] = b3;
    }
  }
}

/** step[j, i] += sum over t of change[t, j] * inputs[t, i]; steps in which nothing changes are left out. */
function addOuter(step, biasStep, change, inputs, nInputs, nNeurons, nSteps, busy, sizes) {
  for (let j = 0; j < nNeurons; j++) {
    let n = 0, sum = 0;
    for (let t = 0; t < nSteps; t++) {
      const c = change[t * nNeurons + j];
      if (c !== 0) { busy[n] = t * nInputs; sizes[n] = c; n += 1; sum += c; }
    }
    if (n === 0) continue;
    biasStep[j] += sum;
    const row = j * nInputs;
    let k = 0;
    for (; k + 3 < n; k += 4) {
      const c0 = sizes[k], c1 = sizes[k + 1], c2 = sizes[k + 2], c3 = sizes[k + 3];
      const x0 = busy[k], x1 = busy[k + 1], x2 = busy[k + 2], x3 = busy[k + 3];
      for (let i = 0; i < nInputs; i++)
        step[row + i] += c0 * inputs[x0 + i] + c1 * inputs[x1 + i] + c2 * inputs[x2 + i] + c3 * inputs[x3 + i];
    }
    for (; k < n; k++) {
      const c = sizes[k], x = busy[k];
      for (let i = 0; i < nInputs; i++) step[row + i] += c * inputs[x + i];
    }
  }
}

/** The three factors of a first layer, forward in time: at each spike, its learning signal times the eligibility. */
function addForward(step, biasStep, signals, slopes, inputs, nInputs, nNeurons, nSteps, decay, room) {
  // A synapse's eligibility is the trace of its input, less what spikes of its neuron have taken; the bias is the
  // weight of one more input, which is always 1.
  const n = nInputs + 1, { trace, lacking, lastSpike } = room;
  trace.fill(0); lacking.fill(0); lastSpike.fill(0);
  for (let t = 0; t < nSteps; t++) {
    const x = t * nInputs;
    for (let i = 0; i < nInputs; i++) trace[i] = decay * trace[i] + inputs[x + i];
    trace[nInputs] = decay * trace[nInputs] + 1;
    for (let j = 0; j < nNeurons; j++) {
      const slope = slopes[t * nNeurons + j], signal = signals[t * nNeurons + j];
      if (slope === 1 && signal === 0) continue;
      const faded = decay ** (t - lastSpike[j]), taken = 1 - slope, row = j * nInputs, own = j * n;
      for (let i = 0; i < nInputs; i++) {
        const lack = faded * lacking[own + i], eligibility = trace[i] - lack;
        step[row + i] -= signal * eligibility;
        lacking[own + i] = lack + taken * eligibility;
      }
      const lack = faded * lacking[own + nInputs], eligibility = trace[nInputs] - lack;
      biasStep[j] -= signal * eligibility;
      lacking[own + nInputs] = lack + taken * eligibility;
      lastSpike[j] = t;
    }
  }
}

/** One layer: its weights, what it did with the last digit, and the step that gathers over a batch. */
class Layer {
  constructor(nInputs, nNeurons, isFirst) {
    Object.assign(this, { nInputs, nNeurons, isFirst });
    const n = nInputs * nNeurons;
    // Of the first layer a row for each neuron; of the others, which spikes feed, a row for each input.
    this.weights = new Float64Array(n);
    this.biases = new Float64Array(nNeurons);
    this.step = new Float64Array(n);
    this.biasStep = new Float64Array(nNeurons);
    this.momentum = new Float64Array(n);
    this.biasMomentum = new Float64Array(nNeurons);
  }

  /** Xavier-uniform, and the biases as nn.Linear draws them; `from` is the number of the first draw. */
  start(seed, from) {
    const { nInputs, nNeurons, isFirst } = this, edge = Math.sqrt(6 / (nInputs + nNeurons));
    for (let j = 0; j < nNeurons; j++)
      for (let i = 0; i < nInputs; i++)
        this.weights[isFirst ? j * nInputs + i : i * nNeurons + j] = edge * (2 * draw(seed, from++) - 1);
    for (let j = 0; j < nNeurons; j++) this.biases[j] = (2 * draw(seed, from++) - 1) / Math.sqrt(nInputs);
    return from;
  }

  /** Values of the weights' shape as nn.Linear has them, a row for each neuron. */
  rows(values = this.weights) {
    const { nInputs, nNeurons, isFirst } = this;
    return Array.from({ length: nNeurons }, (_, j) =>
      Array.from({ length: nInputs }, (_, i) => values[isFirst ? j * nInputs + i : i * nNeurons + j]));
  }

  /** Room for `nSteps` steps. */
  reserve(nSteps) {
    const n = nSteps * this.nNeurons;
    for (const name of ["currents", "states", "outputs", "slopes", "signals", "credit", "change"]) this[name] = new Float64Array(n);
    this.who = new Uint16Array(n); // step by step, which neurons fire
    this.nWho = new Uint16Array(nSteps);
  }

  /** The neurons over time, from their currents: leak and charge, fire, reset. */
  run(nSteps, { decay, threshold, penalty, reset }) {
    const { nNeurons, currents, states, outputs, slopes, who, nWho } = this;
    const taken = { scale: penalty / threshold, discharge: 1, subtract: 0, zero: 1 }[reset];
    if (taken === undefined) throw new Error(`reset must be scale, discharge, subtract or zero, not ${reset}`);
    for (let t = 0, at = 0; t < nSteps; t++) {
      let n = 0;
      for (let j = 0; j < nNeurons; j++, at++) {
        const charge = currents[at] + (t > 0 ? decay * states[at - nNeurons] : 0), output = charge - threshold;
        if (output > 0) {
          outputs[at] = output;
          slopes[at] = 1 - taken;
          who[t * nNeurons + n++] = j;
          states[at] = reset === "scale" ? charge - taken * charge : reset === "discharge" ? charge - (penalty + output)
            : reset === "subtract" ? charge - threshold : 0;
        } else {
          outputs[at] = 0;
          slopes[at] = 1;
          states[at] = charge;
        }
      }
      nWho[t] = n;
    }
  }
}

/** The network of the book, 784-100-10 or of other sizes, which learns from one batch of digits after another. */
export class Learner {
  constructor(sizes, seed) {
    this.sizes = sizes;
    this.layers = sizes.slice(1).map((n, k) => new Layer(sizes[k], n, k === 0));
    let from = 0;
    for (const layer of this.layers) from = layer.start(streamSeed(seed, "weights"), from);
    this.nSteps = 0;
  }

  /** Make room for `nSteps` steps. What happens in the last one nobody reads, so it is not computed. */
  reserve(nSteps) {
    if (nSteps === this.nSteps) return;
    this.nSteps = nSteps;
    const n = this.sizes[0];
    this.frames = new Float64Array((nSteps - 1) * n);
    this.pulses = new Float64Array(nSteps);
    this.busy = new Int32Array(nSteps);
    this.busySizes = new Float64Array(nSteps);
    for (const layer of this.layers) layer.reserve(Math.max(1, nSteps - 1));
    this.passed = new Float64Array(nSteps * Math.max(...this.sizes.slice(1)));
    const first = this.layers[0];
    this.room = { trace: new Float64Array(n + 1), lacking: new Float64Array((n + 1) * first.nNeurons), lastSpike: new Int32Array(first.nNeurons) };
    this.ruleStep = new Float64Array(first.weights.length);
    this.ruleBias = new Float64Array(first.nNeurons);
    this.mean = new Float64Array(n);
    this.each = new Float64Array(first.nNeurons);
    this.parts = new Float64Array(2 * REACH + 1);
  }

  /** Run the layers over `this.frames`; returns the logits, the last layer's states in the mean from `beginEval` on. */
  forward(neuron, beginEval = 0) {
    const { layers, nSteps } = this, n = nSteps - 1;
    const first = layers[0];
    if (n > 0) denseCurrents(first.currents, first.weights, first.biases, this.frames, first.nInputs, first.nNeurons, n);
    layers.forEach((layer, k) => {
      const { nNeurons, weights, biases, currents } = layer, below = layers[k - 1];
      for (let t = 0; k > 0 && t < n; t++) {
        const at = t * nNeurons;
        for (let j = 0; j < nNeurons; j++) currents[at + j] = biases[j];
        if (t === 0) continue; // a layer reads what the one below has put out one step before
        const before = (t - 1) * below.nNeurons;
        for (let s = 0; s < below.nWho[t - 1]; s++) {
          const i = below.who[before + s], output = below.outputs[before + i], row = i * nNeurons;
          for (let j = 0; j < nNeurons; j++) currents[at + j] += weights[row + j] * output;
        }
      }
      layer.run(n, neuron);
    });
    const last = layers.at(-1), logits = new Float64Array(last.nNeurons);
    for (let t = Math.max(beginEval, 1); t < nSteps; t++)
      for (let j = 0; j < last.nNeurons; j++) logits[j] += last.states[(t - 1) * last.nNeurons + j] / (nSteps - beginEval);
    return logits;
  }

  /** The digit's loss and answer, and its logits; the errors, derivatives of the loss by the logits, go to `this.errors`. */
  read(logits, label) {
    const top = Math.max(...logits), sum = logits.reduce((total, value) => total + Math.exp(value - top), 0);
    this.errors = logits.map((value, k) => Math.exp(value - top) / sum - (k === label));
    return { loss: Math.log(sum) + top - logits[label], answer: logits.indexOf(top), logits };
  }

  /**
   * Back through time: in each layer `signals`, the loss's derivative by the charge without what goes through the
   * neuron's own later charges, and `credit`, the whole derivative. The loss is that of a batch of `size` digits.
   */
  backward(neuron, size, beginEval = 0) {
    const { layers, nSteps, errors } = this, n = nSteps - 1;
    for (let k = layers.length - 1; k >= 0; k--) {
      const { nNeurons, signals, credit, slopes, who, nWho } = layers[k], above = layers[k + 1];
      if (!above) {
        for (let t = 0; t < n; t++)
          for (let j = 0; j < nNeurons; j++)
            signals[t * nNeurons + j] = t + 1 >= beginEval ? (slopes[t * nNeurons + j] * errors[j]) / (nSteps - beginEval) / size : 0;
      } else {
        signals.fill(0);
        for (let t = 0; t + 1 < n; t++) {
          const next = (t + 1) * above.nNeurons;
          for (let s = 0; s < nWho[t]; s++) {
            const j = who[t * nNeurons + s], row = j * above.nNeurons;
            let sum = 0;
            for (let i = 0; i < above.nNeurons; i++) sum += above.credit[next + i] * above.weights[row + i];
            signals[t * nNeurons + j] = sum;
          }
        }
      }
      for (let t = n - 1; t >= 0; t--)
        for (let j = 0; j < nNeurons; j++) {
          const at = t * nNeurons + j;
          credit[at] = signals[at] + (t + 1 < n ? slopes[at] * neuron.decay * credit[at + nNeurons] : 0);
        }
    }
  }

  /** Add this digit's part to the descent of the layers above the first: spikes times credit. */
  addAbove() {
    const n = this.nSteps - 1;
    for (let k = 1; k < this.layers.length; k++) {
      const { nNeurons, credit, step, biasStep } = this.layers[k], below = this.layers[k - 1];
      for (let t = 0; t < n; t++) {
        const at = t * nNeurons;
        for (let j = 0; j < nNeurons; j++) biasStep[j] -= credit[at + j];
        if (t === 0) continue;
        const before = (t - 1) * below.nNeurons;
        for (let s = 0; s < below.nWho[t - 1]; s++) {
          const i = below.who[before + s], output = below.outputs[before + i], row = i * nNeurons;
          for (let j = 0; j < nNeurons; j++) step[row + j] -= output * credit[at + j];
        }
      }
    }
  }

  /** What a unit of input in each step does to the first layer's weights by a rule of pairs: rule_steps of chapter 8. */
  changeByPairs() {
    const { nNeurons, outputs, signals, change } = this.layers[0], { rule, decay } = this, n = this.nSteps - 1;
    const tau = decay > 0 ? decay : 0.9; // a rule needs a window, also where the neuron forgets at once
    for (let j = 0; j < nNeurons; j++) {
      let nFired = 0, nSignals = 0, sum = 0;
      for (let t = 0; t < n; t++) {
        if (outputs[t * nNeurons + j] > 0) nFired += 1;
        if (signals[t * nNeurons + j] !== 0) { nSignals += 1; sum += signals[t * nNeurons + j]; }
      }
      if (rule === "Hebb") {
        for (let t = 0; t < n; t++) change[t * nNeurons + j] = nFired / n / n;
        continue;
      }
      const each = rule === "STDP" ? 1 : -sum / Math.max(1, nSignals); // what a spike counts for: 1, or the error
      this.each[j] = each;
      // Spikes to come, faded: what a pulse before them gets. STDP's come one step later, as they are handed out.
      let ahead = 0;
      for (let t = n - 1; t >= 0; t--) {
        const fired = outputs[t * nNeurons + j] > 0 ? each : 0;
        ahead = rule === "STDP" ? ahead * tau + (t + 1 < n ? tau * fired : 0) : ahead * tau + fired;
        change[t * nNeurons + j] = ahead;
      }
      if (rule !== "STDP") continue;
      // Spikes gone by, faded: what a pulse after them loses.
      let behind = 0;
      for (let t = 0; t < n; t++) {
        behind *= tau;
        change[t * nNeurons + j] -= behind;
        if (t > 0 && outputs[(t - 1) * nNeurons + j] > 0) behind += 1;
      }
    }
  }

  // --- a batch: begin, add each of its digits, apply ---

  begin(size, rule) {
    if (!RULES.includes(rule)) throw new Error(`rule must be one of ${RULES.join(", ")}, not ${rule}`);
    Object.assign(this, { size, rule, byPairs: isOfPairs(rule) });
    for (const layer of this.layers) { layer.step.fill(0); layer.biasStep.fill(0); }
    this.mean.fill(0);
    if (this.byPairs) { this.ruleStep.fill(0); this.ruleBias.fill(0); }
    this.found = newWindow();
  }

  /** The digit in `this.frames` enters the batch; returns its loss and answer. */
  add(label, neuron, beginEval = 0) {
    const first = this.layers[0], { frames, busy, busySizes } = this, n = this.nSteps - 1;
    const { nInputs, nNeurons, step, biasStep, change, credit } = first;
    const outer = (to, biasTo) => addOuter(to, biasTo, change, frames, nInputs, nNeurons, n, busy, busySizes);
    this.decay = neuron.decay;
    const result = this.read(this.forward(neuron, beginEval), label);
    this.backward(neuron, this.size, beginEval);
    this.addAbove();
    for (let at = 0; at < credit.length; at++) change[at] = -credit[at];
    if (this.rule === "three factors")
      addForward(step, biasStep, first.signals, first.slopes, frames, nInputs, nNeurons, n, neuron.decay, this.room);
    else outer(step, biasStep);
    if (this.byPairs) {
      this.changeByPairs();
      outer(this.ruleStep, this.ruleBias);
      for (let t = 0, at = 0; t < n; t++) for (let i = 0; i < nInputs; i++, at++) this.mean[i] += frames[at] / n / this.size;
    }
    if (this.rule !== "none") this.measure();
    return result;
  }

  /**
   * What this digit adds to the window, by the sign of each spike's learning signal. For a pulse `d` steps before the
   * spike: `own`, what the rule gives it for this spike (the kernel of chapter 8), and `change`, what it gets in all
   * (mean_change there).
   */
  measure() {
    const { nInputs, nNeurons, signals, change, who, nWho } = this.layers[0], { frames, pulses, found, parts } = this;
    const n = this.nSteps - 1, reach = Math.min(REACH, n - 1);
    for (let t = 0, at = 0; t < n; t++) {
      pulses[t] = 0;
      for (let i = 0; i < nInputs; i++, at++) if (frames[at] > 0) pulses[t] += frames[at];
    }
    for (let t = 0; t < n; t++)
      for (let s = 0; s < nWho[t]; s++) {
        const j = who[t * nNeurons + s], signal = signals[t * nNeurons + j];
        if (signal === 0) continue; // nobody reads this spike
        const asked = signal < 0 ? found.raised : found.lowered;
        asked.signals += Math.abs(signal);
        asked.nSignals += 1;
        this.partsOf(t, j, reach);
        for (let d = -reach; d <= reach; d++) {
          const then = t - d; // the pulse's step; positive delays have it before the spike
          if (then < 0 || then >= n) continue;
          asked.own[d + REACH] += parts[d + REACH];
          asked.change[d + REACH] += pulses[then] * change[then * nNeurons + j];
          asked.pulses[d + REACH] += pulses[then];
        }
      }
  }

  /** What the spike of neuron j in step t gives to a unit pulse at each delay: all spikes' parts make the `change`. */
  partsOf(t, j, reach) {
    const { nNeurons, signals, slopes } = this.layers[0], { parts, rule } = this, n = this.nSteps - 1;
    const decay = this.decay, tau = decay > 0 ? decay : 0.9;
    parts.fill(0);
    if (!this.byPairs) {
      let part = -signals[t * nNeurons + j];
      for (let d = 0; d <= Math.min(reach, t); d++) {
        if (d > 0) part *= decay * slopes[(t - d) * nNeurons + j];
        parts[d + REACH] = part;
      }
    } else if (rule === "Hebb") parts.fill(1 / n / n);
    else if (rule === "STDP")
      // Handed out one step later: a pulse in that very step counts for nothing.
      for (let d = -reach; d <= reach; d++)
        parts[d + REACH] = d >= 0 ? (t + 1 < n ? tau ** (d + 1) : 0) : d < -1 ? -(tau ** (-d - 1)) : 0;
    else for (let d = 0; d <= reach; d++) parts[d + REACH] = this.each[j] * tau ** d;
  }

  /** The batch is whole: make its steps. SGD with momentum; adds what was found to `window`. */
  apply(rate, momentum, window = newWindow()) {
    const first = this.layers[0];
    let length = 1;
    this.cosine = 1;
    if (this.byPairs) {
      // Chapter 8's measure: each input less its mean over the batch. The rule gives the direction alone.
      let ofRule = 0, ofGradient = 0, both = 0;
      for (let j = 0, at = 0; j < first.nNeurons; j++)
        for (let i = 0; i < first.nInputs; i++, at++) {
          const own = this.ruleStep[at] - this.ruleBias[j] * this.mean[i], exact = first.step[at] - first.biasStep[j] * this.mean[i];
          this.ruleStep[at] = own;
          ofRule += own * own;
          ofGradient += exact * exact;
          both += own * exact;
        }
      length = ofRule > 0 ? Math.sqrt(ofGradient / ofRule) : 0;
      this.cosine = both / Math.max(1e-30, Math.sqrt(ofRule * ofGradient));
      for (let at = 0; at < first.step.length; at++) first.step[at] = length * this.ruleStep[at];
      first.biasStep.fill(0);
    } else if (this.rule === "none") {
      first.step.fill(0);
      first.biasStep.fill(0);
      this.cosine = 0;
    }
    addWindow(window, this.found, length);
    for (const { weights, biases, step, biasStep, momentum: kept, biasMomentum: biasKept } of this.layers) {
      descend(weights, step, kept, rate, momentum);
      descend(biases, biasStep, biasKept, rate, momentum);
    }
  }
}

function descend(values, step, kept, rate, momentum) {
  for (let at = 0; at < values.length; at++) {
    kept[at] = momentum * kept[at] + step[at];
    values[at] += rate * kept[at];
  }
}

// --- the window ---

const KINDS = ["raised", "lowered"]; // spikes of which the error asks for more, and for less
const zeros = () => new Float64Array(2 * REACH + 1);
export function newWindow() {
  const part = () => ({ own: zeros(), change: zeros(), pulses: zeros(), signals: 0, nSignals: 0 });
  return { raised: part(), lowered: part() };
}

function addWindow(window, found, length) {
  for (const kind of KINDS) {
    for (let k = 0; k < 2 * REACH + 1; k++) {
      window[kind].own[k] += length * found[kind].own[k];
      window[kind].change[k] += length * found[kind].change[k];
      window[kind].pulses[k] += found[kind].pulses[k];
    }
    window[kind].signals += found[kind].signals;
    window[kind].nSignals += found[kind].nSignals;
  }
}

/**
 * The window at each delay from -REACH to REACH, for spikes raised and lowered: `own`, for each unit of learning signal,
 * and `change`, the mean over pairs in units of the mean learning signal's size.
 */
export function readWindow(window) {
  const [all, n] = ["signals", "nSignals"].map((name) => window.raised[name] + window.lowered[name]);
  const unit = all / Math.max(1, n) || 1;
  return Object.fromEntries(KINDS.map((kind) => {
    const { own, change, pulses, signals } = window[kind];
    return [kind, {
      own: Array.from(own, (value) => (signals > 0 ? value / signals : 0)),
      change: Array.from(change, (value, k) => (pulses[k] > 0 ? value / pulses[k] / unit : 0)),
    }];
  }));
}

// --- training ---

const LOSS_EVERY = 100; // digits
const RUN_AWAY = 1e4; // a loss from which no training comes back; it guesses at about 2.3

/** The order of the digits in an epoch. */
export function shuffled(n, seed, epoch) {
  const draws = Float64Array.from({ length: n }, (_, i) => draw(seed, epoch * n + i));
  return Array.from(draws.keys()).sort((a, b) => draws[a] - draws[b]);
}

/** A training: digits in `pixels`, the first `nTrain` to learn from, the others held out. `settings` may change on the way. */
export class Training {
  constructor(pixels, labels, nPixels, nTrain, settings) {
    Object.assign(this, { pixels, labels, nPixels, nTrain, settings });
    this.learner = new Learner([nPixels, settings.n_hidden, 10], settings.seed);
    Object.assign(this, { seen: 0, updates: 0, losses: [], tests: [], cosine: 1, diverged: false, window: newWindow() });
    Object.assign(this, { isWhole: true, pending: null });
    this.learner.reserve(settings.n_steps);
    this.lossSum = this.nLosses = 0;
    this.order = null;
    this.parts = this.work();
  }

  image(k) {
    return this.pixels.subarray(k * this.nPixels, (k + 1) * this.nPixels);
  }

  /** What is set anew acts from the next batch on; the window starts over, as it is one of other updates. */
  set(settings) {
    this.pending = settings;
    if (this.isWhole) this.takeOver();
  }

  takeOver() {
    if (!this.pending) return;
    this.settings = this.pending;
    this.pending = null;
    this.window = newWindow();
    this.learner.reserve(this.settings.n_steps);
  }

  /** Go on by one digit; returns "digit", or "batch" or "test" where one is whole. */
  next() {
    if (this.isWhole) this.takeOver();
    const { value } = this.parts.next();
    this.isWhole = value !== "digit";
    return value;
  }

  /** Without end: test, train, test, ...; it yields after each digit, and says whether a batch or a test is whole. */
  *work() {
    let nextTest = 0;
    while (true) {
      if (this.seen >= nextTest) {
        yield* this.test();
        nextTest = this.seen + Math.min(2000, 200 + Math.floor(this.seen / 4));
      }
      yield* this.batch();
      if (this.diverged) return;
    }
  }

  *batch() {
    const { learner, nTrain } = this, { n_steps: nSteps, seed, rule, learning_rate: rate } = this.settings;
    const neuron = this.settings;
    const at = this.seen % nTrain, size = Math.min(BATCH, nTrain - at);
    if (at === 0) this.order = shuffled(nTrain, streamSeed(seed, "order"), Math.floor(this.seen / nTrain));
    learner.begin(size, rule);
    for (let k = 0; k < size; k++) {
      const digit = this.order[at + k];
      flickerInto(learner.frames, this.image(digit), nSteps - 1, streamSeed(seed, "flicker"), (this.seen + k) * (nSteps - 1) * this.nPixels);
      const { loss } = learner.add(this.labels[digit], neuron);
      this.lossSum += loss;
      this.nLosses += 1;
      if (k + 1 < size) yield "digit";
    }
    learner.apply(rate / (1 + Math.floor(this.seen / nTrain)), MOMENTUM, this.window); // lower in each epoch
    this.cosine = 0.95 * (this.updates ? this.cosine : learner.cosine) + 0.05 * learner.cosine;
    this.seen += size;
    this.updates += 1;
    if (this.nLosses >= LOSS_EVERY) {
      const loss = this.lossSum / this.nLosses;
      this.losses.push([this.seen - this.nLosses / 2, loss]);
      this.lossSum = this.nLosses = 0;
      if (!(loss < RUN_AWAY)) this.diverged = true;
    }
    yield "batch";
  }

  show(k) {
    const { learner, settings: { n_steps: nSteps, seed } } = this;
    flickerInto(learner.frames, this.image(k), nSteps - 1, streamSeed(seed, "test"), k * (nSteps - 1) * this.nPixels);
    return learner.read(learner.forward(this.settings), this.labels[k]);
  }

  /** All digits that are held out, with the same flicker each time. */
  *test() {
    const n = this.labels.length - this.nTrain;
    let nRight = 0, loss = 0;
    for (let k = this.nTrain; k < this.labels.length; k++) {
      const read = this.show(k);
      nRight += read.answer === this.labels[k];
      loss += read.loss;
      if (k + 1 < this.labels.length) yield "digit";
    }
    this.tests.push([this.seen, nRight / n, loss / n]);
    yield "test";
  }
}
