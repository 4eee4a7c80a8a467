/**
 * Whether what `examples/billing` deploys is right, without an account and without a network.
 *
 * The templates are checked as `problemsOf` says. That does not see:
 *
 * - names of IAM actions and of condition keys that do not exist: the policy is compared with the documented one here;
 * - SAM's `BuildProperties` and paths: here they are built with, as SAM does it;
 * - values that only SAM reads, such as the method of an event, and what SAM knows but the CDK's database does not yet;
 * - whether the table, the secret and the rights to use them exist where it is deployed.
 *
 * @module
 */

import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { devDependencies } from '../../scripts/packages.ts'
import { resolveConfig } from '../../src/settings/resolve.ts'
import {
  callOf,
  type DynamoDBCall,
  documentedStatements,
  isAllowed,
  type Statement,
} from '../support/documented-policy.ts'
import { type DynamoDBServer, startDynamoDBLocal } from '../support/dynamodb-local.ts'
import { patientVariables } from '../support/patience.ts'
import { startBundledFunction } from './bundled-function.ts'
import { problemsOf, type Resource, readTemplate, resolve, type Template } from './cloudformation-template.ts'
import { type Provider, startProvider } from './provider.ts'
import { buildAsSam, type SamBuild } from './sam-build.ts'

const run = promisify(execFile)
const root = join(import.meta.dirname, '..', '..')
const folder = join(root, 'examples', 'billing')
const secretKey = 'sk_test_example'

const ways = ['SAM', 'the CDK'] as const
type Way = (typeof ways)[number]

/** What is deployed in one of the two ways. */
interface Deployment {
  readonly template: Template
  /** Resolved, as are the statements. */
  readonly properties: Readonly<Record<string, unknown>>
  readonly variables: Readonly<Record<string, string>>
  /** All that the function's role allows, but what AWS's own policy for logging does. */
  readonly statements: readonly unknown[]
  /** The module that Lambda loads. */
  readonly bundle: string
}

let server: DynamoDBServer
/** Passes everything on to the server, so that it is seen as it is sent. */
let database: Provider
let tableName: string
let work: string
let deployments: Readonly<Record<Way, Deployment>>
let samBuild: SamBuild
let problems: Readonly<Record<string, readonly string[]>>

beforeAll(async () => {
  server = await startDynamoDBLocal()
  tableName = await server.createTable()
  database = await startProvider(async ({ method, headers, body }) => {
    const { 'content-type': type = '', authorization = '' } = headers
    const sent = { 'content-type': type, authorization, 'x-amz-target': String(headers['x-amz-target']) }
    const response = await fetch(server.endpoint, { method, headers: sent, body })
    return { status: response.status, body: await response.text() }
  })
  // In the repository, so that the bundles find the AWS SDK, which in Lambda the runtime has.
  mkdirSync(join(root, '.cache'), { recursive: true })
  work = mkdtempSync(join(root, '.cache', 'billing-'))
  const sam = readTemplate(join(folder, 'template.yaml'))
  const samCode = join(work, 'sam')
  const [built, cdk] = await Promise.all([buildAsSam(functionOf(sam), folder, samCode), synthesize()])
  samBuild = built
  deployments = { SAM: deploymentOf(sam, samCode), 'the CDK': deploymentOf(cdk.template, cdk.code) }
  const templates = { SAM: sam, 'the CDK': cdk.template }
  const changed = changes.map(([way, what, path, edit]) => [`${way}: ${what}`, edited(templates[way], path, edit)])
  problems = problemsOf({ ...templates, ...Object.fromEntries(changed) })
})
afterAll(async () => {
  await database?.[Symbol.asyncDispose]()
  await server?.stop()
  if (work) rmSync(work, { recursive: true })
})

async function synthesize(): Promise<{ template: Template; code: string }> {
  const out = join(work, 'cdk')
  const template = await runStack(out, { tableName })
  const assets = readdirSync(out).filter((name) => name.startsWith('asset.'))
  expect(assets).toHaveLength(1)
  return { template, code: join(out, `${assets}`) }
}

/** Runs the stack as the CDK's command line does. */
async function runStack(out: string, context: Readonly<Record<string, unknown>>): Promise<Template> {
  const { PATH } = process.env
  const env = { PATH, CDK_OUTDIR: out, CDK_CONTEXT_JSON: JSON.stringify(context), CDK_VALIDATION: 'false' }
  await run(process.execPath, ['stack.ts'], { cwd: folder, env })
  return JSON.parse(readFileSync(join(out, 'Billing.template.json'), 'utf8'))
}

function functionOf({ Resources }: Template): Resource {
  const found = Object.values(Resources).filter(({ Type }) => /^AWS::(Serverless|Lambda)::Function$/.test(Type))
  expect(found).toHaveLength(1)
  return found[0] as Resource
}

function deploymentOf(template: Template, code: string): Deployment {
  const defaults = Object.entries(template.Parameters ?? {}).map(([name, { Default }]) => [name, String(Default)])
  const values = {
    ...Object.fromEntries(defaults),
    TableName: tableName,
    'AWS::Partition': 'aws',
    'AWS::Region': 'eu-west-1',
    'AWS::AccountId': '123456789012',
  }
  const { Code: _, Events: __, ...given } = functionOf(template).Properties ?? {}
  const properties = resolve('Role' in given ? { ...given, Role: undefined } : given, values, {
    'billing/stripe': secretKey,
  }) as Record<string, unknown>
  const policies = Object.values(template.Resources).flatMap(({ Type, Properties = {} }) => {
    if (Type === 'AWS::IAM::Policy') return [resolve(Properties['PolicyDocument'], values)]
    if (Type !== 'AWS::IAM::Role') return []
    const managed = resolve([Properties['ManagedPolicyArns'] ?? []].flat(), values) as string[]
    return [
      ...managed.filter((arn) => !arn.endsWith('/AWSLambdaBasicExecutionRole')),
      Properties['Policies'] ?? [],
    ].flat()
  })
  policies.push(...[properties['Policies'] ?? []].flat())
  const [file] = String(properties['Handler']).split('.')
  return {
    template,
    properties,
    variables: (properties['Environment'] as { Variables: Record<string, string> }).Variables,
    // What is no document, such as a managed policy, is no statement that is expected.
    statements: policies.flatMap((policy) => (policy as { Statement?: unknown[] }).Statement ?? [policy]),
    bundle: join(code, `${file}.mjs`),
  }
}

describe.each(ways)('what %s deploys', (way) => {
  it('has no problem that can be found without deploying it', () => {
    expect(problems[way]).toEqual([])
  })

  it('allows the function what docs/operate/permissions.md says, and nothing else', () => {
    const [documented] = documentedStatements()
    const Resource = documented?.Resource.replace(/app$/, tableName)
    expect(deployments[way].statements).toEqual([{ ...documented, Resource }])
  })

  it('sets variables that the circuit breaker knows, and keeps the state in the table', () => {
    const { variables } = deployments[way]

    const { storage, warnings, services } = resolveConfig({ services: ['stripe'] }, variables)

    expect(warnings).toEqual([])
    expect(storage).toMatchObject({ type: 'dynamodb', tableName })
    expect(services.get('stripe')).toMatchObject({ mode: 'enforce' })
  })

  it('gives a call the time that handler.ts says, and then has time to answer', () => {
    const { properties, variables } = deployments[way]
    const source = readFileSync(join(folder, 'handler.ts'), 'utf8')
    const timeout = Number(/^ *timeout: ([\d_]+),/m.exec(source)?.[1]?.replaceAll('_', ''))
    const { deadlineReserve = Number.NaN } =
      resolveConfig({ services: ['stripe'] }, variables).services.get('stripe') ?? {}

    expect(Number(properties['Timeout']) * 1_000).toBeGreaterThanOrEqual(timeout + deadlineReserve + 1_000)
    // The longest that an HTTP API waits.
    expect(properties['Timeout']).toBeLessThan(30)
  })

  it('makes a payment with these variables alone, and asks DynamoDB for nothing else than a state', async () => {
    await using stripe = await startProvider(succeeded)
    const before = database.requests.length
    await using billing = await start(way, stripe)

    const answer = await billing.invoke(paymentEvent())

    expect(answer).toMatchObject({ statusCode: 200, body: expect.stringContaining('"succeeded"') })
    expect(stripe.requests.map(({ headers }) => headers.authorization)).toEqual([`Bearer ${secretKey}`])
    expect(callsSince(before).map(({ action }) => action)).toEqual(['dynamodb:BatchGetItem'])
  })

  it('is allowed all that it does in an outage and after it, and does all that it is allowed', async () => {
    await using stripe = await startProvider({ status: 503, headers: { 'stripe-should-retry': 'false' } })
    const before = database.requests.length
    await using billing = await start(way, stripe, {
      CIRCUIT_BREAKER_NAMESPACE: randomUUID(),
      CIRCUIT_BREAKER_RESET_TIMEOUT__STRIPE: '300000',
    })
    const statusOf = async () => ((await billing.invoke(paymentEvent())) as { statusCode: number }).statusCode
    const statuses = [await statusOf(), await statusOf(), await statusOf()]
    stripe.react(succeeded)
    billing.advance(301_000)
    statuses.push(await statusOf())
    expect(statuses).toEqual([502, 502, 503, 200])

    const [statement] = deployments[way].statements as Statement[]
    const calls = callsSince(before)
    expect(calls.filter((call) => !isAllowed(statement as Statement, call))).toEqual([])
    expect([...new Set(calls.map(({ action }) => action))].sort()).toEqual([...(statement?.Action ?? [])].sort())
  })
})

describe('SAM and the CDK', () => {
  it('deploy the same function', () => {
    const same = ({ properties, variables }: Deployment) => {
      const { Runtime, Architectures, MemorySize, Timeout } = properties
      return { Runtime, Architectures, MemorySize, Timeout, variables }
    }
    expect(same(deployments['the CDK'])).toEqual(same(deployments.SAM))
  })

  it('let nobody call it without a signature', () => {
    const { SAM, 'the CDK': cdk } = deployments
    const ofType = (type: string, { template }: Deployment) =>
      Object.values(template.Resources).flatMap(({ Type, Properties }) => (Type === type ? [Properties] : []))
    expect(ofType('AWS::Serverless::HttpApi', SAM)).toEqual([
      { Auth: { EnableIamAuthorizer: true, DefaultAuthorizer: 'AWS_IAM' } },
    ])
    expect(ofType('AWS::ApiGatewayV2::Route', cdk)).toEqual([
      expect.objectContaining({ RouteKey: 'POST /payments', AuthorizationType: 'AWS_IAM' }),
    ])
  })

  it('accept the modes that the circuit breaker has', () => {
    const { AllowedValues } = deployments.SAM.template.Parameters?.['CircuitBreakerMode'] ?? {}
    const accepted = (AllowedValues as string[]).map((mode) => {
      return resolveConfig({ services: ['stripe'] }, { CIRCUIT_BREAKER_MODE: mode }).services.get('stripe')?.mode
    })
    expect(accepted).toEqual(['enforce', 'observe', 'off'])
  })
})

describe('the CDK’s context', () => {
  // What is deployed is the same, so the code is not bundled again.
  const unbundled = { 'aws:cdk:bundling-stacks': [] }

  it('can name another secret, its version and the mode', async () => {
    const context = { stripeKeyName: 'shop/stripe', stripeKeyVersion: 'v2', circuitBreakerMode: 'observe' }

    const template = await runStack(join(work, 'context'), { ...unbundled, tableName, ...context })

    expect(functionOf(template).Properties?.['Environment']).toEqual({
      Variables: {
        CIRCUIT_BREAKER_TABLE_NAME: tableName,
        CIRCUIT_BREAKER_MODE: 'observe',
        STRIPE_SECRET_KEY: '{{resolve:secretsmanager:shop/stripe:SecretString:::v2}}',
      },
    })
  })

  it('cannot have a mode that there is not', async () => {
    const running = runStack(join(work, 'refused'), { ...unbundled, tableName, circuitBreakerMode: 'observed' })

    await expect(running).rejects.toThrow('circuitBreakerMode must be one of enforce, observe, off.')
  })
})

describe('package.example.json', () => {
  const manifest = (...path: string[]) => JSON.parse(readFileSync(join(...path), 'utf8'))
  const own = manifest(folder, 'package.example.json')

  it('names what the function imports, and esbuild, which SAM looks for after `npm install --production`', () => {
    const { imported, external } = samBuild
    expect(Object.keys(own.dependencies).sort()).toEqual([...imported, 'esbuild'].sort())
    expect(external).toEqual(['@aws-sdk/client-dynamodb', '@aws-sdk/util-dynamodb', 'ioredis'])
  })

  it('asks for the versions that are tested here', () => {
    const { version } = manifest(root, 'package.json')
    const tested = devDependencies()
    const [major, minor] = version.split('.')
    const { 'middy-circuit-breaker': ours, 'aws-cdk': _, ...others } = { ...own.dependencies, ...own.devDependencies }
    expect(ours).toMatch(new RegExp(`^\\^${major}\\.${minor}\\.\\d+$`))
    for (const [name, range] of Object.entries(others)) expect([name, range]).toEqual([name, tested[name]])
  })
})

describe('README.md', () => {
  const readme = readFileSync(join(folder, 'README.md'), 'utf8')

  it('gives parameters and context that there are', () => {
    const { Parameters = {} } = deployments.SAM.template
    const given = [...readme.matchAll(/\b([A-Z]\w+)=[^"\s]/g)].map(([, name = '']) => name)
    const parameters = given.filter((name) => !/^[A-Z_]+$/.test(name))
    expect([...new Set(parameters)].sort()).toEqual(Object.keys(Parameters).sort())

    const stack = readFileSync(join(folder, 'stack.ts'), 'utf8')
    const context = [...readme.matchAll(/--context (\w+)=/g)].map(([, name = '']) => name)
    expect(context.sort()).toEqual(['circuitBreakerMode', 'stripeKeyName', 'stripeKeyVersion', 'tableName'])
    for (const name of context) expect(stack).toContain(`Context('${name}')`)
  })

  it('links to files that there are', () => {
    const links = [...readme.matchAll(/\]\(([^)#]+)\)/g)].map(([, link = '']) => link)
    expect(links.length).toBeGreaterThan(0)
    for (const link of links) expect([link, existsSync(join(folder, link))]).toEqual([link, true])
  })
})

/** Starts the bundle with the variables of the deployment, those that Lambda adds, and the addresses of stand-ins. */
function start(way: Way, stripe: Provider, more: Readonly<Record<string, string>> = {}) {
  const { bundle, properties, variables } = deployments[way]
  return startBundledFunction(bundle, {
    name: String(properties['Handler']).split('.')[1] ?? '',
    variables: {
      ...patientVariables,
      // So long that no state is read again in the middle of an invocation, nor before the probe is due.
      CIRCUIT_BREAKER_CACHE_TTL: '3600000',
      ...variables,
      AWS_LAMBDA_FUNCTION_NAME: 'billing',
      AWS_REGION: 'eu-west-1',
      AWS_ACCESS_KEY_ID: 'local',
      AWS_SECRET_ACCESS_KEY: 'local',
      AWS_ENDPOINT_URL_DYNAMODB: database.url,
      STRIPE_API_URL: stripe.url,
      ...more,
    },
  })
}

const succeeded = { body: { id: 'pi_1', object: 'payment_intent', status: 'succeeded', amount: 1999, currency: 'eur' } }

const paymentEvent = () => ({
  headers: { 'idempotency-key': randomUUID() },
  body: JSON.stringify({ amount: 1999, currency: 'eur', paymentMethod: 'pm_card_visa' }),
})

function callsSince(start: number): DynamoDBCall[] {
  return database.requests.slice(start).map(({ headers, body }) => {
    const [, operation = ''] = String(headers['x-amz-target']).split('.')
    return callOf(operation, JSON.parse(body))
  })
}

type Edit = (found: Record<string, unknown>) => void

const samFunction = 'AWS::Serverless::Function/Properties'
const samStatement = `${samFunction}/Policies/0/Statement/0`
const samVariables = `${samFunction}/Environment/Variables`
const cdkFunction = 'AWS::Lambda::Function/Properties'
const cdkStatement = 'AWS::IAM::Policy/Properties/PolicyDocument/Statement/0'

const set =
  (name: string, value: unknown): Edit =>
  (found) => {
    found[name] = value
  }
const rename =
  (from: string, to: string): Edit =>
  (found) => {
    found[to] = found[from]
    delete found[from]
  }
const remove =
  (name: string): Edit =>
  (found) => {
    delete found[name]
  }

/** Mistakes in the templates, and what has to be said of each. */
const changes: readonly [way: Way, what: string, path: string, edit: Edit, problem: string][] = [
  ['SAM', 'a misspelt property', samFunction, rename('Runtime', 'Runtim'), 'no property Runtim'],
  [
    'SAM',
    'a misspelt property of an event',
    `${samFunction}/Events/Payment/Properties`,
    rename('Path', 'Pth'),
    'no property Pth',
  ],
  [
    'SAM',
    'a misspelt property of the API',
    'AWS::Serverless::HttpApi/Properties/Auth',
    rename('DefaultAuthorizer', 'DefaultAuthoriser'),
    'no property DefaultAuthoriser',
  ],
  ['SAM', 'a wrong type', samFunction, set('Timeout', '15'), 'Timeout must be a number'],
  ['SAM', 'a list in place of a text', samFunction, set('Handler', ['handler.handler']), 'Handler must be a string'],
  ['SAM', 'a text in place of a list', samFunction, set('Architectures', 'arm64'), 'Architectures must be a list'],
  [
    'SAM',
    'a list in place of variables',
    `${samFunction}/Environment`,
    set('Variables', []),
    'Variables must be an object',
  ],
  ['SAM', 'a missing required property', `${samFunction}/Events/Payment`, remove('Type'), 'Type'],
  ['SAM', 'a policy without statements', `${samFunction}/Policies/0`, remove('Statement'), 'Statement is required'],
  [
    'SAM',
    'an unknown resource type',
    'AWS::Serverless::HttpApi',
    set('Type', 'AWS::Serverless::HttpAPI'),
    'no resource type AWS::Serverless::HttpAPI',
  ],
  ['SAM', 'an unknown event', `${samFunction}/Events/Payment`, set('Type', 'HttpAPI'), 'Type names no event'],
  ['SAM', 'a Ref to nothing', samVariables, set('CIRCUIT_BREAKER_MODE', { Ref: 'Mode' }), "'Mode' is not one of"],
  [
    'SAM',
    'a Ref to nothing in an event',
    `${samFunction}/Events/Payment/Properties`,
    set('ApiId', { Ref: 'Api' }),
    "'Api' is not one of",
  ],
  ['SAM', 'an attribute of nothing', samVariables, set('ARN', { 'Fn::GetAtt': ['Table', 'Arn'] }), 'Table'],
  [
    'SAM',
    'a Sub of nothing',
    samStatement,
    set('Resource', { 'Fn::Sub': ['arn:aws:dynamodb:::table/', '{Tabel}'].join('$') }),
    'Tabel',
  ],
  ['SAM', 'a statement without Effect', samStatement, rename('Effect', 'Efect'), "'Efect' was unexpected"],
  ['SAM', 'a statement with an unknown Effect', samStatement, set('Effect', 'Alow'), "'Alow' is not one of"],
  ['SAM', 'a statement without Resource', samStatement, remove('Resource'), 'Resource'],
  [
    'SAM',
    'a statement for something that is no ARN',
    samStatement,
    set('Resource', 'table/app'),
    "'table/app' does not match",
  ],
  [
    'SAM',
    'an unknown condition operator',
    `${samStatement}/Condition`,
    rename('ForAllValues:StringLike', 'ForAllValue:StringLike'),
    'not a valid IAM condition operator',
  ],
  ['SAM', 'a runtime that is no more', samFunction, set('Runtime', 'nodejs16.x'), 'nodejs16.x'],
  ['SAM', 'a runtime that never was', samFunction, set('Runtime', 'nodejs25.x'), 'nodejs25.x'],
  ['SAM', 'more time than there is', samFunction, set('Timeout', 901), '901'],
  ['SAM', 'less memory than there is', samFunction, set('MemorySize', 64), '64 is less than the minimum'],
  ['the CDK', 'a misspelt property', cdkFunction, rename('Timeout', 'Timout'), "'Timout' was unexpected"],
  ['the CDK', 'a wrong type', cdkFunction, set('Timeout', 'long'), "'long' is not of type 'integer'"],
  ['the CDK', 'a missing required property', cdkFunction, remove('Role'), "'Role' is a required property"],
  [
    'the CDK',
    'an unknown resource type',
    'AWS::ApiGatewayV2::Api',
    set('Type', 'AWS::ApiGatewayV2::API'),
    'Unknown resource type',
  ],
  ['the CDK', 'a Ref to nothing', cdkFunction, set('FunctionName', { Ref: 'Name' }), "'Name' is not one of"],
  [
    'the CDK',
    'an attribute that there is not',
    cdkFunction,
    set('Role', { 'Fn::GetAtt': ['Payments130453D3', 'Role'] }),
    'Role',
  ],
  ['the CDK', 'a statement without Effect', cdkStatement, rename('Effect', 'Efect'), "'Efect' was unexpected"],
]

/** @param path the type of a resource, and where in it */
function edited(template: Template, path: string, edit: Edit): Template {
  const copy = structuredClone(template)
  const [type, ...steps] = path.split('/')
  const resource: unknown = Object.values(copy.Resources).find(({ Type }) => Type === type)
  edit(
    steps.reduce<unknown>((found, step) => (found as Record<string, unknown>)[step], resource) as Record<
      string,
      unknown
    >,
  )
  return copy
}

describe('of a mistake in a template it is said, as of', () => {
  it.each(changes)('%s: %s', (way, what, _path, _edit, problem) => {
    expect(problems[`${way}: ${what}`]).toContainEqual(expect.stringContaining(problem))
  })
})
