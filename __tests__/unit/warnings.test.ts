import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterEach, describe, expect, it, jest } from '@jest/globals'
import { printIfSilenced } from '../../src/silenced-warnings.ts'

const run = promisify(execFile)
const sources = join(import.meta.dirname, '../../src')

/** A store whose table does not exist, read and written, and a variable that names no setting. */
const program = `
  import { CircuitBreaker } from '${sources}/circuit-breaker.ts'
  import { DynamoDBCircuitStorage } from '${sources}/storage/dynamodb/index.ts'

  const send = () => Promise.reject(Object.assign(new Error('No.'), { name: 'ResourceNotFoundException' }))
  const storage = new DynamoDBCircuitStorage({ tableName: 'app', client: { send } })
  const env = { CIRCUIT_BREAKER_TIMEOOT: '1' }
  const breaker = new CircuitBreaker({ services: ['stripe'], storage, cacheTtl: 0, failureThreshold: 1 }, { env })
  for (let n = 0; n < 3; n++) {
    await breaker.load()
    await breaker.call('stripe', () => Promise.reject(Object.assign(new Error(), { status: 503 }))).catch(() => {})
    await breaker.flush()
  }
`

describe('a mistake that somebody has to correct', () => {
  it.each<[string, string[], NodeJS.ProcessEnv]>([
    ['warnings', [], {}],
    ['--no-warnings', ['--no-warnings'], {}],
    ['NODE_OPTIONS=--no-warnings', [], { NODE_OPTIONS: '--enable-source-maps --no-warnings' }],
    ['NODE_NO_WARNINGS=1', [], { NODE_NO_WARNINGS: '1' }],
  ])('is printed once with %s', async (_, flags, variables) => {
    const { NODE_OPTIONS: __, ...env } = process.env
    // Node 22 strips types only where it is asked to.
    const args = [...flags, '--experimental-strip-types', '--input-type=module', '--eval', program]
    const { stderr } = await run(process.execPath, args, { env: { ...env, ...variables } })
    const lines = stderr.split('\n')
    const about = (text: string) => lines.filter((line) => line.includes(text))
    expect(about('CircuitStorageWarning: ')).toEqual([expect.stringContaining('the table "app" does not exist')])
    expect(about('CircuitBreakerWarning: ')).toEqual([expect.stringContaining('CIRCUIT_BREAKER_TIMEOOT names no')])
  })

  afterEach(() => {
    jest.restoreAllMocks()
  })

  it.each<[string[], NodeJS.ProcessEnv, printed: boolean]>([
    [[], {}, false],
    [['--disable-warning=CIRCUIT_STORAGE'], { NODE_NO_WARNINGS: '0' }, false],
    [['--no-warnings'], {}, true],
    [[], { NODE_OPTIONS: '--no-warnings' }, true],
    [[], { NODE_OPTIONS: '--title=--no-warnings-at-all' }, false],
    [[], { NODE_NO_WARNINGS: '1' }, true],
  ])('is an error in the console exactly where Node prints no warning: %p %p', (execArgv, env, printed) => {
    const print = jest.spyOn(console, 'error').mockImplementation(() => {})
    printIfSilenced('CircuitStorageWarning: No.', { execArgv, env })
    expect(print.mock.calls).toEqual(printed ? [['CircuitStorageWarning: No.']] : [])
  })
})
