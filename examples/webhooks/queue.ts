import { SendMessageCommand, SQSClient } from '@aws-sdk/client-sqs'
import type { Delivery } from './delivery.ts'
import { required } from './environment.ts'

const waitingQueueUrl = required('WAITING_QUEUE_URL')

// Outside of any circuit, so with the SDK's own retries.
const sqs = new SQSClient()

/** The longest that a request may take, in milliseconds. */
const longestRequest = 1_500
/** Over how much time, in milliseconds, what many instances move is spread: only one is to be the probe. */
const spread = 10_000
/** The longest delay of SQS, in seconds. What comes back too early is moved again. */
const longestDelay = 900

/** Moves a delivery to the second queue, for at least so many milliseconds. It is done with only when this has not thrown. */
export async function moveToWaiting({ id, url, payload }: Delivery, delay: number): Promise<void> {
  const message = new SendMessageCommand({
    QueueUrl: waitingQueueUrl,
    MessageBody: JSON.stringify({ id, url, payload }),
    DelaySeconds: Math.min(Math.ceil((delay + Math.random() * spread) / 1_000), longestDelay),
  })
  await sqs.send(message, { abortSignal: AbortSignal.timeout(longestRequest) })
}
