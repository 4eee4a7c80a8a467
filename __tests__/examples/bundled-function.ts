import { spawn } from 'node:child_process'
import { once } from 'node:events'

export interface BundledFunction extends AsyncDisposable {
  /** Resolves to what the handler answers. */
  invoke(event: unknown): Promise<unknown>
}

/** Invokes what it is sent, one after the other. */
const runtime = `
const { [process.argv[2]]: handler } = await import(process.argv[1])
process.on('message', async ({ event, deadline }) => {
  const context = { awsRequestId: crypto.randomUUID(), getRemainingTimeInMillis: () => Math.max(0, deadline - Date.now()) }
  process.send(await handler(event, context))
})
process.send('started')
`

/**
 * Starts a bundled function in a process of its own.
 *
 * @param file the bundle
 * @param options.timeout of the function, in seconds
 * @param options.variables all environment variables that the process has
 */
export async function startBundledFunction(
  file: string,
  { name = 'handler', timeout, variables }: { name?: string; timeout: number; variables: Record<string, string> },
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
  return {
    invoke: async (event) => {
      const answer = message()
      child.send({ event, deadline: Date.now() + timeout * 1_000 })
      return answer
    },
    async [Symbol.asyncDispose]() {
      child.kill()
      await ended
    },
  }
}
