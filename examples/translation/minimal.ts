/**
 * Translates a text to German with an AI service. While the service is down or slow, the text comes back as it was.
 *
 * Variables: `OPENAI_API_KEY`, `OPENAI_BASE_URL`, `CIRCUIT_BREAKER_TABLE_NAME`.
 *
 * @module
 */

import middy from '@middy/core'
import { circuitBreaker } from 'middy-circuit-breaker'
import OpenAI from 'openai'

// Without retries of the client the circuit sees each failure, and one call fits into the timeout.
const openai = new OpenAI({ maxRetries: 0 })

export const handler = middy<{ readonly text: string }, { readonly text: string; readonly translated: boolean }>()
  .use(circuitBreaker({ services: { translation: { timeout: 10_000, maxConcurrent: 4 } } }))
  .handler(async ({ text }, { callExternal }) => {
    const translate = async ({ signal }: { signal: AbortSignal }) => {
      const messages = [
        {
          role: 'system' as const,
          content: 'Translate the text that follows to German. Answer with the translation only.',
        },
        { role: 'user' as const, content: text },
      ]
      return openai.chat.completions.create({ model: 'gpt-5.4-mini', max_completion_tokens: 500, messages }, { signal })
    }
    const found = await callExternal('translation', translate, { fallback: () => undefined })
    const choice = found?.choices[0]
    // A translation that was cut off is worse than none.
    const translation = choice?.finish_reason === 'stop' ? choice.message.content : null
    return translation === null ? { text, translated: false } : { text: translation, translated: true }
  })
