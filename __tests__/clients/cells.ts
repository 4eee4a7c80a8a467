/** Observes many cells of a matrix at once. One that fails or hangs is told apart, and takes no other with it. */

export interface Observed<C, O> {
  readonly observations: O[]
  /** The cells of which there is no observation, and why. */
  readonly failures: { readonly cell: C; readonly message: string }[]
}

interface Limits {
  /** So many at once. */
  readonly atOnce: number
  /** However slow the machine is, one cell after the other ends: if none has for so many milliseconds, the rest hangs. */
  readonly patience: number
}

export async function observeCells<C, O>(
  cells: readonly C[],
  observe: (cell: C) => Promise<O>,
  { atOnce, patience }: Limits,
): Promise<Observed<C, O>> {
  const waiting = [...cells]
  const running = new Set<C>()
  const observations: O[] = []
  const failures: { cell: C; message: string }[] = []
  const hung = Promise.withResolvers<void>()
  const hanging = setTimeout(hung.resolve, patience)
  const work = async (): Promise<void> => {
    for (let cell = waiting.shift(); cell !== undefined; cell = waiting.shift()) {
      running.add(cell)
      try {
        observations.push(await observe(cell))
      } catch (error) {
        failures.push({ cell, message: error instanceof Error ? (error.stack ?? error.message) : String(error) })
      }
      running.delete(cell)
      hanging.refresh()
    }
  }
  await Promise.race([Promise.all(Array.from({ length: atOnce }, work)), hung.promise])
  clearTimeout(hanging)
  for (const cell of running) failures.push({ cell, message: `It hangs: nothing has ended for ${patience} ms.` })
  for (const cell of waiting) failures.push({ cell, message: 'It was not begun, because too many others hang.' })
  return { observations, failures }
}
