import { createHash } from 'node:crypto'
import type { Provider, ProviderAnswer, ProviderRequest } from './provider.ts'

/**
 * Answers as SQS does (its JSON protocol), for `startProvider`: accepts every message, whose checksum the SDK compares, and
 * changes every visibility timeout.
 *
 * @example
 * await using sqs = await startProvider(answerAsSqs)
 */
export function answerAsSqs(request: ProviderRequest): ProviderAnswer {
  const input = JSON.parse(request.body)
  switch (actionOf(request)) {
    case 'SendMessage':
      return {
        body: { MessageId: 'sent', MD5OfMessageBody: createHash('md5').update(input.MessageBody).digest('hex') },
      }
    case 'ChangeMessageVisibilityBatch':
      return { body: { Successful: input.Entries.map(({ Id }: { Id: string }) => ({ Id })), Failed: [] } }
    default:
      return { status: 400, body: { __type: 'com.amazonaws.sqs#UnsupportedOperation', message: actionOf(request) } }
  }
}

/** What SQS was asked to do so far, as `[action, input]`, oldest first. */
export function sqsCalls({ requests }: Pick<Provider, 'requests'>): [action: string, input: Record<string, unknown>][] {
  return requests.map((request) => [actionOf(request), JSON.parse(request.body)])
}

function actionOf({ headers }: ProviderRequest): string {
  return String(headers['x-amz-target']).replace('AmazonSQS.', '')
}
