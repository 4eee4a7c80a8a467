/**
 * The journal of circuits in a DynamoDB table, and the list of circuits. It is loaded when it is first used.
 *
 * A table with a sort key has an item for each entry beside the record: the same partition key, and the sort key
 * `EVENT#{time}#{id}`. It also has an index: one item for each circuit that has an entry, under the partition key `CIRCUIT#`
 * and the sort key `INDEX#{stored key}`, so that circuits are listed by a query and not by a scan of the application's table.
 * Both kinds of item expire after 30 days; that of a circuit under an override without an end does not.
 *
 * A table without a sort key has one item for each circuit, `CIRCUIT#{stored key}##EVENTS`, with the last 50 entries. In a
 * stored key only a namespace is ever empty, which comes first, so that no circuit is kept there. Its circuits are listed by a scan.
 *
 * The storage hands over what it shares with this file, so that the storage itself stays one file in a bundle.
 *
 * @module
 */

import type { AttributeValue, QueryCommandInput, UpdateItemCommandInput } from '@aws-sdk/client-dynamodb'
import type { CircuitPage, JournalEntry, JournalQuery, ListQuery } from '../contract.ts'
import type { Connection, Sdk } from './client.ts'
import type { Table } from './options.ts'

type Item = Record<string, AttributeValue>

/** The partition keys of circuits begin with it, and that of the index is nothing else. */
const partition = 'CIRCUIT#'
const event = 'EVENT#'
const index = 'INDEX#'
/** Follows the stored key in the partition key of a journal, in a table without a sort key. */
const journal = '##EVENTS'

/** How long an entry is kept, in milliseconds: 30 days. */
const retention = 2_592_000_000
/** The entries of a circuit in a table without a sort key, the latest one first. */
const slots = Array.from({ length: 50 }, (_, slot) => `event${slot}`)
/** A listing reads no more pages of a megabyte than this at once. */
const maxScans = 10

/** Adds an entry. */
export async function appendEvent(
  connection: Connection,
  table: Table,
  serviceKey: string,
  entry: JournalEntry,
): Promise<void> {
  const { client, sdk } = connection
  const updates =
    table.sortKeyName === null
      ? [slotUpdate(sdk, table, serviceKey, entry)]
      : eventUpdates(sdk, table, serviceKey, entry)
  await Promise.all(updates.map((update) => client.send(new sdk.UpdateItemCommand(update))))
}

/** The entry is an item of its own. The index learns of its circuit. */
function eventUpdates(sdk: Sdk, table: Table, serviceKey: string, entry: JournalEntry): UpdateItemCommandInput[] {
  const { ttlAttributeName } = table
  const { at, id } = entry
  const ttl = expiryAfter(entry)
  const isForcedForEver = entry.reason.startsWith('forced') && entry.until === undefined
  return [
    {
      TableName: table.tableName,
      Key: keyOf(table, `${partition}${serviceKey}`, sortKeyOf(at, id)),
      UpdateExpression: 'SET #event = :event, #ttl = :ttl',
      ExpressionAttributeNames: { '#event': 'event', '#ttl': ttlAttributeName },
      ExpressionAttributeValues: { ':event': encode(sdk, entry), ':ttl': ttl },
    },
    {
      TableName: table.tableName,
      Key: keyOf(table, partition, `${index}${serviceKey}`),
      UpdateExpression: isForcedForEver ? 'SET #at = :at REMOVE #ttl' : 'SET #at = :at, #ttl = :ttl',
      ExpressionAttributeNames: { '#at': 'eventAt', '#ttl': ttlAttributeName },
      ExpressionAttributeValues: { ':at': { N: String(at) }, ...(isForcedForEver ? {} : { ':ttl': ttl }) },
    },
  ]
}

/** Every entry moves on by one slot, and the oldest falls out. The right-hand sides are the values before the update. */
function slotUpdate(sdk: Sdk, table: Table, serviceKey: string, entry: JournalEntry): UpdateItemCommandInput {
  const moves = slots.slice(1).map((slot, before) => `${slot} = if_not_exists(${slots[before]}, :none)`)
  return {
    TableName: table.tableName,
    Key: keyOf(table, `${partition}${serviceKey}${journal}`),
    UpdateExpression: `SET #ttl = :ttl, ${slots[0]} = :event, ${moves.join(', ')}`,
    ExpressionAttributeNames: { '#ttl': table.ttlAttributeName },
    ExpressionAttributeValues: {
      ':event': encode(sdk, entry),
      ':ttl': expiryAfter(entry),
      ':none': { NULL: true } as const,
    },
  }
}

/** Reads the latest entries. */
export async function readEvents(
  { client, sdk }: Connection,
  table: Table,
  serviceKey: string,
  { since = 0, limit = 50 }: JournalQuery,
): Promise<JournalEntry[]> {
  const { tableName: TableName, partitionKeyName, sortKeyName } = table
  if (sortKeyName === null) {
    const Key = keyOf(table, `${partition}${serviceKey}${journal}`)
    const { Item: item = {} } = await client.send(new sdk.GetItemCommand({ TableName, Key, ConsistentRead: true }))
    return slots
      .flatMap((slot) => decode(sdk, item[slot]))
      .filter(({ at }) => at >= since)
      .slice(0, limit)
  }
  const entries: JournalEntry[] = []
  let ExclusiveStartKey: Item | undefined
  do {
    const { Items = [], LastEvaluatedKey } = await client.send(
      new sdk.QueryCommand({
        TableName,
        ConsistentRead: true,
        ScanIndexForward: false,
        Limit: limit - entries.length,
        KeyConditionExpression: '#pk = :pk AND #sk BETWEEN :first AND :last',
        ExpressionAttributeNames: { '#pk': partitionKeyName, '#sk': sortKeyName },
        ExpressionAttributeValues: {
          ':pk': { S: `${partition}${serviceKey}` },
          ':first': { S: sortKeyOf(since, '') },
          // Beyond every time.
          ':last': { S: `${event}~` },
        },
        ...(ExclusiveStartKey && { ExclusiveStartKey }),
      }),
    )
    entries.push(...Items.flatMap((item) => decode(sdk, item['event'])))
    ExclusiveStartKey = LastEvaluatedKey
  } while (ExclusiveStartKey !== undefined && entries.length < limit)
  return entries
}

/** Lists circuits: by the index, or in a table without a sort key by a scan of at most ten pages. */
export async function listKeys(
  { client, sdk }: Connection,
  table: Table,
  { prefix = '', limit = 1_000, cursor }: ListQuery,
): Promise<CircuitPage> {
  const { tableName: TableName, partitionKeyName, sortKeyName } = table
  const key = sortKeyName ?? partitionKeyName
  const start = (sortKeyName === null ? partition : index) + prefix
  const request = {
    TableName,
    Limit: limit,
    ProjectionExpression: '#key',
    ExpressionAttributeNames: { '#key': key },
    ExpressionAttributeValues: { ':start': { S: start } },
  }
  const startKeyOf = (text: string): Item => (sortKeyName === null ? keyOf(table, text) : keyOf(table, partition, text))
  const keys: string[] = []
  let next = cursor
  for (let page = 0; page < maxScans; page++) {
    const from = next === undefined ? {} : { ExclusiveStartKey: startKeyOf(next) }
    const { Items = [], LastEvaluatedKey } = await (sortKeyName === null
      ? client.send(
          new sdk.ScanCommand({
            ...request,
            ...from,
            Limit: Math.max(limit, 1_000),
            FilterExpression: 'begins_with(#key, :start)',
          }),
        )
      : client.send(
          new sdk.QueryCommand({
            ...request,
            ...from,
            KeyConditionExpression: '#pk = :pk AND begins_with(#key, :start)',
            ExpressionAttributeNames: { '#key': key, '#pk': partitionKeyName },
            ExpressionAttributeValues: { ...request.ExpressionAttributeValues, ':pk': { S: partition } },
          }),
        ))
    for (const item of Items) keys.push(String(item[key]?.S).slice(start.length - prefix.length))
    next = LastEvaluatedKey?.[key]?.S
    if (next === undefined || keys.length >= limit) break
  }
  const circuits = keys.map((each) =>
    sortKeyName === null && each.endsWith(journal) ? each.slice(0, -journal.length) : each,
  )
  return { keys: [...new Set(circuits)], ...(next === undefined ? {} : { cursor: next }) }
}

/** The requests with which a check finds out whether entries may be written. Their conditions cannot hold. */
export function trials(table: Table, serviceKey: string, never: string): UpdateItemCommandInput[] {
  const { tableName: TableName, sortKeyName } = table
  const [own, other] = [`${partition}${serviceKey}`, `${index}${serviceKey}`]
  const keys =
    sortKeyName === null
      ? [keyOf(table, own + journal)]
      : [keyOf(table, own, sortKeyOf(0, never)), keyOf(table, partition, other)]
  const expressions = { UpdateExpression: 'REMOVE #never', ConditionExpression: 'attribute_exists(#never)' }
  return keys.map((Key) => ({ TableName, Key, ...expressions, ExpressionAttributeNames: { '#never': never } }))
}

/** The query with which a check finds out whether circuits may be listed. */
export function listing({ tableName: TableName, partitionKeyName }: Table): QueryCommandInput {
  return {
    TableName,
    Limit: 1,
    KeyConditionExpression: '#pk = :pk',
    ExpressionAttributeNames: { '#pk': partitionKeyName },
    ExpressionAttributeValues: { ':pk': { S: partition } },
  }
}

function keyOf({ partitionKeyName, sortKeyName }: Table, partitionKey: string, sortKey = ''): Item {
  const key: Item = { [partitionKeyName]: { S: partitionKey } }
  if (sortKeyName !== null) key[sortKeyName] = { S: sortKey }
  return key
}

/** Times in this form are in their order as text. */
function sortKeyOf(at: number, id: string): string {
  return `${event}${new Date(at).toISOString()}#${id}`
}

function expiryAfter({ at }: JournalEntry): AttributeValue.NMember {
  return { N: String(Math.ceil((at + retention) / 1_000)) }
}

function encode({ marshall }: Sdk, entry: JournalEntry): AttributeValue.MMember {
  return { M: marshall(entry, { removeUndefinedValues: true }) }
}

/** The entry in an attribute; none where there is no map, or one that cannot be decoded. */
function decode({ unmarshall }: Sdk, attribute: AttributeValue | undefined): JournalEntry[] {
  try {
    return attribute?.M === undefined ? [] : [unmarshall(attribute.M) as JournalEntry]
  } catch {
    return []
  }
}
