// Which page a search shows first: the one that is named as the reader asks, then the one with such a heading.
// Sphinx's own score, which counts words wherever they are, decides among the rest. In its language's file, this
// stands before the search; it is given each result and says its score.
var Scorer = {
  score([page, title, anchor, , score]) {
    const plain = (text) => text.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, " ").trim();
    // As Sphinx does with the words of the pages: plurals and the like count as one word.
    const stem = (word) => (word.length > 3 ? new Stemmer().stemWord(word) : word);
    const words = (text) => plain(text).split(" ").filter((word) => word && !stopwords.includes(word)).map(stem);
    const asked = words(new URLSearchParams(location.search).get("q") ?? "");
    if (!asked.length) return score;
    /** How like the question and a heading are: 1 if they are the same; less if not all that is asked for is in it. */
    const likeness = (heading) => {
      const found = words(heading.replace(/^\d+\.\s*/, "").replace(/^exercise \d+ \([^)]*\)\.?/i, "exercise"));
      const both = asked.filter((word) => found.includes(word)).length;
      return (both / new Set([...asked, ...found]).size) * (both < asked.length ? 0.4 : 1);
    };
    const { titles, alltitles, docnames } = Search._index;
    const file = docnames.indexOf(page);
    let headings = 0;
    for (const [heading, places] of Object.entries(alltitles))
      if (heading !== titles[file] && places.some(([place]) => place === file))
        headings = Math.max(headings, likeness(heading));
    const named = titles[file] === undefined ? 0 : likeness(titles[file]);
    // A page as a whole comes before its sections; a chapter before lists of all the words; and the first one first.
    const number = /\/(\d\d)_/.exec(page)?.[1];
    const chapter = number ? 2 - number / 100 : /\/(intro|claims|how_)/.test(page) ? 1.8 : 0;
    const exact = anchor && likeness(title.split(" > ").at(-1)) === 1 ? 0.5 : 0;
    return 300 * named + 60 * headings + chapter + exact + Math.min(score, 50) / (anchor ? 2 : 1);
  },
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
