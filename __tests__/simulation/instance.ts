import type { CircuitBreaker, CircuitSnapshot } from '../../src/index.ts'
import type { Runtime, TimerHandle } from '../../src/runtime.ts'
import type { CircuitBreakerOptions } from '../../src/settings/table.ts'
import type { Engine } from './engine.ts'
import type { CallOutcome, CallRecord, Observer } from './observer.ts'
import type { SimulatedService } from './service.ts'
import type { SimulatedStore } from './store.ts'
import type { Appointment, World } from './world.ts'

/** The one service of every simulation, and the key that its circuit is stored under. */
export const service = 'stripe'

/** The service is unwell: counts. */
export class Unavailable extends Error {
  override readonly name = 'Unavailable'
  readonly status = 503
  readonly headers: Readonly<Record<string, string>>

  constructor(retryAfter?: string) {
    super()
    this.headers = retryAfter === undefined ? {} : { 'retry-after': retryAfter }
  }
}

/** The request was wrong: an answer, and so a success. */
export class Rejected extends Error {
  override readonly name = 'Rejected'
  readonly status = 400
}

/** What one invocation does. Milliseconds. */
export interface Plan {
  /** How many calls it makes … */
  readonly calls: number
  /** … all at once, or one after another. */
  readonly atOnce: boolean
  /** The timeout of each. */
  readonly timeout: number | false
  /** When the caller gives up by itself. */
  readonly abortAfter?: number | undefined
  /** When Lambda kills the process. */
  readonly deadline: number
  /** The handler does not await its calls. */
  readonly forgets?: boolean
}

export interface InstanceOptions {
  readonly settings: Partial<CircuitBreakerOptions>
  /** How far its clock is ahead. */
  readonly clockOffset?: number
  /** Lambda freezes the process between invocations. */
  readonly freezesBetween?: boolean
  /** It is an operator's: it calls no service. */
  readonly isOperators?: boolean
}

/** The part of a middleware that is used here. */
interface Hooks {
  before(request: object): unknown
  after(request: object): unknown
}

/** One execution environment: a process with a clock of its own, which Lambda freezes, thaws and kills. */
export class Instance implements Runtime {
  readonly index: number
  readonly name: string
  readonly breaker: CircuitBreaker
  readonly env = {}
  /** How far its clock is ahead, in milliseconds. */
  clockOffset: number
  /** How often it was frozen. */
  freezes = 0
  /** The operations that are running. */
  readonly running = new Set<CallRecord>()
  isBusy = false
  readonly #world: World
  readonly #service: SimulatedService
  readonly #observer: Observer
  readonly #middleware: Hooks
  readonly #freezesBetween: boolean
  #life: 'running' | 'frozen' | 'dead' = 'running'
  #ids = 0
  #invocations = 0
  #open = 0
  /** What arrived while it was frozen. */
  readonly #inbox: (() => void)[] = []

  constructor(
    index: number,
    world: World,
    engine: Engine,
    store: SimulatedStore,
    simulatedService: SimulatedService,
    observer: Observer,
    { settings, clockOffset = 0, freezesBetween = false, isOperators = false }: InstanceOptions,
  ) {
    this.index = index
    this.name = isOperators ? `operator-${index}` : `i${index}`
    this.clockOffset = clockOffset
    this.#world = world
    this.#service = simulatedService
    this.#observer = observer
    this.#freezesBetween = freezesBetween
    this.breaker = new engine.CircuitBreaker(
      {
        services: [service],
        storage: store.storageFor(this, isOperators),
        onStateChange: (change) => {
          world.trace?.(world.now, this.name, `event ${change.from} > ${change.to}, generation ${change.generation}`)
          observer.stateChanged?.(this, change)
        },
        onStorageError: () => {},
        ...settings,
      },
      { now: this.now, random: world.random, id: this.id, setTimeout: this.setTimeout, clearTimeout, env: {} },
    )
    this.#middleware = engine.circuitBreaker(this.breaker) as unknown as Hooks
    observer.born?.(this)
  }

  // ------------------------------------------------------------------------------------------------- its own world

  now = (): number => Math.floor(this.#world.now + this.clockOffset)
  random = (): number => this.#world.random()
  id = (): string => `${this.name}-${++this.#ids}`
  setTimeout = (callback: () => void, delay: number): TimerHandle =>
    this.deliver(delay, callback) as unknown as TimerHandle
  clearTimeout = clearTimeout

  get isAlive(): boolean {
    return this.#life !== 'dead'
  }

  get isRunning(): boolean {
    return this.#life === 'running'
  }

  get snapshot(): CircuitSnapshot {
    return this.breaker.circuits[service] as CircuitSnapshot
  }

  /** Something reaches the process: at once if it runs, later if it is frozen, never if it is dead. */
  deliver(delay: number, callback: () => void): Appointment {
    const appointment = this.#world.after(delay, () => {
      if (this.#life === 'running') callback()
      else if (this.#life === 'frozen') {
        this.#inbox.push(() => {
          if (!appointment.isCancelled) callback()
        })
      }
    })
    return appointment
  }

  freeze(): void {
    if (this.#life !== 'running') return
    this.#life = 'frozen'
    this.freezes++
  }

  thaw(): void {
    if (this.#life !== 'frozen') return
    this.#life = 'running'
    for (const callback of this.#inbox.splice(0)) this.deliver(0, callback)
  }

  kill(): void {
    if (this.#life === 'dead') return
    this.#world.trace?.(this.#world.now, this.name, 'is killed')
    this.#life = 'dead'
    this.#inbox.length = 0
    this.running.clear()
    this.#observer.killed?.(this)
  }

  // ------------------------------------------------------------------------------------------------------ its work

  /** Runs an invocation through the middleware, as Lambda would. Nothing happens if one is running. */
  invoke(plan: Plan): void {
    if (this.isBusy || this.#life === 'dead') return
    this.isBusy = true
    this.thaw()
    const endsAt = this.#world.now + plan.deadline
    const requestId = `${this.name}-request-${++this.#invocations}`
    const killer = this.#world.after(plan.deadline, () => this.kill())
    const context = {
      awsRequestId: requestId,
      getRemainingTimeInMillis: () => Math.max(0, Math.floor(endsAt - this.#world.now)),
    }
    this.#handle({ context }, plan).then(() => {
      killer.isCancelled = true
      this.isBusy = false
      this.#observer.invocationEnded?.(this)
      if (this.#freezesBetween) this.freeze()
    })
  }

  async #handle(request: { readonly context: object }, plan: Plan): Promise<void> {
    const invokedAt = this.#world.now
    await this.#hook('before', request)
    const { callExternal } = request.context as { callExternal: CircuitBreaker['call'] }
    const calls: Promise<void>[] = []
    for (let index = 0; index < plan.calls; index++) {
      const call = this.#call(callExternal, plan, invokedAt)
      if (!plan.atOnce && !plan.forgets) await call
      calls.push(call)
    }
    if (!plan.forgets) await Promise.all(calls)
    await this.#hook('after', request)
  }

  async #hook(hook: 'before' | 'after', request: object): Promise<void> {
    const startedAt = this.#world.now
    const { freezes } = this
    const waiting = this.#middleware[hook](request)
    if (waiting !== undefined) await waiting
    this.#observer.hookEnded?.(this, hook, this.#world.now - startedAt, freezes !== this.freezes)
  }

  async #call(callExternal: CircuitBreaker['call'], plan: Plan, invokedAt: number): Promise<void> {
    const call: CallRecord = {
      instance: this,
      startedAt: this.#world.now,
      invokedAt,
      endsAt: invokedAt + plan.deadline,
      freezes: this.freezes,
      operationAt: undefined,
      startedIn: undefined,
      epoch: undefined,
      shownState: undefined,
      endedAt: undefined,
      outcome: undefined,
      answer: undefined,
      others: this.#open++,
    }
    const { timeout, abortAfter } = plan
    let signal: AbortSignal | undefined
    let abort: Appointment | undefined
    if (abortAfter !== undefined) {
      const controller = new AbortController()
      signal = controller.signal
      abort = this.deliver(abortAfter, () => controller.abort(new Error('the caller gave up')))
    }
    const options = signal === undefined ? { timeout } : { timeout, signal }
    let isError = false
    let result: unknown
    try {
      result = await callExternal(service, () => this.#ask(call), options)
    } catch (error) {
      isError = true
      result = error
    }
    this.#open--
    if (abort !== undefined) abort.isCancelled = true
    this.running.delete(call)
    this.#observer.callEnded?.(call, isError, result)
  }

  #ask(call: CallRecord): Promise<unknown> {
    const { snapshot } = this
    call.operationAt = this.#world.now
    call.startedIn = this.#world.events
    call.epoch = snapshot.epoch
    call.shownState = snapshot.state
    this.running.add(call)
    const { kind, after, retryAfter } = this.#service.ask(this.index)
    this.#world.trace?.(this.#world.now, this.name, `asks the service (${kind}), sees ${snapshot.state}`)
    this.#observer.operationStarted?.(call)
    return new Promise((resolve, reject) => {
      if (kind === 'silence') return
      this.deliver(after, () => {
        call.endedAt = this.#world.now
        this.running.delete(call)
        call.outcome = outcomes[kind]
        call.answer = kind === 'ok' ? { ok: true } : kind === 'rejected' ? new Rejected() : new Unavailable(retryAfter)
        if (kind === 'ok') resolve(call.answer)
        else reject(call.answer)
      })
    })
  }
}

const outcomes: Readonly<Record<'ok' | 'unavailable' | 'rejected', CallOutcome>> = {
  ok: 'success',
  unavailable: 'failure',
  rejected: 'success',
}

function clearTimeout(timer: TimerHandle): void {
  const appointment = timer as unknown as Appointment
  appointment.isCancelled = true
}
