import { clockTolerance, retryTime } from '../../src/circuit/state-machine.ts'
import { isAlone, knowsOthers, suspicion } from '../../src/circuit/suspicion.ts'
import type { StateChange } from '../../src/index.ts'
import type { ServiceSettings } from '../../src/settings/table.ts'
import type { CircuitRecord } from '../../src/storage/contract.ts'
import type { Engine } from './engine.ts'
import type { Instance } from './instance.ts'
import { type Kind, Ledger, type Spent, unstored } from './ledger.ts'
import type { CallRecord, Observer, StoreRequest } from './observer.ts'
import { show } from './store.ts'
import type { World } from './world.ts'

/** The invariants of `docs/evidence/simulation.md`, by number. */
export const invariants = {
  1: 'at most halfOpenMaxConcurrent unexpired leases, fleet-wide',
  2: 'a prober that dies or hangs never wedges recovery',
  3: 'an outcome from another epoch, of a lost lease or from before a suspicion does not count there',
  4: 'one event for each transition; none only if its author died or the record was destroyed',
  5: 'a call that is ignored, cancelled or refused does not count; permits and leases come back once',
  6: 'complete evidence opens the circuit, whichever instance sees it, and nothing else does',
  7: 'OPEN never runs the operation, and a refusal changes nothing',
  8: 'no clock and no freeze wedges, un-trips or hurries anything',
  9: 'the store is never the outage, and a lone decision never opens the circuit of a healthy fleet',
  10: 'the healthy path writes nothing and reads once per cacheTtl',
  11: 'an override is never lost, takes precedence over all automatic changes, and arrives within cacheTtl',
  12: 'a close empties the counters, and counts are never erased otherwise',
  13: 'one instance alone never opens a circuit that others are known to use, nor keeps it open',
  14: 'a suspicion always ends: the circuit opens, it is dismissed, or its window is over',
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
    | 'failureRateThreshold'
    | 'resetTimeout'
    | 'maxResetTimeout'
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

/** A store knows the ids of so many additions. */
const rememberedAdditions = 16

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

/** A suspicion, by the version of its record. */
interface Sample {
  /** The instances that have contributed failures. */
  readonly accusers: Set<Instance>
  readonly reporters: Set<Instance>
  /** Whose failures have run into it. */
  readonly early: Set<Instance>
  /** The ids of the additions. */
  readonly additions: string[]
}

/** A suspicion as an instance was shown it. */
interface Shown {
  /** The event in which it was shown first. */
  readonly since: number
  readonly records: CircuitRecord[]
  /** The records, and what the instance's clock showed when it asked for each. */
  readonly looks: { readonly record: CircuitRecord; readonly at: number }[]
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
  readonly #ledger = new Ledger()
  readonly #samples = new Map<string, Sample>()
  readonly #shown = new Map<Instance, Map<string, Shown>>()
  /** The last record that each instance was shown. */
  readonly #lastShown = new Map<Instance, CircuitRecord | undefined>()
  /** The time on the clock of a request's author when it left … */
  readonly #clocks = new WeakMap<StoreRequest, number>()
  /** … and the last record that it had been shown by then. */
  readonly #knownBy = new WeakMap<StoreRequest, CircuitRecord>()
  readonly #storedEpochs = new Set<string>()
  readonly #versions = new Map<string, number>()
  /** The writes of each instance that were not answered. */
  readonly #open = new Map<Instance, Set<StoreRequest>>()
  readonly #transitions: Transition[] = []
  readonly #owners = new Map<string, Instance>()
  readonly #readAt = new Map<Instance, number>()
  /** The event in which an instance was last answered. */
  readonly #newsIn = new Map<Instance, number>()
  /** When an instance was last answered anything but a regular read. */
  readonly #answeredAt = new Map<Instance, number>()
  /** The instance that opened the circuit last, and has heard that it did. */
  #opener: { readonly instance: Instance; readonly version: string; isTold: boolean } | undefined
  /** How often a closed circuit was opened. */
  openings = 0
  #openTime = 0
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
      this.#ledger.destroyed()
      this.#samples.clear()
      this.#opener = undefined
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
      this.check(10, this.#hasFailed, () => `${instance.name} wrote although nothing has ever failed: ${show(after)}`)
    }
    if (after.state === 'CLOSED' || request.isOperators) this.#opener = undefined
    else if (after.state === 'OPEN') this.#opener = { instance, version: after.version, isTold: false }
    this.#storedEpochs.add(after.epoch)
    if (!this.#versions.has(after.version)) this.#versions.set(after.version, this.#versions.size)
    this.#noteState(after)
    const isChange = after.state !== (before?.state ?? 'CLOSED')
    // An override that begins or ends is told of though the state stays the same.
    const isForced = before?.override !== undefined || after.override !== undefined
    if (isChange || (isForced && after.generation !== (before?.generation ?? 0))) {
      if (isChange) this.transitions++
      if (isChange && (before?.state ?? 'CLOSED') === 'CLOSED') this.openings++
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
    if ((record?.state ?? 'CLOSED') === 'CLOSED') {
      this.#openTime = this.openTime
      this.#openSince = undefined
    } else this.#openSince ??= now
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
    if (added.length > 0 && before !== undefined && !isOperators) this.#checkTurn(before, instance)
  }

  /** The instance that opened the circuit, or failed the last probe, lets the others probe first. */
  #checkTurn(before: CircuitRecord, instance: Instance): void {
    const opener = this.#opener
    const { cacheTtl } = this.#assumed.settings
    if (opener?.instance !== instance || !opener.isTold || !this.#assumed.clocksAgree) return
    const clock = instance.now()
    if (!knowsOthers(before, clock) || cacheTtl === 0) return
    const from = before.state === 'OPEN' ? retryTime(before, this.#assumed.settings) : before.updatedAt
    this.check(13, clock - from >= cacheTtl, () => {
      return `${instance.name}, which opened the circuit, probes it again after ${clock - from} ms: ${show(before)}`
    })
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
    const epoch = before?.epoch ?? after.epoch
    if (before === undefined || before.state === 'CLOSED') {
      if (before !== undefined && before.version === after.version) this.#checkAddition(before, after, request)
      else if (before?.suspectedAt === undefined) this.#checkRaised(before, after, request)
      else if (after.state === 'CLOSED') this.#checkDismissed(before, after, request)
      else this.#checkVerdict(before, after, request)
    } else if (before.state === 'HALF_OPEN' && after.state === 'OPEN') {
      this.#checkSettlement(before, after, instance)
      this.#spent(this.#ledger.spend('failure', 1, request, epoch), 'failure', 1, request, epoch)
    } else if (before.state === 'HALF_OPEN') {
      const successes = after.state === 'CLOSED' ? 1 : after.successCount - before.successCount
      if (successes <= 0) return
      this.#checkSettlement(before, after, instance)
      this.#spent(this.#ledger.spend('success', successes, request, epoch), 'success', successes, request, epoch)
    }
  }

  /** Outcomes are added to the sample of a suspicion. */
  #checkAddition(before: CircuitRecord, after: CircuitRecord, request: StoreRequest): void {
    const { instance } = request
    const { version, epoch, suspectedAt } = before
    const said = (): string => `${instance.name} made ${show(before)} into ${show(after)}`
    const failures = after.failureCount - before.failureCount
    const successes = after.successCount - before.successCount
    const early = after.earlyCount - before.earlyCount
    const reporters = after.reporterCount - before.reporterCount
    const started = after.startedCount - before.startedCount
    this.check(12, Math.min(failures, successes, early, reporters, started) >= 0, () => `erased: ${said()}`)
    this.check(10, failures + successes + early + started > 0, () => `nothing was added: ${said()}`)
    this.check(10, suspectedAt !== undefined, () => `no suspicion is known: ${said()}`)
    if (suspectedAt === undefined) return
    const { additions } = this.#sampleOf(version)
    const { additionId = '' } = request
    // A request that arrives after it was repeated, and after so many others that the store has forgotten that.
    if (additions.includes(additionId) && !additions.slice(-rememberedAdditions).includes(additionId)) return
    additions.push(additionId)
    const clock = this.#clocks.get(request) ?? instance.now()
    const age = clock - suspectedAt
    this.check(14, age <= this.#assumed.settings.window, () => `a suspicion that is ${age} ms old goes on: ${said()}`)
    const latest = this.#knownBy.get(request)
    const knew = latest?.version === version && suspicion(latest, clock, this.#assumed.settings) === 'guilty'
    this.check(6, !knew || !this.#assumed.storeIsSound, () => `the sample was guilty already: ${said()}`)

    const shown = this.#shown.get(instance)?.get(version)
    const mayBeAlone = shown?.records.some((record) => isAlone(record, clock, this.#assumed.settings)) === true
    const since = shown?.since ?? Number.POSITIVE_INFINITY
    const spend = (kind: Kind, amount: number, from: number): void => {
      if (amount <= 0) return
      this.#spent(this.#ledger.spend(kind, amount, request, epoch, from), kind, amount, request, epoch)
    }
    // The failures that it counts apart may be any: the oldest are of the least use for the sample.
    spend('failure', early, 0)
    spend('failure', failures, mayBeAlone ? 0 : since)
    spend('success', successes, since)
    const sample = this.#sampleOf(version)
    this.check(5, reporters === 0 || (reporters === 1 && !sample.reporters.has(instance)), () => `again: ${said()}`)
    this.check(5, early === 0 || (early === 1 && !sample.early.has(instance)), () => `more than one early: ${said()}`)
    if (reporters > 0) sample.reporters.add(instance)
    if (early > 0) sample.early.add(instance)
    if (failures + early > 0) sample.accusers.add(instance)
  }

  /** A suspicion is raised; it may open the circuit at once. */
  #checkRaised(before: CircuitRecord | undefined, after: CircuitRecord, request: StoreRequest): void {
    const { instance } = request
    const { failureThreshold, window } = this.#assumed.settings
    const said = (): string => `${instance.name} made ${show(before)} into ${show(after)}`
    const isTrip = after.state === 'OPEN'
    this.check(10, isTrip || after.suspectedAt !== undefined, () => `wrote what was there already: ${said()}`)
    const { failureCount, earlyCount } = after
    const epoch = before?.epoch ?? after.epoch
    const amount = Math.max(failureCount, earlyCount)
    // By a clock that was set back the past lasts longer.
    const longest = this.#assumed.clocksRun ? window : Number.POSITIVE_INFINITY
    const spent = this.#ledger.spendRow(amount, request, epoch, longest)
    this.#spent(spent, 'failure', amount, request, epoch)
    const clock = this.#clocks.get(request) ?? instance.now()
    this.check(6, !isTrip || failureCount >= failureThreshold, () => `opened by too few failures: ${said()}`)
    const isContradictable = failureThreshold > 1 && knowsOthers(before, clock)
    this.check(13, !isTrip || !isContradictable, () => `opened alone, though others are known: ${said()}`)
    if (isTrip) return
    const { accusers, reporters, early } = this.#sampleOf(after.version)
    accusers.add(instance)
    reporters.add(instance)
    if (earlyCount > 0) early.add(instance)
  }

  /** A suspicion is dismissed, by a sample that speaks for the service or because it is too old. */
  #checkDismissed(before: CircuitRecord, after: CircuitRecord, request: StoreRequest): void {
    const said = (): string => `${request.instance.name} made ${show(before)} into ${show(after)}`
    const { failureCount, successCount, earlyCount, startedCount, reporterCount } = after
    this.check(12, after.suspectedAt === undefined, () => `a suspicion erased another: ${said()}`)
    this.check(12, failureCount + successCount + earlyCount + startedCount + reporterCount === 0, () => {
      return `dismissed, and not empty: ${said()}`
    })
    this.check(6, this.#saw('innocent', before, request), () => `dismissed without a verdict: ${said()}`)
  }

  /** The circuit is opened by a sample. */
  #checkVerdict(before: CircuitRecord, after: CircuitRecord, request: StoreRequest): void {
    const { instance } = request
    const { failureThreshold, cacheTtl, window } = this.#assumed.settings
    const said = (): string => `${instance.name} made ${show(before)} into ${show(after)}`
    const clock = this.#clocks.get(request) ?? instance.now()
    const { accusers, reporters } = this.#sampleOf(before.version)
    // In that time everyone else has read it, and nobody has spoken when its author looked again.
    const silence = Math.max(1_000, Math.min(2 * cacheTtl, window / 2))
    const isAbandoned = this.#shown
      .get(instance)
      ?.get(before.version)
      ?.looks.some(({ record, at }) => {
        return record.reporterCount <= 1 && at - (before.suspectedAt ?? at) >= silence
      })
    // Others that are first heard in this sample could not contradict what had been said before.
    const isKnown = failureThreshold > 1 && knowsOthers({ ...before, reporterCount: 0 }, clock)
    if (isKnown && !isAbandoned && this.#assumed.clocksRun)
      this.check(13, accusers.size > 1, () => {
        const names = [...accusers].map(({ name }) => name).join(' and ')
        return `opened by ${names} alone, though others are known (${reporters.size} have spoken): ${said()}`
      })
    this.check(6, this.#saw('guilty', before, request), () => `opened without a verdict: ${said()}`)
  }

  /** Whether the author of a write was shown the sample with this verdict. */
  #saw(verdict: 'guilty' | 'innocent', { version }: CircuitRecord, request: StoreRequest): boolean {
    const { instance } = request
    const clock = this.#clocks.get(request) ?? instance.now()
    const records = this.#shown.get(instance)?.get(version)?.records ?? []
    return records.some((record) => suspicion(record, clock, this.#assumed.settings) === verdict)
  }

  #sampleOf(version: string): Sample {
    let sample = this.#samples.get(version)
    if (sample === undefined) {
      sample = { accusers: new Set(), reporters: new Set(), early: new Set(), additions: [] }
      this.#samples.set(version, sample)
    }
    return sample
  }

  /** Nothing is counted that has not happened, or not here. */
  #spent({ missing, elsewhere }: Spent, kind: Kind, amount: number, request: StoreRequest, epoch: string): void {
    this.check(missing > 0 && elsewhere < missing ? 5 : 3, missing <= 0, () => {
      return `${request.instance.name} counted ${amount} times ${kind} in epoch ${epoch}, but had ${amount - missing} (and ${elsewhere} elsewhere)`
    })
    this.checks[5]++
  }

  /** The instance that settles a probe holds its lease. */
  #checkSettlement(before: CircuitRecord, after: CircuitRecord, instance: Instance): void {
    const left = new Set(after.leases.map(({ id }) => id))
    const settled = before.leases.filter(({ id }) => !left.has(id) && this.#owners.get(id) === instance)
    this.check(3, settled.length > 0, () => {
      return `${instance.name} settled a probe whose lease it does not hold: ${show(before)} became ${show(after)}`
    })
  }

  arrived(request: StoreRequest): void {
    const { instance, operation } = request
    if (request.isOperators || operation !== 'batchGetState' || !this.#assumed.storeIsSound) return
    const { cacheTtl } = this.#assumed.settings
    const before = this.#readAt.get(instance)
    this.#readAt.set(instance, request.sentAt)
    if (before === undefined || !this.#assumed.clocksAgree || cacheTtl === 0) return
    // An open circuit is looked at sooner.
    if ((this.#lastShown.get(instance)?.state ?? 'CLOSED') !== 'CLOSED') return
    // What is read while a write is on its way is discarded, and read again.
    if (before <= (this.#answeredAt.get(instance) ?? 0)) return
    // A whole millisecond either way: an instance's clock has no fractions.
    this.check(10, request.sentAt - before >= 0.8 * cacheTtl - 2, () => {
      return `${instance.name} read again after ${request.sentAt - before} ms, with a cacheTtl of ${cacheTtl} ms`
    })
  }

  sent(request: StoreRequest): void {
    const { instance, operation } = request
    this.#clocks.set(request, instance.now())
    const known = this.#lastShown.get(instance)
    if (known !== undefined) this.#knownBy.set(request, known)
    if (operation === 'getState' || operation === 'batchGetState') return
    let open = this.#open.get(instance)
    if (open === undefined) {
      open = new Set()
      this.#open.set(instance, open)
    }
    open.add(request)
  }

  answered(request: StoreRequest, record: CircuitRecord | undefined, isError: boolean): void {
    const { instance, operation } = request
    this.#open.get(instance)?.delete(request)
    this.#newsIn.set(instance, this.#world.events)
    if (operation !== 'batchGetState') this.#answeredAt.set(instance, this.#world.now)
    if (isError) return
    if (this.#open.get(instance)?.size === 0) this.#ledger.answered(instance)
    // A record that was read before it was overtaken is no news.
    const isOld = record !== undefined && this.#orderOf(record) < this.#orderOf(this.#lastShown.get(instance))
    if (!isOld) this.#lastShown.set(instance, record)
    if (record?.suspectedAt !== undefined) this.#show(request, record)
    const opener = this.#opener
    if (opener?.instance === instance && opener.version === record?.version) opener.isTold = true
    for (const transition of this.#transitions) {
      if (transition.author === instance && record?.transitions.includes(transition.id)) transition.isShown = true
    }
  }

  /** When the version of a record was stored, in the order of all versions. */
  #orderOf(record: CircuitRecord | undefined): number {
    return record === undefined ? -1 : (this.#versions.get(record.version) ?? 0)
  }

  #show(request: StoreRequest, record: CircuitRecord): void {
    const { instance } = request
    let shown = this.#shown.get(instance)
    if (shown === undefined) {
      shown = new Map()
      this.#shown.set(instance, shown)
    }
    const { records, since, looks } = shown.get(record.version) ?? { records: [], since: this.#world.events, looks: [] }
    looks.push({ record, at: this.#clocks.get(request) ?? instance.now() })
    shown.delete(record.version)
    shown.set(record.version, { since, records: records.includes(record) ? records : [...records, record], looks })
    const [oldest] = shown.keys()
    if (shown.size > 8 && oldest !== undefined) shown.delete(oldest)
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
    if (!this.#assumed.storeIsSound) return
    const shown = this.#lastShown.get(instance)
    this.check(6, isNews || suspicion(shown, instance.now(), this.#assumed.settings) !== 'guilty', () => {
      return `${instance.name} called the service although it knew that its sample is guilty: ${show(shown)}`
    })
    if (!this.#assumed.clocksAgree) return
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
    const isAnswer = endedAt !== undefined && result === call.answer && isError === result instanceof Error
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
    if (isAnswer && call.outcome === 'success') this.#enter('success', call)
    // When the invocation's time is over, be it by a clock that was set forward, whoever gives up does so because of that.
    const isOver = this.#world.now >= call.endsAt - this.#assumed.settings.deadlineReserve - 51
    const mayBeDeadline = isAbort && (isOver || !this.#assumed.clocksRun)
    if ((isAnswer && call.outcome === 'failure') || isTimeout || mayBeDeadline) {
      this.#hasFailed = true
      this.#enter('failure', call)
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
    if (!this.#assumed.storeIsSound || !this.#assumed.clocksRun || wasFrozen || hook === 'before') return
    const shown = this.#lastShown.get(instance)
    this.check(6, suspicion(shown, instance.now() - took - 1, this.#assumed.settings) !== 'guilty', () => {
      return `${instance.name} ended an invocation and left it to others to open the circuit: ${show(shown)}`
    })
  }

  #enter(kind: Kind, call: CallRecord): void {
    const { epoch } = call
    const page = epoch !== undefined && this.#storedEpochs.has(epoch) ? epoch : unstored
    this.#ledger.enter(kind, call, page, this.#world.now)
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

  /** How long the stored circuit has not been closed, in milliseconds. */
  get openTime(): number {
    return this.#openTime + (this.#openSince === undefined ? 0 : this.#world.now - this.#openSince)
  }
}
