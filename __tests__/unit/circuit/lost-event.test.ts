import { expect, it } from '@jest/globals'
import { createFleet, failTimes, observedBy } from '../../support/virtual-fleet.ts'

it('an event is told by nobody where its author is gone before the reply, but the state holds for all', async () => {
  const { start, storage, runtime, events } = createFleet()
  const [author, other] = [start(), start()]
  await Promise.all([author.load(), other.load()])
  const observed = observedBy(other)
  storage.inject('lose', ({ args }) => (args[2] as { readonly state?: string }).state === 'OPEN')
  await failTimes(author, 3)
  // From here on the author does nothing more.
  await runtime.advance(5_000)
  await other.load()
  expect(other.circuits.stripe?.state).toBe('OPEN')
  expect(events).toEqual([])
  expect(observed).toMatchObject([{ to: 'OPEN', observed: true }])
})
