// The window that a gradient draws around a spike: by its laws, and as an experiment finds it (chapters 6 and 9).
import { neuronStep, resetSlope } from "./neuron.js";

/** window_law of chapter 6: what one spike gives to a pulse `delay` steps before it, past earlier spikes. */
export function windowLaw(delays, earlier, settings) {
  const slope = resetSlope(settings);
  const steps = [...new Set(earlier)];
  return delays.map((d) =>
    d < 0 ? 0 : settings.decay ** d * slope ** steps.filter((e) => e <= d).length);
}

/**
 * after_spike_law of chapter 9: the window of one spike and of the after-spike that follows it. `detach`: a spike does
 * not answer for its after-spike.
 */
export function afterSpikeLaw(delays, settings) {
  const { decay, afterDecay, strength, amplitude = 1, lateCurrent = 0, nAfter = 60, detach = false } = settings;
  let length = 0;
  for (let step = 0; step < nAfter; step++) length += afterDecay ** step;
  const causal = detach ? 1 : 1 - strength * Math.max(0, lateCurrent) * length;
  const depression = lateCurrent + 0.1 > 0 ? -strength * amplitude : 0;
  return delays.map((d) => (d >= 0 ? causal * decay ** d : depression * afterDecay ** (-d - 1)));
}

/** The law with an earlier spike and an after-spike together, in no late current but the pulse's own. */
export function wholeLaw(delays, earlier, settings) {
  const { afterDecay, strength, amplitude = 1 } = settings;
  const steps = [0, ...new Set(earlier)];
  return windowLaw(delays, earlier, settings).map((causal, i) => {
    const since = steps.map((e) => e - delays[i]).filter((n) => delays[i] <= 0 && n > 0);
    return causal - since.reduce((sum, n) => sum + strength * amplitude * afterDecay ** (n - 1), 0);
  });
}

/**
 * The window as an experiment finds it: a voltage clamp makes the neuron fire at t_post and at the earlier
 * spikes, a pulse arrives `delay` steps before t_post, and derivatives run along with the simulation, from
 * the pulse's weight to all that the neuron hands out from t_post on. The counterpart of gradient_window
 * (chapter 6) and after_spike_window (chapter 9).
 */
export function measureWindow(delays, earlier, settings) {
  const { decay, threshold, afterDecay = 0, strength = 0, amplitude = 1, lateCurrent = 0, nAfter = 60,
    detach = false } = settings;
  const slope = resetSlope(settings);
  const post = Math.max(0, ...delays, ...earlier);
  const spikes = new Set([0, ...earlier].map((e) => post - e));
  return delays.map((delay) => {
    let state = 0, dState = 0, trace = 0, dTrace = 0, sum = 0;
    for (let t = 0; t <= post + nAfter; t++) {
      const pulse = t === post - delay ? 1 : 0;
      const arriving = lateCurrent + 0.1 * pulse; // through a weight of 0.1
      const clamp = (spikes.has(t) ? threshold + amplitude : 0) - decay * state;
      const step = neuronStep(clamp, state, settings);
      const dCharge = pulse + decay * dState;
      const fired = step.output > 0;
      const dOutput = fired ? dCharge : 0;
      const late = Math.max(0, arriving);
      if (t >= post) sum += dOutput - strength * (dTrace * late + (arriving > 0 ? trace * pulse : 0));
      trace = afterDecay * trace + step.output;
      dTrace = detach ? 0 : afterDecay * dTrace + dOutput;
      state = step.state;
      dState = fired ? slope * dCharge : dCharge;
    }
    return sum;
  });
}
