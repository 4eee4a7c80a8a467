/**
 * The two Lua scripts, one per primitive, and the arguments that they take.
 *
 * A circuit's hash holds the fields of the {@link CircuitRecord}, lists and objects among them as JSON, and in
 * `increments` the ids of the latest 16 increments since the last replace. A script touches the one key that it is given,
 * so that it runs in a cluster as well.
 *
 * @module
 */

import { createHash } from 'node:crypto'
import type { CircuitRecord, CompareAndSet, ExpectedVersion, FailureIncrement } from '../contract.ts'
import { emptyRecord, expiryOf, recordFields } from '../record.ts'
import { fieldsOf } from './hash.ts'

/** A script, and what it is given beside the key. */
export interface ScriptCall {
  readonly script: Script
  readonly args: readonly string[]
}

export interface Script {
  readonly source: string
  /** The digest by which servers remember it. */
  readonly sha: string
}

/**
 * Both scripts begin with this. `version` is the stored one, with a `=` before it; empty where nothing is stored; `false`
 * where the key holds no record, so that nothing fits. The check of the answer finds that it is none.
 */
const stored = `
local key = KEYS[1]
local stored = redis.call('HMGET', key, 'version', 'epoch', 'failureCount', 'increments')
local version = stored[1] and '=' .. stored[1] or redis.call('EXISTS', key) == 0 and ''
local function answer(applied) return { applied, redis.call('HGETALL', key) } end
`

/**
 * Adds to the count, or creates the record first. Refuses a count that is no number, for the check of the answer to find.
 * Sets a time to live only for a record that it creates.
 *
 * ARGV: expected version, id, count, instant, time to live, then the fields and values of a new record.
 */
const increment = script(`${stored}
local unreplaced = stored[1] and stored[1] == stored[2]
if version ~= ARGV[1] and not (ARGV[1] == '' and unreplaced) then return answer(0) end
if version ~= '' and not string.find(stored[3] or '', '^%d+$') then return answer(0) end
local ids = stored[4] or ''
if string.find('\\n' .. ids, '\\n' .. ARGV[2] .. '\\n', 1, true) then return answer(1) end
if version == '' then redis.call('HSET', key, unpack(ARGV, 6)) end
redis.call('HINCRBY', key, 'failureCount', ARGV[3])
ids = ARGV[2] .. '\\n' .. ids
ids = string.match(ids, '^' .. string.rep('[^\\n]*\\n', 16)) or ids
redis.call('HSET', key, 'lastFailureAt', ARGV[4], 'updatedAt', ARGV[4], 'increments', ids)
if version == '' then redis.call('PEXPIRE', key, ARGV[5]) end
return answer(1)`)

/**
 * Replaces the record. When the client sent it again because a reply was lost, `next` is stored already: that counts as
 * applied. Commands that can be refused (by the memory limit, by the user's permissions) come first.
 *
 * ARGV: expected version, next version, time to live or nothing, how many fields to remove, these, then those to set.
 */
const compareAndSet = script(`${stored}
if version ~= ARGV[1] then return answer(version == ARGV[2] and 1 or 0) end
local set = 5 + ARGV[4]
redis.call('HSET', key, unpack(ARGV, set))
redis.call('HDEL', key, unpack(ARGV, 5, set - 1))
if ARGV[3] == '' then redis.call('PERSIST', key) else redis.call('PEXPIRE', key, ARGV[3]) end
return answer(1)`)

/** The script of an increment and its arguments. */
export function incrementOf(version: ExpectedVersion, { count, at, id }: FailureIncrement): ScriptCall {
  const created = emptyRecord(id, at)
  const added = [line(id), String(count), String(at), lifetime(created)]
  return { script: increment, args: [token(version), ...added, ...fieldsOf(created)] }
}

/** The script of a replace and its arguments. */
export function replacementOf({ version, next }: CompareAndSet): ScriptCall {
  const absent = [...recordFields.filter((field) => next[field] === undefined), 'increments']
  const removed = [String(absent.length), ...absent]
  const args = [token(version), token(next.version), lifetime(next), ...removed, ...fieldsOf(next)]
  return { script: compareAndSet, args }
}

function script(source: string): Script {
  return { source, sha: createHash('sha1').update(source).digest('hex') }
}

/** A version as the scripts compare it. */
function token(expected: string | undefined): string {
  return expected === undefined ? '' : `=${expected}`
}

/** An id without line breaks, which separate ids; random tokens are left as they are. */
function line(id: string): string {
  return JSON.stringify(id).slice(1, -1)
}

/**
 * How long the server shall keep the record, in milliseconds; empty: for ever. A duration and not an instant, because
 * the server's clock may differ from ours. It is counted from the record's own time or from now, whichever is earlier, so
 * that neither a clock that runs ahead nor a record that is written late shortens it.
 */
function lifetime(record: CircuitRecord): string {
  const expiry = expiryOf(record)
  return expiry === undefined ? '' : String(Math.ceil(expiry - Math.min(record.updatedAt, Date.now())))
}
