import { type RedisProxy, startProxy } from '../support/redis-server.ts'

/** A proxy for the server on this port that ends with the test, also with one that fails. */
export async function proxyFor(port: number): Promise<RedisProxy & AsyncDisposable> {
  const proxy = await startProxy({ port })
  return { ...proxy, [Symbol.asyncDispose]: () => proxy.stop() }
}
