import { expect, test } from '@jest/globals'
import { bundle, sizeLimit } from '../../bench/bundle.ts'

test('a bundled handler with its state in memory has not grown', async () => {
  const { start, modules } = await bundle('memory')

  expect(start.gzipped).toBeLessThanOrEqual(sizeLimit)
  // Else there would be room for something large to come in unnoticed.
  expect(start.gzipped).toBeGreaterThan(0.9 * sizeLimit)
  expect(modules.map(([file]) => file)).not.toContainEqual(
    expect.stringMatching(/node_modules|(dynamodb|redis)\/(?!options\.ts)/),
  )
})

test.each(['dynamodb', 'redis'] as const)('the adapter for %s is loaded only where it is used', async (adapter) => {
  const { start, adapter: later } = await bundle(adapter)

  expect(start.gzipped).toBeLessThanOrEqual(sizeLimit)
  expect(later?.gzipped).toBeGreaterThan(1_000)
})
