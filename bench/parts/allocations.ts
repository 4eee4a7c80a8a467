/** How many bytes a guarded call allocates. */

import { type Case, median } from '../rounds.ts'
import { type Effort, type Section, size } from '../section.ts'
import { openSubjects, subjects } from '../subjects.ts'

export async function run({ quick }: Effort): Promise<Section> {
  const [warmUp, runs, rounds] = quick ? [100, 100, 3] : [30_000, 2_000, 15]
  const bytesOf = async (cases: Record<string, Case>): Promise<Map<string, number>> => {
    const bytes = new Map<string, number>()
    for (const [name, subject] of Object.entries(cases)) {
      await repeat(subject, warmUp)
      const samples: number[] = []
      for (let round = 0; round < rounds; round++) {
        globalThis.gc?.()
        const before = process.memoryUsage().heapUsed
        await repeat(subject, runs)
        samples.push((process.memoryUsage().heapUsed - before) / runs)
      }
      bytes.set(name, median(samples))
    }
    return bytes
  }
  const plain = await bytesOf(await subjects({ limit: 10 }))
  const timed = await bytesOf(await subjects({ limit: 10, timeout: 1_000 }))
  const refused = await bytesOf(await openSubjects())
  return {
    title: 'Bytes allocated per call',
    blocks: [
      `The growth of the heap over ${runs.toLocaleString('en')} calls. Nothing is collected meanwhile, because V8's young generation has room for all of them. The
table has medians of ${rounds} rounds.`,
      {
        header: ['', 'limit of 10', 'limit and timeout', 'refused'],
        rows: Array.from(plain, ([name, bytes]) => [
          name,
          ...[bytes, timed.get(name), refused.get(name)].map((value) => (value === undefined ? '–' : size(value))),
        ]),
      },
    ],
  }
}

async function repeat(subject: Case, turns: number): Promise<void> {
  for (let n = 0; n < turns; n++) await subject()
}
