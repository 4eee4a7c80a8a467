import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from '@jest/globals'
import { readReference, undocumented } from '../../scripts/reference-model.ts'
import { folder, referencePages } from '../../scripts/reference-pages.ts'
import { root } from './code-blocks.ts'

const entries = readReference()
const { exports: packageExports } = JSON.parse(read('package.json')) as { readonly exports: Record<string, unknown> }

describe('the API reference', () => {
  it('is what the code says; where it is not, npm run page -- reference writes it', () => {
    const pages = referencePages(entries)
    const files = readdirSync(join(root, folder)).map((file) => `${folder}/${file}`)
    expect(files.toSorted()).toEqual([...pages.keys()].toSorted())
    for (const [file, text] of pages) expect({ file, text: read(file) }).toEqual({ file, text })
  })

  it('has every entry of the package', () => {
    const names = entries.map(({ name }) => name.replace('middy-circuit-breaker', '.'))
    expect(['./package.json', ...names].toSorted()).toEqual(Object.keys(packageExports).toSorted())
  })

  it('finds a doc comment for every export, field and code', () => {
    expect(undocumented(entries)).toEqual([])
  })

  it('misses a doc comment that is not there', () => {
    const [main, ...others] = entries as [(typeof entries)[0], ...typeof entries]
    const exports = main.exports.map((each) => {
      if (each.declaration.name !== 'RefusalReason') return each
      const [first, ...values] = each.declaration.values
      return {
        ...each,
        declaration: { ...each.declaration, values: [{ code: `${first?.code}`, doc: undefined }, ...values] },
      }
    })
    expect(undocumented([{ ...main, exports }, ...others])).toEqual(["src/errors.ts: RefusalReason 'open'"])
  })
})

describe('the codes in the API reference', () => {
  const sources = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts'))
    .map((file) => read(join('src', file)))

  it('of findings are those that a check can have', () => {
    const inCode = sources.flatMap((text) => [...text.matchAll(/\bcode: '([a-z][a-z-]+)'/g)].map(([, code]) => code))
    expect(valuesOf('FindingCode').toSorted()).toEqual([...new Set(inCode)].toSorted())
  })

  it('of warnings are those that are emitted', () => {
    const emitted =
      /(?:warnOnce\([^\n]*|code: |code: CircuitBreakerWarningCode = )'(CIRCUIT_\w+)'(?=\)| satisfies|,\n)/g
    const inCode = sources.flatMap((text) => [...text.matchAll(emitted)].map(([, code]) => code))
    // The store's errors hand on theirs.
    expect(valuesOf('CircuitBreakerWarningCode').toSorted()).toEqual(
      [...new Set([...inCode, 'CIRCUIT_STORAGE'])].toSorted(),
    )
  })
})

function valuesOf(name: string): string[] {
  const all = entries.flatMap(({ exports }) => exports.map(({ declaration }) => declaration))
  return (all.find((each) => each.name === name)?.values ?? []).map(({ code }) => code.replaceAll("'", ''))
}

function read(file: string): string {
  return readFileSync(join(root, file), 'utf8')
}
