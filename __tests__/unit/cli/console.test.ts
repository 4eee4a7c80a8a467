import { describe, expect, it } from '@jest/globals'
import { columns, paintFor, safe, safeJson } from '../../../src/cli/console.ts'

/** Texts that a terminal would obey, or that read otherwise than they are. */
const hostile = [
  'red\u001b[31m',
  'title\u001b]0;pwned\u0007',
  'csi\u009b2J',
  'line\nbreak\r',
  'bidi\u202eabc',
  'zero\u200bwidth',
  'lone\ud800',
  'del\u007f',
]

describe('texts of a store', () => {
  it.each(hostile)('are harmless: %j', (text) => {
    expect(safe(text)).not.toMatch(/[\p{Cc}\p{Cf}\p{Cs}]/u)
    expect(safe(text)).toContain('\u{FFFD}')
    expect(safeJson({ text }).replaceAll('\n', '')).not.toMatch(/[\p{Cc}\p{Cf}\p{Cs}]/u)
  })

  it.each(hostile)('are whole in JSON: %j', (text) => {
    expect(JSON.parse(safeJson({ text }))).toEqual({ text })
    expect(safeJson({ text }, 0).split('\n')).toHaveLength(1)
  })

  it('are shortened', () => {
    expect(safe('x'.repeat(1_000))).toHaveLength(301)
  })

  it('keep letters of every script', () => {
    expect(safe('Zahlung № 7 – 支払い 💳')).toBe('Zahlung № 7 – 支払い 💳')
  })
})

describe('colours', () => {
  const terminal = { isTTY: true, write: () => true }

  it('are painted on a terminal', () => {
    expect(paintFor(terminal, {})('red', 'x')).toContain('\u001b[31m')
  })

  it.each([
    ['a file', { write: () => true }, {}],
    ['NO_COLOR', terminal, { NO_COLOR: '1' }],
    ['a dumb terminal', terminal, { TERM: 'dumb' }],
  ])('are left out for %s', (_name, output, env) => {
    expect(paintFor(output, env)('red', 'x')).toBe('x')
  })
})

it('aligns columns by letters, not by units of UTF-16', () => {
  expect(
    columns([
      ['💳', 'a'],
      ['abc', 'b'],
    ]),
  ).toEqual(['💳    a', 'abc  b'])
})
