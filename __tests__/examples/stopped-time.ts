import { AsyncResource } from 'node:async_hooks'
import { channel } from 'node:diagnostics_channel'
import { ClientRequest } from 'node:http'
import { waitFor } from '../support/time.ts'

/** The time of this process, which stands still until a test moves it on. */
export interface StoppedTime extends Disposable {
  /**
   * Lets so many milliseconds pass as soon as DynamoDB has answered all that it was asked, so that nobody takes it for a
   * slow one: the timers that are due fire, each at its own instant.
   */
  advance(by: number): Promise<void>
  /** The same at once, for a DynamoDB that does not answer. */
  jump(by: number): void
  /** For a provider that never answers a request: lets the time pass for which somebody waits for it. */
  hang(by: number): Promise<'hangs'>
  /** Resolves when so many milliseconds have passed. */
  passed(by: number): Promise<void>
  /** How many milliseconds the timers that are set have left. */
  readonly timers: readonly number[]
}

/**
 * Stops `Date.now` and the timers of this process, those of `AbortSignal.timeout` too. Nothing that the machine does takes
 * any time then: no answer comes too late, no state becomes stale, and no circuit is to be probed, before the test says so.
 * Sockets never lose patience.
 *
 * @param options.from the shortest timer that stands still, in milliseconds. Shorter ones, such as the pause of a client
 *   before its second attempt, are over by themselves, and sooner than they say. Default: 100.
 * @example
 * using time = stopTime()
 * provider.react(() => time.hang(2_000))
 */
export function stopTime({ from = 100 } = {}): StoppedTime {
  const { setTimeout, clearTimeout } = globalThis
  const { now } = Date
  const { timeout } = AbortSignal
  const { setTimeout: setIdleLimit } = ClientRequest.prototype
  const timers = new Map<object, { readonly at: number; readonly fire: () => void }>()
  /** The requests that DynamoDB has not answered. */
  const asked = new Set<ClientRequest>()
  let clock = now()

  const hold = (fire: () => void, delay: number): object => {
    const handle = { ref: () => handle, unref: () => handle, hasRef: () => false }
    timers.set(handle, { at: clock + delay, fire: AsyncResource.bind(fire) })
    return handle
  }
  const nextDue = (until: number) =>
    [...timers].filter(([, { at }]) => at <= until).reduce((first, next) => (next[1].at < first[1].at ? next : first))
  const jump = (by: number): void => {
    const until = clock + by
    while (Math.min(...[...timers.values()].map(({ at }) => at)) <= until) {
      const [handle, { at, fire }] = nextDue(until)
      timers.delete(handle)
      clock = Math.max(clock, at)
      fire()
    }
    clock = Math.max(clock, until)
  }

  const advance = async (by: number): Promise<void> => {
    await waitFor(
      'DynamoDB has answered',
      () => asked.size,
      (number) => number === 0,
    )
    jump(by)
  }
  const onRequest = (message: unknown): void => {
    const { request } = message as { readonly request: ClientRequest }
    if (!String(request.getHeader('x-amz-target')).startsWith('DynamoDB_')) return
    asked.add(request)
    request.once('close', () => asked.delete(request))
  }
  const requests = channel('http.client.request.created')
  requests.subscribe(onRequest)
  Date.now = () => clock
  globalThis.setTimeout = ((callback: (...values: unknown[]) => void, delay = 0, ...values: unknown[]) =>
    delay < from
      ? setTimeout(callback, delay / 20, ...values)
      : hold(() => callback(...values), delay)) as typeof setTimeout
  globalThis.clearTimeout = (timer) => {
    if (typeof timer !== 'object' || !timers.delete(timer)) clearTimeout(timer)
  }
  AbortSignal.timeout = (delay) => {
    const controller = new AbortController()
    hold(() => controller.abort(new DOMException('The operation was aborted due to timeout', 'TimeoutError')), delay)
    return controller.signal
  }
  ClientRequest.prototype.setTimeout = function (this: ClientRequest) {
    return this
  }
  return {
    advance,
    jump,
    hang: async (by) => {
      await advance(by)
      return 'hangs'
    },
    passed: (by) => new Promise((resolve) => void hold(resolve, by)),
    get timers() {
      return [...timers.values()].map(({ at }) => at - clock)
    },
    [Symbol.dispose]: () => {
      requests.unsubscribe(onRequest)
      Date.now = now
      Object.assign(globalThis, { setTimeout, clearTimeout })
      AbortSignal.timeout = timeout
      ClientRequest.prototype.setTimeout = setIdleLimit
    },
  }
}
