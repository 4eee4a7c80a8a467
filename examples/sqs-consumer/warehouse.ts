import type { SQSRecord } from 'aws-lambda'
import { required } from './environment.ts'

const url = required('WAREHOUSE_URL')

/** What a record has to say at least; the warehouse reads the rest. */
export interface Shipment {
  readonly id: string
  readonly json: string
}

export interface Answer {
  readonly status: number
  /** So that the circuit can hear a `Retry-After`. */
  readonly headers: Headers
  readonly body: string
}

/** `undefined`: the record is no shipment. */
export function shipmentOf({ body }: SQSRecord): Shipment | undefined {
  const id = propertyOf(body, 'id')
  return typeof id === 'string' && /^[\w-]{1,64}$/.test(id) ? { id, json: body } : undefined
}

/** A record can come more than once, so the warehouse is told which shipment it is. */
export async function orderShipment({ id, json }: Shipment, signal: AbortSignal): Promise<Answer> {
  const headers = { 'content-type': 'application/json', 'idempotency-key': id }
  const response = await fetch(`${url}/shipments`, { method: 'POST', signal, headers, body: json })
  return { status: response.status, headers: response.headers, body: await response.text() }
}

/**
 * What an answer means for the record: `ordered`; `rejected` because of what it says; `busy`, a 409, while the warehouse
 * still works on an earlier request for the same shipment; or `failed` for a reason that has nothing to do with it. A
 * failure is also a 401 or a 429, and a 200 without what the warehouse answers: some proxy's page.
 */
export function outcomeOf({ status, body }: Answer): 'ordered' | 'rejected' | 'busy' | 'failed' {
  if ([400, 413, 422].includes(status)) return 'rejected'
  if (status === 409) return 'busy'
  const isSuccess = status >= 200 && status <= 299
  return isSuccess && typeof propertyOf(body, 'trackingNumber') === 'string' ? 'ordered' : 'failed'
}

function propertyOf(json: string, name: string): unknown {
  try {
    return JSON.parse(json)?.[name]
  } catch {
    return undefined
  }
}
