import type { APIGatewayProxyEventV2 } from 'aws-lambda'

/** The parts of a request that differ from test to test. */
export interface HttpRequest {
  /** Default: `GET /`. */
  readonly route?: `${'GET' | 'POST' | 'PUT' | 'DELETE'} /${string}`
  readonly query?: Readonly<Record<string, string>>
  readonly headers?: Readonly<Record<string, string>>
  /** Text as it is, anything else as JSON. */
  readonly body?: unknown
  /** The caller's address. */
  readonly sourceIp?: string
}

/** The event that an HTTP API of API Gateway makes of a request: payload format 2.0. */
export function httpEvent(request: HttpRequest = {}): APIGatewayProxyEventV2 {
  const { route = 'GET /', query, headers = {}, body, sourceIp = '8.8.4.4' } = request
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
      requestId: 'request',
      routeKey: route,
      stage: '$default',
      time: '01/Jan/2026:00:00:00 +0000',
      timeEpoch: 1_767_225_600_000,
    },
    ...(body !== undefined && { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    isBase64Encoded: false,
  }
}
