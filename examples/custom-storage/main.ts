/**
 * Invokes the function five times while its service is down: `node examples/custom-storage/main.ts`. Start it again within
 * five seconds: the new process knows from its first call on that the circuit is open.
 *
 * @module
 */

import { createTestContext } from '../../src/testing/index.ts'
import { handler } from './handler.ts'

for (let invocation = 1; invocation <= 5; invocation++) {
  // A port that nobody listens on.
  const { body } = await handler({ url: 'http://127.0.0.1:2' }, createTestContext())
  console.log(`${invocation}. ${body}`)
}
