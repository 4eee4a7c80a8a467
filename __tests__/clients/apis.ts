/** Clients of HTTP that came after the first, and of single APIs. */

import { createDefaultHttpClient, createPipelineFromOptions, createPipelineRequest } from '@azure/core-rest-pipeline'
import { Client as ElasticsearchClient } from '@elastic/elasticsearch'
import { request as octokitRequest } from '@octokit/request'
import { LogLevel, WebClient } from '@slack/web-api'
import { request as gaxiosRequest } from 'gaxios'
import { GraphQLClient } from 'graphql-request'
import nodeFetch from 'node-fetch'
import OpenAI from 'openai'
import superagentRequest from 'superagent'
import { type Client, parse, plain, url, within } from './client.ts'
import { httpService } from './servers.ts'

/** Answers with this JSON, and with some other where it fails. */
const json = (answer: object, headers: Readonly<Record<string, string>> = {}) =>
  httpService((fault) => ({
    body: JSON.stringify(fault === 'none: it answers' ? answer : { message: 'm' }),
    headers: { 'content-type': 'application/json', ...headers },
  }))

export const nodeFetchClient: Client = {
  kind: 'http',
  serve: plain,
  async call(attempt) {
    const response = await nodeFetch(url(attempt.endpoint), { signal: within(attempt) })
    if (attempt.readsBody) parse(response.status, await response.text())
    return response
  },
  readLater: (response: Response) => response.text(),
}

/** It takes no signal, and its `abort()` throws what nobody can catch. */
export const superagent: Client = {
  kind: 'http',
  serve: plain,
  async call({ endpoint, timeout }) {
    return await superagentRequest.get(url(endpoint)).timeout(timeout === undefined ? {} : { deadline: timeout })
  },
}

export const gaxios: Client = {
  kind: 'http',
  serve: plain,
  call: ({ endpoint, signal, timeout }) =>
    gaxiosRequest({ url: url(endpoint), signal, retry: false, ...(timeout !== undefined && { timeout }) }),
}

export const azure: Client = {
  kind: 'api',
  serve: plain,
  call(attempt) {
    const pipeline = createPipelineFromOptions({ retryOptions: { maxRetries: 0 } })
    const request = createPipelineRequest({
      url: url(attempt.endpoint),
      allowInsecureConnection: true,
      abortSignal: within(attempt),
      timeout: attempt.timeout ?? 0,
    })
    return pipeline.sendRequest(createDefaultHttpClient(), request)
  },
}

export const elasticsearch: Client = {
  kind: 'api',
  serve: json({ hits: { hits: [] } }, { 'x-elastic-product': 'Elasticsearch' }),
  call({ endpoint, signal, timeout }) {
    const limit = timeout === undefined ? {} : { requestTimeout: timeout }
    const client = new ElasticsearchClient({ node: url(endpoint), maxRetries: 0, ...limit })
    return client.search({ index: 'i' }, { signal })
  },
}

export const graphqlRequest: Client = {
  kind: 'api',
  serve: json({ data: { answer: 42 } }),
  call: (attempt) => new GraphQLClient(url(attempt.endpoint), { signal: within(attempt) }).request('{ answer }'),
}

export const octokit: Client = {
  kind: 'api',
  serve: plain,
  call: (attempt) =>
    octokitRequest('GET /', { baseUrl: url(attempt.endpoint).slice(0, -1), request: { signal: within(attempt) } }),
}

export const openai: Client = {
  kind: 'api',
  serve: json({ object: 'list', data: [] }),
  async call({ endpoint, signal, timeout }) {
    const limit = timeout === undefined ? {} : { timeout }
    const client = new OpenAI({ apiKey: 'test', baseURL: url(endpoint), maxRetries: 0, ...limit })
    return await client.models.list({ signal })
  },
}

export const slack: Client = {
  kind: 'api',
  serve: json({ ok: true }),
  call({ endpoint, timeout = 0 }) {
    const client = new WebClient('test', {
      slackApiUrl: url(endpoint),
      retryConfig: { retries: 0 },
      rejectRateLimitedCalls: true,
      logLevel: LogLevel.ERROR,
      timeout,
    })
    return client.chat.postMessage({ channel: 'c', text: 't' })
  },
}
