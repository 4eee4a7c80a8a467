/**
 * Sends an e-mail with Resend. While Resend is down, the e-mail waits in a queue.
 *
 * Variables: `EMAIL_FROM`, `EMAIL_QUEUE_URL`, `RESEND_API_KEY`, `CIRCUIT_BREAKER_TABLE_NAME`.
 *
 * @module
 */

import { SendMessageCommand, SQSClient } from '@aws-sdk/client-sqs'
import middy from '@middy/core'
import { circuitBreaker, hasStatus } from 'middy-circuit-breaker'
import { Resend } from 'resend'
import type { Email } from './email.ts'
import { required } from './environment.ts'

const resend = new Resend(required('RESEND_API_KEY'))
const sqs = new SQSClient()
const from = required('EMAIL_FROM')
const QueueUrl = required('EMAIL_QUEUE_URL')

export const handler = middy<Email, { readonly status: 'sent' | 'queued' | 'refused' }>()
  .use(circuitBreaker({ services: ['resend'], timeout: 3_000, deadlineReserve: 3_000 }))
  .handler(async (email, { callExternal }) => {
    const { id, to, subject, text } = email
    const send = ({ signal }: { signal: AbortSignal }) =>
      resend.emails.send({ from, to, subject, text }, { idempotencyKey: id, signal })
    const sent = await callExternal('resend', send, {
      // Resend returns its errors. These four blame the message, and say nothing about Resend.
      isBreakableResult: ({ error }) => error !== null && !hasStatus(error, 400, 409, 413, 422),
      fallback: () => undefined,
    })
    if (sent !== undefined) return { status: sent.error === null ? 'sent' : 'refused' }
    await sqs.send(new SendMessageCommand({ QueueUrl, MessageBody: JSON.stringify(email) }))
    return { status: 'queued' }
  })
