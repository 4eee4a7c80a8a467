import { clockTolerance } from '../../src/circuit/state-machine.ts'
import type { StateChange } from '../../src/index.ts'
import type { ServiceSettings } from '../../src/settings/table.ts'
import type { CircuitRecord } from '../../src/storage/contract.ts'
import type { Engine } from './engine.ts'
import type { Instance } from './instance.ts'
import type { CallRecord, Observer, StoreRequest } from './observer.ts'
import { show } from './store.ts'
import type { World } from './world.ts'

/** DESIGN, section 8, by number. */
export const invariants = {
  1: 'at most halfOpenMaxConcurrent unexpired leases, fleet-wide',
  2: 'a prober that dies or hangs never wedges recovery',
  3: 'an outcome from another epoch or of a lost lease changes nothing',
  4: 'one event per transition; none only if its author died or the record was destroyed',
  5: 'what is ignored, cancelled or refused counts for nothing; permits and leases come back once',
  6: 'a complete count trips, whoever completed it',
  7: 'OPEN never runs the operation, and a refusal changes nothing',
  8: 'no clock and no freeze wedges, un-trips or hurries anything',
  9: 'the store is never the outage, and a lone trip never opens a healthy fleet',
  10: 'the healthy path writes nothing and reads once per cacheTtl',
  11: 'an override is never lost, beats everything automatic and arrives within cacheTtl',
  12: 'a close empties the counters, and a success counted is never erased',
} as const

export type InvariantNumber = keyof typeof invariants

export interface Violation {
  readonly invariant: InvariantNumber
  readonly message: string
  /** Milliseconds since the start of the run. */
  readonly at: number
}

/** What the checker may take for granted in a run. */
export interface Assumptions {
  readonly settings: Pick<
    ServiceSettings,
    | 'failureThreshold'
    | 'resetTimeout'
    | 'halfOpenMaxConcurrent'
    | 'cacheTtl'
    | 'window'
    | 'maxConcurrent'
    | 'deadlineReserve'
  >
  readonly storageTimeout: number
  /** All clocks show the same. */
  readonly clocksAgree: boolean
  /** No clock is set while it runs. */
  readonly clocksRun: boolean
  /** Every request to the store arrives and is answered, soon. */
  readonly storeIsSound: boolean
  /** The service never fails anyone who can reach the store, so nothing opens the circuit. */
  readonly mustStayClosed: boolean
}

/** A transition that is stored. */
interface Transition {
  readonly author: Instance
  readonly from: CircuitRecord['state']
  readonly to: CircuitRecord['state']
  readonly generation: number
  readonly id: string
  readonly isOperators: boolean
  isTold: boolean
  /** No event is owed: its author died or the record was destroyed, or its id has left the record. */
  isExcused: boolean
  /** Its author was shown a record that holds its id. */
  isShown: boolean
  later: number
}

/** Outcomes of an instance's calls, by the epoch that they were admitted in, that were not yet counted. */
interface Ledger {
  readonly failures: Map<string, number>
  readonly successes: Map<string, number>
}

const legal: ReadonlySet<string> = new Set(['CLOSED>OPEN', 'OPEN>HALF_OPEN', 'HALF_OPEN>CLOSED', 'HALF_OPEN>OPEN'])

/** Watches a run, and notes the first thing that must not be. */
export class Checker implements Observer {
  violation: Violation | undefined
  /** Changes of state that were stored. */
  transitions = 0
  /** How often each invariant was checked on something that could have broken it. */
  readonly checks: Record<InvariantNumber, number>
  readonly #world: World
  readonly #engine: Engine
  readonly #assumed: Assumptions
  readonly #ledgers = new Map<Instance, Ledger>()
  readonly #storedEpochs = new Set<string>()
  /** The writes of each instance that were not answered. */
  readonly #open = new Map<Instance, Set<StoreRequest>>()
  /** What was counted by an instance of which a write was not answered: it may be one that was sent twice. */
  readonly #unanswered = new Map<
    StoreRequest,
    { readonly instance: Instance; readonly kind: keyof Ledger; readonly amount: number }
  >()
  readonly #transitions: Transition[] = []
  readonly #owners = new Map<string, Instance>()
  readonly #readAt = new Map<Instance, number>()
  /** The event in which an instance was last answered. */
  readonly #newsIn = new Map<Instance, number>()
  /** When an instance was last answered anything but a regular read. */
  readonly #answeredAt = new Map<Instance, number>()
  /** The version of a record whose count was complete, as an instance was shown it. */
  readonly #shownComplete = new Map<Instance, { readonly version: string | undefined; readonly at: number }>()
  #openSince: number | undefined
  #forcedOpenSince: number | undefined
  #hasFailed = false

  constructor(world: World, engine: Engine, assumed: Assumptions) {
    this.#world = world
    this.#engine = engine
    this.#assumed = assumed
    this.checks = Object.fromEntries(Object.keys(invariants).map((number) => [number, 0])) as typeof this.checks
  }

  /** Notes a violation unless `holds`. */
  check(invariant: InvariantNumber, holds: boolean, message: () => string): void {
    this.checks[invariant]++
    if (holds || this.violation !== undefined) return
    this.violation = { invariant, message: message(), at: this.#world.elapsed }
    this.#world.trace?.(this.#world.now, `VIOLATION of ${invariant}`, this.violation.message)
    this.#world.stop()
  }

  // ------------------------------------------------------------------------------------------------------ the store

  written(
    before: CircuitRecord | undefined,
    after: CircuitRecord | undefined,
    request: StoreRequest | undefined,
  ): void {
    if (after === undefined) {
      // What was counted goes with the record. Who has not heard that it was may count it again.
      for (const { instance, kind, amount } of this.#unanswered.values()) this.#add(kind, amount, instance, unstored)
      this.#unanswered.clear()
      for (const transition of this.#transitions) transition.isExcused = true
      this.#noteState(undefined)
      return
    }
    if (request === undefined) return
    const { instance } = request
    if (request.isOperators) this.#hasFailed = true
    this.#checkLeases(before, after, request)
    this.#checkState(before, after, request)
    this.#checkOverride(before, after, request)
    if (!request.isOperators) {
      this.#checkCounts(before, after, request)
      this.#checkCompletion(before, after, request)
      this.#checkNeed(before, after, instance)
    }
    this.#storedEpochs.add(after.epoch)
    this.#noteState(after)
    if (before?.state !== after.state && (before !== undefined || after.state !== 'CLOSED')) {
      this.transitions++
      for (const transition of this.#transitions) transition.later++
      this.#transitions.push({
        author: instance,
        from: before?.state ?? 'CLOSED',
        to: after.state,
        generation: after.generation,
        id: after.transitions.at(-1) ?? '',
        isOperators: request.isOperators,
        isTold: false,
        isExcused: !instance.isAlive,
        isShown: false,
        later: 0,
      })
    }
  }

  #noteState(record: CircuitRecord | undefined): void {
    const { now } = this.#world
    const isForcedOpen = record?.override?.state === 'OPEN'
    if (record?.state !== 'OPEN') this.#openSince = undefined
    else this.#openSince ??= now
    this.#forcedOpenSince = isForcedOpen ? (this.#forcedOpenSince ?? now) : undefined
  }

  #checkLeases(before: CircuitRecord | undefined, after: CircuitRecord, { instance, isOperators }: StoreRequest): void {
    const { halfOpenMaxConcurrent } = this.#assumed.settings
    const known = new Set(before?.leases.map(({ id }) => id))
    const added = after.leases.filter(({ id }) => !known.has(id))
    for (const { id } of added) this.#owners.set(id, instance)
    if (after.leases.length > 0) {
      const clock = instance.now()
      const live = after.leases.filter(({ expiresAt }) => expiresAt > clock)
      this.check(1, added.length === 0 || live.length <= halfOpenMaxConcurrent, () => {
        return `${instance.name} claimed one more: ${live.length} leases are live by its clock, ${show(after)}`
      })
      const running = after.leases.filter(({ expiresAt }) => expiresAt > this.#world.now)
      this.check(1, !this.#assumed.clocksAgree || running.length <= halfOpenMaxConcurrent, () => {
        return `${running.length} leases are live: ${show(after)}`
      })
      this.check(1, after.state === 'HALF_OPEN', () => `leases in a circuit that is not half-open: ${show(after)}`)
    }
    if (added.length > 0 && before?.state === 'OPEN' && !isOperators) this.#checkClaimTime(before, instance)
  }

  /** An open circuit is not claimed before its time, by the clock of whoever claims it. */
  #checkClaimTime(before: CircuitRecord, instance: Instance): void {
    if (!this.#assumed.clocksRun) return
    const { resetTimeout } = this.#assumed.settings
    const ahead = (before.retryAt ?? 0) - instance.now()
    this.check(
      this.#assumed.clocksAgree ? 7 : 8,
      ahead <= 0 || ahead > (before.resetTimeout ?? resetTimeout) + clockTolerance - 1_000,
      () => `${instance.name} claimed the probe ${ahead} ms before retryAt of ${show(before)}`,
    )
  }

  #checkState(before: CircuitRecord | undefined, after: CircuitRecord, request: StoreRequest): void {
    const { instance, isOperators } = request
    const from = before?.state ?? 'CLOSED'
    const isChange = from !== after.state
    if (!isOperators) {
      this.check(8, !isChange || legal.has(`${from}>${after.state}`), () => {
        return `${instance.name} wrote a transition that does not exist: ${from} > ${after.state}`
      })
      this.check(9, !this.#assumed.mustStayClosed || after.state === 'CLOSED', () => {
        return `${instance.name}, cut off and alone with its failures, opened the circuit of a healthy fleet: ${show(after)}`
      })
      if (from === 'OPEN' && !isChange) {
        this.check(7, before?.retryAt === after.retryAt && before?.failureCount === after.failureCount, () => {
          return `${instance.name} wrote to an open circuit: ${show(before)} became ${show(after)}`
        })
      }
    }
    if (before !== undefined) {
      const isNew = before.epoch !== after.epoch
      this.check(3, !isChange || (isNew && after.generation === before.generation + 1), () => {
        return `a change of state without a new epoch or generation: ${show(before)} became ${show(after)}`
      })
      this.check(3, isChange || isOperators || !isNew, () => `a new epoch without a change of state: ${show(after)}`)
    }
    if (isChange && after.state === 'CLOSED') {
      const isEmpty = after.failureCount === 0 && after.successCount === 0 && after.leases.length === 0
      this.check(12, isEmpty, () => `closed, and not empty: ${show(after)}`)
    }
    if (!isChange && after.state === 'HALF_OPEN' && before?.epoch === after.epoch) {
      this.check(12, after.successCount >= before.successCount, () => {
        return `${instance.name} erased a success: ${show(before)} became ${show(after)}`
      })
    }
  }

  #checkOverride(before: CircuitRecord | undefined, after: CircuitRecord, request: StoreRequest): void {
    const { instance, isOperators } = request
    const override = before?.override
    if (override === undefined || isOperators) return
    const isOver = override.until !== undefined && instance.now() >= override.until
    const hasPassed = isOver || (override.until !== undefined && !this.#assumed.clocksAgree)
    this.check(11, hasPassed, () => `${instance.name} wrote over an override: ${show(before)} became ${show(after)}`)
  }

  /** Every failure and every success that is counted is one that this instance saw, in this epoch, and only once. */
  #checkCounts(before: CircuitRecord | undefined, after: CircuitRecord, request: StoreRequest): void {
    const { instance } = request
    const count = (record: CircuitRecord | undefined): number => record?.failureCount ?? 0
    const epoch = before?.epoch ?? after.epoch
    if (after.state === 'CLOSED' && (before === undefined || before.state === 'CLOSED')) {
      const isReplaced = before?.version !== after.version
      this.#consume('failures', isReplaced ? count(after) : count(after) - count(before), request, epoch)
    } else if (after.state === 'OPEN' && (before === undefined || before.state === 'CLOSED')) {
      this.#consume('failures', Math.max(0, count(after) - count(before)), request, epoch)
    } else if (before?.state === 'HALF_OPEN' && after.state === 'OPEN') {
      this.#checkSettlement(before, after, instance)
      this.#consume('failures', 1, request, epoch)
    } else if (before?.state === 'HALF_OPEN') {
      const successes = after.state === 'CLOSED' ? 1 : after.successCount - before.successCount
      if (successes > 0) this.#checkSettlement(before, after, instance)
      this.#consume('successes', successes, request, epoch)
    }
  }

  /** Who has seen a complete count that nobody acted on opens the circuit with its next failure, and adds no more. */
  #checkCompletion(before: CircuitRecord | undefined, after: CircuitRecord, { instance, sentAt }: StoreRequest): void {
    const shown = this.#shownComplete.get(instance)
    // Where answers are late or lost, what was shown may have been discarded, and a write may be sent twice.
    if (!this.#assumed.storeIsSound || before?.state !== 'CLOSED' || shown === undefined || shown.at > sentAt) return
    const isMore = after.state === 'CLOSED' && after.failureCount > before.failureCount
    this.check(6, !isMore || before.version !== shown.version, () => {
      return `${instance.name} knew of a complete count and added to it: ${show(before)} became ${show(after)}`
    })
  }

  /** Whoever settles a probe holds its lease. */
  #checkSettlement(before: CircuitRecord, after: CircuitRecord, instance: Instance): void {
    const left = new Set(after.leases.map(({ id }) => id))
    const settled = before.leases.filter(({ id }) => !left.has(id) && this.#owners.get(id) === instance)
    this.check(3, settled.length > 0, () => {
      return `${instance.name} settled a probe whose lease it does not hold: ${show(before)} became ${show(after)}`
    })
  }

  #consume(kind: keyof Ledger, amount: number, request: StoreRequest, epoch: string): void {
    if (amount <= 0) return
    const { instance } = request
    this.#unanswered.set(request, { instance, kind, amount })
    const ledger = this.#ledgerOf(instance)[kind]
    let missing = amount
    for (const from of [epoch, unstored]) {
      const there = ledger.get(from) ?? 0
      const taken = Math.min(there, missing)
      ledger.set(from, there - taken)
      missing -= taken
    }
    const elsewhere = [...ledger.values()].reduce((sum, number) => sum + number, 0)
    this.check(missing > 0 && elsewhere < missing ? 5 : 3, missing <= 0, () => {
      return `${instance.name} counted ${amount} ${kind} of epoch ${epoch}, but had ${amount - missing} (and ${elsewhere} of other epochs)`
    })
    this.checks[5]++
  }

  /** A write has something to say. */
  #checkNeed(before: CircuitRecord | undefined, after: CircuitRecord, instance: Instance): void {
    const isSame =
      after.state === 'CLOSED' &&
      (before?.state ?? 'CLOSED') === 'CLOSED' &&
      after.failureCount === (before?.failureCount ?? 0)
    this.check(10, !isSame || (before?.failureCount ?? 0) > 0, () => {
      return `${instance.name} wrote what was there already: ${show(before)} became ${show(after)}`
    })
    this.check(10, this.#hasFailed, () => `${instance.name} wrote although nothing has ever failed: ${show(after)}`)
  }

  arrived(request: StoreRequest): void {
    const { instance, operation } = request
    if (request.isOperators || operation !== 'batchGetState' || !this.#assumed.storeIsSound) return
    const { cacheTtl } = this.#assumed.settings
    const before = this.#readAt.get(instance)
    this.#readAt.set(instance, request.sentAt)
    if (before === undefined || !this.#assumed.clocksAgree || cacheTtl === 0) return
    // What is read while a write is on its way is discarded, and read again.
    if (before <= (this.#answeredAt.get(instance) ?? 0)) return
    // A whole millisecond either way: an instance's clock has no fractions.
    this.check(10, request.sentAt - before >= 0.8 * cacheTtl - 2, () => {
      return `${instance.name} read again after ${request.sentAt - before} ms, with a cacheTtl of ${cacheTtl} ms`
    })
  }

  sent(request: StoreRequest): void {
    const { instance, operation } = request
    if (operation === 'getState' || operation === 'batchGetState') return
    let open = this.#open.get(instance)
    if (open === undefined) {
      open = new Set()
      this.#open.set(instance, open)
    }
    open.add(request)
  }

  #forgetUnanswered(instance: Instance): void {
    for (const [request, { instance: author }] of this.#unanswered) {
      if (author === instance) this.#unanswered.delete(request)
    }
  }

  answered(request: StoreRequest, record: CircuitRecord | undefined, isError: boolean): void {
    const { instance, operation } = request
    this.#open.get(instance)?.delete(request)
    this.#newsIn.set(instance, this.#world.events)
    if (operation !== 'batchGetState') this.#answeredAt.set(instance, this.#world.now)
    if (isError) return
    if (this.#open.get(instance)?.size === 0) this.#forgetUnanswered(instance)
    const { failureThreshold } = this.#assumed.settings
    const isComplete = record?.state === 'CLOSED' && record.failureCount >= failureThreshold
    if (isComplete) this.#shownComplete.set(instance, { version: record.version, at: this.#world.now })
    else this.#shownComplete.delete(instance)
    for (const transition of this.#transitions) {
      if (transition.author === instance && record?.transitions.includes(transition.id)) transition.isShown = true
    }
  }

  // -------------------------------------------------------------------------------------------------------- calls

  operationStarted(call: CallRecord): void {
    const { instance, shownState } = call
    const { now } = this.#world
    // News that arrive between the admission and the operation, which follow each other at once, come too late.
    const isNews = this.#newsIn.get(instance) === this.#world.events
    this.check(instance.snapshot.override === undefined ? 7 : 11, isNews || shownState !== 'OPEN', () => {
      return `${instance.name} ran the operation while it showed OPEN`
    })
    const { cacheTtl, maxConcurrent } = this.#assumed.settings
    this.check(5, instance.running.size <= maxConcurrent, () => {
      return `${instance.name} runs ${instance.running.size} operations at once, with maxConcurrent ${maxConcurrent}`
    })
    if (!this.#assumed.storeIsSound || !this.#assumed.clocksAgree) return
    // Before its invocation it read what was older than cacheTtl; within a long one it does so in the background.
    const known = (since: number | undefined): boolean =>
      since !== undefined && call.invokedAt - since > cacheTtl + 4 * this.#assumed.storageTimeout
    this.check(11, !known(this.#forcedOpenSince), () => {
      return `${instance.name} called the service ${now - (this.#forcedOpenSince ?? now)} ms after it was forced open`
    })
  }

  callEnded(call: CallRecord, isError: boolean, result: unknown): void {
    const { instance, operationAt, endedAt } = call
    const { isCircuitTimeoutError, isCircuitBreakerError } = this.#engine
    const isOurs = isError && isCircuitBreakerError(result)
    const isAnswer = endedAt !== undefined && result === call.answer && isError === (call.outcome !== 'success')
    const isAbort = isError && result instanceof Error && result.message === 'the caller gave up'
    this.check(
      9,
      isAnswer || isOurs || isAbort,
      () => `${instance.name}'s caller got something else: ${String(result)}`,
    )
    if (operationAt === undefined) {
      this.#checkDelay(call, this.#world.now - call.startedAt)
      return
    }
    this.#checkDelay(call, operationAt - call.startedAt)
    const isTimeout = isError && isCircuitTimeoutError(result)
    if (isAnswer && call.outcome === 'success') this.#enter('successes', call)
    // When the invocation's time is over, be it by a clock that was set forward, whoever gives up does so because of that.
    const isOver = this.#world.now >= call.endsAt - this.#assumed.settings.deadlineReserve - 51
    const mayBeDeadline = isAbort && (isOver || !this.#assumed.clocksRun)
    if ((isAnswer && call.outcome === 'failure') || isTimeout || mayBeDeadline) {
      this.#hasFailed = true
      this.#enter('failures', call)
    }
  }

  /** Before the operation a call waits for the store at most twice: for what was never loaded, and for a probe. */
  #checkDelay(call: CallRecord, delay: number): void {
    if (call.others > 0 || call.instance.freezes !== call.freezes) return
    const longest = 2 * this.#assumed.storageTimeout + 5
    this.check(9, delay <= longest, () => `${call.instance.name} kept a caller waiting for ${delay} ms`)
  }

  hookEnded(instance: Instance, hook: 'before' | 'after', took: number, wasFrozen: boolean): void {
    this.check(9, wasFrozen || took <= this.#assumed.storageTimeout + 2, () => {
      return `${instance.name} spent ${took} ms in "${hook}"`
    })
  }

  #enter(kind: keyof Ledger, { instance, epoch }: CallRecord): void {
    this.#add(kind, 1, instance, epoch !== undefined && this.#storedEpochs.has(epoch) ? epoch : unstored)
  }

  #add(kind: keyof Ledger, amount: number, instance: Instance, page: string): void {
    const ledger = this.#ledgerOf(instance)[kind]
    ledger.set(page, (ledger.get(page) ?? 0) + amount)
  }

  #ledgerOf(instance: Instance): Ledger {
    let ledger = this.#ledgers.get(instance)
    if (ledger === undefined) {
      ledger = { failures: new Map(), successes: new Map() }
      this.#ledgers.set(instance, ledger)
    }
    return ledger
  }

  // ------------------------------------------------------------------------------------------------------- events

  killed(instance: Instance): void {
    for (const transition of this.#transitions) {
      if (transition.author === instance) transition.isExcused = true
    }
  }

  stateChanged(instance: Instance, change: StateChange): void {
    const { from, to, generation } = change
    const told = this.#transitions.findLast(
      (transition) =>
        !transition.isTold &&
        transition.author === instance &&
        transition.generation === generation &&
        transition.from === from &&
        transition.to === to,
    )
    this.check(4, told !== undefined, () => {
      return `${instance.name} told of ${from} > ${to}, generation ${generation}, which it did not make or had told of before`
    })
    if (told !== undefined) told.isTold = true
  }

  /** Everything is quiet and everyone has read the record since: nothing may be owed any more. */
  settleAccounts(): void {
    for (const { author, from, to, generation, isOperators, isTold, isExcused, isShown, later } of this.#transitions) {
      // Eight transition ids are kept in a record; an operator may not look at it again.
      const isOwed = isShown || (!isExcused && !isOperators && later < 8)
      this.check(4, isTold || !isOwed, () => {
        return `${author.name} never told of its ${from} > ${to}, generation ${generation}`
      })
    }
    this.#transitions.length = 0
  }

  /** No live lease belongs to an instance that has stored everything and runs nothing. */
  checkLeasesOf(instance: Instance, record: CircuitRecord | undefined): void {
    if (instance.running.size > 0 || instance.breaker.needsFlush) return
    const left = record?.leases.filter(({ id, expiresAt }) => {
      return this.#owners.get(id) === instance && expiresAt > instance.now()
    })
    this.check(5, (left?.length ?? 0) === 0, () => `${instance.name} is idle and holds a lease: ${show(record)}`)
  }

  /** How long the stored circuit has been open, in milliseconds; 0 if it is not. */
  get openFor(): number {
    return this.#openSince === undefined ? 0 : this.#world.now - this.#openSince
  }
}

/** The page of outcomes whose epoch was never stored: of an instance that knew nothing, or was on its own. */
const unstored = '(none stored)'
