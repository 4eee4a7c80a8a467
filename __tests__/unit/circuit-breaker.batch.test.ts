import { describe, expect, it } from '@jest/globals'
import { CircuitStorageError } from '../../src/index.ts'
import { createFleet, failTimes, ok, outcomeOf, trip } from '../support/virtual-fleet.ts'

const w = (p: Promise<unknown>) => outcomeOf(p)
describe('probe', () => {
  it('missing key in reply', async () => {
    const { start, storage } = createFleet({ services: ['a', 'b'] })
    storage.intercept('batchSetState', async () => new Map())
    console.log('missing', await w(start().batchSetState({ a: 'OPEN' })), storage.operations, await storage.peek('a'))
  })
  it('malformed reply', async () => {
    for (const bad of [null, {}, { applied: true, current: {} }, { applied: 'x' }, 1]) {
      const { start, storage } = createFleet({ services: ['a', 'b'] })
      storage.intercept('batchSetState', async () => new Map([['a', bad]]))
      const r = await w(start().batchSetState({ a: 'OPEN' }))
      console.log('malformed', JSON.stringify(bad), (r.error as Error)?.name, (r.error as Error)?.message, r.value, storage.operations)
    }
  })
  it('neither result nor error in partial', async () => {
    const { start, storage } = createFleet({ services: ['a', 'b'] })
    storage.intercept('batchSetState', async () => {
      throw new CircuitStorageError('x', { operation: 'batchSetState', results: new Map(), errors: new Map([['b', new CircuitStorageError('b', { operation: 'batchSetState' })]]) })
    })
    const r = await w(start().batchSetState({ a: 'OPEN', b: 'OPEN' }))
    console.log('partial', r, (r.error as CircuitStorageError)?.errors, (r.error as CircuitStorageError)?.results)
  })
  it('weird states', async () => {
    const { start, storage } = createFleet({ services: ['a', 'b'] })
    for (const s of [{ a: Object.create(null) }, [['a', 'bad'], ['a', 'OPEN']], undefined, null, 'a', [['a']], { a: 'HALF_OPEN' }, { a: Symbol('x') }, 7]) {
      const r = await w(start().batchSetState(s as never))
      console.log('weird', (r.error as Error)?.name, (r.error as Error)?.message, r.value, storage.operations)
    }
  })
  it('alone then clear', async () => {
    const { start, storage, runtime, events } = createFleet({ storageTimeout: 10 })
    const b = start()
    await b.load()
    storage.outage = 'fail'
    await failTimes(b, 3)
    await runtime.settle()
    console.log('alone', b.circuits.stripe?.state)
    storage.outage = undefined
    await b.batchClearState()
    console.log('after clear', b.circuits.stripe?.state, b.needsFlush, (await w(b.call('stripe', ok))))
    await runtime.advance(5000)
    await b.load()
    await b.flush()
    console.log('later', b.circuits.stripe?.state, await storage.peek('stripe'), events)
  })
  it('alone with known record then clear', async () => {
    const { start, storage, runtime } = createFleet({ storageTimeout: 10 })
    const b = start()
    await b.reset('stripe')
    await b.load()
    storage.outage = 'fail'
    await failTimes(b, 3)
    await runtime.settle()
    console.log('alone', b.circuits.stripe?.state)
    storage.outage = undefined
    await b.batchClearState()
    console.log('after clear', b.circuits.stripe?.state, b.needsFlush)
  })
  it('contention count', async () => {
    const { start, storage } = createFleet()
    storage.intercept('batchSetState', async () => new Map([['stripe', { applied: false, current: await storage.peek('stripe') }]]), 1000)
    const r = await w(start().batchSetState({ stripe: 'OPEN' }))
    console.log('contended', storage.writes.length, r.error, (r.error as CircuitStorageError).errors)
  })
  it('willRetry', async () => {
    const { start, storage, storageErrors } = createFleet()
    storage.inject('fail', 'batchSetState')
    await w(start().batchSetState({ stripe: 'OPEN' }))
    console.log('willRetry', storageErrors)
  })
  it('damaged closed', async () => {
    const { start, storage } = createFleet()
    const damaged = async (): Promise<never> => { throw new CircuitStorageError('damaged', { operation: 'batchGetState', corrupt: true, results: new Map(), errors: new Map([['stripe', new CircuitStorageError('damaged', { operation: 'batchGetState', corrupt: true, service: 'stripe' })]]) }) }
    storage.intercept('batchGetState', damaged)
    const r = await w(start().batchSetState({ stripe: 'CLOSED' }))
    console.log('damaged', r.error, storage.operations)
  })
  it('clear during applied set', async () => {
    const { start, storage, runtime, events } = createFleet()
    const b = start()
    const held = storage.holdReply('batchSetState')
    const set = w(b.batchSetState({ stripe: 'OPEN' }))
    await held.arrived
    await b.batchClearState()
    held.release()
    await runtime.settle()
    console.log('set+clear', await set, storage.operations, events.map((e) => [e.from, e.to, e.generation]), b.circuits.stripe?.state, await storage.peek('stripe'))
  })
  it('clear overtakes', async () => {
    const { start, storage, runtime } = createFleet()
    const [b, o] = [start(), start()]
    await trip(b)
    const held = storage.holdReply('batchClearState')
    const c = w(b.batchClearState())
    await held.arrived
    await o.batchSetState({ stripe: 'OPEN' })
    await b.batchGetState()
    console.log('before', b.circuits.stripe?.state)
    held.release()
    await c
    console.log('clear overtaken by read: now', b.circuits.stripe?.state, (await storage.peek('stripe'))?.state)
    await runtime.settle()
  })
})
