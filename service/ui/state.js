/* What the page is looking at: a model, one of its versions, and the rows at hand for each model. */

export const state = {
  model: null,
  /* The version's document, or null where nothing is fitted. */
  version: null,
  /* How questions name it: {version: 3} or {alias: "champion"}. */
  at: {},
  rows: new Map(),
};

export const rowsAtHand = () => state.rows.get(state.model?.id) ?? null;

/* Say whether the page still looks at this model: an answer may come after a change of mind. */
export const isShown = (id) => state.model?.id === id;
