/** What {@link isRedisUrl} accepts. */
export const urlAllowed: string =
  'redis://[user:password@]host[:port][/database], or rediss:// for TLS, with what is special in the user and the ' +
  'password percent-encoded'

/** A URL that ioredis understands as it is meant. */
export function isRedisUrl(value: unknown): value is string {
  if (typeof value !== 'string' || !URL.canParse(value)) return false
  const { protocol, hostname, pathname, hash, username, password } = new URL(value)
  return (
    /^rediss?:$/.test(protocol) &&
    hostname !== '' &&
    /^(\/\d*)?$/.test(pathname) &&
    hash === '' &&
    isPercentEncoded(username + password)
  )
}

function isPercentEncoded(text: string): boolean {
  try {
    decodeURIComponent(text)
    return true
  } catch {
    return false
  }
}
