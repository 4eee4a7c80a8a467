import { describe, expect, it } from '@jest/globals'
import { CircuitStorageError, type CircuitStorageErrorDetails } from '../../../src/errors.ts'
import { refuseRepetitions } from '../../../src/storage/distinct-writes.ts'
import { BatchOutcome, gravestOf } from '../../../src/storage/replies.ts'
import { circuitRecord } from '../../../src/testing/index.ts'

function failure(details: Partial<CircuitStorageErrorDetails> = {}): CircuitStorageError {
  return new CircuitStorageError('Oops.', { operation: 'getState', ...details })
}

function thrownBy(action: () => unknown): CircuitStorageError {
  try {
    action()
  } catch (error) {
    return error as CircuitStorageError
  }
  throw new Error('nothing was thrown')
}

describe('the outcome of a batch', () => {
  it('is the results where nothing failed', () => {
    const outcome = new BatchOutcome<number>('batchGetState', 2)
    outcome.succeeded('stripe', 1)

    expect(outcome.results()).toEqual(new Map([['stripe', 1]]))
  })

  it('is an error with the results and the errors where something failed', () => {
    const outcome = new BatchOutcome<number>('batchGetState', 3)
    const cause = new Error('down')
    outcome.succeeded('stripe', 1)
    outcome.failed('paypal', failure({ cause, kind: 'throttled' }))

    const error = thrownBy(() => outcome.results())

    expect(error).toMatchObject({
      message: 'batchGetState failed for 1 of 3 circuits; "paypal": Oops.',
      operation: 'batchGetState',
      service: undefined,
      kind: 'throttled',
      corrupt: false,
      cause,
    })
    expect(error.results).toEqual(new Map([['stripe', 1]]))
    expect([...(error.errors ?? [])]).toMatchObject([
      ['paypal', { operation: 'batchGetState', service: 'paypal', cause, kind: 'throttled' }],
    ])
  })

  it('is corrupt where nothing but damage failed, and names the circuit of a batch of one', () => {
    const outcome = new BatchOutcome<number>('batchGetState', 1)
    outcome.failed('stripe', failure({ corrupt: true }))

    expect(thrownBy(() => outcome.results())).toMatchObject({
      corrupt: true,
      kind: 'corrupt',
      service: 'stripe',
      cause: { corrupt: true },
    })
  })
})

describe('the gravest of several errors', () => {
  const damaged = failure({ corrupt: true })
  const [odd, busy, refused] = [failure(), failure({ kind: 'throttled' }), failure({ kind: 'misconfigured' })]

  it.each([
    ['corrupt', [damaged, damaged]],
    ['unavailable', [damaged, odd]],
    ['throttled', [odd, busy, damaged]],
    ['misconfigured', [busy, refused]],
    ['unavailable', [Object.assign(new Error('plain'), { code: 'CIRCUIT_STORAGE' }) as CircuitStorageError]],
    ['corrupt', [Object.assign(new Error('plain'), { corrupt: true }) as unknown as CircuitStorageError]],
  ])('is %s', (kind, errors) => {
    expect(gravestOf(errors)).toBe(kind)
  })
})

describe('a batch of writes that names a circuit twice', () => {
  it('is refused as a whole', () => {
    const write = (serviceKey: string) => ({ serviceKey, version: undefined, next: circuitRecord() })

    expect(thrownBy(() => refuseRepetitions('batchSetState', [write('a'), write('b'), write('a')]))).toMatchObject({
      message: 'batchSetState was given "a" twice, and wrote nothing: give each circuit once.',
      operation: 'batchSetState',
      service: 'a',
    })
    expect(() => refuseRepetitions('batchSetState', [write('a'), write('b')])).not.toThrow()
  })
})
