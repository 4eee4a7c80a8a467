/** Stops what the keeper has started. */
export default async function stopKeeper() {
  await globalThis.stopKeeper?.()
}
