/** The conformance suite under node:test, as a user runs it; started by the unit test of the suite. */

import { describe, it } from 'node:test'
import { MemoryCircuitStorage } from '../../src/storage/memory.ts'
import { testCircuitStorage } from '../../src/testing/index.ts'

testCircuitStorage('MemoryCircuitStorage', () => new MemoryCircuitStorage(), { runner: { describe, it } })
