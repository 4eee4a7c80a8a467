import { describe, expect, it, jest } from '@jest/globals'
import type { StateChange } from '../../../src/index.ts'
import type { CircuitRecord } from '../../../src/storage/contract.ts'
import type { RecordedRequest } from '../../support/recording-storage.ts'
import { createFleet, failTimes, ok, outcomeOf, trip, unavailable } from '../../support/virtual-fleet.ts'

/** The write that opens a circuit. */
const opens = ({ args }: RecordedRequest): boolean => (args[2] as Partial<CircuitRecord> | undefined)?.state === 'OPEN'

describe('onStateChange', () => {
  it('tells exactly one instance of each transition', async () => {
    const { start, runtime, events } = createFleet()
    const fleet = Array.from({ length: 6 }, () => start())
    await Promise.all(fleet.map((breaker) => breaker.load()))
    await Promise.all(fleet.map((breaker) => failTimes(breaker, 3)))
    await Promise.all(fleet.map((breaker) => breaker.flush()))
    await runtime.advance(11_000)
    await Promise.all(fleet.map((breaker) => outcomeOf(breaker.call('stripe', ok))))
    await Promise.all(fleet.map((breaker) => breaker.flush()))
    expect(events.map(({ from, to, generation, reason }) => [from, to, generation, reason])).toEqual([
      ['CLOSED', 'OPEN', 1, 'failure-threshold'],
      ['OPEN', 'HALF_OPEN', 2, 'probe-started'],
      ['HALF_OPEN', 'CLOSED', 3, 'probe-succeeded'],
    ])
  })

  it('says which service, when, why and in which request', async () => {
    const { start, runtime, events } = createFleet()
    const breaker = start()
    await breaker.load()
    const invoke = breaker.callExternalFor({ awsRequestId: 'request-7' })
    for (let index = 0; index < 3; index++) await outcomeOf(invoke('stripe', unavailable))
    await breaker.flush()
    expect(events).toEqual([
      {
        service: 'stripe',
        from: 'CLOSED',
        to: 'OPEN',
        generation: 1,
        at: runtime.now(),
        reason: 'failure-threshold',
        requestId: 'request-7',
        observed: false,
        evidence: { failures: 3, successes: 0, reporters: 1 },
        lastFailure: { at: runtime.now(), name: 'ServiceUnavailable', status: 503 },
        retryAt: runtime.now() + 10_000,
      },
    ])
    await runtime.advance(11_000)
    await breaker.callExternalFor({ awsRequestId: 'request-8' })('stripe', ok)
    await breaker.flush()
    expect(events.slice(1).map(({ requestId }) => requestId)).toEqual(['request-8', 'request-8'])
  })

  it.each(['lose', 'lose-with-error'] as const)(
    'tells of a transition once though its reply was lost (%s)',
    async (fault) => {
      const { start, storage, runtime, events } = createFleet()
      const [author, other] = [start(), start()]
      await Promise.all([author.load(), other.load()])
      storage.inject(fault, opens)
      await failTimes(author, 3)
      await runtime.advance(600)
      expect((await storage.peek('stripe'))?.state).toBe('OPEN')
      await other.load()
      for (let index = 0; index < 3; index++) {
        await runtime.advance(5_000)
        await Promise.all([author.load(), other.load()])
        await author.flush()
      }
      expect(events.map(({ to, generation }) => [to, generation])).toEqual([['OPEN', 1]])
    },
  )

  it('tells the author of it though others have written since', async () => {
    const { start, storage, runtime, events } = createFleet()
    const [author, other] = [start(), start()]
    await Promise.all([author.load(), other.load()])
    storage.inject('lose-with-error', opens)
    await failTimes(author, 3)
    await runtime.advance(10_000)
    await other.load()
    await other.call('stripe', ok)
    await other.flush()
    await author.load()
    expect(events.map(({ to, generation }) => [to, generation]).sort()).toEqual([
      ['CLOSED', 3],
      ['HALF_OPEN', 2],
      ['OPEN', 1],
    ])
  })

  it('does not tell of a transition that was never stored', async () => {
    const { start, storage, runtime, events } = createFleet()
    const breaker = start()
    await breaker.load()
    storage.inject('fail', opens, 2)
    await failTimes(breaker, 3)
    await runtime.settle()
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
    expect(events).toEqual([])
  })

  it('delivers what was learned by reading only to those who asked for it', async () => {
    const { start, runtime, events } = createFleet()
    const [author, reader] = [start(), start()]
    await reader.load()
    const observed: StateChange[] = []
    const plain: StateChange[] = []
    reader.onStateChange((change) => observed.push(change), { observed: true })
    reader.onStateChange((change) => plain.push(change))
    await trip(author)
    await runtime.advance(5_000)
    await reader.load()
    await reader.load()
    expect(observed).toEqual([
      expect.objectContaining({ to: 'OPEN', generation: 1, reason: 'observed', observed: true, requestId: undefined }),
    ])
    expect(plain).toEqual([])
    expect(events).toHaveLength(1)
  })

  it('tells an observer of a transition whose reply was lost as made alone, and again when it proves to be stored', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    const seen: string[] = []
    breaker.onStateChange(({ from, to, observed }) => seen.push(`${from} ${to} ${observed}`), { observed: true })
    await breaker.load()
    storage.inject('lose-with-error', opens)
    await failTimes(breaker, 3)
    await runtime.advance(5_000)
    await breaker.load()
    expect(seen).toEqual(['CLOSED OPEN true', 'CLOSED OPEN false'])
  })

  it('tells when the snapshot is up to date', async () => {
    const { start, runtime } = createFleet()
    const breaker = start()
    const isRight: boolean[] = []
    breaker.onStateChange(({ to, generation }) => {
      const { state, generation: current } = breaker.snapshot('stripe')
      isRight.push(to === state && generation === current)
    })
    await trip(breaker)
    await runtime.advance(11_000)
    await breaker.call('stripe', ok)
    await breaker.flush()
    await breaker.forceOpen('stripe')
    await breaker.reset('stripe')
    expect(isRight).toEqual([true, true, true, true, true])
  })

  it('stops telling whoever has unsubscribed, and only them', async () => {
    const breaker = createFleet().start()
    const [gone, stays] = [jest.fn(), jest.fn()]
    const unsubscribe = breaker.onStateChange(gone)
    breaker.onStateChange(stays)
    unsubscribe()
    unsubscribe()
    await breaker.forceOpen('stripe')
    expect(gone).not.toHaveBeenCalled()
    expect(stays).toHaveBeenCalledTimes(1)
  })

  it.each([
    [
      'throws',
      () => {
        throw new Error('listener')
      },
    ],
    ['rejects', () => Promise.reject(new Error('listener'))],
  ])('is not harmed by a listener that %s', async (_how, listener) => {
    const unhandled = jest.fn()
    process.on('unhandledRejection', unhandled)
    const { start, events } = createFleet({}, {})
    const breaker = start()
    const others = jest.fn()
    breaker.onStateChange(listener)
    breaker.onStateChange(others)
    await trip(breaker)
    await new Promise((resolve) => setImmediate(resolve))
    process.off('unhandledRejection', unhandled)
    expect(others).toHaveBeenCalledTimes(1)
    expect(events).toHaveLength(1)
    expect(unhandled).not.toHaveBeenCalled()
  })

  it('lets a listener call the breaker', async () => {
    const { start, storage } = createFleet()
    const breaker = start()
    const resets: Promise<void>[] = []
    breaker.onStateChange(({ to }) => {
      if (to === 'OPEN') resets.push(breaker.reset('stripe'))
    })
    await trip(breaker)
    await Promise.all(resets)
    expect((await storage.peek('stripe'))?.state).toBe('CLOSED')
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
  })
})

describe('onStorageError', () => {
  it('unsubscribes, and is not harmed by a listener that throws', async () => {
    const { start, storage, storageErrors } = createFleet({ cacheTtl: 0 })
    const breaker = start()
    const gone = jest.fn()
    breaker.onStorageError(() => {
      throw new Error('listener')
    })
    const unsubscribe = breaker.onStorageError(gone)
    storage.inject('fail')
    await breaker.load()
    unsubscribe()
    storage.inject('fail')
    await breaker.load()
    expect(gone).toHaveBeenCalledTimes(1)
    expect(storageErrors).toHaveLength(2)
  })
})
