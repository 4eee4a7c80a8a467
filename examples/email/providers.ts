/**
 * The providers, in the order in which they are tried: what each is sent, how it says yes, and how it says that the
 * message is wrong.
 *
 * @module
 */

import { SESv2Client, SendEmailCommand } from '@aws-sdk/client-sesv2'
import sendgridClient from '@sendgrid/client'
import sendgridMail from '@sendgrid/mail'
import { hasName, hasStatus } from 'middy-circuit-breaker'
import { Resend } from 'resend'
import type { Email } from './email.ts'
import { required } from './environment.ts'

export interface Provider {
  readonly name: 'ses' | 'resend' | 'sendgrid'
  send(email: Email, signal: AbortSignal): Promise<Answer>
  /**
   * Whether a failure says that this message is wrong. Every other is the provider's, or between it and us (a revoked key, a
   * spent quota, a suspended account): the next provider knows nothing of that.
   */
  blamesMessage(failure: unknown): boolean
}

/** What a provider answers. SES and SendGrid throw what Resend returns as `error`. */
export interface Answer {
  /** What it calls the e-mail. Without one it has not accepted it, whatever the status says: a 200 may be some proxy's. */
  readonly id: string | undefined
  readonly error?: unknown
  /** So that the circuit can hear a `Retry-After`. */
  readonly headers?: unknown
}

const from = required('EMAIL_FROM')

// One attempt each: the next attempt is the next provider.
const sesClient = new SESv2Client({ maxAttempts: 1 })

const ses: Provider = {
  name: 'ses',
  async send({ to, subject, text }, signal) {
    const command = new SendEmailCommand({
      FromEmailAddress: from,
      Destination: { ToAddresses: [to] },
      Content: { Simple: { Subject: { Data: subject }, Body: { Text: { Data: text } } } },
    })
    const { MessageId } = await sesClient.send(command, { abortSignal: signal })
    return { id: MessageId }
  },
  // By name: a 400 can also mean that the account is suspended. That our sender is no longer verified, or in SES's sandbox
  // the recipient, is a MessageRejected, too, and only its text tells.
  blamesMessage: (failure) =>
    hasName(failure, 'BadRequestException', 'MessageRejected') && !/not verified/i.test((failure as Error).message),
}

// It reads RESEND_BASE_URL by itself, and tries once.
const resendClient = new Resend(required('RESEND_API_KEY'))

const resend: Provider = {
  name: 'resend',
  async send({ id, to, subject, text }, signal) {
    const options = { idempotencyKey: id, signal }
    const { data, error, headers } = await resendClient.emails.send({ from, to, subject, text }, options)
    return { id: data?.id, error, headers }
  },
  // Where there was no answer, or one that is no JSON, it says so with a status of `null`.
  blamesMessage: (failure) => hasStatus(failure, 400, 409, 413, 422) && !hasName(failure, 'invalid_from_address'),
}

sendgridClient.setApiKey(required('SENDGRID_API_KEY'))
const { SENDGRID_BASE_URL } = process.env
if (SENDGRID_BASE_URL) sendgridClient.setDefaultRequest('baseUrl', SENDGRID_BASE_URL)
sendgridMail.setClient(sendgridClient)
// This SDK takes no signal: when the circuit breaker stops waiting, the request goes on until this ends it.
sendgridMail.setTimeout(10_000)

const sendgrid: Provider = {
  name: 'sendgrid',
  async send({ to, subject, text }) {
    const [{ statusCode, headers }] = await sendgridMail.send({ from, to, subject, text })
    return { id: statusCode === 202 ? headers['x-message-id'] : undefined, headers }
  },
  blamesMessage: (failure) => hasStatus(failure, 400, 413),
}

export const providers: readonly Provider[] = [ses, resend, sendgrid]
