// What the training and the page that shows it both know of the rules.

export const RULES = ["backpropagation", "three factors", "error x pre first", "Hebb", "STDP", "none"];
export const BATCH = 20, MOMENTUM = 0.5;
/** How many steps to both sides of a spike the window is measured. */
export const REACH = 8;

/** Whether a rule is one of pairs, as chapter 8 defines them. */
export function isOfPairs(rule) {
  return ["error x pre first", "Hebb", "STDP"].includes(rule);
}
