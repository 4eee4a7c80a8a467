/**
 * The same function without a circuit breaker: a time limit and a fallback, as many functions have them.
 *
 * @module
 */

import type { Answer, Payment } from './handler.ts'
import { settings } from './scenario.ts'

const { PAYMENTS_URL = '', DEMO_FLEET = '' } = process.env
const number = Number(new URL(import.meta.url).searchParams.get('instance'))

export const handler = async (payment: Payment): Promise<Answer> => {
  try {
    const response = await fetch(PAYMENTS_URL, {
      method: 'POST',
      signal: AbortSignal.timeout(settings.timeout),
      headers: { 'x-instance': `${DEMO_FLEET}-${number}`, 'x-sent-at': String(Date.now()) },
      body: JSON.stringify(payment),
    })
    await response.text()
    return response.ok ? { statusCode: 200 } : { statusCode: 202, reason: `HTTP ${response.status}` }
  } catch (error) {
    const { cause, name } = error as { cause?: { code?: string }; name: string }
    return { statusCode: 202, reason: cause?.code ?? name }
  }
}
