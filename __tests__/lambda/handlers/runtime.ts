/** Handlers that show what the runtime client does, for the test of the harness. */

import { readFile } from 'node:fs/promises'
import { threadId } from 'node:worker_threads'
import type { Context } from 'aws-lambda'

interface ResponseStream {
  write(chunk: string): void
  end(): void
}

declare const awslambda: {
  streamifyResponse<T>(handler: (event: T, stream: ResponseStream, context: Context) => Promise<void>): unknown
}

let invocations = 0
let ticks = 0

const sleep = (time: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, time))

/** Answers with the event and with what it knows of itself. */
export async function echo(event: unknown, context: Context): Promise<unknown> {
  invocations += 1
  console.log('invoked', invocations)
  return {
    event,
    invocations,
    requestId: context.awsRequestId,
    functionName: context.functionName,
    arn: context.invokedFunctionArn,
    remaining: context.getRemainingTimeInMillis(),
    region: process.env['AWS_REGION'],
    greeting: process.env['GREETING'],
    options: process.env['NODE_OPTIONS'],
    node: process.versions.node,
  }
}

export async function fail({ message }: { readonly message: string }): Promise<void> {
  throw Object.assign(new TypeError(message), { code: 'E_TEST' })
}

/** Writes `waiting`, and waits for as many milliseconds as it is told to. */
export async function wait({ for: duration }: { readonly for: number }, context: Context): Promise<unknown> {
  // A reader of that line may rely on the timer, even if the process is frozen next.
  const waited = sleep(duration)
  console.log('waiting')
  await waited
  console.log('waited')
  return {
    requestId: context.awsRequestId,
    remaining: context.getRemainingTimeInMillis(),
    threadId,
  }
}

/** Counts in the background, also between invocations, writes each number, and says how far it came. */
export async function tick(): Promise<number> {
  const count = (): void => console.log(++ticks)
  if (ticks === 0) setInterval(count, 5)
  count()
  return ticks
}

export async function exit({ code }: { readonly code: number }): Promise<void> {
  process.exit(code)
}

/** Answers, and leaves a rejection behind that nobody handles. */
export async function rejectUnhandled(): Promise<never> {
  Promise.reject(new Error('nobody handles this'))
  return new Promise(() => {})
}

/** Cleans up when Lambda says that it is over, and then ends as if it had not listened, or by `process.exit`. */
export async function graceful({ takes, exits }: { readonly takes: number; readonly exits?: true }): Promise<void> {
  process.once('SIGTERM', async () => {
    console.log('cleaning up')
    await sleep(takes)
    console.log('clean')
    if (exits) process.exit(0)
    process.kill(process.pid, 'SIGTERM')
  })
}

interface Streaming {
  readonly pieces: readonly string[]
  readonly fails?: string
  readonly hangs?: true
  readonly lingers?: true
}

/** Writes the pieces, each 30 ms after the one before, and then fails, hangs, or ends; it may also end and not return. */
export const stream: unknown = awslambda.streamifyResponse(
  async ({ pieces, fails, hangs, lingers }: Streaming, response) => {
    for (const piece of pieces) {
      response.write(piece)
      await sleep(30)
    }
    if (hangs) await new Promise(() => {})
    if (fails) throw new RangeError(fails)
    response.end()
    if (lingers) await new Promise(() => {})
  },
)

/** Reads a file, which takes a thread of the process's pool, as looking up a host's name does. */
export async function read(): Promise<string> {
  return readFile('/proc/self/comm', 'utf8')
}
