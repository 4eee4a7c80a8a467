/**
 * The conformance suite of storage adapters.
 *
 * @module
 */

import type { ICircuitStorage } from '../../storage/contract.ts'
import { Bench, type Cases, type StorageSuiteOptions, type StorageSuiteRunner } from './bench.ts'
import { clearCases } from './clearing.ts'
import { historyCases, peerCases, raceCases } from './competing.ts'
import { ownershipCases, readingCases, roundTripCases, shapeCases } from './reading.ts'
import { damageCases, expiryCases, unreachableCases } from './troubles.ts'
import { additionCases, batchCases, replaceCases } from './writing.ts'

/**
 * Defines the test cases that every storage adapter must pass: the whole contract of {@link ICircuitStorage}.
 *
 * It needs no empty store: each case works on new random service keys (one on `__proto__`, `constructor` and `toString`
 * as well) and clears them when it is done. So `createStorage`, called once per case, may return the same adapter
 * every time; the suite never closes it.
 *
 * @param name the adapter's, as the heading of the cases
 * @throws {TypeError} when no `runner` is given and there is no global one
 * @example
 * import { after, describe, it } from 'node:test'
 * import { testCircuitStorage } from 'middy-circuit-breaker/testing'
 *
 * const storage = new MyCircuitStorage(client)
 * testCircuitStorage('MyCircuitStorage', () => storage, {
 *   runner: { describe, it },
 *   createPeer: () => new MyCircuitStorage(anotherClient),
 * })
 */
export function testCircuitStorage(
  name: string,
  createStorage: () => ICircuitStorage | Promise<ICircuitStorage>,
  options: StorageSuiteOptions = {},
): void {
  const { describe, it } = options.runner ?? globalRunner()
  const sizes = {
    maxBatch: options.maxBatch ?? 250,
    parallelWrites: options.parallelWrites ?? 25,
    rememberedAdditions: options.rememberedAdditions ?? 16,
  }
  const groups: [heading: string, cases: Cases][] = [
    ['the adapter', shapeCases],
    ['reading', readingCases],
    ['what is stored', roundTripCases],
    ['addOutcomes', additionCases],
    ['compareAndSetState', replaceCases],
    ['additions and replaces together', raceCases],
    ['batchSetState', batchCases],
    ['clearing', clearCases],
    ['who owns a record', ownershipCases],
    ['any history', historyCases(options.seed)],
  ]
  if (options.createPeer) groups.push(['two instances', peerCases(options.createPeer)])
  if (options.damage) groups.push(['a damaged record', damageCases(options.damage)])
  if (options.createUnreachable) groups.push(['a store that is down', unreachableCases(options.createUnreachable)])
  if (options.expiresAt) groups.push(['expiry', expiryCases(options.expiresAt)])

  describe(name, () => {
    for (const [heading, cases] of groups) {
      describe(heading, () => {
        for (const [title, run] of Object.entries(cases)) {
          it(title, async () => {
            const bench = new Bench(await createStorage(), sizes)
            try {
              await run(bench)
            } finally {
              await bench.clear()
            }
          })
        }
      })
    }
  })
}

function globalRunner(): StorageSuiteRunner {
  const { describe, it } = globalThis as Partial<StorageSuiteRunner>
  if (typeof describe === 'function' && typeof it === 'function') return { describe, it }
  throw new TypeError(
    'testCircuitStorage found no global describe and it. Import them from your test runner and pass them on: ' +
      'testCircuitStorage(name, createStorage, { runner: { describe, it } }).',
  )
}
