/**
 * The credentials of a role, as a middleware before this one keeps them for others. Loaded when there is a role, and imports
 * nothing, so that it shares nothing with what a handler loads.
 *
 * @module
 */

interface Credentials {
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly sessionToken: string | undefined
  readonly expiration: Date
}

/**
 * The credentials under a name, which is found as `getInternal` of `@middy/util` finds it: the part before the first dot names
 * a value or a promise of one, and each other part a property of its own.
 *
 * They are always over, so that the AWS SDK asks anew for each request: a role's last an hour, and an instance may last longer.
 *
 * @param internal `request.internal` of the latest request
 */
export async function credentialsOf(
  role: string,
  internal: Readonly<Record<string, unknown>> | undefined,
): Promise<Credentials> {
  const [root, ...path] = role.split('.') as [string, ...string[]]
  const name = JSON.stringify(role)
  let value: unknown
  try {
    value = await internal?.[root]
  } catch (cause) {
    const message = `the role ${name} (awsClientAssumeRole) was not to be had: ${(cause as Partial<Error> | null)?.name}`
    throw named('AssumedRoleError', message, { cause })
  }
  for (const part of path)
    value = Object.hasOwn(Object(value), part) ? (value as Record<string, unknown>)[part] : undefined
  const { accessKeyId, secretAccessKey, sessionToken } = Object(value) as Partial<Credentials>
  if (typeof accessKeyId !== 'string' || typeof secretAccessKey !== 'string') {
    const message =
      `request.internal has no credentials under ${name} (awsClientAssumeRole). Use @middy/sts before the circuit breaker, ` +
      'with fetchData that has this name.'
    throw named('AssumedRoleProviderError', message)
  }
  return { accessKeyId, secretAccessKey, sessionToken, expiration: new Date(0) }
}

/** An error with a name by which the storage knows that its message says what to do. */
function named(name: string, message: string, options?: ErrorOptions): Error {
  return Object.assign(new Error(message, options), { name })
}
