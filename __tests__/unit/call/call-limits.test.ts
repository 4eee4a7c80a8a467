import { describe, expect, it } from '@jest/globals'
import { CallLimits } from '../../../src/call/call-limits.ts'
import { Invocation, type TimeSource } from '../../../src/call/invocation.ts'
import { TurnClock } from '../../../src/call/turn-clock.ts'
import { CircuitTimeoutError } from '../../../src/errors.ts'
import { type Runtime, systemRuntime, type TimerHandle } from '../../../src/runtime.ts'

const start = 1_800_000_000_000
const reserve = 1_000

/** The longest delay that `setTimeout` takes; it makes 1 ms of a longer one. */
const longestDelay = 2 ** 31 - 1

class FakeTimer implements TimerHandle {
  isReferenced = true
  readonly at: number
  readonly callback: () => void

  constructor(at: number, callback: () => void) {
    this.at = at
    this.callback = callback
  }

  ref(): void {
    this.isReferenced = true
  }

  unref(): void {
    this.isReferenced = false
  }
}

/** A clock that moves when it is told to, and its timers. */
class FakeRuntime implements Runtime {
  readonly env = {}
  time = start
  readonly timers = new Set<FakeTimer>()
  readonly delays: number[] = []

  now = (): number => this.time
  random = (): number => 0.5
  id = (): string => 'id'

  setTimeout = (callback: () => void, delay: number): TimerHandle => {
    const timer = new FakeTimer(this.time + delay, callback)
    this.delays.push(delay)
    this.timers.add(timer)
    return timer
  }

  clearTimeout = (timer: TimerHandle): void => {
    this.timers.delete(timer as FakeTimer)
  }

  /** Lets time pass; timers fire in order, at their time. */
  advance(duration: number): void {
    const end = this.time + duration
    for (let fired = 0; ; fired++) {
      if (fired > 1_000) throw new Error('Timers that are due at once set each other for ever.')
      const due = [...this.timers].filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at)[0]
      if (due === undefined) break
      this.time = Math.max(this.time, due.at)
      this.timers.delete(due)
      due.callback()
    }
    this.time = end
  }

  /** Fires every timer now, whatever the clock says. */
  fireAll(): void {
    for (const timer of [...this.timers]) {
      this.timers.delete(timer)
      timer.callback()
    }
  }

  /** Whether a timer holds the process. */
  get holdsProcess(): boolean {
    return [...this.timers].some((timer) => timer.isReferenced)
  }
}

function invocationOf(runtime: Runtime, remaining: number): Invocation {
  return new Invocation({ getRemainingTimeInMillis: () => remaining, awsRequestId: 'request-1' }, runtime)
}

interface ScopeParts {
  readonly timeout?: number | false
  readonly signal?: AbortSignal
  readonly invocation?: Invocation
  readonly deadlineReserve?: number
}

function scopeOf(runtime: Runtime, parts: ScopeParts = {}): CallLimits {
  const { timeout = false, signal, invocation, deadlineReserve = reserve } = parts
  return new CallLimits({ service: 'stripe' }, runtime, timeout, signal, invocation, deadlineReserve)
}

/** A call that is under way. */
function startedScope(runtime: Runtime, parts: ScopeParts = {}): CallLimits {
  const scope = scopeOf(runtime, parts)
  scope.start()
  scope.markOperationStart()
  return scope
}

/** The clock of a turn in which many calls begin. */
function busyClockOf({ now }: Runtime): TurnClock {
  const clock = new TurnClock({ now, setTimeout: systemRuntime.setTimeout })
  for (let reading = 0; reading < 2; reading++) clock.instant()
  return clock
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

function never(): Promise<never> {
  return new Promise(() => {})
}

/** Long enough for Node to report a rejection that nobody handles: Jest fails the test then. */
async function untilRejectionsAreReported(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await nextTurn()
}

async function errorOf(step: PromiseLike<unknown> | unknown): Promise<unknown> {
  try {
    await step
  } catch (error) {
    return error
  }
  throw new Error('Expected the step to reject.')
}

/** Counts the abort listeners that are attached to a signal. */
function countListeners(signal: AbortSignal): () => number {
  const attached = new Set<unknown>()
  const { addEventListener, removeEventListener } = signal
  signal.addEventListener = (...parameters: Parameters<typeof addEventListener>) => {
    attached.add(parameters[1])
    addEventListener.apply(signal, parameters)
  }
  signal.removeEventListener = (...parameters: Parameters<typeof removeEventListener>) => {
    attached.delete(parameters[1])
    removeEventListener.apply(signal, parameters)
  }
  return () => attached.size
}

describe('an invocation', () => {
  it('has no deadline where the context throws when it is asked', () => {
    const runtime = new FakeRuntime()
    const getRemainingTimeInMillis = (): number => {
      throw new Error('not in Lambda')
    }

    expect(new Invocation({ getRemainingTimeInMillis }, runtime).endsAt).toBe(Number.POSITIVE_INFINITY)
  })

  it('finds its request id in Lambda’s own context, too, where a durable one has none', () => {
    const context = { lambdaContext: { awsRequestId: 'r-2' } }
    expect(new Invocation(context, new FakeRuntime()).requestId).toBe('r-2')
    expect(new Invocation({ ...context, awsRequestId: 'r-1' }, new FakeRuntime()).requestId).toBe('r-1')
  })

  it('knows its request, its start and its end', () => {
    const runtime = new FakeRuntime()

    const invocation = invocationOf(runtime, 30_000)
    runtime.advance(10_000)

    expect(invocation.requestId).toBe('request-1')
    expect(invocation.startedAt).toBe(start)
    expect(invocation.endsAt).toBe(start + 30_000)
    expect(invocation.timeLeft()).toBe(20_000)
  })

  it('has no more time than at first when the clock has stepped back', () => {
    const runtime = new FakeRuntime()
    const invocation = invocationOf(runtime, 30_000)

    runtime.time -= 3_600_000

    expect(invocation.timeLeft()).toBe(30_000)
  })

  it('asks the context that it was given, not a detached function', () => {
    const context = {
      remaining: 5_000,
      getRemainingTimeInMillis() {
        return this.remaining
      },
    }

    expect(new Invocation(context, new FakeRuntime()).timeLeft()).toBe(5_000)
  })

  it('asks Lambda’s own context where Middy’s durable context hides it', () => {
    const context = { lambdaContext: { getRemainingTimeInMillis: () => 7_000 } }

    expect(new Invocation(context, new FakeRuntime()).timeLeft()).toBe(7_000)
  })

  it.each<[string, TimeSource]>([
    ['no context worth the name', {}],
    ['a durable context without Lambda’s', { lambdaContext: undefined }],
    ['an answer that is no number', { getRemainingTimeInMillis: () => Number.NaN }],
    ['an answer of another type', { getRemainingTimeInMillis: () => '3000' as unknown as number }],
    ['no end', { getRemainingTimeInMillis: () => Number.POSITIVE_INFINITY }],
  ])('has no deadline with %s', (_what, context) => {
    const runtime = new FakeRuntime()
    const invocation = new Invocation(context, runtime)

    startedScope(runtime, { invocation })

    expect(invocation.timeLeft()).toBe(Number.POSITIVE_INFINITY)
    expect(runtime.timers.size).toBe(0)
  })

  it('has no deadline where Lambda’s own context, in a durable one, cannot tell it', () => {
    expect(new Invocation({ lambdaContext: {} }, new FakeRuntime()).endsAt).toBe(Number.POSITIVE_INFINITY)
  })

  it('starts no timer before its first call', () => {
    const runtime = new FakeRuntime()

    invocationOf(runtime, 30_000)

    expect(runtime.timers.size).toBe(0)
  })

  it('serves all of its calls with one timer, at the deadline less the reserve', () => {
    const runtime = new FakeRuntime()
    const invocation = invocationOf(runtime, 30_000)

    for (let n = 0; n < 50; n++) {
      startedScope(runtime, { invocation })
      runtime.advance(10)
    }

    expect([...runtime.timers].map(({ at }) => at)).toEqual([start + 29_000])
    expect(runtime.delays).toEqual([29_000])
  })

  it('keeps the timer from one call to the next, but lets it hold the process only during calls', () => {
    const runtime = new FakeRuntime()
    const invocation = invocationOf(runtime, 30_000)

    const first = startedScope(runtime, { invocation })
    const second = startedScope(runtime, { invocation })
    expect(runtime.holdsProcess).toBe(true)
    first.dispose()
    expect(runtime.holdsProcess).toBe(true)
    second.dispose()
    expect(runtime.holdsProcess).toBe(false)
    startedScope(runtime, { invocation })
    expect(runtime.holdsProcess).toBe(true)

    expect(runtime.delays).toEqual([29_000])
  })

  it('lets go of its timer when it ends', () => {
    const runtime = new FakeRuntime()
    const invocation = invocationOf(runtime, 30_000)
    startedScope(runtime, { invocation }).dispose()

    invocation.end()

    expect(runtime.timers.size).toBe(0)
  })

  it('lets go of its timer when its last call ends after it', () => {
    const runtime = new FakeRuntime()
    const invocation = invocationOf(runtime, 30_000)
    const scope = startedScope(runtime, { invocation })
    invocation.end()

    scope.dispose()

    expect(runtime.timers.size).toBe(0)
  })

  it('can end without ever having had a call', () => {
    const runtime = new FakeRuntime()

    expect(() => invocationOf(runtime, 30_000).end()).not.toThrow()
  })

  it('cuts a call at the deadline that nobody awaits when it ends', async () => {
    const runtime = new FakeRuntime()
    const invocation = invocationOf(runtime, 30_000)
    const scope = startedScope(runtime, { invocation })
    const outcome = errorOf(scope.race(never()))

    invocation.end()
    runtime.advance(29_000)

    expect(await outcome).toBeInstanceOf(CircuitTimeoutError)
  })

  it('cuts each call at its own deadline where the services keep back different reserves', () => {
    const runtime = new FakeRuntime()
    const invocation = invocationOf(runtime, 30_000)
    const late = startedScope(runtime, { invocation, deadlineReserve: 100 })
    const early = startedScope(runtime, { invocation, deadlineReserve: 5_000 })
    expect(runtime.timers.size).toBe(1)

    runtime.advance(25_000)
    expect([early.hasTimedOut, late.hasTimedOut]).toEqual([true, false])
    expect(runtime.timers.size).toBe(1)

    runtime.advance(4_900)
    expect(late.hasTimedOut).toBe(true)
    expect(runtime.timers.size).toBe(0)
  })

  // Timers run by a clock that does not step.
  it.each([1, 3_600_000])('cuts at the deadline by the timer even when the clock stepped back by %d ms', (step) => {
    const runtime = new FakeRuntime()
    const invocation = invocationOf(runtime, 30_000)
    const scope = startedScope(runtime, { invocation })
    runtime.time = start + 29_000 - step

    runtime.fireAll()

    expect(scope.hasTimedOut).toBe(true)
    expect(runtime.timers.size).toBe(0)
  })

  it('cuts by the timer only those whose deadline it was set for, however the clock stepped back', () => {
    const runtime = new FakeRuntime()
    const invocation = invocationOf(runtime, 30_000)
    const late = startedScope(runtime, { invocation, deadlineReserve: 100 })
    const early = startedScope(runtime, { invocation, deadlineReserve: 5_000 })
    runtime.time -= 3_600_000

    runtime.fireAll()
    expect([early.hasTimedOut, late.hasTimedOut]).toEqual([true, false])

    runtime.fireAll()
    expect(late.hasTimedOut).toBe(true)
  })

  // The next timer is set by the clock that stepped back: it comes as much too late as the clock stepped, and Lambda
  // kills the call before it is cut.
  it('sets its next timer by the time at which the last one fired, also when the clock stepped back', () => {
    const runtime = new FakeRuntime()
    const invocation = invocationOf(runtime, 30_000)
    startedScope(runtime, { invocation, deadlineReserve: 100 })
    startedScope(runtime, { invocation, deadlineReserve: 5_000 })
    runtime.time -= 3_600_000

    runtime.fireAll()

    expect(runtime.delays.at(-1)).toBe(4_900)
  })

  it('cuts a call that begins after the timer has fired, where its service keeps back less', () => {
    const runtime = new FakeRuntime()
    const invocation = invocationOf(runtime, 30_000)
    startedScope(runtime, { invocation, deadlineReserve: 5_000 })
    runtime.advance(25_000)

    const later = startedScope(runtime, { invocation, deadlineReserve: 1_000 })
    runtime.advance(4_000)

    expect(later.hasTimedOut).toBe(true)
  })

  it('cuts nobody when its timer fires between two calls', () => {
    const runtime = new FakeRuntime()
    const invocation = invocationOf(runtime, 30_000)
    startedScope(runtime, { invocation }).dispose()

    runtime.advance(29_000)

    expect(runtime.timers.size).toBe(0)
  })

  it('cuts a call after a freeze when what arrived meanwhile has been delivered, and blames nobody', () => {
    const runtime = new FakeRuntime()
    const invocation = invocationOf(runtime, 30_000)
    const scope = startedScope(runtime, { invocation })
    runtime.advance(2_000)
    invocation.end()
    runtime.time = start + 3_600_000

    runtime.fireAll()
    expect(scope.hasTimedOut).toBe(false)
    expect(runtime.delays.at(-1)).toBe(200)

    runtime.advance(200)
    expect(scope.hasTimedOut).toBe(true)
    expect(scope.hadFairTime).toBe(false)
    expect(runtime.timers.size).toBe(0)
  })

  it('takes a timer that is a hundredth of a second late for one that is in time', () => {
    const runtime = new FakeRuntime()
    const invocation = invocationOf(runtime, 30_000)
    const scope = startedScope(runtime, { invocation })
    invocation.end()
    runtime.time = start + 29_010

    runtime.fireAll()

    expect(scope.hasTimedOut).toBe(true)
    expect(scope.hadFairTime).toBe(true)
  })

  it('gives time after a freeze once, however late that is over', () => {
    const runtime = new FakeRuntime()
    const scope = startedScope(runtime, { invocation: invocationOf(runtime, 30_000) })
    runtime.time = start + 3_600_000
    runtime.fireAll()
    runtime.time += 3_600_000

    runtime.fireAll()

    expect(scope.hasTimedOut).toBe(true)
  })

  it('cuts after a freeze those whose deadline has passed, and the others at theirs', () => {
    const runtime = new FakeRuntime()
    const invocation = invocationOf(runtime, 30_000)
    const early = startedScope(runtime, { invocation, deadlineReserve: 20_000 })
    const later = startedScope(runtime, { invocation, deadlineReserve: 1_000 })
    invocation.end()
    runtime.time = start + 20_000

    runtime.fireAll()
    runtime.advance(200)
    expect([early.hasTimedOut, later.hasTimedOut]).toEqual([true, false])
    expect([early.hadFairTime, later.hadFairTime]).toEqual([false, true])

    runtime.advance(8_800)
    expect(later.hasTimedOut).toBe(true)
    expect(later.hadFairTime).toBe(true)
  })

  it('gives no more time than half of what the invocation has left', () => {
    const runtime = new FakeRuntime()
    const scope = startedScope(runtime, { invocation: invocationOf(runtime, 30_000), deadlineReserve: 300 })
    runtime.time = start + 29_800

    runtime.fireAll()
    expect(runtime.delays.at(-1)).toBe(100)

    runtime.advance(100)
    expect(scope.hasTimedOut).toBe(true)
  })

  it('blames the service where the process was only busy: before it ended, nothing freezes it', () => {
    const runtime = new FakeRuntime()
    const scope = startedScope(runtime, { invocation: invocationOf(runtime, 30_000) })
    runtime.time = start + 29_400

    runtime.fireAll()
    expect(scope.hasTimedOut).toBe(false)

    runtime.advance(200)
    expect(scope.hasTimedOut).toBe(true)
    expect(scope.hadFairTime).toBe(true)
  })

  it('gives time again after a second freeze', () => {
    const runtime = new FakeRuntime()
    const invocation = invocationOf(runtime, 30_000)
    startedScope(runtime, { invocation, deadlineReserve: 20_000 })
    const later = startedScope(runtime, { invocation, deadlineReserve: 1_000 })
    runtime.time = start + 20_000
    runtime.fireAll()
    runtime.advance(200)
    runtime.time = start + 3_600_000

    runtime.fireAll()
    expect(later.hasTimedOut).toBe(false)

    runtime.advance(200)
    expect(later.hasTimedOut).toBe(true)
  })

  it('works with timers that cannot be unreferenced', () => {
    const runtime = new FakeRuntime()
    runtime.setTimeout = () => ({})
    const invocation = invocationOf(runtime, 30_000)

    startedScope(runtime, { invocation }).dispose()

    expect(() => startedScope(runtime, { invocation }).dispose()).not.toThrow()
  })

  // Contexts of emulators and containers answer with any number. Node makes 1 ms of a delay that is too long.
  it('never asks for a delay that setTimeout cannot keep', () => {
    const runtime = new FakeRuntime()

    startedScope(runtime, { invocation: invocationOf(runtime, 30 * 86_400_000) })

    expect(Math.max(0, ...runtime.delays)).toBeLessThanOrEqual(longestDelay)
  })

  it('cuts at a deadline that is further away than that at its time, with one timer after the other', () => {
    const runtime = new FakeRuntime()
    const remaining = 2 * longestDelay + 5_000
    const scope = startedScope(runtime, { invocation: invocationOf(runtime, remaining) })

    runtime.advance(remaining - reserve - 1)
    expect([scope.hasTimedOut, runtime.timers.size]).toEqual([false, 1])
    runtime.advance(1)

    expect([scope.hasTimedOut, runtime.timers.size]).toEqual([true, 0])
    expect(runtime.delays).toEqual([longestDelay, longestDelay, 4_000])
  })
})

describe('a call without limits', () => {
  it('costs no timer, no listener and no promise', async () => {
    const runtime = new FakeRuntime()
    const scope = startedScope(runtime)
    const step = Promise.resolve('value')

    expect(scope.race(step)).toBe(step)
    expect(scope.race('value')).toBe('value')
    expect(runtime.timers.size).toBe(0)
    expect(scope.deadlineAt).toBe(Number.POSITIVE_INFINITY)
  })

  it('costs no promise either in an invocation that has no deadline', () => {
    const invocation = new Invocation({}, new FakeRuntime())
    const step = never()

    expect(startedScope(new FakeRuntime(), { invocation }).race(step)).toBe(step)
  })

  it('is not answered by a fallback unless something said so', () => {
    expect(startedScope(new FakeRuntime()).fallbackApplies).toBe(false)
  })
})

describe('a timeout', () => {
  it('cuts the call with a CircuitTimeoutError', async () => {
    const runtime = new FakeRuntime()
    const scope = startedScope(runtime, { timeout: 2_000 })
    const outcome = errorOf(scope.race(never()))

    runtime.advance(1_999)
    expect(scope.cut).toBeUndefined()
    runtime.advance(1)

    const error = await outcome
    expect(error).toBeInstanceOf(CircuitTimeoutError)
    expect(error).toMatchObject({ service: 'stripe', reason: 'timeout', timeout: 2_000, attempted: true })
    expect(scope.hasTimedOut).toBe(true)
    expect(scope.cut?.error).toBe(error)
  })

  it('is given 200 ms after a freeze, in which the answer may arrive, and then blames nobody', () => {
    const runtime = new FakeRuntime()
    const invocation = invocationOf(runtime, 900_000)
    const scope = startedScope(runtime, { invocation, timeout: 2_000 })
    runtime.advance(100)
    invocation.end()
    // Even if it was thawed just after the time was over.
    runtime.time = start + 2_100

    runtime.advance(0)
    expect(scope.hasTimedOut).toBe(false)
    runtime.advance(199)
    expect(scope.hasTimedOut).toBe(false)

    runtime.advance(1)
    expect(scope.hasTimedOut).toBe(true)
    expect(scope.hadFairTime).toBe(false)
  })

  it('needs no more time after a freeze where the operation is answered', () => {
    const runtime = new FakeRuntime()
    const scope = startedScope(runtime, { timeout: 2_000 })
    runtime.time = start + 3_600_000
    runtime.fireAll()

    scope.dispose()

    expect(runtime.timers.size).toBe(0)
  })

  it('is in time up to a hundredth of a second late', () => {
    const runtime = new FakeRuntime()
    const invocation = invocationOf(runtime, 900_000)
    const scope = startedScope(runtime, { invocation, timeout: 2_000 })
    invocation.end()
    runtime.time = start + 2_010

    runtime.advance(0)

    expect(scope.hasTimedOut).toBe(true)
    expect(scope.hadFairTime).toBe(true)
  })

  it('blames the service where the process was only busy, or nobody knows better', () => {
    const runtime = new FakeRuntime()
    const invocation = invocationOf(runtime, 900_000)
    const scopes = [startedScope(runtime, { invocation, timeout: 1_000 }), startedScope(runtime, { timeout: 1_000 })]
    runtime.time = start + 1_280

    runtime.advance(0)
    runtime.advance(200)

    expect(scopes.map(({ hasTimedOut, hadFairTime }) => [hasTimedOut, hadFairTime])).toEqual([
      [true, true],
      [true, true],
    ])
  })

  it('is given its time also where the deadline was late first', () => {
    const runtime = new FakeRuntime()
    const invocation = invocationOf(runtime, 30_000)
    const scope = startedScope(runtime, { invocation, timeout: 29_000 })
    runtime.time = start + 3_600_000

    runtime.fireAll()

    expect(scope.hasTimedOut).toBe(false)
  })

  it('says so where the operation had not started yet', async () => {
    const runtime = new FakeRuntime()
    const scope = scopeOf(runtime, { timeout: 2_000 })
    scope.start()
    const outcome = errorOf(scope.race(never()))

    runtime.advance(2_000)

    expect(await outcome).toMatchObject({ attempted: false })
  })

  it('sets a timer when the turn is over, for the time that is left then', async () => {
    const runtime = new FakeRuntime()
    const scopes = [1, 2].map(() => scopeOf(runtime, { timeout: 2_000 }))
    const clock = busyClockOf(runtime)
    for (const scope of scopes) scope.start(clock)
    expect(runtime.delays).toEqual([])

    runtime.time += 300
    await nextTurn()
    expect(runtime.delays).toEqual([1_700, 1_700])

    runtime.advance(1_700)
    expect(scopes.map(({ hasTimedOut }) => hasTimedOut)).toEqual([true, true])
  })

  it('sets no timer for a call that ended in the turn in which it began', async () => {
    const runtime = new FakeRuntime()
    const scope = scopeOf(runtime, { timeout: 2_000 })
    scope.start(busyClockOf(runtime))

    scope.end(false)
    await nextTurn()

    expect(runtime.delays).toEqual([])
  })

  it.each([
    [-5_000, 2_000],
    [5_000, 0],
  ])(
    'sets a timer for no more than its time and no less than none where the clock goes by %s ms',
    async (step, delay) => {
      const runtime = new FakeRuntime()
      scopeOf(runtime, { timeout: 2_000 }).start(busyClockOf(runtime))

      runtime.time += step
      await nextTurn()

      expect(runtime.delays).toEqual([delay])
    },
  )

  it('does not touch a call that ended in time', async () => {
    const runtime = new FakeRuntime()
    const scope = startedScope(runtime, { timeout: 2_000 })

    const value = await scope.race(Promise.resolve('value'))
    scope.dispose()
    runtime.advance(10_000)

    expect(value).toBe('value')
    expect(scope.cut).toBeUndefined()
    expect(runtime.timers.size).toBe(0)
  })

  it('passes on what the operation throws in time, as the same object', async () => {
    const scope = startedScope(new FakeRuntime(), { timeout: 2_000 })
    const refused = new Error('card declined')

    expect(await errorOf(scope.race(Promise.reject(refused)))).toBe(refused)
  })

  it('passes on values and thenables as an await would', async () => {
    const scope = startedScope(new FakeRuntime(), { timeout: 2_000 })
    // biome-ignore lint/suspicious/noThenProperty: a thenable that is no promise.
    const thenable = { then: (resolve: (value: string) => void) => resolve('thenable') } as PromiseLike<string>

    expect([await scope.race('value'), await scope.race(thenable)]).toEqual(['value', 'thenable'])
  })

  it('adds a timer of its own to that of the invocation', () => {
    const runtime = new FakeRuntime()
    const invocation = invocationOf(runtime, 30_000)

    const scope = startedScope(runtime, { timeout: 2_000, invocation })
    expect([...runtime.timers].map(({ at }) => at - start).sort((a, b) => a - b)).toEqual([2_000, 29_000])

    scope.dispose()
    expect([...runtime.timers].map(({ at }) => at - start)).toEqual([29_000])
  })

  it('cuts at every step that the call waits for', async () => {
    const runtime = new FakeRuntime()
    const scope = scopeOf(runtime, { timeout: 2_000 })
    scope.start()
    await scope.race(Promise.resolve('permit'))

    runtime.advance(2_000)

    expect(await errorOf(scope.race(Promise.resolve('too late')))).toBe(scope.cut?.error)
  })
})

describe('the deadline', () => {
  it('cuts a call before Lambda does, by the reserve', async () => {
    const runtime = new FakeRuntime()
    const scope = startedScope(runtime, { invocation: invocationOf(runtime, 3_000) })
    const outcome = errorOf(scope.race(never()))

    runtime.advance(1_999)
    expect(scope.cut).toBeUndefined()
    runtime.advance(1)

    expect(await outcome).toMatchObject({ reason: 'deadline', timeout: 2_000, attempted: true })
  })

  it('is what cuts a call whose own timeout would come later', async () => {
    const runtime = new FakeRuntime()
    const scope = startedScope(runtime, { timeout: 60_000, invocation: invocationOf(runtime, 3_000) })
    const outcome = errorOf(scope.race(never()))

    runtime.advance(60_000)

    expect(await outcome).toMatchObject({ reason: 'deadline' })
  })

  it.each([
    ['exactly the reserve', 1_000],
    ['less than the reserve', 400],
    ['nothing', 0],
    ['less than nothing', -50],
  ])('cuts a call at once that begins with %s left, and starts no timer', async (_what, remaining) => {
    const runtime = new FakeRuntime()
    const scope = scopeOf(runtime, { timeout: 2_000, invocation: invocationOf(runtime, remaining) })

    scope.start()

    expect(scope.cut?.error).toMatchObject({ reason: 'deadline', timeout: 0, attempted: false })
    expect(await errorOf(scope.race(never()))).toBe(scope.cut?.error)
    expect(runtime.timers.size).toBe(0)
    expect(scope.hadFairTime).toBe(false)
  })
})

describe('the caller’s signal', () => {
  it('cuts the call with the caller’s reason, which is no timeout', async () => {
    const controller = new AbortController()
    const scope = startedScope(new FakeRuntime(), { signal: controller.signal })
    const outcome = errorOf(scope.race(never()))
    const reason = new Error('the user went away')

    controller.abort(reason)

    expect(await outcome).toBe(reason)
    expect(scope.signal.reason).toBe(reason)
    expect(scope.hasTimedOut).toBe(false)
  })

  it('cuts the call before it starts if it is aborted already, without a timer or listener', async () => {
    const runtime = new FakeRuntime()
    const signal = AbortSignal.abort('gone')
    const listeners = countListeners(signal)
    const scope = scopeOf(runtime, { signal, timeout: 2_000, invocation: invocationOf(runtime, 30_000) })

    scope.start()

    expect(await errorOf(scope.race(never()))).toBe('gone')
    expect([runtime.timers.size, listeners()]).toEqual([0, 0])
    expect(scope.hasTimedOut).toBe(false)
  })

  it('aborted with an undefined reason still cuts', () => {
    const controller = new AbortController()
    const scope = startedScope(new FakeRuntime(), { signal: controller.signal })

    controller.abort()

    expect(scope.cut?.error).toBe(controller.signal.reason)
  })

  it('is let go of when the call ends', () => {
    const controller = new AbortController()
    const listeners = countListeners(controller.signal)
    const scope = startedScope(new FakeRuntime(), { signal: controller.signal })
    expect(listeners()).toBe(1)

    scope.dispose()
    controller.abort(new Error('too late'))

    expect(listeners()).toBe(0)
    expect(scope.cut).toBeUndefined()
  })
})

describe('the operation’s signal', () => {
  it('is aborted by a timeout with the error that the caller gets', () => {
    const runtime = new FakeRuntime()
    const scope = startedScope(runtime, { timeout: 2_000 })
    const { signal } = scope
    expect(signal.aborted).toBe(false)

    runtime.advance(2_000)

    expect(signal.aborted).toBe(true)
    expect(signal.reason).toBe(scope.cut?.error)
    expect(signal.reason).toMatchObject({ code: 'CIRCUIT_TIMEOUT' })
  })

  it('is the same each time it is read', () => {
    const scope = startedScope(new FakeRuntime())

    expect(scope.signal).toBe(scope.signal)
  })

  it('is created when it is first read, not before', () => {
    const created: AbortController[] = []
    const Original = globalThis.AbortController
    globalThis.AbortController = class extends Original {
      constructor() {
        super()
        created.push(this)
      }
    }
    try {
      const runtime = new FakeRuntime()
      const unread = startedScope(runtime, { timeout: 2_000, invocation: invocationOf(runtime, 3_000) })
      runtime.advance(5_000)
      unread.dispose()
      expect(created).toHaveLength(0)

      const { signal } = startedScope(runtime)
      expect(created.map((controller) => controller.signal)).toEqual([signal])
    } finally {
      globalThis.AbortController = Original
    }
  })

  it('is aborted from the start where it is first read after the cut', () => {
    const runtime = new FakeRuntime()
    const scope = startedScope(runtime, { timeout: 2_000 })
    runtime.advance(2_000)

    expect(scope.signal.aborted).toBe(true)
    expect(scope.signal.reason).toBe(scope.cut?.error)
  })

  it('is not aborted by the end of the call', () => {
    const scope = startedScope(new FakeRuntime(), { timeout: 2_000 })
    const { signal } = scope

    scope.dispose()

    expect(signal.aborted).toBe(false)
  })
})

describe('a call that is cut', () => {
  it('is cut once: the first cause stays', () => {
    const runtime = new FakeRuntime()
    const controller = new AbortController()
    const invocation = invocationOf(runtime, 5_000)
    const scope = startedScope(runtime, { timeout: 2_000, signal: controller.signal, invocation })
    runtime.advance(2_000)
    const first = scope.cut

    controller.abort(new Error('later'))
    runtime.advance(10_000)

    expect(scope.cut).toBe(first)
    expect(scope.signal.reason).toBe(first?.error)
  })

  it.each([
    ['rejects', (fail: (error: Error) => void) => fail(new Error('late'))],
    ['resolves', (_fail: unknown, succeed: (value: string) => void) => succeed('late')],
  ])('is not bothered by an abandoned operation that %s later', async (_how, finish) => {
    const runtime = new FakeRuntime()
    const scope = startedScope(runtime, { timeout: 2_000 })
    const operation = Promise.withResolvers<string>()
    const outcome = errorOf(scope.race(operation.promise))
    runtime.advance(2_000)
    const error = await outcome
    scope.dispose()

    finish(operation.reject, operation.resolve)
    await untilRejectionsAreReported()

    expect(error).toBe(scope.cut?.error)
  })

  it('leaves no rejection behind of a step that it never waited for', async () => {
    const runtime = new FakeRuntime()
    const scope = startedScope(runtime, { timeout: 2_000 })
    runtime.advance(2_000)

    const error = await errorOf(scope.race(Promise.reject(new Error('already failed'))))
    await untilRejectionsAreReported()

    expect(error).toBe(scope.cut?.error)
  })

  it('lets an operation that obeys its signal reject in the same turn', async () => {
    const runtime = new FakeRuntime()
    const scope = startedScope(runtime, { timeout: 2_000 })
    const obedient = new Promise<never>((_, reject) => {
      scope.signal.addEventListener('abort', () => reject(scope.signal.reason))
    })
    const outcome = errorOf(scope.race(obedient))

    runtime.advance(2_000)

    expect(await outcome).toBe(scope.cut?.error)
  })

  it('may start another call from its abort listener', () => {
    const runtime = new FakeRuntime()
    const invocation = invocationOf(runtime, 3_000)
    const scope = startedScope(runtime, { invocation })
    const nested: CallLimits[] = []
    scope.signal.addEventListener('abort', () => {
      nested.push(startedScope(runtime, { invocation, deadlineReserve: 500 }))
    })

    runtime.advance(2_000)
    expect(nested[0]?.cut).toBeUndefined()
    runtime.advance(500)

    expect(nested[0]?.hasTimedOut).toBe(true)
  })
})

describe('a call that has ended', () => {
  it('leaves no timer and no listener, in whatever order and however often it is disposed of', () => {
    const runtime = new FakeRuntime()
    const controller = new AbortController()
    const listeners = countListeners(controller.signal)
    const invocation = invocationOf(runtime, 30_000)
    const scopes = [1_000, 2_000, 3_000].map((timeout) =>
      startedScope(runtime, { timeout, signal: controller.signal, invocation }),
    )
    runtime.advance(1_500)

    for (const index of [2, 0, 1]) {
      scopes[index]?.dispose()
      scopes[index]?.dispose()
    }
    expect(runtime.holdsProcess).toBe(false)
    invocation.end()

    expect(runtime.timers.size).toBe(0)
    expect(listeners()).toBe(0)
  })

  it('keeps the timer of the invocation for the others', () => {
    const runtime = new FakeRuntime()
    const invocation = invocationOf(runtime, 30_000)
    const other = startedScope(runtime, { invocation })
    const scope = startedScope(runtime, { invocation })

    scope.dispose()
    scope.dispose()
    invocation.end()

    expect(runtime.holdsProcess).toBe(true)
    runtime.advance(29_000)
    expect([scope.hasTimedOut, other.hasTimedOut]).toEqual([false, true])
  })
})

describe('a fair time', () => {
  it('was given to an operation that its own timeout cut', () => {
    const runtime = new FakeRuntime()
    const scope = startedScope(runtime, { timeout: 50 })

    runtime.advance(200)

    expect(scope.hadFairTime).toBe(true)
  })

  it.each([
    [0, true],
    [1_000, true],
    [1_001, false],
    [1_999, false],
  ])('by its own timeout means half of it: %d of 2000 ms spent on waiting for a permit: %p', (waited, isFair) => {
    const runtime = new FakeRuntime()
    const scope = scopeOf(runtime, { timeout: 2_000 })
    scope.start()
    runtime.advance(waited)
    scope.markOperationStart()

    runtime.advance(2_000 - waited)

    expect(scope.hasTimedOut).toBe(true)
    expect(scope.hadFairTime).toBe(isFair)
  })

  it.each([
    ['a second', false, 999, 1],
    ['half of its timeout', 400, 199, 1],
    ['half of its timeout', 5_000, 2_499, 1],
  ] as const)('by the deadline means that the operation ran for %s', (_what, timeout, tooShort, more) => {
    const runtime = new FakeRuntime()
    const scope = startedScope(runtime, { timeout, invocation: invocationOf(runtime, 60_000) })
    runtime.time += tooShort
    scope.timeOut('deadline')
    expect(scope.hadFairTime).toBe(false)

    runtime.time += more

    expect(scope.hadFairTime).toBe(true)
  })

  it('is counted from the start of the operation, not of the call', () => {
    const runtime = new FakeRuntime()
    const scope = scopeOf(runtime, { invocation: invocationOf(runtime, 60_000) })
    scope.start()
    runtime.advance(58_500)
    scope.markOperationStart()

    runtime.advance(500)

    expect(scope.hasTimedOut).toBe(true)
    expect(scope.hadFairTime).toBe(false)
  })

  it('is measured as by the deadline while nothing has cut the call', () => {
    const runtime = new FakeRuntime()
    const scope = startedScope(runtime, { timeout: 400, invocation: invocationOf(runtime, 60_000) })
    runtime.time += 199
    expect(scope.hadFairTime).toBe(false)

    runtime.time += 1

    expect(scope.hadFairTime).toBe(true)
  })

  it('was not given to an operation that never started', () => {
    const runtime = new FakeRuntime()
    const scope = scopeOf(runtime, { timeout: 2_000 })
    scope.start()

    runtime.advance(2_000)

    expect(scope.hadFairTime).toBe(false)
  })

  it('was not given where the clock stepped back', () => {
    const runtime = new FakeRuntime()
    const scope = startedScope(runtime, { invocation: invocationOf(runtime, 60_000) })
    runtime.time -= 3_600_000

    scope.timeOut('deadline')

    expect(scope.hadFairTime).toBe(false)
  })
})
