/**
 * A record as a hash of Redis, and back.
 *
 * @module
 */

import { CircuitStorageError } from '../../errors.ts'
import type { CircuitRecord, WriteResult } from '../contract.ts'
import { recordFields } from '../record.ts'
import type { Context } from './errors.ts'

/** A longer text is not parsed as JSON, in characters: a thousand leases or transitions take less. */
const longestJson = 1_000_000

/** The fields of a record: names and values by turns. */
export function fieldsOf(record: CircuitRecord): string[] {
  return recordFields.flatMap((field) => {
    const value = record[field]
    if (value === undefined) return []
    return [field, typeof value === 'object' ? JSON.stringify(value) : String(value)]
  })
}

/** The record in a reply to `HGETALL`, unchecked; `undefined` where the key does not exist. */
export function decodeRecord(reply: unknown, context: Context): CircuitRecord | undefined {
  const stored = hashIn(reply)
  if (!stored) throw unintelligible(context)
  if (stored.size === 0) return undefined
  const raw: Partial<Record<keyof CircuitRecord, unknown>> = {}
  for (const field of recordFields) {
    const text = stored.get(field)
    if (text === undefined) continue
    // Bytes that are no UTF-8 become this character. Sent back as a condition it would equal nothing that is stored.
    if ((field === 'version' || field === 'epoch') && text.includes('\ufffd')) throw undecodable(context, field)
    raw[field] = decodeField(field, text)
  }
  return raw as unknown as CircuitRecord
}

/** Redis sends a hash as a list of names and values by turns; some clients make an object or a map of it. */
function hashIn(reply: unknown): Map<string, string> | undefined {
  if (Array.isArray(reply)) {
    const hash = new Map<string, string>()
    for (let index = 0; index < reply.length; index += 2) hash.set(String(reply[index]), String(reply[index + 1]))
    return hash
  }
  if (reply instanceof Map) return hashIn([...reply].flat())
  return typeof reply === 'object' && reply !== null ? hashIn(Object.entries(reply).flat()) : undefined
}

/** Decodes one field. A text that is no number or no JSON stays as it is: the check of the record refuses it. */
function decodeField(field: keyof CircuitRecord, text: string): unknown {
  switch (field) {
    case 'version':
    case 'epoch':
    case 'state':
      return text
    case 'leases':
    case 'transitions':
    case 'lastFailure':
    case 'override':
      if (text.length > longestJson) return text
      try {
        return JSON.parse(text)
      } catch {
        return text
      }
    default:
      return String(Number(text)) === text ? Number(text) : text
  }
}

/** The answer of a script. */
export function decodeWrite(reply: unknown, context: Context): WriteResult {
  if (!Array.isArray(reply)) throw unintelligible(context)
  const [applied, stored] = reply
  return { applied: Number(applied) === 1, current: decodeRecord(stored, context) }
}

/** The error about a field that cannot be decoded. */
function undecodable({ operation, service }: Context, field: string): CircuitStorageError {
  return new CircuitStorageError(
    `The record stored for ${JSON.stringify(service)} is damaged: ${field} is no text in UTF-8. It is left as it is and ` +
      'this instance decides alone; reset() repairs it.',
    { operation, service, corrupt: true },
  )
}

/** The error about a reply that is not as Redis sent it. */
function unintelligible({ operation, service }: Context): CircuitStorageError {
  return new CircuitStorageError(
    `${operation} of ${JSON.stringify(service)} failed: the client's reply is not what Redis sent. Its call must resolve ` +
      'to the reply as it is: lists as arrays, texts as strings.',
    { operation, service },
  )
}
