import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, jest } from '@jest/globals'
import { transform } from '@swc/core'
import * as cockatiel from 'cockatiel'
import Opossum from 'opossum'
import { CircuitBreaker, isBreakableError } from '../../src/index.ts'
import { createTestContext } from '../../src/testing/index.ts'
import { type Provider, type ProviderAnswer, startProvider } from '../examples/provider.ts'
import { type DynamoDBServer, startDynamoDBLocal } from '../support/dynamodb-local.ts'
import { patientVariables } from '../support/patience.ts'
import { waitFor } from '../support/time.ts'
import { BadRequest, ok, outcomeOf, ServiceUnavailable, unavailable } from '../support/virtual-fleet.ts'

const root = join(import.meta.dirname, '../..')
const pageOf = (name: string) => readFile(join(root, 'docs/use/migrating', `${name}.md`), 'utf8')
const [common, fromOpossum, fromCockatiel, fromOwn] = await Promise.all(
  ['README', 'opossum', 'cockatiel', 'own'].map(pageOf),
)
const page = [common, fromOpossum, fromCockatiel, fromOwn].join('\n')

type Handler = (payment: object) => Promise<unknown>

interface Example {
  readonly handler: (payment: object, context?: unknown) => Promise<unknown>
  readonly balance: () => Promise<string>
}

let folder: string
let provider: Provider
let copies = 0
const environment = { ...process.env }

beforeAll(async () => {
  // Next to the packages that the code imports; ignored by git.
  await mkdir(join(root, '.cache'), { recursive: true })
  folder = await mkdtemp(join(root, '.cache/migrating-'))
})
afterAll(() => rm(folder, { recursive: true }))

beforeEach(async () => {
  // The clock stands still unless a test moves it, and no time limit of a call ends by itself.
  moveClock(0)
  holdTimers()
  Object.assign(process.env, patientVariables)
  provider = await startProvider({ body: { paid: true } })
  process.env['PAYMENTS_URL'] = provider.url
  jest.spyOn(console, 'warn').mockImplementation(() => {})
})
afterEach(async () => {
  await provider[Symbol.asyncDispose]()
  jest.restoreAllMocks()
  jest.useRealTimers()
  process.env = { ...environment }
})

/** The code under a heading of the pages, as a module of its own: a new instance of the function. */
async function instance(heading: string): Promise<Example> {
  const [, section = ''] = page.split(`\n${heading}\n`)
  const code = /^```ts\n([\s\S]*?)^```$/m.exec(section)?.[1]
  if (code === undefined) throw new Error(`There is no code under ${heading}.`)
  const options = { jsc: { parser: { syntax: 'typescript' }, target: 'es2024' }, module: { type: 'es6' } } as const
  const { code: compiled } = await transform(code, options)
  const file = join(folder, `${++copies}.mjs`)
  await writeFile(file, compiled)
  return import(file)
}

/** What Lambda would call. */
async function handlerOf(heading: string): Promise<Handler> {
  const { handler } = await instance(heading)
  return (payment) => handler(payment, createTestContext())
}

async function callTimes(handler: Handler, times: number): Promise<unknown[]> {
  const answers: unknown[] = []
  for (let call = 0; call < times; call++) {
    const { value, error } = await outcomeOf(handler({ amount: 1 }))
    answers.push(value ?? (error as Error).message)
  }
  return answers
}

/** Moves the clock, and nothing that waits for time to pass. */
function moveClock(milliseconds: number): void {
  jest.useFakeTimers({
    now: Date.now() + milliseconds,
    doNotFake: [
      'hrtime',
      'nextTick',
      'performance',
      'queueMicrotask',
      'setImmediate',
      'clearImmediate',
      'setInterval',
      'clearInterval',
      'setTimeout',
      'clearTimeout',
    ],
  })
}

/** For so long the code on the page waits: for the end of a call, and for the next probe; a DynamoDB client, too. */
const heldDelays: readonly number[] = [1_000, 2_000, 10_000]
/** The timers that were set for so long. */
const heldTimers = new Map<unknown, { readonly callback: () => void; readonly delay: number }>()

/** Keeps these timers from running down by themselves. */
function holdTimers(): void {
  const { setTimeout: realSetTimeout, clearTimeout: realClearTimeout } = globalThis
  heldTimers.clear()
  jest.spyOn(globalThis, 'setTimeout').mockImplementation(((callback: () => void, delay = 0, ...values: []) => {
    if (!heldDelays.includes(delay)) return realSetTimeout(callback, delay, ...values)
    const timer = realSetTimeout(() => {}, 2 ** 31 - 1).unref()
    heldTimers.set(timer, { callback, delay })
    return timer
  }) as typeof setTimeout)
  jest.spyOn(globalThis, 'clearTimeout').mockImplementation((timer) => {
    heldTimers.delete(timer)
    realClearTimeout(timer)
  })
}

/** Lets the timers that were set for so long run down. */
function runDown(wanted: number): void {
  for (const [timer, { callback, delay }] of [...heldTimers]) {
    if (delay !== wanted) continue
    clearTimeout(timer as NodeJS.Timeout)
    callback()
  }
}

const queued = { queued: true }
const paid = { paid: true }
const failing = { status: 503, body: {} }

describe.each([['## Before: opossum'], ['## Before: cockatiel'], ['## After']])('the code under "%s"', (heading) => {
  it('passes on what the service answers', async () => {
    const handler = await handlerOf(heading)

    expect(await callTimes(handler, 3)).toEqual([paid, paid, paid])
    expect(provider.requests.map(({ body }) => JSON.parse(body))).toEqual([{ amount: 1 }, { amount: 1 }, { amount: 1 }])
  })

  it('asks a service that fails three times, and then answers without it', async () => {
    provider.react(failing)
    const handler = await handlerOf(heading)

    expect(await callTimes(handler, 5)).toEqual(Array(5).fill(queued))
    expect(provider.requests).toHaveLength(3)
    expect(jest.mocked(console.warn).mock.calls).toEqual([['payments: OPEN']])
  })

  it('asks again ten seconds after, once, and is closed by an answer', async () => {
    provider.react(failing)
    const handler = await handlerOf(heading)
    await callTimes(handler, 3)
    // With what it waits longer, so that a fleet does not ask at once. opossum waits by a timer.
    moveClock(11_000)
    runDown(10_000)

    await callTimes(handler, 1)
    expect(provider.requests).toHaveLength(4)
    await callTimes(handler, 1)
    if (!heading.includes('opossum')) expect(provider.requests).toHaveLength(4)
    provider.react({ body: paid })
    // Ours waits twice as long the second time, give or take 10 %.
    moveClock(23_000)
    runDown(10_000)
    expect(await callTimes(handler, 3)).toEqual([paid, paid, paid])
  })

  it('rethrows a 400 and does not count it', async () => {
    provider.react({ status: 400 })
    const handler = await handlerOf(heading)

    expect(await callTimes(handler, 5)).toEqual(Array(5).fill('HTTP 400'))
    expect(provider.requests).toHaveLength(5)
  })

  it('cuts a call after two seconds', async () => {
    provider.react('hangs')
    const handler = await handlerOf(heading)
    const answers = callTimes(handler, 1)
    await waitFor('the service is asked', () => provider.requests.length === 1)
    runDown(2_000)

    expect(await answers).toEqual([queued])
  })
})

describe.each([
  ['## Before: in memory', 'refuses by an error', 'The circuit is open.'],
  ['## After', 'answers by the fallback', queued],
])('the code under "%s"', (heading, answers, refused) => {
  it(`${answers} after three failures in a row`, async () => {
    provider.react(failing)
    const handler = await handlerOf(heading)

    expect((await callTimes(handler, 5)).slice(3)).toEqual([refused, refused])
    expect(provider.requests).toHaveLength(3)
  })
})

/** Lets the service hold its first answer until it is told to give it. */
function holdFirst(answer: ProviderAnswer = { body: paid }): {
  readonly arrived: Promise<void>
  readonly release: () => void
} {
  const arrival = Promise.withResolvers<void>()
  const gate = Promise.withResolvers<void>()
  provider.react(async () => {
    provider.react(failing)
    arrival.resolve()
    await gate.promise
    return answer
  })
  return { arrived: arrival.promise, release: gate.resolve }
}

/** Lets handlers call a service at once that holds its answers until each of them has asked it or has ended. */
async function callAtOnce(handlers: readonly Handler[]): Promise<void> {
  const all = Promise.withResolvers<void>()
  let left = handlers.length
  const oneLess = (): void => {
    left--
    if (left === 0) all.resolve()
  }
  provider.react(async () => {
    oneLess()
    await all.promise
    return failing
  })
  await Promise.all(handlers.map((handler) => outcomeOf(handler({ amount: 1 })).then(oneLess)))
}

/** Whether a handler asks the service, which is well again. */
async function asks(handler: Handler): Promise<boolean> {
  provider.react({ body: paid })
  const before = provider.requests.length
  await outcomeOf(handler({ amount: 1 }))
  return provider.requests.length > before
}

describe('a breaker of your own, in memory', () => {
  const before = '## Before: in memory'

  it('learns in each instance for itself', async () => {
    provider.react(failing)
    await callTimes(await handlerOf(before), 4)
    await callTimes(await handlerOf(before), 4)

    expect(provider.requests).toHaveLength(6)
  })

  it('is closed to everyone by three wrong requests, and ours is not', async () => {
    const isOpenAfter400s = async (heading: string) => {
      provider.react({ status: 400 })
      const handler = await handlerOf(heading)
      await callTimes(handler, 3)
      return !(await asks(handler))
    }

    expect(await isOpenAfter400s(before)).toBe(true)
    expect(await isOpenAfter400s('## After')).toBe(false)
  })

  it('is closed by a success that began before it opened, and ours is not', async () => {
    const isOpenAfterLateSuccess = async (heading: string) => {
      const handler = await handlerOf(heading)
      const { arrived, release } = holdFirst()
      const late = handler({ amount: 1 })
      await arrived
      await callTimes(handler, 3)
      release()
      expect(await late).toEqual(paid)
      return !(await asks(handler))
    }

    expect(await isOpenAfterLateSuccess(before)).toBe(false)
    expect(await isOpenAfterLateSuccess('## After')).toBe(true)
  })

  it('sends all of its callers as probes at once, and ours sends one', async () => {
    const probesOf = async (heading: string) => {
      provider.react(failing)
      const handler = await handlerOf(heading)
      await callTimes(handler, 3)
      moveClock(11_000)
      const before = provider.requests.length
      await callAtOnce(Array(5).fill(handler))
      return provider.requests.length - before
    }

    expect(await probesOf(before)).toBe(5)
    expect(await probesOf('## After')).toBe(1)
  })
})

describe('a breaker of your own, in DynamoDB', () => {
  const before = '## Before: in DynamoDB'
  let server: DynamoDBServer

  beforeAll(async () => {
    server = await startDynamoDBLocal()
  })
  afterAll(() => server?.stop())
  beforeEach(async () => {
    Object.assign(process.env, {
      AWS_ENDPOINT_URL_DYNAMODB: server.endpoint,
      AWS_REGION: 'eu-central-1',
      AWS_ACCESS_KEY_ID: 'local',
      AWS_SECRET_ACCESS_KEY: 'local',
      CIRCUIT_BREAKER_TABLE_NAME: await server.createTable(),
    })
  })

  /** Both use the table of the test. */
  const instances = (heading: string, count: number) =>
    Promise.all(Array.from({ length: count }, () => handlerOf(heading)))

  it('refuses after three failures in a row, in every instance', async () => {
    provider.react(failing)
    const [one, other] = (await instances(before, 2)) as [Handler, Handler]
    await callTimes(one, 3)

    expect(await callTimes(other, 1)).toEqual(['The circuit is open.'])
    expect(provider.requests).toHaveLength(3)
  })

  it('loses failures of instances that fail at once, and ours adds them up within a second', async () => {
    const isOpenAfterThreeAtOnce = async (heading: string) => {
      const three = await instances(heading, 3)
      await callAtOnce(three)
      moveClock(1_000)
      return !(await asks(await handlerOf(heading)))
    }

    expect(await isOpenAfterThreeAtOnce(before)).toBe(false)
    expect(await isOpenAfterThreeAtOnce('## After')).toBe(true)
  })

  it('lets every instance probe at once, and ours one', async () => {
    const probesOf = async (heading: string) => {
      const three = (await instances(heading, 3)) as [Handler, Handler, Handler]
      provider.react(failing)
      await callTimes(three[0], 3)
      moveClock(11_000)
      const before = provider.requests.length
      await callAtOnce(three)
      return provider.requests.length - before
    }

    expect(await probesOf(before)).toBe(3)
    expect(await probesOf('## After')).toBe(1)
  })

  it.each([
    ['success', { body: paid }],
    ['failure', failing],
  ])('is closed by a %s that comes late, and ours is not', async (_outcome, answer) => {
    const isOpenAfterwards = async (heading: string) => {
      const [slow, other] = (await instances(heading, 2)) as [Handler, Handler]
      provider.react(failing)
      await callTimes(other, 1)
      const { arrived, release } = holdFirst(answer)
      const late = outcomeOf(slow({ amount: 1 }))
      await arrived
      await callTimes(other, 2)
      release()
      await late
      return !(await asks(await handlerOf(heading)))
    }

    expect(await isOpenAfterwards(before)).toBe(false)
    expect(await isOpenAfterwards('## After')).toBe(true)
  })

  it('fails with its table, and ours goes on', async () => {
    process.env['AWS_ENDPOINT_URL_DYNAMODB'] = 'http://127.0.0.1:9'
    jest.spyOn(process, 'emitWarning').mockImplementation(() => {})

    await expect((await handlerOf(before))({ amount: 1 })).rejects.toThrow('ECONNREFUSED')
    expect(await (await handlerOf('## After'))({ amount: 1 })).toEqual(paid)
  })

  it('runs beside ours in one table', async () => {
    provider.react(failing)
    const [old] = (await instances(before, 1)) as [Handler]
    await callTimes(old, 4)

    expect(await asks(await handlerOf('## After'))).toBe(true)
  })
})

describe.each(['opossum', 'cockatiel', 'powertools', 'circuitbreaker-lambda'])('the table from %s', (name) => {
  it('names classes, types and variables that this package has', async () => {
    const rows = (await pageOf(name)).split('## Before')[0]?.match(/^\| .*$/gm) ?? []
    const ours = rows.flatMap(
      (row) => row.split(' | ')[1]?.match(/\b(?:I?[A-Z][a-z]\w+[A-Z]\w+|CIRCUIT_BREAKER_\w+)\b/g) ?? [],
    )
    const sources = await Promise.all(
      ['src/index.ts', 'src/storage/dynamodb/index.ts', 'docs/use/settings.md', 'docs/operate/storage.md'].map((file) =>
        readFile(join(root, file), 'utf8'),
      ),
    )

    expect(rows.length).toBeGreaterThan(10)
    for (const identifier of ours) expect(sources.join()).toMatch(new RegExp(`\\b${identifier}\\b`))
  })
})

describe('retries around the guard', () => {
  it('try again what failed, and neither a refusal nor a 400', async () => {
    provider.react(failing)
    const { balance } = await instance('## With retries')

    expect((await outcomeOf(balance())).error).toMatchObject({ message: 'HTTP 503' })
    expect(provider.requests).toHaveLength(3)
    expect((await outcomeOf(balance())).error).toMatchObject({ code: 'CIRCUIT_OPEN' })
    expect(provider.requests).toHaveLength(3)
    provider.react({ status: 400 })
    await outcomeOf((await instance('## With retries')).balance())
    expect(provider.requests).toHaveLength(4)
  })
})

describe('what the page says of opossum', () => {
  const section = String(fromOpossum).split('## Before')[0]
  const made: Opossum<[unknown], unknown>[] = []
  const opossum = (options: Opossum.Options = {}) => {
    const breaker = new Opossum((operation: unknown) => (operation as () => Promise<unknown>)(), options)
    made.push(breaker)
    return breaker
  }
  afterEach(() => {
    for (const breaker of made.splice(0)) breaker.shutdown()
  })

  it('names each of its options', async () => {
    const source = await readFile(join(root, 'node_modules/opossum/lib/circuit.js'), 'utf8')
    const options = [...source.matchAll(/@param \{[^}]*\} options\.(\w+)/g)].map(([, name]) => name)

    expect(options.length).toBeGreaterThan(20)
    // Of `Status`, not of the breaker.
    for (const name of options) if (name !== 'stats') expect(section).toMatch(new RegExp(`\`${name}(\\(…\\))?\``))
  })

  it('opens it at the first failure, or where more than its percentage fail, which here never opens the circuit', async () => {
    const eager = opossum()
    await outcomeOf(eager.fire(unavailable))
    const alternating = opossum({ errorThresholdPercentage: 40, volumeThreshold: 4 })
    const ours = new CircuitBreaker({ services: ['payments'], storage: 'memory' })
    for (let call = 0; call < 20; call++) {
      await outcomeOf(alternating.fire(call % 2 === 0 ? unavailable : ok))
      await outcomeOf(ours.call('payments', call % 2 === 0 ? unavailable : ok))
    }

    expect(eager.opened).toBe(true)
    expect(alternating.opened).toBe(true)
    expect(ours.snapshot('payments').state).toBe('CLOSED')
  })

  it('counts a full capacity as a failure, and ours does not', async () => {
    const breaker = opossum({ capacity: 1, timeout: false })
    void breaker.fire(() => new Promise(() => {}))
    for (let call = 0; call < 2; call++) {
      expect((await outcomeOf(breaker.fire(ok))).error).toMatchObject({ code: 'ESEMLOCKED' })
    }
    const ours = new CircuitBreaker({ services: ['payments'], storage: 'memory', maxConcurrent: 1, maxQueue: 0 })
    void ours.call('payments', () => new Promise(() => {}))
    for (let call = 0; call < 5; call++) {
      expect((await outcomeOf(ours.call('payments', ok))).error).toMatchObject({ code: 'CIRCUIT_CONCURRENCY_LIMIT' })
    }

    expect(breaker.opened).toBe(true)
    expect(ours.snapshot('payments').failureCount).toBe(0)
  })

  it('closes it by an error that is filtered out, and takes a returned 503 for a success', async () => {
    const breaker = opossum({ resetTimeout: 1, errorFilter: (error: unknown) => error instanceof BadRequest })
    await outcomeOf(breaker.fire(unavailable))
    await waitFor('it is half open', () => breaker.halfOpen)
    await outcomeOf(breaker.fire(() => Promise.reject(new BadRequest('400'))))
    expect(breaker.closed).toBe(true)
    for (let call = 0; call < 5; call++) await breaker.fire(async () => ({ status: 503 }))
    expect(breaker.closed).toBe(true)
  })

  it('counts its timeout, and not its refusal, where it stays inside of ours', async () => {
    const slow = opossum({ timeout: 5 })
    const timedOut = (await outcomeOf(slow.fire(() => new Promise(() => {})))).error
    const refused = (await outcomeOf(slow.fire(ok))).error

    expect([timedOut, refused]).toMatchObject([{ code: 'ETIMEDOUT' }, { code: 'EOPENBREAKER' }])
    expect([timedOut, refused].map(isBreakableError)).toEqual([true, false])
  })
})

describe('what the page says of cockatiel', () => {
  const section = String(fromCockatiel).split('## Before')[0]

  it('names each of its functions and breakers', () => {
    const names = Object.keys(cockatiel).filter(
      (name) => (/^[a-z]/.test(name) && !/^is|Generator$/.test(name)) || name.endsWith('Breaker'),
    )

    expect(names.length).toBeGreaterThan(12)
    // What is migrated is the breaker itself.
    for (const name of names) if (name !== 'circuitBreaker') expect(section).toMatch(new RegExp(`\\b${name}\\b`))
  })

  const policy = cockatiel.handleWhen((error) => !(error instanceof BadRequest))
  const broken = async () => {
    const breaker = cockatiel.circuitBreaker(policy, {
      halfOpenAfter: 1,
      breaker: new cockatiel.ConsecutiveBreaker(1),
    })
    await outcomeOf(breaker.execute(unavailable))
    return breaker
  }

  it('lets other calls wait for the decision in half-open, where ours refuses them', async () => {
    const breaker = await broken()
    moveClock(1)
    const order: string[] = []
    const gate = Promise.withResolvers<string>()
    const probe = breaker.execute(async () => {
      const answer = await gate.promise
      order.push('the probe ends')
      return answer
    })
    const other = breaker.execute(() => {
      order.push('the other begins')
      return ok()
    })
    // Everything that need not wait for the probe has happened by then.
    for (let turn = 0; turn < 5; turn++) await nextTurn()
    gate.resolve('ok')

    expect(await Promise.all([probe, other])).toEqual(['ok', 'ok'])
    expect(order).toEqual(['the probe ends', 'the other begins'])
  })

  it('closes it by an error that it does not handle', async () => {
    const breaker = await broken()
    moveClock(1)
    await outcomeOf(breaker.execute(() => Promise.reject(new BadRequest('400'))))

    expect(breaker.state).toBe(cockatiel.CircuitState.Closed)
  })

  it('counts neither its timeout nor its refusal, where it stays inside of ours', async () => {
    const timeout = cockatiel.timeout(5, cockatiel.TimeoutStrategy.Aggressive)
    const timedOut = (await outcomeOf(timeout.execute(() => new Promise(() => {})))).error
    const refused = (await outcomeOf((await broken()).execute(ok))).error

    expect(timedOut).toBeInstanceOf(cockatiel.TaskCancelledError)
    expect(refused).toBeInstanceOf(cockatiel.BrokenCircuitError)
    expect([timedOut, refused].map(isBreakableError)).toEqual([false, false])
    expect(isBreakableError(new ServiceUnavailable('503'))).toBe(true)
  })
})
