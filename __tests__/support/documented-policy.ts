/**
 * The IAM policies in `docs/operate/permissions.md`, and what a call to DynamoDB is to such a policy.
 *
 * @module
 */

import { readFileSync } from 'node:fs'

export interface Statement {
  readonly Sid: string
  readonly Effect: string
  readonly Action: readonly string[]
  readonly Resource: string
  readonly Condition?: { readonly 'ForAllValues:StringLike': { readonly 'dynamodb:LeadingKeys': readonly string[] } }
}

/** A call as IAM sees it: what is done, to which table, with which partition keys. */
export interface DynamoDBCall {
  readonly action: string
  readonly table: string
  readonly keys: readonly string[]
}

/** The code blocks below a heading of `docs/operate/permissions.md`. */
function blocksBelow(heading: string): string[] {
  const page = readFileSync(new URL('../../docs/operate/permissions.md', import.meta.url), 'utf8')
  const [, section = ''] = page.split(new RegExp(`^#+ ${heading}$`, 'm'))
  const [own = ''] = section.split(/^#+ /m)
  return [...own.matchAll(/^```\w*\n([\s\S]*?)^```$/gm)].map(([, block = '']) => block.trim())
}

/** The statements for DynamoDB: first the one that functions need, then that of operators, then that of a check. */
export function documentedStatements(): readonly Statement[] {
  return ['A function', 'An operator, and a check from a shell'].flatMap((heading) => {
    const policy: { readonly Statement: readonly Statement[] } = JSON.parse(blocksBelow(heading)[0] ?? '{}')
    return policy.Statement
  })
}

/** The rule for a user of Redis. */
export function documentedRule(): string {
  return blocksBelow('Redis')[0] ?? ''
}

/**
 * @param operation for instance `UpdateItem`
 * @param input what is sent
 */
export function callOf(operation: string, input: Readonly<Record<string, unknown>>): DynamoDBCall {
  const action = `dynamodb:${operation}`
  const keyOf = (key: unknown): string => (key as { PK: { S: string } }).PK.S
  const values = input['ExpressionAttributeValues'] as { readonly ':pk'?: { readonly S: string } } | undefined
  if (operation === 'Query') return { action, table: String(input['TableName']), keys: [values?.[':pk']?.S ?? ''] }
  if (operation === 'DescribeTimeToLive') return { action, table: String(input['TableName']), keys: [] }
  const item = input['Key'] ?? input['Item']
  if (item !== undefined) return { action, table: String(input['TableName']), keys: [keyOf(item)] }
  const [[table, request] = ['', {}]] = Object.entries(input['RequestItems'] as Record<string, unknown>)
  const keys = Array.isArray(request)
    ? request.map(({ DeleteRequest }) => keyOf(DeleteRequest.Key))
    : (request as { Keys: unknown[] }).Keys.map(keyOf)
  return { action, table, keys }
}

/** Whether IAM would allow a call. A condition on keys would hold of a call without any, so that it is taken for refused. */
export function isAllowed(
  { Effect, Action, Resource, Condition }: Statement,
  { action, table, keys }: DynamoDBCall,
): boolean {
  const isMeant = Effect === 'Allow' && Action.includes(action) && Resource.endsWith(`:table/${table}`)
  if (Condition === undefined) return isMeant
  const patterns = Condition['ForAllValues:StringLike']['dynamodb:LeadingKeys'].map(
    (pattern) =>
      new RegExp(
        `^${pattern
          .replace(/[.+^${}()|[\]\\]/g, '\\$&')
          .replaceAll('*', '.*')
          .replaceAll('?', '.')}$`,
      ),
  )
  const keysMatch = keys.length > 0 && keys.every((key) => patterns.some((pattern) => pattern.test(key)))
  return isMeant && keysMatch
}
