/**
 * What must hold in every situation that `interleavings.ts` comes to: the invariants of `docs/evidence/simulation.md`, seen from the store, from the
 * service and from the listeners.
 *
 * @module
 */

import type { CircuitRecord, CircuitState, StateChange, WriteResult } from '../../src/index.ts'
import type { Engine } from './engine.ts'
import type { CallResult, Fleet, Instance, Names, StoreRequest } from './interleavings-fleet.ts'
import { defaults, start } from './interleavings-scenario.ts'

/** A change of state that is stored. */
export interface StoredChange {
  readonly author: Instance
  readonly from: CircuitState
  readonly to: CircuitState
  readonly generation: number
  isTold: boolean
  /** Nobody need tell of it: the record that it was in, or that it began from, was destroyed. */
  isDestroyed: boolean
}

const legalChanges: ReadonlySet<string> = new Set([
  'CLOSED>OPEN',
  'OPEN>HALF_OPEN',
  'HALF_OPEN>CLOSED',
  'HALF_OPEN>OPEN',
])

export class Checks {
  /** The first thing that must not be. */
  violation: string | undefined
  /** All changes of state that were stored. */
  readonly changes: StoredChange[] = []
  /** How often the record was destroyed. */
  destructions = 0
  /** Names what was stored in the past, as far as it matters here. */
  past = 0
  readonly #fleet: Fleet
  readonly #engine: Engine
  readonly #names: Names
  /** Failures that ended, by the generation of the circuit that they were admitted in. */
  readonly #failures: number[] = []
  /** The same of successes. */
  readonly #successes: number[] = []

  constructor(fleet: Fleet, engine: Engine, names: Names) {
    this.#fleet = fleet
    this.#engine = engine
    this.#names = names
  }

  violated(violation: string): void {
    this.violation ??= violation
    this.#fleet.note(`VIOLATION: ${violation}`)
  }

  // -------------------------------------------------------------------------------------------------------- the calls

  /** The service is called. */
  operationStarts(instance: Instance, state: CircuitState): void {
    const { name } = instance
    if (state === 'OPEN') this.violated(`${name} runs an operation although its circuit is OPEN`)
    if (state === 'CLOSED') this.#checkShown(instance)
    if (state !== 'HALF_OPEN') return
    instance.probes++
    // One goes on alone that the store has left without an answer in two claims: it may be the same request.
    const mayBeAlone = this.#fleet.unansweredOf(instance) >= 1
    if (instance.probes > instance.granted && !mayBeAlone)
      this.violated(`${name} runs probe ${instance.probes}, but was granted ${instance.granted} leases`)
  }

  /** What an instance knows is never taken back by a reply that is older. */
  #checkShown(instance: Instance): void {
    const { shown, name } = instance
    // Of a record that is deleted nobody knows what is older; in one turn a reply may be there and not be looked at yet.
    const isVague = shown?.isCertain !== true || this.destructions > 0 || this.#fleet.scenario.sameTurn === true
    if (isVague || this.#fleet.unansweredOf(instance) > 0) return
    if (shown.state === 'OPEN') this.violated(`${name} runs an operation although it was told that the circuit is OPEN`)
  }

  /** A reply is delivered. */
  answered(instance: Instance, { answersBefore, order, reply, operation }: StoreRequest): void {
    // Where no other reply came in between, nothing that the instance knows can be newer.
    const isLatest = answersBefore === instance.answers
    instance.answers++
    if (isLatest)
      instance.shown = { order, state: recordIn(reply)?.state ?? 'CLOSED', isCertain: operation !== 'clearState' }
    else if (order > (instance.shown?.order ?? 0)) instance.shown = { order, state: 'CLOSED', isCertain: false }
  }

  /** Failures that count at most once: those that ended, and those that were stored at the start. */
  failed(generation: number, times: number = 1): void {
    this.#failures[generation] = (this.#failures[generation] ?? 0) + times
  }

  succeeded(generation: number, times: number = 1): void {
    this.#successes[generation] = (this.#successes[generation] ?? 0) + times
  }

  /** Whoever asked the service gets its answer; whoever did not is told that the circuit refused. */
  callEnded({ instance, startedIn, ending, evidence, result }: CallResult): void {
    const { value, error } = result ?? {}
    this.#fleet.note(`${instance.name}'s call comes to ${error === undefined ? 'ok' : String(error)}`)
    if (startedIn !== undefined) {
      if ((ending === '+' ? value : error) !== evidence)
        this.violated(`${instance.name}'s caller got something else than the service's answer`)
    } else if (!this.#engine.isCircuitOpenError(error)) {
      this.violated(`${instance.name} refused a call with ${String(error)}`)
    }
  }

  // -------------------------------------------------------------------------------------------------------- the store

  destroyed(): void {
    this.destructions++
    for (const change of this.changes) change.isDestroyed = true
    this.#remember('destroyed')
  }

  /** A request changed what is stored. */
  written(author: Instance, request: StoreRequest, before: CircuitRecord | undefined, after: CircuitRecord): void {
    this.#checkLeases(author, before, after)
    if (isOperators(request, after)) this.#checkOperators(before, after)
    else this.#checkAutomatic(author, before, after)
    const from = before?.state ?? 'CLOSED'
    const { generation, state: to } = after
    // An override that begins or ends is told of though the state stays the same.
    const isForced = before?.override !== undefined || after.override !== undefined
    if (from === to && !(isForced && generation !== (before?.generation ?? 0))) return
    this.#remember(`${author.name} ${from} ${to} ${generation}`)
    const isDestroyed = request.destructions < this.destructions
    this.changes.push({ author, from, to, generation, isTold: false, isDestroyed })
  }

  #remember(what: string): void {
    this.past = this.#names.of(`${this.past} ${what}`)
  }

  #checkLeases(author: Instance, before: CircuitRecord | undefined, { leases, state }: CircuitRecord): void {
    const { halfOpenMaxConcurrent } = { ...defaults, ...this.#fleet.scenario.settings }
    const live = leases.filter(({ expiresAt }) => expiresAt > this.#fleet.now).length
    if (live > Number(halfOpenMaxConcurrent)) this.violated(`${live} leases are live at once`)
    if (leases.length > 0 && state !== 'HALF_OPEN') this.violated(`leases in ${state}`)
    for (const { id } of leases) {
      if (before?.leases.some((lease) => lease.id === id)) continue
      author.granted++
      this.#remember(`${author.name} granted`)
    }
  }

  #checkOperators(before: CircuitRecord | undefined, after: CircuitRecord): void {
    if (before === undefined) return
    if (after.epoch === before.epoch || after.generation !== before.generation + 1)
      this.violated('an operator changed the circuit, and it is not a new epoch')
  }

  #checkAutomatic(author: Instance, before: CircuitRecord | undefined, after: CircuitRecord): void {
    const past = before ?? this.#engine.emptyRecord(after.epoch, start)
    const isChange = past.state !== after.state
    const { override } = past
    if (override !== undefined && (override.until === undefined || this.#fleet.now < override.until))
      this.violated(`${author.name} wrote over an operator's override`)
    if (isChange && !legalChanges.has(`${past.state}>${after.state}`))
      this.violated(`${author.name} wrote a transition that does not exist: ${past.state} > ${after.state}`)
    if (after.generation !== past.generation + (isChange ? 1 : 0))
      this.violated(`generation ${past.generation} became ${after.generation} from ${past.state} to ${after.state}`)
    if (before !== undefined && isChange === (past.epoch === after.epoch))
      this.violated(`${past.state} became ${after.state}, but epoch ${past.epoch} became ${after.epoch}`)
    if (new Set(after.transitions).size < after.transitions.length) this.violated('a transition is stored twice')
    if (!isChange) this.#checkSameState(author, past, after)
    const isSettled = past.state === 'HALF_OPEN' && (isChange || after.successCount > past.successCount)
    if (isSettled && !past.leases.some(({ id }) => isOf(author, id)))
      this.violated(`${author.name} settled a probe without holding a lease`)
    if (past.state === 'CLOSED') this.#checkCount(past.generation, after)
    if (past.state === 'CLOSED' && after.state === 'CLOSED') this.#checkSample(author, past, after)
  }

  #checkSameState(author: Instance, before: CircuitRecord, after: CircuitRecord): void {
    if (after.state === 'OPEN') this.violated(`${author.name} wrote to an open circuit`)
    if (after.state !== 'CLOSED' && after.successCount < before.successCount)
      this.violated(`${author.name} erased a success`)
    if (after.state === 'HALF_OPEN' && after.failureCount !== before.failureCount)
      this.violated(`${author.name} counted in a half-open circuit`)
    for (const lease of before.leases) {
      const isLeft = after.leases.some(({ id }) => id === lease.id)
      if (!isLeft && lease.expiresAt > this.#fleet.now && !isOf(author, lease.id))
        this.violated(`${author.name} took away the lease ${lease.id}, which is not its own`)
    }
  }

  /** No failure is counted twice, and none of another time. */
  #checkCount(generation: number, { failureCount, earlyCount, successCount, state }: CircuitRecord): void {
    const happened = this.#failures[generation] ?? 0
    const failures = failureCount + earlyCount
    if (failures > happened)
      this.violated(`${failures} failures are counted, but ${happened} happened in generation ${generation}`)
    const succeeded = this.#successes[generation] ?? 0
    if (state === 'CLOSED' && successCount > succeeded)
      this.violated(`${successCount} successes are counted, but ${succeeded} happened in generation ${generation}`)
  }

  /** A suspicion is raised, added to or dismissed; none takes another's place. */
  #checkSample(author: Instance, before: CircuitRecord, after: CircuitRecord): void {
    const isAddition = before.version === after.version
    if (isAddition && before.suspectedAt === undefined) this.violated(`${author.name} added to no suspicion`)
    const hasLost = after.failureCount < before.failureCount || after.successCount < before.successCount
    if (isAddition && hasLost) this.violated(`${author.name} erased outcomes`)
    if (!isAddition && before.suspectedAt !== undefined && after.suspectedAt !== undefined)
      this.violated(`${author.name} raised a suspicion over another`)
    if (after.suspectedAt === undefined && after.failureCount + after.earlyCount + after.successCount > 0)
      this.violated(`${author.name} left a count without a suspicion`)
  }

  // ---------------------------------------------------------------------------------------------------- the listeners

  /** An instance says that it has changed the state. */
  told(instance: Instance, { from, to, generation, reason }: StateChange): void {
    this.#fleet.note(`${instance.name} tells of ${from} > ${to} (${reason})`)
    const isIt = (one: StoredChange): boolean =>
      one.author === instance && one.from === from && one.to === to && one.generation === generation
    const untold = this.changes.filter((one) => isIt(one) && !one.isTold)
    const change = untold.find(({ isDestroyed }) => !isDestroyed) ?? untold[0]
    if (change !== undefined) change.isTold = true
    else if (this.changes.some(isIt)) this.violated(`${instance.name} told of ${from} > ${to} twice`)
    else this.violated(`${instance.name} told of ${from} > ${to}, which it did not store`)
  }

  /** Of every change somebody tells, unless its author died or the record was destroyed. */
  everythingIsTold(): void {
    for (const { author, from, to, generation, isTold, isDestroyed } of this.changes) {
      if (!isTold && !isDestroyed && author.isAlive)
        this.violated(`nobody told of ${from} > ${to} (generation ${generation}) of ${author.name}`)
    }
  }

  /** Nothing is left of what these instances did. */
  nothingIsLeft(living: readonly Instance[]): void {
    const { record, now } = this.#fleet
    for (const { id, expiresAt } of record?.leases ?? []) {
      if (expiresAt > now && living.some((owner) => isOf(owner, id)))
        this.violated(`the lease ${id} is kept, though its owner is idle`)
    }
    for (const { breaker, name } of living)
      if (breaker.needsFlush) this.violated(`${name} keeps something to be stored for ever`)
  }
}

/** The record in whatever reply to a request for one circuit. */
function recordIn(reply: unknown): CircuitRecord | undefined {
  if (reply instanceof Map) return recordIn([...reply.values()][0])
  if (typeof reply === 'object' && reply !== null && 'applied' in reply) return (reply as WriteResult).current
  return reply as CircuitRecord | undefined
}

/** Of an instance that also works, not every write is the operator's. */
function isOperators({ isOperators, operation }: StoreRequest, after: CircuitRecord): boolean {
  if (!isOperators || operation === 'addOutcomes') return false
  const isReset = after.state === 'CLOSED' && after.lastFailureAt === undefined
  return after.override !== undefined || isReset || after.state === 'OPEN'
}

/** Whether an instance drew this token. */
function isOf({ name }: Instance, id: string): boolean {
  return id.startsWith(name)
}
