import { execFile } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, it } from '@jest/globals'
import { parseDocument } from 'yaml'
import { pageCommands } from '../../scripts/page.ts'
import { pagesWithSettings, withSettings } from '../../scripts/settings-tables.ts'
import { codeBlocks, root } from './code-blocks.ts'

const pages = ['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', ...files('docs', '.md'), ...files('examples', '.md')]
/** Made from the code: what is written there is compiled as it is, and examples are parts of handlers. */
const isReference = (page: string): boolean => page.startsWith('docs/reference/')
const blocks = pages
  .filter((page) => !isReference(page))
  .flatMap((page) => codeBlocks(page).map((block) => ({ page, ...block })))

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
  'locate.ts': `
    import type { CircuitBreaker } from 'middy-circuit-breaker'
    import type { Context } from 'aws-lambda'
    export declare const breaker: CircuitBreaker<'geolocation'>
    export declare const handler: (event: { ip: string }, context: Context) => Promise<{ body: string }>`,
  'handler.ts': `
    import type { CircuitBreaker } from 'middy-circuit-breaker'
    import type { Context } from 'aws-lambda'
    export declare const breaker: CircuitBreaker<'shop'>
    export declare const handler: (event: { id: number }, context: Context) => Promise<{ price: number | null }>`,
}

describe('the code in the documentation', () => {
  it('is in one of the languages that are checked here', () => {
    const others = blocks.filter(({ language }) => !['', 'json', 'mermaid', 'sh', 'ts', 'yaml'].includes(language))
    expect(others).toEqual([])
  })

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
            'middy-circuit-breaker/durable': [`${up}/src/durable.ts`],
            'middy-circuit-breaker/powertools': [`${up}/src/telemetry/powertools/index.ts`],
            'middy-circuit-breaker/otel': [`${up}/src/telemetry/otel/index.ts`],
            'middy-circuit-breaker/testing': [`${up}/src/testing/index.ts`],
            'middy-circuit-breaker/*': [`${up}/src/storage/*/index.ts`],
          },
        },
        include: ['./*'],
      }
      const modules = blocks.filter(({ language, code }) => language === 'ts' && isModule(code))
      expect(modules.length).toBeGreaterThan(25)
      const snippets = modules.map(({ page, line, code }) => [
        `${page.replace(/\W/g, '-')}-${line}.ts`,
        `${code}\nexport {}\n`,
      ])
      const sources: Record<string, string> = {
        ...stubs,
        ...Object.fromEntries(snippets),
        'tsconfig.json': JSON.stringify(settings),
      }
      for (const [name, text] of Object.entries(sources)) await writeFile(join(folder, name), text)
      const tsc = join(root, 'node_modules/.bin/tsc')
      const { stdout } = await promisify(execFile)(tsc, ['-p', folder]).catch((error) => error)
      expect(stdout).toBe('')
    } finally {
      await rm(folder, { recursive: true })
    }
  })

  it('is what an example says where it is taken from there', () => {
    const examples = files('examples', '.ts').map((file) => withoutIndentation(read(file)))
    const excerpts = blocks.filter(({ language, code }) => language === 'ts' && !isModule(code))
    expect(excerpts).not.toEqual([])
    for (const { page, line, code } of excerpts) {
      const isTaken = examples.some((example) => example.includes(withoutIndentation(code)))
      expect({ page, line, isTaken }).toEqual({ page, line, isTaken: true })
    }
  })

  it('is JSON, and YAML, where it says so', () => {
    for (const { language, page, line, code } of blocks) {
      if (language === 'json') expect(() => JSON.parse(code)).not.toThrow()
      if (language !== 'yaml') continue
      const problems = parseDocument(code).errors.map(({ message }) => message)
      expect({ page, line, problems }).toEqual({ page, line, problems: [] })
    }
  })

  it('runs scripts, pages and files that exist', () => {
    const { scripts } = JSON.parse(read('package.json'))
    for (const page of pages) {
      // In prose as well as in blocks.
      for (const [, script] of read(page).matchAll(/npm run (?:--silent )?([a-z][\w:-]*)/g)) {
        expect({ page, script, exists: Object.hasOwn(scripts, script as string) }).toEqual({
          page,
          script,
          exists: true,
        })
      }
    }
    const sources = ['src', 'scripts', 'bench', '__tests__'].flatMap((folder) => files(folder, '.ts'))
    for (const page of [...pages, ...sources, '.ci/run', 'stryker.config.js']) {
      for (const [, name] of read(page).matchAll(/npm run (?:--silent )?page -- ([a-z][\w-]*)/g)) {
        expect({ page, name, exists: Object.hasOwn(pageCommands, name as string) }).toEqual({
          page,
          name,
          exists: true,
        })
      }
    }
    for (const { script } of Object.values(pageCommands))
      expect([script, existsSync(join(root, script))]).toEqual([script, true])
    for (const { page, code } of blocks) {
      for (const [, file] of code.matchAll(/\bnode ([\w./-]+\.ts)/g)) {
        // "Save this as `try.ts`."
        if (read(page).includes(`as \`${file}\``)) continue
        const exists = [root, join(root, dirname(page))].some((folder) => existsSync(join(folder, file as string)))
        expect({ page, file, exists }).toEqual({ page, file, exists: true })
      }
    }
  })
})

describe('the settings in the documentation', () => {
  it.each(pagesWithSettings)('are those of the code: %s is what `npm run page -- settings` writes', (page) => {
    expect(withSettings(page, read(page))).toBe(read(page))
  })
})

describe('the links in the documentation', () => {
  it.each(pages)('of %s lead to files, and to headings that exist', (page) => {
    for (const [, path, anchor] of linksOf(page)) {
      const target = path ? join(dirname(page), path) : page
      expect([target, existsSync(join(root, target))]).toEqual([target, true])
      if (anchor !== undefined) expect(anchorsOf(target)).toContain(anchor)
    }
  })

  it('reach every page from the README', () => {
    const reached = new Set<string>(['README.md'])
    for (const page of reached) {
      for (const [, path = ''] of linksOf(page)) {
        const target = join(dirname(page), path)
        for (const each of [target, join(target, 'README.md')]) if (pages.includes(each)) reached.add(each)
      }
    }
    expect(pages.filter((page) => !reached.has(page))).toEqual([])
  })
})

describe('the pages for people at work', () => {
  // Bundling has a section for each bundler, of which a reader needs one.
  const pagesAtWork = ['docs/operate', 'docs/use']
    .flatMap((folder) => files(folder, '.md'))
    .filter((page) => page !== 'docs/use/bundling.md')

  it.each(pagesAtWork)('are read at once: %s has 200 lines at most', (page) => {
    expect(read(page).trimEnd().split('\n').length).toBeLessThanOrEqual(200)
  })
})

describe('the findings of a check in the documentation', () => {
  it('are those of the code', () => {
    const rows = [...read('docs/operate/check.md').matchAll(/^\| (`[^|]*`) \| (`[^|]*`) \|/gm)]
    const documented = rows.flatMap(([, codes = '', severities = '']) =>
      codes === '`code`' ? [] : namesIn(codes).map((code) => ({ code, severities: namesIn(severities) })),
    )
    const sources = [
      'check.ts',
      'check-settings.ts',
      'storage/dynamodb/inspect.ts',
      'storage/redis/inspect.ts',
      'cli/doctor.ts',
    ]
      .map((file) => read(join('src', file)))
      .join()
    const inCode = [...sources.matchAll(/code: '([\w-]+)'/g)].map(([, code]) => code)
    expect(documented.map(({ code }) => code).toSorted()).toEqual([...new Set(inCode)].toSorted())
    for (const { code, severities } of documented) {
      for (const [, severity = ''] of sources.matchAll(new RegExp(`code: '${code}',\\s+severity: '(\\w+)'`, 'g'))) {
        expect([code, severities]).toEqual([code, expect.arrayContaining([severity])])
      }
    }
  })
})

describe('the guarantees under Lambda', () => {
  it('are each shown by a test, and each test shows one', () => {
    const shown = [...read('docs/understand/lambda.md').matchAll(/\| `([\w-]+)`: (.*) \|$/gm)].map(([, file, name]) => [
      file,
      name,
    ])
    const suites = ['deadline', 'freeze', 'exits', 'concurrency', 'cold-start', 'small-function']
    const tests = suites.flatMap((file) =>
      [...read(`__tests__/lambda/${file}.test.ts`).matchAll(/^ {2}it(?:\.each\(.*\))?\(\s*'(.*)',/gm)].map(
        ([, name]) => [file, name],
      ),
    )
    expect(tests.toSorted()).toEqual(shown.toSorted())
    expect(shown.length).toBeGreaterThan(25)
  })

  it('are shown by tests that exist, also those of durable functions', () => {
    const rows = ['docs/understand/lambda.md', 'docs/understand/streams.md', 'docs/use/durable-functions.md'].flatMap(
      (page) => [...read(page).matchAll(/`(\w+\/[\w/.-]+)`: (.*?)(?=\)\.$| \|$)/gm)],
    )
    expect(rows.length).toBeGreaterThan(15)
    for (const [, file, name] of rows) {
      const exists = read(`__tests__/${file}.test.ts`).includes(`'${name}'`)
      expect({ file, name, exists }).toEqual({ file, name, exists: true })
    }
  })
})

function files(folder: string, ending: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith(ending))
    .map((file) => join(folder, file))
}

/** The links of a page that lead to files and headings of the repository. */
function linksOf(page: string): RegExpExecArray[] {
  // Without code, in which brackets mean something else.
  const prose = read(page)
    .replace(/^```[\s\S]*?^```/gm, '')
    .replace(/`[^`\n]*`/g, '')
  return [...prose.matchAll(/\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)/g)]
}

/** The names in code of a cell of a table. */
function namesIn(cell: string): string[] {
  return [...cell.matchAll(/`([\w-]+)`/g)].map(([, name = '']) => name)
}

function isModule(code: string): boolean {
  return code.startsWith('import ')
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
