import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { PutItemCommand } from '@aws-sdk/client-dynamodb'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals'
import { Redis } from 'ioredis'
import { CircuitBreaker, type StorageOption } from '../../src/index.ts'
import { mcb, startMcb, startMcbOnTerminal } from '../support/command-line.ts'
import { type DynamoDBServer, startDynamoDBLocal } from '../support/dynamodb-local.ts'
import { patientDynamoDB, patientRedis, patientStore } from '../support/patience.ts'
import { type RedisServer, startRedis } from '../support/redis-server.ts'

let dynamodb: DynamoDBServer
let redis: RedisServer

beforeAll(async () => {
  ;[dynamodb, redis] = await Promise.all([startDynamoDBLocal(), startRedis()])
})
afterAll(() => Promise.all([dynamodb?.stop(), redis?.stop()]))

/** A fresh store: how a breaker reaches it, and how the program does. */
interface Store {
  readonly storage: StorageOption
  readonly variables: Readonly<Record<string, string>>
  readonly where: readonly string[]
}

let prefixes = 0

const stores: Readonly<Record<string, () => Promise<Store>>> = {
  'a DynamoDB table with a sort key': () => tableStore(false),
  'a DynamoDB table without one': () => tableStore(true),
  Redis: async () => {
    const keyPrefix = `cli-${++prefixes}:`
    const storage = { type: 'redis', url: redis.url, keyPrefix, options: patientRedis } as StorageOption
    return { storage, variables: {}, where: ['--redis', redis.url, '--key-prefix', keyPrefix] }
  },
}

async function tableStore(singleKey: boolean): Promise<Store> {
  const tableName = await dynamodb.createTable({ singleKey })
  const storage = {
    type: 'dynamodb',
    tableName,
    ...(singleKey ? { sortKeyName: null } : {}),
    clientConfig: { ...dynamodb.clientConfig, ...patientDynamoDB },
  } as StorageOption
  const where = ['--table', tableName, ...(singleKey ? ['--sort-key', 'none'] : [])]
  return { storage, variables: dynamodb.variables, where }
}

/** The environment of a function in Lambda, as far as a breaker knows it. */
const lambda = { AWS_LAMBDA_FUNCTION_NAME: 'checkout', AWS_LAMBDA_LOG_STREAM_NAME: '2030/01/31/[7]abc' }

/** Opens the circuit of stripe as an outage does, in an invocation of its own. */
async function outage({ storage }: Store): Promise<void> {
  const breaker = new CircuitBreaker(
    { services: ['stripe'], storage, namespace: 'shop', resetTimeout: 300_000, ...patientStore },
    { env: lambda },
  )
  await breaker.load()
  const call = breaker.callExternalFor({ awsRequestId: 'request-7' })
  const refused = Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' })
  for (let i = 0; i < 3; i++) await call('stripe', () => Promise.reject(refused)).catch(() => {})
  await breaker.close()
}

describe.each(Object.entries(stores))('the command line on %s', (_name, make) => {
  let store: Store
  const run = (...args: string[]) => mcb(store.variables, ...args, ...store.where, '--namespace', 'shop')

  beforeEach(async () => {
    store = await make()
  })

  it('leads from an alarm to its cause in one command', async () => {
    await outage(store)
    const { code, stdout } = await run('explain', 'stripe')
    expect(stdout).toMatch(/^shop#stripe: OPEN\. Calls are refused\.\n/)
    expect(stdout).toMatch(/Evidence +3 failures and 0 successes, reported by 1 instance\n/)
    expect(stdout).toMatch(/Opened in +function checkout, request request-7, log stream 2030\/01\/31\/\[7\]abc/)
    expect(stdout).toMatch(/Last failure +Error, code ECONNREFUSED, /)
    expect(stdout).toMatch(/Next probe +.+, in [45] min/)
    expect(stdout).toContain('mcb reset shop#stripe --why TEXT')
    expect(code).toBe(3)
  })

  it('forces a circuit and undoes it, and remembers who did it and why', async () => {
    const opened = await run('open', 'paypal', '--for', '10m', '--why', 'maintenance', '--by', 'ann')
    expect(opened).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^shop#paypal is forced open: .+, until \d.+\n$/),
    })
    expect(await run('ls')).toMatchObject({
      code: 3,
      stdout: expect.stringMatching(/shop#paypal +FORCED OPEN .+ends in .+ann: maintenance\n/),
    })
    expect(await run('explain', 'paypal')).toMatchObject({
      code: 3,
      stdout: expect.stringMatching(/Forced by +ann: maintenance\n/),
    })

    expect(await run('reset', 'paypal', '--why', 'over', '--by', 'bob')).toMatchObject({ code: 0 })
    expect(await run('ls')).toMatchObject({ code: 0, stdout: expect.stringMatching(/shop#paypal +closed/) })
    const { stdout } = await run('log', 'paypal', '--json')
    expect(JSON.parse(stdout)).toMatchObject([
      { key: 'shop#paypal', reason: 'forced-open', to: 'OPEN', by: 'ann', why: 'maintenance' },
      { key: 'shop#paypal', reason: 'reset', to: 'CLOSED', by: 'bob', why: 'over' },
    ])
  })

  it('lists what is stored, for people and for programs', async () => {
    expect(await run('ls')).toMatchObject({ code: 0, stdout: expect.stringContaining('No circuit is stored in ') })
    await outage(store)
    await run('close', 'paypal', '--why', 'their status page is wrong')
    const { stdout } = await run('ls')
    expect(stdout).toMatch(/CIRCUIT +STATE +SINCE +NEXT +LAST FAILURE OR OWNER\n/)
    expect(stdout).toMatch(/shop#paypal +forced closed +.+ until reset +\S.*: their status page is wrong\n/)
    expect(stdout).toMatch(/shop#stripe +OPEN +.+ probe in .+ Error, code ECONNREFUSED\n/)
    const { code, stdout: json } = await run('ls', '--open', '--json')
    expect(JSON.parse(json)).toMatchObject([{ key: 'shop#stripe', standing: 'open', refusesCalls: true }])
    expect(code).toBe(3)
  })

  it('shows the record, and the journal of all circuits in the order of time', async () => {
    await outage(store)
    await run('open', 'paypal', '--why', 'maintenance', '--by', 'ann')
    const { stdout } = await run('show', 'stripe')
    expect(stdout).toMatch(/^shop#stripe: OPEN\n/)
    expect(stdout).toMatch(/\nresetTimeout +\d+\n/)
    const log = await run('log')
    expect(log.stdout.split('\n')).toEqual([
      expect.stringMatching(
        / shop#stripe CLOSED → OPEN: the service failed too often; 3 failures and 0 successes.+; in checkout, request request-7$/,
      ),
      expect.stringMatching(/ shop#paypal CLOSED → OPEN: an operator forced it open; by ann: maintenance$/),
      '',
    ])
  })

  it('finds nothing wrong with a store that is well', async () => {
    await outage(store)
    const { code, stdout } = await run('doctor')
    expect(stdout).toContain('The breaker can do its work.')
    expect(code).toBe(0)
  })

  it('says which circuit may be meant', async () => {
    await outage(store)
    const misspelt = await run('explain', 'strpie')
    expect(misspelt).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/Nothing is stored under "shop#strpie" in .+\. /),
    })
    const { stderr, code } = await run('reset', 'strip', '--why', 'x')
    expect(stderr).toContain('Did you mean "shop#stripe"?')
    expect(code).toBe(2)
  })

  it('watches: a line for each change where there is no terminal', async () => {
    await outage(store)
    const watching = startMcb(store.variables, 'watch', ...store.where, '--namespace', 'shop')
    await watching.printed(/Z shop#stripe: OPEN; probe in /)
    await run('reset', 'stripe', '--why', 'it works again')
    await watching.printed(/Z shop#stripe: closed\n/)
    expect(await watching.interrupt()).toMatchObject({ code: 0, stderr: '' })
  })
})

describe('the command line', () => {
  it('watches on a terminal, and forces with a reason that it asks for', async () => {
    const store = await tableStore(false)
    await outage(store)
    const { child, printed, ended } = startMcbOnTerminal(store.variables, 'watch', ...store.where, '-n', 'shop')
    await printed(/shop#stripe.+OPEN/)
    child.stdin.write('c')
    await printed('Why close shop#stripe?')
    child.stdin.write('their page is wrong\r')
    await printed('done. Instances follow within their cacheTtl.')
    await printed(/forced closed/)
    child.stdin.write('q')
    // It leaves the terminal as it was: the other screen is left, the cursor is shown.
    expect(await ended).toMatchObject({ code: 0, stdout: expect.stringContaining('\u001b[?25h\u001b[?1049l') })
    const breaker = new CircuitBreaker(
      { services: ['stripe'], storage: store.storage, namespace: 'shop', ...patientStore },
      { env: {} },
    )
    const record = (await breaker.batchGetState()).get('stripe')
    await breaker.close()
    expect(record?.override).toMatchObject({ state: 'CLOSED', why: 'their page is wrong' })
  })

  it('prints nothing that a terminal obeys, whatever a record or an entry holds', async () => {
    const store = await tableStore(false)
    const [tableName] = [store.where[1] as string]
    await outage(store)
    const escapes = '\u001b]0;pwned\u0007\u001b[2J\u009b31m\u202e'
    const breaker = new CircuitBreaker(
      { services: ['stripe'], storage: store.storage, namespace: 'shop', ...patientStore },
      { env: {} },
    )
    const record = (await breaker.batchGetState()).get('stripe')
    await breaker.close()
    // As somebody would who may write to the table.
    const item = {
      PK: { S: 'CIRCUIT#shop#stripe' },
      SK: { S: `EVENT#${new Date().toISOString()}#x` },
      entry: { S: escapes },
      at: { N: String(Date.now()) },
      from: { S: 'CLOSED' },
      to: { S: 'OPEN' },
      reason: { S: escapes },
      by: { S: escapes },
      why: { S: '<script>alert(1)</script>' },
      evidence: { M: { failures: { S: escapes } } },
    }
    await dynamodb.client().send(new PutItemCommand({ TableName: tableName, Item: item }))
    expect(record?.state).toBe('OPEN')
    for (const args of [
      ['ls'],
      ['show', 'stripe'],
      ['explain', 'stripe'],
      ['log'],
      ['log', 'stripe', '--json'],
      ['explain', 'stripe', '--json'],
    ]) {
      const { stdout, stderr } = await mcb(store.variables, ...args, ...store.where, '-n', 'shop')
      expect(stderr).toBe('')
      expect(stdout.replaceAll('\n', '')).not.toMatch(/[\p{Cc}\p{Cf}]/u)
    }
  })

  it.each([
    [['ls'], 'No store is named.'],
    [['ls', '--table', 'orders', '--redis', 'redis://b'], '--table and --redis exclude each other'],
    [['ls', '--table', 'orders', '--key-prefix', 'x'], '--key-prefix belongs to Redis'],
    [['ls', '--redis', 'not a url'], 'url'],
    [['open', 'stripe', '--table', 'orders'], 'Give a reason, which others see later: --why TEXT.'],
    [['open', 'stripe', '--table', 'orders', '--why', 'x', '--until', '2001-01-01'], '--until must be still to come'],
    [['open', 'stripe', '--table', 'orders', '--why', 'x', '--for', '10'], '--for must be a duration'],
  ])('refuses %j with exit code 2', async (args, message) => {
    const { code, stderr, stdout } = await mcb({}, ...args)
    expect(stderr).toContain(message)
    expect(stdout).toBe('')
    expect(code).toBe(2)
  })

  it('says what is wrong with a store that does not answer, with exit code 1', async () => {
    const { code, stderr } = await mcb({ ...dynamodb.variables }, 'ls', '--table', 'no-such-table')
    expect(stderr).toMatch(/^mcb: .*no-such-table/)
    expect(stderr.split('\n').length).toBeLessThan(6)
    expect(code).toBe(1)
  })

  it('does not touch the other circuits if one name is wrong', async () => {
    const store = await tableStore(false)
    await outage(store)
    const run = (...args: string[]) => mcb(store.variables, ...args, ...store.where, '--namespace', 'shop')
    expect(await run('reset', 'stripe', 'nobody', '--why', 'x')).toMatchObject({ code: 2, stdout: '' })
    expect(await run('ls')).toMatchObject({ code: 3 })
  })
})

describe('the command line for a deployed function', () => {
  let lambdaApi: Server
  let store: Store
  const functions = new Map<string, object>()

  beforeAll(async () => {
    lambdaApi = createServer((request, response) => {
      const name = /\/functions\/([^/]+)\/configuration$/.exec(request.url ?? '')?.[1] ?? ''
      const found = functions.get(decodeURIComponent(name))
      response.setHeader('Content-Type', 'application/json')
      if (found === undefined) {
        response.statusCode = 404
        response.setHeader('x-amzn-ErrorType', 'ResourceNotFoundException')
        response.end(JSON.stringify({ Message: `Function not found: ${name}` }))
      } else response.end(JSON.stringify(found))
    })
    await new Promise<void>((resolve) => lambdaApi.listen(0, '127.0.0.1', resolve))
    store = await tableStore(false)
  })
  afterAll(() => new Promise((resolve) => lambdaApi.close(resolve)))

  const run = (...args: string[]) => {
    const { port } = lambdaApi.address() as AddressInfo
    return mcb({ ...dynamodb.variables, AWS_ENDPOINT_URL_LAMBDA: `http://127.0.0.1:${port}` }, ...args)
  }
  const deploy = (name: string, variables: Readonly<Record<string, string>>, timeout = 10) => {
    functions.set(name, {
      FunctionName: name,
      Timeout: timeout,
      MemorySize: 256,
      Environment: { Variables: variables },
    })
  }

  it('takes store and namespace from it', async () => {
    const variables = { CIRCUIT_BREAKER_TABLE_NAME: store.where[1] as string, CIRCUIT_BREAKER_NAMESPACE: 'shop' }
    deploy('checkout', variables)
    await outage(store)
    expect(await run('explain', 'stripe', '--function', 'checkout')).toMatchObject({
      code: 3,
      stdout: expect.stringContaining('shop#stripe: OPEN.'),
    })
  })

  it('finds settings of functions that contradict each other, or the timeout', async () => {
    const table = store.where[1] as string
    deploy('checkout', { CIRCUIT_BREAKER_TABLE_NAME: table, CIRCUIT_BREAKER_RESET_TIMEOUT: '10000' }, 1)
    deploy('refunds', { CIRCUIT_BREAKER_TABLE_NAME: table, CIRCUIT_BREAKER_RESET_TIMEOUT: '60000' })
    deploy('elsewhere', { CIRCUIT_BREAKER_TABLE_NAME: 'other', CIRCUIT_BREAKER_RESET_TIMEOUT: 'soon' })
    const { stdout, code } = await run('doctor', '--function', 'checkout,refunds,elsewhere')
    expect(stdout).toContain(
      'differ in CIRCUIT_BREAKER_RESET_TIMEOUT (checkout: 10000, refunds: 60000, elsewhere: soon)',
    )
    expect(stdout).toContain('differ in CIRCUIT_BREAKER_TABLE_NAME: they do not share their circuits')
    expect(stdout).toContain('The settings of the function elsewhere are refused')
    expect(stdout).toMatch(/deadlineReserve/)
    expect(code).toBe(1)
  })

  it('says which function there is not', async () => {
    expect(await run('ls', '--function', 'nobody')).toMatchObject({
      code: 2,
      stderr: expect.stringContaining(
        'The configuration of the function nobody cannot be read: ResourceNotFoundException',
      ),
    })
  })
})

describe('the command line beside many circuits', () => {
  it('lists 1,000 circuits of Redis and of a table in one go', async () => {
    const services = Array.from({ length: 1_000 }, (_, i) => `service-${String(i).padStart(3, '0')}`)
    for (const make of [stores['Redis'], stores['a DynamoDB table with a sort key']]) {
      const store = await (make as () => Promise<Store>)()
      const breaker = new CircuitBreaker({ services, storage: store.storage, ...patientStore }, { env: {} })
      await breaker.batchSetState(Object.fromEntries(services.map((service) => [service, 'OPEN'])))
      await breaker.close()
      const { code, stdout } = await mcb(store.variables, 'ls', '--json', ...store.where)
      expect(JSON.parse(stdout)).toHaveLength(1_000)
      expect(code).toBe(3)
    }
  })
})

it('leaves a Redis that it has looked at as it was', async () => {
  const client = new Redis(redis.url, patientRedis)
  const before = await client.dbsize()
  await mcb({}, 'ls', '--redis', redis.url, '--key-prefix', 'nobody:')
  expect(await client.dbsize()).toBe(before)
  client.disconnect()
})
