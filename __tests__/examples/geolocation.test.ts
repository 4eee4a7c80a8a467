import { readFileSync } from 'node:fs'
import { GetItemCommand, PutItemCommand, ScanCommand } from '@aws-sdk/client-dynamodb'
import { marshall, unmarshall } from '@aws-sdk/util-dynamodb'
import { afterAll, beforeAll, describe, expect, it, jest } from '@jest/globals'
import { createTestContext } from 'middy-circuit-breaker/testing'
import { callOf, documentedStatements, isAllowed, type Statement } from '../support/documented-policy.ts'
import { type DynamoDBServer, startDynamoDBLocal } from '../support/dynamodb-local.ts'
import { patientVariables } from '../support/patience.ts'
import { coldStart } from './cold-start.ts'
import { httpEvent } from './http-event.ts'
import { type Provider, type ProviderAnswer, type ProviderRequest, type Reaction, startProvider } from './provider.ts'
import { useStoppedTime } from './set-up.ts'

const token = 'token_of_the_test'
const google = { country: 'US', region: 'California', city: 'Mountain View', timezone: 'America/Los_Angeles' }

/** Knows every address, as ipinfo answers. */
const healthy = ({ url }: ProviderRequest): Reaction => ({
  body: {
    ip: url.split('/')[1],
    hostname: 'dns.google',
    ...google,
    loc: '37.4056,-122.0775',
    org: 'AS15169 Google LLC',
  },
})
const failing: Reaction = { status: 503, headers: { 'content-type': 'text/html' }, body: '<h1>Unavailable</h1>' }

/** The time that the function gives ipinfo. */
const timeout = 2_000
/** How long the function answers from its cache without asking ipinfo. */
const freshFor = 86_400_000
/** How long its circuit stays open, until every instance may probe it. */
const untilProbe = 11_000

let dynamodb: DynamoDBServer

beforeAll(async () => {
  dynamodb = await startDynamoDBLocal()
})
afterAll(() => dynamodb.stop())

const time = useStoppedTime()

interface Answer {
  readonly status: number | undefined
  readonly retryAfter: number
  readonly body: Readonly<Record<string, unknown>>
}

interface Deployment {
  readonly table: string
  /** Starts an instance of the function, which answers where an address is; without one, the caller's. */
  start(variables?: Readonly<Record<string, string>>): Promise<(ip?: string, sourceIp?: string) => Promise<Answer>>
}

async function deploy(ipinfo: Provider): Promise<Deployment> {
  const table = await dynamodb.createTable()
  const start: Deployment['start'] = async (variables = {}) => {
    const { handler } = await coldStart(() => import('../../examples/geolocation/handler.ts'), {
      ...dynamodb.variables,
      ...patientVariables,
      CIRCUIT_BREAKER_TABLE_NAME: table,
      IPINFO_URL: ipinfo.url,
      IPINFO_TOKEN: token,
      ...variables,
    })
    return async (ip, sourceIp = '8.8.4.4') => {
      const event = httpEvent({ route: 'GET /location', sourceIp, ...(ip !== undefined && { query: { ip } }) })
      const { statusCode, headers = {}, body = '' } = await handler(event, createTestContext())
      return { status: statusCode, retryAfter: Number(headers['retry-after']), body: JSON.parse(body) }
    }
  }
  return { table, start }
}

/** Collects what goes to the log, and keeps it from the terminal. */
function captureLog(): { readonly text: () => string } {
  const lines: unknown[][] = []
  for (const level of ['log', 'info', 'warn', 'error', 'debug'] as const) {
    jest.spyOn(console, level).mockImplementation((...line) => void lines.push(line))
  }
  return { text: () => JSON.stringify(lines) }
}

async function rewrite(table: string, ip: string, changes: Readonly<Record<string, number>>): Promise<void> {
  const client = dynamodb.client()
  const Key = marshall({ PK: `LOCATION#${ip}`, SK: 'LOCATION' })
  const { Item = {} } = await client.send(new GetItemCommand({ TableName: table, Key }))
  await client.send(new PutItemCommand({ TableName: table, Item: { ...Item, ...marshall(changes) } }))
}

describe('the geolocation function', () => {
  it('looks the caller up with the token in a header, and remembers the answer in the table of the circuits', async () => {
    await using ipinfo = await startProvider(healthy)
    const { table, start } = await deploy(ipinfo)
    const locate = await start()

    const { status, body } = await locate(undefined, '8.8.8.8')

    const looked = { ip: '8.8.8.8', location: google, stale: false, ageInSeconds: 0 }
    expect({ status, body }).toEqual({ status: 200, body: looked })
    expect(ipinfo.requests).toHaveLength(1)
    expect(ipinfo.requests[0]).toMatchObject({ url: '/8.8.8.8/json', headers: { authorization: `Bearer ${token}` } })
    const { Items = [] } = await dynamodb.client().send(new ScanCommand({ TableName: table }))
    const items = Items.map((item) => unmarshall(item))
    expect(items).toEqual([
      {
        PK: 'LOCATION#8.8.8.8',
        SK: 'LOCATION',
        location: google,
        lookedUpAt: Date.now(),
        // 30 days.
        ttl: Math.ceil(Date.now() / 1_000) + 30 * 86_400,
      },
    ])
  })

  it('answers from its cache for a day, in every instance, and then asks again', async () => {
    await using ipinfo = await startProvider(healthy)
    const { start } = await deploy(ipinfo)
    await (await start())('8.8.8.8')
    const locate = await start()

    await time.advance(freshFor - 1)
    expect((await locate('8.8.8.8')).body).toEqual({
      ip: '8.8.8.8',
      location: google,
      stale: false,
      ageInSeconds: freshFor / 1_000,
    })
    expect(ipinfo.requests).toHaveLength(1)
    await time.advance(1)
    expect((await locate('8.8.8.8')).body).toMatchObject({ stale: false, ageInSeconds: 0 })

    expect(ipinfo.requests).toHaveLength(2)
    expect((await locate('8.8.8.8')).body).toMatchObject({ stale: false })
    expect(ipinfo.requests).toHaveLength(2)
  })

  it('asks a failing provider five times in all, and answers with what it remembers, marked as stale', async () => {
    const log = captureLog()
    await using ipinfo = await startProvider(healthy)
    const { start } = await deploy(ipinfo)
    const locate = await start()
    await locate('8.8.8.8')
    await time.advance(freshFor)
    ipinfo.react(failing)

    const answers = []
    for (let i = 0; i < 8; i++) answers.push(await locate('8.8.8.8'))

    expect(ipinfo.requests).toHaveLength(1 + 5)
    for (const { status, body } of answers) {
      const known = { ip: '8.8.8.8', location: google, stale: true, ageInSeconds: freshFor / 1_000 }
      expect({ status, ...body }).toEqual({ status: 200, ...known })
    }
    expect(log.text()).toContain('OPEN')
    expect(log.text()).not.toContain(token)

    // What nobody has looked up before: not now, and when to ask again.
    const unknown = await locate('1.1.1.1')
    expect(unknown).toMatchObject({ status: 503, retryAfter: 10 })
    expect(unknown.body).not.toHaveProperty('location')

    // An instance that has never asked knows at once.
    const locateElsewhere = await start()
    expect((await locateElsewhere('8.8.8.8')).body).toMatchObject({ location: google, stale: true })
    expect(ipinfo.requests).toHaveLength(1 + 5)
  })

  it('answers afresh as soon as the provider is back', async () => {
    captureLog()
    await using ipinfo = await startProvider(failing)
    const locate = await (await deploy(ipinfo)).start()
    for (let i = 0; i < 5; i++) expect((await locate('8.8.8.8')).status).toBe(503)
    ipinfo.react(healthy)

    await time.advance(9_999)
    expect((await locate('8.8.8.8')).status).toBe(503)
    expect(ipinfo.requests).toHaveLength(5)
    await time.advance(untilProbe - 9_999)
    const answer = await locate('8.8.8.8')

    expect(answer.body).toEqual({ ip: '8.8.8.8', location: google, stale: false, ageInSeconds: 0 })
    expect(ipinfo.requests).toHaveLength(5 + 1)
  })

  it.each<[string, Reaction]>([
    ['breaks the connection', 'breaks'],
    ['says nothing', 'hangs'],
    ['answers with a page and 200', { body: '<h1>Welcome</h1>' }],
    ['answers with something else and 200', { body: { ok: true } }],
    ['says that the quota is used up', { status: 429, body: { title: 'Rate limit exceeded' } }],
  ])('opens the circuit of a provider that %s', async (_, reaction) => {
    captureLog()
    await using ipinfo = await startProvider(() => (reaction === 'hangs' ? time.hang(timeout) : reaction))
    // Time passes where it hangs: longer than for the five requests it stays open.
    const locate = await (await deploy(ipinfo)).start({ CIRCUIT_BREAKER_RESET_TIMEOUT__IPINFO: '60000' })

    const answers = []
    for (let i = 0; i < 7; i++) answers.push(await locate('8.8.8.8'))

    expect(answers.map(({ status }) => status)).toEqual(Array(7).fill(503))
    expect(ipinfo.requests).toHaveLength(5)
  })

  it('asks for patience for as long as the provider does', async () => {
    captureLog()
    await using ipinfo = await startProvider({ status: 429, headers: { 'retry-after': '90' } })
    const locate = await (await deploy(ipinfo)).start()
    for (let i = 0; i < 5; i++) await locate('8.8.8.8')

    await time.advance(30_000)
    expect(await locate('8.8.8.8')).toMatchObject({ status: 503, retryAfter: 60 })
    expect(ipinfo.requests).toHaveLength(5)
  })

  it('gives up the request whose time is over', async () => {
    captureLog()
    // And not by the deadline of the invocation, after 29 s.
    await using ipinfo = await startProvider(() => time.hang(timeout))
    const locate = await (await deploy(ipinfo)).start()

    expect((await locate('8.8.8.8')).status).toBe(503)

    await ipinfo.givenUp(1)
    expect(ipinfo.requests).toHaveLength(1)
  })

  it.each([400, 404])('takes a %i for an address that is nowhere, and never for a failure', async (status) => {
    await using ipinfo = await startProvider({ status, body: { status, error: { title: 'Wrong ip' } } })
    const locate = await (await deploy(ipinfo)).start()

    for (let i = 0; i < 7; i++) {
      const answer = await locate('8.8.8.8')
      expect(answer).toMatchObject({ status: 200, body: { ip: '8.8.8.8', location: null } })
    }

    expect(ipinfo.requests).toHaveLength(7)
  })

  it.each<[string, ProviderAnswer]>([
    ['a page', { headers: { 'content-type': 'text/html' }, body: '<h1>Not found</h1>' }],
    ['nothing', { body: '' }],
    ['null', { body: 'null' }],
    ["a gateway's error", { body: { status: 404, error: 'Not Found', message: 'No route' } }],
    ['another error of its own', { body: { status: 404, error: { title: 'Wrong module or field type' } } }],
  ])('takes a 400 or 404 with %s for no answer, and tells the operator', async (_, answer) => {
    const log = captureLog()
    await using ipinfo = await startProvider(healthy)
    const locate = await (await deploy(ipinfo)).start()
    await locate('8.8.8.8')
    await time.advance(freshFor)
    for (const status of [404, 400]) {
      ipinfo.react({ ...answer, status })

      expect(await locate('1.1.1.1')).toMatchObject({ status: 503 })
      expect((await locate('8.8.8.8')).body).toMatchObject({ location: google, stale: true })
      expect(log.text()).toContain(`ipinfo answered ${status}`)
    }
  })

  it('says nothing bad of the provider if its own token is refused, but tells the operator, without the token', async () => {
    const log = captureLog()
    await using ipinfo = await startProvider(healthy)
    const locate = await (await deploy(ipinfo)).start()
    await locate('8.8.8.8')
    await time.advance(freshFor)
    ipinfo.react({ status: 401, body: { error: `${token} is no token` } })

    for (let i = 0; i < 7; i++) expect((await locate('8.8.8.8')).body).toMatchObject({ location: google, stale: true })

    expect(ipinfo.requests).toHaveLength(1 + 7)
    expect(log.text()).toContain('ipinfo answered 401')
    expect(log.text()).not.toContain(token)
  })

  it('takes what the provider knows no country of for nowhere', async () => {
    await using ipinfo = await startProvider({ body: { ip: '8.8.8.8', bogon: true } })
    const locate = await (await deploy(ipinfo)).start()

    expect(await locate('8.8.8.8')).toMatchObject({ status: 200, body: { location: null } })
  })

  it('refuses what is no address, knows that private and reserved ones are nowhere, and asks for neither', async () => {
    await using ipinfo = await startProvider(healthy)
    const locate = await (await deploy(ipinfo)).start()

    for (const ip of ['', 'localhost', '8.8.8', '8.8.8.8.8', '8.8.8.8/../me', 'fe80::1%eth0', '8.8.8.8,1.1.1.1']) {
      expect({ ip, ...(await locate(ip)) }).toMatchObject({ ip, status: 400 })
    }
    const nowhere = [
      '10.1.2.3',
      '127.0.0.1',
      '172.31.0.1',
      '192.168.1.1',
      '169.254.76.1',
      '100.64.0.1',
      '255.255.255.255',
    ]
    for (const ip of [...nowhere, '::1', 'fd00::1', 'fe80::1', '2001:db8::1', '::ffff:10.0.0.1', '::']) {
      expect({ ip, ...(await locate(ip)) }).toMatchObject({ ip, status: 200, body: { location: null } })
    }

    expect(ipinfo.requests).toHaveLength(0)
  })

  it('knows an address by any spelling', async () => {
    captureLog()
    await using ipinfo = await startProvider(healthy)
    const locate = await (await deploy(ipinfo)).start()
    await locate('2001:4860:4860:0:0:0:0:8888')
    await locate('8.8.8.8')
    ipinfo.react(failing)

    expect((await locate('2001:4860:4860::8888')).body).toMatchObject({ ip: '2001:4860:4860::8888', stale: false })
    expect((await locate('::FFFF:8.8.8.8')).body).toMatchObject({ ip: '8.8.8.8', stale: false })
    expect(ipinfo.requests).toHaveLength(2)
  })

  it('does not answer with what has expired, whether or not it is deleted', async () => {
    captureLog()
    await using ipinfo = await startProvider(healthy)
    const { table, start } = await deploy(ipinfo)
    const locate = await start()
    await locate('8.8.8.8')
    await rewrite(table, '8.8.8.8', { ttl: Math.floor(Date.now() / 1_000) - 1 })
    ipinfo.react(failing)

    expect((await locate('8.8.8.8')).status).toBe(503)
  })

  it.each<[string, Reaction]>([
    ['refuses', { status: 400, body: { __type: 'com.amazonaws.dynamodb.v20120810#ResourceNotFoundException' } }],
    ['says nothing', 'hangs'],
  ])('answers without its table: DynamoDB %s', async (_, reaction) => {
    captureLog()
    jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    await using ipinfo = await startProvider(healthy)
    // Half a second for the cache, and what is set here for the circuits.
    const patienceFor = (action = '') => (/^DynamoDB_\d+\.(Get|Put)Item$/.test(action) ? 500 : 1_000)
    await using table = await startProvider(({ headers }) => {
      if (reaction === 'hangs') time.jump(patienceFor(String(headers['x-amz-target'])))
      return reaction
    })
    const locate = await (await deploy(ipinfo)).start({
      AWS_ENDPOINT_URL_DYNAMODB: table.url,
      CIRCUIT_BREAKER_STORAGE_TIMEOUT: '1000',
    })

    expect(await locate('8.8.8.8')).toMatchObject({ status: 200, body: { location: google, stale: false } })
    ipinfo.react(failing)
    expect(await locate('8.8.8.8')).toMatchObject({ status: 503, retryAfter: 1 })
  })

  it('is allowed by its policy all that it does in an outage and after it, and does all that it is allowed', async () => {
    captureLog()
    await using ipinfo = await startProvider(healthy)
    // Passes everything on, so that it is seen as it is sent; but for what it does not do.
    let writesFail = false
    await using database = await startProvider(async ({ method, headers, body }) => {
      const { 'content-type': type = '', authorization = '', 'x-amz-target': target } = headers
      const sent = { 'content-type': type, authorization, 'x-amz-target': String(target) }
      if (writesFail && String(target).endsWith('UpdateItem')) return { status: 500, body: '{}' }
      const response = await fetch(dynamodb.endpoint, { method, headers: sent, body })
      return { status: response.status, body: await response.text() }
    })
    const { table, start } = await deploy(ipinfo)
    const locate = await start({ AWS_ENDPOINT_URL_DYNAMODB: database.url })
    await locate('8.8.8.8')
    await time.advance(freshFor)
    ipinfo.react(failing)
    // The failures that could not be stored are measured by the circuit as it is then: it is read alone.
    writesFail = true
    for (let i = 0; i < 2; i++) expect((await locate('8.8.8.8')).body).toMatchObject({ stale: true })
    writesFail = false
    await time.advance(1_000)
    for (let i = 0; i < 4; i++) expect((await locate('8.8.8.8')).body).toMatchObject({ stale: true })
    ipinfo.react(healthy)
    await time.advance(untilProbe)
    expect((await locate('8.8.8.8')).body).toMatchObject({ stale: false })

    const calls = database.requests.map(({ headers, body }) => {
      return callOf(String(headers['x-amz-target']).split('.')[1] ?? '', JSON.parse(body))
    })
    const policy = readFileSync(new URL('../../examples/geolocation/policy.json', import.meta.url), 'utf8')
    const { Statement: documented }: { Statement: readonly Statement[] } = JSON.parse(policy)
    const statements = documented.map((each) => ({ ...each, Resource: each.Resource.replace(/app$/, table) }))
    expect(calls.filter((call) => !statements.some((statement) => isAllowed(statement, call)))).toEqual([])
    for (const statement of statements) {
      const used = calls.filter((call) => isAllowed(statement, call)).map(({ action }) => action)
      expect([...new Set(used)].sort()).toEqual([...statement.Action].sort())
    }
    // The circuits need the permissions of docs/operate/permissions.md.
    expect(documented[0]).toEqual(documentedStatements()[0])
  })

  it('does not start with a token that would end up in an error message', async () => {
    await using ipinfo = await startProvider(healthy)
    const { start } = await deploy(ipinfo)

    const starting = start({ IPINFO_TOKEN: `${token}\n${token}` })

    await expect(starting).rejects.toThrow('IPINFO_TOKEN')
    await expect(starting).rejects.not.toThrow(token)
  })
})
