import { execFile } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, it } from '@jest/globals'

const root = fileURLToPath(new URL('../..', import.meta.url))
const pages = ['docs/storage.md', 'docs/custom-storage.md', 'docs/lambda.md', 'docs/classification.md']
const example = withoutIndentation(readFileSync(join(root, 'examples/custom-storage/sqlite-storage.ts'), 'utf8'))

/** What the snippets use and the reader has. */
const stubs = {
  'my-storage.ts': `
    import { MemoryCircuitStorage } from 'middy-circuit-breaker'
    export class MyCircuitStorage extends MemoryCircuitStorage {
      readonly options: unknown
      constructor(options?: { url: string }) {
        super()
        this.options = options
      }
      async close(): Promise<void> {}
    }
    export declare function breakRecord(serviceKey: string): Promise<void>
    export declare function readExpiry(serviceKey: string): Promise<number | undefined>`,
  'pay.ts': `
    import type { CircuitBreakerContext } from 'middy-circuit-breaker'
    export declare function pay(event: unknown, context: CircuitBreakerContext<'stripe'>): Promise<unknown>`,
  'vitest.d.ts': `
    declare module 'vitest' {
      export const describe: typeof import('@jest/globals').describe
      export const it: typeof import('@jest/globals').it
    }`,
}

describe('the code in the documentation', () => {
  it('compiles where it stands for itself', async () => {
    const cache = join(root, 'node_modules/.cache')
    await mkdir(cache, { recursive: true })
    const folder = await mkdtemp(join(cache, 'docs-'))
    try {
      const up = relative(folder, root)
      const settings = {
        extends: `${up}/tsconfig.json`,
        compilerOptions: {
          noUnusedLocals: false,
          paths: {
            'middy-circuit-breaker': [`${up}/src/index.ts`],
            'middy-circuit-breaker/testing': [`${up}/src/testing/index.ts`],
            'middy-circuit-breaker/*': [`${up}/src/storage/*.ts`],
          },
        },
        include: ['./*'],
      }
      const files = { ...stubs, ...snippets(), 'tsconfig.json': JSON.stringify(settings) }
      for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text)
      const tsc = join(root, 'node_modules/.bin/tsc')
      const { stdout } = await promisify(execFile)(tsc, ['-p', folder]).catch((error) => error)
      expect(stdout).toBe('')
    } finally {
      await rm(folder, { recursive: true })
    }
  })

  it('is what the example says where it is taken from there', () => {
    const excerpts = pages.flatMap((page) => blocks(page).filter((block) => !isModule(block)))
    expect(excerpts).not.toEqual([])
    for (const excerpt of excerpts) expect(example).toContain(withoutIndentation(excerpt))
  })
})

describe('the links in the documentation', () => {
  it.each(pages)('of %s lead to files, and to headings that exist', (page) => {
    const links = [...read(page).matchAll(/\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)/g)]
    expect(links).not.toEqual([])
    for (const [, path, anchor] of links) {
      const target = path ? join(dirname(page), path) : page
      expect([target, existsSync(join(root, target))]).toEqual([target, true])
      if (anchor !== undefined) expect(anchorsOf(target)).toContain(anchor)
    }
  })
})

describe('the guarantees under Lambda', () => {
  it('are each shown by a test, and each test shows one', () => {
    const shown = [...read('docs/lambda.md').matchAll(/\| `([\w-]+)`: (.*) \|$/gm)].map(([, file, name]) => [
      file,
      name,
    ])
    const files = ['deadline', 'freeze', 'exits', 'concurrency', 'cold-start']
    const tests = files.flatMap((file) =>
      [...read(`__tests__/lambda/${file}.test.ts`).matchAll(/^ {2}it(?:\.each\(.*\))?\(\s*'(.*)',/gm)].map(
        ([, name]) => [file, name],
      ),
    )
    expect(tests.toSorted()).toEqual(shown.toSorted())
    expect(shown.length).toBeGreaterThan(25)
  })
})

function snippets(): Record<string, string> {
  const modules = pages.flatMap((page) => blocks(page).filter(isModule))
  return Object.fromEntries(modules.map((block, index) => [`snippet-${index}.ts`, `${block}\nexport {}\n`]))
}

function blocks(page: string): string[] {
  return [...read(page).matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map(([, block]) => block as string)
}

function isModule(block: string): boolean {
  return block.startsWith('import ')
}

function anchorsOf(page: string): string[] {
  return [...read(page).matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
    (heading as string)
      .toLowerCase()
      .replace(/[^\w -]/g, '')
      .replaceAll(' ', '-'),
  )
}

function read(page: string): string {
  return readFileSync(join(root, page), 'utf8')
}

function withoutIndentation(code: string): string {
  return code.replace(/^ +/gm, '')
}
