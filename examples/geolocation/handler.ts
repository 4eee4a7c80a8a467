/**
 * Says where an IP address is: `GET /location` for the caller's own, `GET /location?ip=…` for any. It looks into its cache
 * first, which is in the table of the circuits. It asks ipinfo only for an address that the cache does not know, or has known
 * for longer than a day, and keeps the answer. (The caller is the address that API Gateway sees. Behind a CDN that is the CDN,
 * which then has to say in `ip` for whom it asks.)
 *
 * While the circuit is open, and whenever ipinfo fails, the answer is the last known location, with `stale: true`. If none
 * is known, the answer is a 503 with `Retry-After`. It is not `location: null`: that means that the address is nowhere
 * (private, reserved, unknown to ipinfo), and a caller may act on it. The 503 only means "not now".
 *
 * - `IPINFO_TOKEN`: the access token. `IPINFO_URL`: default `https://ipinfo.io`.
 * - `CIRCUIT_BREAKER_TABLE_NAME`: the table, with the keys `PK` and `SK` and the time to live on `ttl`. What the circuits
 *   need is allowed for their keys alone, so the cache needs a statement of its own: `dynamodb:GetItem` and
 *   `dynamodb:PutItem` on `LOCATION#*`. `policy.json` has both.
 *
 * @module
 */

import middy from '@middy/core'
import type { APIGatewayProxyEventV2, APIGatewayProxyStructuredResultV2 } from 'aws-lambda'
import { circuitBreaker, hasStatus, isBreakableResult } from 'middy-circuit-breaker'
import { parseAddress } from './address.ts'
import { type Location, type RememberedLocation, recall, remember } from './location-cache.ts'

const { IPINFO_TOKEN = '', IPINFO_URL = 'https://ipinfo.io' } = process.env
const token = IPINFO_TOKEN.trim()
// With a line break in it, `fetch` would put the token into the message of an error, and Lambda that into the log.
if (!/^[!-~]+$/.test(token)) throw new Error('IPINFO_TOKEN has to be an access token of ipinfo, in one line.')

export const handler = middy<APIGatewayProxyEventV2, APIGatewayProxyStructuredResultV2>()
  .use(
    circuitBreaker({
      services: { ipinfo: { failureThreshold: 5, timeout: 2_000 } },
      onStateChange: ({ service, from, to, reason }) => console.warn(JSON.stringify({ service, from, to, reason })),
    }),
  )
  .handler(async (event, { callExternal, circuits }) => {
    const address = parseAddress(event.queryStringParameters?.['ip'] ?? event.requestContext.http.sourceIp)
    if (address === undefined) return answer(400, { message: 'ip has to be an IPv4 or IPv6 address.' })
    const { ip, isPublic } = address
    if (!isPublic) return answer(200, { ip, location: null })

    const known = await recall(ip)
    if (known?.isFresh) return answer(200, knownAnswer(ip, known))

    const found = await callExternal('ipinfo', ({ signal }) => lookUp(ip, signal), {
      isBreakableResult: saysThatIpinfoIsUnwell,
      fallback: () => undefined,
    })
    if (found?.location) {
      // Awaited, though it delays the answer: Lambda freezes the process after the answer, and with it an unfinished write.
      await remember(ip, found.location)
      return answer(200, { ip, location: found.location, stale: false, ageInSeconds: 0 })
    }
    if (found?.location === null) return answer(200, { ip, location: null })
    // ipinfo works, but refuses the request until somebody corrects it: most likely the token, or the URL.
    if (found !== undefined) console.error(JSON.stringify({ message: `ipinfo answered ${found.status}.` }))

    if (known !== undefined) return answer(200, knownAnswer(ip, known))
    const wait = (circuits.ipinfo.retryAt ?? 0) - Date.now()
    const message = 'The location of this address cannot be looked up at the moment.'
    return answer(503, { message }, { 'retry-after': String(Math.max(1, Math.ceil(wait / 1_000))) })
  })

function knownAnswer(ip: string, { location, lookedUpAt, isFresh }: RememberedLocation): object {
  const ageInSeconds = Math.max(0, Math.round((Date.now() - lookedUpAt) / 1_000))
  return { ip, location, stale: !isFresh, ageInSeconds }
}

interface Lookup {
  readonly status: number
  /** The circuit looks for `Retry-After` in here. */
  readonly headers: Headers
  /** `null`: the address is nowhere. `undefined`: this is no answer to the question. */
  readonly location: Location | null | undefined
}

async function lookUp(ip: string, signal: AbortSignal): Promise<Lookup> {
  const response = await fetch(`${IPINFO_URL}/${ip}/json`, {
    headers: { authorization: `Bearer ${token}`, accept: 'application/json' },
    signal,
  })
  const { status, headers } = response
  const answered = parseObject(await response.text())
  if (status === 200) return { status, headers, location: readLocation(answered) }
  // In ipinfo's own words alone: with a wrong URL, or a proxy in between, anything is "not found".
  const isNowhere = (status === 400 || status === 404) && titleOf(answered['error']) === 'Wrong ip'
  return { status, headers, location: isNowhere ? null : undefined }
}

/** 5xx, as always. 429: the quota is used up, and asking on is in vain. 200 with something else: a broken gateway. */
function saysThatIpinfoIsUnwell(found: Lookup): boolean {
  return isBreakableResult(found) || hasStatus(found, 429) || (found.status === 200 && found.location === undefined)
}

/** Takes what it knows from an answer, and takes nothing for granted. */
function readLocation(answered: Readonly<Record<string, unknown>>): Location | null | undefined {
  if (!('ip' in answered)) return undefined
  const { country, region, city, timezone } = answered
  if (typeof country !== 'string') return null
  return {
    country,
    ...(typeof region === 'string' && { region }),
    ...(typeof city === 'string' && { city }),
    ...(typeof timezone === 'string' && { timezone }),
  }
}

function titleOf(error: unknown): unknown {
  return typeof error === 'object' && error !== null && 'title' in error ? error.title : undefined
}

/** What is no JSON, or no object, has nothing in it that anybody looks for. */
function parseObject(text: string): Readonly<Record<string, unknown>> {
  try {
    return { ...JSON.parse(text) }
  } catch {
    return {}
  }
}

function answer(
  statusCode: number,
  body: object,
  headers: Readonly<Record<string, string>> = {},
): APIGatewayProxyStructuredResultV2 {
  return {
    statusCode,
    // The same URL has another answer for each caller.
    headers: { 'content-type': 'application/json', 'cache-control': 'no-store', ...headers },
    body: JSON.stringify(body),
  }
}
