import { spawnSync } from 'node:child_process'
import { describe, expect, it } from '@jest/globals'
import { pageCommands } from '../../scripts/page.ts'
import { root } from './code-blocks.ts'

describe('npm run page', () => {
  it.each([
    ['without a name', [], 'A name is missing.'],
    ['with a wrong name', ['__proto__'], 'There is no page "__proto__".'],
  ])('lists the names %s, and fails', (_, given, problem) => {
    const { status, stderr } = page(given)
    expect(status).toBe(2)
    expect(stderr).toContain(problem)
    const names = [...stderr.matchAll(/^ {2}([\w-]+) /gm)].map(([, name]) => name)
    expect(names).toEqual(Object.keys(pageCommands))
  })

  it('hands on what follows the name, and fails as the script does', () => {
    const { status, stderr } = page(['mutation', 'no-such-target'])
    expect(status).toBe(1)
    expect(stderr).toContain('No such target: no-such-target.')
  })
})

function page(given: readonly string[]): { readonly status: number | null; readonly stderr: string } {
  return spawnSync(process.execPath, ['scripts/page.ts', ...given], { cwd: root, encoding: 'utf8' })
}
