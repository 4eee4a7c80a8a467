/**
 * Reads the credentials of a role that an earlier middleware has stored. The package loads this file only if there is a role. The
 * file imports nothing, so a bundler shares no code between it and a handler.
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
 * Finds the credentials under a name, in the same way as `getInternal` of `@middy/util`: the part before the first dot names a
 * value or a promise of a value, and each further part names an own property.
 *
 * The returned credentials have already expired, so that the AWS SDK asks again for each request. The credentials of a role last an
 * hour, and an instance may last longer.
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
    const message = `the role ${name} (awsClientAssumeRole) could not be assumed: ${(cause as Partial<Error> | null)?.name}`
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

/** An error whose name tells the storage that the message says what to do. */
function named(name: string, message: string, options?: ErrorOptions): Error {
  return Object.assign(new Error(message, options), { name })
}
