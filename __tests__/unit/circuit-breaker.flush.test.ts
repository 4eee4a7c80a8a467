import { describe, expect, it } from '@jest/globals'
import { createFleet, failTimes } from '../support/virtual-fleet.ts'

describe('a flush', () => {
  it('is needed where one of several services has something to store', async () => {
    const { start, storage } = createFleet({ services: ['a', 'b'] })
    const breaker = start()
    await breaker.load()
    storage.holdRequest('compareAndSetState')
    await failTimes(breaker, 1, 'b')
    expect(breaker.needsFlush).toBe(true)
  })

  it('with nothing to store sets no timer', async () => {
    const { start, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    const before = runtime.delays.length
    await breaker.flush()
    expect(runtime.delays).toHaveLength(before)
  })
})
