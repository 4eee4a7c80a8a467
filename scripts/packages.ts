/**
 * Installs the packages that only tests, examples and scripts need: `node scripts/packages.ts`. Does nothing if they are there.
 *
 * The manifests of the workspaces name them. `npm install` leaves workspaces out (`.npmrc`), so that the first install is
 * small. One lockfile holds everything, and all of it goes into one `node_modules`, each package once.
 *
 * @module
 */

import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))

/** What a lockfile says of a package, or of a workspace. */
interface LockedPackage {
  readonly version?: string
  /** A workspace, by its folder. */
  readonly link?: boolean
  /** Packages for other machines are missing here. */
  readonly optional?: boolean
  readonly dependencies?: Readonly<Record<string, string>>
  readonly devDependencies?: Readonly<Record<string, string>>
}

interface Lockfile {
  readonly packages: Readonly<Record<string, LockedPackage>>
}

/** The folders of the workspaces. */
export const workspaces: readonly string[] = json<{ workspaces: string[] }>('package.json').workspaces

/** The dev dependencies of the root and of the workspaces, with their ranges. */
export function devDependencies(): Readonly<Record<string, string>> {
  const manifests = ['.', ...workspaces].map((folder) => json<LockedPackage>(`${folder}/package.json`))
  return Object.assign({}, ...manifests.map((manifest) => manifest.devDependencies))
}

/**
 * The packages of the lockfile that are not installed, or in another version. `npm install --package-lock-only` lists what it
 * has not installed, so the folder has to be there, too.
 */
export function missingPackages(
  wanted: Lockfile = json('package-lock.json'),
  installed: Lockfile = installedPackages(),
  isThere: (path: string) => boolean = (path) => existsSync(join(root, path)),
): string[] {
  return Object.entries(wanted.packages)
    .filter(([path, { link, optional }]) => path.startsWith('node_modules/') && link !== true && optional !== true)
    .filter(([path, { version }]) => installed.packages[path]?.version !== version || !isThere(path))
    .map(([path]) => path.slice('node_modules/'.length))
}

/** The workspaces whose manifest asks for something else than the lockfile says. */
export function changedManifests(lockfile: Lockfile = json('package-lock.json')): string[] {
  return workspaces.filter((folder) => {
    const { devDependencies = {} } = json<LockedPackage>(`${folder}/package.json`)
    const { devDependencies: locked = {} } = lockfile.packages[folder] ?? {}
    const names = Object.keys({ ...devDependencies, ...locked })
    return names.some((name) => devDependencies[name] !== locked[name])
  })
}

/** npm's own list of what it has installed. */
function installedPackages(): Lockfile {
  const list = 'node_modules/.package-lock.json'
  return existsSync(join(root, list)) ? json(list) : { packages: {} }
}

function json<T>(file: string): T {
  return JSON.parse(readFileSync(join(root, file), 'utf8'))
}

if (import.meta.main) {
  const isChanged = changedManifests().length > 0
  if (isChanged || missingPackages().length > 0) {
    console.error('Installing the packages of tests, examples and scripts, once: about a minute …')
    const args = ['install', '--workspaces', '--include-workspace-root', '--loglevel=error']
    // Only a manifest that has changed is a reason to write the lockfile.
    if (!isChanged) args.push('--no-save')
    const { status, error } = spawnSync('npm', args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] })
    if (error !== undefined) throw error
    process.exitCode = status ?? 1
  }
}
