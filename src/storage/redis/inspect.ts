/**
 * What a check of the breaker asks Redis beyond what the storage asks anyway. Nothing in the database changes: every command
 * is about a key that nobody has stored, and creates none. `HSET`, the only one that could, is sent with a value too few:
 * the server looks at permissions, memory and its role before it counts them.
 *
 * The storage hands over what it shares with this file, so that the storage itself stays one file in a bundle.
 *
 * @module
 */

import { randomUUID } from 'node:crypto'
import type { CircuitStorageError } from '../../errors.ts'
import type { Finding, Outcomes, StorageInspection } from '../contract.ts'
import { suffix } from './journal.ts'
import type { ScriptCall } from './scripts.ts'

type Command = readonly [name: string, ...args: string[]]
type Reply = PromiseSettledResult<unknown>

interface Server {
  readonly keyPrefix: string
  /** The key of a circuit, with the prefix. */
  readonly key: string
  readonly send: (commands: readonly Command[]) => Promise<readonly Reply[]>
  readonly scriptOf: (version: string, outcomes: Outcomes) => ScriptCall
  readonly errorOf: (reason: unknown) => CircuitStorageError
}

export async function inspectServer({ keyPrefix, key, send, scriptOf, errorOf }: Server): Promise<StorageInspection> {
  const unknownKey = `${key}?check-${randomUUID()}`
  const nothing = { failures: 0, successes: 0, started: 0, early: 0, reporters: 0, at: 0, id: randomUUID() }
  const { script, args } = scriptOf(randomUUID(), nothing)
  const forFunctions: readonly Command[] = [
    ['hset', unknownKey, 'field', 'value', 'field without a value'],
    ['eval', script.source, '1', unknownKey, ...args],
    ['hmget', unknownKey, 'version'],
    ['exists', unknownKey],
    ['hdel', unknownKey, 'field'],
    ['pexpire', unknownKey, '1'],
  ]
  const forOperators: readonly Command[] = [
    ['persist', unknownKey],
    ['del', unknownKey],
    ['scan', '0', 'MATCH', unknownKey, 'COUNT', '1'],
  ]
  const forNobodysCalls: readonly Command[] = [['hmget', key + suffix, 'next'], ['time'], ['info', 'memory']]
  const sentAt = Date.now()
  const replies = await send([...forFunctions, ...forOperators, ...forNobodysCalls])
  const arrivedAt = Date.now()
  const repliesTo = (commands: readonly Command[], from: number): (readonly [name: string, reply: Reply])[] =>
    commands.map(([name], index) => [name, replies[from + index] as Reply])
  const needed = repliesTo(forFunctions, 0)
  const operators = repliesTo(forOperators, forFunctions.length)
  const [journal, time, memory] = replies.slice(-3) as [Reply, Reply, Reply]
  const unasked = [...(time.status === 'rejected' ? ['TIME'] : []), ...(memory.status === 'rejected' ? ['INFO'] : [])]
  return {
    place: `Redis, with the keys "${keyPrefix}…"`,
    clockOffset: time.status === 'fulfilled' ? offsetOf(time.value, sentAt, arrivedAt) : undefined,
    findings: [
      ...missing(needed.filter(([, reply]) => isForbidden(reply)).map(([name]) => name)),
      ...refused(needed, errorOf),
      ...missingForOperators(operators.filter(([, reply]) => isForbidden(reply)).map(([name]) => name)),
      ...(/NOPERM.* key/.test(messageOf(journal)) ? [cannotKeepJournal(key)] : []),
      ...(memory.status === 'fulfilled' ? evictionFindings(String(memory.value)) : []),
      ...notChecked(unasked),
    ],
  }
}

/** How far the server's clock is surely ahead of ours, in milliseconds. */
function offsetOf(reply: unknown, sentAt: number, arrivedAt: number): number | undefined {
  const [seconds, microseconds] = Array.isArray(reply) ? reply.map(Number) : []
  const answeredAt = Number(seconds) * 1_000 + Math.floor(Number(microseconds) / 1_000)
  if (Number.isNaN(answeredAt)) return undefined
  return answeredAt > arrivedAt ? answeredAt - arrivedAt : Math.min(0, answeredAt - sentAt)
}

/** The server refuses the command. Where it refuses the key, which is longer than those of circuits, the command is allowed. */
function isForbidden(reply: Reply): boolean {
  const message = messageOf(reply)
  return message.includes('NOPERM') && !/access (a|one of the) key/.test(message)
}

function messageOf(reply: Reply): string {
  return reply.status === 'rejected'
    ? String((reply.reason as Partial<Error> | undefined)?.message ?? reply.reason)
    : ''
}

function missing(names: readonly string[]): Finding[] {
  if (names.length === 0) return []
  return [
    {
      code: 'store-misconfigured',
      severity: 'error',
      message: `The Redis user may not do ${names.join(', ')}: circuits cannot be changed.`,
      remedy: `Grant ${names.map((name) => `+${name}`).join(' ')}. Until then each instance decides alone.`,
    },
  ]
}

/** A server that can be read and not written: a replica, one without memory. */
function refused(replies: readonly (readonly [name: string, reply: Reply])[], errorOf: Server['errorOf']): Finding[] {
  for (const [, reply] of replies) {
    const message = messageOf(reply)
    // `HSET` is refused like this where all is well.
    if (message === '' || message.includes('NOPERM') || /wrong number of arguments/i.test(message)) continue
    const error = errorOf((reply as PromiseRejectedResult).reason)
    const advice = error.message.replace(/^.*? failed: /s, '')
    const finding: Finding = {
      code: `store-${error.kind}`,
      severity: 'error',
      message: `Redis refuses writes: ${advice}`,
      remedy: 'Correct what the message names, and check again. Until then each instance decides alone.',
    }
    return [Object.defineProperty(finding, 'cause', { value: error })]
  }
  return []
}

function missingForOperators(names: readonly string[]): Finding[] {
  if (names.length === 0) return []
  const failing = [
    ...(names.includes('persist') ? ['forceOpen() and forceClosed()'] : []),
    ...(names.includes('scan') ? ['the list of circuits'] : []),
    ...(names.includes('del') ? ['reset() of a damaged record and batchClearState()'] : []),
  ]
  return [
    {
      code: 'operator-permission-missing',
      severity: 'info',
      message: `The Redis user may not do ${names.join(' and ')}: ${failing.join(', ')} fail with it.`,
      remedy: `A function does not need that. Grant ${names.map((name) => `+${name}`).join(' ')} to the user of operators.`,
    },
  ]
}

function cannotKeepJournal(key: string): Finding {
  return {
    code: 'journal-permission-missing',
    severity: 'warning',
    setting: 'journal',
    message: `The Redis user may not use the key ${JSON.stringify(key + suffix)}: nothing will remember why a circuit opened, or who forced it.`,
    remedy: 'Grant the keys of the journals as well, best with a pattern that ends with *, or set journal: false.',
  }
}

function evictionFindings(info: string): Finding[] {
  const [, limit] = /^maxmemory:(\d+)/m.exec(info) ?? []
  const [, policy = ''] = /^maxmemory_policy:(\S+)/m.exec(info) ?? []
  if (!Number(limit) || !policy.startsWith('allkeys-')) return []
  return [
    {
      code: 'eviction',
      severity: 'warning',
      message: `The server's maxmemory-policy is ${policy}: with little memory it evicts overrides, too, which then end. An open circuit that is evicted is closed.`,
      remedy:
        'Set maxmemory-policy to volatile-lru, which spares overrides, or give the circuits a server of their own.',
    },
  ]
}

function notChecked(commands: readonly string[]): Finding[] {
  if (commands.length === 0) return []
  const what = commands.map((command) => (command === 'TIME' ? 'The clock' : 'the eviction of keys')).join(' and ')
  return [
    {
      code: 'not-checked',
      severity: 'info',
      message: `${what.charAt(0).toUpperCase()}${what.slice(1)} of the Redis server was not checked: it refused ${commands.join(' and ')}.`,
      remedy: 'The breaker does not need that. Check with a user who may, or look at the server.',
    },
  ]
}
