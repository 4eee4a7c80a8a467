/**
 * The code in the documentation.
 *
 * @module
 */

import { readFileSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

/** The root of the repository. */
export const root = join(import.meta.dirname, '..', '..')

export interface CodeBlock {
  /** What stands behind the fence; empty if nothing does. */
  readonly language: string
  /** The heading that it stands under. */
  readonly heading: string
  /** The line of the page that it begins in. */
  readonly line: number
  readonly code: string
}

/** The code blocks of a page, in order. */
export function codeBlocks(page: string): CodeBlock[] {
  const blocks: CodeBlock[] = []
  let heading = ''
  let begun: { language: string; line: number; lines: string[] } | undefined
  for (const [index, line] of readFileSync(join(root, page), 'utf8').split('\n').entries()) {
    const fence = /^```(\S*)/.exec(line)
    if (begun !== undefined) {
      if (fence === null) begun.lines.push(line)
      else {
        blocks.push({ language: begun.language, heading, line: begun.line, code: `${begun.lines.join('\n')}\n` })
        begun = undefined
      }
    } else if (fence !== null) begun = { language: fence[1] as string, line: index + 1, lines: [] }
    else heading = /^#+ (.*)/.exec(line)?.[1] ?? heading
  }
  if (begun !== undefined) throw new Error(`${page} has a code block that does not end: line ${begun.line}`)
  return blocks
}

/** The TypeScript blocks under a heading of a page. */
export function modulesUnder(page: string, heading: string): string[] {
  const found = codeBlocks(page).filter((block) => block.heading === heading && block.language === 'ts')
  if (found.length === 0) throw new Error(`${page} has no TypeScript under "${heading}"`)
  return found.map(({ code }) => code)
}

/** Modules that were written to files of their own, to be imported by a test. */
export interface WrittenModules extends AsyncDisposable {
  /** Where a module is, by its name. */
  path(name: string): string
}

/**
 * Writes modules side by side where jest compiles them. One imports the other as `./name.js`.
 *
 * @param modules their code by their names without an ending
 */
export async function writeModules(modules: Readonly<Record<string, string>>): Promise<WrittenModules> {
  const cache = join(root, '.cache')
  await mkdir(cache, { recursive: true })
  const folder = await mkdtemp(join(cache, 'documented-'))
  for (const [name, code] of Object.entries(modules)) {
    await writeFile(join(folder, `${name}.ts`), code.replace(/'\.\/([\w-]+)\.js'/g, "'./$1.ts'"))
  }
  return {
    path: (name) => join(folder, `${name}.ts`),
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true }),
  }
}
