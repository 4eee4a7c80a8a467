/**
 * Reads a payment from an event and says everything that is wrong with it at once. It names fields and never values:
 * what was sent in the wrong field may be a card number.
 *
 * @module
 */

import type { APIGatewayProxyEventV2 } from 'aws-lambda'

export interface PaymentRequest {
  readonly idempotencyKey: string
  /** In the smallest unit of the currency. */
  readonly amount: number
  readonly currency: string
  readonly paymentMethod: string
  readonly customer: string | undefined
}

/** The payment, or one sentence for each thing that is wrong. */
export function readPaymentRequest(event: APIGatewayProxyEventV2): PaymentRequest | { readonly problems: string[] } {
  const idempotencyKey = event.headers['idempotency-key']
  const body = bodyOf(event)
  const { amount, currency, paymentMethod, customer, ...others } = body ?? {}
  const unknown = Object.keys(others)
  if (
    body !== undefined &&
    isKey(idempotencyKey) &&
    isAmount(amount) &&
    isCurrency(currency) &&
    isPaymentMethod(paymentMethod) &&
    (customer === undefined || isCustomer(customer)) &&
    unknown.length === 0
  ) {
    return { idempotencyKey, amount, currency, paymentMethod, customer }
  }

  const problems: string[] = []
  // A key made here, of the request id for instance, would be a new one when the client asks again, and so a second payment.
  if (!isKey(idempotencyKey)) {
    const allowed = 'one for each payment and the same for each repetition, 1 to 255 letters, digits and any of _ - . :'
    problems.push(`The header Idempotency-Key must be ${allowed}, but ${found(idempotencyKey)}.`)
  }
  if (body === undefined) return { problems: [...problems, 'The body must be a JSON object.'] }
  if (!isAmount(amount)) {
    const allowed = 'a whole number from 1 to 99999999, in the smallest unit of the currency (1999 for 19.99 EUR)'
    problems.push(`amount must be ${allowed}, but ${found(amount)}.`)
  }
  if (!isCurrency(currency)) {
    problems.push(`currency must be three lower-case letters such as "eur", but ${found(currency)}.`)
  }
  if (!isPaymentMethod(paymentMethod)) {
    problems.push(`paymentMethod must be the id of a Stripe payment method (pm_…), but ${found(paymentMethod)}.`)
  }
  if (customer !== undefined && !isCustomer(customer)) {
    problems.push(`customer must be the id of a Stripe customer (cus_…) or left out, but ${found(customer)}.`)
  }
  for (const name of unknown) {
    const shown = /^[a-z_]{1,40}$/i.test(name) ? name : 'A field'
    problems.push(`${shown} is unknown; allowed are amount, currency, paymentMethod and customer.`)
  }
  return { problems }
}

const isKey = (value: unknown): value is string => typeof value === 'string' && /^[\w.:-]{1,255}$/.test(value)

const isAmount = (value: unknown): value is number =>
  typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= 99_999_999

const isCurrency = (value: unknown): value is string => typeof value === 'string' && /^[a-z]{3}$/.test(value)

const isPaymentMethod = (value: unknown): value is string => typeof value === 'string' && /^pm_\w{1,250}$/.test(value)

const isCustomer = (value: unknown): value is string => typeof value === 'string' && /^cus_\w{1,250}$/.test(value)

function found(value: unknown): string {
  if (value === undefined) return 'is missing'
  if (value === null) return 'is null'
  if (Array.isArray(value)) return 'is a list'
  return typeof value === 'object' ? 'is an object' : `is another ${typeof value}`
}

function bodyOf({ body = '', isBase64Encoded }: APIGatewayProxyEventV2): Record<string, unknown> | undefined {
  try {
    const parsed: unknown = JSON.parse(isBase64Encoded ? Buffer.from(body, 'base64').toString() : body)
    return isObject(parsed) ? parsed : undefined
  } catch {
    return undefined
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
