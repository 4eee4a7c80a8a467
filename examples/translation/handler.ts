/**
 * Translates texts with an AI service: `POST /translate` with `{ "to": "de", "texts": ["Good morning", …] }`. Each text comes
 * back with `translated: true`, or as it was, with `translated: false` and a `reason`.
 *
 * Such a service is slow rather than down, so what limits it is time:
 *
 * - `timeout`: a text that takes longer comes back as it was (`slow`), and the request is aborted. It counts as a failure. One
 *   failure raises a suspicion; if the fleet's next calls are slow as well, the circuit opens. An instance that is alone opens
 *   it after three failures in a row. Then all texts come back at once (`unavailable`) until a probe is quick enough.
 * - The deadline of the invocation: a second before it, the function answers with what it has, whatever the timeout is. Set
 *   the function's timeout below the 30 s that API Gateway waits.
 * - `maxConcurrent`: the texts of a request are translated at once, up to the number that the provider's rate limit allows.
 *   `maxQueue`: further texts wait. A text that finds the queue full comes back at once (`busy`).
 *
 * A text that the service refuses (`rejected`) or does not finish (`incomplete`) is no failure of the service.
 *
 * - `OPENAI_API_KEY`, `OPENAI_BASE_URL`, `OPENAI_MODEL` (default `gpt-5.4-mini`; one that does not reason for long).
 * - `CIRCUIT_BREAKER_TIMEOUT__TRANSLATION`, `…_MAX_CONCURRENT__…`, `…_MAX_QUEUE__…` tune it without a new version.
 * - `CIRCUIT_BREAKER_TABLE_NAME`: the table with the circuits.
 *
 * @module
 */

import middy from '@middy/core'
import type { APIGatewayProxyEventV2, APIGatewayProxyStructuredResultV2 } from 'aws-lambda'
import {
  circuitBreaker,
  hasName,
  isBreakableError,
  isCircuitTimeoutError,
  isConcurrencyLimitError,
} from 'middy-circuit-breaker'
import OpenAI from 'openai'

type ChatCompletion = OpenAI.Chat.Completions.ChatCompletion

// The client would ask a slow service twice more within the time of one call, and the circuit would not see it.
const openai = new OpenAI({ maxRetries: 0 })
const { OPENAI_MODEL = 'gpt-5.4-mini' } = process.env

const maxConcurrent = 4
const maxQueue = 16
/** The two together: of more texts the last would come back as `busy` however quick the service is. */
const maxTexts = maxConcurrent + maxQueue

/**
 * In milliseconds, with the wait for a turn. A call that is cut before it ran for half of this time does not count as a
 * failure. Keep texts and answers so short that a healthy service is quicker than that: otherwise long texts raise
 * suspicions, and in a fleet where many are long, open the circuit.
 */
const timeout = 10_000
/** In tokens: such a model writes 100 a second. It also holds for a text that talks the model into writing a book. */
const maxAnswer = 500
/** In bytes: three or four are a token in most scripts, and a translation has about as many tokens as its text. */
const maxLength = 1_000

interface Translation {
  readonly text: string
  readonly translated: boolean
  readonly reason?: 'slow' | 'busy' | 'unavailable' | 'rejected' | 'incomplete'
}

export const handler = middy<APIGatewayProxyEventV2, APIGatewayProxyStructuredResultV2>()
  .use(
    circuitBreaker({
      services: {
        translation: {
          timeout,
          maxConcurrent,
          maxQueue,
          // The client alone runs in the guard: what it cannot parse came from the other side.
          isBreakableError: (error) => isBreakableError(error) || hasName(error, 'SyntaxError'),
        },
      },
      onStateChange: ({ service, from, to, reason }) => console.warn(JSON.stringify({ service, from, to, reason })),
    }),
  )
  .handler(async (event, { callExternal }) => {
    const request = readRequest(event)
    if (typeof request === 'string') return answer(400, { message: request })

    const translate = async (text: string): Promise<Translation> => {
      try {
        const found = await callExternal('translation', ({ signal }) => complete(text, request.language, signal), {
          isBreakableResult: (completion) => !isUsable(completion),
          fallback: (error): Translation => ({ text, translated: false, reason: reasonOf(error) }),
        })
        return 'translated' in found ? found : readTranslation(text, found)
      } catch (error) {
        if (!(error instanceof OpenAI.APIError)) throw error
        // Not the message: that of a 401 quotes the key.
        const { status, code } = error
        console.error(JSON.stringify({ message: 'The translation of a text was refused.', status, code }))
        return { text, translated: false, reason: status === 429 ? 'busy' : 'rejected' }
      }
    }
    return answer(200, { translations: await Promise.all(request.texts.map(translate)) })
  })

function complete(text: string, language: string, signal: AbortSignal): Promise<ChatCompletion> {
  const task = `Translate the text that follows to ${language}. Answer with the translation and nothing else.`
  return openai.chat.completions.create(
    {
      model: OPENAI_MODEL,
      max_completion_tokens: maxAnswer,
      messages: [
        { role: 'system', content: task },
        { role: 'user', content: text },
      ],
    },
    { signal },
  )
}

/** Whether it is a completion at all: of a page that comes with a 200 the client makes a string. */
function isUsable(completion: Partial<ChatCompletion> | null | undefined): boolean {
  return completion?.choices?.[0]?.message !== undefined
}

function readTranslation(text: string, { choices: [choice] }: ChatCompletion): Translation {
  if (choice?.message.refusal) return { text, translated: false, reason: 'rejected' }
  const { content } = choice?.message ?? {}
  // Cut off by the length or by a content filter: half a translation is worse than none.
  if (!content || choice?.finish_reason !== 'stop') return { text, translated: false, reason: 'incomplete' }
  return { text: content, translated: true }
}

function reasonOf(error: unknown): 'slow' | 'busy' | 'unavailable' {
  if (isConcurrencyLimitError(error)) return 'busy'
  // The time of a call includes the wait for its turn.
  if (isCircuitTimeoutError(error)) return error.attempted ? 'slow' : 'busy'
  return 'unavailable'
}

interface TranslationRequest {
  readonly texts: readonly string[]
  /** The English name of the language. */
  readonly language: string
}

/** What is asked for, or what is wrong with it. */
function readRequest({ body = '', isBase64Encoded }: APIGatewayProxyEventV2): TranslationRequest | string {
  let asked: unknown
  try {
    asked = JSON.parse(isBase64Encoded ? Buffer.from(body, 'base64').toString() : body)
  } catch {
    return 'The body has to be JSON.'
  }
  const { to, texts } = (asked ?? {}) as Readonly<Record<string, unknown>>
  const language = typeof to === 'string' ? nameOf(to) : undefined
  if (language === undefined) return '"to" has to be the code of a language, for instance "de" or "pt-BR".'
  if (!Array.isArray(texts) || texts.length === 0 || texts.length > maxTexts || !texts.every(isTranslatable)) {
    return `"texts" has to be a list of 1 to ${maxTexts} texts of 1 to ${maxLength} bytes.`
  }
  return { texts, language }
}

function isTranslatable(text: unknown): text is string {
  return typeof text === 'string' && text.trim() !== '' && Buffer.byteLength(text) <= maxLength
}

/** `de` is `German`. What is no known language has no name, and does not get into the prompt. */
function nameOf(code: string): string | undefined {
  try {
    return new Intl.DisplayNames('en', { type: 'language', fallback: 'none' }).of(code)
  } catch {
    return undefined
  }
}

function answer(statusCode: number, body: Readonly<Record<string, unknown>>): APIGatewayProxyStructuredResultV2 {
  return { statusCode, headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }
}
