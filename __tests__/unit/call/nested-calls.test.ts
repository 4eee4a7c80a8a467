import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import type { CircuitBreaker } from '../../../src/index.ts'
import { createFleet, failTimes, never, ok, outcomeOf } from '../../support/virtual-fleet.ts'

/** A breaker whose circuits are closed and quiet, so that calls take the short way. */
async function startQuiet({ start }: ReturnType<typeof createFleet>): Promise<CircuitBreaker> {
  const breaker = start()
  await breaker.load()
  for (const service of breaker.services) await breaker.call(service, ok)
  await breaker.flush()
  return breaker
}

/** A call with others within it. */
interface Tree {
  readonly service: string
  /** The turns of the event loop before those begin. */
  readonly turns: number
  readonly parts: readonly Tree[]
}

/** Runs so many at once. */
function atOnce<T>(count: number, run: (index: number) => Promise<T>): Promise<T[]> {
  return Promise.all(Array.from({ length: count }, (_, index) => run(index)))
}

const turn = () => new Promise((resolve) => setImmediate(resolve))

describe('a call within the operation of another', () => {
  it.each([
    ['at once', async () => undefined],
    ['after a while', turn],
  ])('of the same service does not wait for the permits that its likes hold: %s', async (_when, pause) => {
    const breaker = await startQuiet(createFleet())
    const outer = () =>
      breaker.call('stripe', async () => {
        await pause()
        return breaker.call('stripe', ok)
      })
    expect(await atOnce(10, outer)).toEqual(Array(10).fill('ok'))
    expect(await atOnce(25, outer)).toEqual(Array(25).fill('ok'))
  })

  it('goes on where it has calls within it itself, and where there is one permit', async () => {
    const breaker = await startQuiet(createFleet({ maxConcurrent: 1 }))
    const deep = (depth: number): Promise<string> =>
      breaker.call('stripe', () => (depth === 0 ? ok() : turn().then(() => deep(depth - 1))))
    expect(await atOnce(3, () => deep(3))).toEqual(['ok', 'ok', 'ok'])
  })

  it('goes on where calls of two services have each other within them', async () => {
    const breaker = await startQuiet(createFleet({ services: ['s', 't'] }))
    const within = (outer: string, inner: string) => () =>
      breaker.call(outer, () => turn().then(() => breaker.call(inner, ok)))
    const crossed = [...Array(10).fill(within('s', 't')), ...Array(10).fill(within('t', 's'))]
    expect(await Promise.all(crossed.map((run) => run()))).toEqual(Array(20).fill('ok'))
  })

  it('lets no more operations than permits do their work, however many there are', async () => {
    const breaker = await startQuiet(createFleet({ maxConcurrent: 3 }))
    let atWork = 0
    let most = 0
    const work = async (): Promise<void> => {
      most = Math.max(most, ++atWork)
      await turn()
      atWork--
    }
    await atOnce(5, () =>
      breaker.call('stripe', () => turn().then(() => atOnce(20, () => breaker.call('stripe', work)))),
    )
    expect(most).toBeGreaterThan(1)
    expect(most).toBeLessThanOrEqual(3)
  })

  it('goes on whatever has whatever within it, and no more operations than permits do their work', async () => {
    const tree = fc.memo(
      (depth): fc.Arbitrary<Tree> =>
        fc.record({
          service: fc.constantFrom('s', 't', 'u'),
          turns: fc.nat(2),
          parts: depth === 1 ? fc.constant([]) : fc.array(tree(), { maxLength: 3 }),
        }),
    )
    const property = fc.asyncProperty(
      fc.array(tree(3), { minLength: 1, maxLength: 12 }),
      fc.integer({ min: 1, max: 3 }),
      async (roots, maxConcurrent) => {
        const breaker = await startQuiet(createFleet({ services: ['s', 't', 'u'], maxConcurrent }))
        let atWork = 0
        let most = 0
        const run = ({ service, turns, parts }: Tree): Promise<void> =>
          breaker.call(service, async () => {
            for (let each = 0; each < turns; each++) await turn()
            await Promise.all(parts.map(run))
            most = Math.max(most, ++atWork)
            await turn()
            atWork--
          })
        // Two rounds: in the second one it is known that calls have others within them.
        for (let round = 0; round < 2; round++) await Promise.all(roots.map(run))
        expect(most).toBeLessThanOrEqual(3 * maxConcurrent)
      },
    )
    await fc.assert(property, { numRuns: 200 })
  })

  it('that nobody awaits keeps the permit when the other one has ended', async () => {
    const fleet = createFleet({ maxConcurrent: 1 })
    const breaker = await startQuiet(fleet)
    const inner = Promise.withResolvers<string>()
    let within: Promise<string> | undefined
    await breaker.call('stripe', async () => {
      within = breaker.call('stripe', () => inner.promise)
      await turn()
    })
    const next = breaker.call('stripe', async () => 'next')
    await fleet.runtime.settle()
    inner.resolve('inner')
    expect(await Promise.race([next, within])).toBe('inner')
    expect(await next).toBe('next')
  })

  it('that begins when the other one has been cut waits in line as all others do', async () => {
    const fleet = createFleet({ maxConcurrent: 1, failureThreshold: 9 })
    const breaker = await startQuiet(fleet)
    const late = Promise.withResolvers<Awaited<ReturnType<typeof outcomeOf>>>()
    const cut = outcomeOf(
      breaker.call(
        'stripe',
        async () => {
          await fleet.runtime.sleep(200)
          late.resolve(outcomeOf(breaker.call('stripe', ok, { timeout: 100 })))
        },
        { timeout: 100 },
      ),
    )
    await fleet.runtime.advance(100)
    await cut
    void breaker.call('stripe', never)
    await fleet.runtime.advance(100)
    await fleet.runtime.advance(100)
    expect((await late.promise).error).toMatchObject({ attempted: false, waited: 100 })
  })

  it('is refused where nobody may wait and the permit of the other one is lent already', async () => {
    const breaker = await startQuiet(createFleet({ maxConcurrent: 1, maxQueue: 0 }))
    const inner = () => outcomeOf(breaker.call('stripe', turn))
    const [first, second] = await breaker.call('stripe', () => Promise.all([inner(), inner()]))
    expect(first).not.toHaveProperty('error')
    expect(second?.error).toMatchObject({ code: 'CIRCUIT_CONCURRENCY_LIMIT' })
  })

  it('never makes the service look unwell because it waits, neither the first time nor later', async () => {
    const fleet = createFleet({ maxConcurrent: 4, failureThreshold: 1, timeout: 1_000 })
    const breaker = await startQuiet(fleet)
    const work = () => breaker.call('stripe', () => fleet.runtime.sleep(450))
    const outer = (parts: number) => outcomeOf(breaker.call('stripe', () => turn().then(() => atOnce(parts, work))))
    for (const parts of [1, 5]) {
      const calls = atOnce(8, () => outer(parts))
      await fleet.runtime.advance(3_000)
      const errors = (await calls).flatMap(({ error }) => error ?? [])
      expect(errors.length).toBeGreaterThan(0)
      for (const error of errors) expect(error).toMatchObject({ code: 'CIRCUIT_TIMEOUT' })
      expect(breaker.circuits.stripe).toMatchObject({ state: 'CLOSED', failureCount: 0 })
    }
  })

  it('that another call awaits, which it is no part of, goes on once such calls are known', async () => {
    const fleet = createFleet({ maxConcurrent: 2, failureThreshold: 9 })
    const breaker = await startQuiet(fleet)
    const round = async (): Promise<(string | undefined)[]> => {
      let token: Promise<string> | undefined
      const useToken = () =>
        outcomeOf(
          breaker.call(
            'stripe',
            async () => {
              await turn()
              token ??= breaker.call('stripe', ok, { timeout: 50 })
              return token
            },
            { timeout: 100 },
          ),
        )
      const calls = atOnce(2, useToken)
      await fleet.runtime.advance(200)
      return (await calls).map(({ value }) => value)
    }
    expect(await round()).toEqual([undefined, undefined])
    expect(await round()).toEqual(['ok', 'ok'])
  })
})

describe('calls that wait for others, which hang', () => {
  it('do not keep those from counting as failures', async () => {
    const fleet = createFleet()
    const breaker = await startQuiet(fleet)
    const callExternal = breaker.callExternalFor({ getRemainingTimeInMillis: () => 3_000 })
    const calls = atOnce(50, () => outcomeOf(callExternal('stripe', never)))
    await fleet.runtime.advance(2_000)
    const errors = (await calls).map(({ error }) => error)
    expect(errors.filter((error) => (error as { attempted?: boolean }).attempted)).toHaveLength(10)
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
    await failTimes(breaker, 1)
  })
})
