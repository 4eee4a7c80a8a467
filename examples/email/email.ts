import type { APIGatewayProxyEventV2 } from 'aws-lambda'

export interface Email {
  /** The same for the same e-mail, however often it is tried. */
  readonly id: string
  readonly to: string
  readonly subject: string
  readonly text: string
}

/** What fits into a message of SQS with room to spare, in bytes. */
const largest = 200_000

/** Reads the e-mail from a request; a string says what is wrong with it. */
export function emailOf({ body, isBase64Encoded, headers, requestContext }: APIGatewayProxyEventV2): Email | string {
  const { to, subject, text } = fieldsOf(isBase64Encoded ? Buffer.from(body ?? '', 'base64').toString() : body)
  const id = headers['idempotency-key'] ?? requestContext.requestId
  // It becomes a header of the request to Resend, which could not even be sent with anything else.
  if (!/^[!-~]{1,256}$/.test(id)) return 'The header Idempotency-Key must be 1 to 256 ASCII characters without spaces.'
  if (!isShortText(to, 254) || !/^[^\s@,;<>]+@[^\s@,;<>]+$/.test(to)) return '"to" must be one e-mail address.'
  if (!isShortText(subject, 500)) return '"subject" must be a line of 1 to 500 characters.'
  if (typeof text !== 'string' || text === '') return '"text" must be a string that is not empty.'
  const email = { id, to, subject, text }
  return Buffer.byteLength(JSON.stringify(email)) > largest ? `The e-mail is longer than ${largest} bytes.` : email
}

/** Reads an e-mail that the handler has queued. `undefined`: the message is no e-mail. */
export function queuedEmailOf(json: string): Email | undefined {
  const { id, to, subject, text } = fieldsOf(json)
  const isEmail = [id, to, subject, text].every((field) => typeof field === 'string')
  return isEmail ? ({ id, to, subject, text } as Email) : undefined
}

function fieldsOf(json: string | undefined): Record<keyof Email, unknown> {
  const none = { id: undefined, to: undefined, subject: undefined, text: undefined }
  try {
    return { ...none, ...JSON.parse(json ?? '') }
  } catch {
    return none
  }
}

function isShortText(value: unknown, longest: number): value is string {
  // No control characters: an e-mail's header ends with its line.
  return typeof value === 'string' && value.length >= 1 && value.length <= longest && !/\p{Cc}/u.test(value)
}
