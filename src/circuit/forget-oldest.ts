/** Makes room in what is remembered, oldest first, so that no more than so many entries are kept. */
export function forgetOldest(entries: Map<string, unknown> | Set<string>, remembered: number): void {
  if (entries.size <= remembered) return
  const [oldest] = entries.keys()
  entries.delete(oldest as string)
}
