/**
 * Writes `docs/reference`: `npm run page -- reference`. It refuses to while something public has no doc comment.
 *
 * @module
 */

import { mkdir, readdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { readReference, undocumented } from './reference-model.ts'
import { folder, referencePages } from './reference-pages.ts'

const root = join(import.meta.dirname, '..')
const entries = readReference()
const missing = undocumented(entries)
if (missing.length > 0) throw new Error(`These have no doc comment:\n${missing.join('\n')}`)
const pages = referencePages(entries)
await mkdir(join(root, folder), { recursive: true })
for (const file of await readdir(join(root, folder))) {
  if (!pages.has(`${folder}/${file}`)) await rm(join(root, folder, file))
}
for (const [file, text] of pages) await writeFile(join(root, file), text)
console.log(`${pages.size} pages are in ${folder}.`)
