/**
 * The oldest Node that the package supports, beside the one that it is developed with.
 *
 * It lives in `.cache/node22` and not among the dev dependencies, because both would claim `node_modules/.bin/node`,
 * and which of them gets it depends on what npm installed last.
 *
 * From the command line it runs that Node with the given arguments: `node scripts/node22.ts --version`. It and its
 * children then strip types, as later Nodes do by themselves, so that tests can start TypeScript programs.
 *
 * @module
 */

import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** What `engines` in package.json promises. */
export const oldestNode = '22.12.0'

const folder = join(import.meta.dirname, '..', '.cache', 'node22')
const binary = join(folder, 'node_modules', 'node', 'bin', 'node')

/** The path of that Node; it is installed when it is not there yet. */
export function node22(): string {
  if (existsSync(binary) && version() === `v${oldestNode}`) return binary
  mkdirSync(folder, { recursive: true })
  const manifest = { private: true, dependencies: { node: oldestNode }, allowScripts: { node: true } }
  writeFileSync(join(folder, 'package.json'), JSON.stringify(manifest))
  execFileSync('npm', ['install', '--prefix', folder, '--prefer-offline', '--no-package-lock', '--loglevel=error'], {
    cwd: folder,
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  if (version() !== `v${oldestNode}`)
    throw new Error(`npm installed Node ${version()} where ${oldestNode} was asked for`)
  return binary
}

function version(): string {
  return execFileSync(binary, ['--version'], { encoding: 'utf8' }).trim()
}

if (import.meta.main) {
  const options = '--experimental-strip-types --disable-warning=ExperimentalWarning'
  const env = { ...process.env, NODE_OPTIONS: `${process.env['NODE_OPTIONS'] ?? ''} ${options}`.trim() }
  const { status } = spawnSync(node22(), process.argv.slice(2), { stdio: 'inherit', env })
  process.exitCode = status ?? 1
}
