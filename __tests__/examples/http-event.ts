import type { APIGatewayProxyEventV2 } from 'aws-lambda'

/** The parts of a request that differ from test to test. */
export interface HttpRequest {
  /** Default: `GET /`. */
  readonly route?: `${'GET' | 'POST' | 'PUT' | 'DELETE'} /${string}`
  readonly query?: Readonly<Record<string, string>>
  readonly headers?: Readonly<Record<string, string>>
  /** Text as it is, anything else as JSON. */
  readonly body?: unknown
  /** Encoded in base64, as API Gateway does with what may be binary. */
  readonly base64?: boolean
  /** The caller's address. */
  readonly sourceIp?: string
  /** What API Gateway calls the request. */
  readonly requestId?: string
}

/** The event that an HTTP API of API Gateway makes of a request: payload format 2.0. */
export function httpEvent(request: HttpRequest = {}): APIGatewayProxyEventV2 {
  const {
    route = 'GET /',
    query,
    headers = {},
    body,
    base64 = false,
    sourceIp = '8.8.4.4',
    requestId = 'request',
  } = request
  const text = typeof body === 'string' ? body : JSON.stringify(body)
  const [method = '', path = ''] = route.split(' ')
  return {
    version: '2.0',
    routeKey: route,
    rawPath: path,
    rawQueryString: new URLSearchParams(query).toString(),
    headers: { 'content-type': 'application/json', ...headers },
    ...(query !== undefined && { queryStringParameters: { ...query } }),
    requestContext: {
      accountId: '123456789012',
      apiId: 'api',
      domainName: 'api.example.com',
      domainPrefix: 'api',
      http: { method, path, protocol: 'HTTP/1.1', sourceIp, userAgent: 'test' },
      requestId,
      routeKey: route,
      stage: '$default',
      time: '01/Jan/2026:00:00:00 +0000',
      timeEpoch: 1_767_225_600_000,
    },
    ...(body !== undefined && { body: base64 ? Buffer.from(text).toString('base64') : text }),
    isBase64Encoded: base64,
  }
}
