/**
 * The page: the circuits of a store live in a browser, served on 127.0.0.1 alone.
 *
 * Other pages in the same browser can send requests here. They learn nothing and change nothing: a request must name this
 * server as its host, answers cannot be read across origins, and writes need a token that only the printed address holds.
 *
 * @module
 */

import { randomBytes, timingSafeEqual } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { isCircuitBreakerError } from '../errors.ts'
import { systemRuntime } from '../runtime.ts'
import { numberOption, UsageError, type Values } from './arguments.ts'
import type { Run } from './commands.ts'
import { type Deed, identity, operate } from './operate.ts'
import { type Clock, type Comparison, Feed } from './page-feed.ts'
import type { Place } from './place.ts'
import { parseDuration } from './times.ts'

export const serve: Run = async ({ values }, place, { stdout, now, signal }) => {
  const page = await servePage(place, { ...serveOptionsOf(values), clock: { ...systemRuntime, now } })
  stdout.write(`The circuits of ${place.name}: ${page.address}\n`)
  stdout.write('It can be opened on this machine only. Ctrl+C ends it.\n')
  const { promise, resolve } = Promise.withResolvers<void>()
  signal.addEventListener('abort', () => resolve(), { once: true })
  if (!signal.aborted) await promise
  await page.close()
  return 0
}

/** How the page is served. */
export interface ServeOptions {
  /** 0: a free one. */
  readonly port: number
  /** Whether the page may force and reset circuits. */
  readonly allowWrites: boolean
  readonly clock: Clock
  /** How far back the page looks, in milliseconds. Default: 24 hours. */
  readonly span?: number
  /** Fleets that are shown side by side above the circuits. Default: none. */
  readonly comparison?: () => Comparison
}

function serveOptionsOf(values: Values): Pick<ServeOptions, 'port' | 'allowWrites'> {
  return { port: numberOption(values, 'port', 0, 65_535) ?? 0, allowWrites: values['allow-writes'] === true }
}

/** A page that is served. */
export interface ServedPage {
  /** The page's URL, with the token for writes in its fragment, which no browser sends anywhere. */
  readonly address: string
  close(): Promise<void>
}

/** Serves the page until it is closed. */
export async function servePage(place: Place, options: ServeOptions): Promise<ServedPage> {
  const token = options.allowWrites ? randomBytes(24).toString('base64url') : undefined
  const files = await readFiles()
  const feed = new Feed(place, { ...options, canWrite: token !== undefined })
  const server = createServer((request, response) => {
    answer(request, response, { place, options, token, files, feed, port: portOf(server) }).catch(() => {
      if (!response.headersSent) send(response, 500, 'text/plain', 'Internal error')
      else response.destroy()
    })
  })
  await listen(server, options.port)
  const fragment = token === undefined ? '' : `#token=${token}`
  return {
    address: `http://127.0.0.1:${portOf(server)}/${fragment}`,
    close: async () => {
      feed.close()
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

function portOf(server: Server): number {
  return (server.address() as AddressInfo).port
}

async function listen(server: Server, port: number): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  server.once('error', reject)
  server.listen(port, '127.0.0.1', resolve)
  try {
    await promise
  } catch (error) {
    throw new UsageError(`The page cannot be served on port ${port}: ${(error as Error).message}. Try another --port.`)
  }
  server.off('error', reject)
}

// --------------------------------------------------------------------------------------------------------- answers

interface Files {
  readonly html: string
  readonly css: string
  readonly js: string
}

async function readFiles(): Promise<Files> {
  const read = (name: string) => readFile(new URL(`./page/${name}`, import.meta.url), 'utf8')
  const [html, css, js] = await Promise.all([read('page.html'), read('page.css'), read('page.js')])
  return { html, css, js }
}

interface Site {
  readonly place: Place
  readonly options: ServeOptions
  readonly token: string | undefined
  readonly files: Files
  readonly feed: Feed
  readonly port: number
}

async function answer(request: IncomingMessage, response: ServerResponse, site: Site): Promise<void> {
  const { files, feed, port } = site
  // A name that somebody made point to this machine must not let his pages read it.
  const hosts = [`127.0.0.1:${port}`, `localhost:${port}`]
  if (!hosts.includes(request.headers.host ?? '')) return send(response, 421, 'text/plain', 'This is another host.')
  const { pathname } = new URL(request.url ?? '/', `http://127.0.0.1:${port}`)
  if (pathname === '/deeds') return take(request, response, site, hosts)
  if (request.method !== 'GET' && request.method !== 'HEAD')
    return send(response, 405, 'text/plain', 'Only GET is allowed.')
  if (pathname === '/') return send(response, 200, 'text/html', files.html)
  if (pathname === '/page.css') return send(response, 200, 'text/css', files.css)
  if (pathname === '/page.js') return send(response, 200, 'text/javascript', files.js)
  if (pathname === '/events' && request.method === 'GET') {
    response.writeHead(200, { ...headers, 'Content-Type': 'text/event-stream' })
    return feed.subscribe(response)
  }
  return send(response, 404, 'text/plain', 'There is nothing here.')
}

/** The page may load what this server sends, and nothing else. */
const headers = {
  'Content-Security-Policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
  'Cache-Control': 'no-store',
}

function send(response: ServerResponse, status: number, type: string, body: string): void {
  response.writeHead(status, { ...headers, 'Content-Type': `${type}; charset=utf-8` })
  response.end(body)
}

function sendJson(response: ServerResponse, status: number, body: unknown): void {
  send(response, status, 'application/json', JSON.stringify(body))
}

// ---------------------------------------------------------------------------------------------------------- writes

/** A request to force or reset is no longer than this, in characters. */
const longestBody = 10_000

/** Forces or resets a circuit for the page. */
async function take(
  request: IncomingMessage,
  response: ServerResponse,
  site: Site,
  hosts: readonly string[],
): Promise<void> {
  const { place, options, token, feed } = site
  const refuse = (status: number, message: string): void => sendJson(response, status, { message })
  if (request.method !== 'POST') return refuse(405, 'Only POST is allowed.')
  if (token === undefined) return refuse(403, 'This page cannot change circuits. Start mcb serve with --allow-writes.')
  const { origin, authorization } = request.headers
  const isOwn = hosts.some((host) => origin === `http://${host}`) && isSameSite(request)
  if (!isOwn) return refuse(403, 'A request from another page changes nothing.')
  if (!isToken(authorization, token))
    return refuse(401, 'The token is missing or wrong. Open the address that mcb serve has printed.')
  if (request.headers['content-type'] !== 'application/json') return refuse(415, 'The body must be application/json.')
  const body = await bodyOf(request)
  if (body === undefined) return refuse(413, `The body is longer than ${longestBody} characters.`)
  const wanted = deedOf(body)
  if (typeof wanted === 'string') return refuse(400, wanted)
  const { deed, key, why, duration } = wanted
  try {
    const until = duration === undefined ? undefined : options.clock.now() + duration
    await operate(place, key, deed, { by: await identity(place), why, until })
  } catch (error) {
    if (isCircuitBreakerError(error) || error instanceof UsageError) return refuse(502, error.message)
    throw error
  }
  feed.soon()
  return sendJson(response, 200, { message: `${key}: ${deed} done. Instances follow within their cacheTtl.` })
}

function isSameSite({ headers: sent }: IncomingMessage): boolean {
  const site = sent['sec-fetch-site']
  return site === undefined || site === 'same-origin'
}

function isToken(authorization: string | undefined, token: string): boolean {
  const [given, wanted] = [Buffer.from(authorization ?? ''), Buffer.from(`Bearer ${token}`)]
  return given.length === wanted.length && timingSafeEqual(given, wanted)
}

/** @returns `undefined`: it is too long */
async function bodyOf(request: IncomingMessage): Promise<string | undefined> {
  let body = ''
  request.setEncoding('utf8')
  // Its connection has to carry the answer.
  for await (const chunk of request.iterator({ destroyOnReturn: false })) {
    body += chunk
    if (body.length > longestBody) return undefined
  }
  return body
}

/** @returns what is asked for, or what is wrong with it */
function deedOf(body: string): { deed: Deed; key: string; why: string; duration: number | undefined } | string {
  let given: Readonly<Record<string, unknown>>
  try {
    given = JSON.parse(body) as typeof given
  } catch {
    return 'The body is not JSON.'
  }
  const { deed, key, why, duration: time } = given ?? {}
  if (deed !== 'open' && deed !== 'close' && deed !== 'reset') return 'deed must be open, close or reset.'
  if (typeof key !== 'string' || key === '') return 'key must name a circuit.'
  if (typeof why !== 'string' || why.trim() === '') return 'Give a reason, which others see later.'
  const duration = typeof time === 'string' && time.trim() !== '' ? parseDuration(time.trim()) : undefined
  if (duration === undefined && time !== undefined && time !== '')
    return 'The time must be a duration such as 90s, 10m, 2h or 1d.'
  return { deed, key, why: why.trim(), duration }
}
