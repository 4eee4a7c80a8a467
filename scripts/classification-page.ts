/**
 * Writes the tables of `docs/evidence/clients.md` from what real clients do: `npm run page -- classification`.
 *
 * @module
 */

import { readFile, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { observeMatrix } from '../__tests__/clients/matrix.ts'
import { withMatrix } from '../__tests__/clients/page.ts'

const file = fileURLToPath(new URL('../docs/evidence/clients.md', import.meta.url))
const { observations, failures } = await observeMatrix()
if (failures.length > 0) throw new Error(JSON.stringify(failures, undefined, 2))
await writeFile(file, withMatrix(await readFile(file, 'utf8'), observations))
console.log(`${observations.length} cells are in docs/evidence/clients.md.`)
// What the clients keep open.
process.exit()
