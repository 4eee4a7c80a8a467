/**
 * Refuses to publish while the manifest lacks what npm's page and a provenance statement need. `npm publish` runs it first.
 *
 * @module
 */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'

interface Manifest {
  readonly repository?: { readonly type?: string; readonly url?: string }
  readonly homepage?: string
  readonly bugs?: { readonly url?: string }
}

/** What is missing, in sentences. */
export function missingForPublishing({ repository, homepage, bugs }: Manifest): string[] {
  const checks: readonly (readonly [isThere: boolean, missing: string])[] = [
    [
      /^git\+https:\/\/.+\.git$/.test(repository?.url ?? ''),
      'repository: { "type": "git", "url": "git+https://….git" }. npm compares it with the repository of the CI run that publishes, and resolves the relative links of the README against it.',
    ],
    [/^https:\/\//.test(homepage ?? ''), 'homepage: the address of the README.'],
    [/^https:\/\//.test(bugs?.url ?? ''), 'bugs: { "url": … }, where users report them.'],
  ]
  return checks.flatMap(([isThere, missing]) => (isThere ? [] : [missing]))
}

if (import.meta.main) {
  const manifest = JSON.parse(readFileSync(join(import.meta.dirname, '..', 'package.json'), 'utf8'))
  const missing = missingForPublishing(manifest)
  if (missing.length > 0) {
    console.error(['package.json is not ready to be published. Add:', ...missing].join('\n  '))
    process.exitCode = 1
  }
}
