/**
 * Installs redis-server and redis-cli for the integration tests: `node scripts/redis-server.ts`. Does nothing if they
 * are there.
 *
 * @module
 */

import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** Which reports when a key expires (`PEXPIRETIME`). */
const requiredRedis = 7

const install = 'apt-get update && apt-get install -y --no-install-recommends redis-server openssl'

/**
 * Sees to it that there is a Redis, and an openssl to make certificates for it.
 *
 * @throws if one is missing and cannot be installed from here, with the command that installs it
 */
export async function installRedisServer(): Promise<void> {
  if (await isComplete()) return
  if (process.getuid?.() === 0 && existsSync('/usr/bin/apt-get')) {
    await run('sh', ['-c', install], { env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' } })
    if (await isComplete()) return
  }
  const command = process.platform === 'darwin' ? 'brew install redis openssl' : `sudo sh -c '${install}'`
  throw new Error(`The tests need redis-server ${requiredRedis} or later, redis-cli and openssl. Run: ${command}`)
}

async function isComplete(): Promise<boolean> {
  try {
    const [{ stdout }] = await Promise.all([
      run('redis-server', ['--version']),
      run('redis-cli', ['--version']),
      run('openssl', ['version']),
    ])
    return Number(/v=(\d+)\./.exec(stdout)?.[1] ?? 0) >= requiredRedis
  } catch {
    return false
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await installRedisServer().catch((error: Error) => {
    console.error(error.message)
    process.exitCode = 1
  })
}
