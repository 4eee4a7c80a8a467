import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import { keyedTable, settingsTable } from '../../../scripts/setting-descriptions.ts'
import { ConfigurationError, type ConfigurationProblem } from '../../../src/errors.ts'
import { isBreakableError, isBreakableResult } from '../../../src/failures/classification.ts'
import {
  hashOf,
  type ResolvedConfig,
  resolveConfig,
  sharedKey,
  storedKey,
  storedKeyOf,
  storedPrefix,
} from '../../../src/settings/resolve.ts'
import type { CircuitBreakerOptions, ServiceSettings } from '../../../src/settings/table.ts'
import * as texts from '../../../src/warning-texts.ts'

type Env = Record<string, string | undefined>

/** As a JavaScript user calls it: with anything. */
function resolve(options: unknown, env: Env = {}): ResolvedConfig {
  return resolveConfig(options as CircuitBreakerOptions, env)
}

function stripe(options: object = {}, env: Env = {}): ServiceSettings {
  return resolve({ services: ['stripe'], ...options }, env).services.get('stripe') as ServiceSettings
}

function problems(options: unknown, env: Env = {}): readonly ConfigurationProblem[] {
  try {
    resolve(options, env)
  } catch (error) {
    if (error instanceof ConfigurationError) return error.problems
    throw error
  }
  return []
}

function messages(options: unknown, env: Env = {}): string[] {
  return problems(options, env).map(({ message }) => message)
}

describe('defaults', () => {
  it('gives every service the documented defaults', () => {
    expect(stripe()).toEqual({
      failureThreshold: 3,
      failureRateThreshold: 50,
      resetTimeout: 10_000,
      halfOpenSuccessThreshold: 1,
      halfOpenMaxConcurrent: 1,
      maxConcurrent: 10,
      maxQueue: false,
      cacheTtl: 5_000,
      timeout: false,
      deadlineReserve: 1_000,
      window: 60_000,
      maxResetTimeout: 300_000,
      resetBackoff: 2,
      slowCallThreshold: false,
      rampUp: false,
      mode: 'enforce',
      isBreakableError,
      isBreakableResult,
    })
  })

  it('gives the breaker its own defaults', () => {
    const { services, ...breaker } = resolve({ services: ['stripe'] })

    expect([...services.keys()]).toEqual(['stripe'])
    expect(breaker).toEqual({
      namespace: undefined,
      storageTimeout: 500,
      preload: true,
      prefetch: false,
      journal: true,
      onStateChange: undefined,
      onStorageError: undefined,
      storage: { type: 'memory' },
      warnings: [],
      doubts: [],
    })
  })

  it('takes undefined for not set, at both levels', () => {
    expect(stripe({ timeout: undefined, services: { stripe: { failureThreshold: undefined } } })).toEqual(stripe())
    expect(stripe({ services: { stripe: undefined } })).toEqual(stripe())
    expect(resolve({ services: ['a'], namespace: undefined, storage: undefined, storageTimeout: undefined })).toEqual(
      resolve({ services: ['a'] }),
    )
  })

  it('keeps the order of the services', () => {
    expect([...resolve({ services: ['b', 'a', 'c'] }).services.keys()]).toEqual(['b', 'a', 'c'])
    expect([...resolve({ services: { b: {}, a: {}, c: {} } }).services.keys()]).toEqual(['b', 'a', 'c'])
  })

  it('hands the breaker-wide options on', () => {
    const options = {
      namespace: 'prod',
      storageTimeout: 250,
      prefetch: true,
      onStateChange: () => {},
      onStorageError: () => {},
    }

    expect(resolve({ services: ['stripe'], ...options })).toMatchObject(options)
  })
})

describe('precedence', () => {
  const option = { failureThreshold: 11 }
  const variable = { CIRCUIT_BREAKER_FAILURE_THRESHOLD: '12' }
  const own = { services: { stripe: { failureThreshold: 13 } } }
  const ownVariable = { CIRCUIT_BREAKER_FAILURE_THRESHOLD__STRIPE: '14' }

  it.each([
    ['an option over the default', option, {}, 11],
    ['a variable over an option', option, variable, 12],
    ['a per-service option over a variable', { ...option, ...own }, variable, 13],
    ['a per-service variable over a per-service option', { ...option, ...own }, { ...variable, ...ownVariable }, 14],
    ['a per-service variable over a variable', option, { ...variable, ...ownVariable }, 14],
    ['a per-service option over an option', { ...option, ...own }, {}, 13],
  ])('prefers %s', (_, options, env, expected) => {
    expect(stripe(options, env).failureThreshold).toBe(expected)
  })

  it('leaves the other services at the breaker-wide setting', () => {
    const { services } = resolve(
      { services: { stripe: { cacheTtl: 1 }, paypal: {} }, cacheTtl: 2 },
      { CIRCUIT_BREAKER_CACHE_TTL__STRIPE: '3' },
    )

    expect([services.get('stripe')?.cacheTtl, services.get('paypal')?.cacheTtl]).toEqual([3, 2])
  })

  it('lets false win over a number, and a number over false', () => {
    expect(stripe({ timeout: 500 }, { CIRCUIT_BREAKER_TIMEOUT: 'false' }).timeout).toBe(false)
    expect(stripe({ timeout: 500, services: { stripe: { timeout: false } } }).timeout).toBe(false)
    expect(stripe({ timeout: false }, { CIRCUIT_BREAKER_TIMEOUT__STRIPE: '500' }).timeout).toBe(500)
  })
})

describe('environment variables', () => {
  it('may be written in any case', () => {
    const env = {
      CIRCUIT_BREAKER_MODE: 'OBSERVE',
      CIRCUIT_BREAKER_MODE__STRIPE: ' Off ',
      CIRCUIT_BREAKER_TIMEOUT: 'False',
      CIRCUIT_BREAKER_MAX_QUEUE: 'FALSE',
      CIRCUIT_BREAKER_PREFETCH: 'TRUE',
      CIRCUIT_BREAKER_PRELOAD: 'False',
      CIRCUIT_BREAKER_STORAGE: 'Memory',
    }
    const { services, ...breaker } = resolve({ services: ['stripe', 'paypal'], timeout: 9, maxQueue: 9 }, env)

    expect(services.get('stripe')).toMatchObject({ mode: 'off', timeout: false, maxQueue: false })
    expect(services.get('paypal')).toMatchObject({ mode: 'observe' })
    expect(breaker).toMatchObject({ prefetch: true, preload: false, storage: { type: 'memory' } })
  })

  it.each(settingsTable.flatMap(({ name, variable }) => (variable ? [[variable, name] as const] : [])))(
    '%s sets %s',
    (variable, name) => {
      const text =
        name === 'mode'
          ? 'observe'
          : (({ prefetch: 'true', preload: 'false', journal: 'false' } as Record<string, string>)[name] ?? '7')
      const { services, ...breaker } = resolve({ services: ['stripe'], resetTimeout: 1 }, { [variable]: text })

      const value = { ...breaker, ...services.get('stripe') }[name as keyof ServiceSettings]
      expect(String(value)).toBe(text)
    },
  )

  it('are none for functions', () => {
    const without = settingsTable.filter(({ variable }) => !variable).map(({ name }) => name)

    expect(without).toEqual(['isBreakableError', 'isBreakableResult', 'onStateChange', 'onStorageError'])
  })

  it.each(['', ' ', '\t\n'])('counts as unset when it is %j', (blank) => {
    const env = { CIRCUIT_BREAKER_TIMEOUT: blank, CIRCUIT_BREAKER_TIMEOUT__STRIPE: blank, CIRCUIT_BREAKER_X: blank }

    expect(resolve({ services: ['stripe'], timeout: 5_000 }, env)).toEqual(
      resolve({ services: ['stripe'], timeout: 5_000 }),
    )
  })

  it('ignores the blanks around a value', () => {
    expect(stripe({}, { CIRCUIT_BREAKER_WINDOW: ' 5 ' }).window).toBe(5)
    expect(stripe({}, { CIRCUIT_BREAKER_MODE: ' off\n' }).mode).toBe('off')
  })

  it.each(['5s', '1e3', '0x10', '5 x', '+5', '-5', '5.0', '5,000', '5_000', 'Infinity', 'NaN', 'true', '٥', '0b1'])(
    'refuses %j for a number',
    (text) => {
      expect(messages({ services: ['stripe'] }, { CIRCUIT_BREAKER_WINDOW: text })).toEqual([
        `window must be a whole number of milliseconds from 1 to 86400000, but is ${JSON.stringify(text)} (CIRCUIT_BREAKER_WINDOW)`,
      ])
    },
  )

  it.each(['unlimited', 'none', 'off'])('refuses %j where only false is allowed', (text) => {
    expect(messages({ services: ['stripe'] }, { CIRCUIT_BREAKER_MAX_QUEUE__STRIPE: text })).toEqual([
      `services.stripe.maxQueue must be a whole number from 0 up, or false, but is "${text}" (CIRCUIT_BREAKER_MAX_QUEUE__STRIPE)`,
    ])
  })

  it('refuses false where a number is needed', () => {
    expect(messages({ services: ['stripe'] }, { CIRCUIT_BREAKER_CACHE_TTL: 'false' })).toHaveLength(1)
  })

  it.each([
    ['my-svc', 'MY_SVC'],
    ['api.example.com/v1', 'API_EXAMPLE_COM_V1'],
    ['camelCase', 'CAMELCASE'],
    ['a__b', 'A__B'],
    ['_a', '_A'],
    ['größe', 'GR_SSE'],
    ['😀', '_'],
    ['__proto__', '__PROTO__'],
  ])('reaches the service %j by the suffix %s', (key, suffix) => {
    const config = resolve({ services: [key] }, { [`CIRCUIT_BREAKER_TIMEOUT__${suffix}`]: '5' })

    expect(config.services.get(key)?.timeout).toBe(5)
    expect(config.warnings).toEqual([])
  })

  it('refuses a per-service variable that fits two services', () => {
    const env = { CIRCUIT_BREAKER_TIMEOUT__MY_SVC: '5' }

    expect(messages({ services: ['my-svc', 'other', 'my_svc'] }, env)).toEqual([
      'CIRCUIT_BREAKER_TIMEOUT__MY_SVC fits more than one service: "my-svc" and "my_svc"; rename all but one (CIRCUIT_BREAKER_TIMEOUT__MY_SVC)',
    ])
    expect(messages({ services: ['my-svc', 'my_svc'] })).toEqual([])
  })

  it.each(['NAMESPACE', 'STORAGE_TIMEOUT', 'STORAGE', 'TABLE_NAME'])('refuses %s for one service', (name) => {
    const variable = `CIRCUIT_BREAKER_${name}__STRIPE`

    expect(messages({ services: ['stripe'] }, { [variable]: '5' })).toEqual([
      `CIRCUIT_BREAKER_${name} cannot be set per service, only for the whole breaker (${variable})`,
    ])
  })
})

describe('doubts about times', () => {
  const doubts = (options: object, env: Env = {}): string[] =>
    resolve({ services: ['stripe'], ...options }, env).doubts.map((warning) => warning(texts))

  it('say which setting was probably meant in seconds, and where it came from', () => {
    const services = { stripe: { timeout: 3 }, paypal: {} }
    expect(doubts({ services, resetTimeout: 30 }, { CIRCUIT_BREAKER_CACHE_TTL__PAYPAL: '5' })).toEqual([
      expect.stringMatching(/^resetTimeout is 30 ms \(option\): times are in milliseconds. For 30 s write 30000; /),
      expect.stringMatching(/^services\.stripe\.timeout is 3 ms \(option\)/),
      expect.stringMatching(/^services\.paypal\.cacheTtl is 5 ms \(CIRCUIT_BREAKER_CACHE_TTL__PAYPAL\).* write 5000/),
    ])
  })

  it('are raised for each time', () => {
    const times = {
      storageTimeout: 1,
      deadlineReserve: 1,
      window: 60,
      maxResetTimeout: 300,
      slowCallThreshold: 2,
      rampUp: 60,
    }
    expect(doubts({ ...times, resetTimeout: 60, timeout: 10, cacheTtl: 5 })).toHaveLength(9)
  })

  it('are raised for the value that counts', () => {
    expect(doubts({ resetTimeout: 30 }, { CIRCUIT_BREAKER_RESET_TIMEOUT: '30000' })).toEqual([])
  })

  it('are not raised for what may be meant so', () => {
    expect(doubts({})).toEqual([])
    expect(doubts({ timeout: 31, resetTimeout: 121, cacheTtl: 0, deadlineReserve: 0, failureThreshold: 3 })).toEqual([])
    expect(doubts({ deadlineReserve: 50, storageTimeout: 20, timeout: false })).toEqual([])
  })
})

describe('warnings', () => {
  const warnings = (env: Env, services: readonly string[] = ['stripe', 'my-svc']) =>
    resolve({ services }, env).warnings.map((warning) => warning(texts))

  it.each([
    ['CIRCUIT_BREAKER_FAILURE_TRESHOLD', 'CIRCUIT_BREAKER_FAILURE_THRESHOLD'],
    ['CIRCUIT_BREAKER_FAILURE_TRESHOLD__STRIPE', 'CIRCUIT_BREAKER_FAILURE_THRESHOLD__STRIPE'],
    ['CIRCUIT_BREAKER_FAILURETHRESHOLD', 'CIRCUIT_BREAKER_FAILURE_THRESHOLD'],
    ['CIRCUIT_BREAKER_timeout', 'CIRCUIT_BREAKER_TIMEOUT'],
    ['CIRCUIT_BREAKER_TIMEOUT_STRIPE', 'CIRCUIT_BREAKER_TIMEOUT__STRIPE'],
    ['CIRCUIT_BREAKER__TIMEOUT', 'CIRCUIT_BREAKER_TIMEOUT'],
    ['CIRCUIT_BREAKER_TABLENAME', 'CIRCUIT_BREAKER_TABLE_NAME'],
    ['CIRCUIT_BREAKER_TABLE', 'CIRCUIT_BREAKER_TABLE_NAME'],
    ['CIRCUIT_BREAKER_REDIS', 'CIRCUIT_BREAKER_REDIS_URL'],
    ['CIRCUIT_BREAKER_URL', 'CIRCUIT_BREAKER_REDIS_URL'],
  ])('suggest what %s may have meant', (variable, suggestion) => {
    expect(warnings({ [variable]: '5' })).toEqual([
      `${variable} names no setting of the circuit breaker and changes nothing; did you mean ${suggestion}?`,
    ])
  })

  it('suggest nothing that is far off', () => {
    expect(warnings({ CIRCUIT_BREAKER_COLOUR: '5', CIRCUIT_BREAKER_: '5' })).toEqual([
      'CIRCUIT_BREAKER_COLOUR names no setting of the circuit breaker and changes nothing',
      'CIRCUIT_BREAKER_ names no setting of the circuit breaker and changes nothing',
    ])
  })

  it('list the services when a suffix fits none, and leave room for other breakers', () => {
    expect(warnings({ CIRCUIT_BREAKER_TIMEOUT__STRIP: '5', CIRCUIT_BREAKER_TIMEOUT__PAYPAL: '5' })).toEqual([
      'CIRCUIT_BREAKER_TIMEOUT__STRIP names no service of this circuit breaker, which has "stripe", "my-svc", and changes nothing here; unless it is meant for another breaker, did you mean CIRCUIT_BREAKER_TIMEOUT__STRIPE?',
      'CIRCUIT_BREAKER_TIMEOUT__PAYPAL names no service of this circuit breaker, which has "stripe", "my-svc", and changes nothing here; unless it is meant for another breaker, remove it',
    ])
  })

  it('are not raised for the variables of the store or for those of others', () => {
    const env = {
      CIRCUIT_BREAKER_STORAGE: 'memory',
      CIRCUIT_BREAKER_TABLE_NAME: 'circuits',
      CIRCUIT_BREAKER_REDIS_URL: 'redis://localhost',
      AWS_REGION: 'eu-central-1',
      MY_CIRCUIT_BREAKER_TIMEOUT: '5',
    }

    expect(warnings(env)).toEqual([])
  })
})

describe('refusing wrong values', () => {
  const times = [
    'resetTimeout',
    'cacheTtl',
    'timeout',
    'deadlineReserve',
    'window',
    'maxResetTimeout',
    'slowCallThreshold',
    'rampUp',
    'storageTimeout',
  ]
  const counts = [
    'failureThreshold',
    'failureRateThreshold',
    'halfOpenSuccessThreshold',
    'halfOpenMaxConcurrent',
    'maxConcurrent',
    'maxQueue',
  ]
  const zeroAllowed = ['cacheTtl', 'deadlineReserve', 'maxQueue']
  const junk = [-1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, '5', null, true, 5n, [], {}, () => 5, Symbol('5')]

  it.each([...times, ...counts])('accepts only whole numbers in range for %s', (name) => {
    for (const value of junk) {
      expect(problems({ services: ['a'], [name]: value })).toEqual([
        expect.objectContaining({ setting: name, source: 'option' }),
      ])
    }
    expect(problems({ services: ['a'], [name]: 0 })).toHaveLength(zeroAllowed.includes(name) ? 0 : 1)
    expect(problems({ services: ['a'], maxResetTimeout: 1, resetTimeout: 1, [name]: 1 })).toEqual([])
  })

  it.each(times.filter((name) => name !== 'window'))('accepts for %s what a timer can hold, and no more', (name) => {
    const options = { services: ['a'], maxResetTimeout: 2 ** 31 - 1, [name]: 2 ** 31 - 1 }

    expect(messages(options)).toEqual([])
    expect(messages({ ...options, [name]: 2 ** 31 })).toEqual([
      expect.stringContaining(`${name} must be a whole number of milliseconds from`),
    ])
  })

  it('accepts a window of a day and 1000 probes at once, and no more', () => {
    expect(messages({ services: ['a'], window: 86_400_000, halfOpenMaxConcurrent: 1_000 })).toEqual([])
    expect(messages({ services: ['a'], window: 86_400_001, halfOpenMaxConcurrent: 1_001 })).toEqual([
      'window must be a whole number of milliseconds from 1 to 86400000, but is 86400001 (option)',
      'halfOpenMaxConcurrent must be a whole number from 1 to 1000, but is 1001 (option)',
    ])
  })

  it('accepts a failure rate of 100 per cent, and no more', () => {
    expect(messages({ services: ['a'], failureRateThreshold: 100 })).toEqual([])
    expect(messages({ services: ['a'], failureRateThreshold: 101 })).toEqual([
      'failureRateThreshold must be a whole number of per cent from 1 to 100, but is 101 (option)',
    ])
  })

  it('accepts false only where there need be no limit', () => {
    const accepting = [...times, ...counts].filter((name) => messages({ services: ['a'], [name]: false }).length === 0)

    expect(accepting).toEqual(['timeout', 'slowCallThreshold', 'rampUp', 'maxQueue'])
  })

  it.each([1, 1.5, 2.25, 10])('accepts %p for resetBackoff, as text too', (value) => {
    expect(stripe({ resetBackoff: value }).resetBackoff).toBe(value)
    expect(stripe({}, { CIRCUIT_BREAKER_RESET_BACKOFF: String(value) }).resetBackoff).toBe(value)
  })

  it.each([0, 0.9, 10.1, -2, Number.NaN, Number.POSITIVE_INFINITY, '2', false, null])(
    'refuses %p for resetBackoff',
    (value) => {
      expect(messages({ services: ['a'], resetBackoff: value })).toEqual([
        expect.stringMatching(/^resetBackoff must be a number from 1 to 10, but is .* \(option\)$/),
      ])
    },
  )

  it.each(['.5', '1.', '1,5', '1e1', '0x2', '-1', 'twice', '11'])('refuses the text %j for resetBackoff', (text) => {
    expect(messages({ services: ['a'] }, { CIRCUIT_BREAKER_RESET_BACKOFF: text })).toEqual([
      expect.stringMatching(
        /^resetBackoff must be a number from 1 to 10, but is .* \(CIRCUIT_BREAKER_RESET_BACKOFF\)$/,
      ),
    ])
  })

  it('takes true and false, as text too, and nothing else for prefetch', () => {
    const variable = (text: string) => ({ CIRCUIT_BREAKER_PREFETCH: text })
    expect(resolve({ services: ['a'] }, variable('true')).prefetch).toBe(true)
    expect(resolve({ services: ['a'], prefetch: true }, variable('false')).prefetch).toBe(false)
    expect(messages({ services: ['a'] }, variable('1'))).toEqual([
      'prefetch must be true or false, but is "1" (CIRCUIT_BREAKER_PREFETCH)',
    ])
    expect(messages({ services: ['a'], prefetch: 'true' })).toEqual([
      'prefetch must be true or false, but is "true" (option)',
    ])
  })

  it.each([
    ['mode', 'on', 'mode must be one of enforce, observe, off, but is "on" (option)'],
    ['mode', 'OFF', 'mode must be one of enforce, observe, off, but is "OFF" (option)'],
    ['isBreakableError', true, 'isBreakableError must be a function, but is true (option)'],
    ['isBreakableResult', /5../, 'isBreakableResult must be a function, but is an object (option)'],
    ['onStateChange', 'log', 'onStateChange must be a function, but is "log" (option)'],
    ['onStorageError', [], 'onStorageError must be a function, but is a list (option)'],
    [
      'namespace',
      '',
      'namespace must be a non-empty string without control characters or outer blanks, but is "" (option)',
    ],
    [
      'namespace',
      'a\n',
      'namespace must be a non-empty string without control characters or outer blanks, but is "a\\n" (option)',
    ],
    [
      'namespace',
      ' eu',
      'namespace must be a non-empty string without control characters or outer blanks, but is " eu" (option)',
    ],
    [
      'namespace',
      5,
      'namespace must be a non-empty string without control characters or outer blanks, but is 5 (option)',
    ],
    ['failureThreshold', 5n, 'failureThreshold must be a whole number from 1 up, but is a bigint (option)'],
    ['failureThreshold', null, 'failureThreshold must be a whole number from 1 up, but is null (option)'],
  ])('says what is wrong with %s: %p', (name, value, message) => {
    expect(messages({ services: ['a'], [name]: value })).toEqual([message])
  })

  it('reports every problem at once, each with its setting, source and value', () => {
    const options = { services: { stripe: { maxConcurrent: 0 } }, failureTreshold: 5 }

    expect(() => resolve(options, { CIRCUIT_BREAKER_RESET_TIMEOUT: '30s' })).toThrow(
      new ConfigurationError([
        {
          setting: 'resetTimeout',
          source: 'CIRCUIT_BREAKER_RESET_TIMEOUT',
          value: '30s',
          message:
            'resetTimeout must be a whole number of milliseconds from 1 to 2147483647, but is "30s" (CIRCUIT_BREAKER_RESET_TIMEOUT)',
        },
        {
          setting: 'failureTreshold',
          source: 'option',
          value: undefined,
          message: 'failureTreshold is not a setting; did you mean failureThreshold? (option)',
        },
        {
          setting: 'services.stripe.maxConcurrent',
          source: 'option',
          value: 0,
          message: 'services.stripe.maxConcurrent must be a whole number from 1 up, but is 0 (option)',
        },
      ]),
    )
  })

  it('reports a wrong value even where a more specific one wins', () => {
    expect(messages({ services: { a: { timeout: 5 } }, timeout: 0 }, { CIRCUIT_BREAKER_TIMEOUT__A: '9' })).toHaveLength(
      1,
    )
  })

  it('reports a problem of the whole breaker once, however many services there are', () => {
    expect(messages({ services: ['a', 'b', 'c'], timeout: 0, resetTimeout: 300_001 })).toHaveLength(2)
  })
})

describe('resetTimeout and maxResetTimeout', () => {
  it('must fit, and the message names both and their sources', () => {
    const services = { a: { resetTimeout: 20 }, b: { maxResetTimeout: 9 }, c: {} }

    expect(messages({ services, resetTimeout: 10 }, { CIRCUIT_BREAKER_MAX_RESET_TIMEOUT: '15' })).toEqual([
      'services.a.resetTimeout must be at most maxResetTimeout, 15 (CIRCUIT_BREAKER_MAX_RESET_TIMEOUT), but is 20 (option)',
      'services.b.resetTimeout must be at most maxResetTimeout, 9 (option), but is 10 (option)',
    ])
    expect(messages({ services: ['a', 'b'], resetTimeout: 300_001 })).toEqual([
      'resetTimeout must be at most maxResetTimeout, 300000 (default), but is 300001 (option)',
    ])
  })

  it('may be equal', () => {
    expect(messages({ services: ['a'], resetTimeout: 7, maxResetTimeout: 7 })).toEqual([])
  })

  it('are not compared where one of them is wrong already', () => {
    expect(messages({ services: ['a'], resetTimeout: 300_001, maxResetTimeout: 'x' })).toHaveLength(1)
  })
})

describe('unknown names', () => {
  it.each([
    ['failureTreshold', 'failureThreshold'],
    ['FAILURETHRESHOLD', 'failureThreshold'],
    ['cacheTTL', 'cacheTtl'],
    ['max_concurrent', 'maxConcurrent'],
    ['timeuot', 'timeout'],
    ['halfOpenMaxConcurent', 'halfOpenMaxConcurrent'],
    ['service', 'services'],
    ['onStateChanged', 'onStateChange'],
  ])('suggests for %s: %s', (name, suggestion) => {
    expect(messages({ services: ['a'], [name]: 5 })).toEqual([
      `${name} is not a setting; did you mean ${suggestion}? (option)`,
    ])
  })

  it('lists the settings where nothing is near', () => {
    expect(messages({ services: { a: { xyz: 1 } } })).toEqual([
      expect.stringMatching(
        /^services\.a\.xyz is not a setting; there are failureThreshold, .*isBreakableResult \(option\)$/,
      ),
    ])
    expect(messages({ services: ['a'], 'odd name': undefined })).toEqual([
      expect.stringMatching(/^"odd name" is not a setting; there are services, storage, .*onStorageError \(option\)$/),
    ])
  })

  it.each(['__proto__', 'constructor', 'toString', 'hasOwnProperty'])('refuses %s like any other', (name) => {
    const options = JSON.parse(`{ "services": { "a": { "${name}": {} } }, "${name}": 5 }`)

    expect(messages(options)).toEqual([
      expect.stringContaining(`${name} is not a setting`),
      expect.stringContaining(`services.a.${name} is not a setting`),
    ])
  })

  it.each(['services', 'storage', 'namespace', 'storageTimeout', 'prefetch', 'onStateChange', 'onStorageError'])(
    'says that %s is for the whole breaker when a service sets it',
    (name) => {
      expect(messages({ services: { a: { [name]: 5 } } })).toEqual([
        `services.a.${name} cannot be set per service, only for the whole breaker (option)`,
      ])
    },
  )

  it('never repeats what was given under a wrong name', () => {
    const [problem] = problems({ services: ['a'], redisPassword: 'hunter2' })

    expect(JSON.stringify(problem)).not.toContain('hunter2')
  })
})

describe('services', () => {
  const nothing = 'services must be a list of keys, or an object from key to settings, with at least one key, but is'

  it.each([
    [undefined, `${nothing} missing (option)`],
    [null, `${nothing} null (option)`],
    ['stripe', `${nothing} "stripe" (option)`],
    [5, `${nothing} 5 (option)`],
    [[], `${nothing} empty (option)`],
    [{}, `${nothing} empty (option)`],
    [new Map([['a', {}]]), `${nothing} empty (option)`],
    [['a', 'b', 'a'], 'services must not name a key twice, but has "a" twice (option)'],
    [
      [''],
      'services must have keys each of which is a non-empty string without control characters or outer blanks, but one is "" (option)',
    ],
    [
      { '': {} },
      'services must have keys each of which is a non-empty string without control characters or outer blanks, but one is "" (option)',
    ],
    [
      [5],
      'services must have keys each of which is a non-empty string without control characters or outer blanks, but one is 5 (option)',
    ],
    [
      new Array(1),
      'services must have keys each of which is a non-empty string without control characters or outer blanks, but one is missing (option)',
    ],
    [['\u0000'], expect.stringContaining('but one is "\\u0000"')],
    [['\u0085'], expect.stringContaining('without control characters')],
    [['\ud800'], expect.stringContaining('but one is "\\ud800"')],
    [[' '], expect.stringContaining('or outer blanks, but one is " "')],
    [{ ' stripe': {} }, expect.stringContaining('but one is " stripe"')],
    [['stripe\u00a0'], expect.stringContaining('or outer blanks')],
    [['\u200b'], expect.stringContaining('or outer blanks')],
    [{ 'a\tb': {} }, expect.stringContaining('but one is "a\\tb"')],
    [{ a: null }, 'services.a must be an object with settings, but is null (option)'],
    [{ a: 5 }, 'services.a must be an object with settings, but is 5 (option)'],
    [{ 'my svc': [] }, 'services["my svc"] must be an object with settings, but is a list (option)'],
    [{ a: () => {} }, 'services.a must be an object with settings, but is a function (option)'],
  ])('refuses %p', (services, message) => {
    expect(messages({ services })).toEqual([message])
  })

  it.each([undefined, null, 5, 'stripe', ['stripe'], () => {}])('refuses %p for the options', (options) => {
    expect(messages(options)).toEqual([expect.stringMatching(/^options must be an object such as .* \(option\)$/)])
  })

  it('accepts keys of 256 bytes in UTF-8, and no longer', () => {
    expect(messages({ services: ['a'.repeat(256), 'é'.repeat(128)] })).toEqual([])
    expect(messages({ services: ['a'.repeat(257)] })).toEqual([
      `services: the key "${'a'.repeat(64)}…" takes 257 bytes, but 256 are allowed (option)`,
    ])
    expect(messages({ services: ['é'.repeat(129)] })).toHaveLength(1)
  })

  it('counts the namespace in', () => {
    const services = ['a'.repeat(250)]

    expect(messages({ services, namespace: 'b'.repeat(5) })).toEqual([])
    expect(messages({ services }, { CIRCUIT_BREAKER_NAMESPACE: 'b'.repeat(6) })).toEqual([
      `services: the key "${'a'.repeat(64)}…", stored with the namespace (CIRCUIT_BREAKER_NAMESPACE), takes 257 bytes, but 256 are allowed (option)`,
    ])
  })

  it.each(['__proto__', 'constructor', 'toString', 'valueOf', 'a b', 'größe', '😀', 'a#b', '%', 'services'])(
    'takes %j for a key like any other, in a list and in a map',
    (key) => {
      const map = JSON.parse(`{ ${JSON.stringify(key)}: { "timeout": 5 }, "other": {} }`)

      expect([...resolve({ services: [key] }).services]).toEqual([[key, stripe()]])
      expect([...resolve({ services: map }).services]).toEqual([
        [key, stripe({ timeout: 5 })],
        ['other', stripe()],
      ])
    },
  )

  it('reads own properties only', () => {
    const inherited = Object.create({ timeout: 5, services: ['other'], storage: 5 })
    const own = Object.create(
      { timeout: 5, other: {} },
      { a: { enumerable: true, value: Object.create({ timeout: 6 }) } },
    )

    expect(messages(inherited)).toEqual([`${nothing} missing (option)`])
    expect([...resolve(Object.assign(inherited, { services: own })).services]).toEqual([['a', stripe()]])
  })

  it('accepts frozen and prototype-free options and does not change them', () => {
    const services = Object.freeze({ a: Object.freeze({ timeout: 5 }) })
    const options = Object.freeze(Object.assign(Object.create(null), { services, cacheTtl: 0 }))

    expect(resolve(options).services.get('a')).toMatchObject({ timeout: 5, cacheTtl: 0 })
    expect(options).toEqual({ services: { a: { timeout: 5 } }, cacheTtl: 0 })
  })
})

describe('the stored key', () => {
  it('is the key, behind the namespace if there is one', () => {
    expect(storedKey(undefined, 'stripe')).toBe('stripe')
    expect(storedKey('prod', 'stripe')).toBe('prod#stripe')
  })

  it('differs for different namespaces and keys', () => {
    const text = fc.string({ unit: fc.constantFrom('a', '#', '%', '2', '3'), minLength: 1, maxLength: 6 })
    const pair = fc.tuple(fc.option(text, { nil: undefined }), text)

    fc.assert(
      fc.property(pair, pair, (a, b) => {
        expect(storedKey(...a) === storedKey(...b)).toBe(a[0] === b[0] && a[1] === b[1])
      }),
    )
  })

  it('keeps keys of services apart, whatever is in them, also from services without keys and from the circuit that keys share', () => {
    const part = fc.oneof(
      fc.string({ unit: fc.constantFrom('a', 'b', '#', '%', '2', '3', '5'), minLength: 1, maxLength: 4 }),
      fc.constantFrom(sharedKey, 'sha256-', `%${hashOf('a'.repeat(300))}`, hashOf('a'.repeat(300))),
    )
    const long = fc.constantFrom('a'.repeat(300), 'é'.repeat(200), '#'.repeat(100))
    const namespace = fc.option(part, { nil: undefined })
    const circuit = fc.oneof(
      fc.record({ kind: fc.constant('plain'), namespace, service: part, key: fc.constant('') }),
      fc.record({ kind: fc.constant('shared'), namespace, service: part, key: fc.constant('') }),
      fc.record({ kind: fc.constant('key'), namespace, service: part, key: fc.oneof(part, long) }),
    )
    const stored = ({ kind, namespace, service, key }: typeof circuit extends fc.Arbitrary<infer C> ? C : never) => {
      if (kind === 'plain') return storedKey(namespace, service)
      const prefix = storedPrefix(namespace, service)
      return kind === 'shared' ? prefix + sharedKey : storedKeyOf(prefix, key)
    }

    fc.assert(
      fc.property(circuit, circuit, (a, b) => {
        expect(stored(a) === stored(b)).toBe(JSON.stringify(a) === JSON.stringify(b))
        expect(Buffer.byteLength(stored(a))).toBeLessThanOrEqual(256)
      }),
      { numRuns: 2_000 },
    )
  })

  it('begins with namespace and service, so that IAM can tell services apart', () => {
    expect(storedKeyOf(storedPrefix('prod', 'crm'), 'acme')).toBe('prod#crm#acme')
    expect(storedKeyOf(storedPrefix(undefined, 'crm'), 'acme')).toBe('#crm#acme')
    expect(storedKeyOf(storedPrefix('prod', 'crm'), 'a'.repeat(300))).toMatch(/^prod#crm#%sha256-[\w-]{43}$/)
  })
})

describe('storage', () => {
  it('is resolved along with the settings', () => {
    const env = { CIRCUIT_BREAKER_TABLE_NAME: 'circuits' }

    expect(resolve({ services: ['a'] }, env).storage).toEqual({ type: 'dynamodb', tableName: 'circuits' })
    expect(resolve({ services: ['a'], storage: 'memory' }, env).storage).toEqual({ type: 'memory' })
  })

  it('changes by one variable', () => {
    const both = { CIRCUIT_BREAKER_TABLE_NAME: 'circuits', CIRCUIT_BREAKER_REDIS_URL: 'redis://localhost' }
    const chosen = (type: string) => resolve({ services: ['a'] }, { ...both, CIRCUIT_BREAKER_STORAGE: type }).storage

    expect(chosen('redis')).toEqual({ type: 'redis', url: 'redis://localhost' })
    expect(chosen('dynamodb')).toEqual({ type: 'dynamodb', tableName: 'circuits' })
    expect(chosen('memory')).toEqual({ type: 'memory' })
  })

  it('is reported along with the other problems', () => {
    expect(messages({ services: [], storage: 'dynamo' })).toHaveLength(2)
  })
})

describe('the settings table', () => {
  it('tells of every setting what a page about it needs', () => {
    expect(settingsTable.find(({ name }) => name === 'timeout')).toEqual({
      name: 'timeout',
      variable: 'CIRCUIT_BREAKER_TIMEOUT',
      default: false,
      unit: 'ms',
      allowed: 'a whole number of milliseconds from 1 to 2147483647, or false',
      meaning: expect.stringContaining('Lambda deadline'),
      perService: true,
    })
    const described = settingsTable.filter(({ perService }) => perService).map(({ name }) => name)
    expect([...described, 'keyed']).toEqual(Object.keys(stripe()))
    expect(keyedTable.map(({ name }) => name)).toEqual(['keyed.maxKeys', 'keyed.parent'])
  })
})

describe('whatever is given', () => {
  const junk = fc.anything({ withBigInt: true, withNullPrototype: true, withObjectString: true, withSparseArray: true })
  const names = settingsTable.map(({ name }) => name)
  const mixed = fc.record(
    Object.fromEntries(['services', 'storage', ...names].map((name) => [name, junk])) as Record<
      string,
      fc.Arbitrary<unknown>
    >,
    { requiredKeys: [] },
  )

  it('throws nothing but a ConfigurationError', () => {
    fc.assert(
      fc.property(fc.oneof(junk, mixed), fc.dictionary(fc.string(), fc.string()), (options, env) => {
        const prefixed = Object.fromEntries(Object.entries(env).map(([key, text]) => [`CIRCUIT_BREAKER_${key}`, text]))
        for (const problem of problems(options, prefixed)) expect(problem.message).toMatch(/ \(\S+.*\)$/s)
      }),
    )
  })

  it('reads back every number that it was given as a variable', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 86_400_000 }), (number) => {
        expect(stripe({}, { CIRCUIT_BREAKER_WINDOW: String(number) }).window).toBe(number)
      }),
    )
  })

  it('never repeats the password of the Redis URL', () => {
    const password = fc.stringMatching(/^[a-z0-9]{12}$/)
    const url = 'CIRCUIT_BREAKER_REDIS_URL'
    const variables = [
      url,
      `${url}__STRIPE`,
      'CIRCUIT_BREAKER_STORAGE',
      'CIRCUIT_BREAKER_REDIS_URI',
      'CIRCUIT_BREAKER_TABLE_NAME',
    ]

    fc.assert(
      fc.property(password, fc.subarray(variables), fc.boolean(), (secret, names, asOption) => {
        const value = `rediss://user:${secret}@example.com:6379/0`
        const env = Object.fromEntries(names.map((name) => [name, value]))
        const config = { type: 'redis', url: value }
        const options = {
          services: ['stripe'],
          redisUrl: value,
          url: config,
          mode: value,
          ...(asOption && { storage: config }),
        }
        const found = problems(options, env)

        expect(found.length).toBeGreaterThan(0)
        expect(JSON.stringify([found, new ConfigurationError(found).message])).not.toContain(secret)
        const quiet = { services: ['stripe'], storage: 'memory' }
        expect(JSON.stringify([problems(quiet, env)])).not.toContain(secret)
        expect(
          resolve(quiet, { [url]: value, CIRCUIT_BREAKER_REDIS_URI: value })
            .warnings.map((warning) => warning(texts))
            .join(),
        ).not.toContain(secret)
      }),
    )
  })
})

describe('types', () => {
  it('infers the keys and refuses misspelt settings', () => {
    const list: ReadonlyMap<'stripe' | 'paypal', ServiceSettings> = resolveConfig(
      { services: ['stripe', 'paypal'] },
      {},
    ).services
    const map: ReadonlyMap<'stripe', ServiceSettings> = resolveConfig(
      { services: { stripe: { timeout: 5 } } },
      {},
    ).services

    expect([list.size, map.size]).toEqual([2, 1])
    // @ts-expect-error only configured keys
    expect(map.get('paypal')).toBeUndefined()
    // @ts-expect-error a misspelt setting of a service
    expect(() => resolveConfig({ services: { stripe: { timeuot: 5 } } }, {})).toThrow(ConfigurationError)
    // @ts-expect-error a misspelt setting
    expect(() => resolveConfig({ services: ['stripe'], timeuot: 5 }, {})).toThrow(ConfigurationError)
    // @ts-expect-error namespace is for the whole breaker
    expect(() => resolveConfig({ services: { stripe: { namespace: 'a' } } }, {})).toThrow(ConfigurationError)
  })
})
