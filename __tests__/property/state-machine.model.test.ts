/**
 * Drives the state machine and its specification with the same commands and compares all that can be seen after each.
 * Both are driven as the engine drives the machine: several actors, each with its own clock, its own settings and the
 * circuit as it last saw it, over one store that compares and sets; after a conflict they decide again.
 */

import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { isDeepStrictEqual } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import * as stateMachine from '../../src/circuit/state-machine.ts'
import type { CircuitRecord } from '../../src/storage/contract.ts'
import { emptyRecord } from '../../src/storage/record.ts'
import * as specification from './state-machine-specification.ts'
import { type Cause, longestLease, type Settings, tolerance, type Write } from './state-machine-specification.ts'

type StateMachine = typeof stateMachine
type Outcome = 'success' | 'failure' | 'release'

type ForcedState = 'OPEN' | 'CLOSED'

/** All that can be seen of a circuit by one clock and one actor's settings. */
interface Observation {
  readonly state: string
  readonly effective: string
  readonly verdict: string
  readonly failures: number
  readonly failedAt: number | undefined
  readonly leases: Readonly<Record<string, number>>
  readonly liveLeases: readonly string[]
  readonly successes: number
  readonly openedAt: number | undefined
  readonly storedRetryAt: number | undefined
  readonly retryAt: number | undefined
  readonly span: number | undefined
  readonly closedAt: number | undefined
  readonly forced: string | undefined
  readonly override: { readonly state: string; readonly until: number } | undefined
  readonly generation: number
  readonly epoch: string
  readonly transitions: readonly string[]
  readonly version: string
  readonly trips: number
  readonly cause: string | undefined
  readonly writtenAt: number
}

/** What the fleet below needs of a state machine, whatever it calls a circuit. */
interface Side<C> {
  nothingKnown(epoch: string, at: number): C
  observe(circuit: C, now: number, settings: Settings): Observation
  trip(circuit: C, at: number, settings: Settings, write: Write, cause: Cause | undefined): C
  claim(circuit: C, now: number, id: string, expiresAt: number, settings: Settings, write: Write): C
  settle(
    circuit: C,
    id: string,
    outcome: Outcome,
    at: number,
    settings: Settings,
    write: Write,
    cause: Cause,
  ): C | undefined
  force(circuit: C, state: ForcedState, at: number, until: number | undefined, settings: Settings, write: Write): C
  reset(circuit: C, at: number, write: Write): C
}

const modelSide: Side<specification.Circuit> = {
  ...specification,
  claim: (circuit, now, id, expiresAt, settings, write) =>
    specification.claim(circuit, now, id, expiresAt, settings.halfOpenMaxConcurrent, write),
  observe(circuit, now, settings) {
    const { state, changes, opened, forced } = circuit
    const override = specification.override(circuit, now)
    return {
      state,
      effective: specification.effective(circuit, now, settings),
      verdict: specification.verdict(circuit, now, settings),
      failures: circuit.failures.length,
      failedAt: circuit.failedAt,
      leases: circuit.leases,
      liveLeases: Object.keys(specification.liveLeases(circuit, now)),
      successes: circuit.successes.length,
      openedAt: opened?.at,
      storedRetryAt: opened?.retryAt,
      retryAt: specification.retryAt(circuit, settings),
      span: opened?.span,
      closedAt: circuit.closedAt,
      forced: override?.state,
      override: forced,
      generation: changes.length,
      epoch: changes.at(-1) ?? circuit.born,
      transitions: changes.slice(-8),
      version: circuit.write,
      trips: circuit.trips.length,
      cause: circuit.cause,
      writtenAt: circuit.writtenAt,
    }
  },
}

/** The state machine of `src`, or a mutant of it. */
function realSide(machine: StateMachine): Side<CircuitRecord> {
  const failure = ({ name, asked }: Cause, at: number) => ({ name, at, retryAfter: asked })
  return {
    nothingKnown: emptyRecord,
    trip: (record, at, settings, write, cause) =>
      machine.open(record, at, settings, write, cause === undefined ? undefined : failure(cause, at)),
    claim: (record, now, id, expiresAt, settings, write) =>
      machine.claim(record, now, { id, expiresAt }, settings, write),
    settle: (record, id, outcome, at, settings, write, cause) =>
      machine.settle(record, id, outcome, at, settings, write, failure(cause, at)),
    force: (record, state, at, until, settings, write) => machine.force(record, { state, at, until }, settings, write),
    reset: (record, at, write) => machine.reset(record, at, write),
    observe(record, now, settings) {
      const { state, override, openedAt } = record
      return {
        state,
        effective: machine.effectiveState(record, now, settings),
        verdict: machine.admit(record, now, settings),
        failures: record.failureCount,
        failedAt: record.lastFailureAt,
        leases: Object.fromEntries(record.leases.map((lease) => [lease.id, lease.expiresAt])),
        liveLeases: machine.liveLeases(record, now).map((lease) => lease.id),
        successes: record.successCount,
        openedAt,
        storedRetryAt: record.retryAt,
        retryAt: openedAt === undefined ? undefined : machine.retryTime(record, settings),
        span: record.resetTimeout,
        closedAt: record.closedAt,
        forced: machine.activeOverride(record, now)?.state,
        override: override && { state: override.state, until: override.until ?? Number.POSITIVE_INFINITY },
        generation: record.generation,
        epoch: record.epoch,
        transitions: record.transitions,
        version: record.version,
        trips: record.trips,
        cause: record.lastFailure?.name,
        writtenAt: record.updatedAt,
      }
    },
  }
}

const start = 1_800_000_000_000

/** Outcomes are not older than this, in milliseconds. */
const longestAge = 60_000

/** How long services ask to be left alone, in milliseconds. */
const askedFor = [1, 700, 2_500, 40_000, 3_600_000]

/** A call that was let pass and has not come out. */
interface Call {
  readonly actor: number
  readonly epoch: string
  readonly lease: string | undefined
}

interface Actor<C> {
  readonly settings: Settings
  /** How far its clock is ahead of the others' time. */
  offset: number
  /** The circuit as it last saw it. */
  known: C | undefined
}

/** Several instances over one store, as the engine of each behaves. What a method returns is what its caller sees. */
class Fleet<C> {
  readonly side: Side<C>
  readonly actors: readonly Actor<C>[]
  stored: C | undefined
  time = start
  readonly #calls: Call[] = []
  #deletions = 0
  #drawn = 0

  constructor(side: Side<C>, setup: readonly ActorSetup[]) {
    this.side = side
    this.actors = setup.map(({ settings, offset }) => ({ settings, offset, known: undefined }))
  }

  clock(actor: number): number {
    return this.time + this.#actor(actor).offset
  }

  /** What each actor sees in the store, and what it knows of it. */
  observe(): (Observation | undefined)[] {
    return this.actors.flatMap(({ settings, offset, known }) =>
      [this.stored, known].map((circuit) => circuit && this.side.observe(circuit, this.time + offset, settings)),
    )
  }

  /** A call asks for admission, and claims a probe if it has to. */
  call(actor: number, lease: number): string {
    const { settings } = this.#actor(actor)
    const now = this.clock(actor)
    const begins = this.#draw('epoch')
    const id = this.#draw('lease')
    const before = this.stored
    for (let conflicts = 0; ; conflicts++) {
      const circuit = this.#known(actor, now)
      const { verdict, epoch, leases } = this.side.observe(circuit, now, settings)
      if (verdict === 'pass' && conflicts === 0) this.#calls.push({ actor, epoch, lease: undefined })
      if (verdict !== 'claim') {
        if (this.stored !== before) throw new Error('A call that holds no lease changed what is stored')
        return afterConflict(conflicts, verdict)
      }
      const next = this.side.claim(circuit, now, id, now + lease, settings, this.#write(begins))
      if (!this.#compareAndSet(actor, next)) continue
      const claimed = this.side.observe(next, now, settings)
      if (claimed.liveLeases.length > settings.halfOpenMaxConcurrent) throw new Error('Too many leases are live')
      this.#calls.push({ actor, epoch, lease: id })
      const isTakeover = Object.keys(leases).some((other) => !(other in claimed.leases))
      return afterConflict(conflicts, isTakeover ? 'probe takes over' : 'probe')
    }
  }

  /** A call comes out, `age` ago; one that ends twice is taken for another one the second time. */
  end(which: number, outcome: Outcome, age: number, again: boolean): string {
    const call = this.#calls.at(-1 - (which % Math.max(1, this.#calls.length)))
    if (call === undefined) return 'nothing to end'
    if (!again) this.#calls.splice(this.#calls.indexOf(call), 1)
    // The outcomes of others say something of the service, and nothing to the state machine.
    return call.lease === undefined ? 'ignored' : this.settle(call.actor, call.lease, outcome, age)
  }

  /** The verdict on the service of a closed circuit: it opens. */
  verdict(actor: number, age: number): string {
    const { settings } = this.#actor(actor)
    const now = this.clock(actor)
    const at = now - Math.min(age, longestAge)
    const begins = this.#draw('epoch')
    const cause = this.#cause()
    for (let conflicts = 0; ; conflicts++) {
      const circuit = this.#known(actor, at)
      const { state, forced } = this.side.observe(circuit, now, settings)
      if (state !== 'CLOSED' || forced !== undefined) return afterConflict(conflicts, 'not closed')
      const next = this.side.trip(circuit, at, settings, this.#write(begins), cause)
      if (this.#compareAndSet(actor, next)) return afterConflict(conflicts, 'opened')
    }
  }

  settle(actor: number, lease: string, outcome: Outcome, age: number): string {
    const { settings } = this.#actor(actor)
    const at = this.clock(actor) - Math.min(age, longestAge)
    const begins = this.#draw('epoch')
    const cause = this.#cause()
    for (let conflicts = 0; ; conflicts++) {
      const circuit = this.#known(actor, at)
      const isLive = this.side.observe(circuit, at, settings).liveLeases.includes(lease)
      const next = this.side.settle(circuit, lease, outcome, at, settings, this.#write(begins), cause)
      if (next === undefined) return afterConflict(conflicts, 'lease lost')
      if (!this.#compareAndSet(actor, next)) continue
      return afterConflict(conflicts, isLive ? 'settled' : 'settled though expired')
    }
  }

  force(actor: number, state: ForcedState, duration: number | undefined): string {
    const now = this.clock(actor)
    const until = duration === undefined ? undefined : now + duration
    return this.#operate(actor, (circuit, write) =>
      this.side.force(circuit, state, now, until, this.#actor(actor).settings, write),
    )
  }

  reset(actor: number): string {
    return this.#operate(actor, (circuit, write) => this.side.reset(circuit, this.clock(actor), write))
  }

  /** Opens the circuit as `batchSetState` does: it recovers by itself. */
  open(actor: number): string {
    return this.#operate(actor, (circuit, write) =>
      this.side.trip(circuit, this.clock(actor), this.#actor(actor).settings, write, undefined),
    )
  }

  #operate(actor: number, decide: (circuit: C, write: Write) => C): string {
    const begins = this.#draw('epoch')
    for (let conflicts = 0; ; conflicts++) {
      const next = decide(this.#known(actor, this.clock(actor)), this.#write(begins))
      if (this.#compareAndSet(actor, next)) return afterConflict(conflicts, 'operated')
    }
  }

  read(actor: number): string {
    this.#actor(actor).known = this.stored
    return 'read'
  }

  /** The store forgets: a time to live, a flush, a failover. */
  forget(): string {
    this.stored = undefined
    this.#deletions++
    return 'forgotten'
  }

  /** Everything that an actor may wait for, with the time that it takes by itself. */
  instants(actor: number): [instant: number, span: number][] {
    const { settings } = this.#actor(actor)
    const seen = this.stored && this.side.observe(this.stored, this.clock(actor), settings)
    if (seen === undefined) return []
    const { retryAt, span = 0, override } = seen
    const instants: [number, number][] = []
    if (retryAt !== undefined) instants.push([retryAt, Math.min(span, settings.maxResetTimeout)])
    if (override !== undefined && Number.isFinite(override.until)) instants.push([override.until, 0])
    for (const expiresAt of Object.values(seen.leases)) instants.push([expiresAt, longestLease])
    return instants
  }

  wait(duration: number): string {
    this.time += duration
    return 'waited'
  }

  /** Waits until an actor's clock shows what is to come, one of its instants or next to it. */
  waitFor(actor: number, which: number, next: number): string {
    const instants = this.instants(actor)
    const [instant] = instants[which % Math.max(1, instants.length)] ?? [0]
    const ahead = instant + next - this.clock(actor)
    if (ahead > 0) this.time += ahead
    return ahead > 0 ? 'waited' : 'over'
  }

  step(actor: number, by: number): string {
    this.#actor(actor).offset += by
    return 'stepped'
  }

  /** Steps a clock back to where an instant is so far ahead that it is doubted, or almost so far. */
  stepToDoubt(actor: number, which: number, next: number): string {
    const instants = this.instants(actor)
    const found = instants[which % Math.max(1, instants.length)]
    if (found === undefined) return 'nothing to doubt'
    const [instant, span] = found
    this.#actor(actor).offset += instant - span - tolerance + next - this.clock(actor)
    return 'stepped'
  }

  #actor(index: number): Actor<C> {
    const actor = this.actors[index]
    if (actor === undefined) throw new RangeError(`There is no actor ${index}`)
    return actor
  }

  #known(actor: number, at: number): C {
    const unknown = () => this.side.nothingKnown(`epoch after ${this.#deletions} deletions`, at)
    return this.#actor(actor).known ?? deepFreeze(unknown())
  }

  #seen(circuit: C): Observation {
    return this.side.observe(circuit, this.time, this.#actor(0).settings)
  }

  /** Whether what is stored is what the actor knows. */
  #isCurrent({ known }: Actor<C>): boolean {
    return (known && this.#seen(known))?.version === (this.stored && this.#seen(this.stored))?.version
  }

  /** Replaces what is stored unless others did so since; either way the actor knows it afterwards. */
  #compareAndSet(actor: number, next: C): boolean {
    const author = this.#actor(actor)
    const isApplied = this.#isCurrent(author)
    if (this.#seen(next).version !== `version ${this.#drawn}`) throw new Error('The write has no new version')
    if (isApplied) this.stored = deepFreeze(next)
    author.known = this.stored
    return isApplied
  }

  /** One failure in three says when it may be asked again: sooner than it would be, later, or later than is allowed. */
  #cause(): Cause {
    const name = this.#draw('failure')
    return { name, asked: this.#drawn % 3 === 0 ? askedFor[this.#drawn % askedFor.length] : undefined }
  }

  #draw(what: string): string {
    return `${what} ${++this.#drawn}`
  }

  #write(epoch: string): Write {
    return { epoch, version: this.#draw('version') }
  }
}

const afterConflict = (conflicts: number, what: string): string => (conflicts > 0 ? `conflict, then ${what}` : what)

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value)
    for (const part of Object.values(value)) deepFreeze(part)
  }
  return value
}

// -------------------------------------------------------------------------------------------------------- commands

interface ActorSetup {
  readonly settings: Settings
  readonly offset: number
}

type Command = fc.Command<Fleet<specification.Circuit>, Fleet<CircuitRecord>>

/** What callers saw. */
type Sightings = Set<string>

const actors = 3

function commandsFor(withClockSteps: boolean, sightings: Sightings) {
  const command = (text: string, run: <C>(fleet: Fleet<C>) => string): Command => ({
    check: () => true,
    toString: () => text,
    run(model, real) {
      const expected = { seen: run(model), observed: model.observe() }
      const actual = { seen: run(real), observed: real.observe() }
      // `expect` takes long, and only tells the difference better.
      if (!isDeepStrictEqual(actual, expected)) expect(actual).toEqual(expected)
      sightings.add(expected.seen).add(expected.seen.replace('conflict, then ', ''))
    },
  })

  const actor = fc.nat(actors - 1)
  const outcome = fc.constantFrom<Outcome>('success', 'success', 'failure', 'failure', 'release')
  const age = fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, fc.nat(2_000), fc.nat(120_000))
  const lease = fc.oneof(fc.integer({ min: 1, max: 3_000 }), fc.constantFrom(30_000, longestLease))
  const duration = fc.oneof(fc.nat(3), fc.nat(3_000), fc.nat(120_000))
  const next = fc.constantFrom(-1, 0, 1)
  const rarely = fc.nat(5).map((drawn) => drawn === 0)

  const call = fc
    .tuple(actor, lease)
    .map(([by, lasts]) => command(`call(${by}, ${lasts})`, (fleet) => fleet.call(by, lasts)))
  const end = fc
    .tuple(fc.nat(5), outcome, age, rarely)
    .map(([which, as, ago, again]) =>
      command(`end(${which}, ${as}, ${ago}, ${again})`, (fleet) => fleet.end(which, as, ago, again)),
    )
  const verdict = fc
    .tuple(actor, age)
    .map(([by, ago]) => command(`verdict(${by}, ${ago})`, (fleet) => fleet.verdict(by, ago)))
  const stranger = fc
    .tuple(actor, outcome)
    .map(([by, as]) => command(`stranger(${by}, ${as})`, (fleet) => fleet.settle(by, 'lease of nobody', as, 0)))
  const read = actor.map((by) => command(`read(${by})`, (fleet) => fleet.read(by)))
  const force = fc
    .tuple(actor, fc.constantFrom<ForcedState>('OPEN', 'CLOSED'), fc.option(duration, { nil: undefined }))
    .map(([by, state, lasts]) => command(`force(${by}, ${state}, ${lasts})`, (fleet) => fleet.force(by, state, lasts)))
  const reset = actor.map((by) => command(`reset(${by})`, (fleet) => fleet.reset(by)))
  const open = actor.map((by) => command(`open(${by})`, (fleet) => fleet.open(by)))
  const forget = fc.constant(0).map(() => command('forget()', (fleet) => fleet.forget()))
  const wait = duration.map((lasts) => command(`wait(${lasts})`, (fleet) => fleet.wait(lasts)))
  const waitFor = fc
    .tuple(actor, fc.nat(6), next)
    .map(([by, which, off]) => command(`waitFor(${by}, ${which}, ${off})`, (fleet) => fleet.waitFor(by, which, off)))
  const step = fc
    .tuple(actor, fc.constantFrom(-3_600_000, -30_000, -1_000, -1, 30_000, 3_600_000))
    .map(([by, far]) => command(`step(${by}, ${far})`, (fleet) => fleet.step(by, far)))
  const stepToDoubt = fc
    .tuple(actor, fc.nat(6), next)
    .map(([by, which, off]) =>
      command(`stepToDoubt(${by}, ${which}, ${off})`, (fleet) => fleet.stepToDoubt(by, which, off)),
    )

  const commands = fc.oneof(
    { weight: 24, arbitrary: call },
    { weight: 16, arbitrary: end },
    { weight: 14, arbitrary: verdict },
    { weight: 14, arbitrary: waitFor },
    { weight: 10, arbitrary: read },
    { weight: 4, arbitrary: wait },
    { weight: 1, arbitrary: stranger },
    { weight: 2, arbitrary: force },
    { weight: 1, arbitrary: reset },
    { weight: 1, arbitrary: open },
    { weight: 1, arbitrary: forget },
    { weight: withClockSteps ? 2 : 0, arbitrary: step },
    { weight: withClockSteps ? 5 : 0, arbitrary: stepToDoubt },
  )
  // Not `fc.commands`: an array of the same commands shrinks to a handful of them, that to dozens.
  return fc.array(commands, { maxLength: 100, size: 'max' })
}

// ------------------------------------------------------------------------------------------------------ properties

const settingsArbitrary: fc.Arbitrary<Settings> = fc.record({
  resetTimeout: fc.oneof(fc.integer({ min: 1, max: 2_000 }), fc.integer({ min: 1, max: 90_000 })),
  halfOpenSuccessThreshold: fc.integer({ min: 1, max: 3 }),
  halfOpenMaxConcurrent: fc.integer({ min: 1, max: 3 }),
  maxResetTimeout: fc.oneof(fc.constant(300_000), fc.integer({ min: 1, max: 3_000 })),
  resetBackoff: fc.constantFrom(1, 1.5, 2, 10),
})

interface Clocks {
  /** How far the clocks may be off. */
  readonly offset: number
  readonly stepping: boolean
}

const clocks: Readonly<Record<string, Clocks>> = {
  'one clock': { offset: 0, stepping: false },
  'clocks that are up to ±30 s off': { offset: 30_000, stepping: false },
  'clocks that step back': { offset: 30_000, stepping: true },
}

const runs = 600

/** The property that is checked, of the state machine or of a mutant. */
function behavesAsSpecified(machine: StateMachine, { offset, stepping }: Clocks, sightings: Sightings = new Set()) {
  const offsets = fc.array(fc.integer({ min: -offset, max: offset }), { minLength: actors, maxLength: actors })
  // Functions may be tuned differently; usually they are not.
  const tuning = fc.oneof(
    settingsArbitrary.map((settings) => Array<Settings>(actors).fill(settings)),
    fc.array(settingsArbitrary, { minLength: actors, maxLength: actors }),
  )
  const setup = fc
    .tuple(offsets, tuning)
    .map(([ahead, tuned]) => tuned.map((settings, index) => ({ settings, offset: ahead[index] ?? 0 })))
  return fc.property(setup, commandsFor(stepping, sightings), (of, commands) => {
    fc.modelRun(() => ({ model: new Fleet(modelSide, of), real: new Fleet(realSide(machine), of) }), commands)
  })
}

/** What the commands are to reach, so that nothing of it goes without a test. */
const reached = [
  ...['pass', 'forced', 'open', 'probing', 'probe', 'probe takes over'],
  ...['settled', 'settled though expired', 'lease lost', 'ignored'],
  ...['opened', 'not closed', 'operated', 'forgotten'],
  ...['conflict, then probe', 'conflict, then probing', 'conflict, then settled', 'conflict, then lease lost'],
  ...['conflict, then opened', 'conflict, then not closed', 'conflict, then operated'],
]

describe('the state machine', () => {
  it.each(Object.entries(clocks))('does what its specification says under any commands, with %s', (_name, variant) => {
    const sightings: Sightings = new Set()

    fc.assert(behavesAsSpecified(stateMachine, variant, sightings), { numRuns: runs })

    expect([...sightings]).toEqual(expect.arrayContaining(reached))
  })
})

// --------------------------------------------------------------------------------------------------------- mutants

/** Each with the code that it is made in (found exactly once) and what it makes of that. */
const mistakes: readonly (readonly [mistake: string, code: string, mutated: string])[] = [
  ['lets calls pass though forced open', "=== 'OPEN' ? 'forced' : 'pass'", "=== 'OPEN' ? 'pass' : 'pass'"],
  ['keeps an override at its end', 'now >= override.until', 'now > override.until'],
  ['keeps an override for ever', 'now >= override.until', 'false'],
  ['probes before it is time', "isRetryDue(record, now, settings) ? 'claim'", "true ? 'claim'"],
  ['probes 1 ms late', 'ahead <= 0 ||', 'ahead < 0 ||'],
  ['never doubts when to probe', ' || ahead > longest + clockTolerance', ''],
  ['doubts 1 ms early when to probe', 'ahead > longest + clockTolerance', 'ahead >= longest + clockTolerance'],
  ['forgets how long it was to stay open', 'Math.min(record.resetTimeout ?? ', 'Math.max(record.resetTimeout ?? '],
  ['stays open for longer than allowed', 'Math.min(retryAt, openedAt + settings.maxResetTimeout)', 'retryAt'],
  ['reads OPEN when it may be probed', "isRetryDue(record, now, settings) ? 'HALF_OPEN'", "false ? 'HALF_OPEN'"],
  [
    'admits one probe too many',
    '.length < settings.halfOpenMaxConcurrent ?',
    '.length <= settings.halfOpenMaxConcurrent ?',
  ],
  ['counts expired leases as live', 'ahead > 0 && ahead <= maxLease', 'ahead <= maxLease'],
  ['never doubts a lease', 'ahead > 0 && ahead <= maxLease + clockTolerance', 'ahead > 0'],
  ['keeps an override that is over', 'override: undefined, updatedAt: now }', 'updatedAt: now }'],
  ['counts no trip', 'trips: Math.min(record.trips + 1,', 'trips: Math.min(record.trips,'],
  ['opens for no time', 'retryAt: now + resetTimeout', 'retryAt: now'],
  ['does not hear when it may ask again', 'failure?.retryAfter ?? 0', '0'],
  [
    'stays open for as long as it was asked to',
    'Math.min(failure?.retryAfter ?? 0, maxResetTimeout)',
    'failure?.retryAfter ?? 0',
  ],
  [
    'opens for less time because it was asked to',
    'return Math.max(resetBackoff',
    'return asked || Math.max(resetBackoff',
  ],
  ['never backs off', 'resetBackoff ** trips', 'resetBackoff ** 0'],
  ['backs off from the first trip', 'resetBackoff ** trips', 'resetBackoff ** (trips + 1)'],
  ['retries in step', 'trips === 0 ? 1 : jitter(epoch)', '1'],
  ['jitters the first trip', 'trips === 0 ? 1 : jitter(epoch)', 'jitter(epoch)'],
  ['jitters though it does not back off', 'resetBackoff === 1 ? resetTimeout :', 'false ? resetTimeout :'],
  ['backs off for longer than allowed', 'Math.min(longer, Math.max(resetTimeout, maxResetTimeout))', 'longer'],
  ['cuts a long reset timeout', 'Math.max(resetTimeout, maxResetTimeout)', 'maxResetTimeout'],
  ['forgets when it was closed', 'closedAt: now }', 'closedAt: undefined }'],
  ['remembers the close before', '    closedAt: undefined,\n    retryAt: now', '    retryAt: now'],
  [
    'does not tell how long it was asked to stay open',
    '    resetTimeout,\n    trips',
    '    resetTimeout: settings.resetTimeout,\n    trips',
  ],
  ['loses the cause of the trip', 'lastFailure ?? record.lastFailure', 'lastFailure'],
  ['drops expired leases where there is room', 'hasRoom ? record.leases', 'false ? record.leases'],
  ['takes nothing over', 'hasRoom ? record.leases : liveLeases(record, now)', 'record.leases'],
  ['claims without a new state', "changeState(record, 'HALF_OPEN', now, tokens), leases", 'record, leases'],
  ['settles without a lease', 'if (leases.length === record.leases.length) return undefined', ''],
  [
    'keeps the lease of a probe that is over',
    '{ ...record, version: tokens.version, leases, ',
    '{ ...record, version: tokens.version, ',
  ],
  ['takes a release for a success', "(outcome === 'success' ? 1 : 0)", '1'],
  ['closes one success late', 'successCount >= settings', 'successCount > settings'],
  [
    'does not count the failure of a probe',
    'failureCount: Math.min(record.failureCount + 1, largestCount), lastFailureAt: now',
    'lastFailureAt: now',
  ],
  ['closes with old failures', '    failureCount: 0,\n    reporterCount: 0,', '    reporterCount: 0,'],
  ['stays open beyond the end of an override', 'until ?? at + settings.resetTimeout', 'at + settings.resetTimeout'],
  ['resets without forgetting its trips', '    trips: 0,\n', ''],
  ['goes on in the same epoch', '    epoch: tokens.epoch,\n', ''],
  ['writes the version that it has read', '{ ...record, version, override', '{ ...record, override'],
  ['goes on in the same generation', 'record.generation + 1', 'record.generation'],
  ['keeps successes from before', ' successCount: 0,', ''],
  ['keeps leases from before', '    leases: [],\n', ''],
  ['keeps every transition', '.slice(-keptTransitions)', ''],
]

describe('the model test', () => {
  let source: string
  let folder: string
  beforeAll(async () => {
    source = await readFile(new URL('../../src/circuit/state-machine.ts', import.meta.url), 'utf8')
    folder = await mkdtemp(join(tmpdir(), 'circuit-mutants-'))
  })
  afterAll(() => rm(folder, { recursive: true }))

  /** Whether it notices that the state machine was changed; always by the same runs, by default as many as above. */
  async function notices(name: string, changed: string, numRuns = runs): Promise<boolean> {
    // What the file imports are types, of which nothing is left when it runs.
    const file = join(folder, `${name.replaceAll(' ', '-')}.ts`)
    await writeFile(file, changed)
    const machine = (await import(pathToFileURL(file).href)) as StateMachine
    const parameters = { numRuns, seed: 1, endOnFailure: true }
    return Object.values(clocks)
      .reverse()
      .some((variant) => fc.check(behavesAsSpecified(machine, variant), parameters).failed)
  }

  it.each(mistakes)('notices a state machine that %s', async (mistake, code, mutated) => {
    expect(source.split(code)).toHaveLength(2)
    const isNoticed = await notices(mistake, source.split(code).join(mutated))

    expect(isNoticed).toBe(true)
  })

  it('notices nothing in a copy without a mistake', async () => {
    const isNoticed = await notices('copy', source, 50)

    expect(isNoticed).toBe(false)
  })
})
