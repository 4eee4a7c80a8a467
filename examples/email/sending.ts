/**
 * Sends an e-mail over the providers, one after the other. The handler and the worker share it.
 *
 * @module
 */

import { type CallExternal, isBreakableResultError } from 'middy-circuit-breaker'
import type { Email } from './email.ts'
import { type Answer, type Provider, providers } from './providers.ts'

/** What became of an e-mail. */
export type Outcome =
  | { readonly provider: string; readonly messageId: string }
  /** The message is wrong: what the provider said. */
  | { readonly provider: string; readonly refusal: unknown }
  /** No provider was able, or none could be asked. */
  | undefined

/** Sends an e-mail over the first provider that takes it, each within its circuit. */
export async function sendEmail(email: Email, callExternal: CallExternal<Provider['name']>): Promise<Outcome> {
  for (const { name, send, blamesMessage } of providers) {
    try {
      const sent = await callExternal(name, ({ signal }) => send(email, signal), {
        isBreakableError: (error) => !blamesMessage(error),
        isBreakableResult: ({ id, error }) => id === undefined && !blamesMessage(error),
        // The circuit refused or cut the call, or it failed in a way that counts: the next provider's turn.
        fallback: (error) => report(email, name, error),
      })
      if (sent?.id !== undefined) return { provider: name, messageId: sent.id }
      if (sent !== undefined) return { provider: name, refusal: sent.error }
    } catch (error) {
      if (!blamesMessage(error)) throw error
      return { provider: name, refusal: error }
    }
  }
  return undefined
}

/** Names, codes and statuses only: messages can hold addresses, and the errors of axios hold the API key. */
export function report(email: Email, provider: string, failure: unknown): undefined {
  const reason = isBreakableResultError(failure) ? (failure.result as Answer).error : failure
  const { name, code, statusCode } = (reason ?? {}) as { name?: unknown; code?: unknown; statusCode?: unknown }
  console.warn({ email: email.id, provider, name, code, statusCode })
}
