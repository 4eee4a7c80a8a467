import {
  ChangeMessageVisibilityBatchCommand,
  type MessageAttributeValue,
  SendMessageCommand,
  SQSClient,
} from '@aws-sdk/client-sqs'
import type { SQSMessageAttribute, SQSRecord } from 'aws-lambda'
import { required } from './environment.ts'

const queueUrl = required('SHIPMENTS_QUEUE_URL')
const deadLetterQueueUrl = required('SHIPMENTS_DEAD_LETTER_QUEUE_URL')

// Outside of the circuit, so with the SDK's own retries.
const sqs = new SQSClient()

/** The longest that either of these may take, in milliseconds: they happen in the time that is reserved. */
const longestRequest = 1_500
/** Over how much time, in milliseconds, the batches that many instances postpone are spread: only one is to be the probe. */
const spread = 10_000
/** In seconds. An operator may have forced the circuit open until tomorrow, and change their mind. */
const longestDelay = 900

/** The part of a queue in which order counts, if it does: a group of a FIFO queue. In standard queues groups are for fairness. */
export function orderedGroupOf({ eventSourceARN, attributes }: SQSRecord): string | undefined {
  return eventSourceARN.endsWith('.fifo') ? attributes.MessageGroupId : undefined
}

/**
 * Lets records that are returned come back together after `delay` milliseconds or a little later. Where that fails, they
 * come back after the queue's own visibility timeout.
 */
export async function postpone(records: readonly SQSRecord[], delay: number): Promise<void> {
  const VisibilityTimeout = Math.min(Math.ceil((delay + Math.random() * spread) / 1_000), longestDelay)
  const entries = records.map(({ receiptHandle }, index) => ({
    Id: String(index),
    ReceiptHandle: receiptHandle,
    VisibilityTimeout,
  }))
  const abortSignal = AbortSignal.timeout(longestRequest)
  try {
    for (let first = 0; first < entries.length; first += 10) {
      const batch = { QueueUrl: queueUrl, Entries: entries.slice(first, first + 10) }
      const { Failed = [] } = await sqs.send(new ChangeMessageVisibilityBatchCommand(batch), { abortSignal })
      if (Failed.length > 0) console.warn({ notPostponed: Failed })
    }
  } catch (error) {
    console.warn('The records could not be postponed.', error)
  }
}

/** Moves a record to the dead-letter queue as it is. It is done with only when this has not thrown. */
export async function putAside(record: SQSRecord): Promise<void> {
  const group = orderedGroupOf(record)
  const message = new SendMessageCommand({
    QueueUrl: deadLetterQueueUrl,
    MessageBody: record.body,
    MessageAttributes: attributesOf(record.messageAttributes),
    ...(group !== undefined && { MessageGroupId: group, MessageDeduplicationId: record.messageId }),
  })
  await sqs.send(message, { abortSignal: AbortSignal.timeout(longestRequest) })
}

function attributesOf(given: Readonly<Record<string, SQSMessageAttribute>>): Record<string, MessageAttributeValue> {
  const attributes: Record<string, MessageAttributeValue> = {}
  for (const [name, { dataType, stringValue, binaryValue }] of Object.entries(given)) {
    const BinaryValue = binaryValue && Buffer.from(binaryValue, 'base64')
    attributes[name] = { DataType: dataType, ...(BinaryValue ? { BinaryValue } : { StringValue: stringValue }) }
  }
  return attributes
}
