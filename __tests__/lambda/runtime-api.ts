/**
 * The side of Lambda that the runtime client talks to: a server with the HTTP interface that AWS documents as "Lambda
 * runtime API". Each execution environment has one of its own.
 *
 * @module
 */

import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { performance } from 'node:perf_hooks'

/** What the runtime client says about what was thrown. */
export interface ReportedError {
  readonly errorType: string
  readonly errorMessage: string
  readonly trace?: readonly string[]
}

export interface Invocation {
  readonly requestId: string
  readonly event: unknown
  /** How long it may take from the moment when it is handed to the runtime. */
  readonly timeout: number
  /** Called as it is handed to the runtime. */
  readonly onStart?: () => void
  /** Called for each piece of a streamed response as it arrives. */
  readonly onChunk?: (chunk: Chunk) => void
}

/** A piece of a response. */
export interface Chunk {
  readonly text: string
  /** Since the invocation was handed to the runtime. */
  readonly after: number
}

/** What the runtime has answered: either with or without an error, and for a streamed response with what came before it. */
export interface Answer {
  readonly error: ReportedError | undefined
  readonly body: string
  readonly streamed: boolean
  readonly contentType: string
  readonly chunks: readonly Chunk[]
}

export interface RuntimeApi {
  /** What the variable `AWS_LAMBDA_RUNTIME_API` should be. */
  readonly address: string
  /** How many requests for the next invocation wait for one: 1 once the runtime is idle, or one for each of its workers. */
  waiting(): number
  /** Hands the invocation to the runtime as soon as it asks for the next one; resolves when it was answered. */
  invoke(invocation: Invocation): Promise<Answer>
  /** What has arrived of a response that was not finished. */
  chunksOf(requestId: string): readonly Chunk[]
  stop(): Promise<void>
}

export interface RuntimeApiOptions {
  readonly functionName: string
  /** By which deadlines are told, in milliseconds since the epoch. */
  readonly now: () => number
  /** The runtime has asked for the next invocation and there is none yet. */
  readonly onIdle: () => void
  /** The runtime could not load the handler. */
  readonly onInitError: (error: ReportedError) => void
}

interface Running extends Invocation {
  readonly chunks: Chunk[]
  readonly answered: (answer: Answer) => void
  startedAt: number
}

const prefix = '/2018-06-01/runtime'

/** Starts a server on a free port of the loopback interface. */
export async function startRuntimeApi({
  functionName,
  now,
  onIdle,
  onInitError,
}: RuntimeApiOptions): Promise<RuntimeApi> {
  const running = new Map<string, Running>()
  const queue: Running[] = []
  const polls = new Set<ServerResponse>()

  function handOver(): void {
    for (const poll of polls) {
      const invocation = queue.shift()
      if (!invocation) return
      polls.delete(poll)
      start(invocation, poll)
    }
  }

  function start(invocation: Running, poll: ServerResponse): void {
    invocation.onStart?.()
    invocation.startedAt = performance.now()
    poll
      .writeHead(200, {
        'Content-Type': 'application/json',
        'Lambda-Runtime-Aws-Request-Id': invocation.requestId,
        'Lambda-Runtime-Deadline-Ms': String(now() + invocation.timeout),
        'Lambda-Runtime-Invoked-Function-Arn': `arn:aws:lambda:eu-central-1:123456789012:function:${functionName}`,
        'Lambda-Runtime-Trace-Id': 'Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=0',
      })
      .end(JSON.stringify(invocation.event ?? null))
  }

  async function receive(request: IncomingMessage, invocation: Running, failed: boolean): Promise<void> {
    const streamed = request.headers['lambda-runtime-function-response-mode'] === 'streaming'
    request.setEncoding('utf8')
    for await (const text of request as AsyncIterable<string>) {
      const chunk = { text, after: performance.now() - invocation.startedAt }
      invocation.chunks.push(chunk)
      if (streamed) invocation.onChunk?.(chunk)
    }
    const body = invocation.chunks.map(({ text }) => text).join('')
    const trailer = request.trailers['lambda-runtime-function-error-body']
    running.delete(invocation.requestId)
    invocation.answered({
      error: failed
        ? JSON.parse(body)
        : trailer === undefined
          ? undefined
          : JSON.parse(Buffer.from(trailer, 'base64').toString()),
      body,
      streamed,
      contentType: request.headers['content-type'] ?? '',
      chunks: invocation.chunks,
    })
  }

  const server = createServer(async (request, response) => {
    try {
      const path = request.url ?? ''
      if (path === `${prefix}/invocation/next`) {
        polls.add(response)
        response.once('close', () => polls.delete(response))
        if (queue.length > 0) handOver()
        else onIdle()
        return
      }
      if (path === `${prefix}/init/error`) {
        onInitError(JSON.parse(await textOf(request)))
        accept(response)
        return
      }
      const [, id = '', verb] = /\/invocation\/([^/]+)\/(response|error)$/.exec(path) ?? []
      const invocation = running.get(decodeURIComponent(id))
      if (!invocation) {
        response.writeHead(400).end(JSON.stringify({ errorType: 'InvalidRequestID', errorMessage: path }))
        return
      }
      await receive(request, invocation, verb === 'error')
      accept(response)
    } catch {
      // The runtime was killed while it sent its answer; the environment tells of it.
      response.destroy()
    }
  })
  server.keepAliveTimeout = 0
  server.requestTimeout = 0
  server.on('connection', (socket) => socket.unref())
  server.unref()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    waiting: () => polls.size,
    invoke: (invocation) =>
      new Promise((answered) => {
        const entry: Running = { ...invocation, chunks: [], answered, startedAt: performance.now() }
        running.set(invocation.requestId, entry)
        queue.push(entry)
        handOver()
      }),
    chunksOf: (requestId) => running.get(requestId)?.chunks ?? [],
    stop: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

function accept(response: ServerResponse): void {
  response.writeHead(202, { 'Content-Type': 'application/json' }).end('{"status":"OK"}\n')
}

async function textOf(request: IncomingMessage): Promise<string> {
  let text = ''
  request.setEncoding('utf8')
  for await (const chunk of request as AsyncIterable<string>) text += chunk
  return text
}
