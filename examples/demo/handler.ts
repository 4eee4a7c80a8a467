/**
 * The Lambda function: what a user of the package writes. Where the state is kept is said by the environment.
 *
 * Each instance loads this module anew, `handler.ts?instance=7`, as Lambda does, and shares nothing with the others.
 *
 * @module
 */

import middy from '@middy/core'
import { circuitBreaker, isBreakableResultError, isCircuitOpenError, isCircuitTimeoutError } from '../../src/index.ts'
import { tell } from './messages.ts'
import { settings } from './scenario.ts'

export interface Payment {
  readonly amount: number
}

export interface Answer {
  readonly statusCode: 200 | 202
  /** Why the payment was only queued. */
  readonly reason?: string
}

const { PAYMENTS_URL = '', DEMO_FLEET = '' } = process.env
const number = Number(new URL(import.meta.url).searchParams.get('instance'))

export const handler = middy<Payment, Answer>()
  .use(
    circuitBreaker({
      services: ['payments'],
      ...settings,
      onStateChange: (change) => tell({ type: 'change', number, change, reportedAt: Date.now() }),
      onStorageError: ({ error }) => tell({ type: 'storageError', number, at: Date.now(), message: error.message }),
    }),
  )
  .handler(async (payment, { callExternal, circuits }) => {
    const charge = async ({ signal }: { signal: AbortSignal }) => {
      // Only for the service's statistics: which circuit let this request pass.
      const { state, generation } = circuits.payments
      const response = await fetch(PAYMENTS_URL, {
        method: 'POST',
        signal,
        headers: {
          'x-instance': `${DEMO_FLEET}-${number}`,
          'x-circuit-state': state,
          'x-circuit-generation': String(generation),
          'x-sent-at': String(Date.now()),
        },
        body: JSON.stringify(payment),
      })
      return { status: response.status, body: await response.text() }
    }
    const queue = (error: unknown): Answer => ({ statusCode: 202, reason: reasonOf(error) })

    const charged = await callExternal('payments', charge, { fallback: queue })
    return 'statusCode' in charged ? charged : { statusCode: 200 }
  })

function reasonOf(error: unknown): string {
  if (isCircuitOpenError(error)) return 'refused'
  if (isCircuitTimeoutError(error)) return 'timeout'
  if (isBreakableResultError(error)) return `HTTP ${(error.result as { status: number }).status}`
  const { cause, name } = error as { cause?: { code?: string }; name: string }
  return cause?.code ?? name
}
