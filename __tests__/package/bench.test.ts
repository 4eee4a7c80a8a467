import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from '@jest/globals'

const root = join(import.meta.dirname, '..', '..')
const run = (...args: string[]) => promisify(execFile)(process.execPath, [join(root, 'bench', 'main.ts'), ...args])

test('a quick run of the benchmarks measures everything that needs no server, and writes nothing', async () => {
  const page = join(root, 'docs', 'evidence', 'benchmarks.md')
  const before = await readFile(page, 'utf8')

  const { stdout } = await run(
    '--quick',
    '--only',
    'calls,allocations,profile,invocations,telemetry,contention,endurance',
  )

  for (const figure of ['cockatiel.execute', 'callExternal', 'requests per failing invocation', '1,000 invocations']) {
    expect(stdout).toContain(figure)
  }
  expect(stdout).not.toMatch(/NaN|undefined|Infinity/)
  expect(await readFile(page, 'utf8')).toBe(before)
})

test('a part that there is not is refused with the names of those that there are', async () => {
  await expect(run('--only', 'calls,coffee')).rejects.toMatchObject({
    code: 2,
    stderr: expect.stringMatching(/coffee; there are calls, allocations/),
  })
})
