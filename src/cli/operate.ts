/**
 * Forces and resets circuits for an operator.
 *
 * @module
 */

import { userInfo } from 'node:os'
import { CircuitBreaker } from '../circuit-breaker.ts'
import { sharedName } from '../keys/keyed-service.ts'
import { sharedKey } from '../settings/resolve.ts'
import { durationOption, textOption, UsageError, type Values } from './arguments.ts'
import type { Place } from './place.ts'

/** The changes that an operator can make to a circuit. */
export type Deed = 'open' | 'close' | 'reset'

/** The reason and the end of a deed. */
export interface DeedOptions {
  readonly by: string
  readonly why: string
  /** Milliseconds since the epoch; `undefined`: until reset. */
  readonly until: number | undefined
}

/** The longest that a store may take, in milliseconds. No invocation waits for it. */
const patience = 5_000

/** Does it to one circuit, by its stored key. */
export async function operate(place: Place, key: string, deed: Deed, { by, why, until }: DeedOptions): Promise<void> {
  const { namespace, service, key: ofService } = partsOf(key)
  const services = { [service]: { keyed: ofService === undefined ? undefined : {} } }
  const options = { services, namespace, storage: place.storage, storageTimeout: patience, preload: false }
  // Without the variables of this shell, which belong to no function.
  const breaker = new CircuitBreaker<string, { readonly [Key: string]: object }>(options as never, { env: {} })
  const words = { by, why, ...(ofService !== undefined && { key: ofService }) }
  if (deed === 'open') await breaker.forceOpen(service, { until, ...words })
  else if (deed === 'close') await breaker.forceClosed(service, { until, ...words })
  else await breaker.reset(service, words)
  await breaker.close()
}

/** The namespace, the service and the key of a stored key. */
export function partsOf(key: string): {
  namespace: string | undefined
  service: string
  /** The key of a keyed service; `undefined`: the circuit is the service's own. */
  key: string | undefined
} {
  const stored = key.split('#')
  const parts = stored.map(decoded)
  const [namespace, service, own] = parts.length === 1 ? [undefined, parts[0]] : parts
  const isKeyed = parts.length === 3
  if (parts.length > 3 || !service || (namespace === '' && !isKeyed) || own === '') {
    throw new UsageError(`${JSON.stringify(key)} is no key of a circuit.`)
  }
  if (stored[2]?.startsWith('%sha256-')) {
    throw new UsageError(
      `${JSON.stringify(key)} is stored only as a hash. Pass the whole key in a program: breaker.reset(service, { key }).`,
    )
  }
  return { namespace: namespace || undefined, service, key: stored[2] === sharedKey ? sharedName : own }
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part)
  } catch {
    return part
  }
}

/** @throws {UsageError} if the reason is missing, or the end is over */
export async function deedOptionsOf(values: Values, place: Place, now: number): Promise<DeedOptions> {
  const why = textOption(values, 'why')
  if (why === undefined) throw new UsageError('Give a reason, which others see later: --why TEXT.')
  const until = untilOf(values, now)
  const by = textOption(values, 'by') ?? (await identity(place))
  return { by, why, until }
}

function untilOf(values: Values, now: number): number | undefined {
  const duration = durationOption(values, 'for')
  const text = textOption(values, 'until')
  if (duration !== undefined && text !== undefined) throw new UsageError('--for and --until exclude each other.')
  if (text === undefined) return duration === undefined ? undefined : now + duration
  const instant = Date.parse(text)
  if (Number.isNaN(instant))
    throw new UsageError(`--until must be an instant such as 2030-01-31T12:00Z, but is ${JSON.stringify(text)}.`)
  if (instant <= now)
    throw new UsageError(`--until must be still to come, but ${new Date(instant).toISOString()} is over.`)
  return instant
}

/** The AWS identity where the store is in AWS and `@aws-sdk/client-sts` is installed; else the name of the user. */
export async function identity({ config }: Place): Promise<string> {
  if (config.type === 'dynamodb') {
    try {
      // A name that no bundler and no type checker follows.
      const library = '@aws-sdk/client-sts'
      const { STSClient, GetCallerIdentityCommand } = await import(library)
      const client = new STSClient({
        maxAttempts: 1,
        requestHandler: { requestTimeout: 2_000, connectionTimeout: 2_000 },
      })
      const { Arn } = await client.send(new GetCallerIdentityCommand({}))
      // The part that names the user or the session, without the account.
      if (typeof Arn === 'string') return Arn.slice(Arn.lastIndexOf(':') + 1)
    } catch {
      // Without the library, the permission or a network, use the user's name.
    }
  }
  try {
    return userInfo().username
  } catch {
    return 'unknown user'
  }
}
