/**
 * The locations of addresses that were looked up, in the table that also holds the circuits: one item for each address.
 *
 * The cache saves requests to the provider and helps in its outages. It never causes an outage: nothing in here throws, or
 * takes longer than {@link patience}.
 *
 * @module
 */

import { DynamoDBClient, GetItemCommand, PutItemCommand } from '@aws-sdk/client-dynamodb'
import { marshall, unmarshall } from '@aws-sdk/util-dynamodb'

export interface Location {
  /** Two letters: ISO 3166-1. */
  readonly country: string
  readonly region?: string
  readonly city?: string
  /** For instance `Europe/Berlin`. */
  readonly timezone?: string
}

/** A location as it was at `lookedUpAt`, in milliseconds since the epoch. */
export interface RememberedLocation {
  readonly location: Location
  readonly lookedUpAt: number
  /** Whether it may be used without asking the provider again. */
  readonly isFresh: boolean
}

/** The longest that the cache may delay an answer, in milliseconds. */
const patience = 500

/** For how long a location is used without asking the provider again, in milliseconds. */
const freshFor = 24 * 60 * 60 * 1_000

/** For how long a location is kept for outages, in milliseconds. Addresses move to other people, and are personal data. */
const keptFor = 30 * 24 * 60 * 60 * 1_000

// One retry, for a connection that died while Lambda had frozen the process.
const client = new DynamoDBClient({ maxAttempts: 2 })
const { CIRCUIT_BREAKER_TABLE_NAME: TableName } = process.env

/** Writes a location down. */
export async function remember(ip: string, location: Location): Promise<void> {
  const now = Date.now()
  // The circuits' attribute for the time to live, in seconds: a table has only one.
  const ttl = Math.ceil((now + keptFor) / 1_000)
  const Item = marshall({ ...keyOf(ip), location, lookedUpAt: now, ttl }, { removeUndefinedValues: true })
  try {
    await client.send(new PutItemCommand({ TableName, Item }), { abortSignal: AbortSignal.timeout(patience) })
  } catch (error) {
    report('The location could not be cached.', error)
  }
}

/** Reads the location that was written down. `undefined`: there is none, or the table does not answer. */
export async function recall(ip: string): Promise<RememberedLocation | undefined> {
  try {
    const { Item } = await client.send(new GetItemCommand({ TableName, Key: marshall(keyOf(ip)) }), {
      abortSignal: AbortSignal.timeout(patience),
    })
    if (Item === undefined) return undefined
    const { location, lookedUpAt, ttl } = unmarshall(Item) as Omit<RememberedLocation, 'isFresh'> & {
      readonly ttl: number
    }
    const now = Date.now()
    // DynamoDB deletes expired items late.
    return ttl * 1_000 > now ? { location, lookedUpAt, isFresh: now - lookedUpAt < freshFor } : undefined
  } catch (error) {
    report('The cached location could not be read.', error)
    return undefined
  }
}

function keyOf(ip: string): { readonly PK: string; readonly SK: string } {
  return { PK: `LOCATION#${ip}`, SK: 'LOCATION' }
}

function report(message: string, error: unknown): void {
  console.warn(JSON.stringify({ message, error: error instanceof Error ? error.name : String(error) }))
}
