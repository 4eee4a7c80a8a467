/** What the middleware adds to a warm invocation in Lambda's own runtime client. */

import { type ExecutionEnvironment, startEnvironment } from '../../__tests__/lambda/environment.ts'
import { median, quantile } from '../rounds.ts'
import { duration, type Effort, type Section, times } from '../section.ts'

const handlers = {
  'no Middy': 'bare',
  'Middy alone': 'alone',
  'Middy, a no-op middleware': 'noop',
  'Middy, ours in memory, `callExternal`': 'guarded',
} as const

interface Subject {
  readonly name: string
  readonly environment: ExecutionEnvironment
  /** Nanoseconds. */
  readonly durations: number[]
}

export async function run({ quick }: Effort): Promise<Section> {
  const [warmUp, rounds] = quick ? [2, 5] : [300, 1_500]
  const subjects: Subject[] = []
  for (const [name, handler] of Object.entries(handlers)) {
    const environment = await startEnvironment({ handler: `overhead.${handler}`, freezes: false })
    subjects.push({ name, environment, durations: [] })
  }
  for (let round = 0; round < warmUp + rounds; round++) {
    for (let n = 0; n < subjects.length; n++) {
      const { environment, durations } = subjects[(round + n) % subjects.length] as Subject
      const { outcome, duration: taken } = await environment.invoke({})
      if (outcome !== 'response') throw new Error(`An invocation ended with ${outcome}`)
      if (round >= warmUp) durations.push(taken * 1e6)
    }
  }
  await Promise.all(subjects.map(({ environment }) => environment.stop()))
  const base = subjects[2]?.durations ?? []
  return {
    title: "Per invocation, in Lambda's runtime client",
    blocks: [
      `Warm invocations of four environments in turn, ${rounds.toLocaleString('en')} each, in \`aws-lambda-ric\` over HTTP on this machine. The time runs from the event to
the answer. A ratio compares medians.`,
      {
        header: ['', 'to a no-op middleware', 'median', 'p99'],
        rows: subjects.map(({ name, durations }) => [
          name,
          times(median(durations) / median(base)),
          duration(median(durations)),
          duration(quantile(durations, 0.99)),
        ]),
      },
    ],
  }
}
