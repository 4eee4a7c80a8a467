import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { patience } from '../support/time.ts'

export interface BundledFunction extends AsyncDisposable {
  /** Moves the function's clock on by so many milliseconds, between two invocations. */
  advance(by: number): void
  /** Resolves to what the handler answers. */
  invoke(event: unknown): Promise<unknown>
}

/** Invokes what it is sent, one after the other. Timers of a second and more take so long that no stall gets to their end. */
const runtime = `
const { setTimeout: start } = globalThis
globalThis.setTimeout = (run, delay, ...values) => start(run, delay < 1_000 ? delay : 60 * delay, ...values)
const { now } = Date
let ahead = 0
Date.now = () => now() + ahead
const { [process.argv[2]]: handler } = await import(process.argv[1])
process.on('message', async ({ event, advance, remaining }) => {
  ahead = advance
  const deadline = Date.now() + remaining
  const context = { awsRequestId: crypto.randomUUID(), getRemainingTimeInMillis: () => Math.max(0, deadline - Date.now()) }
  process.send(await handler(event, context))
})
process.send('started')
`

/**
 * Starts a bundled function in a process of its own.
 *
 * @param file the bundle
 * @param options.variables all environment variables that the process has
 */
export async function startBundledFunction(
  file: string,
  { name = 'handler', variables }: { name?: string; variables: Record<string, string> },
): Promise<BundledFunction> {
  const child = spawn(process.execPath, ['--input-type=module', '--eval', runtime, '--', file, name], {
    env: variables,
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
  })
  let output = ''
  child.stderr?.setEncoding('utf8').on('data', (chunk: string) => {
    output += chunk
  })
  const ended = once(child, 'exit')
  const message = async (): Promise<unknown> => {
    const died = ended.then(() => Promise.reject(new Error(`The function has ended: ${output}`)))
    const [answer] = await Promise.race([once(child, 'message'), died])
    return answer
  }
  await message()
  let advance = 0
  return {
    advance: (by) => {
      advance += by
    },
    invoke: async (event) => {
      const answer = message()
      child.send({ event, advance, remaining: 10 * patience })
      return answer
    },
    async [Symbol.asyncDispose]() {
      child.kill()
      await ended
    },
  }
}
