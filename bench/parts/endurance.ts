/** Whether anything grows: a million guarded calls, a hundred thousand invocations. */

import { getEventListeners } from 'node:events'
import middy from '@middy/core'
import { CircuitBreaker, circuitBreaker, MemoryCircuitStorage } from '../../src/index.ts'
import { createTestContext } from '../../src/testing/index.ts'
import { type Effort, type Section, size, type Target } from '../section.ts'

const stops = 10
/** How much the heap may differ between the second tenth and the end: what the compiler and the collector are about. */
const tolerance = 1_048_576

interface Growth {
  /** Bytes after a collection, at each tenth. */
  readonly heaps: readonly number[]
  /** Listeners of the process, and of a signal that all calls were given, more than before. */
  readonly listeners: number
  /** Timers and sockets more than before. */
  readonly resources: number
}

export async function run({ quick }: Effort): Promise<Section> {
  const [calls, invocations] = quick ? [1_000, 1_000] : [1_000_000, 100_000]
  const called = await grow(calls, await callingTenAtOnce())
  const { work, opened } = invoking()
  const invoked = await grow(invocations, work)
  const count = (number: number) => number.toLocaleString('en')
  const row = (name: string, { heaps, listeners, resources }: Growth) => [
    name,
    ...[heaps[0], heaps[1], heaps[stops / 2], heaps.at(-1)].map((heap) => size(heap ?? Number.NaN)),
    String(listeners),
    String(resources),
  ]
  return {
    title: 'Endurance',
    blocks: [
      `The heap after a collection, before the work and after a tenth, a half and all of it. The calls run ten at once, each with a timeout, a
deadline and a signal that all of them share. One call in ten fails, and half of the failures count. The invocations are those of a Middy
handler with two calls. In every hundredth the service fails until the circuit is open, and the clock moves on until a probe is due. The
circuit opened ${count(opened())} times.`,
      {
        header: [
          '',
          'heap before',
          'after 10 %',
          'after 50 %',
          'after all',
          'more listeners',
          'more timers and sockets',
        ],
        rows: [row(`${count(calls)} calls`, called), row(`${count(invocations)} invocations`, invoked)],
      },
    ],
    targets: [
      targetOf(`${count(calls)} guarded calls`, called),
      targetOf(`${count(invocations)} invocations`, invoked),
    ],
  }
}

function targetOf(what: string, { heaps, listeners, resources }: Growth): Target {
  const growth = (heaps.at(-1) ?? 0) - (heaps[1] ?? 0)
  return {
    what,
    wanted: 'the heap flat, no more listeners',
    measured: `${growth < 0 ? '−' : '+'}${size(Math.abs(growth))} after the first tenth, ${listeners} listeners`,
    isMet: growth < tolerance && listeners === 0 && resources === 0,
  }
}

interface Work {
  /** How many of what is counted one turn does. */
  readonly perTurn: number
  turn(index: number): Promise<unknown>
  listeners(): number
}

async function grow(total: number, { perTurn, turn, listeners }: Work): Promise<Growth> {
  const turns = total / perTurn
  await turn(0)
  const heaps = [await collectedHeap()]
  const [listenersBefore, resourcesBefore] = [listeners(), process.getActiveResourcesInfo().length]
  for (let index = 1; index <= turns; index++) {
    await turn(index)
    if (index % (turns / stops) === 0) heaps.push(await collectedHeap())
  }
  return {
    heaps,
    listeners: listeners() - listenersBefore,
    resources: process.getActiveResourcesInfo().length - resourcesBefore,
  }
}

/** A turn of the event loop first, so that what waits for one is not counted. */
async function collectedHeap(): Promise<number> {
  for (let n = 0; n < 2; n++) {
    await new Promise((resolve) => setTimeout(resolve, 10))
    globalThis.gc?.()
  }
  return process.memoryUsage().heapUsed
}

function processListeners(): number {
  return process.eventNames().reduce((sum, name) => sum + process.listenerCount(name), 0)
}

async function callingTenAtOnce(): Promise<Work> {
  const breaker = new CircuitBreaker(
    { services: ['stripe'], storage: 'memory', failureThreshold: 3 },
    { env: { AWS_LAMBDA_FUNCTION_NAME: 'endurance' } },
  )
  await breaker.load()
  const callExternal = breaker.callExternalFor({ getRemainingTimeInMillis: () => 900_000 })
  const { signal } = new AbortController()
  const good = async () => 1
  const refused = async () => {
    throw Object.assign(new Error('not found'), { status: 404 })
  }
  const down = async () => {
    throw Object.assign(new Error('down'), { status: 503 })
  }
  const caught = () => 0
  return {
    perTurn: 10,
    turn: (index) =>
      Promise.all(
        Array.from({ length: 10 }, (_, n) => {
          const operation = n > 0 ? good : index % 2 === 0 ? refused : down
          return callExternal('stripe', operation, { timeout: 1_000, signal }).catch(caught)
        }),
      ),
    listeners: () => processListeners() + getEventListeners(signal, 'abort').length,
  }
}

function invoking(): { readonly work: Work; readonly opened: () => number } {
  let ahead = 0
  let isDown = false
  let opened = 0
  const breaker = new CircuitBreaker(
    { services: ['stripe', 'paypal'], storage: new MemoryCircuitStorage() },
    { env: { AWS_LAMBDA_FUNCTION_NAME: 'endurance' }, now: () => Date.now() + ahead },
  )
  const operation = async () => {
    if (isDown) throw Object.assign(new Error('down'), { status: 503 })
    return 1
  }
  const handler = middy()
    .use(circuitBreaker(breaker))
    .handler(async (_event, { callExternal }) => {
      await callExternal('stripe', operation, { timeout: 1_000 }).catch(() => 0)
      return callExternal('paypal', async () => 1)
    })
  breaker.onStateChange(({ to }) => {
    if (to === 'OPEN') opened += 1
  })
  return {
    work: {
      perTurn: 1,
      turn: async (index) => {
        isDown = index % 100 < 5
        if (index % 100 === 5) ahead += 15_000
        await handler({}, createTestContext())
      },
      listeners: processListeners,
    },
    opened: () => opened,
  }
}
