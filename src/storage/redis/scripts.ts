/**
 * The two Lua scripts, one per primitive, and the arguments that they take.
 *
 * A circuit's hash holds the fields of the {@link CircuitRecord}, lists and objects among them as JSON, and in
 * `additions` the ids of the latest 16 additions since the last replace. A script touches the one key that it is given,
 * so that it runs in a cluster as well.
 *
 * @module
 */

import { createHash } from 'node:crypto'
import type { CircuitRecord, CompareAndSet, Outcomes } from '../contract.ts'
import { counts, expiryOf, recordFields } from '../record.ts'
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
 * where the key holds no record, so that nothing fits. The reader of the answer finds that it is none.
 */
const stored = `
local key = KEYS[1]
local version = redis.call('HMGET', key, 'version')[1]
version = version and '=' .. version or redis.call('EXISTS', key) == 0 and ''
local function answer(applied) return { applied, redis.call('HGETALL', key) } end
`

/**
 * Adds to the counts, all at once. Where one of them is damaged nothing is added, for the reader of the answer to find.
 *
 * ARGV: expected version, id, instant, then what is added to each count.
 */
const addition = script(`${stored}
if version ~= ARGV[1] then return answer(0) end
local names = { '${Object.keys(counts).join("', '")}' }
local old = redis.call('HMGET', key, 'additions', unpack(names))
local ids = old[1] or ''
if string.find('\\n' .. ids, '\\n' .. ARGV[2] .. '\\n', 1, true) then return answer(1) end
ids = ARGV[2] .. '\\n' .. ids
ids = string.match(ids, '^' .. string.rep('[^\\n]*\\n', 16)) or ids
local fields = { 'updatedAt', ARGV[3], 'additions', ids }
for index, name in ipairs(names) do
  local count = old[index + 1] or ''
  if count ~= '0' and not string.find(count, '^[1-9]%d*$') or #count > 16 then return answer(0) end
  fields[#fields + 1] = name
  fields[#fields + 1] = string.format('%.0f', count + ARGV[index + 3])
end
redis.call('HSET', key, unpack(fields))
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

/** The script of an addition and its arguments. */
export function additionOf(version: string, outcomes: Outcomes): ScriptCall {
  const added = Object.values(counts).map((outcome) => String(outcomes[outcome]))
  return { script: addition, args: [token(version), line(outcomes.id), String(outcomes.at), ...added] }
}

/** The script of a replace and its arguments. */
export function replacementOf({ version, next }: CompareAndSet): ScriptCall {
  const absent = [...recordFields.filter((field) => next[field] === undefined), 'additions']
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
