/** What the middleware adds to an invocation. */

import middy from '@middy/core'
import { type CircuitBreakerContext, circuitBreaker, MemoryCircuitStorage } from '../../src/index.ts'
import { type Case, type RoundsOptions, type Timing, timeInRounds } from '../rounds.ts'
import { duration, type Effort, type Section, type Table, times } from '../section.ts'
import { operation } from '../subjects.ts'

/** As far as the breaker knows, others use it too, and it is not in this process. */
class RemoteLikeStorage extends MemoryCircuitStorage {
  override readonly shared = true as unknown as false
}

type Handler = (event: unknown, context: never) => unknown

const nothing = { before: () => {}, after: () => {}, onError: () => {} }

export async function run({ quick }: Effort): Promise<Section> {
  const options: RoundsOptions = quick ? { rounds: 2, slice: 2 } : { rounds: 41, slice: 15 }
  const inLambda = await timeInRounds(
    casesOf(() => ({ awsRequestId: 'a-request', getRemainingTimeInMillis: () => 900_000 })),
    options,
  )
  const elsewhere = await timeInRounds(
    casesOf(() => ({ awsRequestId: 'a-request' })),
    options,
  )
  const calling = await timeInRounds(callingCases(), options)
  const ratio = Math.max(...[memory, remote].map((name) => inLambda.get(name)?.ratio ?? Number.NaN))
  return {
    title: 'Per invocation',
    blocks: [
      `Middy handlers that return at once. The no-op middleware has \`before\`, \`after\` and \`onError\`, as ours has. The cache is fresh, except for one
read in each \`cacheTtl\` (5 s). The context is a new object for each invocation, as in Lambda. If it tells the remaining time, Middy
sets a timer of its own. The remote-like store looks shared to the breaker, and is asked nothing while the cache is fresh. Our middleware
reads the clock once, makes an invocation with its deadline, puts \`callExternal\` and the circuits on the context, and keeps track of the
calls for the end.`,
      table(inLambda, 'context with a deadline'),
      table(elsewhere, 'context without one'),
      'With one call of an operation that resolves at once, the deadline known:',
      table(calling, 'handler with a call'),
    ],
    targets: [
      {
        what: 'Middleware on a fresh cache',
        wanted: 'at most 1.30 × Middy with a no-op middleware',
        measured: times(ratio),
        isMet: ratio <= 1.3,
      },
    ],
  }
}

const memory = 'Middy, ours in memory'
const remote = 'Middy, ours, remote-like store'

function casesOf(context: () => object): Record<string, Case> {
  const handlers: Record<string, Handler> = {
    'Middy, a no-op middleware': middy().use(nothing).handler(operation),
    'Middy alone': middy().handler(operation),
    [memory]: middy().use(guard('memory')).handler(operation),
    [remote]: middy().use(guard(new RemoteLikeStorage())).handler(operation),
  }
  return invoking(handlers, context)
}

function callingCases(): Record<string, Case> {
  const bare = async () => operation()
  const guarded = async (_event: unknown, { callExternal }: CircuitBreakerContext<'stripe'>) =>
    callExternal('stripe', operation)
  const handlers: Record<string, Handler> = {
    'Middy, a no-op middleware, bare call': middy().use(nothing).handler(bare),
    'Middy alone, bare call': middy().handler(bare),
    'Middy, ours in memory, `callExternal`': middy().use(guard('memory')).handler(guarded),
    'Middy, ours, remote-like store, `callExternal`': middy().use(guard(new RemoteLikeStorage())).handler(guarded),
  }
  return invoking(handlers, () => ({ awsRequestId: 'a-request', getRemainingTimeInMillis: () => 900_000 }))
}

function guard(storage: 'memory' | MemoryCircuitStorage) {
  return circuitBreaker({ services: ['stripe'], storage })
}

function invoking(handlers: Record<string, Handler>, context: () => object): Record<string, Case> {
  return Object.fromEntries(
    Object.entries(handlers).map(([name, handler]) => [name, () => handler({}, context() as never)]),
  )
}

function table(timings: ReadonlyMap<string, Timing>, what: string): Table {
  return {
    header: [what, 'ratio', 'time'],
    rows: Array.from(timings, ([name, { ratio, best }]) => [name, times(ratio), duration(best)]),
  }
}
