/**
 * The IAM policy in `docs/storage.md`, and what a call to DynamoDB is to such a policy.
 *
 * @module
 */

import { readFileSync } from 'node:fs'

export interface Statement {
  readonly Sid: string
  readonly Effect: string
  readonly Action: readonly string[]
  readonly Resource: string
  readonly Condition: { readonly 'ForAllValues:StringLike': { readonly 'dynamodb:LeadingKeys': readonly string[] } }
}

/** A call as IAM sees it: what is done, to which table, with which partition keys. */
export interface DynamoDBCall {
  readonly action: string
  readonly table: string
  readonly keys: readonly string[]
}

/** The code blocks below a heading of `docs/storage.md`. */
export function blocksBelow(heading: string): string[] {
  const page = readFileSync(new URL('../../docs/storage.md', import.meta.url), 'utf8')
  const [, section = ''] = page.split(new RegExp(`^#+ ${heading}$`, 'm'))
  const [own = ''] = section.split(/^#+ /m)
  return [...own.matchAll(/^```\w*\n([\s\S]*?)^```$/gm)].map(([, block = '']) => block.trim())
}

/** The statements for DynamoDB, first those that functions need. */
export function documentedStatements(): readonly Statement[] {
  return (JSON.parse(blocksBelow('Permissions')[0] ?? '{}') as { readonly Statement: readonly Statement[] }).Statement
}

/**
 * @param operation for instance `UpdateItem`
 * @param input what is sent
 */
export function callOf(operation: string, input: Readonly<Record<string, unknown>>): DynamoDBCall {
  const action = `dynamodb:${operation}`
  const keyOf = (key: unknown): string => (key as { PK: { S: string } }).PK.S
  if (input['Key'] !== undefined) return { action, table: String(input['TableName']), keys: [keyOf(input['Key'])] }
  const [[table, request] = ['', {}]] = Object.entries(input['RequestItems'] as Record<string, unknown>)
  const keys = Array.isArray(request)
    ? request.map(({ DeleteRequest }) => keyOf(DeleteRequest.Key))
    : (request as { Keys: unknown[] }).Keys.map(keyOf)
  return { action, table, keys }
}
