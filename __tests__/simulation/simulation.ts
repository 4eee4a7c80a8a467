import { suspicion, type VerdictSettings } from '../../src/circuit/suspicion.ts'
import type { CircuitRecord } from '../../src/storage/contract.ts'
import { type Engine, engine as source } from './engine.ts'
import { Instance, type Plan, service } from './instance.ts'
import { Checker, type InvariantNumber, type Violation } from './invariants.ts'
import { inMacrotask } from './microtasks.ts'
import { drawLateStore, drawPlan, drawScenario, drawService, drawStore, type Scenario } from './scenario.ts'
import { healthy, type ServiceCondition, SimulatedService } from './service.ts'
import { quiet, SimulatedStore, show } from './store.ts'
import { World } from './world.ts'

/** What a run came to. */
export interface Report {
  readonly seed: number
  readonly scenario: Scenario
  /** How many events happened, each followed by a look at the invariants. */
  readonly events: number
  readonly calls: number
  /** Changes of state that were stored. */
  readonly transitions: number
  /** How often each invariant was put to the test. */
  readonly checks: Readonly<Record<InvariantNumber, number>>
  readonly violation: Violation | undefined
  /** The last things that happened, where they were asked for. */
  readonly trace: readonly string[]
}

export interface RunOptions {
  readonly seed: number
  readonly engine?: Engine
  /** Keeps the last so many lines of what happened. */
  readonly traced?: number
}

/** Lets a fleet live through the scenario of a seed. The same seed gives the same run, event by event. */
export function simulate({ seed, engine = source, traced = 0 }: RunOptions): Promise<Report> {
  return inMacrotask(() => new Run(seed, engine, traced).report())
}

/** A run with its trace, for people. */
export async function explain(seed: number, engine: Engine = source, lines = 400): Promise<string> {
  const { violation, scenario, trace } = await simulate({ seed, engine, traced: lines })
  const { settings, troubles, ...rest } = scenario
  const present = Object.entries(troubles).flatMap(([name, isPresent]) => (isPresent ? [name] : []))
  return [
    `Replay it with: npm run simulate -- --seed ${seed}`,
    `seed ${seed}: ${JSON.stringify({ ...rest, ...settings })}`,
    `troubles: ${present.join(', ') || 'none'}`,
    ...trace,
    violation === undefined
      ? 'no violation'
      : `${(violation.at / 1_000).toFixed(3)} s: invariant ${violation.invariant} is violated: ${violation.message}`,
  ].join('\n')
}

class Run {
  readonly #seed: number
  readonly #engine: Engine
  readonly #world: World
  readonly #scenario: Scenario
  readonly #checker: Checker
  readonly #service: SimulatedService
  readonly #store: SimulatedStore
  readonly #trace: string[] = []
  #fleet: Instance[] = []
  #born = 0
  /** Counts the phases: what belongs to an earlier one no longer happens. */
  #phase = 0
  /** The work of operators under way. Written by `#operate`, when work begins and when it has ended. */
  readonly #operations = new Set<Promise<unknown>>()

  constructor(seed: number, engine: Engine, traced: number) {
    this.#seed = seed
    this.#engine = engine
    const world = new World(seed)
    this.#world = world
    if (traced > 0) {
      world.trace = (at, who, what) => {
        this.#trace.push(`${((world.elapsed + at - world.now) / 1_000).toFixed(3)} s ${who}: ${what}`)
        if (this.#trace.length > traced) this.#trace.shift()
      }
    }
    const scenario = drawScenario(world)
    this.#scenario = scenario
    const { settings, troubles, kind } = scenario
    const storeTroubles = [
      troubles.slowStore,
      troubles.lostRequests,
      troubles.throttling,
      troubles.partitions,
      troubles.storeOutages,
      troubles.freezes,
      kind === 'lone',
      kind === 'late',
    ]
    this.#checker = new Checker(world, engine, {
      settings,
      storageTimeout: settings.storageTimeout,
      clocksAgree: !troubles.skewedClocks && !troubles.steppingClocks,
      clocksRun: !troubles.steppingClocks,
      storeIsSound: !storeTroubles.includes(true),
      mustStayClosed: kind === 'lone',
    })
    this.#service = new SimulatedService(world)
    this.#store = new SimulatedStore(world, engine, this.#checker)
    for (let index = 0; index < scenario.instances; index++) this.#birth()
  }

  report(): Report {
    const { kind, storms } = this.#scenario
    if (kind === 'lone') this.#loneFailures()
    else if (kind === 'bad') this.#badInstance()
    else if (kind === 'healthy') this.#pass(this.#scenario.stormFor, calmPlan)
    else for (let storm = 0; storm < storms; storm++) this.#storm()
    this.#checkRecovery()
    if (kind === 'storm') {
      this.#checkProtection()
      this.#checkRecovery()
    }
    const { violation, checks } = this.#checker
    return {
      seed: this.#seed,
      scenario: this.#scenario,
      events: this.#world.events,
      calls: this.#service.calls,
      transitions: this.#checker.transitions,
      checks,
      violation,
      trace: this.#trace,
    }
  }

  // ------------------------------------------------------------------------------------------------------- phases

  /** Troubles of all kinds, each at a time of its own. */
  #storm(): void {
    const world = this.#world
    const { kind, troubles, settings, stormFor, freezesBetween } = this.#scenario
    const { storageTimeout } = settings
    this.#often(5_000, () => {
      this.#service.condition = drawService(
        world,
        this.#fleet.map(({ index }) => index),
      )
      world.trace?.(world.now, 'service', describe(this.#service.condition, this.#fleet))
    })
    if (kind === 'late') this.#store.condition = drawLateStore(world, storageTimeout)
    this.#often(4_000, () => {
      this.#store.condition =
        kind === 'late' ? drawLateStore(world, storageTimeout) : drawStore(world, troubles, storageTimeout)
      world.trace?.(world.now, 'store', JSON.stringify(this.#store.condition))
    })
    if (troubles.partitions) {
      this.#often(6_000, () => {
        const { index } = this.#anyone()
        const outage = world.pick(['refuse', 'silence'] as const)
        if (!this.#store.partitions.delete(index)) this.#store.partitions.set(index, { ...quiet, outage })
      })
    }
    if (troubles.deletions) this.#often(8_000, () => this.#store.forget(service))
    if (troubles.kills) {
      this.#often(4_000, () => this.#anyone().kill())
      // In the middle of something: what was written is there, and its author never knows.
      this.#store.afterWrite = ({ instance }) => {
        if (world.chance(0.15)) instance.kill()
      }
    }
    if (troubles.freezes) {
      this.#often(4_000, () => {
        const instance = this.#anyone()
        if (freezesBetween && !instance.isBusy) return
        instance.freeze()
        world.after(world.pick([50, 1_000, 10_000, 70_000]), () => instance.thaw())
      })
    }
    if (troubles.steppingClocks) {
      this.#often(5_000, () => {
        this.#anyone().clockOffset = world.pick([-1, 1]) * world.pick([10, 1_000, 5_000, 30_000, 3_600_000])
      })
    }
    if (troubles.operators) this.#often(10_000, () => this.#operate())
    this.#pass(stormFor)
    this.#store.afterWrite = undefined
  }

  /** One instance, cut off from the store, fails all the time; for everyone else the service is well. */
  #loneFailures(): void {
    const world = this.#world
    const { settings, interval, stormFor } = this.#scenario
    this.#pass(5 * interval + 1_000, calmPlan)
    const lone = this.#anyone()
    this.#store.partitions.set(lone.index, { ...quiet, outage: world.pick(['refuse', 'silence'] as const) })
    this.#service.condition = { errorRate: 1, latency: 10, affects: (index) => index === lone.index }
    this.#pass(stormFor, calmPlan)
    this.#service.condition = healthy
    // What was under way when the service was well again for it too.
    this.#pass(settings.resetTimeout > 5_000 ? 50 : world.pick([50, 5_000]), calmPlan)
    this.#store.partitions.clear()
  }

  /** One instance fails all the time; for everyone else the service is well. */
  #badInstance(): void {
    const { settings, interval } = this.#scenario
    const checker = this.#checker
    this.#pass(5 * interval + 1_000, calmPlan)
    const bad = this.#anyone()
    this.#service.condition = { errorRate: 1, latency: 10, affects: (index) => index === bad.index }
    const opened = checker.openings
    this.#pass(60_000, calmPlan)
    // Nobody can contradict the first suspicion of all. Then one more opinion is known.
    checker.check(13, checker.openings - opened <= 2, () => {
      return `${bad.name}, alone with its failures, opened the circuit ${checker.openings - opened} times`
    })
    const { resetTimeout, cacheTtl, halfOpenSuccessThreshold } = settings
    const share = checker.openTime / 60_000
    const longest = 2 * (resetTimeout + 10_000 + (1 + halfOpenSuccessThreshold) * (cacheTtl + 10 * interval))
    checker.check(13, checker.openTime <= longest, () => {
      return `${bad.name}, alone with its failures, kept the circuit open for ${Math.round(100 * share)} % of the time`
    })
  }

  /** Whatever was wrong is over: in the end everyone passes, nothing is left over, and nothing is owed. */
  #checkRecovery(): void {
    const { kind, settings, troubles, interval } = this.#scenario
    this.#calm()
    const skew = troubles.skewedClocks || troubles.steppingClocks ? 60_000 : 0
    // An open circuit, then the longest lease, then the longest pause of the store, then the probes.
    const { maxResetTimeout: resetTimeout, halfOpenSuccessThreshold, cacheTtl } = settings
    // A lease that comes too late for its call may lie ready until it expires.
    const lateLease = kind === 'late' ? 15_000 : 0
    const probes = (halfOpenSuccessThreshold + 2) * (2 * interval + cacheTtl + 2_000 + lateLease)
    this.#pass(2 * resetTimeout + skew + 15_000 + 32_000 + probes + 10 * interval, calmPlan)
    const wedged: InvariantNumber = skew > 0 || troubles.freezes ? 8 : 2
    const record = this.#store.peek(service)
    const checker = this.#checker
    checker.check(wedged, record === undefined || record.state === 'CLOSED', () => {
      return `all is well, and the circuit is still ${record?.state}: it never recovered`
    })
    checker.check(12, (record?.leases.length ?? 0) === 0, () => 'a closed circuit holds leases')
    for (const instance of this.#fleet) this.#checkInstance(instance, wedged)
    this.#checkSuspicion()
    checker.settleAccounts()
  }

  /** Nothing has failed for longer than a suspicion lasts, or than a sample takes. */
  #checkSuspicion(): void {
    const world = this.#world
    const record = this.#store.peek(service)
    const now = Math.floor(world.now)
    const skew = this.#scenario.troubles.skewedClocks || this.#scenario.troubles.steppingClocks ? 60_000 : 0
    const { window } = this.#scenario.settings
    const age = record?.suspectedAt === undefined ? 0 : now - record.suspectedAt
    this.#checker.check(
      14,
      age <= window + skew && suspicion(record, now, this.#scenario.settings) !== 'innocent',
      () => {
        return `all is well, and a suspicion is ${age} ms old: ${show(record)}`
      },
    )
  }

  #checkInstance(instance: Instance, wedged: InvariantNumber): void {
    const checker = this.#checker
    const { maxConcurrent } = this.#scenario.settings
    const world = this.#world
    // What a handler left behind when its instance was frozen is over by now.
    for (let turn = 0; instance.isBusy && turn < 40; turn++) world.run(500)
    // For nobody else: whoever is in the middle of an invocation would be cut by its deadline, and that is a failure.
    this.#service.condition = { errorRate: 0, latency: 5_000, spread: 0, affects: (index) => index === instance.index }
    instance.invoke({ ...simplePlan, calls: maxConcurrent, atOnce: true })
    world.run(500)
    const ran = instance.running.size
    checker.check(ran === 0 ? wedged : 5, ran === maxConcurrent || !instance.isAlive, () => {
      const { state } = instance.snapshot
      return `${instance.name} (${state}) ran ${ran} of ${maxConcurrent} calls at once when all was well`
    })
    this.#service.condition = healthy
    for (let turn = 0; instance.isBusy && turn < 40; turn++) world.run(500)
    // An outcome that takes two round trips to the store may be left over by a handler that was cut.
    if (instance.breaker.needsFlush) instance.invoke(simplePlan)
    for (let turn = 0; instance.isBusy && turn < 40; turn++) world.run(500)
    checker.check(9, instance.snapshot.state === 'CLOSED' && !instance.breaker.needsFlush, () => {
      return `${instance.name} shows ${instance.snapshot.state} and ${instance.breaker.needsFlush ? 'something' : 'nothing'} waits to be stored, when all was well`
    })
    checker.checkLeasesOf(instance, this.#store.peek(service))
  }

  /** The service is down and everything else is well: the circuit opens, and protects. */
  #checkProtection(): void {
    const { settings, interval, troubles } = this.#scenario
    const skewed = troubles.skewedClocks || troubles.steppingClocks
    const { failureThreshold, resetBackoff, maxResetTimeout, halfOpenMaxConcurrent, cacheTtl, storageTimeout } =
      settings
    const checker = this.#checker
    const plan = (): Plan => simplePlan
    this.#service.condition = { errorRate: 1, latency: 10 }
    // An instance that refuses by itself adds a failure to the sample with each of its own probes, which get rarer.
    const refusal = (trips: number) => Math.min(maxResetTimeout, settings.resetTimeout * resetBackoff ** trips)
    // Where the store has thrown much back, an instance waits until it has looked at the record.
    const look = troubles.throttling ? 10_000 : 0
    const failures = (failureThreshold + 1) * (8 * interval + storageTimeout + look)
    this.#pass(failures + 2 * cacheTtl + 1.1 * (refusal(0) + refusal(1) + refusal(2)), plan)
    let record = this.#store.peek(service)
    if (record?.state === 'CLOSED' && this.#fleet.every(refusesByItself)) {
      // Each protects itself, and probes so rarely that no sample can fill within its window.
      const before = this.#service.calls
      this.#pass(settings.window, plan)
      const calls = this.#service.calls - before
      const own = this.#fleet.length * (settings.window / settings.resetTimeout + 2)
      checker.check(
        7,
        calls <= own,
        () => `${calls} calls reached a dead service whose callers all refuse by themselves`,
      )
      if (calls < failuresForVerdict(record, Math.floor(this.#world.now), settings)) return
      record = this.#store.peek(service)
    }
    // Where an instance refuses for longer, or clocks are further apart, than a suspicion lasts, each protects itself. The
    // same holds where clocks that are apart make a suspicion seem so short that most leave it to others.
    const isTooShort = settings.window < 5 * settings.resetTimeout || (skewed && settings.window < 60_000)
    if (record?.state !== 'OPEN' && (isTooShort || (skewed && (record?.pace ?? 0) > 100))) return
    checker.check(6, record !== undefined && record.state !== 'CLOSED', () => {
      return `the service is down for everyone, and the circuit is ${record?.state ?? 'unknown'} with ${record?.failureCount ?? 0} failures`
    })
    const before = this.#service.calls
    const duration = 20_000
    this.#pass(duration, plan)
    const probes = (duration / settings.resetTimeout + 2) * halfOpenMaxConcurrent
    // Whose clock is ahead finds retryAt passed sooner.
    checker.check(7, skewed || this.#service.calls - before <= probes, () => {
      return `${this.#service.calls - before} calls reached a dead service in ${duration} ms; ${probes} probes are allowed`
    })
  }

  #calm(): void {
    this.#service.condition = healthy
    const { kind, settings } = this.#scenario
    this.#store.condition = kind === 'late' ? drawLateStore(this.#world, settings.storageTimeout) : quiet
    this.#store.partitions.clear()
    for (const instance of this.#fleet) {
      instance.thaw()
      instance.clockOffset = Math.max(-30_000, Math.min(30_000, instance.clockOffset))
    }
    const endOverride = (): void => {
      if (this.#store.peek(service)?.override !== undefined) void this.#operator().breaker.reset(service)
    }
    endOverride()
    // An override that is still on its way is stored after the storm, and would hold for ever.
    for (const work of this.#operations) void work.then(endOverride)
  }

  /** Lets time pass, with the traffic of every instance and whatever the phase has arranged. */
  #pass(duration: number, plan: (world: World) => Plan = (world) => drawPlan(world, this.#scenario.settings)): void {
    this.#traffic(plan)
    this.#world.run(duration)
    this.#phase++
  }

  // ------------------------------------------------------------------------------------------------------ the fleet

  /** Every living instance is invoked now and then; who dies is replaced. */
  #traffic(plan: (world: World) => Plan): void {
    const world = this.#world
    const { interval } = this.#scenario
    const phase = this.#phase
    const next = (instance: Instance): void => {
      world.after(world.exponential(interval), () => {
        if (phase !== this.#phase) return
        const current = instance.isAlive ? instance : this.#replace(instance)
        // Whoever is frozen in the middle of an invocation gets no other.
        if (!current.isBusy) current.invoke(plan(world))
        next(current)
      })
    }
    for (const instance of this.#fleet) next(instance)
  }

  #often(mean: number, happen: () => void): void {
    const world = this.#world
    const phase = this.#phase
    const next = (): void => {
      world.after(world.exponential(mean), () => {
        if (phase !== this.#phase) return
        happen()
        next()
      })
    }
    next()
  }

  #anyone(): Instance {
    return this.#world.pick(this.#fleet)
  }

  #replace(dead: Instance): Instance {
    this.#fleet = this.#fleet.filter((instance) => instance !== dead)
    return this.#birth()
  }

  #birth(): Instance {
    const { troubles, freezesBetween } = this.#scenario
    const clockOffset = troubles.skewedClocks ? this.#world.between(-30_000, 30_000) : 0
    const instance = this.#make({ clockOffset, freezesBetween })
    this.#fleet.push(instance)
    return instance
  }

  #operator(): Instance {
    return this.#make({ isOperators: true })
  }

  #make(options: { clockOffset?: number; freezesBetween?: boolean; isOperators?: boolean }): Instance {
    const { settings } = this.#scenario
    const surroundings = [this.#world, this.#engine, this.#store, this.#service, this.#checker] as const
    return new Instance(++this.#born, ...surroundings, { settings, ...options })
  }

  #operate(): void {
    const work = this.#work().catch(() => {})
    this.#operations.add(work)
    void work.then(() => this.#operations.delete(work))
  }

  #work(): Promise<unknown> {
    const world = this.#world
    const { breaker } = this.#operator()
    const until = world.chance(0.7) ? Math.floor(world.now + world.between(1_000, 20_000)) : undefined
    switch (world.pick(['open', 'closed', 'reset', 'set', 'set-closed'])) {
      case 'open':
        return breaker.forceOpen(service, { until })
      case 'closed':
        return breaker.forceClosed(service, { until })
      case 'set':
        return breaker.batchSetState([[service, 'OPEN']])
      case 'set-closed':
        return breaker.batchSetState([[service, 'CLOSED']])
      default:
        return breaker.reset(service)
    }
  }
}

/** Nothing here is cut, so that a service that is well never fails anyone. */
function calmPlan(world: World): Plan {
  const calls = world.pick([1, 1, 1, 2, 3])
  return { ...simplePlan, calls, atOnce: calls > 1 && world.chance(0.5) }
}

const simplePlan: Plan = { calls: 1, atOnce: false, timeout: false, deadline: 15_000 }

function describe({ affects, ...condition }: ServiceCondition, fleet: readonly Instance[]): string {
  const affected = affects === undefined ? [] : fleet.filter(({ index }) => affects(index)).map(({ name }) => name)
  return `${JSON.stringify(condition)} ${affected.join(' ')}`
}

/** Whether an instance refuses calls without the fleet's circuit; what has ended calls nobody. */
function refusesByItself({ isAlive, snapshot }: Instance): boolean {
  return !isAlive || (snapshot.state !== 'CLOSED' && snapshot.scope === 'instance')
}

/** How many failures, and no success, a sample must have to open this circuit. */
function failuresForVerdict(record: CircuitRecord, now: number, settings: VerdictSettings): number {
  const sample = {
    ...record,
    suspectedAt: now - 2_000,
    successCount: 0,
    earlyCount: 0,
    startedCount: 0,
    reporterCount: 2,
  }
  let failureCount = 1
  while (suspicion({ ...sample, failureCount }, now, settings) !== 'guilty') failureCount++
  return failureCount
}
