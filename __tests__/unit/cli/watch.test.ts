import { describe, expect, it } from '@jest/globals'
import type { Board } from '../../../src/cli/board.ts'
import type { StoredCircuit } from '../../../src/cli/stored-circuits.ts'
import { afterKey, type Choice, frameOf } from '../../../src/cli/watch.ts'
import type { CircuitRecord } from '../../../src/storage/contract.ts'
import { emptyRecord } from '../../../src/storage/record.ts'

const now = Date.UTC(2030, 0, 31, 12)
const circuit = (key: string, given: Partial<CircuitRecord> = {}): StoredCircuit => ({
  key,
  record: { ...emptyRecord('e', now), ...given },
  damage: undefined,
})
const nothing: Choice = { selected: 0, question: undefined, note: '' }

/** Presses keys one after the other; returns the last result. */
const press = (choice: Choice, circuits: readonly StoredCircuit[], ...keys: readonly string[]) => {
  let result: ReturnType<typeof afterKey> = { choice }
  for (const key of keys) {
    if (result === 'end') throw new Error('It has ended already')
    result = afterKey(result.choice, key.length === 1 ? key : undefined, key, circuits)
  }
  return result
}

describe('keys', () => {
  const two = [circuit('a'), circuit('b')]

  it('choose a circuit, and stay within the list', () => {
    expect(press(nothing, two, 'down', 'down')).toMatchObject({ choice: { selected: 1 } })
    expect(press(nothing, two, 'down', 'up', 'up')).toMatchObject({ choice: { selected: 0 } })
    expect(press(nothing, [], 'down')).toMatchObject({ choice: { selected: 0 } })
  })

  it('force nothing without a reason', () => {
    const asked = press(nothing, two, 'o', 'return')
    expect(asked).toMatchObject({
      choice: { question: { deed: 'open', key: 'a' }, note: 'A reason is needed. Escape changes nothing.' },
    })
    expect(asked).not.toHaveProperty('deed')
  })

  it('force with the reason that was typed', () => {
    expect(press(nothing, two, 'down', 'c', 'o', 'k', 'x', 'backspace', 'return')).toEqual({
      choice: { selected: 1, question: undefined, note: '' },
      deed: { deed: 'close', key: 'b', why: 'ok' },
    })
  })

  it('change nothing after Escape', () => {
    const result = press(nothing, two, 'r', 'q', 'escape')
    expect(result).toMatchObject({ choice: { question: undefined, note: 'Nothing was changed.' } })
    expect(result).not.toHaveProperty('deed')
  })

  it('end with q, but not within a reason', () => {
    expect(press(nothing, two, 'q')).toBe('end')
    expect(press(nothing, two, 'o', 'q')).toMatchObject({ choice: { question: { answer: 'q' } } })
  })

  it('ask about nothing where there is no circuit', () => {
    expect(press(nothing, [], 'o')).toEqual({ choice: nothing })
  })
})

describe('the picture', () => {
  const draw = (board: Partial<Board>, width = 100, choice = nothing) =>
    frameOf(
      { circuits: [], journals: new Map(), at: now, trouble: undefined, ...board },
      choice,
      { from: 0, count: 10 },
      now,
      width,
      (_style, text) => text,
      'table orders',
    )

  it('shows state, last hour, evidence, age and the next probe', () => {
    const open = {
      state: 'OPEN',
      openedAt: now - 3_000,
      retryAt: now + 7_000,
      failureCount: 3,
      successCount: 1,
    } as const
    const [head, , row] = draw({ circuits: [circuit('stripe', open)] }, 120)
    expect(head).toBe('table orders  1 circuit, 1 open  12:00:00 UTC')
    expect(row).toBe('› stripe  OPEN                   ████████████████████ ████░ 3:1   3 s          probe in 7 s')
  })

  it('fits the terminal, whatever the store holds', () => {
    const hostile = circuit(`${'x'.repeat(300)}\u001b[2J`, {
      override: { state: 'OPEN', at: now, why: 'y'.repeat(500), by: '\u001b]0;title\u0007' },
    })
    for (const line of draw({ circuits: [hostile], trouble: '\u001b[2J down' }, 79)) {
      expect(Array.from(line).length).toBeLessThanOrEqual(79)
      expect(line).not.toMatch(/\p{Cc}/u)
    }
  })

  it('says how many circuits are below', () => {
    const circuits = Array.from({ length: 12 }, (_, i) => circuit(`s${i}`))
    expect(draw({ circuits })).toContain('  … 2 more')
  })

  it('shows that the store fails', () => {
    expect(draw({ trouble: 'It did not answer.' })).toContain('The store fails: It did not answer.')
  })

  it('asks for the reason', () => {
    const question = { deed: 'open', key: 'stripe', answer: 'main' } as const
    expect(draw({}, 100, { ...nothing, question })).toContain('Why open stripe? main█')
  })
})
