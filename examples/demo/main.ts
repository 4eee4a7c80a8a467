/**
 * The demo, `npm run demo`: an outage of a service, and how it is met by several processes that share one circuit
 * through DynamoDB, and by as many with a circuit each.
 *
 * Settings can be tried out through the package's own variables: `CIRCUIT_BREAKER_FAILURE_THRESHOLD=1 npm run demo`.
 * It exits with 1 if the shared circuit did not do what it is for.
 *
 * @module
 */

import { constants } from 'node:os'
import type { Finding, ServiceSettings } from '../../src/index.ts'
import { resolveConfig, storedKey } from '../../src/settings/resolve.ts'
import * as warningTexts from '../../src/warning-texts.ts'
import { type Database, startDatabase } from './database.ts'
import { displayOn, eventLine } from './display.ts'
import { Instance } from './fleet.ts'
import type { Message } from './messages.ts'
import { startPaymentService } from './payment-service.ts'
import { Recorder } from './recorder.ts'
import type { Fleet, InstanceId } from './recording.ts'
import { durationOf, fleetSize, interval, outageOf, phases, service, settings } from './scenario.ts'
import { summaryOf } from './summary.ts'
import { problemsOf } from './verdict.ts'

/** How late the last invocation may end, in milliseconds. */
const longestDelay = 10_000

const display = displayOn(process.stdout, process.env)
const recorder = new Recorder()
/** What is to be closed, the last one first. */
const closers: (() => Promise<unknown>)[] = []
const interrupted = interruption()
// However it ends, the terminal gets its cursor back.
process.on('exit', () => display.close())

try {
  process.exitCode = await Promise.race([demo(), interrupted])
} catch (error) {
  display.close()
  process.stderr.write(`The demo could not finish: ${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
}
for (const close of closers.reverse()) await close()
// What was interrupted may be about to open something. Instances that are being started end with this process.
process.exit()

/** @returns the exit code */
async function demo(): Promise<number> {
  const config = resolveConfig({ services: [service], storage: 'memory', ...settings }, process.env)
  const effective = config.services.get(service) as ServiceSettings
  introduce(effective)
  for (const warning of config.warnings) display.print(warning(warningTexts), '')

  const database = await startDatabase((request) => recorder.request(request))
  closers.push(() => database.close())
  reportCheck(database.findings)
  const payments = await startPaymentService(
    () => recorder.failure(),
    (arrival) => recorder.arrival(arrival),
  )
  closers.push(() => payments.close())
  const fleets = {
    shared: startFleet('shared', { ...database.env, PAYMENTS_URL: payments.url }),
    alone: startFleet('alone', { CIRCUIT_BREAKER_STORAGE: 'memory', PAYMENTS_URL: payments.url }),
  }
  await Promise.all([warm(fleets.shared), warm(fleets.alone)])
  await play(fleets)
  display.close()
  return conclude(effective, database, storedKey(config.namespace, service))
}

function introduce({ failureThreshold, resetTimeout, cacheTtl, timeout, mode }: ServiceSettings): void {
  const { from, to } = outageOf(phases)
  display.print(
    display.paint(
      'bold',
      `A payment service fails for ${(to - from) / 1_000} s: it answers 503, resets connections, hangs.`,
    ),
    `${fleetSize} processes share one circuit through DynamoDB, ${fleetSize} have a circuit each. All run examples/demo/handler.ts,`,
    `each invoked ${1_000 / interval} times a second for ${durationOf(phases) / 1_000} s. Scaled-down settings:`,
    `failureThreshold ${failureThreshold}, resetTimeout ${resetTimeout} ms, cacheTtl ${cacheTtl} ms, timeout ${timeout === false ? 'none' : `${timeout} ms`}, mode ${mode}`,
    '',
  )
}

/** @throws if the circuit could not be shared: then there is nothing to show */
function reportCheck(findings: readonly Finding[]): void {
  const errors = findings.filter(({ severity }) => severity === 'error')
  if (errors.length > 0) throw new Error(errors.map(({ message, remedy }) => `${message} ${remedy}`).join('\n'))
  display.print('Checked by breaker.check(): the circuit can be read and written, and nothing was changed.')
  for (const { severity, message } of findings) display.print(`  ${severity}: ${message}`)
  display.print('')
}

function startFleet(fleet: Fleet, env: Readonly<Record<string, string>>): Instance[] {
  const numbers = Array.from({ length: fleetSize }, (_, index) => index + 1)
  const instances = numbers.map((number) => new Instance({ fleet, number }, env, onMessage))
  closers.push(() => Promise.all(instances.map((instance) => instance.stop())))
  return instances
}

function onMessage(id: InstanceId, message: Message): void {
  const transition = recorder.message(id, message)
  // The others' transitions are four times as many; the summary counts them.
  if (transition?.fleet === 'shared') display.print(eventLine(transition, display.paint))
}

/** One after the other: processes that start together compete for the processor, and time out. */
async function warm(fleet: readonly Instance[]): Promise<void> {
  await Promise.all(fleet.map((instance) => instance.loaded()))
  for (const instance of fleet) await instance.warm()
}

/** Runs the scenario; resolves when the last invocation has ended. */
async function play(fleets: Record<Fleet, readonly Instance[]>): Promise<void> {
  const duration = durationOf(phases)
  const startAt = Date.now() + interval
  recorder.start(startAt)
  const show = (): void => display.update({ now: Math.max(0, recorder.now), phases, fleetSize, calls: recorder.calls })
  const updates = every(display.interval, show)
  const { promise: late, reject } = Promise.withResolvers<never>()
  const alarm = setTimeout(
    () => reject(new Error('the instances are not keeping up with the scenario on this machine')),
    duration + longestDelay,
  )
  // The instances of a fleet take turns, in both fleets at the same moments.
  const runs = Object.values(fleets).flatMap((fleet) =>
    fleet.map((instance, index) =>
      instance.run({ startAt: startAt + (index * interval) / fleetSize, interval, invocations: duration / interval }),
    ),
  )
  try {
    await Promise.race([Promise.all(runs), late])
    show()
  } finally {
    updates.stop()
    clearTimeout(alarm)
  }
}

/** At whole multiples of the interval on the scenario's clock. */
function every(interval: number, action: () => void): { stop(): void } {
  let n = 0
  const next = (): NodeJS.Timeout => {
    n++
    return setTimeout(step, n * interval - recorder.now)
  }
  const step = (): void => {
    timer = next()
    action()
  }
  let timer = next()
  return { stop: () => clearTimeout(timer) }
}

/** Reads what is stored in the end, and prints the summary. */
async function conclude(effective: ServiceSettings, database: Database, storageKey: string): Promise<number> {
  const recorded = recorder.recording(effective, undefined)
  const recording = { ...recorded, record: await database.read(storageKey) }
  const problems = problemsOf(recording)
  display.print('', ...summaryOf(recording, problems, display.paint))
  return problems.length === 0 ? 0 : 1
}

/** Resolves to the exit code when the user or the system wants the demo to end, or nobody reads its output any more. */
function interruption(): Promise<number> {
  const { promise, resolve } = Promise.withResolvers<number>()
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    const code = 128 + constants.signals[signal]
    process.once(signal, () => {
      display.close()
      process.stderr.write('Interrupted.\n')
      resolve(code)
    })
  }
  process.stdout.on('error', () => resolve(1))
  return promise
}
