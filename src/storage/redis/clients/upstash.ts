/**
 * The client of `@upstash/redis`, which speaks to Redis by HTTP. Loaded only for one of them.
 *
 * @module
 */

import type { RedisClientLike } from '../options.ts'

/** Sends requests. Past it the client makes numbers and objects of texts that look like ones. */
interface Requester {
  request(request: { readonly path?: readonly string[]; readonly body: unknown }): Promise<unknown>
}

interface Answer {
  readonly result?: unknown
  readonly error?: string
}

export function adapted({ client }: { readonly client: Requester }): RedisClientLike {
  const send = async (body: unknown, path: readonly string[] = []): Promise<unknown> => {
    try {
      return await client.request({ path, body })
    } catch (reason) {
      throw withoutCommand(reason)
    }
  }
  return {
    call: async (...command) => {
      const { result, error } = (await send(command)) as Answer
      if (error !== undefined) throw new Error(error)
      return result
    },
    pipeline: (commands) => ({
      exec: async () => {
        const answers = (await send(commands, ['pipeline'])) as Answer[]
        return answers.map(({ result, error }) => [error === undefined ? null : new Error(error), result] as const)
      },
    }),
  }
}

/** The client repeats the command and its arguments after the message of the server. */
function withoutCommand(reason: unknown): unknown {
  const [said, command] = String((reason as Error).message).split(', command was: ')
  return command === undefined ? reason : new Error(said)
}
