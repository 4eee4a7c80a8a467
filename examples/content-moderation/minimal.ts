/**
 * Decides with Amazon Comprehend whether a text may be published. While Comprehend is down, a person decides: `review`.
 *
 * Variables: `CIRCUIT_BREAKER_TABLE_NAME`. Permission: `comprehend:DetectToxicContent`.
 *
 * @module
 */

import { ComprehendClient, DetectToxicContentCommand } from '@aws-sdk/client-comprehend'
import middy from '@middy/core'
import { circuitBreaker } from 'middy-circuit-breaker'

// Without retries of the SDK the circuit sees each failure.
const comprehend = new ComprehendClient({ maxAttempts: 1 })

export const handler = middy<{ readonly text: string }, { readonly decision: 'accepted' | 'rejected' | 'review' }>()
  .use(circuitBreaker({ services: ['comprehend'], timeout: 1_500 }))
  .handler(async ({ text }, { callExternal }) => {
    const command = new DetectToxicContentCommand({ TextSegments: [{ Text: text }], LanguageCode: 'en' })
    const found = await callExternal('comprehend', ({ signal }) => comprehend.send(command, { abortSignal: signal }), {
      fallback: () => undefined,
    })
    const toxicity = found?.ResultList?.[0]?.Toxicity
    // No answer is not an innocent text.
    if (toxicity === undefined) return { decision: 'review' }
    return { decision: toxicity >= 0.8 ? 'rejected' : toxicity >= 0.5 ? 'review' : 'accepted' }
  })
