/**
 * The long sweep: fleets of the real engine under a virtual clock, one per seed, checked against the invariants after
 * every event.
 *
 *     npm run simulate -- --seeds 10000            seeds 1 to 10 000, on all processors
 *     npm run simulate -- --seeds 500 --from 2001  seeds 2001 to 2500
 *     npm run simulate -- --seed 42                one run, with what happened in it
 */

import { fork } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { type InvariantNumber, invariants, type Violation } from '../__tests__/simulation/invariants.ts'
import { explain, simulate } from '../__tests__/simulation/simulation.ts'

/** What a worker sends after each run. */
interface Result {
  readonly seed: number
  readonly events: number
  readonly calls: number
  readonly transitions: number
  readonly checks: Readonly<Record<InvariantNumber, number>>
  readonly violation: Violation | undefined
}

/** The lines of a single run that are shown. */
const shownLines = 400
/** Of this many violations each is shown; then they are only counted. */
const shownViolations = 20

const problems: string[] = []
const count = (name: string, value: string | undefined, otherwise: number): number => {
  const number = value === undefined ? otherwise : Number(value)
  if (!Number.isInteger(number) || number < 1 || number > 2 ** 31) {
    problems.push(`--${name} must be a whole number from 1 to ${2 ** 31}, but is ${JSON.stringify(value)}`)
  }
  return number
}

function readOptions(): { seed?: string; seeds?: string; from?: string; workers?: string } {
  const string = { type: 'string' } as const
  try {
    return parseArgs({ options: { seed: string, seeds: string, from: string, workers: string } }).values
  } catch (error) {
    console.error(`${(error as Error).message}\nOptions: --seeds, --from, --workers; or --seed for one run.`)
    process.exit(2)
  }
}

if (process.send === undefined) await main()
else process.on('message', (seed: number) => void work(seed))

async function work(seed: number): Promise<void> {
  const { events, calls, transitions, checks, violation } = await simulate({ seed })
  process.send?.({ seed, events, calls, transitions, checks, violation } satisfies Result)
}

async function main(): Promise<void> {
  const options = readOptions()
  const only = options.seed === undefined ? undefined : count('seed', options.seed, 1)
  const seeds = count('seeds', options.seeds, 1_000)
  const from = count('from', options.from, 1)
  const workers = count('workers', options.workers, availableParallelism())
  if (problems.length > 0) {
    console.error(problems.join('\n'))
    process.exit(2)
  }
  if (only !== undefined) {
    const story = await explain(only, undefined, shownLines)
    console.log(story)
    process.exitCode = story.endsWith('no violation') ? 0 : 1
    return
  }
  const violations = await sweep(from, seeds, Math.min(workers, seeds))
  process.exitCode = violations.length === 0 ? 0 : 1
}

/** Runs the seeds on several processes, and tells how it goes. */
async function sweep(from: number, seeds: number, workers: number): Promise<Result[]> {
  const startedAt = Date.now()
  const totals = { runs: 0, events: 0, calls: 0, transitions: 0 }
  const checks = Object.fromEntries(Object.keys(invariants).map((number) => [number, 0])) as Record<
    InvariantNumber,
    number
  >
  const violations: Result[] = []
  let next = from
  const take = (result: Result): void => {
    totals.runs++
    totals.events += result.events
    totals.calls += result.calls
    totals.transitions += result.transitions
    for (const [number, times] of Object.entries(result.checks)) checks[Number(number) as InvariantNumber] += times
    const { violation, seed } = result
    if (violation === undefined) return
    violations.push(result)
    if (violations.length > shownViolations) return
    const at = (violation.at / 1_000).toFixed(3)
    console.log(`seed ${seed}, ${at} s: invariant ${violation.invariant} is violated: ${violation.message}`)
    console.log(`  replay it with: npm run simulate -- --seed ${seed}`)
  }
  const progress = (): void => {
    const seconds = (Date.now() - startedAt) / 1_000
    const left = totals.runs === 0 ? '' : `, about ${Math.ceil((seconds / totals.runs) * (seeds - totals.runs))} s left`
    console.log(
      `${totals.runs} of ${seeds} runs, ${figure(totals.events)} events, ${violations.length} violations${left}`,
    )
  }
  const timer = setInterval(progress, 5_000)
  const ended = Array.from({ length: workers }, () => {
    const worker = fork(fileURLToPath(import.meta.url))
    const feed = (): void => {
      if (next < from + seeds) worker.send(next++)
      else worker.disconnect()
    }
    worker.on('message', (result: Result) => {
      take(result)
      feed()
    })
    feed()
    return new Promise<void>((resolve, reject) => {
      worker.on('exit', (code) => (code === 0 ? resolve() : reject(new Error(`A worker ended with code ${code}.`))))
    })
  })
  try {
    await Promise.all(ended)
  } finally {
    clearInterval(timer)
  }
  console.log(
    `\ninvariant                                                                             checked  violated`,
  )
  for (const [number, name] of Object.entries(invariants)) {
    const violated = violations.filter(({ violation }) => violation?.invariant === Number(number)).length
    const times = figure(checks[Number(number) as InvariantNumber])
    console.log(`${number.padStart(2)} ${name.padEnd(76)} ${times.padStart(13)} ${figure(violated).padStart(9)}`)
  }
  const { runs, events, calls, transitions } = totals
  console.log(
    `\n${figure(runs)} runs, ${figure(events)} events checked, ${figure(calls)} calls of the service, ${figure(transitions)} ` +
      `changes of state, ${violations.length} violations, ${Math.round((Date.now() - startedAt) / 1_000)} s`,
  )
  return violations
}

function figure(number: number): string {
  return number.toLocaleString('en-US').replaceAll(',', ' ')
}
