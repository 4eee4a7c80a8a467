/**
 * Words for lists of names, which the parts of a check share.
 *
 * @module
 */

/** Names in quotation marks: the first three, and the number of the others. */
export function named(names: readonly string[]): string {
  const shown = names.slice(0, 3).map((name) => JSON.stringify(name))
  return listed(names.length > 3 ? [...shown, `${names.length - 3} others`] : shown)
}

export function listed(words: readonly string[]): string {
  return words.length < 2 ? words.join() : `${words.slice(0, -1).join(', ')} and ${words.at(-1)}`
}
