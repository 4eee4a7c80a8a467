import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from '@jest/globals'
import { bundle, sizeLimit } from '../../bench/bundle.ts'
import { bundlePackage } from '../../scripts/build.ts'

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

test('the adapter for Redis is loaded without what errors mean, and without what only some clients need', async () => {
  const { adapter } = await bundle('redis')

  expect(adapter?.gzipped).toBeLessThanOrEqual(4_900)
})

test('what a handler never needs is not loaded with it', async () => {
  const { modules } = await bundle('memory')

  expect(modules.map(([file]) => file)).not.toContainEqual(
    expect.stringMatching(/operators|warning-texts|check\.ts|inspect|bodies/),
  )
})

test('the built main entry is two files: its own, and the one that all entries share', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'middy-circuit-breaker-'))
  try {
    await bundlePackage(folder)
    const [shared, ...others] = await importsOf(join(folder, 'index.js'))
    expect(others).toEqual([])
    expect(await importsOf(join(folder, shared as string))).toEqual([])
    for (const entry of ['dynamodb.js', 'redis.js', 'durable.js', 'powertools.js', 'otel.js', 'testing.js']) {
      expect(await importsOf(join(folder, entry))).toContain(shared)
    }
  } finally {
    await rm(folder, { recursive: true })
  }
})

/** The neighbours that a built file loads at once. */
async function importsOf(file: string): Promise<string[]> {
  const source = await readFile(file, 'utf8')
  return Array.from(source.matchAll(/(?:\bfrom|\bimport)\s*"(\.[^"]+)"/g), ([, path]) => path as string)
}
