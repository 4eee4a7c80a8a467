/**
 * The expressions of the two conditional writes, and the contents of an item.
 *
 * An item holds the fields of the {@link CircuitRecord} as top-level attributes, the time to live, and in `inc0` to
 * `inc15` the ids of the latest 16 additions since the last replace. Attributes of other names are the user's and are
 * left alone.
 *
 * @module
 */

import type { CompareAndSet, Outcomes } from '../contract.ts'
import { counts, expiryOf, recordFields } from '../record.ts'
import type { Table } from './options.ts'

/** The variable part of an `UpdateItem`. */
export interface Update {
  readonly updateExpression: string
  readonly conditionExpression: string
  readonly names: Record<string, string>
  readonly values: Record<string, unknown>
}

/** The ids of the latest additions, the last one first: as many as the Redis adapter remembers. */
export const slots: readonly string[] = Array.from({ length: 16 }, (_, index) => `inc${index}`)

/**
 * Replaces the record: every field of `next` is set, every field that it lacks is removed, and so are the ids of
 * additions, which the old version fenced.
 */
export function replacementOf(table: Table, { version, next }: CompareAndSet): Update {
  const { name, value, names, values } = placeholders()
  const expiry = expiryOf(next)

  const present = recordFields.filter((field) => next[field] !== undefined)
  const absent = recordFields.filter((field) => next[field] === undefined)

  const set = present.map((field) => `${name(field)} = ${value(field, next[field])}`)
  const remove = [...absent, ...slots].map((field) => name(field))
  if (expiry === undefined) remove.push(name('ttl', table.ttlAttributeName))
  else set.push(`${name('ttl', table.ttlAttributeName)} = ${value('ttl', epochSeconds(expiry))}`)

  return {
    updateExpression: `SET ${set.join(', ')} REMOVE ${remove.join(', ')}`,
    // * The version that was seen is stored, or there is still no item. An item that is no circuit record is left alone.
    conditionExpression:
      version === undefined
        ? `attribute_not_exists(${name('pk', table.partitionKeyName)})`
        : `${name('version')} = ${value('expected', version)}`,
    names,
    values,
  }
}

/**
 * Adds to the counts of a record. It leaves the version alone, so that any number of additions can follow one another. The
 * ids of the latest ones make a resent addition count once.
 */
export function additionOf(version: string, outcomes: Outcomes): Update {
  const { at, id } = outcomes
  const { name, value, names, values } = placeholders()
  const ids = slots.map((slot) => name(slot))

  // A count that is missing or no number makes the update fail: the record is damaged.
  const set = Object.entries(counts).map(
    ([count, outcome]) => `${name(count)} = ${name(count)} + ${value(count, outcomes[outcome])}`,
  )
  set.push(`${name('updatedAt')} = ${value('at', at)}`)
  // Every id moves on by one, and the oldest falls out. The right-hand sides are the values before the update.
  for (const [index, slot] of ids.entries()) {
    const before = ids[index - 1]
    set.push(`${slot} = ${before === undefined ? value('id', id) : `if_not_exists(${before}, ${value('none', '')})`}`)
  }
  const conditions = [
    `${name('version')} = ${value('expected', version)}`,
    // * These outcomes were not counted before. An absent attribute differs from everything.
    ...ids.map((slot) => `${slot} <> ${value('id', id)}`),
  ]
  return { updateExpression: `SET ${set.join(', ')}`, conditionExpression: conditions.join(' AND '), names, values }
}

interface Placeholders {
  /** Refers to an attribute, whose name may be a reserved word: `#alias`. */
  name(alias: string, attribute?: string): string
  /** Refers to a value: `:alias`. */
  value(alias: string, value: unknown): string
  readonly names: Record<string, string>
  readonly values: Record<string, unknown>
}

/** Collects the names and values that the parts of an expression refer to. */
function placeholders(): Placeholders {
  const names: Record<string, string> = {}
  const values: Record<string, unknown> = {}
  return {
    name: (alias, attribute = alias) => {
      names[`#${alias}`] = attribute
      return `#${alias}`
    },
    value: (alias, value) => {
      values[`:${alias}`] = value
      return `:${alias}`
    },
    names,
    values,
  }
}

function epochSeconds(instant: number): number {
  return Math.ceil(instant / 1000)
}
