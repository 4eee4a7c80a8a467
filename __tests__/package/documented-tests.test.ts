/**
 * Runs the tests that `docs/use/testing.md` shows to users, on the handler that it shows them with, and what it says of errors.
 *
 * @module
 */

import { execFile } from 'node:child_process'
import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, describe, expect, it } from '@jest/globals'
import type { Context } from 'aws-lambda'
import { createTestContext } from 'middy-circuit-breaker/testing'
import { bundlePackage } from '../../scripts/build.ts'
import { startProvider } from '../examples/provider.ts'
import { stopTime } from '../examples/stopped-time.ts'
import { link } from './bundlers.ts'
import { codeBlocks, modulesUnder, root, writeModules } from './code-blocks.ts'

const page = 'docs/use/testing.md'
const handler = blockUnder('A handler under test', 'ts')
const [answering] = modulesUnder('docs/use/fallbacks.md', 'Tell the client')
const modules = await writeModules({ answering } as Record<string, string>)
const project = await createProject()
afterAll(async () => {
  await modules[Symbol.asyncDispose]()
  await rm(project, { recursive: true })
})

describe('the tests of a handler', () => {
  it.each(['With jest', 'With vitest', 'With node:test'])(
    '%s: all pass, with the command of the page',
    async (heading) => {
      const test = blockUnder(heading, 'ts')
      const expected = [...test.matchAll(/^it\(/gm)].length
      expect(expected).toBeGreaterThan(0)
      expect(await runTests(heading, handler)).toEqual({ passed: expected, failed: 0 })
    },
  )

  it.each(['With jest', 'With vitest', 'With node:test'])(
    '%s: fail where the handler answers wrongly',
    async (heading) => {
      const wrong = handler.replace('price: null })', 'price: 0 })')
      expect(wrong).not.toBe(handler)
      const { failed } = await runTests(heading, wrong)
      expect(failed).toBeGreaterThan(0)
    },
  )
})

describe('the handler that tells the client', () => {
  it('answers 502, 504 and 503 with Retry-After', async () => {
    const { handler } = (await import(modules.path('answering'))) as {
      handler: (event: { url: string }, context: Context) => Promise<Answer>
    }
    using time = stopTime()
    await using shop = await startProvider({ body: 'a book' })
    const ask = () => handler({ url: shop.url }, createTestContext())
    expect(await ask()).toEqual({ statusCode: 200, body: 'a book' })
    shop.react({ status: 503 })
    expect(await ask()).toEqual({ statusCode: 502, body: 'Bad gateway' })
    // Two seconds is what the page gives it.
    shop.react(() => time.hang(2_000))
    expect(await ask()).toMatchObject({ statusCode: 504 })
    expect(await ask()).toMatchObject({ statusCode: 504 })
    expect(await ask()).toMatchObject({ statusCode: 503, headers: { 'Retry-After': '10' } })
    expect(shop.requests).toHaveLength(4)
  })
})

interface Answer {
  readonly statusCode: number
  readonly headers?: Readonly<Record<string, string>>
  readonly body: string
}

/** The only block of a language under a heading of the page. */
function blockUnder(heading: string, language: string): string {
  const found = codeBlocks(page).filter((block) => block.heading === heading && block.language === language)
  if (found.length !== 1) throw new Error(`${page} has ${found.length} blocks of ${language} under "${heading}".`)
  return (found[0] as { code: string }).code
}

/** A project outside of this repository that has installed the package, as npm would, and the tools for tests. */
async function createProject(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'tested-'))
  const modules = join(folder, 'node_modules')
  const installed = join(modules, 'middy-circuit-breaker')
  await bundlePackage(join(installed, 'dist'))
  await symlink(join(root, 'package.json'), join(installed, 'package.json'))
  for (const name of ['.bin', '@middy/core', '@jest/globals', '@swc', 'jest', 'vitest']) await link(name, modules)
  await writeFile(join(folder, 'package.json'), JSON.stringify({ type: 'module' }))
  await writeFile(join(folder, 'jest.config.json'), blockUnder('With jest', 'json'))
  return folder
}

/** Runs the command that stands under a heading of the page, on the test that stands there. */
async function runTests(heading: string, code: string): Promise<{ passed: number; failed: number }> {
  await writeFile(join(project, 'handler.ts'), code)
  await writeFile(join(project, 'handler.test.ts'), blockUnder(heading, 'ts'))
  // Not what npm and jest have set for this process: the tools would take it for theirs.
  const inherited = Object.entries(process.env).filter(
    ([name]) => !/^(npm_|INIT_CWD|JEST_|NODE_|FORCE_COLOR)/.test(name),
  )
  // A tool that is not installed is not downloaded.
  const env = { ...Object.fromEntries(inherited), NO_COLOR: '1', npm_config_offline: 'true' }
  const { stdout, stderr } = await promisify(execFile)('/bin/sh', ['-c', blockUnder(heading, 'sh')], {
    cwd: project,
    env,
  }).catch((error) => error as { stdout: string; stderr: string })
  const printed = `${stdout}\n${stderr}`
  // "Tests: 1 failed, 3 passed", of jest and vitest, or "ℹ pass 3" and "ℹ fail 1", of Node.
  const summary = /^\s*Tests:?\s.*$/m.exec(printed)?.[0] ?? printed
  const [, passed] = /(\d+) passed|^ℹ pass (\d+)/m.exec(summary)?.filter(Boolean) ?? []
  const [, failed] = /(\d+) failed|^ℹ fail (\d+)/m.exec(summary)?.filter(Boolean) ?? []
  if (passed === undefined && failed === undefined) throw new Error(`No test has run:\n${printed}`)
  return { passed: Number(passed ?? 0), failed: Number(failed ?? 0) }
}
