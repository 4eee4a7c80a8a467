import type { SQSRecord } from 'aws-lambda'

/** A webhook that is to be delivered. */
export interface Delivery {
  /** By which the customer recognises a delivery that comes twice. */
  readonly id: string
  readonly url: string
  /** The host, with its port: the key of its circuit. */
  readonly host: string
  readonly payload: unknown
}

/** The delivery in a record; `undefined`: there is none, or its address is none. */
export function deliveryOf({ body }: Pick<SQSRecord, 'body'>): Delivery | undefined {
  try {
    const { id, url, payload } = JSON.parse(body)
    const { protocol, host } = new URL(url)
    const isAddress = (protocol === 'https:' || protocol === 'http:') && host !== ''
    return typeof id === 'string' && isAddress ? { id, url, host, payload } : undefined
  } catch {
    return undefined
  }
}

/** Sends a webhook. Its answer is read to the end, so that the connection can be used again. */
export async function deliver({ id, url, payload }: Delivery, signal: AbortSignal): Promise<{ status: number }> {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'webhook-id': id },
    body: JSON.stringify(payload),
    // Where a customer's host leads to is for the customer to enter.
    redirect: 'manual',
    signal,
  })
  await response.arrayBuffer()
  return { status: response.status }
}
