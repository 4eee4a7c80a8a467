/**
 * The demo, `npm run demo`: an outage of a service, and how it is met by instances without a breaker, by as many with a
 * circuit each, and by as many that share one circuit through DynamoDB. A page shows the run as `mcb serve` does.
 *
 * Settings can be tried out through the package's own variables: `CIRCUIT_BREAKER_FAILURE_THRESHOLD=1 npm run demo`.
 * `npm run demo -- --picture FILE` also writes the run as an SVG, for the README.
 * It exits with 1 if the shared circuit did not do what it is for.
 *
 * @module
 */

import { writeFile } from 'node:fs/promises'
import { constants } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { interval as pageInterval } from '../../src/cli/board.ts'
import type { Place } from '../../src/cli/place.ts'
import { servePage } from '../../src/cli/serve.ts'
import type { Finding, ServiceSettings } from '../../src/index.ts'
import { systemRuntime } from '../../src/runtime.ts'
import { resolveConfig, storedKey } from '../../src/settings/resolve.ts'
import * as warningTexts from '../../src/warning-texts.ts'
import { comparisonOf } from './comparison.ts'
import { type Database, startDatabase } from './database.ts'
import { displayOn, eventLine } from './display.ts'
import { Host } from './fleet.ts'
import type { Message } from './messages.ts'
import { startPaymentService } from './payment-service.ts'
import { pictureOf } from './picture.ts'
import { Recorder } from './recorder.ts'
import type { Fleet } from './recording.ts'
import { durationOf, fleetSize, interval, outageOf, phases, service, settings } from './scenario.ts'
import { summaryOf } from './summary.ts'
import { problemsOf } from './verdict.ts'

/** How late the last invocation may end, in milliseconds. */
const longestDelay = 10_000
/** Processes that share the instances of a fleet among them. */
const hostsPerFleet = 2

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
  await showPage(database, config.namespace)
  const PAYMENTS_URL = payments.url
  const hosts = [
    ...startFleet('none', { PAYMENTS_URL }),
    ...startFleet('alone', { CIRCUIT_BREAKER_STORAGE: 'memory', PAYMENTS_URL }),
    ...startFleet('shared', { ...database.env, PAYMENTS_URL }),
  ]
  await warm(hosts)
  await play(hosts)
  display.close()
  // A page that is open gets the end of the run.
  await sleep(pageInterval)
  return conclude(effective, database, storedKey(config.namespace, service))
}

function introduce({ failureThreshold, resetTimeout, cacheTtl, timeout, mode }: ServiceSettings): void {
  const { from, to } = outageOf(phases)
  display.print(
    display.paint(
      'bold',
      `A payment service fails for ${(to - from) / 1_000} s: it answers 503, resets connections, hangs.`,
    ),
    `It is called by ${fleetSize} instances without a breaker, ${fleetSize} with a circuit each, and ${fleetSize} that share one through DynamoDB,`,
    `in ${3 * hostsPerFleet} processes, each instance ${1_000 / interval} times a second for ${durationOf(phases) / 1_000} s. Scaled-down settings:`,
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

/** Serves the page of `mcb serve`, with the three fleets above it. */
async function showPage({ storage }: Database, namespace: string | undefined): Promise<void> {
  const place: Place = { storage, config: { type: 'dynamodb' }, name: 'the demo', namespace, env: {}, functions: [] }
  const page = await servePage(place, {
    port: 0,
    allowWrites: false,
    clock: systemRuntime,
    span: 30_000,
    comparison: () => comparisonOf(recorder),
  })
  closers.push(() => page.close())
  display.print(display.paint('bold', `Watch it live in a browser: ${page.address}`), '')
}

function startFleet(fleet: Fleet, env: Readonly<Record<string, string>>): Host[] {
  const numbers = Array.from({ length: fleetSize }, (_, index) => index + 1)
  const share = fleetSize / hostsPerFleet
  const hosts = Array.from({ length: hostsPerFleet }, (_, i) => {
    return new Host(fleet, numbers.slice(i * share, (i + 1) * share), env, onMessage)
  })
  closers.push(() => Promise.all(hosts.map((host) => host.stop())))
  return hosts
}

function onMessage(fleet: Fleet, message: Message): void {
  const transition = recorder.message(fleet, message)
  // The others' transitions are many times as many; the summary counts them.
  if (transition?.fleet === 'shared') display.print(eventLine(transition, display.paint))
}

/** One after the other: processes that start together compete for the processor, and time out. */
async function warm(hosts: readonly Host[]): Promise<void> {
  await Promise.all(hosts.map((host) => host.loaded()))
  for (const host of hosts) await host.warm()
}

/** Runs the scenario; resolves when the last invocation has ended. */
async function play(hosts: readonly Host[]): Promise<void> {
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
  const runs = hosts.map((host) => host.run({ startAt, interval, invocations: duration / interval }))
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
  const { picture } = parseArgs({ options: { picture: { type: 'string' } } }).values
  if (picture !== undefined) await writeFile(picture, pictureOf(recording))
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
