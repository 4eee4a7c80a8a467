import type { TestResult } from '@aws/durable-execution-sdk-js-testing'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, jest } from '@jest/globals'
import type { Context } from 'aws-lambda'
import { CircuitBreaker } from 'middy-circuit-breaker'
import type { Result } from '../../examples/durable-order/handler.ts'
import { type DynamoDBServer, startDynamoDBLocal } from '../support/dynamodb-local.ts'
import { patientVariables } from '../support/patience.ts'
import { waitFor } from '../support/time.ts'
import { coldStart } from './cold-start.ts'
import { type Provider, startProvider } from './provider.ts'

const order = { id: 'order-7', amount: 4_200 }

let dynamodb: DynamoDBServer
let payments: Provider
let parcels: Provider

beforeAll(async () => {
  dynamodb = await startDynamoDBLocal()
})
afterAll(() => dynamodb.stop())
beforeEach(async () => {
  ;[payments, parcels] = await Promise.all([startProvider({}), startProvider({})])
  jest.spyOn(console, 'warn').mockImplementation(() => {})
})
afterEach(async () => {
  jest.restoreAllMocks()
  await Promise.all([payments[Symbol.asyncDispose](), parcels[Symbol.asyncDispose]()])
})

interface Deployment extends AsyncDisposable {
  /** Carries out the order in the SDK's local runner, in real time. */
  run(): Promise<TestResult<Result>>
  /** How often the function was suspended. */
  readonly suspensions: number
  /** An operator's access to the circuits. */
  readonly operator: CircuitBreaker<'payments'>
}

async function deploy(variables: Readonly<Record<string, string>> = {}): Promise<Deployment> {
  const environment = {
    ...dynamodb.variables,
    ...patientVariables,
    CIRCUIT_BREAKER_TABLE_NAME: await dynamodb.createTable(),
    CIRCUIT_BREAKER_CACHE_TTL: '0',
    CIRCUIT_BREAKER_RESET_TIMEOUT: '1000',
    PAYMENTS_URL: payments.url,
    PARCELS_URL: parcels.url,
    PACKING_SECONDS: '1',
    ...variables,
  }
  // The runner has to be of the same copy of the SDK as the handler.
  const [{ handler }, { LocalDurableTestRunner: Runner }] = await coldStart(
    () =>
      Promise.all([import('../../examples/durable-order/handler.ts'), import('@aws/durable-execution-sdk-js-testing')]),
    environment,
  )
  await Runner.setupTestEnvironment()
  const operator = new CircuitBreaker({ services: ['payments'] })
  let suspensions = 0
  const handlerFunction = async (event: never, context: Context) => {
    const end = (await handler(event, context as never)) as unknown as { readonly Status: string }
    if (end.Status === 'PENDING') suspensions++
    return end
  }
  return {
    operator,
    get suspensions() {
      return suspensions
    },
    run: () => new Runner<Result>({ handlerFunction: handlerFunction as never }).run({ payload: order }),
    [Symbol.asyncDispose]: async () => {
      await Promise.all([Runner.teardownTestEnvironment(), operator.close()])
    },
  }
}

describe('an order', () => {
  it('is paid once and sent once, although the function is replayed in between', async () => {
    await using deployment = await deploy()
    const result = await deployment.run()
    expect(result.getResult()).toEqual({ status: 'sent' })
    expect(deployment.suspensions).toBe(1)
    expect([payments.requests.length, parcels.requests.length]).toEqual([1, 1])
  })

  it('waits out an outage asleep, and asks for nothing meanwhile', async () => {
    await using deployment = await deploy()
    await deployment.operator.forceOpen('payments')
    const running = deployment.run()
    await waitFor('it sleeps', () => deployment.suspensions)
    expect(payments.requests).toEqual([])
    await deployment.operator.reset('payments')
    expect((await running).getResult()).toEqual({ status: 'sent' })
    expect(payments.requests).toHaveLength(1)
  })

  it('is tried again with the same key where a service fails', async () => {
    await using deployment = await deploy()
    parcels.react(() => (parcels.requests.length === 1 ? { status: 503 } : {}))
    expect((await deployment.run()).getResult()).toEqual({ status: 'sent' })
    expect(payments.requests).toHaveLength(1)
    expect(parcels.requests.map(({ headers }) => headers['idempotency-key'])).toEqual([order.id, order.id])
  })

  it('is not tried again where the card is declined', async () => {
    await using deployment = await deploy()
    payments.react({ status: 402 })
    expect((await deployment.run()).getResult()).toEqual({ status: 'declined' })
    expect([payments.requests.length, parcels.requests.length]).toEqual([1, 0])
  })

  it('fails where a service has understood it and refuses it', async () => {
    await using deployment = await deploy()
    payments.react({ status: 400 })
    expect((await deployment.run()).getError()).toMatchObject({ errorMessage: 'The service answered 400.' })
    expect(payments.requests).toHaveLength(1)
  })

  it('is given up where it could not be paid in so many attempts', async () => {
    await using deployment = await deploy({ PAYING_ATTEMPTS: '2' })
    await deployment.operator.forceOpen('payments')
    expect((await deployment.run()).getResult()).toEqual({ status: 'given up' })
    expect(payments.requests).toEqual([])
  })
})
