/**
 * What a check of the breaker asks DynamoDB beyond what the storage asks anyway. Nothing in the table changes: what is
 * deleted under a condition has none of its versions, and what is deleted without one has never been stored.
 *
 * The storage hands over what it shares with this file, so that the storage itself stays one file in a bundle.
 *
 * @module
 */

import { randomUUID } from 'node:crypto'
import type { AttributeValue } from '@aws-sdk/client-dynamodb'
import type { Finding, StorageInspection } from '../contract.ts'
import type { Connection } from './client.ts'
import { listing, trials } from './journal.ts'
import type { Table } from './options.ts'

/** @param key the stored key of a circuit */
export async function inspectTable(
  connection: Connection,
  table: Table,
  key: string,
  keyOf: (serviceKey: string) => Record<string, AttributeValue>,
): Promise<StorageInspection> {
  const { tableName: TableName } = table
  const { client, sdk } = connection
  const never = randomUUID()
  const remove = new sdk.DeleteItemCommand({
    TableName,
    Key: keyOf(key),
    ConditionExpression: '#version = :never',
    ExpressionAttributeNames: { '#version': 'version' },
    ExpressionAttributeValues: { ':never': { S: never } },
  })
  const unknownKey = keyOf(`${key}?check-${never}`)
  const removeBatch = new sdk.BatchWriteItemCommand({
    RequestItems: { [TableName]: [{ DeleteRequest: { Key: unknownKey } }] },
  })
  const entries = trials(table, key, `never-${never}`).map((trial) => client.send(new sdk.UpdateItemCommand(trial)))
  const list = table.sortKeyName === null ? [] : [client.send(new sdk.QueryCommand(listing(table)))]
  const [clock, timeToLive, removal, batchRemoval, ...others] = await Promise.allSettled([
    readClock(connection, table, keyOf(key)),
    client.send(new sdk.DescribeTimeToLiveCommand({ TableName })),
    client.send(remove),
    client.send(removeBatch),
    ...entries,
    ...list,
  ])
  const appended = others.slice(0, entries.length)
  const operating = [removal, batchRemoval, others[entries.length]]
  const denied = ['DeleteItem', 'BatchWriteItem', 'Query'].filter((_, index) => isDenied(operating[index]))
  const place = `the DynamoDB table ${JSON.stringify(TableName)}`
  return {
    place,
    clockOffset: clock.status === 'fulfilled' ? clock.value : undefined,
    findings: [
      ...(timeToLive.status === 'fulfilled'
        ? expiryFindings(timeToLive.value.TimeToLiveDescription ?? {}, table)
        : [expiryUnknown(timeToLive.reason, place)]),
      ...(denied.length > 0 ? [cannotOperate(denied, place)] : []),
      ...(appended.some(isDenied) ? [cannotKeepJournal(place)] : []),
    ],
  }
}

/** How far the service's clock is surely ahead of ours, in milliseconds, by the second in which it has answered. */
async function readClock(
  { client, sdk }: Connection,
  { tableName: TableName }: Table,
  Key: Record<string, AttributeValue>,
): Promise<number | undefined> {
  const command = new sdk.GetItemCommand({ TableName, Key })
  let offset: number | undefined
  command.middlewareStack.add(
    (next) => async (args) => {
      const sentAt = Date.now()
      const result = await next(args)
      const arrivedAt = Date.now()
      const { headers } = result.response as { readonly headers?: Readonly<Record<string, string>> }
      const answeredAt = Date.parse(headers?.['date'] ?? '')
      // The header has no milliseconds.
      if (answeredAt > arrivedAt) offset = answeredAt - arrivedAt
      else if (answeredAt + 1_000 < sentAt) offset = answeredAt + 1_000 - sentAt
      else if (!Number.isNaN(answeredAt)) offset = 0
      return result
    },
    { step: 'deserialize', priority: 'low', name: 'circuitBreakerClock' },
  )
  await client.send(command)
  return offset
}

function isDenied(outcome: PromiseSettledResult<unknown> | undefined): boolean {
  return outcome?.status === 'rejected' && nameOf(outcome.reason) === 'AccessDeniedException'
}

function nameOf(error: unknown): string {
  return String((error as Partial<Error> | undefined)?.name)
}

interface TimeToLive {
  readonly TimeToLiveStatus?: string | undefined
  readonly AttributeName?: string | undefined
}

function expiryFindings(
  { TimeToLiveStatus: status, AttributeName: name }: TimeToLive,
  { tableName, ttlAttributeName: ours }: Table,
): Finding[] {
  const isOn = status === 'ENABLED' || status === 'ENABLING'
  if (isOn && name === ours) return []
  const table = `The table ${JSON.stringify(tableName)}`
  const isOther = isOn && name !== undefined
  return [
    {
      code: 'time-to-live',
      severity: 'warning',
      setting: 'ttlAttributeName',
      message: isOther
        ? `${table} deletes items by the attribute ${JSON.stringify(name)}, and circuits have their time to live in ${JSON.stringify(ours)}: their items stay, and every entry of their journals.`
        : `${table} has its time to live turned off: the items of circuits that nobody uses any more stay, and every entry of the journals.`,
      remedy: isOther
        ? `Set ttlAttributeName to ${JSON.stringify(name)}.`
        : `Turn it on for the attribute ${JSON.stringify(ours)}, or set journal: false.`,
    },
  ]
}

function expiryUnknown(error: unknown, place: string): Finding {
  const isForbidden = nameOf(error) === 'AccessDeniedException'
  const why = isForbidden ? 'this role may not do dynamodb:DescribeTimeToLive' : `DynamoDB answered ${nameOf(error)}`
  return {
    code: 'not-checked',
    severity: 'info',
    setting: 'ttlAttributeName',
    message: `The time to live of ${place} was not checked: ${why}.`,
    remedy: 'The breaker does not need it. Look at the table, or check with a role that may.',
  }
}

function cannotKeepJournal(place: string): Finding {
  return {
    code: 'journal-permission-missing',
    severity: 'warning',
    setting: 'journal',
    message: `This role may not do dynamodb:UpdateItem on the items of the journal in ${place}: nothing will remember why a circuit opened, or who forced it, and the circuit is not listed.`,
    remedy:
      'Let the condition on dynamodb:LeadingKeys allow "CIRCUIT#" itself beside the keys of the circuits, or set journal: false.',
  }
}

function cannotOperate(actions: readonly string[], place: string): Finding {
  const failing = [
    ...(actions.some((action) => action !== 'Query') ? ['reset() of a damaged record and batchClearState()'] : []),
    ...(actions.includes('Query') ? ['journal() and the list of circuits'] : []),
  ]
  const names = actions.map((action) => `dynamodb:${action}`).join(' and ')
  return {
    code: 'operator-permission-missing',
    severity: 'info',
    message: `This role may not do ${names} on ${place}: ${failing.join(', ')} fail under it.`,
    remedy: 'A function does not need that. Allow it to the role of operators.',
  }
}
