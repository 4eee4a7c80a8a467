/**
 * The conformance suite of storage adapters.
 *
 * @module
 */

import { type OptionRule, type OptionRules, refuseWrongOptions } from '../../settings/option-rules.ts'
import { isObject } from '../../settings/problems.ts'
import type { ICircuitStorage } from '../../storage/contract.ts'
import { Bench, type Cases, type StorageSuiteOptions, type StorageSuiteRunner } from './bench.ts'
import { clearCases } from './clearing.ts'
import { historyCases, peerCases, raceCases } from './competing.ts'
import { journalCases } from './journal.ts'
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
 * @throws {ConfigurationError} naming every option that is wrong
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
  refuseWrongOptions(parameterRules, { name, createStorage }, 'testCircuitStorage')
  refuseWrongOptions(optionRules, options, 'testCircuitStorage')
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
    ['journal and list', journalCases],
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

const aFunction: OptionRule = { allowed: 'a function', accepts: (value) => typeof value === 'function' }
const count: OptionRule = {
  allowed: 'a whole number from 1 up',
  accepts: (value) => Number.isSafeInteger(value) && Number(value) >= 1,
}

const parameterRules: OptionRules = {
  of: 'testCircuitStorage',
  allowed: '',
  options: {
    name: { allowed: 'a string', accepts: (value) => typeof value === 'string' },
    createStorage: aFunction,
  },
}

const optionRules: OptionRules = {
  of: 'testCircuitStorage',
  allowed: 'an object such as { createPeer }',
  options: {
    runner: {
      allowed: 'an object with describe and it',
      accepts: (value) => isObject(value) && typeof value.describe === 'function' && typeof value.it === 'function',
    },
    createPeer: aFunction,
    createUnreachable: aFunction,
    damage: aFunction,
    expiresAt: aFunction,
    maxBatch: count,
    parallelWrites: count,
    rememberedAdditions: count,
    seed: { allowed: 'a whole number', accepts: Number.isSafeInteger },
  } satisfies Record<keyof StorageSuiteOptions, OptionRule>,
}

function globalRunner(): StorageSuiteRunner {
  const { describe, it } = globalThis as Partial<StorageSuiteRunner>
  if (typeof describe === 'function' && typeof it === 'function') return { describe, it }
  throw new TypeError(
    'testCircuitStorage found no global describe and it. Import them from your test runner and pass them on: ' +
      'testCircuitStorage(name, createStorage, { runner: { describe, it } }).',
  )
}
