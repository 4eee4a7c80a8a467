/**
 * Writes the tables of settings into the documentation: `npm run page -- settings`.
 *
 * @module
 */

import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pagesWithSettings, withSettings } from './settings-tables.ts'

for (const page of pagesWithSettings) {
  const file = join(import.meta.dirname, '..', page)
  await writeFile(file, withSettings(page, await readFile(file, 'utf8')))
  console.log(`The settings are in ${page}.`)
}
