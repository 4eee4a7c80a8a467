/**
 * A few instances over one store, in which nothing happens by itself: everything that can happen next is a move, and
 * happens when it is made. See `interleavings.ts`.
 *
 * @module
 */

import type {
  CircuitBreaker,
  CircuitRecord,
  CircuitSnapshot,
  CircuitState,
  CompareAndSet,
  ExpectedVersion,
  ICircuitStorage,
  MemoryCircuitStorage,
  StorageOperation,
  WriteResult,
} from '../../src/index.ts'
import type { Engine } from './engine.ts'
import { Checks } from './interleavings-checks.ts'
import {
  call,
  defaults,
  type Ending,
  type Faults,
  flush,
  leaseDuration,
  load,
  reset,
  type Scenario,
  type Step,
  service,
  start,
} from './interleavings-scenario.ts'
import { drainMicrotasks } from './microtasks.ts'

/** One thing that can happen next. */
export interface Move {
  /** The same in every run in which it is possible. */
  readonly key: string
  readonly kind: 'step' | 'arrive' | 'answer' | 'end' | 'timer' | 'lose' | 'vanish' | 'kill' | 'delete' | 'turn'
  /** The index of the instance; -1: none. */
  readonly owner: number
  /** The track, the request's or the operation's number. */
  readonly number: number
  readonly ending?: Ending
  /** It need not happen. */
  readonly isFault: boolean
  /** A request that, as things are, only reads. */
  readonly readsOnly: boolean
  /** It has to do with everyone. */
  readonly concernsAll: boolean
  /** What happens in the same turn. */
  readonly both?: readonly [Move, Move]
}

/** Short names for long things: equal names for equal things. */
export class Names {
  readonly #numbers = new Map<string, number>()
  readonly #records = new WeakMap<CircuitRecord, number>()

  of(thing: string): number {
    const known = this.#numbers.get(thing)
    if (known !== undefined) return known
    // 0 is the name of an empty past.
    this.#numbers.set(thing, this.#numbers.size + 1)
    return this.#numbers.size
  }

  ofRecord(record: CircuitRecord | undefined): number {
    if (record === undefined) return -1
    let number = this.#records.get(record)
    if (number === undefined) {
      number = this.of(JSON.stringify(record))
      this.#records.set(record, number)
    }
    return number
  }

  ofReply(reply: unknown): string {
    if (reply instanceof Map) return [...reply].map(([key, value]) => `${key}:${this.ofReply(value)}`).join()
    if (typeof reply === 'object' && reply !== null && 'applied' in reply) {
      const { applied, current } = reply as WriteResult
      return `${applied ? 'y' : 'n'}${this.ofRecord(current)}`
    }
    return String(this.ofRecord(reply as CircuitRecord | undefined))
  }
}

/** A request to the store that was not answered yet. */
export interface StoreRequest {
  readonly number: number
  readonly operation: StorageOperation
  readonly isOperators: boolean
  /** The version that a write is conditional on. */
  readonly expected: ExpectedVersion | 'any'
  readonly isRead: boolean
  /** How often the record had been destroyed when it was sent. */
  readonly destructions: number
  readonly sentAt: number
  /** How many replies its instance had been given when it was sent. */
  readonly answersBefore: number
  readonly carryOut: () => Promise<unknown>
  readonly answer: (reply: never) => void
  state: 'sent' | 'done' | 'lost'
  reply: unknown
  replyName: string
  /** When it was carried out, in the order of all requests. */
  order: number
}

/** A call of the service that is under way. */
interface RunningOperation {
  readonly number: number
  readonly endings: readonly Ending[]
  /** The generation of the circuit that it was admitted in, as its instance saw it. */
  readonly generation: number
  readonly resolve: (value: unknown) => void
  readonly reject: (error: unknown) => void
  readonly call: CallResult
}

/** What became of a call. */
export interface CallResult {
  readonly instance: Instance
  /** What the circuit looked like when the operation started; `undefined`: it was not. */
  startedIn: CircuitState | undefined
  /** How the operation ended. */
  ending: Ending | undefined
  /** What it ended with. */
  evidence: unknown
  /** What the caller got, when it got anything. */
  result: { readonly value?: unknown; readonly error?: unknown } | undefined
}

interface Timer {
  readonly at: number
  /** It was due when it was set. */
  readonly isDue: boolean
  readonly callback: () => void
  ref(): unknown
  unref(): unknown
}

interface Track {
  readonly name: string
  readonly owner: number
  readonly steps: readonly Step[]
  position: number
  isBusy: boolean
}

class Unavailable extends Error {
  readonly response = { status: 503 }
}

/** One instance of the fleet: its engine, the surroundings that the engine runs in, and its way to the store. */
export class Instance implements ICircuitStorage {
  readonly shared = true
  readonly name: string
  readonly index: number
  readonly breaker: CircuitBreaker
  isAlive = true
  readonly timers: Timer[] = []
  readonly requests: StoreRequest[] = []
  readonly running: RunningOperation[] = []
  /** Names everything that ever reached it, in order. */
  history = 0
  /** Commands of an operator that are under way. */
  commands = 0
  /** How many leases it was granted, and how many probes it ran. */
  granted = 0
  probes = 0
  /** How often its engine reported a failure of the store. */
  storeErrors = 0
  /** How many replies came when their time was over. */
  answeredLate = 0
  /** How many replies it was given. */
  answers = 0
  /** The latest that it was told of what is stored. */
  shown: { readonly order: number; readonly state: CircuitState; readonly isCertain: boolean } | undefined
  #ids = 0
  #requests = 0
  #operations = 0
  readonly #fleet: Fleet

  constructor(name: string, index: number, fleet: Fleet, engine: Engine) {
    this.name = name
    this.index = index
    this.#fleet = fleet
    this.breaker = new engine.CircuitBreaker(
      {
        services: [service],
        storage: this,
        onStateChange: (change) => fleet.checks.told(this, change),
        onStorageError: ({ operation, error }) => {
          this.storeErrors++
          fleet.note(`${name} reports a failure of the store at ${operation}: ${error.message}`)
        },
        ...defaults,
        ...fleet.scenario.settings,
      },
      {
        now: () => fleet.now,
        // Nobody waits longer than `retryAt` before a claim.
        random: () => 0,
        id: () => `${name}${++this.#ids}`,
        setTimeout: (callback, delay) => {
          const isDue = delay <= 0
          const timer: Timer = { at: fleet.now + delay, isDue, callback, ref: () => timer, unref: () => timer }
          const later = this.timers.findIndex(({ at }) => at > timer.at)
          this.timers.splice(later < 0 ? this.timers.length : later, 0, timer)
          return timer
        },
        clearTimeout: (timer) => {
          const index = this.timers.indexOf(timer as Timer)
          if (index >= 0) this.timers.splice(index, 1)
        },
        env: {},
      },
    )
  }

  /** What it shows of the circuit. */
  get snapshot(): CircuitSnapshot {
    return this.breaker.circuits[service] as CircuitSnapshot
  }

  nextOperation(): number {
    return ++this.#operations
  }

  getState(key: string): Promise<CircuitRecord | undefined> {
    return this.#request('getState', 'any', true, (memory) => memory.getState(key))
  }

  batchGetState(keys: readonly string[]): Promise<Map<string, CircuitRecord>> {
    return this.#request('batchGetState', 'any', true, (memory) => memory.batchGetState(keys))
  }

  addOutcomes(...request: Parameters<ICircuitStorage['addOutcomes']>): Promise<WriteResult> {
    const [, version, { id, failures, successes, started, early }] = request
    const carryOut = async (memory: MemoryCircuitStorage): Promise<WriteResult> => {
      const result = await memory.addOutcomes(...request)
      if (result.applied) this.#fleet.added(id)
      return result
    }
    return this.#request(
      'addOutcomes',
      version,
      false,
      carryOut,
      `${failures} failures, ${successes} successes, ${started} started, ${early} early more, if ${version ?? 'none'}`,
    )
  }

  compareAndSetState(...request: Parameters<ICircuitStorage['compareAndSetState']>): Promise<WriteResult> {
    const [, version, next] = request
    const carryOut = (memory: MemoryCircuitStorage) => memory.compareAndSetState(...request)
    return this.#request('compareAndSetState', version, false, carryOut, `${show(next)}, if ${version ?? 'none'}`)
  }

  batchSetState(writes: readonly CompareAndSet[]): Promise<Map<string, WriteResult>> {
    const version = writes[0]?.version
    return this.#request('batchSetState', version, false, (memory) => memory.batchSetState(writes))
  }

  clearState(key: string): Promise<void> {
    return this.#request('clearState', 'any', false, (memory) => memory.clearState(key))
  }

  batchClearState(keys: readonly string[]): Promise<void> {
    return this.#request('batchClearState', 'any', false, (memory) => memory.batchClearState(keys))
  }

  #request<T>(
    operation: StorageOperation,
    expected: ExpectedVersion | 'any',
    isRead: boolean,
    carryOut: (memory: MemoryCircuitStorage) => Promise<T>,
    details: string = '',
  ): Promise<T> {
    const number = ++this.#requests
    this.#fleet.note(`${this.name}#${number} is sent: ${operation} ${details}`)
    return new Promise<T>((resolve) => {
      this.requests.push({
        number,
        operation,
        isOperators: this.commands > 0,
        expected,
        isRead,
        destructions: this.#fleet.checks.destructions,
        sentAt: this.#fleet.now,
        answersBefore: this.answers,
        carryOut: () => carryOut(this.#fleet.memory),
        answer: resolve,
        state: 'sent',
        reply: undefined,
        replyName: '',
        order: 0,
      })
    })
  }
}

/** A fleet in one situation, and what is checked of it. */
export class Fleet {
  readonly scenario: Scenario
  readonly memory: MemoryCircuitStorage
  readonly instances: Instance[] = []
  /** The time, in milliseconds since the epoch. */
  now = start
  /** What is stored. */
  record: CircuitRecord | undefined
  readonly checks: Checks
  /** All calls, in the order in which they were made. */
  readonly calls: CallResult[] = []
  readonly #engine: Engine
  readonly #names: Names
  readonly #tracks: Track[] = []
  readonly #trace: string[] | undefined
  /** What is left of each fault. */
  readonly #left: { -readonly [Fault in Exclude<keyof Faults, 'mortals'>]-?: number }
  /** The additions to the stored version: the memory adapter remembers them. */
  #additions: string[] = []
  #isRecovering = false
  #carriedOut = 0

  constructor(scenario: Scenario, engine: Engine, names: Names, trace?: string[]) {
    this.scenario = scenario
    this.#engine = engine
    this.#names = names
    this.#trace = trace
    this.memory = new engine.MemoryCircuitStorage()
    this.checks = new Checks(this, engine, names)
    const { timeouts = 0, lostReplies = 0, lostRequests = 0, deaths = 0, deletions = 0 } = scenario.faults ?? {}
    this.#left = { timeouts, lostReplies, lostRequests, deaths, deletions }
    for (const [name, steps] of Object.entries(scenario.tracks)) {
      const owner = name === 'clock' ? -1 : this.instance(name.slice(0, 1)).index
      this.#tracks.push({ name, owner, steps, position: 0, isBusy: false })
    }
    if (scenario.stored !== undefined) this.store(scenario.stored)
    if (scenario.prepare !== undefined) scenario.prepare(this)
    else for (const { name } of this.instances) this.do(name, load)
  }

  /** The instance of that name; it is started if there is none. */
  instance(name: string): Instance {
    const found = this.instances.find((instance) => instance.name === name)
    if (found !== undefined) return found
    const instance = new Instance(name, this.instances.length, this, this.#engine)
    this.instances.push(instance)
    return instance
  }

  /** Before the scenario begins: stores a record behind everyone's back. */
  store(fields: Partial<CircuitRecord>): void {
    const record = { ...this.#engine.emptyRecord('stored', start), version: 'stored-1', ...fields }
    this.memory.clearState(service)
    this.memory.compareAndSetState(service, undefined, record)
    this.#look()
    this.checks.failed(record.generation, record.failureCount + record.earlyCount)
    this.checks.succeeded(record.generation, record.successCount)
  }

  /** Before the scenario begins: one instance does something, and nothing disturbs it. */
  do(name: string, step: Step): void {
    const instance = this.instance(name)
    step.begin(instance, this)
    this.#settleAll()
  }

  /** Carries out and answers everything, in order, and lets running operations end in their first way. */
  #settleAll(): void {
    drainMicrotasks()
    for (let isBusy = true; isBusy && this.violation === undefined; ) {
      isBusy = false
      for (const instance of this.instances) {
        for (const request of [...instance.requests]) {
          if (request.state === 'lost' || !instance.isAlive) continue
          if (request.state === 'sent') this.#carryOut(instance, request)
          this.#answer(instance, request)
          drainMicrotasks()
          isBusy = true
        }
        for (const operation of [...instance.running]) {
          const [ending] = operation.endings
          if (!instance.isAlive || ending === undefined) continue
          this.#end(instance, operation, ending)
          drainMicrotasks()
          isBusy = true
        }
      }
    }
  }

  // -------------------------------------------------------------------------------------------------- what can happen

  /** Everything that can happen now; nothing but faults: everything has happened. */
  moves(): Move[] {
    const moves: Move[] = []
    const { faults } = this.scenario
    const add = (kind: Move['kind'], key: string, owner: number, number: number, more?: Partial<Move>): void => {
      const isFault = false
      moves.push({ kind, key, owner, number, isFault, readsOnly: false, concernsAll: false, ...more })
    }
    for (const [index, track] of this.#tracks.entries()) {
      const step = track.steps[track.position]
      if (step === undefined || track.isBusy) continue
      if (track.owner >= 0 && this.instances[track.owner]?.isAlive !== true) continue
      if (step.when?.(this) === false) continue
      if (track.position === 0 && !this.#isNext(track)) continue
      const concernsAll = step.when !== undefined || track.owner < 0
      add('step', `${track.name}.${track.position + 1}`, track.owner, index, { concernsAll })
    }
    for (const { name, index: owner, requests, isAlive, running, timers } of this.instances) {
      for (const request of requests) {
        const { number, state } = request
        const key = `${name}#${number}`
        if (state === 'sent') {
          add('arrive', `${key}!`, owner, number, { readsOnly: this.#readsOnly(request) })
          if (!isAlive) add('vanish', `${key}x`, owner, number)
          else if (this.#left.lostRequests > 0) add('vanish', `${key}x`, owner, number, { isFault: true })
        } else if (state === 'done') {
          add('answer', `${key}?`, owner, number)
          if (this.#left.lostReplies > 0) add('lose', `${key}x`, owner, number, { isFault: true })
        }
      }
      if (!isAlive) continue
      if (timers[0]?.isDue === true && timers[0].at <= this.now) add('timer', `${name}~`, owner, 0)
      for (const { number, endings } of running) {
        for (const ending of endings) add('end', `${name}*${number}${ending}`, owner, number, { ending })
      }
    }
    if (this.scenario.sameTurn === true) this.#addTurns(moves)
    const isQuiet = moves.every(({ isFault }) => isFault)
    if (isQuiet) {
      // The only thing left to wait for is time.
      const next = this.#nextTimer(Number.POSITIVE_INFINITY)
      if (next !== undefined) add('timer', `${next.name}~`, next.index, 0, { concernsAll: true })
      return moves.filter(({ isFault }) => !isFault)
    }
    for (const { name, index: owner, isAlive, timers } of this.instances) {
      if (!isAlive) continue
      const isRunningDown = timers[0] !== undefined && !(timers[0].isDue && timers[0].at <= this.now)
      if (this.#left.timeouts > 0 && isRunningDown)
        add('timer', `${name}~`, owner, 0, { isFault: true, concernsAll: true })
      if (this.#left.deaths > 0 && faults?.mortals?.includes(name) === true)
        add('kill', `kill-${name}`, owner, 0, { isFault: true })
    }
    if (this.#left.deletions > 0 && this.record !== undefined) add('delete', 'deleted', -1, 0, { isFault: true })
    return moves
  }

  /**
   * The moves that have to be tried now, the others can wait: those of one instance, if nothing that anyone else does
   * meanwhile concerns them or adds to them (a persistent set). What all instances look like at one time is then not seen
   * in every combination; what each of them does and what is stored is.
   */
  enoughOf(moves: Move[]): Move[] {
    const { timeouts, lostReplies, lostRequests, deaths } = this.#left
    if (this.scenario.check !== undefined || timeouts + lostReplies + lostRequests > 0) return moves
    const steps = this.#tracks.flatMap((track) => track.steps.slice(track.position).map((step) => ({ step, track })))
    if (steps.some(({ step, track }) => step.when !== undefined || track.owner < 0)) return moves
    let fewest = moves
    for (const { index, name, requests, isAlive } of this.instances) {
      const isMortal = deaths > 0 && this.scenario.faults?.mortals?.includes(name) === true
      if (!isAlive || isMortal || requests.some(({ state }) => state === 'sent')) continue
      if (this.#tracks.some((track) => track.owner === index && track.position === 0 && !this.#isNext(track))) continue
      const own = moves.filter(({ owner }) => owner === index)
      if (own.length > 0 && own.length < fewest.length) fewest = own
    }
    return fewest
  }

  /** Where names do not matter, whoever comes first is called the first. */
  #isNext({ name }: Track): boolean {
    const { alike = [] } = this.scenario
    const before = alike[alike.indexOf(name) - 1]
    if (before === undefined) return true
    return (this.#tracks.find((track) => track.name === before)?.position ?? 0) > 0
  }

  /** A write whose condition does not hold changes nothing. */
  #readsOnly({ isRead, expected }: StoreRequest): boolean {
    return isRead || (expected !== 'any' && expected !== this.record?.version)
  }

  /** Any two things that reach the same instance, one after the other in the same turn. */
  #addTurns(moves: Move[]): void {
    const local = moves.filter(
      ({ kind, concernsAll }) => !concernsAll && (kind === 'answer' || kind === 'end' || kind === 'step'),
    )
    for (const first of local) {
      for (const second of local) {
        const isSame = first.kind === second.kind && first.number === second.number
        if (first.owner !== second.owner || isSame) continue
        moves.push({ ...first, kind: 'turn', key: `${first.key}&${second.key}`, both: [first, second] })
      }
    }
  }

  #nextTimer(until: number): Instance | undefined {
    let next: Instance | undefined
    for (const instance of this.instances) {
      const at = instance.isAlive ? (instance.timers[0]?.at ?? Number.POSITIVE_INFINITY) : Number.POSITIVE_INFINITY
      if (at <= until && at < (next?.timers[0]?.at ?? Number.POSITIVE_INFINITY)) next = instance
    }
    return next
  }

  /** Nothing is on its way to the store or back. */
  get isQuiet(): boolean {
    return this.instances.every(({ requests }) => requests.length === 0)
  }

  /** The first thing that must not be. */
  get violation(): string | undefined {
    return this.checks.violation
  }

  /** What it came to, in a word. */
  get outcome(): string {
    return this.scenario.outcome?.(this) ?? this.state
  }

  /** The state that is stored. */
  get state(): CircuitState {
    return this.record?.state ?? 'CLOSED'
  }

  /** Names everything that what comes depends on. */
  situation(): string {
    const { timeouts, lostReplies, lostRequests, deaths, deletions } = this.#left
    let name = `${this.now - start} ${timeouts}${lostReplies}${lostRequests}${deaths}${deletions} ${this.checks.past}`
    name += ` ${this.#names.ofRecord(this.record)} ${this.#additions.join()}`
    for (const { name: track, position, owner } of this.#tracks) if (owner < 0) name += ` ${track}${position}`
    for (const { history, requests } of this.instances) {
      name += ` ${history}`
      for (const { number, state, replyName } of requests) {
        name += state === 'done' ? `,${number}=${replyName}` : state === 'lost' ? `,${number}x` : `,${number}`
      }
    }
    return name
  }

  // ------------------------------------------------------------------------------------------------------ it happens

  /** Lets it happen, and everything that follows from it at once. */
  make(move: Move): void {
    if (this.#trace !== undefined) this.#trace.push(`${move.key.padEnd(9)} ${this.#describe(move)}`)
    this.#apply(move)
    drainMicrotasks()
    if (move.kind !== 'turn') this.#reached(move)
    const problem = this.violation === undefined ? this.scenario.check?.(this) : undefined
    if (problem !== undefined) this.checks.violated(problem)
  }

  #apply(move: Move): void {
    const { kind, number } = move
    const instance = this.instances[move.owner] as Instance
    switch (kind) {
      case 'turn':
        for (const part of move.both ?? []) {
          this.#apply(part)
          this.#reached({ ...part, key: `${part.key}&` })
        }
        break
      case 'step':
        this.#begin(this.#tracks[number] as Track)
        break
      case 'arrive':
        this.#carryOut(instance, requestOf(instance, number))
        break
      case 'answer':
        this.#answer(instance, requestOf(instance, number))
        break
      case 'end': {
        const operation = instance.running.find((one) => one.number === number) as RunningOperation
        this.#end(instance, operation, move.ending as Ending)
        break
      }
      case 'timer':
        if (move.isFault) this.#left.timeouts--
        this.#fire(instance)
        break
      case 'lose':
        this.#left.lostReplies--
        requestOf(instance, number).state = 'lost'
        break
      case 'vanish':
        if (move.isFault) this.#left.lostRequests--
        if (instance.isAlive) requestOf(instance, number).state = 'lost'
        else instance.requests.splice(instance.requests.indexOf(requestOf(instance, number)), 1)
        break
      case 'kill':
        this.#kill(instance)
        break
      case 'delete':
        this.#left.deletions--
        this.memory.clearState(service)
        this.#look()
        break
    }
  }

  /** Notes in the instance's history what has reached it. */
  #reached({ kind, key, owner, number }: Move): void {
    const instance = this.instances[owner]
    if (instance === undefined || kind === 'arrive' || kind === 'lose' || kind === 'vanish') return
    const reply = kind === 'answer' ? this.#lastReply : ''
    instance.history = this.#names.of(`${instance.history} ${key} ${number} ${reply} ${this.now}`)
  }

  #lastReply = ''

  #begin(track: Track): void {
    const step = track.steps[track.position] as Step
    track.position++
    const instance = this.instances[track.owner]
    if (instance === undefined) {
      step.begin(undefined as unknown as Instance, this)
      return
    }
    if (step.isOperators) instance.commands++
    track.isBusy = true
    const ended = (): void => {
      track.isBusy = false
      if (step.isOperators) instance.commands--
    }
    step.begin(instance, this)?.then(ended, (error: unknown) => {
      this.note(`${instance.name}'s step ends in ${String(error)}`)
      // The clock may have passed the end of an override before it could be stored.
      const isTooLate = /its until, .* passed before/.test(String(error))
      if (!this.#engine.isCircuitStorageError(error) || (instance.storeErrors === 0 && !isTooLate))
        this.checks.violated(`${instance.name} ${step.does}, and it comes to ${String(error)}`)
      ended()
    })
  }

  /** Begins a call; the operation ends when a move says so. */
  call(instance: Instance, endings: readonly Ending[]): Promise<unknown> {
    const call: CallResult = {
      instance,
      startedIn: undefined,
      ending: undefined,
      evidence: undefined,
      result: undefined,
    }
    this.calls.push(call)
    const operation = () =>
      new Promise<unknown>((resolve, reject) => {
        const { state: shown, scope, generation } = instance.snapshot
        // An instance that refuses by itself needs nobody's lease for its own probe.
        const state = scope === 'instance' && shown === 'HALF_OPEN' ? 'CLOSED' : shown
        call.startedIn = state
        const number = instance.nextOperation()
        this.note(`${instance.name}*${number} runs: the service is called, in ${state}`)
        this.checks.operationStarts(instance, state)
        instance.running.push({ number, endings, generation, resolve, reject, call })
      })
    const settle = (result: NonNullable<CallResult['result']>): void => {
      call.result = result
      this.checks.callEnded(call)
    }
    return instance.breaker.call(service, operation).then(
      (value) => settle({ value }),
      (error: unknown) => settle({ error }),
    )
  }

  /** How many of its requests were not answered in time. */
  unansweredOf({ requests, answeredLate }: Instance): number {
    return answeredLate + requests.filter((request) => this.#isLate(request)).length
  }

  #isLate({ sentAt }: StoreRequest): boolean {
    const { storageTimeout } = { ...defaults, ...this.scenario.settings }
    return this.now - sentAt >= Number(storageTimeout)
  }

  #end(instance: Instance, operation: RunningOperation, ending: Ending): void {
    const { call, generation } = operation
    instance.running.splice(instance.running.indexOf(operation), 1)
    call.ending = ending
    call.evidence = ending === '+' ? { ok: true } : ending === '-' ? new Unavailable() : new TypeError('a bug')
    if (ending === '-') this.checks.failed(generation)
    if (ending === '+') this.checks.succeeded(generation)
    if (ending === '+') operation.resolve(call.evidence)
    else operation.reject(call.evidence)
  }

  #carryOut(instance: Instance, request: StoreRequest): void {
    const before = this.record
    request.carryOut().then((reply) => {
      request.reply = reply
    })
    this.#look()
    request.state = 'done'
    request.order = ++this.#carriedOut
    request.replyName = this.#names.ofReply(request.reply)
    if (!instance.isAlive) instance.requests.splice(instance.requests.indexOf(request), 1)
    if (this.record !== before && this.record !== undefined) this.checks.written(instance, request, before, this.record)
    if (this.#trace !== undefined && !request.isRead)
      this.note(this.record === before ? 'nothing is changed' : `stored: ${show(this.record)}`)
  }

  #answer(instance: Instance, request: StoreRequest): void {
    instance.requests.splice(instance.requests.indexOf(request), 1)
    if (this.#isLate(request)) instance.answeredLate++
    this.#lastReply = request.replyName
    this.checks.answered(instance, request)
    request.answer(request.reply as never)
  }

  #fire(instance: Instance): void {
    const timer = instance.timers.shift()
    if (timer === undefined) return
    this.now = Math.max(this.now, timer.at)
    timer.callback()
  }

  /** Time passes; timers that run down do so in order. */
  pass(duration: number): void {
    const until = this.now + duration
    for (let next = this.#nextTimer(until); next !== undefined; next = this.#nextTimer(until)) {
      this.#fire(next)
      drainMicrotasks()
      next.history = this.#names.of(`${next.history} ~ ${this.now}`)
    }
    this.now = Math.max(this.now, until)
    this.note(`it is ${this.now - start}`)
  }

  /** What was sent may yet arrive; nothing reaches the instance any more. */
  #kill(instance: Instance): void {
    this.#left.deaths--
    instance.isAlive = false
    instance.timers.length = 0
    instance.running.length = 0
    const underWay = instance.requests.filter(({ state, isRead }) => state === 'sent' && !isRead)
    instance.requests.splice(0, instance.requests.length, ...underWay)
  }

  /** Takes notice of what is stored. */
  #look(): void {
    this.memory.getState(service).then((record) => {
      const isReplaced = this.record !== undefined && record?.version !== this.record.version
      if (isReplaced || record === undefined) this.#additions = []
      if (record === undefined && this.record !== undefined) this.checks.destroyed()
      this.record = record
    })
    drainMicrotasks()
  }

  /** The memory adapter remembers it, for as long as the version is stored. */
  added(id: string): void {
    if (this.#additions.includes(id)) return
    this.#additions = [...this.#additions, id].sort()
  }

  // ------------------------------------------------------------------------------------------------------- recovering

  /** Everything has happened. The service and the store are well from now on: does the fleet get well too? */
  recover(): void {
    this.#trace?.push('--------- everything has happened')
    const problem = this.scenario.end?.(this)
    if (problem !== undefined) {
      this.checks.violated(problem)
      return
    }
    this.#isRecovering = true
    const { storageTimeout, cacheTtl, halfOpenSuccessThreshold } = { ...defaults, ...this.scenario.settings }
    for (const { isAlive, running, timers, name } of this.instances) {
      if (isAlive && (running.length > 0 || timers.length > 0))
        this.checks.violated(`${name} still waits for something`)
    }
    // A store that failed is left alone for a moment.
    this.pass(Number(cacheTtl) + Number(storageTimeout))
    const living = this.instances.filter(({ isAlive }) => isAlive)
    for (const { name } of living) {
      this.do(name, load)
      this.do(name, flush)
    }
    this.checks.everythingIsTold()
    this.checks.nothingIsLeft(living)
    if (this.record?.override !== undefined) this.do('Z', { ...reset, begin: (instance) => this.#command(instance) })
    const fleet = living.length > 0 ? living : [this.instance('Z')]
    for (let round = 0; round < 4 + Number(halfOpenSuccessThreshold) && this.violation === undefined; round++) {
      this.pass(leaseDuration + 1_000)
      for (const { name } of fleet) {
        this.do(name, load)
        this.do(name, call('+'))
        this.do(name, flush)
      }
    }
    if (this.violation !== undefined) return
    if (this.state !== 'CLOSED') this.checks.violated(`it stays ${show(this.record)}`)
    if (this.record?.suspectedAt !== undefined) this.checks.violated(`a suspicion does not end: ${show(this.record)}`)
    for (const instance of fleet) this.#checkPermits(instance)
    this.checks.everythingIsTold()
  }

  async #command(instance: Instance): Promise<void> {
    instance.commands++
    await instance.breaker.reset(service)
    instance.commands--
  }

  #checkPermits(instance: Instance): void {
    const { name, snapshot } = instance
    if (snapshot.state !== 'CLOSED') this.checks.violated(`${name} still shows ${snapshot.state}`)
    for (let index = 0; index <= defaults.maxConcurrent; index++) this.call(instance, [])
    drainMicrotasks()
    if (instance.running.length !== defaults.maxConcurrent)
      this.checks.violated(`${name} has ${instance.running.length} of ${defaults.maxConcurrent} permits left`)
  }

  // ---------------------------------------------------------------------------------------------------------- telling

  /** Says in the trace what happens. */
  note(line: string): void {
    if (this.#trace === undefined || (this.#isRecovering && this.violation === undefined && line.includes('is sent')))
      return
    this.#trace.push(`${' '.repeat(12)}${line}`)
  }

  #describe({ kind, owner, number, ending, both }: Move): string {
    const name = this.instances[owner]?.name ?? ''
    const request = this.instances[owner]?.requests.find((one) => one.number === number)
    switch (kind) {
      case 'turn':
        return `in one turn: ${both?.map((part) => this.#describe(part)).join('; ')}`
      case 'step': {
        const track = this.#tracks[number]
        return `${track?.name} ${track?.steps[track.position]?.does}`
      }
      case 'arrive':
        return `${name}'s ${request?.operation} is carried out`
      case 'answer':
        return `${name}'s ${request?.operation} is answered`
      case 'end':
        return `${name}'s operation ${ending === '+' ? 'succeeds' : ending === '-' ? 'fails' : 'throws what says nothing of the service'}`
      case 'timer':
        return `${name}'s timer runs down`
      case 'lose':
        return `the reply to ${name}'s ${request?.operation} is lost`
      case 'vanish':
        return `${name}'s ${request?.operation} is lost and never carried out`
      case 'kill':
        return `${name} is killed`
      case 'delete':
        return 'the record is deleted'
    }
  }
}

function requestOf(instance: Instance, number: number): StoreRequest {
  return instance.requests.find((request) => request.number === number) as StoreRequest
}

/** A record in a line. */
export function show(record: CircuitRecord | undefined): string {
  if (record === undefined) return 'nothing'
  const { state, generation, failureCount, successCount, leases, override, epoch, version } = record
  const early = record.earlyCount > 0 ? ` early ${record.earlyCount}` : ''
  const suspected = record.suspectedAt === undefined ? '' : ' suspected'
  const counts = `${suspected}${early}${failureCount > 0 ? ` failures ${failureCount}` : ''}${successCount > 0 ? ` successes ${successCount}` : ''}`
  const held = leases.length > 0 ? ` leases ${leases.map(({ id, expiresAt }) => `${id} to ${expiresAt - start}`)}` : ''
  const forced = override === undefined ? '' : ` forced ${override.state}`
  return `${state} generation ${generation}${counts}${held}${forced} (epoch ${epoch}, version ${version})`
}
