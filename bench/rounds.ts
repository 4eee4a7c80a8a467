/**
 * Times cases beside each other: every round runs each of them for a few milliseconds, in an order that moves on from
 * round to round, so that what else the machine does meets all of them alike.
 *
 * @module
 */

import { hrtime } from 'node:process'

/** What is timed: something that may be awaited. */
export type Case = () => unknown

export interface Timing {
  /** Of one run, in nanoseconds: the shortest average of a round. */
  readonly best: number
  /** Of one run, in nanoseconds: the median of the rounds. */
  readonly median: number
  /** To the first case: the median of the quotients within each round. */
  readonly ratio: number
}

export interface RoundsOptions {
  readonly rounds: number
  /** How long each case runs in each round, in milliseconds. */
  readonly slice: number
  /** How many runs are begun before they are awaited together. Default: 1. */
  readonly atOnce?: number
}

/** The case that the others are divided by comes first. */
export async function timeInRounds(
  cases: Readonly<Record<string, Case>>,
  { rounds, slice, atOnce = 1 }: RoundsOptions,
): Promise<Map<string, Timing>> {
  const entries: Entry[] = []
  for (const [name, run] of Object.entries(cases)) {
    const loop = newLoop(atOnce)
    // Until the optimizing compiler has seen it.
    for (let n = 0; n < 5; n++) await loop(run, Math.ceil((50 * slice) / atOnce))
    const turns = Math.max(1, Math.round((slice * 1e6) / ((await time(loop, run, 200)) * atOnce)))
    entries.push({ name, run, loop, turns, samples: [] })
  }
  for (let round = 0; round < rounds; round++) {
    for (let n = 0; n < entries.length; n++) {
      const { loop, run, turns, samples } = entries[(round + n) % entries.length] as Entry
      samples.push(await time(loop, run, turns))
    }
  }
  const base = entries[0] as Entry
  return new Map(
    entries.map(({ name, samples }) => [
      name,
      {
        best: Math.min(...samples) / atOnce,
        median: median(samples) / atOnce,
        ratio: median(samples.map((sample, round) => sample / (base.samples[round] as number))),
      },
    ]),
  )
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5)
}

export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}

type Loop = (run: Case, turns: number) => Promise<void>

interface Entry {
  readonly name: string
  readonly run: Case
  readonly loop: Loop
  /** How often it is run in each round. */
  readonly turns: number
  /** Nanoseconds of one turn of the loop. */
  readonly samples: number[]
}

/** Nanoseconds of one turn. */
async function time(loop: Loop, run: Case, turns: number): Promise<number> {
  const startedAt = hrtime.bigint()
  await loop(run, turns)
  return Number(hrtime.bigint() - startedAt) / turns
}

/** From text, so that each case has a loop of its own: one that all of them share is compiled for none of them. */
function newLoop(atOnce: number): Loop {
  const together = `Promise.all([${Array(atOnce).fill('run()').join(', ')}])`
  const turn = atOnce === 1 ? 'run()' : together
  return new Function(`return async (run, turns) => { for (let n = 0; n < turns; n++) await ${turn} }`)() as Loop
}
