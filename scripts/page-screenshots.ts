/**
 * Takes the pictures of `docs/operate/pictures`: `npm run page -- screenshots`. The page shows circuits of a scripted bad day,
 * and the end of a run of the demo.
 *
 * @module
 */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Browser, Locator, Page } from 'playwright-core'
import { servePage } from '../src/cli/serve.ts'
import { systemRuntime } from '../src/runtime.ts'
import { startBrowser } from './browser.ts'
import { badDay, placeIn } from './scripted-circuits.ts'

const root = join(import.meta.dirname, '..')
const target = join(root, 'docs/operate/pictures')
/** A documented picture is no larger, in bytes. */
const largest = 150_000
const schemes = ['light', 'dark'] as const

await mkdir(target, { recursive: true })
const browser = await startBrowser()
try {
  await takePage(browser)
  await takeDemo(browser)
} finally {
  await browser.close()
}

async function takePage(browser: Browser): Promise<void> {
  const now = Date.UTC(2030, 0, 31, 14, 30)
  const clock = { ...systemRuntime, now: () => now }
  const served = await servePage(placeIn(await badDay(now)), { port: 0, allowWrites: true, clock })
  try {
    for (const colorScheme of schemes) {
      const page = await browser.newPage({ viewport: { width: 1_000, height: 850 }, colorScheme })
      await page.goto(served.address)
      await page.locator('.card').first().waitFor()
      await take(page, `page-${colorScheme}`)
      if (colorScheme === 'light') {
        await page.getByRole('button', { name: 'Force closed payments' }).click()
        await page.getByLabel('Why', { exact: true }).fill('The provider has told us that it is back.')
        await page.getByLabel('For', { exact: true }).fill('10m')
        await take(page.getByRole('dialog'), 'force')
      }
      await page.close()
    }
  } finally {
    await served.close()
  }
}

async function takeDemo(browser: Browser): Promise<void> {
  const demo = spawn(process.execPath, ['examples/demo/main.ts'], { cwd: root, env: { ...process.env, CI: 'true' } })
  const ended = once(demo, 'close')
  const { promise: address, resolve } = Promise.withResolvers<string>()
  let output = ''
  demo.stdout.on('data', (text) => {
    output += text
    const url = /http:\/\/127\.0\.0\.1:\d+\//.exec(output)?.[0]
    if (url !== undefined) resolve(url)
  })
  const url = await address
  const pages = await Promise.all(
    schemes.map(async (colorScheme) => {
      const page = await browser.newPage({ viewport: { width: 1_000, height: 640 }, colorScheme })
      await page.goto(url)
      return page
    }),
  )
  await ended
  for (const [i, page] of pages.entries()) await take(page, `demo-${schemes[i]}`)
}

async function take(shown: Page | Locator, name: string): Promise<void> {
  const path = join(target, `${name}.png`)
  await shown.screenshot({ path, animations: 'disabled' })
  const { size } = await stat(path)
  if (size > largest) throw new Error(`${name}.png has ${size} bytes; ${largest} are allowed.`)
  console.log(`docs/operate/pictures/${name}.png: ${size} bytes`)
}
