/**
 * Counts what fleets ask of their store, in the simulator, and how large the items are, on DynamoDB Local, and writes the
 * tables of `docs/operate/cost.md`: `npm run page -- cost`. The prices are in `__tests__/cost/prices.ts`.
 *
 * @module
 */

import { readFile, writeFile } from 'node:fs/promises'
import { measure, sectionsOf, withSections } from '../__tests__/cost/page.ts'
import { startDynamoDBLocal } from '../__tests__/support/dynamodb-local.ts'

const page = new URL('../docs/operate/cost.md', import.meta.url)
const server = await startDynamoDBLocal()
try {
  const sections = sectionsOf(await measure(server))
  await writeFile(page, withSections(await readFile(page, 'utf8'), sections))
  console.log('docs/operate/cost.md is written.')
} finally {
  await server.stop()
}
