import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import { Semaphore, type Waiter } from '../../../src/call/semaphore.ts'

function join(semaphore: Semaphore): Waiter {
  const waiter = semaphore.join()
  if (waiter === undefined) throw new Error('Expected a place in the queue, but it is full.')
  return waiter
}

/** Writes down who was granted or rejected, in order. */
function watch(log: string[], name: string, waiter: Waiter): Waiter {
  waiter.granted.then(
    () => log.push(`${name} granted`),
    (error: unknown) => log.push(`${name} rejected: ${(error as Error).message}`),
  )
  return waiter
}

/** Lets everything that is settled be heard of. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await undefined
}

/** How many permits can be taken now; they are given back. */
function countFree(semaphore: Semaphore): number {
  let free = 0
  while (free < 1_000 && semaphore.tryAcquire()) free++
  for (let n = 0; n < free; n++) semaphore.release()
  return free
}

describe('permits', () => {
  it('are granted at once while there are any', () => {
    const semaphore = new Semaphore(2, false)

    expect([semaphore.tryAcquire(), semaphore.tryAcquire(), semaphore.tryAcquire()]).toEqual([true, true, false])
  })

  it('can be taken again when they were given back', () => {
    const semaphore = new Semaphore(1, false)
    semaphore.tryAcquire()

    semaphore.release()

    expect(semaphore.tryAcquire()).toBe(true)
  })
})

describe('the queue', () => {
  it('is served first come, first served, one waiter per permit', async () => {
    const semaphore = new Semaphore(1, false)
    const log: string[] = []
    semaphore.tryAcquire()
    for (const name of ['a', 'b', 'c']) watch(log, name, join(semaphore))

    semaphore.release()
    await settle()
    expect(log).toEqual(['a granted'])

    semaphore.release()
    semaphore.release()
    await settle()
    expect(log).toEqual(['a granted', 'b granted', 'c granted'])
  })

  it('is not overtaken by newcomers: a permit that is handed on is never free', () => {
    const semaphore = new Semaphore(1, false)
    semaphore.tryAcquire()
    join(semaphore)

    semaphore.release()

    expect(semaphore.tryAcquire()).toBe(false)
  })

  it('tells how many wait', () => {
    const semaphore = new Semaphore(1, false)
    semaphore.tryAcquire()
    const first = join(semaphore)
    join(semaphore)
    expect(semaphore.waiting).toBe(2)

    first.leave()
    expect(semaphore.waiting).toBe(1)

    semaphore.release()
    expect(semaphore.waiting).toBe(0)
  })

  it('has no limit by default', () => {
    const semaphore = new Semaphore(1, false)
    semaphore.tryAcquire()

    for (let n = 0; n < 10_000; n++) join(semaphore)

    expect(semaphore.waiting).toBe(10_000)
  })

  it('turns away whoever comes when maxQueue wait, until somebody leaves', () => {
    const semaphore = new Semaphore(1, 2)
    semaphore.tryAcquire()
    join(semaphore)
    const second = join(semaphore)
    expect(semaphore.join()).toBeUndefined()

    second.leave()

    expect(semaphore.join()).toBeDefined()
  })

  it('can be none at all', () => {
    const semaphore = new Semaphore(1, 0)
    semaphore.tryAcquire()

    expect(semaphore.join()).toBeUndefined()
  })
})

describe('leaving', () => {
  it.each([
    ['head', 0, ['b granted', 'c granted']],
    ['middle', 1, ['a granted', 'c granted']],
    ['tail', 2, ['a granted', 'b granted']],
  ] as const)('from the %s of the queue keeps the order of the others', async (_where, index, expected) => {
    const semaphore = new Semaphore(2, false)
    const log: string[] = []
    semaphore.tryAcquire()
    semaphore.tryAcquire()
    const waiters = ['a', 'b', 'c'].map((name) => watch(log, name, join(semaphore)))

    waiters[index]?.leave()
    semaphore.release()
    semaphore.release()
    await settle()

    expect(log).toEqual(expected)
    expect(countFree(semaphore)).toBe(0)
  })

  it('twice gives nothing back twice', () => {
    const semaphore = new Semaphore(1, false)
    semaphore.tryAcquire()
    const waiter = join(semaphore)

    waiter.leave()
    waiter.leave()
    semaphore.release()
    waiter.leave()

    expect(countFree(semaphore)).toBe(1)
  })

  it('in the turn in which the permit was granted gives it back', async () => {
    const semaphore = new Semaphore(1, false)
    const log: string[] = []
    semaphore.tryAcquire()
    const first = join(semaphore)
    watch(log, 'second', join(semaphore))

    semaphore.release()
    first.leave()
    await settle()

    expect(log).toEqual(['second granted'])
    semaphore.release()
    expect(countFree(semaphore)).toBe(1)
  })

  it('after the grant, twice, gives it back once', () => {
    const semaphore = new Semaphore(1, false)
    semaphore.tryAcquire()
    const waiter = join(semaphore)
    semaphore.release()

    waiter.leave()
    waiter.leave()

    expect(countFree(semaphore)).toBe(1)
  })
})

describe('sending everyone away', () => {
  it('rejects all who wait, each with an error of its own, and keeps the permits where they are', async () => {
    const semaphore = new Semaphore(1, 2)
    const log: string[] = []
    let count = 0
    semaphore.tryAcquire()
    watch(log, 'a', join(semaphore))
    watch(log, 'b', join(semaphore))

    semaphore.rejectAll(() => new Error(`refused ${++count}`))
    await settle()

    expect(log).toEqual(['a rejected: refused 1', 'b rejected: refused 2'])
    expect(semaphore.waiting).toBe(0)
    semaphore.release()
    expect(countFree(semaphore)).toBe(1)
  })

  it('makes nothing of a later leave', async () => {
    const semaphore = new Semaphore(1, false)
    semaphore.tryAcquire()
    const waiter = join(semaphore)
    const rejected = expect(waiter.granted).rejects.toThrow('refused')

    semaphore.rejectAll(() => new Error('refused'))
    waiter.leave()
    await rejected

    expect(countFree(semaphore)).toBe(0)
  })

  it('does not reach those who were granted a permit or left before', async () => {
    const semaphore = new Semaphore(1, false)
    const log: string[] = []
    semaphore.tryAcquire()
    watch(log, 'granted', join(semaphore))
    watch(log, 'left', join(semaphore)).leave()
    semaphore.release()

    semaphore.rejectAll(() => new Error('refused'))
    await settle()

    expect(log).toEqual(['granted granted'])
  })

  it('asks for no error where nobody waits', () => {
    const semaphore = new Semaphore(1, false)

    expect(() =>
      semaphore.rejectAll(() => {
        throw new Error('Nobody is to be rejected.')
      }),
    ).not.toThrow()
  })
})

describe('under any sequence', () => {
  type Step =
    | { readonly kind: 'come' }
    | { readonly kind: 'leave'; readonly who: number }
    | { readonly kind: 'release' }
    | { readonly kind: 'rejectAll' }
    | { readonly kind: 'turn' }

  const step: fc.Arbitrary<Step> = fc.oneof(
    { weight: 6, arbitrary: fc.constant<Step>({ kind: 'come' }) },
    { weight: 4, arbitrary: fc.record({ kind: fc.constant('leave' as const), who: fc.nat(40) }) },
    { weight: 5, arbitrary: fc.constant<Step>({ kind: 'release' }) },
    { weight: 1, arbitrary: fc.constant<Step>({ kind: 'rejectAll' }) },
    { weight: 2, arbitrary: fc.constant<Step>({ kind: 'turn' }) },
  )

  it('serves in order, never grants more than there are permits, and leaks none', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 4 }),
        fc.option(fc.nat(5), { nil: false as const }),
        fc.array(step, { maxLength: 120, size: 'max' }),
        async (permits, maxQueue, steps) => {
          const semaphore = new Semaphore(permits, maxQueue)
          // The model: who holds a permit and who waits, by number.
          let held = 0
          const queue: number[] = []
          const granted: number[] = []
          const heard: string[] = []
          const expected: string[] = []
          const waiters = new Map<number, Waiter>()
          let next = 0

          const handOn = (): void => {
            held--
            const first = queue.shift()
            if (first === undefined) return
            held++
            granted.push(first)
            expected.push(`${first} granted`)
          }

          for (const { kind, ...rest } of steps) {
            if (kind === 'turn') await settle()
            if (kind === 'come') {
              const isFree = held < permits
              expect(semaphore.tryAcquire()).toBe(isFree)
              if (isFree) held++
              else {
                const waiter = semaphore.join()
                const hasRoom = maxQueue === false || queue.length < maxQueue
                expect(waiter !== undefined).toBe(hasRoom)
                if (waiter !== undefined) {
                  waiters.set(next, watch(heard, String(next), waiter))
                  queue.push(next++)
                }
              }
            }
            if (kind === 'leave' && waiters.size > 0) {
              const keys = [...waiters.keys()]
              const who = keys[(rest as { who: number }).who % keys.length] as number
              waiters.get(who)?.leave()
              const place = queue.indexOf(who)
              const grant = granted.indexOf(who)
              if (place >= 0) queue.splice(place, 1)
              else if (grant >= 0) {
                // Left after the grant: the permit goes to the next.
                granted.splice(grant, 1)
                handOn()
              }
            }
            // Of those who hold a permit without having waited, or whose grant is not taken back.
            if (kind === 'release' && held > granted.length) {
              semaphore.release()
              handOn()
            }
            if (kind === 'rejectAll') {
              semaphore.rejectAll(() => new Error('away'))
              for (const who of queue.splice(0)) expected.push(`${who} rejected: away`)
            }
            expect(semaphore.waiting).toBe(queue.length)
          }

          await settle()
          expect(heard.sort()).toEqual(expected.sort())
          for (const waiter of waiters.values()) waiter.leave()
          held -= granted.length
          for (let n = 0; n < held; n++) semaphore.release()
          expect(countFree(semaphore)).toBe(permits)
        },
      ),
      { numRuns: 300 },
    )
  })
})
