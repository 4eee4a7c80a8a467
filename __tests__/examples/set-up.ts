/**
 * The set-up that tests of examples share. Call it at the top of a test file: it registers jest's hooks.
 *
 * @module
 */

import { format } from 'node:util'
import { afterAll, afterEach, beforeAll, beforeEach, jest } from '@jest/globals'
import { type DynamoDBServer, startDynamoDBLocal } from '../support/dynamodb-local.ts'
import { type StoppedTime, stopTime } from './stopped-time.ts'

/** DynamoDB Local with a table of the test file. Read its fields inside tests and hooks. */
export function useDynamoDB(): Pick<DynamoDBServer, 'variables'> & { readonly tableName: string } {
  let server: DynamoDBServer
  let tableName: string
  beforeAll(async () => {
    server = await startDynamoDBLocal()
    tableName = await server.createTable()
  })
  afterAll(() => server?.stop())
  return {
    get variables() {
      return server.variables
    },
    get tableName() {
      return tableName
    },
  }
}

/**
 * Stops the time anew for each test, and keeps these levels of the console to itself.
 *
 * @returns the time of the test that runs
 */
export function useStoppedTime(
  ...levels: readonly ('warn' | 'error')[]
): Pick<StoppedTime, 'advance' | 'jump' | 'hang'> {
  let time: StoppedTime
  beforeEach(() => {
    time = stopTime()
    for (const level of levels) jest.spyOn(console, level).mockReturnValue()
  })
  afterEach(() => {
    jest.restoreAllMocks()
    time[Symbol.dispose]()
  })
  return {
    advance: (...args) => time.advance(...args),
    jump: (...args) => time.jump(...args),
    hang: (...args) => time.hang(...args),
  }
}

/** The text of the log of this test, at the levels that {@link useStoppedTime} keeps. */
export function printed(): string {
  const { warn, error } = console
  return [warn, error].flatMap((log) => jest.mocked(log).mock.calls.map((line) => format(...line))).join('\n')
}
