import { afterEach, beforeEach, describe, expect, it, jest } from '@jest/globals'
import { Notifier, type StateChange } from '../../src/events.ts'
import { warningsEmitted } from '../support/warning-texts.ts'

const change: StateChange = {
  service: 'stripe',
  from: 'CLOSED',
  to: 'OPEN',
  generation: 1,
  at: 1_800_000_000_000,
  reason: 'failure-threshold',
  requestId: undefined,
  observed: false,
  evidence: { failures: 3, successes: 0, reporters: 2 },
  lastFailure: { at: 1_800_000_000_000, name: 'Error', status: 503 },
  retryAt: 1_800_000_010_000,
}

/** Long enough for Node to report a rejection that nobody handles: Jest fails the test then. */
async function untilRejectionsAreReported(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve))
}

const notify = (listener: (event: StateChange) => unknown, event: StateChange): Notifier => {
  const notifier = new Notifier()
  notifier.notify('onStateChange', listener, event)
  return notifier
}

const emitted = jest.spyOn(process, 'emitWarning')

beforeEach(() => {
  emitted.mockClear().mockImplementation(() => {})
})

afterEach(() => {
  emitted.mockReset()
})

describe('notifying a listener', () => {
  it('hands it the event, at once and once', () => {
    const received: StateChange[] = []

    notify((event: StateChange) => received.push(event), change)

    expect(received).toEqual([change])
    expect(received[0]).toBe(change)
  })

  it.each<[string, () => unknown]>([
    [
      'throws',
      () => {
        throw new Error('listener')
      },
    ],
    [
      'throws undefined',
      () => {
        throw undefined
      },
    ],
    ['rejects', () => Promise.reject(new Error('listener'))],
    [
      'rejects later',
      async () => {
        await undefined
        throw new Error('listener')
      },
    ],
    ['resolves', async () => 'done'],
    ['returns a value', () => 42],
    // biome-ignore lint/suspicious/noThenProperty: it looks like a promise.
    ['returns what only looks like a promise', () => ({ then: 'not a function' })],
    ['never settles', () => new Promise(() => {})],
    ['returns null', () => null],
    ['returns an object without prototype', () => Object.create(null)],
    [
      'returns a thenable that throws',
      () => ({
        // biome-ignore lint/suspicious/noThenProperty: a thenable that is no promise.
        then: () => {
          throw new Error('then')
        },
      }),
    ],
    [
      'returns something whose then cannot be read',
      () => ({
        // biome-ignore lint/suspicious/noThenProperty: a thenable that is no promise.
        get then() {
          throw new Error('getter')
        },
      }),
    ],
  ])('changes nothing when it %s', async (_what, listener) => {
    expect(() => notify(listener, change)).not.toThrow()
    await untilRejectionsAreReported()
  })

  it('does not wait for it', async () => {
    const { promise, resolve } = Promise.withResolvers<void>()
    let isDone = false

    notify(async () => {
      await promise
      isDone = true
    }, change)
    expect(isDone).toBe(false)

    resolve()
    await untilRejectionsAreReported()
    expect(isDone).toBe(true)
  })

  // A library's (Bluebird) or another realm's (`node:vm`): left unhandled, its rejection would end a Node process. Here
  // the promise only tells whether somebody asked for its rejection.
  it('ignores the rejection of a promise of another class or realm', async () => {
    let isHandled = false
    const foreign = {
      // biome-ignore lint/suspicious/noThenProperty: a promise that is no `Promise`.
      then: (_: unknown, onRejected?: unknown) => {
        isHandled = typeof onRejected === 'function'
      },
    }

    notify(() => foreign, change)
    await untilRejectionsAreReported()

    expect(isHandled).toBe(true)
  })
})

describe('a listener that fails', () => {
  it.each<[string, () => unknown]>([
    [
      'throws',
      () => {
        throw Object.assign(new Error('arn:aws:sns:secret'), { name: 'ThrownError', code: 'E_THROWN' })
      },
    ],
    ['rejects', () => Promise.reject(Object.assign(new Error('password=hunter2'), { name: 'RejectedError' }))],
  ])('is warned of once when it %s, by its name and code', async (_what, listener) => {
    for (let event = 0; event < 3; event++) notify(listener, change)
    await warningsEmitted()

    expect(emitted).toHaveBeenCalledTimes(1)
    expect(emitted).toHaveBeenCalledWith(
      expect.stringMatching(/^A listener of onStateChange failed with (ThrownError \(E_THROWN\)|RejectedError), and/),
      { type: 'CircuitBreakerWarning', code: 'CIRCUIT_LISTENER' },
    )
    expect(JSON.stringify(emitted.mock.calls)).not.toMatch(/secret|hunter2/)
  })

  it.each<[string, unknown]>([
    ['resolves', Promise.resolve()],
    ['rejects', Promise.reject(new Error('done with'))],
  ])('or succeeds is at work until its promise %s', async (_what, promise) => {
    const notifier = notify(() => promise, change)
    expect(notifier.isBusy).toBe(true)

    await untilRejectionsAreReported()

    expect(notifier.isBusy).toBe(false)
  })
})
