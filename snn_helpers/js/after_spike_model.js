// A spike and the negative signal that late current provokes after it (chapter 9).
import { afterSpikeLaw, measureWindow } from "./window_model.js";

export const AFTER = 60; // steps after the spike that are summed

/** What the neuron hands out, from the step of its spike on, in a steady current. */
export function handedOut({ strength, after_decay: fade, late_current: late, amplitude }) {
  const signals = [amplitude];
  for (let n = 1, trace = amplitude; n <= AFTER; n++, trace *= fade) signals.push(-strength * trace * Math.max(0, late));
  return signals;
}

/** The settings as window_model.js names them; of a spike that is alone the reset does not count. */
function renamed({ strength, after_decay: afterDecay, late_current: lateCurrent, amplitude, decay, trace }) {
  return { strength, afterDecay, lateCurrent, amplitude, decay, nAfter: AFTER, detach: trace === "taken as given",
    threshold: 1, reset: "zero" };
}

export const law = (delays, settings) => afterSpikeLaw(delays, renamed(settings));
export const measure = (delays, settings) => measureWindow(delays, [], renamed(settings));
