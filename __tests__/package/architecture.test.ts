import { globSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { describe, expect, it } from '@jest/globals'

const src = resolve(import.meta.dirname, '../../src')

/** The files that each file of `src` imports, types included, by path from `src`. */
const imports: ReadonlyMap<string, readonly string[]> = new Map(
  globSync('**/*.ts', { cwd: src }).map((file) => {
    const source = readFileSync(join(src, file), 'utf8')
    const paths = Array.from(source.matchAll(/(?:\bfrom|\bimport\()\s*'(\.[^']+)'/g), ([, path]) => path as string)
    return [file, paths.map((path) => relative(src, resolve(src, dirname(file), path)))]
  }),
)

/** The first way that leads from a file back to it; `undefined` if there is none. */
function circle(): readonly string[] | undefined {
  const done = new Set<string>()
  const follow = (file: string, way: readonly string[]): readonly string[] | undefined => {
    if (way.includes(file)) return [...way.slice(way.indexOf(file)), file]
    if (done.has(file)) return undefined
    for (const next of imports.get(file) ?? []) {
      const found = follow(next, [...way, file])
      if (found !== undefined) return found
    }
    done.add(file)
    return undefined
  }
  for (const file of imports.keys()) {
    const found = follow(file, [])
    if (found !== undefined) return found
  }
  return undefined
}

describe('the files of src', () => {
  it('import only files that there are', () => {
    expect(imports.size).toBeGreaterThan(20)
    for (const [file, paths] of imports) {
      for (const path of paths) expect([file, path, imports.has(path)]).toEqual([file, path, true])
    }
  })

  it('import each other in no circle', () => {
    expect(circle()).toBeUndefined()
  })

  it.each([
    ['storage', /^(storage|errors|events|runtime|warnings|telemetry\/channels|settings\/(problems|option-rules))/],
    // Nothing in it waits: it knows what a record is, but no store.
    ['circuit', /^(circuit|errors|events|runtime|settings\/table|storage\/(contract|record))/],
    ['sync', /^(sync|circuit|errors|runtime|storage)/],
    ['failures', /^(failures|storage\/contract)/],
  ])('in %s/ know nothing beyond their room and those below it', (room, allowed) => {
    const foreign = [...imports]
      .filter(([file]) => file.startsWith(`${room}/`))
      .flatMap(([file, paths]) => paths.filter((path) => !allowed.test(path)).map((path) => [file, path]))

    expect(foreign).toEqual([])
  })

  it('in circuit/ wait for nothing', () => {
    const waiting = [...imports.keys()]
      .filter((file) => file.startsWith('circuit/'))
      .filter((file) => /\b(await|async|Promise|setTimeout)\b/.test(readFileSync(join(src, file), 'utf8')))

    expect(waiting).toEqual([])
  })

  it('are no longer than a reader can hold, or say why', () => {
    const tooLong = [...imports.keys()]
      .map((file) => ({ file, source: readFileSync(join(src, file), 'utf8') }))
      .filter(
        ({ source }) => source.split('\n').length > 450 && !source.includes('The file is longer than it should be'),
      )

    expect(tooLong.map(({ file }) => file)).toEqual([])
  })
})
