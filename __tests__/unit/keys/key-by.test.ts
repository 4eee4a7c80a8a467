import { describe, expect, it } from '@jest/globals'
import middy from '@middy/core'
import { CircuitBreaker, circuitBreaker, isConfigurationError, type KeyBy } from '../../../src/index.ts'
import { createTestContext } from '../../../src/testing/index.ts'
import { createKeyedFleet } from '../../support/keyed-fleet.ts'
import { ok, outcomeOf, unavailable } from '../../support/virtual-fleet.ts'

const services = { stripe: {}, crm: { keyed: {} } }

interface Order {
  readonly customer: string
}

describe('keyBy', () => {
  it('finds the key of calls that name none', async () => {
    const { storage, runtime } = createKeyedFleet()
    const breaker = new CircuitBreaker({ services, storage }, { ...runtime, env: {} })
    const asked: string[] = []
    const handler = middy<Order>()
      .use(
        circuitBreaker(breaker, {
          keyBy: ({ customer }: Order, { awsRequestId }) => {
            asked.push(awsRequestId)
            return customer
          },
        }),
      )
      .handler(async (_event, { callExternal, circuits }) => {
        for (let call = 0; call < 3; call++) await outcomeOf(callExternal('crm', unavailable))
        await callExternal('crm', ok, { key: 'globex' })
        await callExternal('stripe', ok)
        return circuits.crm.of('acme').state
      })
    expect(await handler({ customer: 'acme' }, createTestContext({ awsRequestId: 'request' }))).toBe('OPEN')
    expect(await storage.peek('#crm#acme')).toMatchObject({ state: 'OPEN' })
    expect(await storage.peek('#crm#globex')).toBeUndefined()
    expect(asked).toEqual(['request'])
  })

  it('is not asked where no call needs a key', async () => {
    const keyBy = (): string => {
      throw new Error('asked')
    }
    const handler = middy()
      .use(circuitBreaker({ services, storage: 'memory', keyBy }))
      .handler(async (_event, { callExternal }) => callExternal('crm', ok, { key: 'acme' }))
    expect(await handler({}, createTestContext())).toBe('ok')
  })

  it("takes Lambda's tenant id", async () => {
    const handler = middy()
      .use(circuitBreaker({ services, storage: 'memory', keyBy: 'tenantId' }))
      .handler(async (_event, { callExternal, circuits }) => {
        for (let call = 0; call < 3; call++) await outcomeOf(callExternal('crm', unavailable))
        return [circuits.crm.of('tenant-1').state, circuits.crm.of('tenant-2').state]
      })
    const context = { ...createTestContext(), tenantId: 'tenant-1' }
    expect(await handler({}, context as typeof context & Parameters<typeof handler>[1])).toEqual(['OPEN', 'CLOSED'])
    const { error } = await outcomeOf(handler({}, createTestContext()))
    // Three calls failed without a tenant, each for itself; the handler does not see it, so that it reports CLOSED for both.
    expect(error).toBeUndefined()
  })

  it('makes the call fail where it finds no text, and where it throws', async () => {
    const errorWith = async (keyBy: KeyBy): Promise<unknown> => {
      const handler = middy()
        .use(circuitBreaker({ services, storage: 'memory', keyBy }))
        .handler(async (_event, { callExternal }) => callExternal('crm', ok))
      return (await outcomeOf(handler({}, createTestContext()))).error
    }
    const missing = await errorWith('tenantId')
    expect(isConfigurationError(missing)).toBe(true)
    expect(String(missing)).toContain('key must be')
    const own = new Error('no customer')
    const thrown = await errorWith(() => {
      throw own
    })
    expect(thrown).toBe(own)
  })

  it('is refused where it can find nothing', () => {
    const wrong = 'tenant' as unknown as KeyBy
    expect(() => circuitBreaker({ services, storage: 'memory', keyBy: wrong })).toThrow(
      'keyBy must be a function, or \'tenantId\', but is "tenant" (option)',
    )
    // The engine has no invocations.
    const options = { services, storage: 'memory', keyBy: 'tenantId' } as const
    expect(() => new CircuitBreaker(options as object as { services: [] })).toThrow('keyBy is not a setting')
    for (const nothing of [undefined, null, 'stripe']) {
      expect(() => circuitBreaker(nothing as unknown as { services: [] })).toThrow('options must be an object')
    }
  })

  it('works beside another breaker on the same handler', async () => {
    const handler = middy<Order>()
      .use(
        circuitBreaker({
          services: { crm: { keyed: {} } },
          storage: 'memory',
          keyBy: (event: Order) => event.customer,
        }),
      )
      .use(circuitBreaker({ services: { hooks: { keyed: {} } }, storage: 'memory' }))
      .handler(async (_event, { callExternal, circuits }) => {
        for (let call = 0; call < 3; call++) await outcomeOf(callExternal('crm', unavailable))
        const { error } = await outcomeOf(callExternal('hooks', ok, { key: 'host' }))
        return [circuits.crm.of('acme').state, circuits.hooks.of('host').state, error]
      })
    expect(await handler({ customer: 'acme' }, createTestContext())).toEqual(['OPEN', 'CLOSED', undefined])
  })
})
