/**
 * Chromium without a window, for the tests and the pictures of pages.
 *
 * @module
 */

import { type Browser, chromium } from 'playwright-core'
import { chromiumPath, installChromium } from './chromium.ts'

/** Starts it. It asks nothing of any other machine. */
export async function startBrowser(): Promise<Browser> {
  await installChromium()
  const executablePath = chromiumPath() as string
  const args = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-background-networking']
  return chromium.launch({ executablePath, args })
}
