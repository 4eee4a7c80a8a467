/**
 * Installs Chromium for the tests of pages: `node scripts/chromium.ts`. Does nothing if it is there.
 *
 * @module
 */

import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const run = promisify(execFile)

const install = 'apt-get update && apt-get install -y --no-install-recommends chromium'

/** Where Chromium is, on Debian, on other Linuxes and on macOS. */
const places = [
  process.env['CHROMIUM'],
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
  '/Applications/Chromium.app/Contents/MacOS/Chromium',
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
]

/** The path of Chromium; `undefined`: it is not installed. */
export function chromiumPath(): string | undefined {
  return places.find((place) => place !== undefined && existsSync(place))
}

/** @throws if it is missing and cannot be installed from here, with the command that installs it */
export async function installChromium(): Promise<void> {
  if (chromiumPath() !== undefined) return
  if (process.getuid?.() === 0 && existsSync('/usr/bin/apt-get')) {
    await run('sh', ['-c', install], { env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' } })
    if (chromiumPath() !== undefined) return
  }
  const command = process.platform === 'darwin' ? 'brew install --cask chromium' : `sudo sh -c '${install}'`
  throw new Error(`The tests of pages need Chromium. Run: ${command}`)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await installChromium().catch((error: Error) => {
    console.error(error.message)
    process.exitCode = 1
  })
}
