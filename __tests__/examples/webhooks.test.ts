import { randomUUID } from 'node:crypto'
import { describe, expect, it } from '@jest/globals'
import type { SQSRecord } from 'aws-lambda'
import { createTestContext } from 'middy-circuit-breaker/testing'
import { patientVariables } from '../support/patience.ts'
import { coldStart } from './cold-start.ts'
import { type Provider, type Reaction, startProvider } from './provider.ts'
import { useDynamoDB, useStoppedTime } from './set-up.ts'
import { answerAsSqs, sqsCalls } from './sqs.ts'

const dynamoDB = useDynamoDB()
const time = useStoppedTime('warn')

const accepted: Reaction = { status: 204 }
const unavailable: Reaction = { status: 503, body: 'down' }

describe('Webhooks', () => {
  it('are delivered to the hosts of customers, each under its own id', async () => {
    await using scene = await startScene()
    const run = await scene.newInstance()
    expect(await run([scene.to(scene.acme, '1'), scene.to(scene.globex, '2')])).toEqual([])
    expect(scene.acme.requests).toMatchObject([{ method: 'POST', url: '/hook', headers: { 'webhook-id': '1' } }])
    expect(scene.globex.requests).toMatchObject([{ headers: { 'webhook-id': '2' }, body: '{"order":"2"}' }])
  })

  it('for a host that is dead wait in the second queue, while the others are delivered', async () => {
    await using scene = await startScene()
    scene.acme.react(unavailable)
    const run = await scene.newInstance()
    for (const id of ['1', '2', '3']) expect(await run([scene.to(scene.acme, id)])).toEqual([id])

    expect(await run([scene.to(scene.acme, '4'), scene.to(scene.globex, '5')])).toEqual([])

    expect(scene.acme.requests).toHaveLength(3)
    expect(scene.globex.requests).toHaveLength(1)
    const [[action, message]] = sqsCalls(scene.sqs) as [[string, Record<string, unknown>]]
    expect(action).toBe('SendMessage')
    expect(message).toMatchObject({ QueueUrl: scene.waitingQueueUrl })
    expect(JSON.parse(String(message['MessageBody']))).toEqual({
      id: '4',
      url: `${scene.acme.url}/hook`,
      payload: { order: '4' },
    })
    expect(message['DelaySeconds']).toBeGreaterThanOrEqual(60)
    expect(message['DelaySeconds']).toBeLessThanOrEqual(71)
  })

  it('wait also where an instance has never called the dead host, and are delivered when it is back', async () => {
    await using scene = await startScene()
    scene.acme.react(unavailable)
    const first = await scene.newInstance()
    for (const id of ['1', '2', '3']) await first([scene.to(scene.acme, id)])
    const second = await scene.newInstance()
    await second([scene.to(scene.acme, '4')])
    expect(scene.acme.requests).toHaveLength(3)

    scene.acme.react(accepted)
    await time.advance(72_000)
    const [[, message]] = sqsCalls(scene.sqs) as [[string, Record<string, unknown>]]
    expect(await second([{ ...scene.to(scene.acme, '4'), body: String(message['MessageBody']) }])).toEqual([])
    expect(scene.acme.requests).toHaveLength(4)
    expect(await first([scene.to(scene.acme, '5')])).toEqual([])
  })

  it('are returned where they fail or cannot be moved, and not where the customer has no use of them', async () => {
    await using scene = await startScene()
    const run = await scene.newInstance()
    scene.acme.react({ status: 410 })
    expect(await run([scene.to(scene.acme, '1')])).toEqual([])
    scene.acme.react({ status: 429 })
    expect(await run([scene.to(scene.acme, '2')])).toEqual(['2'])
    scene.acme.react('breaks')
    for (const id of ['3', '4', '5']) expect(await run([scene.to(scene.acme, id)])).toEqual([id])
    scene.sqs.react({ status: 400, body: { __type: 'com.amazonaws.sqs#QueueDoesNotExist', message: 'No such queue.' } })
    expect(await run([scene.to(scene.acme, '6')])).toEqual(['6'])
  })

  it.each(['{', 'null', '{}', '{"id":"1","url":"no address"}', '{"id":"1","url":"file:///etc/passwd"}'])(
    'that are none are left out: %s',
    async (body) => {
      await using scene = await startScene()
      const run = await scene.newInstance()
      expect(await run([{ ...scene.to(scene.acme, '1'), body }])).toEqual([])
      expect(scene.acme.requests).toHaveLength(0)
    },
  )
})

/** The hosts of two customers, SQS, and circuits that nothing has happened to. */
async function startScene() {
  await using started = new AsyncDisposableStack()
  const acme = started.use(await startProvider(accepted))
  const globex = started.use(await startProvider(accepted))
  const sqs = started.use(await startProvider(answerAsSqs))
  const servers = started.move()
  const waitingQueueUrl = `${sqs.url}/123456789012/waiting`
  const namespace = randomUUID()

  /** Resolves to what takes a batch and returns the ids that go back to the queue. */
  const newInstance = async () => {
    const { handler } = await coldStart(() => import('../../examples/webhooks/handler.ts'), {
      ...dynamoDB.variables,
      ...patientVariables,
      AWS_ENDPOINT_URL_SQS: sqs.url,
      WAITING_QUEUE_URL: waitingQueueUrl,
      CIRCUIT_BREAKER_TABLE_NAME: dynamoDB.tableName,
      CIRCUIT_BREAKER_NAMESPACE: namespace,
    })
    return async (records: SQSRecord[]): Promise<string[]> => {
      const { batchItemFailures } = await handler({ Records: records }, createTestContext({ remainingTime: 60_000 }))
      return batchItemFailures.map(({ itemIdentifier }) => itemIdentifier)
    }
  }

  return {
    acme,
    globex,
    sqs,
    waitingQueueUrl,
    newInstance,
    to: ({ url }: Provider, id: string) =>
      ({
        messageId: id,
        body: JSON.stringify({ id, url: `${url}/hook`, payload: { order: id } }),
      }) as SQSRecord,
    [Symbol.asyncDispose]: () => servers.disposeAsync(),
  }
}
