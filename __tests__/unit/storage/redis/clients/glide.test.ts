import { expect, it } from '@jest/globals'
import { RedisCircuitStorage } from '../../../../../src/storage/redis/index.ts'

const signalled = 'An error was signalled by the server: -'

it.each([
  [`${signalled} BusyLoadingError: Redis is loading the dataset in memory`, 'throttled', 'LOADING Redis is loading'],
  [`${signalled} MasterDown: Link with MASTER is down`, 'throttled', 'MASTERDOWN Link'],
  [`${signalled} ClusterDown: The cluster is down`, 'throttled', 'CLUSTERDOWN The'],
  [`${signalled} Moved: 3999 127.0.0.1:6381`, 'misconfigured', 'MOVED 3999'],
  [`${signalled} ResponseError: unknown command 'EVALSHA'`, 'misconfigured', 'ERR unknown command'],
  ['NOAUTH: Authentication required.', 'misconfigured', 'NOAUTH Authentication'],
  ['timed out', 'unavailable', 'timed out'],
  [
    'Standalone connect failed - IoError: Received error for address `127.0.0.1:1`: timed out',
    'unavailable',
    'Standalone',
  ],
])('an error of Valkey GLIDE has the word that the server sent: %s', async (message, kind, said) => {
  const client = { customCommand: () => Promise.reject(new Error(message)) }
  await expect(new RedisCircuitStorage({ client }).getState('stripe')).rejects.toMatchObject({
    kind,
    cause: { message: expect.stringContaining(said) },
  })
})
