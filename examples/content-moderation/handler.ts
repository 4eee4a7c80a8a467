/**
 * Decides whether a text may be published: `POST /moderate` with `{ "text": "…" }` answers with a `decision` (`accepted`,
 * `rejected`, or `review`: a person has to look at it), its `reasons`, and who has `checkedBy`.
 *
 * Amazon Comprehend checks it. While its circuit is open, and whenever it fails, a list of words decides. The list asks for
 * a person sooner than Comprehend does, so that no text is published unchecked. Comprehend does not take every text: then the
 * answer is 413 or 422, and the circuit counts no failure.
 *
 * - `AWS_REGION`, and where need be `AWS_ENDPOINT_URL_COMPREHEND`. Allow `comprehend:DetectToxicContent`.
 * - `BLOCKED_WORDS`, `SUSPECT_WORDS`: the lists, with commas.
 * - `CIRCUIT_BREAKER_TABLE_NAME`: the table with the circuits.
 *
 * @module
 */

import {
  ComprehendClient,
  DetectToxicContentCommand,
  type DetectToxicContentCommandOutput,
} from '@aws-sdk/client-comprehend'
import middy from '@middy/core'
import type { APIGatewayProxyEventV2, APIGatewayProxyStructuredResultV2 } from 'aws-lambda'
import { circuitBreaker, hasName, hasStatus, isBreakableError } from 'middy-circuit-breaker'
import { checkByKeywords, type Verdict } from './keyword-filter.ts'

// No retries in the SDK: there is another way to an answer, and the circuit is to see each failure.
const comprehend = new ComprehendClient({ maxAttempts: 1 })

/** From here on the text is rejected … */
const toxic = 0.8
/** … and from here on held for review. */
const doubtful = 0.5

export const handler = middy<APIGatewayProxyEventV2, APIGatewayProxyStructuredResultV2>()
  .use(
    circuitBreaker({
      services: {
        comprehend: {
          timeout: 1_500,
          // The SDK alone runs in the guard: what it cannot parse came from the other side.
          isBreakableError: (error) => isBreakableError(error) || hasName(error, 'SyntaxError'),
        },
      },
      onStateChange: ({ service, from, to, reason }) => console.warn(JSON.stringify({ service, from, to, reason })),
    }),
  )
  .handler(async (event, { callExternal }) => {
    const text = readText(event)
    if (text === undefined) return answer(400, { message: 'The body has to be JSON with a "text" that is not empty.' })
    const segments = segmentsOf(text)
    if (segments === undefined) return answer(413, tooLong)

    try {
      const found = await callExternal('comprehend', ({ signal }) => detect(segments, signal), {
        isBreakableResult: (output) => !isComplete(output, segments.length),
        fallback: () => undefined,
      })
      return found === undefined
        ? answer(200, { ...checkByKeywords(text), checkedBy: 'keywords' })
        : answer(200, { ...judge(found), checkedBy: 'comprehend' })
    } catch (error) {
      if (hasName(error, 'TextSizeLimitExceededException')) return answer(413, tooLong)
      if (hasName(error, 'InvalidRequestException', 'UnsupportedLanguageException', 'ValidationException')) {
        return answer(422, { message: 'This text cannot be checked. It has to be in English.' })
      }
      // Throttled, Comprehend still answers the others: an open circuit would take the answers from all. So it does not
      // count, but this text has to be checked all the same.
      if (hasName(error, 'ThrottlingException', 'TooManyRequestsException') || hasStatus(error, 429)) {
        console.warn(JSON.stringify({ message: 'Comprehend is throttled: keywords decided.' }))
        return answer(200, { ...checkByKeywords(text), checkedBy: 'keywords' })
      }
      // A missing permission, a bug: nothing is published, and the function's alarm rings.
      throw error
    }
  })

function detect(segments: readonly string[], signal: AbortSignal): Promise<DetectToxicContentCommandOutput> {
  const TextSegments = segments.map((Text) => ({ Text }))
  return comprehend.send(new DetectToxicContentCommand({ TextSegments, LanguageCode: 'en' }), { abortSignal: signal })
}

/** An answer that leaves something out is none: what nobody has looked at is not harmless. */
function isComplete({ ResultList = [] }: DetectToxicContentCommandOutput, count: number): boolean {
  return ResultList.length === count && ResultList.every(({ Toxicity }) => typeof Toxicity === 'number')
}

/** The worst segment decides. */
function judge({ ResultList = [] }: DetectToxicContentCommandOutput): Verdict {
  const labels = ResultList.flatMap(({ Labels = [] }) => Labels)
  const scores = [...ResultList.map(({ Toxicity }) => Toxicity ?? 1), ...labels.map(({ Score }) => Score ?? 0)]
  const worst = Math.max(...scores)
  const reasons = labels.flatMap(({ Name, Score = 0 }) => (Name !== undefined && Score >= doubtful ? Name : []))
  const decision = worst >= toxic ? 'rejected' : worst >= doubtful ? 'review' : 'accepted'
  return { decision, reasons: [...new Set(reasons)] }
}

const maxSegments = 10
/** In bytes: https://docs.aws.amazon.com/comprehend/latest/APIReference/API_DetectToxicContent.html */
const maxSegment = 1_000

const tooLong = { message: `The text is too long: at most ${maxSegments * maxSegment} bytes can be checked.` }

/** Cuts a text into what Comprehend takes; between words, for torn words mean nothing. `undefined`: it is too long. */
function segmentsOf(text: string): readonly string[] | undefined {
  if (Buffer.byteLength(text) > maxSegments * maxSegment) return undefined
  const segments: string[] = []
  let segment = ''
  for (const word of text.trim().split(/\s+/)) {
    const pieces = Buffer.byteLength(word) > maxSegment ? Array.from(word) : [word]
    for (const [index, piece] of pieces.entries()) {
      const longer = index > 0 || segment === '' ? segment + piece : `${segment} ${piece}`
      const fits = Buffer.byteLength(longer) <= maxSegment
      if (!fits) segments.push(segment)
      segment = fits ? longer : piece
    }
  }
  segments.push(segment)
  return segments.length > maxSegments ? undefined : segments
}

function readText({ body = '', isBase64Encoded }: APIGatewayProxyEventV2): string | undefined {
  try {
    const { text } = JSON.parse(isBase64Encoded ? Buffer.from(body, 'base64').toString() : body)
    return typeof text === 'string' && text.trim() !== '' ? text : undefined
  } catch {
    return undefined
  }
}

function answer(statusCode: number, body: Readonly<Record<string, unknown>>): APIGatewayProxyStructuredResultV2 {
  return { statusCode, headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }
}
