import { afterAll, beforeEach, describe, expect, it, jest } from '@jest/globals'
import type { CallOptions } from '../../../src/index.ts'
import { createFleet, never, ok, outcomeOf } from '../../support/virtual-fleet.ts'
import { warningsEmitted } from '../../support/warning-texts.ts'

const warn = jest.spyOn(process, 'emitWarning').mockReturnValue(undefined)
beforeEach(() => void warn.mockClear())
afterAll(() => warn.mockRestore())

const warnings = () => warn.mock.calls.map(([text]) => text)

describe('a call that nothing bounds', () => {
  it('is warned of once when it has run for a minute, with the setting that bounds it', async () => {
    const { start, runtime } = createFleet({ services: ['endless'] })
    const breaker = start()
    await breaker.load()
    for (let index = 0; index < 1_000; index++) void breaker.call('endless', never)
    await runtime.advance(59_999)
    await warningsEmitted()
    expect(warnings()).toEqual([])
    await runtime.advance(1)
    await warningsEmitted()
    expect(warnings()).toEqual([
      expect.stringMatching(/^A call of "endless" has run for a minute.+Set CIRCUIT_BREAKER_TIMEOUT/),
    ])
    await runtime.advance(120_000)
    void start().call('endless', never)
    await runtime.advance(60_000)
    await warningsEmitted()
    expect(warnings()).toHaveLength(1)
  })

  it('is warned of where the circuit is quiet, by the one that takes the last permit', async () => {
    const { start, runtime } = createFleet({ services: ['quiet'] })
    const breaker = start()
    await breaker.load()
    await breaker.call('quiet', ok)
    for (let index = 0; index < 10; index++) void breaker.call('quiet', never)
    await runtime.advance(60_000)
    await warningsEmitted()
    expect(warnings()).toHaveLength(1)
  })

  it('is warned of where the circuit is quiet and permits are left: a call in a second is watched', async () => {
    const { start, runtime } = createFleet({ services: ['sampled'] })
    const breaker = start()
    await breaker.load()
    for (let index = 0; index < 2; index++) await breaker.call('sampled', ok)
    await runtime.advance(999)
    const { delays } = runtime
    const before = delays.length
    await breaker.call('sampled', ok)
    expect(delays).toHaveLength(before)
    await runtime.advance(1)
    void breaker.call('sampled', never)
    await runtime.advance(60_000)
    await warningsEmitted()
    expect(warnings()).toHaveLength(1)
  })

  it.each<[string, CallOptions]>([
    ['a timeout', { timeout: 70_000 }],
    ['a signal', { signal: new AbortController().signal }],
  ])('is not meant where there is %s', async (_what, options) => {
    const { start, runtime } = createFleet({ services: ['bound'] })
    void outcomeOf(start().call('bound', never, options))
    const invocation = start().callExternalFor({ getRemainingTimeInMillis: () => 900_000 })
    void invocation('bound', never)
    void start({ mode: 'off' }).call('bound', never)
    await runtime.advance(65_000)
    await warningsEmitted()
    expect(warnings()).toEqual([])
  })

  it('is not warned of when it has ended, and leaves no timer', async () => {
    const { start, runtime } = createFleet({ services: ['slow'], failureThreshold: 9 })
    const breaker = start()
    await breaker.load()
    const call = breaker.call('slow', () => runtime.sleep(50_000))
    await runtime.advance(50_000)
    await call
    await outcomeOf(breaker.call('slow', () => Promise.reject(new Error('none'))))
    expect(runtime.pendingTimers).toEqual([])
  })
})
