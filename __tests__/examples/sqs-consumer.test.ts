import { randomUUID } from 'node:crypto'
import { format } from 'node:util'
import { describe, expect, it, jest } from '@jest/globals'
import type { SQSEvent, SQSRecord } from 'aws-lambda'
import { createTestContext } from 'middy-circuit-breaker/testing'
import { patientVariables } from '../support/patience.ts'
import { coldStart } from './cold-start.ts'
import { type ProviderRequest, type Reaction, startProvider } from './provider.ts'
import { useDynamoDB, useStoppedTime } from './set-up.ts'
import { answerAsSqs, sqsCalls } from './sqs.ts'

const dynamoDB = useDynamoDB()
const time = useStoppedTime('warn')

/** The times that the function gives a request to the warehouse, and one to the queue. */
const timeout = 5_000
const queueTimeout = 1_500
/** How long the circuit stays open, until every instance may probe it. */
const untilProbe = 61_000

const ordered: Reaction = { status: 201, body: { trackingNumber: 'T1' } }
const page = { headers: { 'content-type': 'text/html' }, body: '<html>Something went wrong</html>' }
const unavailable: Reaction = { status: 503, ...page }
const rejected: Reaction = { status: 400, body: { error: 'No such article.' } }

const ten = ['1', '2', '3', '4', '5', '6', '7', '8', '9', '10']

describe('A batch', () => {
  it('is ordered record by record, each under its own id, while the warehouse is well', async () => {
    await using scene = await startScene()
    const consume = await scene.newInstance()

    expect(await consume(batchOf(ten))).toEqual([])

    expect(scene.ordered()).toEqual(ten)
    expect(scene.warehouse.requests[0]).toMatchObject({
      method: 'POST',
      url: '/shipments',
      headers: { 'idempotency-key': '1', 'content-type': 'application/json' },
      body: '{"id":"1","article":"lamp"}',
    })
    expect(scene.sqs.requests).toHaveLength(0)
  })

  it('in which the warehouse dies at the fourth of ten returns seven, after three requests in vain', async () => {
    await using scene = await startScene()
    scene.warehouse.react(({ body }) => (Number(JSON.parse(body).id) < 4 ? ordered : unavailable))
    const consume = await scene.newInstance()

    expect(await consume(batchOf(ten))).toEqual(['4', '5', '6', '7', '8', '9', '10'])

    expect(scene.ordered()).toEqual(['1', '2', '3', '4', '5', '6'])
  })

  it('is postponed until the probe is due, as far as it is returned', async () => {
    await using scene = await startScene()
    scene.warehouse.react(unavailable)
    const consume = await scene.newInstance({ CIRCUIT_BREAKER_RESET_TIMEOUT: '40000' })

    expect(await consume(batchOf(ten))).toEqual(ten)

    expect(sqsCalls(scene.sqs)).toEqual([
      [
        'ChangeMessageVisibilityBatch',
        {
          QueueUrl: scene.queueUrl,
          Entries: ten.map((id) => ({
            Id: expect.any(String),
            ReceiptHandle: `receipt-${id}`,
            VisibilityTimeout: expect.any(Number),
          })),
        },
      ],
    ])
    const delays = new Set(scene.delays())
    expect(delays.size).toBe(1)
    expect(Math.min(...delays)).toBeGreaterThanOrEqual(40)
    // The circuit breaker spreads the probes of many instances by up to a second, this function the batches by ten more.
    expect(Math.max(...delays)).toBeLessThanOrEqual(51)
  })

  it('is returned whole, without a request, by an instance that has never asked the dead warehouse', async () => {
    await using scene = await startScene()
    scene.warehouse.react(unavailable)
    const first = await scene.newInstance()
    await first(batchOf(['1', '2', '3']))
    expect(scene.delays()).toHaveLength(3)

    const second = await scene.newInstance()

    expect(await second(batchOf(ten))).toEqual(ten)
    expect(scene.ordered()).toEqual(['1', '2', '3'])
    expect(scene.delays()).toHaveLength(13)
  })

  it('is postponed, too, if its last record, or its only one, opens the circuit', async () => {
    await using scene = await startScene()
    scene.warehouse.react(unavailable)
    const consume = await scene.newInstance({ CIRCUIT_BREAKER_FAILURE_THRESHOLD: '1' })

    expect(await consume(batchOf(['1']))).toEqual(['1'])

    expect(scene.delays()).toHaveLength(1)
    // The minute that the circuit stays open, a second in which instances probe, ten in which batches come back.
    expect(Math.min(...scene.delays())).toBeGreaterThanOrEqual(60)
    expect(Math.max(...scene.delays())).toBeLessThanOrEqual(71)
  })

  it('is not postponed where the circuit would be open, but is only observed', async () => {
    await using scene = await startScene()
    scene.warehouse.react(unavailable)
    const consume = await scene.newInstance({
      CIRCUIT_BREAKER_FAILURE_THRESHOLD: '1',
      CIRCUIT_BREAKER_MODE: 'observe',
    })

    expect(await consume(batchOf(ten))).toEqual(ten)

    expect(scene.ordered()).toEqual(ten)
    expect(scene.sqs.requests).toHaveLength(0)
  })

  it('does not come back at the same moment as every other that was postponed', async () => {
    await using scene = await startScene()
    scene.warehouse.react(unavailable)
    const consume = await scene.newInstance({ CIRCUIT_BREAKER_FAILURE_THRESHOLD: '1' })

    jest.spyOn(Math, 'random').mockReturnValue(0)
    await consume(batchOf(['1', '2']))
    jest.spyOn(Math, 'random').mockReturnValue(0.99)
    await consume(batchOf(['3', '4']))

    const [first = 0, , second = 0] = scene.delays()
    expect(second - first).toBeGreaterThanOrEqual(9)
  })

  it('is postponed by 15 minutes at most, however long the circuit stays open', async () => {
    await using scene = await startScene()
    scene.warehouse.react(unavailable)
    const consume = await scene.newInstance({
      CIRCUIT_BREAKER_FAILURE_THRESHOLD: '1',
      CIRCUIT_BREAKER_RESET_TIMEOUT: '90000000',
      CIRCUIT_BREAKER_MAX_RESET_TIMEOUT: '90000000',
    })

    await consume(batchOf(['1', '2']))

    expect(scene.delays()).toEqual([900, 900])
  })

  it('is the recovery: its first record is the probe, and the others follow', async () => {
    await using scene = await startScene()
    scene.warehouse.react(unavailable)
    const consume = await scene.newInstance()
    await consume(batchOf(['a', 'b', 'c']))

    scene.warehouse.react(ordered)
    await time.advance(59_999)
    expect(await consume(batchOf(ten))).toEqual(ten)
    expect(scene.ordered()).toEqual(['a', 'b', 'c'])
    await time.advance(untilProbe - 59_999)
    expect(await consume(batchOf(ten))).toEqual([])

    expect(scene.ordered()).toEqual(['a', 'b', 'c', ...ten])
  })

  it('costs one request where the probe fails', async () => {
    await using scene = await startScene()
    scene.warehouse.react(unavailable)
    const consume = await scene.newInstance()
    await consume(batchOf(['a', 'b', 'c']))
    await time.advance(untilProbe)

    expect(await consume(batchOf(ten))).toEqual(ten)
    expect(await consume(batchOf(ten))).toEqual(ten)

    expect(scene.ordered()).toEqual(['a', 'b', 'c', '1'])
  })

  it('is returned while another instance’s probe is under way', async () => {
    await using scene = await startScene()
    scene.warehouse.react(unavailable)
    const environment = { CIRCUIT_BREAKER_CACHE_TTL: '0' }
    const first = await scene.newInstance(environment)
    await first(batchOf(['a', 'b', 'c']))
    const second = await scene.newInstance(environment)

    const probe = Promise.withResolvers<Reaction>()
    const arrived = Promise.withResolvers<void>()
    scene.warehouse.react(() => {
      arrived.resolve()
      return probe.promise
    })
    await time.advance(untilProbe)
    const probing = first(batchOf(['probe', 'next']))
    await arrived.promise
    expect(await second(batchOf(ten))).toEqual(ten)
    expect(scene.ordered()).toEqual(['a', 'b', 'c', 'probe'])

    probe.resolve(ordered)
    expect(await probing).toEqual([])
    expect(await second(batchOf(ten))).toEqual([])
    expect(scene.ordered()).toEqual(['a', 'b', 'c', 'probe', 'next', ...ten])
  })

  it('that is larger than what SQS takes at once is postponed in parts', async () => {
    await using scene = await startScene()
    scene.warehouse.react(unavailable)
    const consume = await scene.newInstance()
    const ids = Array.from({ length: 25 }, (_, index) => String(index))

    expect(await consume(batchOf(ids))).toEqual(ids)

    expect(sqsCalls(scene.sqs).map(([, { Entries }]) => (Entries as unknown[]).length)).toEqual([10, 10, 5])
    expect(scene.delays()).toHaveLength(25)
  })

  it('is returned all the same where it cannot be postponed', async () => {
    await using scene = await startScene()
    scene.warehouse.react(unavailable)
    scene.sqs.react(() => time.hang(queueTimeout))
    const consume = await scene.newInstance()

    expect(await consume(batchOf(ten))).toEqual(ten)
    await scene.sqs.givenUp(1)
  })

  it('is postponed for as long as the warehouse asks for with Retry-After', async () => {
    await using scene = await startScene()
    scene.warehouse.react({ status: 429, headers: { 'retry-after': '200' } })
    const consume = await scene.newInstance({ CIRCUIT_BREAKER_FAILURE_THRESHOLD: '1' })
    await consume(batchOf(['1', '2']))

    expect(Math.min(...scene.delays())).toBeGreaterThanOrEqual(200)
    expect(Math.max(...scene.delays())).toBeLessThanOrEqual(211)
  })
})

describe('A failure of the warehouse', () => {
  it('is returned and counts, whatever it is, unless it is said of the record', async () => {
    await using scene = await startScene()
    const failures: Readonly<Record<string, Reaction | (() => Promise<Reaction>)>> = {
      brokenConnection: 'breaks',
      unavailable,
      pageInsteadOfJson: { status: 200, ...page },
      jsonOfSomethingElse: { status: 200, body: { status: 'ok' } },
      nothing: { status: 204 },
      unauthorized: { status: 401 },
      notFound: { status: 404 },
      tooManyRequests: { status: 429 },
      noAnswer: () => time.hang(timeout),
    }
    const kinds = Object.keys(failures)
    scene.warehouse.react(reactingById(failures))
    const consume = await scene.newInstance({ CIRCUIT_BREAKER_FAILURE_THRESHOLD: `${kinds.length}` })

    expect(await consume(batchOf([...kinds, 'next']))).toEqual([...kinds, 'next'])

    expect(scene.ordered()).toEqual(kinds)
  })

  it('that is a timeout ends the request, too', async () => {
    await using scene = await startScene()
    scene.warehouse.react(() => time.hang(2_000))
    const consume = await scene.newInstance({
      CIRCUIT_BREAKER_FAILURE_THRESHOLD: '1',
      WAREHOUSE_TIMEOUT: '2000',
      CIRCUIT_BREAKER_TIMEOUT: 'false',
      CIRCUIT_BREAKER_TIMEOUT__WAREHOUSE: '60000',
    })

    expect(await consume(batchOf(['1', '2']))).toEqual(['1', '2'])

    await scene.warehouse.givenUp(1)
    expect(scene.ordered()).toEqual(['1'])
  })

  it('concerns only its own records where it passes before the circuit opens', async () => {
    await using scene = await startScene()
    scene.warehouse.react(({ body }) => (['2', '3'].includes(JSON.parse(body).id) ? unavailable : ordered))
    const consume = await scene.newInstance()

    expect(await consume(batchOf(ten))).toEqual(['2', '3'])

    expect(scene.ordered()).toEqual(ten)
    expect(scene.sqs.requests).toHaveLength(0)
  })
})

it('A record that the warehouse is still busy with (409) is returned, which never counts', async () => {
  await using scene = await startScene()
  scene.warehouse.react(({ body }) => (JSON.parse(body).id === '10' ? ordered : { status: 409 }))
  const consume = await scene.newInstance({ CIRCUIT_BREAKER_FAILURE_THRESHOLD: '1' })

  expect(await consume(batchOf(ten))).toEqual(ten.slice(0, 9))

  expect(scene.ordered()).toEqual(ten)
  expect(scene.sqs.requests).toHaveLength(0)
})

describe('A record that is bad', () => {
  it('is moved to the dead-letter queue with all that it carries, is not returned, and never counts', async () => {
    await using scene = await startScene()
    scene.warehouse.react(({ body }) => (JSON.parse(body).id === '10' ? ordered : rejected))
    const consume = await scene.newInstance({ CIRCUIT_BREAKER_FAILURE_THRESHOLD: '1' })
    const [first, ...others] = batchOf(ten)
    const messageAttributes: SQSRecord['messageAttributes'] = {
      source: { dataType: 'String', stringValue: 'shop' },
      seal: { dataType: 'Binary', binaryValue: Buffer.from([1, 2]).toString('base64') },
    }

    expect(await consume([{ ...(first as SQSRecord), messageAttributes }, ...others])).toEqual([])

    expect(scene.ordered()).toEqual(ten)
    expect(sqsCalls(scene.sqs)).toHaveLength(9)
    expect(sqsCalls(scene.sqs)[0]).toEqual([
      'SendMessage',
      {
        QueueUrl: scene.deadLetterQueueUrl,
        MessageBody: '{"id":"1","article":"lamp"}',
        MessageAttributes: {
          source: { DataType: 'String', StringValue: 'shop' },
          seal: { DataType: 'Binary', BinaryValue: 'AQI=' },
        },
      },
    ])
  })

  it('is moved there without a request where it is no shipment', async () => {
    await using scene = await startScene()
    const consume = await scene.newInstance()
    const bodies = ['{', 'null', '[]', '"text"', '{}', '{"id":7}', '{"id":"line\\nbreak"}', '<xml/>']
    const records = batchOf(bodies.map((_, index) => String(index)))

    expect(await consume(records.map((record, index) => ({ ...record, body: bodies[index] ?? '' })))).toEqual([])

    expect(scene.warehouse.requests).toHaveLength(0)
    expect(sqsCalls(scene.sqs).map(([action, { MessageBody }]) => [action, MessageBody])).toEqual(
      bodies.map((body) => ['SendMessage', body]),
    )
  })

  it('is returned, for the redrive policy, where it cannot be moved', async () => {
    await using scene = await startScene()
    scene.warehouse.react(({ body }) => (JSON.parse(body).id === '2' ? rejected : ordered))
    scene.sqs.react({ status: 400, body: { __type: 'com.amazonaws.sqs#QueueDoesNotExist', message: 'No such queue.' } })
    const consume = await scene.newInstance()

    expect(await consume(batchOf(['1', '2', '3']))).toEqual(['2'])

    expect(scene.ordered()).toEqual(['1', '2', '3'])
  })
})

describe('A FIFO queue', () => {
  it('gets back what comes after a failure in its group, in order, while other groups go on', async () => {
    await using scene = await startScene()
    scene.warehouse.react(({ body }) => (JSON.parse(body).id === 'a1' ? unavailable : ordered))
    const consume = await scene.newInstance()

    expect(await consume(fifoBatchOf(['a1', 'b1', 'a2', 'b2', 'a3']))).toEqual(['a1', 'a2', 'a3'])

    expect(scene.ordered()).toEqual(['a1', 'b1', 'b2'])
  })

  it('gets back everything in order when the circuit opens', async () => {
    await using scene = await startScene()
    scene.warehouse.react(unavailable)
    const consume = await scene.newInstance()
    const ids = ['a1', 'b1', 'a2', 'c1', 'd1', 'a3', 'b2']

    expect(await consume(fifoBatchOf(ids))).toEqual(ids)

    expect(scene.ordered()).toEqual(['a1', 'b1', 'c1'])
    expect(new Set(scene.delays()).size).toBe(1)
    expect(scene.delays()).toHaveLength(ids.length)
  })

  it('goes on behind a bad record, which goes to the dead-letter queue in its group', async () => {
    await using scene = await startScene()
    scene.warehouse.react(({ body }) => (JSON.parse(body).id === 'a1' ? rejected : ordered))
    const consume = await scene.newInstance()

    expect(await consume(fifoBatchOf(['a1', 'a2']))).toEqual([])

    expect(scene.ordered()).toEqual(['a1', 'a2'])
    expect(sqsCalls(scene.sqs)).toMatchObject([['SendMessage', { MessageGroupId: 'a', MessageDeduplicationId: 'a1' }]])
  })

  it('waits behind a bad record that could not be moved', async () => {
    await using scene = await startScene()
    scene.warehouse.react(rejected)
    scene.sqs.react({ status: 400, body: { __type: 'com.amazonaws.sqs#QueueDoesNotExist', message: 'No such queue.' } })
    const consume = await scene.newInstance()

    expect(await consume(fifoBatchOf(['a1', 'a2']))).toEqual(['a1', 'a2'])
    expect(scene.ordered()).toEqual(['a1'])
  })
})

it('A standard queue goes on behind a failure of the same group: its groups are for fairness, not for order', async () => {
  await using scene = await startScene()
  scene.warehouse.react(({ body }) => (JSON.parse(body).id === 'a1' ? unavailable : ordered))
  const consume = await scene.newInstance()
  const records = fifoBatchOf(['a1', 'a2']).map((record) => ({ ...record, eventSourceARN: queueArn }))

  expect(await consume(records)).toEqual(['a1'])
})

describe('A record for which there is no time', () => {
  it('is returned instead of being cut off, and what was begun is finished', async () => {
    await using scene = await startScene()
    scene.warehouse.react(async () => {
      await time.advance(200)
      return ordered
    })
    const consume = await scene.newInstance({ WAREHOUSE_TIMEOUT: '1000' })
    await consume(batchOf(['warm']))

    // Less the 3 s that are reserved and the second that each may take, half a second is left to begin in.
    const returned = await consume(batchOf(ten), 4_500)

    expect(scene.ordered()).toEqual(['warm', '1', '2', '3'])
    expect(returned).toEqual(ten.slice(3))
    expect(scene.sqs.requests).toHaveLength(0)
  })

  it('is an error where there never is any: the function’s timeout is too short', async () => {
    await using scene = await startScene()
    const consume = await scene.newInstance()

    await expect(consume(batchOf(ten), 3_000)).rejects.toThrow('timeout must be longer than 8000 ms')
    expect(scene.warehouse.requests).toHaveLength(0)
  })
})

it.each(['false', '0', '1.5', '-1', '5s'])('A function whose WAREHOUSE_TIMEOUT is %s does not start', async (time) => {
  await using scene = await startScene()
  await expect(scene.newInstance({ WAREHOUSE_TIMEOUT: time })).rejects.toThrow(
    'WAREHOUSE_TIMEOUT must be a whole number',
  )
})

it('What is logged of a record is its id and what became of it: nothing of what it says, nor of what is said of it', async () => {
  await using scene = await startScene()
  const reactions: Readonly<Record<string, Reaction | (() => Promise<Reaction>)>> = {
    broken: 'breaks',
    slow: () => time.hang(timeout),
    bad: { status: 422, body: { error: 'There is no lamp.' } },
    failed: { status: 500, body: { error: 'Where is the lamp?' } },
  }
  scene.warehouse.react(reactingById(reactions))
  scene.sqs.react({ status: 400, body: { __type: 'com.amazonaws.sqs#QueueDoesNotExist', message: 'No such queue.' } })
  const consume = await scene.newInstance()

  expect(await consume(batchOf([...Object.keys(reactions), 'next']))).toEqual(Object.keys(reactions))

  const logged = jest.mocked(console.warn).mock.calls.map((line) => format(...line))
  for (const id of Object.keys(reactions)) expect(logged.join()).toContain(`messageId: '${id}'`)
  expect(logged.join()).not.toMatch(/lamp|receipt/)
})

const queueArn = 'arn:aws:sqs:eu-central-1:123456789012:shipments'

function batchOf(ids: readonly string[]): SQSRecord[] {
  return ids.map((id) => ({
    messageId: id,
    receiptHandle: `receipt-${id}`,
    body: JSON.stringify({ id, article: 'lamp' }),
    attributes: {
      ApproximateReceiveCount: '1',
      SentTimestamp: '1767225600000',
      SenderId: 'AIDAEXAMPLE',
      ApproximateFirstReceiveTimestamp: '1767225600001',
    },
    messageAttributes: {},
    md5OfBody: '',
    eventSource: 'aws:sqs',
    eventSourceARN: queueArn,
    awsRegion: 'eu-central-1',
  }))
}

/** A warehouse that is well but for these shipments. */
function reactingById(reactions: Readonly<Record<string, Reaction | (() => Promise<Reaction>)>>) {
  return async ({ body }: ProviderRequest): Promise<Reaction> => {
    const reaction = reactions[JSON.parse(body).id] ?? ordered
    return typeof reaction === 'function' ? reaction() : reaction
  }
}

/** The group of a record is the first letter of its id. */
function fifoBatchOf(ids: readonly string[]): SQSRecord[] {
  return batchOf(ids).map((record) => ({
    ...record,
    attributes: { ...record.attributes, MessageGroupId: record.messageId.charAt(0) },
    eventSourceARN: `${queueArn}.fifo`,
  }))
}

/** A warehouse that is well, SQS, and a circuit that nothing has happened to. */
async function startScene() {
  await using started = new AsyncDisposableStack()
  const warehouse = started.use(await startProvider(ordered))
  const sqs = started.use(await startProvider(answerAsSqs))
  const servers = started.move()
  const queueUrl = `${sqs.url}/123456789012/shipments`
  const deadLetterQueueUrl = `${queueUrl}-dead`
  const namespace = randomUUID()

  /** Resolves to what takes a batch and returns the ids that go back to the queue. */
  const newInstance = async (variables: Readonly<Record<string, string>> = {}) => {
    const { handler } = await coldStart(() => import('../../examples/sqs-consumer/handler.ts'), {
      ...dynamoDB.variables,
      ...patientVariables,
      AWS_ENDPOINT_URL_SQS: sqs.url,
      WAREHOUSE_URL: warehouse.url,
      SHIPMENTS_QUEUE_URL: queueUrl,
      SHIPMENTS_DEAD_LETTER_QUEUE_URL: deadLetterQueueUrl,
      CIRCUIT_BREAKER_TABLE_NAME: dynamoDB.tableName,
      CIRCUIT_BREAKER_NAMESPACE: namespace,
      ...variables,
    })
    return async (records: SQSRecord[], remainingTime = 60_000): Promise<string[]> => {
      const event: SQSEvent = { Records: records }
      const { batchItemFailures } = await handler(event, createTestContext({ remainingTime }))
      return batchItemFailures.map(({ itemIdentifier }) => itemIdentifier)
    }
  }

  return {
    warehouse,
    sqs,
    queueUrl,
    deadLetterQueueUrl,
    newInstance,
    /** The ids of the shipments that the warehouse was asked for. */
    ordered: () => warehouse.requests.map(({ body }): string => JSON.parse(body).id),
    /** For how many seconds records were postponed, one for each. */
    delays: () =>
      sqsCalls(sqs).flatMap(([, { Entries }]) =>
        (Entries as { VisibilityTimeout: number }[]).map(({ VisibilityTimeout }) => VisibilityTimeout),
      ),
    [Symbol.asyncDispose]: () => servers.disposeAsync(),
  }
}
