/**
 * Stores that are not the subject of a test are patient: no stall of a machine makes them time out. Tests of slow,
 * silent or broken stores set their own times instead.
 *
 * @module
 */

import { patience } from './time.ts'

/** For the options of a breaker. */
export const patientStore = { storageTimeout: patience } as const

/** For a function that is set up by environment variables. */
export const patientVariables = { CIRCUIT_BREAKER_STORAGE_TIMEOUT: String(patience) } as const

/** For the options of an ioredis client. */
export const patientRedis = { commandTimeout: patience, connectTimeout: patience, socketTimeout: patience } as const

/** The same in the address of a Redis server, for a function that gets no more than that. */
export function patientRedisUrl(url: string): string {
  return `${url}?${Object.entries(patientRedis)
    .map(([name, time]) => `${name}=${time}`)
    .join('&')}`
}

/** For the configuration of a DynamoDB client. */
export const patientDynamoDB = {
  requestHandler: { connectionTimeout: patience, requestTimeout: patience, socketTimeout: patience },
} as const
