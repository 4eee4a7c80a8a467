/**
 * Says in which country an IP address is. While ipinfo is down, the answer is `unknown`, at once.
 *
 * Variables: `IPINFO_TOKEN`, `IPINFO_URL` (for a stand-in), `CIRCUIT_BREAKER_TABLE_NAME`.
 *
 * @module
 */

import middy from '@middy/core'
import { circuitBreaker } from 'middy-circuit-breaker'

const { IPINFO_TOKEN = '', IPINFO_URL = 'https://ipinfo.io' } = process.env

export const handler = middy<{ readonly ip: string }, { readonly country: string }>()
  .use(circuitBreaker({ services: { ipinfo: { failureThreshold: 5, timeout: 2_000 } } }))
  .handler(async ({ ip }, { callExternal }) => {
    const { country } = await callExternal('ipinfo', ({ signal }) => lookUp(ip, signal), {
      fallback: () => ({ country: 'unknown' }),
    })
    return { country }
  })

/** The circuit reads `status`, and `Retry-After` from `headers`. */
async function lookUp(ip: string, signal: AbortSignal) {
  const headers = { authorization: `Bearer ${IPINFO_TOKEN}` }
  const response = await fetch(`${IPINFO_URL}/${encodeURIComponent(ip)}/json`, { headers, signal })
  const text = await response.text()
  const country: string = response.ok ? (JSON.parse(text).country ?? 'unknown') : 'unknown'
  return { status: response.status, headers: response.headers, country }
}
