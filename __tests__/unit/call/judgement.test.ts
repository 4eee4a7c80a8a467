import { describe, expect, it, jest } from '@jest/globals'
import { judgeError, judgeResult } from '../../../src/call/judgement.ts'
import { isBreakableError, isBreakableResult, type Outcome } from '../../../src/failures/classification.ts'
import { warningsEmitted } from '../../support/warning-texts.ts'

const error = (properties: object): Error => Object.assign(new Error('anything'), properties)
const unwell = error({ status: 503 })
const missing = error({ status: 404 })
const bug = new TypeError('a bug')

/** The user's code, which TypeScript does not check. */
const answering = (said: unknown) => () => said as boolean

let service = 0
/** A service that nothing was warned of. */
const newService = (): string => `service ${service++}`

describe('judgeError', () => {
  const outcomesOf = (classify: (error: unknown) => boolean | Outcome) =>
    [unwell, missing, bug].map((failure) => judgeError(newService(), classify, failure))

  it('is the default where the classifier is the default', () => {
    expect(outcomesOf(isBreakableError)).toEqual(['failure', 'success', 'ignore'])
  })

  it.each<Outcome>(['failure', 'success', 'ignore'])(
    'is %s where the classifier says so, whatever the default says',
    (word) => {
      expect(outcomesOf(() => word)).toEqual([word, word, word])
    },
  )

  it.each([true, 1, {}, [], ['a match'], Symbol('x'), () => false])('takes %p for true', (said) => {
    expect(outcomesOf(answering(said))).toEqual(['failure', 'failure', 'failure'])
  })

  it.each([false, undefined, null, 0, Number.NaN, ''])(
    'takes %p for false: no failure, and the rest is the default’s',
    (said) => {
      expect(outcomesOf(answering(said))).toEqual(['ignore', 'success', 'ignore'])
    },
  )
})

describe('judgeResult', () => {
  const results = [{ statusCode: 503 }, { statusCode: 404 }, { statusCode: 429 }]
  const outcomesOf = (classify: (result: unknown) => boolean | Outcome) =>
    results.map((result) => judgeResult(newService(), classify, result))

  it('is the default where the classifier is the default', () => {
    expect(outcomesOf(isBreakableResult)).toEqual(['failure', 'success', 'ignore'])
  })

  it.each<Outcome>(['failure', 'success', 'ignore'])('is %s where the classifier says so', (word) => {
    expect(outcomesOf(() => word)).toEqual([word, word, word])
  })

  it.each([false, undefined, null, 0, ''])('takes %p for false: no failure, and the rest is the default’s', (said) => {
    expect(outcomesOf(answering(said))).toEqual(['success', 'success', 'ignore'])
  })

  it.each([1, {}, ['a match']])('takes %p for true', (said) => {
    expect(outcomesOf(answering(said))).toEqual(['failure', 'failure', 'failure'])
  })
})

describe('a classifier without a usable answer', () => {
  const secret = 'sk_live_secret'
  // biome-ignore lint/suspicious/noThenProperty: a promise of another library
  const thenable = { then: (_: unknown, reject: (reason: unknown) => void) => reject(new Error(secret)) }
  const throwing = () => {
    throw new RangeError(secret)
  }
  /** Judges an error and a result three times, and returns the outcomes of one round and the warnings. */
  const judgeOften = async (classify: () => boolean) => {
    using warn = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const name = newService()
    const rounds = [1, 2, 3].map(() => [
      ...[unwell, missing, bug].map((failure) => judgeError(name, classify, failure)),
      ...[{ statusCode: 503 }, 'ok'].map((result) => judgeResult(name, classify, result)),
    ])
    await warningsEmitted()
    expect(rounds[1]).toEqual(rounds[0])
    const warnings = warn.mock.calls.map(([text, options]) => {
      expect(options).toEqual({ type: 'CircuitBreakerWarning', code: 'CIRCUIT_CLASSIFIER' })
      expect(text).toContain(`"${name}"`)
      expect(text).not.toContain(secret)
      return String(text)
    })
    return { outcomes: rounds[0], warnings }
  }
  const byDefault = ['failure', 'success', 'ignore', 'failure', 'success']

  it('leaves the decision to the default where it throws, with one warning for each classifier', async () => {
    const { outcomes, warnings } = await judgeOften(throwing)
    expect(outcomes).toEqual(byDefault)
    expect(warnings).toEqual([
      expect.stringContaining('The classifier isBreakableError of'),
      expect.stringContaining('The classifier isBreakableResult of'),
    ])
    expect(warnings[0]).toContain('threw RangeError. The default decides')
  })

  it('is warned of once, whatever it throws', async () => {
    let count = 0
    const { warnings } = await judgeOften(() => {
      throw Object.assign(new Error(secret), { name: `Error${count++}` })
    })
    expect(warnings).toHaveLength(2)
  })

  it.each<[string, () => unknown]>([
    ['a promise', async () => true],
    ['a promise of false', async () => false],
    ['a promise that rejects', async () => throwing()],
    ['a thenable that rejects', () => thenable],
  ])(
    'leaves the decision to the default where it returns %s, with one warning and no unhandled rejection',
    async (_, classify) => {
      const unhandled = jest.fn()
      process.on('unhandledRejection', unhandled)
      const { outcomes, warnings } = await judgeOften(classify as () => boolean)
      process.off('unhandledRejection', unhandled)
      expect(outcomes).toEqual(byDefault)
      expect(warnings).toHaveLength(2)
      expect(warnings[0]).toMatch(/returned a promise, .*The default decides\./)
      expect(unhandled).not.toHaveBeenCalled()
    },
  )

  it('counts what is a string of its own, as all that is truthy, with one warning', async () => {
    const { outcomes, warnings } = await judgeOften(answering(secret))
    expect(outcomes).toEqual(byDefault.map(() => 'failure'))
    expect(warnings).toHaveLength(2)
    expect(warnings[0]).toContain("other than 'failure', 'success' and 'ignore'. That counts as a failure")
  })

  it('is judged for itself in each service', async () => {
    const both = [await judgeOften(throwing), await judgeOften(throwing)]
    expect(both.map(({ warnings }) => warnings.length)).toEqual([2, 2])
  })
})
