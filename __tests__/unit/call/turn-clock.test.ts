import { describe, expect, it, jest } from '@jest/globals'
import { TurnClock, turnClockOf } from '../../../src/call/turn-clock.ts'
import { CircuitBreaker } from '../../../src/index.ts'
import { systemRuntime } from '../../../src/runtime.ts'
import { ok } from '../../support/virtual-fleet.ts'

/** A clock that moves when it is told to, over the machine's own event loop. */
function clockAt(start: number, setTimeout = systemRuntime.setTimeout) {
  let [time, readings] = [start, 0]
  const now = (): number => {
    readings++
    return time
  }
  return {
    clock: new TurnClock({ now, setTimeout }),
    pass: (milliseconds: number) => {
      time += milliseconds
    },
    get readings() {
      return readings
    },
  }
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

describe('the clock of a turn', () => {
  it('is read for each of those that come one by one', () => {
    const subject = clockAt(1_000)
    const seen = [0, 10, 20, 30].map(() => {
      subject.pass(10)
      return subject.clock.now()
    })
    expect(seen).toEqual([1_010, 1_020, 1_030, 1_040])
  })

  it('is read once for those that come close together in a turn, and again in the next turn', async () => {
    const subject = clockAt(1_000)
    for (let n = 0; n < 50; n++) subject.clock.now()
    expect(subject.readings).toBe(2)
    subject.pass(5)
    expect(subject.clock.now()).toBe(1_000)
    await nextTurn()
    expect(subject.clock.now()).toBe(1_005)
  })

  it('is read again in a turn that goes on for 64 calls', () => {
    const subject = clockAt(1_000)
    for (let n = 0; n < 2; n++) subject.clock.now()
    subject.pass(5)
    const seen = Array.from({ length: 64 }, () => subject.clock.now())
    expect([seen.at(0), seen.at(62), seen.at(63)]).toEqual([1_000, 1_000, 1_005])
  })

  it('is read each time where timers are replaced: time may pass within a turn', () => {
    const subject = clockAt(1_000, () => ({}))
    for (let n = 0; n < 50; n++) subject.clock.now()
    expect(subject.readings).toBe(50)
  })

  it('is read each time after it has stepped back', () => {
    const subject = clockAt(1_000)
    subject.clock.now()
    subject.pass(-500)
    expect(subject.clock.now()).toBe(500)
  })

  it('tells a listener of the end of the turn, and at once where calls are rare', async () => {
    const { clock } = clockAt(1_000)
    const turnEnded = jest.fn()
    clock.whenOver({ turnEnded })
    expect(turnEnded).toHaveBeenCalledTimes(1)
    for (let n = 0; n < 2; n++) clock.now()
    clock.whenOver({ turnEnded })
    expect(turnEnded).toHaveBeenCalledTimes(1)
    await nextTurn()
    expect(turnEnded).toHaveBeenCalledTimes(2)
  })

  it('tells no more than 64 listeners together, because a turn may go on for ever', () => {
    const { clock } = clockAt(1_000)
    const turnEnded = jest.fn()
    for (let n = 0; n < 2; n++) clock.now()
    for (let n = 0; n < 63; n++) clock.whenOver({ turnEnded })
    expect(turnEnded).not.toHaveBeenCalled()
    for (let n = 0; n < 64; n++) clock.whenOver({ turnEnded })
    expect(turnEnded).toHaveBeenCalledTimes(64)
  })

  it('takes a turn for over that has gone on for a hundredth of a second', () => {
    const subject = clockAt(1_000)
    const turnEnded = jest.fn()
    for (let n = 0; n < 2; n++) subject.clock.now()
    subject.clock.whenOver({ turnEnded })
    for (let n = 0; n < 63; n++) subject.clock.now()
    subject.pass(10)
    expect(subject.clock.now()).toBe(1_010)
    expect(turnEnded).toHaveBeenCalledTimes(1)
  })

  it.each(['setImmediate', 'setTimeout'] as const)('takes calls for rare where a test has replaced %s', (name) => {
    const subject = clockAt(1_000)
    const taken = jest.spyOn(globalThis, name).mockImplementation(() => undefined as never)
    const turnEnded = jest.fn()
    for (let n = 0; n < 5; n++) subject.clock.now()
    subject.clock.whenOver({ turnEnded })
    taken.mockRestore()
    expect(turnEnded).toHaveBeenCalledTimes(1)
    expect(subject.readings).toBe(5)
  })

  it('is read for an instant, which those who come close after it share', () => {
    const subject = clockAt(1_000)
    for (let n = 0; n < 2; n++) subject.clock.now()
    subject.pass(5)
    expect([subject.clock.now(), subject.clock.instant(), subject.clock.now()]).toEqual([1_000, 1_005, 1_005])
  })

  it('numbers its readings', () => {
    const subject = clockAt(1_000)
    const [first, second, third] = [1, 2, 3].map(() => subject.clock.reading())
    expect([second === first, third === second, subject.clock.at]).toEqual([false, true, 1_000])
  })

  it('is one for all that share a runtime', () => {
    expect(turnClockOf(systemRuntime)).toBe(turnClockOf(systemRuntime))
    expect(turnClockOf({ ...systemRuntime })).not.toBe(turnClockOf(systemRuntime))
  })
})

describe('a call that passes and succeeds', () => {
  it.each([
    ['outside of an invocation', {}],
    ['under a deadline', { getRemainingTimeInMillis: () => 900_000 }],
  ])('reads no clock of its own %s: a thousand in a turn read it about every 64th time', async (_where, context) => {
    const now = jest.fn(() => 1_800_000_000_000)
    const breaker = new CircuitBreaker({ services: ['stripe'], storage: 'memory' }, { env: {}, now })
    await breaker.load()
    const callExternal = breaker.callExternalFor(context)
    await callExternal('stripe', ok)
    now.mockClear()
    for (let n = 0; n < 1_000; n++) await callExternal('stripe', ok)
    expect(now.mock.calls.length).toBeLessThanOrEqual(20)
  })
})
